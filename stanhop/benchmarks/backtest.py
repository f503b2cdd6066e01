"""Rolling-origin evaluation: a network and the baselines forecast the same windows, each by what was known then.

Trainings are ordinary runs, and forecasts of baselines are kept, so a backtest that was stopped goes on in its folder.
All runs are parts of one run in MLflow.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import ValidationError
from pytorch_lightning.utilities.seed import isolate_rng

from stanhop.benchmarks.backtest_scores import scores_of
from stanhop.benchmarks.baselines import (
    Baseline,
    Sizes,
    context_length_of,
    prepared,
    quiet_sktime,
    season_note,
    season_of,
)
from stanhop.benchmarks.folds import Fold, plan_folds
from stanhop.benchmarks.parent import parent_run
from stanhop.config import RunConfig, Section, flatten
from stanhop.errors import Code, DataError, OutputError, quoted
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.rolling import roll
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.load import load_series
from stanhop.series.scaling import Scaler
from stanhop.storage import locked, make_directory, write_text
from stanhop.tracking.names import PRESET_TAG
from stanhop.tracking.run import TrackedRun, closing, start_run
from stanhop.tracking.store import Store
from stanhop.training.once import fit_once, has_begun
from stanhop.training.outcome import METRICS

NETWORK = "stanhop"
TASK, LOCK, BASELINES = "task.json", ".lock", "baselines"
Values = NDArray[np.float64]
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What one forecaster said of every window, in original units.

    Args:
        name: Its name.
        values: ``(series, windows, prediction_length, channels)``.
        seconds: What training and forecasting took.
        lower: Lower bounds by level, of the shape of ``values``.
        upper: Upper bounds by level.
    """

    name: str
    values: Values
    seconds: float
    lower: Mapping[float, Values] = dataclasses.field(default_factory=dict)
    upper: Mapping[float, Values] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Backtest:
    """All forecasts of a backtest, and what they are compared with.

    Args:
        series_set: The data.
        folds: Which windows, and how often a training began anew.
        targets: What came true, ``(series, windows, prediction_length, channels)``.
        forecasts: One of each forecaster, the network's first.
        scalers: Of the rows of each series before the first origin.
    """

    series_set: SeriesSet
    folds: tuple[Fold, ...]
    targets: Values
    forecasts: tuple[Forecasts, ...]
    scalers: tuple[Scaler, ...]

    @property
    def origins(self) -> list[int]:
        """First row of each target, in order of time."""
        return origins_of(self.folds)

    @property
    def cutoffs(self) -> pd.DatetimeIndex:
        """The last time that was known before each window."""
        return self.series_set.series[0].times[[origin - 1 for origin in self.origins]]


@dataclass(frozen=True)
class BacktestTask:
    """What is to be compared on which windows.

    Args:
        config: Of the network; the split says how the rows before an origin are shared between train and validation.
        baselines: What it is compared with.
        num_windows: Windows to forecast.
        step: Rows from one origin to the next; the horizon if None.
        refit_every: Windows after which a new training begins; None trains once, before the first.
        folder: Where runs and forecasts are kept; the same folder goes on where it was stopped.
        preset: Name of the preset that ``config`` began with, a tag of its trainings and of the whole.
    """

    config: RunConfig
    baselines: Sequence[Baseline]
    num_windows: int
    step: int | None
    refit_every: int | None
    folder: Path
    preset: str | None = None


def backtest(task: BacktestTask, *, progress: bool = True, report: Report = lambda line: None) -> Backtest:
    """Forecast every window with the network and with every baseline; what is done is not done again.

    Raises:
        DataError: the series are too short, or of different lengths.
        UserError: as ``fit``.
    """
    series_set = load_series(task.config.data)
    folds = _folds(task, series_set)
    make_directory(task.folder)
    with locked(task.folder / LOCK):
        _check_folder(task, series_set)
        tags = {"stanhop.benchmark": "backtest", "stanhop.dataset": Path(task.config.data.source).name}
        tags |= {} if task.preset is None else {PRESET_TAG: task.preset}
        with parent_run(task.folder, task.config.tracking, tags=tags) as (store, parent):
            return _run(task, series_set, folds, store, parent, progress=progress, report=report)


