"""When a quantised model has lost too much."""

from __future__ import annotations

import math

import pytest

from stanhop.quantization.compare import Comparison


def comparison(before: float, after: float) -> Comparison:
    return Comparison({"mse_scaled": before}, {"mse_scaled": after}, "validation")


@pytest.mark.parametrize(
    ("before", "after", "limit", "is_too_much"),
    [
        (0.4, 0.404, 0.0101, False),
        (0.4, 0.404, 0.0099, True),
        (0.4, 0.4, 0.0, False),
        (0.4, 0.2, 0.0, False),
        (0.4, math.nan, 1.0, True),
        (0.4, math.inf, 1.0, True),
    ],
)
def test_the_growth_of_the_squared_error_is_held_against_the_limit(
    before: float, after: float, limit: float, is_too_much: bool
) -> None:
    assert comparison(before, after).exceeds(limit) is is_too_much


def test_degradation_is_relative_and_signed() -> None:
    assert comparison(0.4, 0.41).degradation == pytest.approx(0.025)
    assert comparison(0.4, 0.39).degradation == pytest.approx(-0.025)
