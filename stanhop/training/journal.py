"""The record of a training, epoch by epoch: losses, which epoch was best, and when to stop waiting for a better one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl

from stanhop.training.guards import check_epoch
from stanhop.training.lightning_module import ForecastingModule


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Args:
        epoch: Its number, from 1.
        training_loss: Mean over all training windows, of the weights as they went along.
        validation_loss: Mean over all validation windows, of the weights at its end.
        learning_rate: The rate of its last step.
        seconds: What it took; of an epoch that was taken up in the middle, since then.
        is_best: Whether no epoch before had a validation loss as low.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    is_best: bool

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by the names they are recorded under."""
        return {
            "train/loss": self.training_loss,
            "val/loss": self.validation_loss,
            "train/learning_rate": self.learning_rate,
            "time/epoch_s": self.seconds,
        }


class Journal(pl.Callback):
    """Writes down each epoch, and ends the training when ``patience`` epochs in a row were no better.

    Args:
        patience: How many epochs to wait for a better validation loss; 0 waits for ever.
        on_epoch: Called with each epoch, in the main process.

    Raises:
        DivergedError: a loss of an epoch is not finite.
    """

    def __init__(self, *, patience: int, on_epoch: Callable[[Epoch], None]) -> None:
        self.epochs: list[Epoch] = []
        self._patience = patience
        self._on_epoch = on_epoch
        self._began_s = 0.0

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss, the first of equals."""
        return [epoch for epoch in self.epochs if epoch.is_best][-1]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed training may have waited long enough already."""
        self._began_s = time.monotonic()
        trainer.should_stop = self._is_out_of_patience()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write down the epoch; validation is over by now."""
        assert isinstance(pl_module, ForecastingModule)
        losses = pl_module.epoch_losses()
        check_epoch(losses, epoch=trainer.current_epoch + 1)
        lowest = min((epoch.validation_loss for epoch in self.epochs), default=math.inf)
        now_s = time.monotonic()
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            training_loss=losses["train/loss"],
            validation_loss=losses["val/loss"],
            learning_rate=pl_module.last_learning_rate,
            seconds=now_s - self._began_s,
            is_best=losses["val/loss"] < lowest,
        )
        self._began_s = now_s
        self.epochs.append(epoch)
        if trainer.is_global_zero:
            self._on_epoch(epoch)
        trainer.should_stop = self._is_out_of_patience()

    def state_dict(self) -> dict[str, Any]:
        """All epochs, as plain values."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.epochs = [Epoch(**plain) for plain in state_dict["epochs"]]

    def _is_out_of_patience(self) -> bool:
        return 0 < self._patience <= len(self.epochs) - (self.best.epoch if self.epochs else 0)
