"""A grid of trainings and baselines, each a run in MLflow under one parent, each done once, whenever it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stanhop.benchmarks.baselines import Baseline, baseline_settings, measure_baseline, season_note
from stanhop.benchmarks.literature import published
from stanhop.benchmarks.measurement import Measurement, WholeBatches, keep, kept
from stanhop.benchmarks.network_figures import Outliers, StepTimes, outliers_of, time_steps
from stanhop.benchmarks.parent import parent_run
from stanhop.benchmarks.table import rows_of, to_markdown
from stanhop.config import RunConfig, TrackingConfig
from stanhop.errors import Code, ConfigError, DataError, OutputError
from stanhop.forecasting.bundle import bundle_digest, load_bundle
from stanhop.forecasting.window_errors import WindowErrors
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import locked, make_directory, write_text
from stanhop.tracking.names import WINDOW_ERRORS
from stanhop.tracking.run import TrackedRun, closing, start_run
from stanhop.tracking.store import Store
from stanhop.training.once import fit_once, has_begun
from stanhop.training.outcome import METRICS, FitResult

logger = logging.getLogger(__name__)

LOCK, BASELINE_FOLDER, OUTLIER_FOLDER, STEP_FOLDER = ".lock", "baselines", "outliers", "steps"
SO_FAR = "so-far.md"
"""The table of a grid that is not done."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Args:
        model: What tells its network from the others of the grid, such as its separation.
        config: The whole configuration: data set, horizon, separation and seed are in it.
        preset: Name of the preset that it began with.
    """

    model: str
    config: RunConfig
    preset: str | None = None

    @property
    def task(self) -> str:
        """Data set and horizon."""
        return f"{Path(self.config.data.source).stem}-{self.config.model.prediction_length}"

    @property
    def name(self) -> str:
        """Name of its run and folder."""
        return f"{self.task}-{self.model}-{self.config.train.seed}"


def run_grid(
    cells: Sequence[Cell],
    baselines: Sequence[Baseline],
    *,
    folder: Path,
    stride: int,
    tracking: TrackingConfig,
    trains_networks: bool = True,
    progress: bool = True,
    report: Report = lambda line: None,
) -> list[Measurement]:
    """Train every cell and measure every baseline on the same data sets and horizons; what is done is not done again.

    After each of them the table of what is done stands in ``SO_FAR`` in ``folder``.

    Args:
        cells: The trainings.
        baselines: The forecasters to compare with; those that are trained, with every seed of the cells.
        folder: Where the runs and measurements are kept; the same folder goes on where it was stopped.
        stride: Every which window a baseline that is fitted to each window anew is measured on.
        tracking: Where the runs are recorded, under one parent.
        trains_networks: Whether to; otherwise the cells only say what to measure the baselines on.
        progress: Whether to show epochs.
        report: Told what begins.

    Raises:
        UserError: as ``fit``; a cell keeps no rows for the test, or is there already and was started with another
            configuration.
    """
    if not all(cell.config.data.split.has_test for cell in cells):
        fix = "set data.split.test above 0: it is what the table measures"
        raise ConfigError(Code.CONFIG, "no rows are kept for the test (data.split.test is 0)", fix=fix)
    make_directory(folder)
    with locked(folder / LOCK), parent_run(folder, tracking, tags={"stanhop.benchmark": "accuracy"}) as (store, parent):
        grid = _Grid(folder, stride, store, parent, progress, report)
        data_sets = {cell.config.data.source: load_series(cell.config.data) for cell in cells}
        trained = cells if trains_networks else ()
        _try_windows(trained, data_sets)
        if baselines:
            _try_single(data_sets)
        measured: list[Measurement] = []
        for cell in trained:
            measured.append(grid.train(cell, data_sets[cell.config.data.source]))
            grid.write_so_far(measured)
        measured = grid.with_step_times(trained, measured, data_sets)
        for baseline in baselines:
            for cell, seed in _cells_of(baseline, cells):
                measured.append(grid.measure(baseline, cell, seed, data_sets[cell.config.data.source]))
                grid.write_so_far(measured)
    return measured


@dataclass(frozen=True)
class _Grid:
    """A grid at work in its folder, which it has locked."""

    folder: Path
    stride: int
    store: Store | None
    parent: TrackedRun
    progress: bool
    report: Report

    def write_so_far(self, measured: Sequence[Measurement]) -> None:
        """Write the table of what is ``measured``, for those who wait and where the rest never comes."""
        write_text(self.folder / SO_FAR, to_markdown(rows_of(measured)))

    def train(self, cell: Cell, series_set: SeriesSet) -> Measurement:
        """Train ``cell`` and measure the outliers of its network."""
        config, run_path = cell.config, self.folder / cell.name
        if not (run_path / METRICS).exists():
            self.report(f"{cell.name}: {'going on' if has_begun(run_path) else 'training'}")
        result = fit_once(
            config,
            run_path=run_path,
            progress=self.progress,
            series_set=series_set,
            parent_run_id=self.parent.run_id,
            preset=cell.preset,
        )
        return Measurement(
            data=Path(config.data.source).name,
            prediction_length=config.model.prediction_length,
            model=f"STanHop-Net ({cell.model})",
            seed=config.train.seed,
            mse=result.metrics["test/mse_scaled"],
            mae=result.metrics["test/mae_scaled"],
            num_windows=int(result.metrics["test/num_windows"]),
            stride=1,
            seconds=result.metrics["time/train_s"],
            num_parameters=int(result.metrics["size/num_parameters"]),
            settings={"validation_loss": result.metrics["val/best_loss"], "loss": config.train.loss},
            outliers=self._outliers(cell, result, series_set).figures,
            in_whole_batches=_in_whole_batches(config, run_path / WINDOW_ERRORS),
        )

    def _outliers(self, cell: Cell, result: FitResult, series_set: SeriesSet) -> Outliers:
        """Those of the trained network; measured once, and recorded in its run."""
        path = self.folder / OUTLIER_FOLDER / f"{cell.name}.json"
        bundle = load_bundle(result.model_path)
        known = kept(path, Outliers)
        if known is not None and known.model_sha256 == bundle_digest(bundle):
            return known
        self.report(f"{cell.name}: outliers")
        outliers = outliers_of(bundle, series_set)
        if result.run_id is not None:
            with closing(start_run(self.store, name=cell.name, tags={}, run_id=result.run_id)) as run:
                run.log_metrics(outliers.figures)
        keep(path, outliers)
        return outliers

    def with_step_times(
        self, cells: Sequence[Cell], measured: Sequence[Measurement], data_sets: Mapping[str, SeriesSet]
    ) -> list[Measurement]:
        """``measured`` with the time of a training step; the networks of a data set and horizon are timed in turns."""
        step_ms: dict[tuple[str, str], float] = {}
        for task in dict.fromkeys(cell.task for cell in cells):
            configs = {cell.model: cell.config for cell in reversed(cells) if cell.task == task}  # with the first seed
            path = self.folder / STEP_FOLDER / f"{task}.json"
            times = kept(path, StepTimes)
            if times is None or not times.are_of(configs):
                self.report(f"{task}: time of a step")
                times = time_steps(configs, data_sets[next(iter(configs.values())).data.source])
                keep(path, times)
            step_ms |= {(task, model): 1e3 * seconds.median for model, seconds in times.seconds.items()}
        return [
            one.model_copy(update={"step_ms": step_ms[cell.task, cell.model]})
            for cell, one in zip(cells, measured, strict=True)
        ]

    def measure(self, baseline: Baseline, cell: Cell, seed: int | None, series_set: SeriesSet) -> Measurement:
        """Measure ``baseline`` on the data set and horizon of ``cell``."""
        config = cell.config
        (series,) = series_set.series
        name = "-".join([cell.task, baseline.name, *([] if seed is None else [str(seed)])])
        path = self.folder / BASELINE_FOLDER / f"{name}.json"
        settings = baseline_settings(
            baseline,
            series,
            config.data,
            prediction_length=config.model.prediction_length,
            fingerprint=series_set.fingerprint,
            stride=self.stride,
        )
        known = kept(path, Measurement)
        if known is not None and known.settings == settings:
            return known
        note = "" if baseline.is_trained else season_note(settings["season"], series.frequency)
        self.report(f"{name}: measuring{note}")
        tags = {"stanhop.dataset": Path(config.data.source).name, "stanhop.baseline": baseline.name}
        with closing(start_run(self.store, name=name, tags=tags, parent_run_id=self.parent.run_id)) as run:
            measurement = measure_baseline(
                baseline,
                series,
                config.data,
                prediction_length=config.model.prediction_length,
                seed=seed,
                stride=self.stride,
                settings=settings,
            )
            run.log_metrics({"test/mse_scaled": measurement.mse, "test/mae_scaled": measurement.mae})
            keep(path, measurement)
        return measurement


def _try_windows(cells: Sequence[Cell], data_sets: Mapping[str, SeriesSet]) -> None:
    """Refuse, before the first training, a data set that the last one could not take its windows from."""
    tasks = {(cell.config.data.source, cell.config.model.prediction_length): cell for cell in cells}
    for (source, _), cell in tasks.items():
        try:
            SeriesDataModule(data_sets[source], cell.config)
        except DataError as error:
            raise DataError(error.code, error.problem, fix=error.fix, file=error.file or source) from error


def _try_single(data_sets: Mapping[str, SeriesSet]) -> None:
    """Refuse, before the first training, a data set of several series, since the baselines take one."""
    for source, series_set in data_sets.items():
        if len(series_set.series) > 1:
            problem = f"holds {len(series_set.series)} series; the baselines take one"
            raise DataError(Code.DATASET, problem, fix="leave them out with --baselines none", file=source)


def _in_whole_batches(config: RunConfig, path: Path) -> tuple[WholeBatches, ...]:
    """The errors at ``path`` over the windows that each published figure of this task is of."""
    figures = published(Path(config.data.source).name, config.model.prediction_length)
    batch_sizes = sorted({figure.batch_size for figure in figures if figure.batch_size is not None})
    if not batch_sizes:
        return ()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        fix = "delete the run's folder to have it trained again"
        raise OutputError(Code.OUTPUT, "is missing", fix=fix, file=path) from None
    rows = WindowErrors.from_bytes(content, file=str(path)).rows
    return tuple(_over_whole_batches(rows, size) for size in batch_sizes if size <= len(rows))


def _over_whole_batches(rows: np.ndarray, batch_size: int) -> WholeBatches:
    num_windows = len(rows) // batch_size * batch_size
    mse, mae = (float(rows[name][:num_windows].mean(dtype=np.float64)) for name in ("mse_scaled", "mae_scaled"))
    return WholeBatches(batch_size=batch_size, mse=mse, mae=mae, num_windows=num_windows)


def _cells_of(baseline: Baseline, cells: Sequence[Cell]) -> Iterator[tuple[Cell, int | None]]:
    """One cell for each data set and horizon, and for each seed if the baseline is trained."""
    seen = set()
    for cell in cells:
        seed = cell.config.train.seed if baseline.is_trained else None
        key = (cell.config.data.source, cell.config.model.prediction_length, seed)
        if key not in seen:
            seen.add(key)
            yield cell, seed
