"""A model over the windows of a series, in order of time: what it saw, what it said, and what came true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stanhop.forecasting.forecaster import Forecaster
from stanhop.series.frame import Series
from stanhop.series.scaling import Scaler

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rolled:
    """A batch of windows, all in scaled units and the model's order of channels.

    Args:
        context: ``(windows, context_length, channels)``.
        forecast: ``(windows, prediction_length, channels)``.
        target: Of the same shape.
    """

    context: Values
    forecast: Values
    target: Values

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
    windows = sliding_window_view(values, length + steps, axis=0)  # (windows, channels, length + steps), a view
    for first in range(0, len(origins), batch_size):
        batch = origins[first : first + batch_size]
        chosen = windows[batch.start - length : batch.stop - length : batch.step].swapaxes(1, 2)
        scaled = scaler.transform(chosen)
        context = scaled[:, :length]
        yield Rolled(context=context, forecast=forecaster.predict(context), target=scaled[:, length:])
