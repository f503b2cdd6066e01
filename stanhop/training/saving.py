"""When checkpoints are saved, and what they hold beyond Lightning's own: the states of all random generators."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from stanhop.training.checkpoint import AtomicCheckpointIO, CheckpointFolder
from stanhop.training.guards import SignalWatch
from stanhop.training.journal import Journal

INTERVAL_S = 300.0
"""The most work, in seconds, that a process killed outright loses; the end of an epoch saves anyway."""
RANDOM = "random_generators"


class Saver(Checkpoint):
    """Saves after each epoch, every five minutes within one, and at a signal; then it ends the training.

    The last step of an epoch is not saved: the checkpoint after the validation that follows holds more.

    Args:
        folder: Where to.
        writer: Lightning's way to it.
        journal: Knows whether the last epoch was the best.
        signals: Asks to stop.
    """

    def __init__(
        self, folder: CheckpointFolder, *, writer: AtomicCheckpointIO, journal: Journal, signals: SignalWatch
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._journal = journal
        self._signals = signals
        self._next_save_s = 0.0
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the generators: everything that is built, and draws random numbers on the way, is built by now."""
        self._signals.install()  # Lightning has just put its own handler of SIGTERM in place
        if self._random is not None:
            restore_random_state(self._random)
        self._next_save_s = time.monotonic() + INTERVAL_S

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to, or if a signal asks for it."""
        if trainer.is_last_batch:
            return
        is_due, asked_by = self._agree(trainer, is_due=time.monotonic() >= self._next_save_s)
        if is_due or asked_by is not None:
            self._save(trainer, is_best=False)
            self._stop_if_asked(trainer, asked_by)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, which the journal has written down by now."""
        _, asked_by = self._agree(trainer, is_due=True)
        self._save(trainer, is_best=self._journal.epochs[-1].is_best)
        self._stop_if_asked(trainer, asked_by)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of the generators, of each process its own: they draw for batches of unlike sizes."""
        states: list[Any] = [random_state()]
        if trainer.world_size > 1:
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, states[0])
        checkpoint[RANDOM] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states of the generators until training begins."""
        self._random = checkpoint[RANDOM][trainer.global_rank]

    def _save(self, trainer: pl.Trainer, *, is_best: bool) -> None:
        step = trainer.global_step
        path = self._folder.path_of(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            self._folder.add(path, step=step, is_best=is_best, sha256=self._writer.sha256)
        self._next_save_s = time.monotonic() + INTERVAL_S

    def _stop_if_asked(self, trainer: pl.Trainer, asked_by: signal.Signals | None) -> None:
        if asked_by is not None:
            self._signals.received = asked_by
            where = f"after step {trainer.global_step}, in epoch {trainer.current_epoch + 1}"
            self._signals.stop_if_received(where, can_resume=True)

    def _agree(self, trainer: pl.Trainer, *, is_due: bool) -> tuple[bool, signal.Signals | None]:
        """Whether a save is due, and which signal came, in any of the processes that train together.

        All must act on this answer alone: one that saved or stopped by itself would wait for the others for ever.
        """
        if trainer.world_size == 1:
            return is_due, self._signals.received
        claims = torch.tensor([is_due, self._signals.received or 0], device=trainer.strategy.root_device)
        is_due_anywhere, number = torch.as_tensor(trainer.strategy.reduce(claims, reduce_op="max")).tolist()
        return bool(is_due_anywhere), signal.Signals(number) if number else None


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is the one that libraries use
    assert isinstance(numpy_state, dict)
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators where ``random_state`` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    inner = state["numpy"]["state"]
    plain = {**state["numpy"], "state": {**inner, "key": np.array(inner["key"], dtype=np.uint32)}}
    np.random.set_state(plain)  # noqa: NPY002 - as above
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
