"""How wrong a model is on a split of its data: every window, none dropped, in scaled and in original units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stanhop.forecasting import metrics
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calendar import season_length
from stanhop.forecasting.forecaster import Device, Forecaster
from stanhop.forecasting.window_errors import WindowErrors, batch_of_errors
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Split, borders, split_origins

Values = NDArray[np.float64]
Progress = Callable[[int, int], None]
DEFAULT_BATCH_SIZE = 64
NAIVE = "naive"
"""Absolute scaled errors of the seasonal naive forecast, which only ``skill_vs_snaive`` needs."""


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on one split.

    Args:
        split: Which split.
        num_windows: Windows evaluated, over all series.
        metrics: ``mse_scaled``, ``mae_scaled``, ``mse``, ``mae``, ``rmse``, ``mase``, ``smape_200``,
            ``skill_vs_snaive`` and ``num_windows``, over all windows, steps and channels.  ``mase`` is the mean over
            series and channels, so that each counts the same.  NaN where a metric is not defined.
        per_channel: The same but ``num_windows``, for each channel.
        per_step: The same but ``num_windows`` and ``mase``: one number for each step of the horizon.
        windows: The error of each window by itself.
    """

    split: Split
    num_windows: int
    metrics: dict[str, float]
    per_channel: dict[str, dict[str, float]]
    per_step: dict[str, tuple[float, ...]]
    windows: WindowErrors


def evaluate(
    bundle: Bundle,
    series_set: SeriesSet,
    *,
    split: Split = "test",
    device: Device = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress | None = None,
) -> Evaluation:
    """Forecast every window whose target lies in ``split`` and compare with what came true.

    The split is the one of the model's configuration.  A series the model has not seen is scaled by its own
    training rows, so no error sees a value of the split it belongs to.

    Args:
        bundle: The model.
        series_set: Its data, or other data with the same channels and frequency.
        split: Which rows to forecast.
        device: Where to compute.
        batch_size: Windows computed together.
        progress: Called with the numbers of windows done and in all.

    Raises:
        DataError: channels or frequency are not the model's, or a series is too short for a window in ``split``.
    """
    forecaster = Forecaster(bundle, device=device)
    for series in series_set.series:
        forecaster.check_fits(series)
    origins = [_origins(bundle, series, split) for series in series_set.series]
    num_windows = sum(map(len, origins))
    totals = _Totals()
    errors_by_series, units_by_series = [], []
    windows: list[np.ndarray] = []
    for number, (series, rows) in enumerate(zip(series_set.series, origins, strict=True)):
        own = _Totals()
        for errors in _batches_of_errors(forecaster, series, rows, batch_size=batch_size):
            batch = rows[own.num_windows : own.num_windows + batch_size]
            windows.append(batch_of_errors(errors, series=number, origins=batch))
            own.add(errors)
            if progress is not None:
                progress(totals.num_windows + own.num_windows, num_windows)
        totals.merge(own)
        errors_by_series.append(own.means()["mae"].mean(axis=0))
        units_by_series.append(_unit_of_mase(forecaster, series))
    ratios = (np.stack(errors_by_series), np.stack(units_by_series))
    return _summary(totals, ratios, WindowErrors.of(windows), channels=bundle.channels, split=split)


def _origins(bundle: Bundle, series: Series, split: Split) -> range:
    return split_origins(
        len(series),
        bundle.config.data.split,
        split,
        context_length=bundle.config.model.context_length,
        prediction_length=bundle.config.model.prediction_length,
        series_id=series.id,
    )


def _train_rows(bundle: Bundle, series: Series) -> slice:
    rows = borders(len(series), bundle.config.data.split, series_id=series.id).train
    return slice(rows.start, rows.stop)


def _unit_of_mase(forecaster: Forecaster, series: Series) -> Values:
    history = forecaster.in_model_order(series)[_train_rows(forecaster.bundle, series)]
    return metrics.seasonal_difference(history, season_length(series.frequency))


