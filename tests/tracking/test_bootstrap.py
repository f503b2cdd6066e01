"""The interval of a difference: it covers as often as it says, and knows what windows and seeds have in common."""

from __future__ import annotations

import numpy as np
import pytest

from stanhop.tracking.bootstrap import Resamples, block_length

NUM_WINDOWS, NUM_RESAMPLES = 61, 600
ONE_SERIES = np.zeros(NUM_WINDOWS, dtype=np.int32)


def resamples(*, series: np.ndarray = ONE_SERIES, length: int = 1, seed: int = 3) -> Resamples:
    return Resamples(series, block_length=length, num_resamples=NUM_RESAMPLES, seed=seed)


def interval(ours: np.ndarray, theirs: np.ndarray, *, length: int = 1, paired: bool = True) -> tuple[float, float]:
    drawn = resamples(length=length)
    seeds = list(range(len(ours)))
    their_seeds = seeds if paired else [seed + 100 for seed in range(len(theirs))]
    return drawn.difference(
        drawn.means(ours), drawn.means(theirs), our_seeds=seeds, their_seeds=their_seeds, confidence=0.95
    )


@pytest.mark.parametrize("length", [1, 7, NUM_WINDOWS])
def test_a_constant_error_has_that_mean_in_every_draw(length: int) -> None:
    means = resamples(length=length).means(np.full((2, NUM_WINDOWS), 0.7))
    assert means.shape == (2, NUM_RESAMPLES)
    assert np.allclose(means, 0.7)


def test_a_block_is_neighbours_and_goes_on_at_the_first_after_the_last() -> None:
    (draw,) = resamples(length=3)._draws
    errors = np.arange(NUM_WINDOWS, dtype=float)[None]
    expected = [
        np.mean([errors[0, (start + step) % NUM_WINDOWS] for start in starts for step in range(3)])
        for starts in draw.starts
    ]
    assert np.allclose(resamples(length=3).means(errors)[0], expected)


def test_blocks_stay_inside_their_series() -> None:
    series = np.repeat([0, 1], [50, 11])
    errors = np.where(series == 0, 1.0, 5.0)[None]
    means = resamples(series=series, length=4).means(errors)
    assert np.allclose(means, (52 * 1.0 + 12 * 5.0) / 64), "each series counts as often in every draw"


def test_what_both_find_hard_cancels() -> None:
    rng = np.random.default_rng(0)
    hard = rng.gamma(1.0, 10.0, size=NUM_WINDOWS)
    low, high = interval((hard + 0.1)[None], hard[None])
    assert (low, high) == pytest.approx((0.1, 0.1), rel=1e-4), "float32 of errors a hundred times as large"


def test_dependent_windows_make_it_wider_when_they_are_drawn_in_blocks() -> None:
    slow = np.sin(np.arange(NUM_WINDOWS) / 10)[None]
    alone = np.subtract(*interval(slow, np.zeros_like(slow))[::-1])
    blocks = np.subtract(*interval(slow, np.zeros_like(slow), length=15)[::-1])
    assert blocks > 1.5 * alone


def test_seeds_that_differ_make_it_wider_than_one_seed_can_tell() -> None:
    errors = np.array([[1.0], [2.0], [3.0]]) + np.zeros(NUM_WINDOWS)
    low, high = interval(errors, np.zeros((3, NUM_WINDOWS)))
    assert low < 1.2
    assert high > 2.8
    one = interval(errors[:1], np.zeros((1, NUM_WINDOWS)))
    assert one == pytest.approx((1.0, 1.0))


def test_seeds_that_both_groups_have_are_drawn_for_both() -> None:
    offsets = np.array([[1.0], [2.0], [9.0]]) + np.zeros(NUM_WINDOWS)
    assert interval(offsets + 0.5, offsets) == pytest.approx((0.5, 0.5))
    low, high = interval(offsets + 0.5, offsets, paired=False)
    assert low < -2 < 3 < high


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    num_trials, num_seeds = 200, 10
    covered = 0
    for _ in range(num_trials):
        windows = rng.normal(scale=1.0, size=NUM_WINDOWS)  # common to all seeds
        seeds = rng.normal(scale=0.2, size=(num_seeds, 1))
        low, high = interval(windows + seeds, np.zeros((num_seeds, NUM_WINDOWS)))
        covered += low <= 0 <= high
    assert 0.88 <= covered / num_trials <= 0.98


def test_the_same_seed_draws_the_same() -> None:
    errors = np.random.default_rng(2).normal(size=(1, NUM_WINDOWS))
    assert np.array_equal(resamples().means(errors), resamples().means(errors))
    assert not np.array_equal(resamples().means(errors), resamples(seed=4).means(errors))


def test_blocks_are_as_long_as_targets_overlap() -> None:
    assert block_length(2_857, 96) == 96
    assert block_length(1_000, 1) == 10
    assert block_length(5, 24) == 5
