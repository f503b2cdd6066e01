"""Clocks for short computations on a CPU or a GPU: what is timed side by side is timed in turns.

A clock makes a *sampler* of equal calls, each on tensors of its own: it measures them once, in seconds a call. Calls
that go round more memory than the cache holds find it cold; one call again and again finds it warm.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

Call = Callable[[], object]
Sampler = Callable[[], float]

SHORTEST_SAMPLE = 2e-3
"""Seconds that a sample on the wall clock takes at least: a shorter call is repeated within it."""
FEWEST_CALLS = 10
"""Calls in a CUDA graph, at least."""
FEWEST_ROUNDS = 3
"""Rounds that are taken however long they last."""
MOST_COPIES = 64
"""Copies of the tensors that a cold cache may take."""
CPU_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
UNKNOWN_CACHE = 64 * 2**20


class Clock(Protocol):
    """What every clock does."""

    method: str
    """How it measures, in words."""

    def sampler(self, calls: Sequence[Call]) -> Sampler:
        """Warm the ``calls`` up and return what measures them, in seconds a call."""
        ...

    def stream(self) -> AbstractContextManager[object]:
        """Where the calls' own tensors have to be made, if they hold a graph of autograd."""
        ...


@dataclass(frozen=True)
class Timing:
    """What the rounds say about one way, in seconds a call.

    Args:
        low: Quantile 20 %.
        median: Quantile 50 %.
        high: Quantile 80 %.
        num_rounds: Rounds.
    """

    low: float
    median: float
    high: float
    num_rounds: int


class WallClock:
    """Time on the clock on the wall, host and device.

    Args:
        synchronize: Waits for the device; None on a CPU, which is never ahead.
    """

    method = "wall clock"

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self._synchronize = synchronize or (lambda: None)

    def stream(self) -> AbstractContextManager[object]:
        """Anywhere."""
        return nullcontext()

    def sampler(self, calls: Sequence[Call]) -> Sampler:
        """See ``Clock``; a sample goes on where the last one left off, so that cold memory stays cold."""
        turn = itertools.cycle(calls)
        for call in calls:  # fresh memory is filled ten times as slowly as the second time
            call()
        once = self._seconds(turn, 1)
        count = max(1, math.ceil(SHORTEST_SAMPLE / max(once, 1e-9)))
        return lambda: self._seconds(turn, count)

    def _seconds(self, turn: Iterator[Call], count: int) -> float:
        self._synchronize()
        started = time.perf_counter()
        for call in itertools.islice(turn, count):
            call()
        self._synchronize()
        return (time.perf_counter() - started) / count


class DeviceClock:
    """Time on a CUDA device, without the host: calls are captured in a graph, which is replayed between two events.

    What cannot be captured, since the host looks at a result, is launched one by one between the events and so pays
    for the host; ``method`` then says so.

    Args:
        is_capturable: Whether to try; a capture that fails may leave torch's allocator in a poor state.
    """

    def __init__(self, *, is_capturable: bool = True) -> None:
        self.method = "CUDA graph" if is_capturable else "CUDA events"
        self._is_capturable = is_capturable
        self._stream = torch.cuda.Stream()

    def stream(self) -> AbstractContextManager[object]:
        """The stream of the capture: the backward pass runs where its forward pass ran."""
        self._stream.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self._stream)

    def sampler(self, calls: Sequence[Call]) -> Sampler:
        """See ``Clock``."""
        calls = list(calls) * math.ceil(FEWEST_CALLS / len(calls))
        with self.stream():
            for call in calls[:3]:
                call()
        torch.cuda.synchronize()
        run = self._captured(calls)
        for _ in range(2):
            run()
        torch.cuda.synchronize()
        return lambda: self._seconds(run) / len(calls)

    def _captured(self, calls: Sequence[Call]) -> Callable[[], None]:
        if not self._is_capturable:
            return lambda: _call_all(calls)
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                for call in calls:
                    call()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:  # whatever a library does that a capture forbids
            torch.cuda.set_stream(stream)
            torch.cuda.synchronize()
            self.method = "CUDA events"
            return lambda: _call_all(calls)
        return graph.replay

    def _seconds(self, run: Callable[[], None]) -> float:
        started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(self._stream):
            started.record()
            run()
            ended.record()
        ended.synchronize()
        return float(started.elapsed_time(ended)) / 1e3


def _call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def in_turns(samplers: Mapping[str, Sampler], *, num_rounds: int, limit: float) -> dict[str, list[float]]:
    """Samples of all ways, round by round: what slows the machine down for a while slows all of them down.

    Each round has an order of its own, the same in every call: what one way leaves behind in caches and allocator would
    otherwise always be met by the same next one.

    Args:
        samplers: What measures each way.
        num_rounds: Rounds at most; each way is measured once a round.
        limit: Seconds after which no further round begins, once there are ``FEWEST_ROUNDS``.
    """
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    shuffled = random.Random(0)
    ended = time.perf_counter() + limit
    for number in range(num_rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() > ended:
            break
        for name in shuffled.sample(list(samplers), k=len(samplers)):
            samples[name].append(samplers[name]())
    return samples


def timing(samples: Sequence[float]) -> Timing:
    """Quantiles of ``samples``."""
    low, median, high = quantiles(samples)
    return Timing(low, median, high, len(samples))


def ratio(samples: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Quantiles of how many times as long ``samples`` take as ``base``, round by round."""
    return quantiles([one / other for one, other in zip(samples, base, strict=True)])


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Those at 20, 50 and 80 %, interpolated."""
    if len(values) == 1:
        return (values[0],) * 3
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return fifths[0], statistics.median(values), fifths[3]


def cache_size(device: torch.device) -> int:
    """Bytes of the last cache before the memory of ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    text = CPU_CACHE.read_text().strip() if CPU_CACHE.exists() else ""
    return int(text[:-1]) * 1024 if text.endswith("K") else UNKNOWN_CACHE


def num_copies(num_bytes: int, cache: int, *, most: int = MOST_COPIES) -> int:
    """Copies of ``num_bytes`` of tensors that fill ``cache`` bytes twice over, or ``most`` if these are fewer."""
    return min(most, math.ceil(2 * cache / num_bytes) + 1)
