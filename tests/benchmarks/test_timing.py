"""Clocks: what is timed in turns, how samples become quantiles and ratios, and how many copies make a cache cold."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch

from stanhop.benchmarks import timing
from stanhop.benchmarks.timing import DeviceClock, WallClock, in_turns, num_copies, quantiles, ratio


def test_ways_are_measured_round_by_round_and_follow_one_another_in_any_order() -> None:
    order: list[str] = []

    def sampler(name: str) -> timing.Sampler:
        return lambda: float(order.append(name) or len(order))

    samples = in_turns({name: sampler(name) for name in "abc"}, num_rounds=30, limit=60.0)
    rounds = [order[first : first + 3] for first in range(0, len(order), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert {each[0] for each in rounds} == {"a", "b", "c"}
    assert all(order[int(place) - 1] == name for name, places in samples.items() for place in places)


def test_rounds_end_at_the_limit_but_not_before_there_are_a_few() -> None:
    samples = in_turns({"a": lambda: 0.0}, num_rounds=100, limit=-1.0)
    assert len(samples["a"]) == timing.FEWEST_ROUNDS


def test_a_sample_is_the_time_of_one_call_however_often_it_is_made() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(2e-4)

    sample = WallClock().sampler([call])
    calls = 0
    seconds = sample()
    assert calls > 1
    assert seconds >= 2e-4
    assert seconds * calls >= timing.SHORTEST_SAMPLE / 10


def test_copies_take_turns_from_sample_to_sample() -> None:
    seen: list[int] = []
    calls = [lambda number=number: (seen.append(number), time.sleep(timing.SHORTEST_SAMPLE)) for number in range(3)]
    sample = WallClock().sampler(calls)
    for _ in range(4):
        sample()
    steps = {(later - earlier) % 3 for earlier, later in itertools.pairwise(seen[3:])}
    assert steps == {1}


def test_the_wall_clock_waits_for_the_device_before_and_after() -> None:
    waits: list[int] = []
    sample = WallClock(synchronize=lambda: waits.append(1)).sampler([lambda: None])
    waits.clear()
    sample()
    assert len(waits) == 2


def test_quantiles_are_those_at_20_50_and_80_percent() -> None:
    assert quantiles([float(number) for number in range(11)]) == (2.0, 5.0, 8.0)
    assert quantiles([7.0]) == (7.0, 7.0, 7.0)


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round that is slow for both changes nothing."""
    assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("num_bytes", [1_000_000, 30_000_000, 200_000_000])
def test_copies_fill_the_cache_twice_and_are_more_than_one(num_bytes: int) -> None:
    count = num_copies(num_bytes, 50_000_000)
    assert count >= 2
    assert count == timing.MOST_COPIES or (count - 1) * num_bytes >= 100_000_000


def test_the_cache_of_a_cpu_has_a_size() -> None:
    assert timing.cache_size(torch.device("cpu")) >= 2**20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs CUDA")
def test_a_graph_of_calls_takes_the_time_of_the_device() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    clock = DeviceClock()
    sample = clock.sampler([lambda: x @ x])
    assert clock.method == "CUDA graph"
    assert 0 < sample() < math.inf
