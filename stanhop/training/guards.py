"""What ends a training early, and how: signals are remembered until a step is done, numbers must stay finite."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Step:
    """What is looked at of one step of training.

    Args:
        loss: The loss of the batch, a scalar.
        gradient_norm: Norm of the gradient of all weights, a scalar.
        number: Number of the step, from 1.
        epoch: Number of the epoch, from 1.
        broken: Names the channels whose forecast is not finite; only asked if a number is not.
    """

    loss: Tensor
    gradient_norm: Tensor
    number: int
    epoch: int
    broken: Callable[[], Sequence[str]]

    def is_finite(self) -> Tensor:
        """Whether both numbers are finite, a scalar on their device."""
        return torch.isfinite(torch.stack((self.loss.detach().float(), self.gradient_norm.float()))).all()

    def refused(self) -> DivergedError:
        """The error about it, should it not be finite."""
        is_gradient = bool(torch.isfinite(self.loss))
        name, value = ("gradient", self.gradient_norm) if is_gradient else ("loss", self.loss)
        channels = self.broken()
        where = f" (forecast of channel {', '.join(map(quoted, channels[:3]))})" if channels else ""
        place = f"at step {self.number} of epoch {self.epoch}{where}"
        problem = f"the {name} is {float(value)} {place}; the weights before it are kept"
        return DivergedError(Code.DIVERGED, problem, fix=LOWER_THE_RATE)


class StepGuard:
    """Refuses steps whose loss or gradient is not finite.

    On a CPU that is before the step changes the weights. A GPU works behind the program, which would have to wait for
    it at every step: there a step is looked at once the next one has been handed over, and ``settle`` says the last
    word before weights are saved, so that what is kept is sound all the same.

    Args:
        lags: Whether to look one step late; None for whether the numbers are on a GPU.
    """

    def __init__(self, *, lags: bool | None = None) -> None:
        self._lags = lags
        self._pending: tuple[Step, Tensor, torch.cuda.Event | None] | None = None

    def check(self, step: Step) -> None:
        """Look at ``step``, or at the one before it.

        Raises:
            DivergedError: it is not finite.
        """
        is_finite = step.is_finite()
        if not (is_finite.is_cuda if self._lags is None else self._lags):
            if not bool(is_finite):
                raise step.refused()
            return
        self.settle()
        self._pending = (step, *_copied_to_host(is_finite))

    def settle(self) -> None:
        """Look at the step that is still to be looked at, if there is one.

        Raises:
            DivergedError: it is not finite.
        """
        if self._pending is None:
            return
        step, is_finite, copied = self._pending
        self._pending = None
        if copied is not None:
            copied.synchronize()
        if not bool(is_finite):
            raise step.refused()


def _copied_to_host(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy of ``flag`` under way to the host, and the event that tells when it is there."""
    if not flag.is_cuda:
        return flag, None
    host = torch.empty(flag.shape, dtype=flag.dtype, pin_memory=True)
    host.copy_(flag, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return host, copied


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
