"""What ends a training early, and how: signals are remembered until a step is done, numbers must stay finite."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor

from stanhop.errors import Code, DivergedError, StoppedError, quoted

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
IGNORED_SIGNALS = (signal.SIGHUP,)
"""A terminal that closes does not end a training."""
LOWER_THE_RATE = "lower train.learning_rate, or look for extreme values in the data"


class SignalWatch:
    """Remembers the first SIGTERM or SIGINT inside its ``with`` block instead of dying of it.

    Whoever is at work asks ``received`` at a point where nothing is lost.  Further signals change nothing, so a second
    Ctrl-C does not interrupt the save that the first one asked for.

    Args:
        how_to_go_on: What to tell the user when there is something to go on from.
    """

    def __init__(self, *, how_to_go_on: str) -> None:
        self._how_to_go_on = how_to_go_on
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}  # handlers: functions or numbers

    def __enter__(self) -> Self:
        for number in (*STOPPING_SIGNALS, *IGNORED_SIGNALS):
            self._before[number] = signal.getsignal(number)
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        if _is_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals, also back from a library that took them; in other threads than the main one, do nothing."""
        if _is_main_thread():
            for number in STOPPING_SIGNALS:
                signal.signal(number, self._remember)
            for number in IGNORED_SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def stop_if_received(self, where: str, *, can_resume: bool) -> None:
        """End the work if there was a signal.

        Raises:
            StoppedError: there was; ``where`` says how far the work had come.
        """
        if self.received is not None:
            fix = self._how_to_go_on if can_resume else None
            raise StoppedError(f"stopped by {self.received.name} {where}", signal_number=self.received, fix=fix)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            with suppress(OSError):  # not print: a handler may interrupt one that holds the stream's lock
                os.write(2, f"\nstanhop: {self.received.name}: finishing this step, then saving\n".encode())


def check_step(
    loss: Tensor, gradient_norm: Tensor, *, step: int, epoch: int, broken: Callable[[], Sequence[str]]
) -> None:
    """Refuse a step whose loss or gradient is not finite, before it changes the weights.

    Args:
        loss: The loss of the batch, a scalar.
        gradient_norm: Norm of the gradient of all weights, a scalar.
        step: Number of the step, from 1.
        epoch: Number of the epoch, from 1.
        broken: Names the channels whose forecast is not finite; only asked if a number is not.

    Raises:
        DivergedError: one of the two is not finite.
    """
    if bool(torch.isfinite(torch.stack((loss.detach().float(), gradient_norm.float()))).all()):
        return
    name, value = ("gradient", gradient_norm) if bool(torch.isfinite(loss)) else ("loss", loss)
    channels = broken()
    where = f" (forecast of channel {', '.join(map(quoted, channels[:3]))})" if channels else ""
    problem = f"the {name} is {float(value)} at step {step} of epoch {epoch}{where}; the weights before it are kept"
    raise DivergedError(Code.DIVERGED, problem, fix=LOWER_THE_RATE)


def check_epoch(losses: dict[str, float], *, epoch: int) -> None:
    """Refuse losses of an epoch that are not finite.

    Raises:
        DivergedError: one is not.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            problem = f"{name} is {value} after epoch {epoch}; the weights before it are kept"
            raise DivergedError(Code.DIVERGED, problem, fix=LOWER_THE_RATE)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
