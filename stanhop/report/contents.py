"""What a report says of one run, collected from its files and its data; what cannot be had is named, not left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view

from stanhop.config import TrackingConfig
from stanhop.errors import UserError
from stanhop.forecasting.bundle import Bundle, load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.rolling import as_the_network_sees, origins_of
from stanhop.forecasting.window_errors import WindowErrors
from stanhop.quantization.outliers import OutlierReport, measure_outliers
from stanhop.report.residuals import ResidualChecks, check_residuals
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.load import load_series
from stanhop.series.windows import borders
from stanhop.tracking.artifacts import artifact
from stanhop.tracking.names import WINDOW_ERRORS
from stanhop.tracking.search import RunRecord

METRICS, MODEL = "metrics.json", "model"
NUM_ORIGINS, NUM_WORST = 3, 3
MOST_RESIDUALS = 500
"""Windows whose residuals are looked at: the last of the test rows."""
NUM_OUTLIER_WINDOWS = 64
SHOWN_HISTORY = 2
"""Horizons of history before a forecast."""
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class ForecastAt:
    """A forecast from some row of the test split, and what came true; original units.

    Args:
        series_id: Of which series.
        times: Of history and horizon, ``(history + prediction_length,)``.
        truth: ``(history + prediction_length, channels)``.
        forecast: ``(prediction_length, channels)``.
        bounds: Lower and upper bound of each level of intervals, ``(prediction_length, channels)`` both; none if the
            model has no intervals.
        error: Its squared error in scaled units, where that is known.
    """

    series_id: str
    times: pd.DatetimeIndex
    truth: np.ndarray
    forecast: np.ndarray
    bounds: Mapping[float, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    error: float | None = None

    @property
    def origin_time(self) -> pd.Timestamp:
        """Time of the first forecast step."""
        return self.times[-len(self.forecast)]


@dataclass(frozen=True)
class DataCard:
    """What the data are.

    Args:
        source: Name of the set, or the file.
        facts: Label and value, in order.
        channels: Name, mean, deviation, smallest and largest value of each, over all rows.
    """

    source: str
    facts: tuple[tuple[str, str], ...]
    channels: tuple[tuple[str, float, float, float, float], ...]


@dataclass(frozen=True, eq=False)
class RunContents:
    """Everything a report shows of one run; what is None or empty was not to be had, and ``problems`` says why."""

    run: RunRecord
    epochs: tuple[dict[str, Any], ...] = ()
    per_channel: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    per_step: Mapping[str, list[float]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    card: DataCard | None = None
    forecasts: tuple[ForecastAt, ...] = ()
    worst: tuple[ForecastAt, ...] = ()
    residuals: ResidualChecks | None = None
    outliers: OutlierReport | None = None
    alphas: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def collect(
    run: RunRecord,
    tracking: TrackingConfig,
    *,
    folder: Path,
    source: str | None = None,
    num_origins: int = NUM_ORIGINS,
    report: Callable[[str], None] = lambda line: None,
) -> RunContents:
    """Read the files of ``run``, load its data, and forecast again what the report shows.

    Args:
        run: A finished training.
        tracking: Where its files are.
        folder: Where the store lies if ``tracking`` names no address.
        source: Where the data are now; where they were when it was trained if None.
        num_origins: Forecasts to show; 0 forecasts nothing: no worst windows, residuals and outliers either.
        report: Told what goes on.
    """
    with ExitStack() as stack:
        paths = {
            name: stack.enter_context(artifact(run, name, tracking, folder=folder))
            for name in (METRICS, MODEL, WINDOW_ERRORS)
        }
        contents = _with_metrics(RunContents(run), paths[METRICS])
        model_path = paths[MODEL]
        if model_path is None:
            return _lacking(contents, "the run keeps no model directory, so nothing can be forecast again")
        try:
            bundle = load_bundle(model_path)
        except UserError as error:
            return _lacking(contents, f"the model directory cannot be read ({error.problem})")
        contents = replace(contents, channels=bundle.channels, alphas=learned_alphas(bundle.network))
        data = bundle.config.data if source is None else bundle.config.data.model_copy(update={"source": source})
        try:
            series_set = load_series(data)
            contents = replace(contents, card=_data_card(series_set, bundle, data.source))
            if series_set.fingerprint != bundle.fingerprint:
                contents = _lacking(contents, f"{data.source} is not what the model was trained on: it has changed")
            if not bundle.config.data.split.has_test:
                return _lacking(contents, "no rows were kept for the test, so there is nothing to forecast again")
            if num_origins == 0:
                return contents
            report(f"{run.name}: forecasting test windows")
            return _with_forecasts(contents, bundle, series_set, paths[WINDOW_ERRORS], num_origins=num_origins)
        except UserError as error:
            hint = "" if source is not None else "; --data says where the data are now"
            return _lacking(contents, f"the data cannot be used ({error.problem}){hint}")


def learned_alphas(network: torch.nn.Module) -> dict[str, tuple[float, ...]]:
    """The alphas that were learned, by layer, one a head."""
    return {
        name: tuple(torch.as_tensor(module.alpha).detach().double().flatten().tolist())
        for name, module in network.named_modules()
        if getattr(module, "alpha_logit", None) is not None
    }


def _lacking(contents: RunContents, problem: str) -> RunContents:
    return replace(contents, problems=(*contents.problems, problem))


def _with_metrics(contents: RunContents, path: Path | None) -> RunContents:
    if path is None:
        return _lacking(
            contents, f"the run keeps no {METRICS}, so errors by step and channel and its epochs are unknown"
        )
    document = json.loads(path.read_text(encoding="utf-8"))
    return replace(
        contents,
        epochs=tuple(document["epochs"]),
        per_channel=document["per_channel"],
        per_step=document["per_step"],
    )


def _with_forecasts(
    contents: RunContents, bundle: Bundle, series_set: SeriesSet, errors: Path | None, *, num_origins: int
) -> RunContents:
    levels = () if bundle.intervals is None else bundle.intervals.levels
    forecaster = Forecaster(bundle, device="cpu", levels=levels)
    series = series_set.series[0]
    forecaster.check_fits(series)
    origins = origins_of(bundle, series, "test")
    chosen = np.linspace(0, len(origins) - 1, num=min(num_origins, len(origins))).round().astype(int)
    worst: tuple[ForecastAt, ...] = ()
    if errors is None:
        contents = _lacking(contents, f"the run keeps no {WINDOW_ERRORS}, so its worst windows are unknown")
    else:
        worst = _worst(forecaster, series_set, WindowErrors.from_bytes(errors.read_bytes(), file=str(errors)))
    last = origins[-MOST_RESIDUALS:]
    contexts, targets = _scaled_windows(forecaster, series, last)
    residuals = targets - np.concatenate(
        [forecaster.predict(contexts[first : first + BATCH_SIZE]) for first in range(0, len(last), BATCH_SIZE)]
    )
    every = max(1, len(last) // NUM_OUTLIER_WINDOWS)
    sample = torch.from_numpy(np.ascontiguousarray(contexts[::every][:NUM_OUTLIER_WINDOWS]))
    return replace(
        contents,
        forecasts=tuple(_forecast_at(forecaster, series, origins[number]) for number in chosen),
        worst=worst,
        residuals=check_residuals(residuals),
        outliers=measure_outliers(bundle.network, [sample]),
    )


def _forecast_at(forecaster: Forecaster, series: Series, origin: int, *, error: float | None = None) -> ForecastAt:
    """The forecast of ``series`` from the row ``origin`` on; channels in the model's order."""
    known = Series(series.id, series.times[:origin], series.values[:origin], series.channels)
    made = forecaster.forecast(known)
    order = [series.channels.index(name) for name in forecaster.bundle.channels]
    steps = len(made.values)
    first = max(0, origin - SHOWN_HISTORY * steps)
    bounds = {
        level: (lower[:, order], upper[:, order])
        for level, lower, upper in zip(made.levels, made.lower, made.upper, strict=True)
    }
    return ForecastAt(
        series_id=series.id,
        times=series.times[first : origin + steps],
        truth=series.values[first : origin + steps][:, order],
        forecast=made.values[:, order],
        bounds=bounds,
        error=error,
    )