def _run(
    task: BacktestTask,
    series_set: SeriesSet,
    folds: Sequence[Fold],
    store: Store | None,
    parent: TrackedRun,
    *,
    progress: bool,
    report: Report,
) -> Backtest:
    """Make what is missing, and record it."""
    forecasts = [_of_network(task, series_set, folds, parent=parent, progress=progress, report=report)]
    forecasts += [_of_baseline(each, task, series_set, folds, report=report) for each in task.baselines]
    found = Backtest(
        series_set=series_set,
        folds=tuple(folds),
        targets=np.stack([targets_of(series, folds, task) for series in series_set.series]),
        forecasts=tuple(forecasts),
        scalers=tuple(Scaler.fit(series.values[: folds[0].origins.start]) for series in series_set.series),
    )
    _record(found, task, store, parent)
    return found


def _check_folder(task: BacktestTask, series_set: SeriesSet) -> None:
    """Write down what the folder is for, or make sure that it is for this.

    Raises:
        OutputError: it holds another backtest.
    """
    path = task.folder / TASK
    asked = {
        "windows": task.num_windows,
        "step": task.step,
        "refit": task.refit_every,
        "data_sha256": series_set.fingerprint,
        **flatten(task.config.model_dump(mode="json", exclude={"tracking"})),
    }
    if not path.exists():
        write_text(path, json.dumps(asked, indent=2) + "\n")
        return
    began = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in asked if began.get(key) != asked[key]]
    if changed:
        key = changed[0]
        problem = f"holds another backtest: {key} was {began.get(key)} and is now {asked[key]}"
        raise OutputError(Code.OUTPUT, problem, fix="name another folder with --output", file=task.folder)


def origins_of(folds: Sequence[Fold]) -> list[int]:
    """First row of each target of all ``folds``."""
    return [origin for fold in folds for origin in fold.origins]


def targets_of(series: Series, folds: Sequence[Fold], task: BacktestTask) -> Values:
    """What came true in each window, ``(windows, prediction_length, channels)``."""
    steps = task.config.model.prediction_length
    return np.stack([series.values[origin : origin + steps] for origin in origins_of(folds)])


def _folds(task: BacktestTask, series_set: SeriesSet) -> list[Fold]:
    lengths = {len(series) for series in series_set.series}
    if len(lengths) > 1:
        problem = f"the series have between {min(lengths)} and {max(lengths)} rows; a backtest needs them equally long"
        raise DataError(Code.LENGTH, problem, fix="cut them to one length, or run one backtest a series")
    model = task.config.model
    return plan_folds(
        lengths.pop(),
        task.config.data.split,
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        num_windows=task.num_windows,
        step=model.prediction_length if task.step is None else task.step,
        refit_every=task.refit_every,
    )


# --- the network ------------------------------------------------------------------------------------------------


def _of_network(
    task: BacktestTask,
    series_set: SeriesSet,
    folds: Sequence[Fold],
    *,
    parent: TrackedRun,
    progress: bool,
    report: Report,
) -> Forecasts:
    """Train once a fold, and forecast its windows with bounds."""
    levels = task.config.model.levels
    parts, seconds = [], 0.0
    for fold in folds:
        run_path = task.folder / f"{NETWORK}-{fold.number}"
        if not (run_path / METRICS).exists():
            verb = "going on" if has_begun(run_path) else "training"
            report(f"{NETWORK}, training {fold.number} of {len(folds)} ({fold.origins.start:,} rows known): {verb}")
        result = fit_once(
            _config_of(task, fold),
            run_path=run_path,
            progress=progress,
            series_set=_known_until(series_set, fold.stop),
            parent_run_id=parent.run_id,
            preset=task.preset,
        )
        began_s = time.monotonic()
        bundle = load_bundle(result.model_path)
        forecaster = Forecaster(bundle, device=task.config.train.device, levels=levels)
        parts.append(np.stack([_with_bounds(forecaster, series, fold) for series in series_set.series]))
        seconds += result.metrics["time/train_s"] + time.monotonic() - began_s
    # (series, windows, 1 + 2 levels, steps, channels)
    whole = np.concatenate(parts, axis=1).swapaxes(1, 2)
    count = len(levels)
    return Forecasts(
        name=NETWORK,
        values=whole[:, 0],
        seconds=seconds,
        lower={level: whole[:, 1 + place] for place, level in enumerate(levels)},
        upper={level: whole[:, 1 + count + place] for place, level in enumerate(levels)},
    )


def _config_of(task: BacktestTask, fold: Fold) -> RunConfig:
    """The configuration of the training of ``fold``: the rows of its targets are the test rows of the run."""
    data = task.config.data.model_copy(update={"split": fold.split})
    return task.config.model_copy(update={"data": data})


def _known_until(series_set: SeriesSet, stop: int) -> SeriesSet:
    """The first ``stop`` rows of each series."""
    cut = [Series(one.id, one.times[:stop], one.values[:stop], one.channels) for one in series_set.series]
    return SeriesSet.of(cut, series_set.layout)


