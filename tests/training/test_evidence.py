"""When a change on the validation windows is more than chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stanhop.training.evidence import FEWEST_STRETCHES, NUM_STRETCHES, is_clear, standard_errors_above_zero


def test_the_mean_is_measured_against_how_far_stretches_lie_apart() -> None:
    gains = torch.tensor([1.0, 3, 2, 2, 0, 4, 5, 3], dtype=torch.float64).repeat_interleave(3)
    expected = 2.5 / (np.std([1, 3, 2, 2, 0, 4, 5, 3], ddof=1) / np.sqrt(8))
    assert standard_errors_above_zero(gains, shortest=3) == pytest.approx(expected)


def test_stretches_are_as_long_as_asked_for() -> None:
    """Five stretches of four windows, though eight of two would fit."""
    gains = torch.arange(1, 6).double().repeat_interleave(4)
    expected = 3 / (np.std(range(5), ddof=1) / np.sqrt(5))
    assert standard_errors_above_zero(gains, shortest=4) == pytest.approx(expected)


def test_windows_that_repeat_one_another_are_no_more_witnesses() -> None:
    draws = torch.from_numpy(np.random.default_rng(2).normal(0.3, 1, NUM_STRETCHES))
    once, often = (standard_errors_above_zero(draws.repeat_interleave(times), shortest=1) for times in (1, 500))
    assert once == pytest.approx(often)


def test_few_stretches_tell_nothing() -> None:
    gains = torch.tensor([1.0, 1.1]).repeat(50)
    longest = len(gains) // FEWEST_STRETCHES
    assert is_clear(gains + torch.arange(100) / 1000, shortest=longest)
    assert not is_clear(gains + torch.arange(100) / 1000, shortest=longest + 1)
    assert not is_clear(gains[:0], shortest=1)


def test_what_never_varies_is_not_judged() -> None:
    assert standard_errors_above_zero(torch.zeros(80), shortest=2) is None


@pytest.mark.parametrize(("shift", "clear"), [(2.2, True), (1.8, False), (-5.0, False)])
def test_two_standard_errors_are_clear(shift: float, clear: bool) -> None:
    wobble = torch.tensor([1.0, -1] * (NUM_STRETCHES // 2), dtype=torch.float64)
    error = float(wobble.std()) / NUM_STRETCHES**0.5
    assert is_clear(wobble + shift * error, shortest=1) is clear