def _worst(forecaster: Forecaster, series_set: SeriesSet, errors: WindowErrors) -> tuple[ForecastAt, ...]:
    """The windows with the largest squared errors, none of which overlaps with a worse one."""
    steps = forecaster.bundle.config.model.prediction_length
    taken: list[tuple[int, int]] = []
    found: list[ForecastAt] = []
    for row in errors.rows[np.argsort(-errors.rows["mse_scaled"], kind="stable")]:
        number, origin = int(row["series"]), int(row["origin"])
        if any(number == other and abs(origin - place) < steps for other, place in taken):
            continue
        taken.append((number, origin))
        series = series_set.series[number]
        found.append(_forecast_at(forecaster, series, origin, error=float(row["mse_scaled"])))
        if len(found) == NUM_WORST:
            break
    return tuple(found)


def _scaled_windows(forecaster: Forecaster, series: Series, origins: range) -> tuple[np.ndarray, np.ndarray]:
    """Scaled contexts ``(windows, steps, columns)`` and targets ``(windows, steps, channels)`` of ``origins``."""
    bundle = forecaster.bundle
    length, steps = bundle.config.model.context_length, bundle.config.model.prediction_length
    scaled = as_the_network_sees(forecaster, series)
    windows = sliding_window_view(scaled, length + steps, axis=0)[origins.start - length : origins.stop - length]
    windows = windows.swapaxes(1, 2)
    return windows[:, :length], windows[:, length:, : bundle.num_channels]


def _data_card(series_set: SeriesSet, bundle: Bundle, source: str) -> DataCard:
    values = np.concatenate([series.values for series in series_set.series])
    series = series_set.series[0]
    parts = borders(len(series), bundle.config.data.split, series_id=series.id)
    counts = ", ".join(f"{name} {len(parts.of(name)):,}" for name in ("train", "validation", "test"))
    first, last = (min(s.times[0] for s in series_set.series), max(s.times[-1] for s in series_set.series))
    facts = (
        ("source", source),
        ("series", f"{len(series_set.series):,}"),
        ("rows", f"{sum(map(len, series_set.series)):,}"),
        ("time", f"{first} to {last}"),
        ("step", series_set.frequency),
        ("split" if len(series_set.series) == 1 else "split of the first series", counts),
        ("layout", f"{series_set.layout.kind}, time column {series_set.layout.time_column}"),
        ("SHA-256", series_set.fingerprint),
    )
    columns = [values[:, place] for place in range(values.shape[1])]
    channels = tuple(
        (name, float(each.mean()), float(each.std()), float(each.min()), float(each.max()))
        for name, each in zip(series_set.channels, columns, strict=True)
    )
    return DataCard(source, facts, channels)