def _with_bounds(forecaster: Forecaster, series: Series, fold: Fold) -> Values:
    """Forecast, lower and upper bounds of each window of ``fold``, ``(windows, 1 + 2 levels, steps, channels)``."""
    scaler = forecaster.scaler_of(series)
    parts = []
    for batch in roll(forecaster, series, fold.origins, scaler=scaler, batch_size=forecaster.batch_size):
        scaled = [batch.forecast[None]]
        if forecaster.intervals is not None:
            scaled += forecaster.intervals.around(batch.prediction, batch.context)
        ahead = batch.usual[:, batch.context.shape[1] :]
        parts.append(scaler.inverse(np.concatenate(scaled) + ahead).swapaxes(0, 1))
    return np.concatenate(parts)


# --- the baselines ----------------------------------------------------------------------------------------------


class KeptForecasts(Section):
    """Forecasts of a baseline as a file, and what they were made from."""

    settings: dict[str, Any]
    seconds: float
    values: list[Any]


def _of_baseline(
    baseline: Baseline, task: BacktestTask, series_set: SeriesSet, folds: Sequence[Fold], *, report: Report
) -> Forecasts:
    path = task.folder / BASELINES / f"{baseline.name}.json"
    season = season_of(baseline, series_set.frequency, num_rows=folds[0].origins.start)
    settings = {
        "data_sha256": series_set.fingerprint,
        "origins": [[fold.origins.start, fold.origins.stop, fold.origins.step] for fold in folds],
        "prediction_length": task.config.model.prediction_length,
        "seed": task.config.train.seed if baseline.is_trained else None,
        "season": season,
    }
    kept = _kept(path)
    if kept is not None and kept.settings == settings:
        return Forecasts(baseline.name, np.array(kept.values, dtype=np.float64), kept.seconds)
    report(f"{baseline.name}: forecasting {task.num_windows} windows{season_note(season, series_set.frequency)}")
    began_s = time.monotonic()
    with quiet_sktime(), isolate_rng():
        values = np.stack([_windows_of_baseline(baseline, series, folds, task) for series in series_set.series])
    seconds = time.monotonic() - began_s
    content = KeptForecasts(settings=settings, seconds=seconds, values=values.tolist())
    write_text(path, content.model_dump_json() + "\n")
    return Forecasts(baseline.name, values, seconds)


def _kept(path: Path) -> KeptForecasts | None:
    if not path.exists():
        return None
    try:
        return KeptForecasts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = f"is damaged: {quoted(str(error).splitlines()[0])}"
        raise OutputError(Code.OUTPUT, problem, fix="delete it to have it made again", file=path) from None


def _windows_of_baseline(baseline: Baseline, series: Series, folds: Sequence[Fold], task: BacktestTask) -> Values:
    """The forecasts of all windows of ``series``, in original units; trained once a fold if it is trained at all."""
    steps = task.config.model.prediction_length
    parts = []
    for fold in folds:
        known = fold.origins.start
        season = season_of(baseline, series.frequency, num_rows=known)
        scaler = Scaler.fit(series.values[:known])
        scaled = scaler.transform(series.values)
        length = context_length_of(baseline, season=season, num_rows=known, prediction_length=steps)
        sizes = Sizes(season, length, steps, series.values.shape[1])
        contexts = sliding_window_view(scaled, length, axis=0)  # (windows, channels, length), a view
        chosen = contexts[[origin - length for origin in fold.origins]].swapaxes(1, 2)
        _, forecasts = prepared(baseline, scaled[:known], sizes, seed=task.config.train.seed)
        parts.append(scaler.inverse(forecasts(np.ascontiguousarray(chosen))))
    return np.concatenate(parts)


# --- MLflow -----------------------------------------------------------------------------------------------------


def _record(found: Backtest, task: BacktestTask, store: Store | None, parent: TrackedRun) -> None:
    """A run for each forecaster, with its errors by window, and all means in the parent."""
    for scores in scores_of(found):
        tags = {"stanhop.dataset": Path(task.config.data.source).name, "stanhop.forecaster": scores.forecaster}
        name = f"backtest {scores.forecaster}"
        with closing(start_run(store, name=name, tags=tags, parent_run_id=parent.run_id)) as run:
            for number, error in enumerate(scores.mae_by_window, 1):
                run.log_metrics({"window/mae_scaled": error}, step=number)
            run.log_metrics({f"backtest/{key}": value for key, value in scores.metrics.items()})
        parent.log_metrics({f"{scores.forecaster}/{key}": value for key, value in scores.metrics.items()})