def _batches_of_errors(
    forecaster: Forecaster, series: Series, origins: range, *, batch_size: int
) -> Iterator[dict[str, Values]]:
    """Errors of ``batch_size`` windows at a time: name to ``(windows, prediction_length, channels)``."""
    model = forecaster.bundle.config.model
    length, steps = model.context_length, model.prediction_length
    season = season_length(series.frequency)
    scaler = forecaster.scaler_of(series, rows=_train_rows(forecaster.bundle, series))
    values = forecaster.in_model_order(series)
    windows = sliding_window_view(values, length + steps, axis=0)  # (windows, channels, length + steps), a view
    for first in range(0, len(origins), batch_size):
        batch = origins[first : first + batch_size]
        window = windows[batch.start - length : batch.stop - length].swapaxes(1, 2)
        scaled = scaler.transform(window)
        context, scaled_target = scaled[:, :length], scaled[:, length:]
        scaled_forecast = forecaster.predict(context)
        forecast, target = scaler.inverse(scaled_forecast), window[:, length:]
        naive = metrics.seasonal_naive(context, season=season, steps=steps)
        yield {
            "mse_scaled": np.square(scaled_target - scaled_forecast),
            "mae_scaled": np.abs(scaled_target - scaled_forecast),
            "mse": np.square(target - forecast),
            "mae": np.abs(target - forecast),
            "smape_200": metrics.symmetric_percentages(forecast, target),
            NAIVE: np.abs(scaled_target - naive),
        }


class _Totals:
    """Running sums of errors over windows, so that no window needs to be kept."""

    def __init__(self) -> None:
        self.num_windows = 0
        self.sums: dict[str, Values] = {}

    def add(self, errors: Mapping[str, Values]) -> None:
        """Take in a batch: name to ``(windows, prediction_length, channels)``."""
        self.num_windows += len(errors["mae"])
        for name, each in errors.items():
            self.sums[name] = self.sums.get(name, 0.0) + each.sum(axis=0)

    def merge(self, other: _Totals) -> None:
        """Take in the windows of ``other``."""
        self.num_windows += other.num_windows
        for name, total in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + total

    def means(self) -> dict[str, Values]:
        """Name to the mean over windows, ``(prediction_length, channels)``."""
        return {name: total / self.num_windows for name, total in self.sums.items()}


def _summary(
    totals: _Totals, ratios: tuple[Values, Values], windows: WindowErrors, *, channels: Sequence[str], split: Split
) -> Evaluation:
    """Collect the metrics; ``ratios`` are errors and units of ``mase``, ``(series, channels)`` both."""
    means = totals.means()
    per_channel = {
        name: {**_averaged(means, (slice(None), index)), "mase": metrics.mean_of_ratios(*(x[:, index] for x in ratios))}
        for index, name in enumerate(channels)
    }
    overall = {**_averaged(means, (slice(None), slice(None))), "mase": metrics.mean_of_ratios(*ratios)}
    steps = [_averaged(means, (step, slice(None))) for step in range(len(means["mae"]))]
    return Evaluation(
        split=split,
        num_windows=totals.num_windows,
        metrics={**overall, "num_windows": float(totals.num_windows)},
        per_channel=per_channel,
        per_step={name: tuple(step[name] for step in steps) for name in steps[0]},
        windows=windows,
    )


def _averaged(means: Mapping[str, Values], where: tuple[int | slice, int | slice]) -> dict[str, float]:
    """Metrics over the steps and channels that ``where`` picks from means of ``(prediction_length, channels)``."""
    picked = {name: float(np.mean(mean[where])) for name, mean in means.items()}
    naive = picked.pop(NAIVE)
    return {
        **picked,
        "rmse": float(np.sqrt(picked["mse"])),
        "skill_vs_snaive": metrics.skill(picked["mae_scaled"], naive),
    }
