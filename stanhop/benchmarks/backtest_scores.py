"""What a backtest says: scores of each forecaster, as a table, as CSV, and as a picture of errors by window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stanhop.forecasting import metrics
from stanhop.forecasting.calendar import season_length
from stanhop.forecasting.intervals import named
from stanhop.forecasting.plots import as_png, label_times, tidy
from stanhop.forecasting.tables import csv_bytes, escape_formula, time_texts

if TYPE_CHECKING:
    from stanhop.benchmarks.backtest import Backtest, Forecasts

Values = NDArray[np.float64]
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe & Ito's palette: told apart with every kind of colour vision; the first is the network's."""
SEASONAL_NAIVE = "seasonal_naive"


@dataclass(frozen=True)
class Scores:
    """How wrong one forecaster was.

    Args:
        forecaster: Its name.
        metrics: ``mse_scaled``, ``mae_scaled`` with its standard deviation over windows ``mae_scaled_sd``, ``mse``,
            ``mae``, ``rmse``, ``mase``, ``smape_200``, ``wins`` (share of windows in which no other had a lower
            ``mae_scaled``), ``skill_vs_snaive`` if the seasonal naive forecast is among them, and of each level
            ``coverage_80`` and ``width_80_scaled`` if it has intervals.
        mae_by_window: ``mae_scaled`` of each window.
        seconds: What training and forecasting took.
    """

    forecaster: str
    metrics: dict[str, float]
    mae_by_window: tuple[float, ...]
    seconds: float


def scores_of(found: Backtest) -> list[Scores]:
    """The scores of each forecaster, lowest ``mae_scaled`` first."""
    by_window = {one.name: _scaled_errors(found, one).mean(axis=(0, 2, 3)) for one in found.forecasts}
    best = np.min(np.stack(list(by_window.values())), axis=0)
    naive = by_window.get(SEASONAL_NAIVE)
    scores = []
    for one in found.forecasts:
        errors = by_window[one.name]
        values = _metrics(found, one) | {
            "mae_scaled_sd": float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0,
            "wins": float(np.mean(errors <= best)),
        }
        if naive is not None:
            values["skill_vs_snaive"] = metrics.skill(float(errors.mean()), float(naive.mean()))
        scores.append(Scores(one.name, values, tuple(errors.tolist()), one.seconds))
    return sorted(scores, key=lambda each: each.metrics["mae_scaled"])


def _scaled_errors(found: Backtest, one: Forecasts) -> Values:
    """Absolute errors in units of the deviation before the first origin, ``(series, windows, steps, channels)``."""
    deviations = np.stack([scaler.deviation for scaler in found.scalers])
    errors: Values = np.abs(found.targets - one.values) / deviations[:, None, None]
    return errors


def _metrics(found: Backtest, one: Forecasts) -> dict[str, float]:
    scaled, deviations = _scaled_errors(found, one), np.stack([scaler.deviation for scaler in found.scalers])
    first = found.origins[0]
    season = season_length(found.series_set.frequency)
    units = np.stack([metrics.seasonal_difference(each.values[:first], season) for each in found.series_set.series])
    values = {
        "mse_scaled": float(np.mean(np.square(scaled))),
        "mae_scaled": float(np.mean(scaled)),
        "mse": metrics.mse(one.values, found.targets),
        "mae": metrics.mae(one.values, found.targets),
        "rmse": metrics.rmse(one.values, found.targets),
        "mase": metrics.mean_of_ratios(np.abs(found.targets - one.values).mean(axis=(1, 2)), units),
        "smape_200": metrics.smape_200(one.values, found.targets),
    }
    for level, lower in one.lower.items():
        upper = one.upper[level]
        values[f"coverage_{named(level)}"] = float(np.mean((lower <= found.targets) & (found.targets <= upper)))
        values[f"width_{named(level)}_scaled"] = float(np.mean((upper - lower) / deviations[:, None, None]))
    return values


