"""How wrong a model is on a split of its data: every window, none dropped, in scaled and in original units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stanhop.forecasting import metrics
from stanhop.forecasting.adaptive import AdaptiveIntervals
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calendar import season_length
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.forecaster import Device, Forecaster
from stanhop.forecasting.intervals import Intervals, named
from stanhop.forecasting.rolling import Rolled, origins_of, roll, train_rows
from stanhop.forecasting.window_errors import WindowErrors, batch_of_errors
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.scaling import Scaler
from stanhop.series.windows import Split

Values = NDArray[np.float64]
Progress = Callable[[int, int], None]
DEFAULT_BATCH_SIZE = 64
ADAPTIVE = "adaptive_"
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
            series and channels, so that each counts the same.  NaN where a metric is not defined.  With intervals, for
            each level such as 80: ``coverage_80``, ``width_80`` and ``width_80_scaled``, and the interval score
            ``winkler_80_scaled``; ``adaptive_coverage_80`` and so on of those that learn on the way.
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
    levels: Sequence[float] = (),
    is_adaptive: bool = False,
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
        levels: Prediction intervals to measure, in percent; those that the model does not have are calibrated on the
            validation rows of ``series_set``.
        is_adaptive: Whether to measure as well how they do when they learn from each outcome, see ``adaptive``.

    Raises:
        DataError: channels or frequency are not the model's, or a series is too short for a window in ``split``.
    """
    forecaster = Forecaster(bundle, device=device)
    for series in series_set.series:
        forecaster.check_fits(series)
    origins = [origins_of(bundle, series, split) for series in series_set.series]
    num_windows = sum(map(len, origins))
    intervals = intervals_for(bundle, series_set, levels, device=device, batch_size=batch_size)
    totals = _Totals()
    errors_by_series, units_by_series = [], []
    windows: list[np.ndarray] = []
    for number, (series, rows) in enumerate(zip(series_set.series, origins, strict=True)):
        own = _Totals()
        adaptive = AdaptiveIntervals(intervals) if is_adaptive and intervals is not None else None
        scaler = forecaster.scaler_of(series, rows=train_rows(bundle, series))
        season = season_length(series.frequency)
        for batch in roll(forecaster, series, rows, scaler=scaler, batch_size=batch_size):
            errors = _errors(batch, scaler, season=season) | _interval_errors(batch, scaler, intervals, adaptive)
            batch_origins = rows[own.num_windows : own.num_windows + len(batch)]
            windows.append(batch_of_errors(errors, series=number, origins=batch_origins))
            own.add(errors)
            if progress is not None:
                progress(totals.num_windows + own.num_windows, num_windows)
        totals.merge(own)
        errors_by_series.append(own.means()["mae"].mean(axis=0))
        units_by_series.append(_unit_of_mase(forecaster, series))
    ratios = (np.stack(errors_by_series), np.stack(units_by_series))
    return _summary(totals, ratios, WindowErrors.of(windows), channels=bundle.channels, split=split)


def intervals_for(
    bundle: Bundle, series_set: SeriesSet, levels: Sequence[float], *, device: Device, batch_size: int
) -> Intervals | None:
    """The intervals of ``levels``: the model's own or, if it lacks one, calibrated now; None if there are no levels."""
    if not levels:
        return None
    if bundle.intervals is not None and set(levels) <= set(bundle.intervals.levels):
        return bundle.intervals.only(levels)
    return calibrate(bundle, series_set, levels=sorted(levels), device=device, batch_size=batch_size)


def _unit_of_mase(forecaster: Forecaster, series: Series) -> Values:
    history = forecaster.in_model_order(series)[train_rows(forecaster.bundle, series)]
    return metrics.seasonal_difference(history, season_length(series.frequency))


def _errors(batch: Rolled, scaler: Scaler, *, season: int) -> dict[str, Values]:
    """Errors of a batch: name to ``(windows, prediction_length, channels)``."""
    before, ahead = np.split(batch.usual, [batch.context.shape[1]], axis=1)
    forecast = scaler.inverse(batch.forecast + ahead)
    naive = metrics.seasonal_naive(batch.context + before, season=season, steps=batch.target.shape[1])
    return {
        "mse_scaled": np.square(batch.target - batch.forecast),
        "mae_scaled": np.abs(batch.target - batch.forecast),
        "mse": np.square(batch.truth - forecast),
        "mae": np.abs(batch.truth - forecast),
        "smape_200": metrics.symmetric_percentages(forecast, batch.truth),
        NAIVE: np.abs(batch.target + ahead - naive),
    }


def _interval_errors(
    batch: Rolled, scaler: Scaler, intervals: Intervals | None, adaptive: AdaptiveIntervals | None
) -> dict[str, Values]:
    """Coverage, width and score of the intervals of a batch: name to ``(windows, prediction_length, channels)``."""
    if intervals is None:
        return {}
    found = {"": intervals.around(batch.prediction, batch.context)}
    if adaptive is not None:
        found[ADAPTIVE] = adaptive.around(batch.prediction, batch.context, batch.target)
    errors: dict[str, Values] = {}
    for prefix, bounds in found.items():
        for level, lower, upper in zip(intervals.levels, *bounds, strict=True):
            name = named(level)
            width = upper - lower
            errors |= {
                f"{prefix}coverage_{name}": ((lower <= batch.target) & (batch.target <= upper)).astype(np.float64),
                f"{prefix}width_{name}": width * scaler.deviation,
                f"{prefix}width_{name}_scaled": width,
                f"{prefix}winkler_{name}_scaled": metrics.interval_scores(lower, upper, batch.target, level=level),
            }
    return errors


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
