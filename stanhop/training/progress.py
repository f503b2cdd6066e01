"""What a person at the terminal sees of a training: one line an epoch, and under them a bar with the time left."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from stanhop.training.journal import Epoch


class Terminal:
    """Standard error that never fails: a training must outlive the terminal it was started from."""

    def write(self, text: str) -> int:
        """Write ``text`` if there is still somebody to read it."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether somebody is likely to watch."""
        try:
            return sys.stderr.isatty()
        except ValueError:  # closed
            return False

    def line(self, text: str) -> None:
        """Write a line of our own."""
        self.write(f"stanhop: {text}\n")
        self.flush()


class Progress(pl.Callback):
    """A bar over all steps of all epochs, if standard error is a terminal, and a line an epoch."""

    def __init__(self) -> None:
        self._terminal = Terminal()
        self._bar: tqdm[Any] | None = None

    def epoch(self, epoch: Epoch, *, max_epochs: int) -> None:
        """Write the line of ``epoch``; ``*`` marks the best so far."""
        mark = " *" if epoch.is_best else ""
        line = (
            f"epoch {epoch.epoch}/{max_epochs}  train/loss {epoch.training_loss:.4f}  "
            f"val/loss {epoch.validation_loss:.4f}  {epoch.seconds:.1f} s{mark}"
        )
        if self._bar is not None:
            self._bar.clear()
        self._terminal.line(line)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        if trainer.is_global_zero and self._terminal.isatty():
            total = int(trainer.estimated_stepping_batches)
            initial = trainer.global_step
            self._bar = tqdm(
                total=total, initial=initial, file=self._terminal, unit="step", dynamic_ncols=True, leave=False
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
