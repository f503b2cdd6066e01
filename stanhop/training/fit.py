"""One training from data to model directory: checked first, then resumable, guarded, recorded and measured once."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.utilities.seed import isolate_rng

from stanhop.config import ModelConfig, RunConfig, TrainConfig, to_yaml
from stanhop.errors import UserError, masked
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import choose_device
from stanhop.model.block import absorb_scales
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import locked, make_directory, remove_file, remove_stale_temporaries, write_text
from stanhop.tracking.names import PRESET_TAG, WINDOW_ERRORS
from stanhop.tracking.run import TrackedRun, closing, run_tags, start_run
from stanhop.tracking.store import Store, open_store
from stanhop.training.checkpoint import MANIFEST, AtomicCheckpointIO, CheckpointFolder, Identity
from stanhop.training.checks import OF_TRAIN, Advice, check_machine, check_run_path
from stanhop.training.companions import Companions, leaving_with_the_main_process
from stanhop.training.guards import SignalWatch
from stanhop.training.joint_path import with_joint_path
from stanhop.training.journal import Epoch, Journal
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.outcome import (
    CHECKPOINTS,
    CONFIG,
    FORECAST_PLOT,
    LOCK,
    LOSS_PLOT,
    METRICS,
    MODEL,
    FitResult,
    read_outcome,
    write_outcome,
)
from stanhop.training.progress import Progress, Terminal
from stanhop.training.saving import Saver
from stanhop.training.stacking import Stacking, stack
from stanhop.training.start import begin

logger = logging.getLogger(__name__)

TOO_MANY_OVERFLOWS = 0.1
"""Share of steps left out by float16 above which the precision is worth a warning."""


@dataclass(frozen=True)
class _Task:
    """What the steps of one training share."""

    config: RunConfig
    run_path: Path
    series_set: SeriesSet
    datamodule: SeriesDataModule
    folder: CheckpointFolder
    signals: SignalWatch
    shows_progress: bool
    requires_tracking: bool
    parent_run_id: str | None
    preset: str | None
    advice: Advice

    def how_to_go_on(self) -> str:
        """What to tell the user after the death of a process."""
        has_begun = (self.folder.path / MANIFEST).exists()
        return self.advice.go_on.format(run_path=self.run_path) if has_begun else "start it again"


def fit(
    config: RunConfig,
    *,
    run_path: Path,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    series_set: SeriesSet | None = None,
    require_tracking: bool = False,
    strict_resume: bool = False,
    parent_run_id: str | None = None,
    preset: str | None = None,
    advice: Advice = OF_TRAIN,
) -> FitResult:
    """Train a network, choose its weights by the validation loss, measure them once on the test split, and keep all.

    In ``run_path`` stand afterwards ``config.yaml``, ``model/``, ``metrics.json``, ``window_errors.npy``, two plots and
    ``checkpoints/``.
    The same configuration, data, machine type, versions and number of threads give the same weights, bit for bit, also
    if the process is killed and the run is resumed.

    Args:
        config: The resolved configuration.
        run_path: The run's folder.
        resume: Go on from the last checkpoint in ``run_path``.
        overwrite: Replace the run that is in ``run_path``.
        progress: Whether to show epochs, and a bar if standard error is a terminal.
        series_set: The data, if they are loaded already.
        require_tracking: Whether a tracking server that does not answer is an error.
        strict_resume: Whether to refuse to resume with other threads or versions, by which last bits may differ.
        parent_run_id: MLflow's id of the run that this one is a part of.
        preset: Name of the preset that ``config`` began with, a tag of the run.
        advice: What the user is told to do, in the words of the command that calls.

    Raises:
        UserError: data, configuration, machine, folder or tracking store do not allow it; nothing was written then.
        DivergedError: a loss or gradient is not finite; the last sound checkpoint is kept.
        StoppedError: SIGTERM or SIGINT; what was done so far is saved.
    """
    check_machine(config.train)
    if not _is_helper():
        check_run_path(run_path, resume=resume, overwrite=overwrite, advice=advice)
    with SignalWatch(how_to_go_on=advice.go_on.format(run_path=run_path)) as signals, isolate_rng():
        if series_set is None:
            series_set = load_series(config.data)
        datamodule = SeriesDataModule(series_set, config)
        identity = Identity.of(config, data_sha256=series_set.fingerprint)
        folder = CheckpointFolder(run_path / CHECKPOINTS, identity=identity, is_strict=strict_resume)
        task = _Task(
            config=config,
            run_path=run_path,
            series_set=series_set,
            datamodule=datamodule,
            folder=folder,
            signals=signals,
            shows_progress=progress,
            requires_tracking=require_tracking,
            parent_run_id=parent_run_id,
            preset=preset,
            advice=advice,
        )
        if _is_helper():
            _help(task, resume=resume)
        if progress:
            for note in series_set.notes:
                Terminal().line(note)
        return _resume(task) if resume else _start(task)


def _start(task: _Task) -> FitResult:
    """Begin a run in a folder that is new or may be replaced."""
    store = _open_store(task)  # first: if it is refused, no folder is left behind
    task.signals.stop_if_received("before training began", can_resume=False)
    with locked(task.run_path / LOCK):
        make_directory(task.folder.path)
        _remove_leftovers(task)
        remove_file(task.run_path / METRICS)  # from here on the run that was here is neither complete nor resumable
        task.folder.clear()
        write_text(task.run_path / CONFIG, to_yaml(_without_credentials(task.config)))
        return _run(task, store, checkpoint=None)


def _resume(task: _Task) -> FitResult:
    """Go on with the run in the folder, or say that it is complete."""
    with locked(task.run_path / LOCK):
        checkpoint = task.folder.resume()
        complete = read_outcome(task.run_path, run_id=task.folder.run_id)
        if complete is not None:
            return complete
        make_directory(task.folder.path)
        _remove_leftovers(task)
        return _run(task, _open_store(task), checkpoint=checkpoint)


def _remove_leftovers(task: _Task) -> None:
    """Delete what a process that was killed here left half-written."""
    for path in (task.run_path, task.folder.path):
        remove_stale_temporaries(path)


def _run(task: _Task, store: Store | None, *, checkpoint: Path | None) -> FitResult:
    """Train, from ``checkpoint`` on if there is one, and record it all."""
    task = _decided(task)
    run_path, config = task.run_path, _without_credentials(task.config)
    with _tracked(task, store) as run:
        run.log_config(config)
        run.log_data(task.series_set, name=_dataset(config), source=config.data.source)
        run.log_file(run_path / CONFIG)
        module, journal = _train(task, run, checkpoint)
        bundle, stacking = _bundle(task, module)
        metrics = write_outcome(
            run_path,
            bundle,
            task.series_set,
            journal,
            stacking,
            stop_if_asked=lambda: task.signals.stop_if_received("after the last epoch", can_resume=True),
        )
        run.log_metrics(metrics, step=journal.best.epoch)
        for name in (METRICS, WINDOW_ERRORS, LOSS_PLOT, FORECAST_PLOT):
            if (run_path / name).exists():
                run.log_file(run_path / name)
        run.log_folder(run_path / MODEL)
    return FitResult(
        run_path=run_path,
        model_path=run_path / MODEL,
        metrics=metrics,
        num_epochs=len(journal.epochs),
        best_epoch=journal.best.epoch,
        run_id=run.run_id,
        was_complete=False,
    )


def _decided(task: _Task) -> _Task:
    """``task`` with what its configuration leaves to the data; ``config.yaml`` leaves it to them."""
    config = with_joint_path(task.config, task.datamodule)
    if task.shows_progress:
        for line in _decisions(config.model, task.config.model):
            Terminal().line(line)
    return replace(task, config=config)


def _decisions(model: ModelConfig, asked: ModelConfig) -> Iterator[str]:
    """What was decided for ``model`` that was not asked for, in words."""
    if asked.joint_rank is None and model.joint_rank:
        yield f"channels say much about one another: a joint path forecasts them (model.joint_rank {model.joint_rank})"
    if asked.time_features is None and model.time_features:
        yield f"the joint path is told the time of {' and '.join(model.time_features)} (model.time_features)"
    if asked.joint_memories is None and model.joint_memories:
        yield f"the joint path retrieves from memories, {model.joint_memories} a head (model.joint_memories)"


def _train(task: _Task, run: TrackedRun, checkpoint: Path | None) -> tuple[ForecastingModule, Journal]:
    """Fit the network; the module that comes back has the weights of the last step."""
    train = task.config.train
    bar = Progress()

    def on_epoch(epoch: Epoch) -> None:
        if task.shows_progress:
            bar.epoch(epoch, max_epochs=train.max_epochs)
        run.log_metrics(epoch.metrics, step=epoch.epoch)

    pl.seed_everything(train.seed, verbose=False)
    module = ForecastingModule(task.config, task.series_set.channels)
    if checkpoint is None:
        begin(module, task.datamodule)
    journal = Journal(patience=train.patience, on_epoch=on_epoch)
    writer = AtomicCheckpointIO()
    saver = Saver(task.folder, writer=writer, journal=journal, signals=task.signals)
    with quiet_lightning():
        companions = Companions(task.how_to_go_on)
        callbacks = [journal, *([bar] if task.shows_progress else []), saver]
        trainer = _trainer(train, writer, callbacks, companions)
        with companions.watched():
            trainer.fit(module, datamodule=task.datamodule, ckpt_path=checkpoint, weights_only=True)
    share = int(module.num_overflows) / max(1, trainer.global_step)
    if share > TOO_MANY_OVERFLOWS:
        logger.warning("float16 left out %.0f %% of the steps; --precision bf16-mixed would not", 100 * share)
    return module, journal


def _trainer(
    train: TrainConfig, writer: AtomicCheckpointIO, callbacks: list[pl.Callback], companions: Companions
) -> pl.Trainer:
    """A trainer that writes nothing and says nothing but what the callbacks do."""
    return pl.Trainer(
        accelerator="gpu" if choose_device(train.device).type == "cuda" else "cpu",
        devices=train.devices,
        strategy=companions if train.devices > 1 or train.strategy == "ddp" else train.strategy,
        precision=train.precision,
        max_epochs=train.max_epochs,
        callbacks=callbacks,
        plugins=[writer, LightningEnvironment()],  # named, or Lightning would take a login shell on a cluster for a job
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _bundle(task: _Task, module: ForecastingModule) -> tuple[Bundle, Stacking | None]:
    """The model with the weights of the best epoch, and in what proportion they are combined with the regression."""
    module.load_state_dict(task.folder.best_weights())
    stacking = stack(module.trained_network, task.datamodule)
    absorb_scales(module.trained_network)
    if stacking is not None and task.shows_progress:
        Terminal().line(
            f"{stacking.share:.0%} network, {1 - stacking.share:.0%} ridge regression forecast the validation windows "
            f"best: val/loss {stacking.validation_loss:.4f}"
        )
    bundle = Bundle(
        config=_without_credentials(task.config),
        num_channels=task.series_set.num_channels,
        channels=task.series_set.channels,
        frequency=task.series_set.frequency,
        layout=task.series_set.layout,
        scalers=task.datamodule.scalers,
        network=module.trained_network.cpu().eval().requires_grad_(False),
        fingerprint=task.series_set.fingerprint,
    )
    return bundle, stacking


def _open_store(task: _Task) -> Store | None:
    tracking = task.config.tracking
    if not tracking.enabled:
        return None
    return open_store(tracking, folder=Path.cwd(), is_required=task.requires_tracking)


@contextmanager
def _tracked(task: _Task, store: Store | None) -> Iterator[TrackedRun]:
    """The run's record, closed as FINISHED, KILLED or FAILED according to how the block ends."""
    tags = run_tags(task.config, task.series_set, dataset=_dataset(task.config))
    tags |= {} if task.preset is None else {PRESET_TAG: task.preset}
    run = start_run(
        store, name=task.run_path.name, tags=tags, run_id=task.folder.run_id, parent_run_id=task.parent_run_id
    )
    task.folder.run_id = run.run_id
    with closing(run):
        yield run


def _without_credentials(config: RunConfig) -> RunConfig:
    """``config`` as it may be written down."""
    uri = config.tracking.uri
    tracking = config.tracking.model_copy(update={"uri": uri and masked(uri)})
    return config.model_copy(update={"tracking": tracking})


def _dataset(config: RunConfig) -> str:
    """Name of the data: that of the set, or of the file without its folder."""
    return Path(config.data.source).name


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning without its advice: every choice it comments on is made on purpose."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.distributed")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _is_helper() -> bool:
    """Whether Lightning started this process to help another one train."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _help(task: _Task, *, resume: bool) -> None:
    """Train along with the main process, then leave: what is written and said is its matter.

    Raises:
        SystemExit: always.
    """
    try:
        with leaving_with_the_main_process():
            _train(_decided(task), TrackedRun(None, None), task.folder.resume() if resume else None)
    except UserError:  # the main process has met the same and reports it
        raise SystemExit(0) from None
    raise SystemExit(0)
