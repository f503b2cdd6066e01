"""A model over the windows of a series, in order of time: what it saw, what it said, and what came true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import Prediction
from stanhop.series.frame import Series
from stanhop.series.scaling import Scaler
from stanhop.series.windows import Split, borders, split_origins

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rolled:
    """A batch of windows, in scaled units and the model's order of channels: anomalies, if there is a seasonal profile.

    Args:
        context: ``(windows, context_length, channels)``.
        prediction: What the network says.
        target: What came true, ``(windows, prediction_length, channels)``.
        truth: The same in original units.
        usual: The seasonal profile, ``(windows, context_length + prediction_length, channels)``.
    """

    context: Values
    prediction: Prediction
    target: Values
    truth: Values
    usual: Values

    @property
    def forecast(self) -> Values:
        """``(windows, prediction_length, channels)``."""
        return self.prediction.forecast

    def __len__(self) -> int:
        return len(self.context)


def roll(
    forecaster: Forecaster, series: Series, origins: range, *, scaler: Scaler, batch_size: int
) -> Iterator[Rolled]:
    """Forecast from each of ``origins``, ``batch_size`` windows at a time.

    Args:
        forecaster: The model.
        series: What it forecasts, with the model's channels.
        origins: First row of each target; every context and target must lie in the series.
        scaler: Of the series.
        batch_size: Windows computed together.
    """
    model = forecaster.bundle.config.model
    length, steps = model.context_length, model.prediction_length
    values = forecaster.in_model_order(series)
    anomalies = scaler.anomalies(values, series.times)
    tables = (values, forecaster.as_seen(anomalies, series.times), scaler.usual(series.times))
    windows = [sliding_window_view(table, length + steps, axis=0) for table in tables]  # (windows, columns, rows)
    for first in range(0, len(origins), batch_size):
        batch = origins[first : first + batch_size]
        taken = slice(batch.start - length, batch.stop - length, batch.step)
        chosen, seen, usual = (table[taken].swapaxes(1, 2) for table in windows)
        context, num_channels = np.ascontiguousarray(seen[:, :length]), values.shape[1]
        yield Rolled(
            context=context[..., :num_channels],
            prediction=forecaster.predict_all(context),
            target=seen[:, length:, :num_channels],
            truth=chosen[:, length:],
            usual=usual,
        )


def as_the_network_sees(forecaster: Forecaster, series: Series) -> Values:
    """All rows of ``series``, scaled, without what is usual and with time features, ``(steps, columns)``.

    Channels are in the model's order. A series that the model has not seen is scaled by its own training rows.
    """
    scaler = forecaster.scaler_of(series, rows=train_rows(forecaster.bundle, series))
    return forecaster.as_seen(scaler.anomalies(forecaster.in_model_order(series), series.times), series.times)


def origins_of(bundle: Bundle, series: Series, split: Split) -> range:
    """Every origin in ``split`` of ``series``, by the model's configuration.

    Raises:
        DataError: the series is too short for one.
    """
    model = bundle.config.model
    return split_origins(
        len(series),
        bundle.config.data.split,
        split,
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        series_id=series.id,
    )


def train_rows(bundle: Bundle, series: Series) -> slice:
    """The training rows of ``series``, by the model's configuration."""
    rows = borders(len(series), bundle.config.data.split, series_id=series.id).train
    return slice(rows.start, rows.stop)
