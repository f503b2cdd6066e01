"""Signals are remembered, not obeyed at once; numbers that are not finite end a training."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch

from stanhop.errors import Code, DivergedError, StoppedError
from stanhop.training.guards import SignalWatch, Step, StepGuard, check_epoch


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_remembered_until_asked_for(number: signal.Signals, code: int) -> None:
    with SignalWatch(how_to_go_on="say please") as signals:
        signals.stop_if_received("nowhere", can_resume=True)
        os.kill(os.getpid(), number)
        assert signals.received is number
        with pytest.raises(StoppedError, match=f"stopped by {number.name} after lunch; say please") as caught:
            signals.stop_if_received("after lunch", can_resume=True)
    assert (caught.value.code, caught.value.exit_code) == (Code.STOPPED, code)


def test_where_nothing_is_saved_no_way_to_go_on_is_named() -> None:
    with SignalWatch(how_to_go_on="say please") as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError, match=r"stopped by SIGTERM before lunch$"):
            signals.stop_if_received("before lunch", can_resume=False)


def test_the_first_signal_counts_and_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    with SignalWatch(how_to_go_on="") as signals:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert signals.received is signal.SIGTERM
    assert capfd.readouterr().err.count("finishing this step") == 1


def test_a_terminal_that_closes_does_not_end_a_training() -> None:
    with SignalWatch(how_to_go_on="") as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None


def test_signals_are_taken_back_from_a_library() -> None:
    with SignalWatch(how_to_go_on="") as signals:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signals.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM


def test_in_another_thread_signals_are_left_alone() -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            with SignalWatch(how_to_go_on="") as signals:
                signals.install()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not problems


def step(loss: float | torch.Tensor, norm: float | torch.Tensor, *, number: int = 7, broken=list) -> Step:
    return Step(torch.as_tensor(loss), torch.as_tensor(norm), number=number, epoch=2, broken=broken)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan])
def test_a_loss_that_is_not_finite_is_named_with_its_step(loss: float, norm: float) -> None:
    with pytest.raises(DivergedError, match=f"the loss is {loss} at step 7 of epoch 2 .forecast of channel 'b', 'c'"):
        StepGuard().check(step(loss, norm, broken=lambda: ["b", "c"]))


def test_a_gradient_that_is_not_finite_is_named_with_its_step() -> None:
    with pytest.raises(
        DivergedError, match=r"the gradient is nan at step 7 of epoch 2; .* train\.learning_rate"
    ) as caught:
        StepGuard().check(step(1.0, math.nan))
    assert (caught.value.code, caught.value.exit_code) == (Code.DIVERGED, 5)


def test_the_largest_finite_numbers_pass() -> None:
    largest = torch.tensor(torch.finfo(torch.float32).max)
    guard = StepGuard()
    guard.check(step(largest, largest))
    guard.check(step(largest.bfloat16().nextafter(torch.tensor(0.0).bfloat16()), largest))
    guard.settle()


def test_a_guard_that_lags_refuses_a_step_at_the_next_one_and_names_the_right_one() -> None:
    guard = StepGuard(lags=True)
    guard.check(step(1.0, 1.0, number=1))
    guard.check(step(math.nan, 1.0, number=2))
    with pytest.raises(DivergedError, match="the loss is nan at step 2 of epoch 2"):
        guard.check(step(1.0, 1.0, number=3))


def test_a_guard_that_lags_has_its_last_word_before_weights_are_saved() -> None:
    guard = StepGuard(lags=True)
    guard.check(step(1.0, math.nan, number=4))
    with pytest.raises(DivergedError, match="the gradient is nan at step 4"):
        guard.settle()
    guard.settle()  # there is nothing more to say


def test_an_epoch_whose_validation_loss_is_not_finite_is_refused() -> None:
    check_epoch({"train/loss": 1.0, "val/loss": 2.0}, epoch=3)
    with pytest.raises(DivergedError, match="val/loss is nan after epoch 3"):
        check_epoch({"train/loss": 1.0, "val/loss": math.nan}, epoch=3)
