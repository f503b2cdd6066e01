"""What a person at the terminal sees, also when the terminal is gone."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from stanhop.training.journal import Epoch
from stanhop.training.progress import Progress, Terminal

EPOCH = Epoch(epoch=2, training_loss=0.51239, validation_loss=0.25, learning_rate=0.1, seconds=3.44, is_best=True)


class BrokenTerminal(io.StringIO):
    """Somebody closed the window."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


class TerminalOnTheDesk(io.StringIO):
    """A window that somebody looks at."""

    def isatty(self) -> bool:
        return True


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def test_an_epoch_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().epoch(EPOCH, max_epochs=10)
    captured = capsys.readouterr()
    assert captured.err == "stanhop: epoch 2/10  train/loss 0.5124  val/loss 0.2500  3.4 s *\n"
    assert captured.out == ""


@pytest.mark.parametrize("stream", [BrokenTerminal(), closed()], ids=["broken", "closed"])
def test_a_terminal_that_is_gone_does_not_disturb(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    Progress().epoch(EPOCH, max_epochs=10)
    assert not Terminal().isatty()


def test_the_bar_shows_all_steps_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TerminalOnTheDesk()
    monkeypatch.setattr(sys, "stderr", stream)
    progress, module = Progress(), Any
    trainer: Any = SimpleNamespace(is_global_zero=True, estimated_stepping_batches=41.0, global_step=7)
    progress.on_train_start(trainer, module)
    for index in range(5):
        progress.on_train_batch_end(trainer, module, None, None, index)
    progress.epoch(EPOCH, max_epochs=10)
    assert "7/41" in stream.getvalue()
    progress.teardown(trainer, module, "fit")
    assert "epoch 2/10" in stream.getvalue()


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress, module = Progress(), Any
    trainer: Any = SimpleNamespace(is_global_zero=True, estimated_stepping_batches=41.0, global_step=0)
    progress.on_train_start(trainer, module)
    progress.on_train_batch_end(trainer, module, None, None, 0)
    progress.on_exception(trainer, module, ValueError())
    assert capsys.readouterr().err == ""
