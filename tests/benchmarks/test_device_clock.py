"""The clock of a GPU on a stand-in for CUDA: what it captures, replays and divides."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from stanhop.benchmarks import timing
from stanhop.benchmarks.timing import FEWEST_CALLS, DeviceClock


class FakeCuda:
    """Keeps a log, and lets a replay or a call outside of a capture take time."""

    OutOfMemoryError = MemoryError

    def __init__(self) -> None:
        self.milliseconds, self.log, self.breaks_capture = 0.0, [], False
        self.streams: list[str] = ["default"]

    def Stream(self) -> Any:  # noqa: N802  # torch's name
        return SimpleNamespace(wait_stream=lambda other: None, name="side")

    def current_stream(self) -> Any:
        return SimpleNamespace(name=self.streams[-1])

    def set_stream(self, stream: Any) -> None:
        self.log.append(f"back to {stream.name}")

    @contextmanager
    def stream(self, stream: Any) -> Any:
        self.streams.append(stream.name)
        yield
        self.streams.pop()

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=lambda: self.take(30.0))

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Any:
        self.log.append(f"capture on {stream.name}")
        yield
        if self.breaks_capture:
            raise RuntimeError("operation not permitted when stream is capturing")

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        event = SimpleNamespace(at=None, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.milliseconds)
        event.elapsed_time = lambda other: other.at - event.at
        return event

    def take(self, milliseconds: float) -> None:
        self.milliseconds += milliseconds


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(timing, "torch", SimpleNamespace(cuda=fake))
    return fake


def test_a_graph_holds_ten_calls_at_least_and_a_sample_is_one_of_them(cuda: FakeCuda) -> None:
    calls: list[int] = []
    clock = DeviceClock()
    sample = clock.sampler([lambda number=number: calls.append(number) for number in range(3)])
    num_captured = len(calls) - 3  # three to warm up
    assert num_captured == 12 >= FEWEST_CALLS
    assert sample() == pytest.approx(0.030 / 12)
    assert len(calls) == num_captured + 3, "a sample replays the graph"
    assert clock.method == "CUDA graph"


def test_calls_that_a_graph_cannot_hold_are_made_one_by_one_and_the_clock_says_so(cuda: FakeCuda) -> None:
    cuda.breaks_capture = True
    clock = DeviceClock()
    sample = clock.sampler([lambda: cuda.take(2.0)])
    assert sample() == pytest.approx(0.002)
    assert clock.method == "CUDA events"
    assert "back to default" in cuda.log


def test_calls_that_look_at_results_are_never_captured(cuda: FakeCuda) -> None:
    clock = DeviceClock(is_capturable=False)
    assert clock.sampler([lambda: cuda.take(2.0)])() == pytest.approx(0.002)
    assert clock.method == "CUDA events"
    assert not any(line.startswith("capture") for line in cuda.log)


def test_a_lack_of_memory_is_passed_on(cuda: FakeCuda) -> None:
    def call() -> None:
        if any(line.startswith("capture") for line in cuda.log):
            raise MemoryError

    with pytest.raises(MemoryError):
        DeviceClock().sampler([call])
