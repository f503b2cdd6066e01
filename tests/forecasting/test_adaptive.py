"""Intervals that learn: the plain definition, no look ahead, and coverage that survives a drift."""

from __future__ import annotations

import numpy as np
import pytest

from stanhop.forecasting.adaptive import AdaptiveIntervals
from stanhop.forecasting.intervals import Intervals, Prediction, Values

WINDOWS, STEPS, CHANNELS = 60, 4, 2
LEVELS = (60.0, 90.0)


def start(spread: float = 1.0) -> Intervals:
    edges = spread * np.array([1.0, 2.0])[:, None, None] * np.ones((2, STEPS, CHANNELS))
    return Intervals(LEVELS, -edges, edges, np.full(CHANNELS, 0.3), num_windows=9)


def drifting(seed: int = 0, *, windows: int = WINDOWS, growth: float = 3.0) -> tuple[Prediction, Values, Values]:
    """Forecasts of 0, contexts, and targets whose spread grows."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(windows + STEPS, CHANNELS)) * np.linspace(1, growth, windows + STEPS)[:, None]
    targets = np.stack([rows[first : first + STEPS] for first in range(windows)])
    return Prediction(np.zeros_like(targets)), random.normal(size=(windows, 7, CHANNELS)), targets


def slowly(prediction: Prediction, contexts: Values, targets: Values, *, rate: float) -> tuple[Values, Values]:
    """The definition, one bound at a time; an outcome counts from the first window whose origin lies after it."""
    intervals = start()
    lower, upper = np.zeros((2, 2, len(targets), STEPS, CHANNELS))
    for level, may_miss in enumerate((0.2, 0.05)):
        for step in range(STEPS):
            for channel in range(CHANNELS):
                low, high = intervals.lower[level, step, channel], intervals.upper[level, step, channel]
                width = high - low
                for window in range(len(targets)):
                    if window - 1 - step >= 0:  # its outcome at ``step`` is row window - 1, just before this origin
                        known = window - 1 - step
                        outcome = targets[known, step, channel]
                        # the size of a step is that of the window before this one
                        low -= rate * width * ((outcome < lower[level, known, step, channel]) - may_miss)
                        high += rate * width * ((outcome > upper[level, known, step, channel]) - may_miss)
                    scale = contexts[window, :, channel].std() + 0.3
                    lower[level, window, step, channel] = scale * low
                    upper[level, window, step, channel] = scale * high
    return lower, upper


@pytest.mark.parametrize("batch", [1, 7, WINDOWS])
def test_offsets_move_as_defined_whatever_the_batches(batch: int) -> None:
    prediction, contexts, targets = drifting()
    adaptive = AdaptiveIntervals(start(), rate=0.02)
    found = [
        adaptive.around(Prediction(prediction.forecast[one]), contexts[one], targets[one])
        for one in (slice(first, first + batch) for first in range(0, WINDOWS, batch))
    ]
    expected = slowly(prediction, contexts, targets, rate=0.02)
    for side in (0, 1):
        np.testing.assert_allclose(np.concatenate([pair[side] for pair in found], axis=1), expected[side])


@pytest.mark.parametrize("origin", [1, 5, 30])
def test_no_outcome_counts_before_it_is_known(origin: int) -> None:
    prediction, contexts, targets = drifting()
    later = targets.copy()
    for window in range(WINDOWS):
        later[window, max(0, origin - window) :] = 1e6  # every row from ``origin`` on
    first = AdaptiveIntervals(start()).around(prediction, contexts, targets)
    second = AdaptiveIntervals(start()).around(prediction, contexts, later)
    for side in (0, 1):
        np.testing.assert_array_equal(first[side][:, : origin + 1], second[side][:, : origin + 1])
        assert not np.array_equal(first[side][:, origin + 1 :], second[side][:, origin + 1 :])


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_coverage_finds_its_level_from_offsets_that_are_far_off(spread: float) -> None:
    prediction, contexts, targets = drifting(windows=6000, growth=1.0)
    static = start(spread).around(prediction, contexts)
    adaptive = AdaptiveIntervals(start(spread), rate=0.05).around(prediction, contexts, targets)
    for level, nominal in enumerate((0.6, 0.9)):
        coverage = [np.mean((low[level] <= targets) & (targets <= high[level])) for low, high in (static, adaptive)]
        assert abs(coverage[0] - nominal) > 0.08
        assert coverage[1] == pytest.approx(nominal, abs=0.02)
