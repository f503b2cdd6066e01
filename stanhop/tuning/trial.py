"""One training of a search: it gives its validation losses, and leaves no file and no look at the test rows."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.utilities.seed import isolate_rng

from stanhop.config import RunConfig
from stanhop.forecasting.forecaster import choose_device
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import SeriesSet
from stanhop.training.fit import quiet_lightning
from stanhop.training.guards import SignalWatch
from stanhop.training.joint_path import with_joint_path
from stanhop.training.journal import Epoch, Journal
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.start import begin


class StopOnSignal(pl.Callback):
    """Ends the training after the step in which a signal came; Lightning itself would end the process without a word.

    Args:
        signals: Who listens.
    """

    def __init__(self, signals: SignalWatch) -> None:
        self._signals = signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen again: Lightning has just put its own handler of SIGTERM in place."""
        self._signals.install()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Look after each step."""
        self._signals.stop_if_received("in a trial, which will begin anew", can_resume=True)


def train_trial(
    config: RunConfig, series_set: SeriesSet, *, on_epoch: Callable[[Epoch], None], signals: SignalWatch
) -> Epoch:
    """Train as ``fit`` does, with the same losses to the last bit, and return the best epoch.

    Args:
        config: The configuration.
        series_set: The data.
        on_epoch: Called after each epoch; what it raises ends the training.
        signals: Whose signals end it, too.

    Raises:
        DataError: a series is too short for a window.
        DivergedError: a loss or gradient is not finite.
        StoppedError: a signal came.
    """
    train = config.train
    with isolate_rng(), quiet_lightning():
        datamodule = SeriesDataModule(series_set, config)
        pl.seed_everything(train.seed, verbose=False)
        module = ForecastingModule(with_joint_path(config, datamodule), series_set.channels)
        begin(module, datamodule)
        journal = Journal(patience=train.patience, on_epoch=on_epoch)
        trainer = pl.Trainer(
            accelerator="gpu" if choose_device(train.device).type == "cuda" else "cpu",
            devices=1,
            precision=train.precision,
            max_epochs=train.max_epochs,
            callbacks=[journal, StopOnSignal(signals)],
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=datamodule)
    return journal.best
