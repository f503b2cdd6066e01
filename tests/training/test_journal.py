"""Which epoch was best, and when the waiting for a better one ends."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl

from stanhop.errors import DivergedError
from stanhop.training.journal import Epoch, Journal
from stanhop.training.lightning_module import ForecastingModule


class Module(ForecastingModule):
    """Has the losses it is told to have."""

    def __init__(self, losses: list[float]) -> None:
        pl.LightningModule.__init__(self)
        self.last_learning_rate = 0.5
        self.losses = iter(losses)

    def epoch_losses(self) -> dict[str, float]:
        return {"train/loss": 1.0, "val/loss": next(self.losses)}


def run(journal: Journal, losses: list[float], *, first: int = 0, is_global_zero: bool = True) -> int:
    """Epochs that ``journal`` lets pass of trainings with these validation losses."""
    trainer: Any = SimpleNamespace(current_epoch=first, should_stop=False, is_global_zero=is_global_zero)
    module = Module(losses)
    journal.on_train_start(cast("pl.Trainer", trainer), module)
    for epoch in range(first, first + len(losses)):
        if trainer.should_stop:
            return epoch
        trainer.current_epoch = epoch
        journal.on_train_epoch_end(trainer, module)
    return first + len(losses)


def journal_of(patience: int) -> Journal:
    return Journal(patience=patience, on_epoch=lambda epoch: None)


def test_the_best_epoch_is_the_first_of_the_lowest() -> None:
    journal = journal_of(0)
    run(journal, [3.0, 1.0, 2.0, 1.0, 1.5])
    assert [epoch.is_best for epoch in journal.epochs] == [True, True, False, False, False]
    assert (journal.best.epoch, journal.best.validation_loss) == (2, 1.0)


@pytest.mark.parametrize(("patience", "expected"), [(0, 7), (1, 3), (2, 6), (3, 7)])
def test_training_ends_after_as_many_epochs_without_a_better_one(patience: int, expected: int) -> None:
    assert run(journal_of(patience), [5.0, 3.0, 4.0, 2.0, 3.0, 3.0, 3.0]) == expected


def test_a_resumed_training_has_waited_already() -> None:
    first = journal_of(2)
    run(first, [1.0, 2.0])
    second = journal_of(2)
    second.load_state_dict(first.state_dict())
    assert second.epochs == first.epochs
    assert run(second, [3.0, 4.0], first=2) == 3
    third = journal_of(2)
    third.load_state_dict(second.state_dict())
    assert run(third, [5.0], first=3) == 3, "it was over before it was interrupted"


def test_only_the_main_process_reports_epochs() -> None:
    reported: list[Epoch] = []
    for is_main in (True, False):
        run(Journal(patience=0, on_epoch=reported.append), [1.0, 2.0], is_global_zero=is_main)
    assert [epoch.epoch for epoch in reported] == [1, 2]
    assert reported[1].metrics.keys() == {"train/loss", "val/loss", "train/learning_rate", "time/epoch_s"}
    assert (reported[1].metrics["val/loss"], reported[1].metrics["train/learning_rate"]) == (2.0, 0.5)


def test_a_validation_loss_that_is_not_finite_is_never_the_best() -> None:
    journal = journal_of(3)
    with pytest.raises(DivergedError, match="val/loss is nan after epoch 2"):
        run(journal, [1.0, math.nan])
    assert journal.best.epoch == 1
