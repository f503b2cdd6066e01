"""Conformal offsets: the order statistics they are, the promise they keep, and that bounds never cross."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.errors import UsageError
from stanhop.forecasting.intervals import (
    Intervals,
    Prediction,
    conformal_quantile,
    floor_of,
    scale_of,
    tails,
)


def intervals_of(levels: tuple[float, ...], *, steps: int = 5, channels: int = 3, seed: int = 0) -> Intervals:
    random = np.random.default_rng(seed)
    lower, upper = (random.normal(size=(len(levels), steps, channels)) for _ in range(2))
    return Intervals(levels, lower, upper, np.full(channels, 0.5), num_windows=7)


@pytest.mark.parametrize(
    ("probability", "rank"), [(0.1, 2), (0.025, 1), (0.5, 10), (0.9, 18), (0.95, 19), (0.96, 19), (0.001, 1)]
)
def test_a_quantile_is_the_order_statistic_of_split_conformal_prediction(probability: float, rank: int) -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1.0, 20.0))
    assert conformal_quantile(scores, probability) == rank


@pytest.mark.parametrize("level", [50.0, 80.0, 95.0])
def test_a_new_score_lies_between_the_quantiles_as_often_as_the_level_says(level: float) -> None:
    scores = np.random.default_rng(2).exponential(size=(100, 20_000))
    low, high = (conformal_quantile(scores[:-1], probability) for probability in tails(level))
    share = np.mean((low <= scores[-1]) & (scores[-1] <= high))
    assert share == pytest.approx(level / 100, abs=0.025)
    assert share >= level / 100 - 0.01


@given(st.integers(0, 1000))
def test_bounds_of_a_wider_level_hold_those_of_a_narrower_one(seed: int) -> None:
    levels = (50.0, 80.0, 95.0)
    random = np.random.default_rng(seed)
    prediction = Prediction(random.normal(size=(4, 5, 3)))
    lower, upper = intervals_of(levels, seed=seed).around(prediction, random.normal(size=(4, 11, 3)))
    assert (np.diff(lower, axis=0) <= 0).all()
    assert (np.diff(upper, axis=0) >= 0).all()


def test_bounds_are_forecast_plus_scale_times_offset() -> None:
    intervals = intervals_of((80.0,))
    random = np.random.default_rng(3)
    forecast, context = random.normal(size=(4, 5, 3)), random.normal(size=(4, 11, 3))
    lower, upper = intervals.around(Prediction(forecast), context)
    for window in range(4):
        for channel in range(3):
            scale = np.std(context[window, :, channel]) + 0.5
            for step in range(5):
                expected = forecast[window, step, channel] + scale * intervals.lower[0, step, channel]
                assert lower[0, window, step, channel] == pytest.approx(expected)
                expected = forecast[window, step, channel] + scale * intervals.upper[0, step, channel]
                assert upper[0, window, step, channel] == pytest.approx(expected)


def test_the_network_s_own_bounds_are_where_offsets_start_from() -> None:
    intervals = intervals_of((80.0, 95.0))
    forecast = np.zeros((1, 5, 3))
    prediction = Prediction(forecast, {80.0: (forecast - 2, forecast + 3)})
    context = np.zeros((1, 11, 3))
    lower, upper = intervals.only((80.0,)).around(prediction, context)
    np.testing.assert_allclose(lower[0, 0], -2 + 0.5 * intervals.lower[0])
    np.testing.assert_allclose(upper[0, 0], 3 + 0.5 * intervals.upper[0])


def test_a_scale_is_never_zero() -> None:
    constant = np.zeros((3, 11, 2))
    floor = floor_of(constant.std(axis=1))
    assert (scale_of(constant, floor) > 0).all()
    moving = np.random.default_rng(0).normal(size=(40, 11, 2))
    np.testing.assert_allclose(floor_of(moving.std(axis=1)), 0.5 * moving.std(axis=1).mean(axis=0))


def test_a_level_that_was_not_calibrated_is_named_with_those_that_were() -> None:
    with pytest.raises(UsageError, match=r"no interval of 90 %, only of 80, 97\.5; choose from these, or train with"):
        intervals_of((80.0, 97.5)).only((90.0,))
    assert intervals_of((80.0, 97.5)).only((97.5, 80.0)).levels == (80.0, 97.5)
