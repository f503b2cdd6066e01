"""A training that leaves nothing behind but its network: for those who hold the series in memory, and keep no files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from stanhop.config import RunConfig
from stanhop.errors import Code, DataError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import choose_device
from stanhop.model.block import absorb_scales
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Borders
from stanhop.training.fit import quiet_lightning
from stanhop.training.joint_path import with_joint_path
from stanhop.training.journal import Epoch, Journal
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.progress import Progress
from stanhop.training.stacking import stack
from stanhop.training.start import begin


class BestWeights(pl.Callback):
    """Keeps the weights of the best epoch in memory.

    Args:
        journal: Knows which one that is; it must be called before.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.weights: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the weights, if no epoch before was better."""
        if self._journal.epochs[-1].is_best:
            self.weights = copy.deepcopy(pl_module.state_dict())


def fit_in_memory(
    config: RunConfig,
    series_set: SeriesSet,
    *,
    borders_of: Callable[[Series], Borders],
    network: nn.Module | None = None,
    progress: bool = False,
) -> Bundle:
    """Train a network on ``series_set`` and return it as a bundle; no file is read or written, nothing is recorded.

    Training step, optimiser, schedule and guards are those of ``fit``.  Where there are validation windows, the weights
    of the epoch with the lowest validation loss are kept and combined with the ridge regression (``stacking``), and
    those of the last epoch otherwise.

    Args:
        config: The configuration; of ``data`` and ``tracking`` nothing is used.
        series_set: The series.
        borders_of: The rows to learn from and to validate on, of each series; a series may be too short for a window.
        network: Weights to go on from; it is not changed.
        progress: Whether to show epochs on standard error.

    Raises:
        DataError: no series has a training window, or a value is beyond float32 after scaling.
        DivergedError: a loss or gradient is not finite.
    """
    datamodule = SeriesDataModule(series_set, config, borders_of=borders_of)
    if not datamodule.num_windows("train"):
        model = config.model
        problem = (
            f"no series has {model.context_length} + {model.prediction_length} rows to learn from (context + horizon)"
        )
        raise DataError(Code.LENGTH, problem, fix="give longer series, or shorten context_length or the horizon")
    bar = Progress()

    def on_epoch(epoch: Epoch) -> None:
        if progress:
            bar.epoch(epoch, max_epochs=config.train.max_epochs)

    config = with_joint_path(config, datamodule)
    with isolate_rng(), quiet_lightning():
        torch.manual_seed(config.train.seed)
        module = ForecastingModule(config, series_set.channels)
        if network is None:
            begin(module, datamodule)
        else:
            module.begin_from(network)
        journal = Journal(patience=config.train.patience, on_epoch=on_epoch)
        best = BestWeights(journal)
        validates = datamodule.num_windows("validation") > 0
        callbacks = [journal, best, *([bar] if progress else [])] if validates else []
        _trainer(config, callbacks).fit(module, datamodule=datamodule)
    if best.weights is not None:
        module.load_state_dict(best.weights)
    stack(module.trained_network, datamodule)
    absorb_scales(module.trained_network)
    return Bundle(
        config=config,
        num_channels=series_set.num_channels,
        channels=series_set.channels,
        frequency=series_set.frequency,
        layout=series_set.layout,
        scalers=datamodule.scalers,
        network=module.trained_network.cpu().eval().requires_grad_(False),
        fingerprint=series_set.fingerprint,
    )


def _trainer(config: RunConfig, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A trainer on one device that keeps no checkpoints and says nothing but what the callbacks do."""
    train = config.train
    return pl.Trainer(
        accelerator="gpu" if choose_device(train.device).type == "cuda" else "cpu",
        devices=1,
        precision=train.precision,
        max_epochs=train.max_epochs,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1.0 if callbacks else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