def to_markdown(scores: Sequence[Scores]) -> str:
    """A line a forecaster, best first."""
    levels = [key.removeprefix("coverage_") for key in _columns(scores) if key.startswith("coverage_")]
    headings = ["forecaster", "MAE", "sd", "MSE", "MASE", "skill", "wins", *(f"in {level} %" for level in levels), "s"]
    lines = [headings, ["---"] * len(headings)]
    for each in scores:
        found = each.metrics
        cells = [f"{found[key]:.3f}" for key in ("mae_scaled", "mae_scaled_sd", "mse_scaled", "mase")]
        skill = f"{found['skill_vs_snaive']:.3f}" if "skill_vs_snaive" in found else ""
        covered = [f"{100 * found[key]:.1f} %" if (key := f"coverage_{level}") in found else "" for level in levels]
        cells += [skill, f"{100 * found['wins']:.0f} %", *covered, f"{each.seconds:,.1f}"]
        lines.append([each.forecaster, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def scores_csv(scores: Sequence[Scores]) -> bytes:
    """A row a forecaster, a column a metric; empty where a forecaster has none."""
    columns = _columns(scores)
    rows = [[each.forecaster, *(each.metrics.get(key, "") for key in columns), each.seconds] for each in scores]
    return csv_bytes([["forecaster", *columns, "seconds"], *rows])


def forecasts_csv(found: Backtest) -> bytes:
    """Every forecast: id, channel, time, cutoff, truth, then a column a forecaster and one a bound."""
    return csv_bytes(_forecast_rows(found))


def _forecast_rows(found: Backtest) -> Iterable[list[str | float]]:
    columns = [(one.name, one.values) for one in found.forecasts]
    columns += [
        (f"{one.name}-{side}-{named(level)}", bounds[level])
        for one in found.forecasts
        for level in one.lower
        for side, bounds in (("lo", one.lower), ("hi", one.upper))
    ]
    yield ["unique_id", "channel", "ds", "cutoff", "y", *(name for name, _ in columns)]
    cutoffs = time_texts(found.cutoffs)
    steps = found.targets.shape[2]
    for place, series in enumerate(found.series_set.series):
        for window, origin in enumerate(found.origins):
            times = time_texts(series.times[origin : origin + steps])
            for channel, name in enumerate(series.channels):
                for step, time in enumerate(times):
                    where = (place, window, step, channel)
                    keys: list[str | float] = [escape_formula(series.id), escape_formula(name), time, cutoffs[window]]
                    yield [*keys, float(found.targets[where]), *(float(values[where]) for _, values in columns)]


def _columns(scores: Sequence[Scores]) -> list[str]:
    return list(dict.fromkeys(key for each in scores for key in each.metrics))


def error_plot(found: Backtest, scores: Sequence[Scores]) -> bytes:
    """``mae_scaled`` of each window by its cutoff, a line a forecaster; a dotted line where a training began anew."""
    figure = Figure(figsize=(9.0, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    times = found.cutoffs.tz_localize(None)
    order = [one.name for one in found.forecasts]
    for each in sorted(scores, key=lambda one: order.index(one.forecaster)):
        place = order.index(each.forecaster)
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "linewidth": 1.2 if place else 2.2}
        label = f"{each.forecaster} ({each.metrics['mae_scaled']:.3f})"
        axes.plot(times, each.mae_by_window, marker="o", markersize=3, label=label, zorder=2 if place else 3, **look)
    first_windows = np.cumsum([len(fold.origins) for fold in found.folds])[:-1]
    for window in first_windows:
        axes.axvline(times[window], color="0.6", linewidth=0.8, linestyle=":")
    axes.set(ylabel="MAE of the window, scaled", xlabel="last known time", title="Backtest: error by window")
    axes.set_ylim(0, 1.25 * max(max(each.mae_by_window) for each in scores))  # the legend has room above
    label_times(axes)
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return as_png(figure)
