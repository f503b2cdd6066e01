"""Rounding to integer grids: the published formulas, and what each kind of range covers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stanhop.quantization.rounding import (
    Range,
    RangeEstimator,
    rounded_activation,
    rounded_weight,
    weight_integers,
    weight_scale,
)

finite = st.floats(-1e3, 1e3, width=32)


def test_weights_are_symmetric_from_their_largest_magnitude() -> None:
    weight = torch.tensor([[1.0, -2.54, 0.014], [0.3, 0.0, 0.25]])
    scale = weight_scale(weight, bits=8, per_channel=False)
    assert scale.shape == (1, 1)
    assert float(scale) == pytest.approx(0.02)
    assert weight_integers(weight, scale, bits=8).tolist() == [[50, -127, 1], [15, 0, 12]]


def test_a_channel_of_its_own_scale_uses_the_whole_grid() -> None:
    weight = torch.tensor([[1.0, -2.54], [0.001, 0.0]])
    scale = weight_scale(weight, bits=8, per_channel=True)
    assert scale.shape == (2, 1)
    assert weight_integers(weight, scale, bits=8).abs().amax(dim=1).tolist() == [127, 127]


def test_weights_of_zero_stay_zero() -> None:
    weight = torch.zeros(3, 5)
    scale = weight_scale(weight, bits=8, per_channel=True)
    assert rounded_weight(weight, scale, bits=8).equal(weight)


def test_mse_ranges_have_the_smaller_squared_error_at_four_bits() -> None:
    weight = torch.randn(7, 501, generator=torch.Generator().manual_seed(0))
    weight[:, 3] = 20.0
    errors = [
        (rounded_weight(weight, weight_scale(weight, bits=4, per_channel=True, ranges=ranges), bits=4) - weight)
        .square()
        .mean()
        for ranges in ("minmax", "mse")
    ]
    assert errors[1] <= errors[0]
    weight[:, 3] = 0.0
    scales = [weight_scale(weight, bits=4, per_channel=True, ranges=ranges) for ranges in ("minmax", "mse")]
    assert (scales[1] < scales[0]).any()


def test_activations_are_asymmetric_with_a_zero_point() -> None:
    grid = Range.holding_zero(-1.0, 1.55)
    scale, zero = grid.grid(8)
    assert (scale, zero) == (pytest.approx(0.01), 100)
    rounded = rounded_activation(torch.tensor([-5.0, -1.0, 0.004, 0.0, 0.017, 1.55, 9.0]), grid, bits=8)
    np.testing.assert_allclose(rounded, [-1.0, -1.0, 0.0, 0.0, 0.02, 1.55, 1.55], atol=1e-6)


@given(low=finite, high=finite, bits=st.integers(2, 16))
def test_zero_is_exact_and_rounding_twice_changes_nothing(low: float, high: float, bits: int) -> None:
    covered = Range.holding_zero(min(low, high), max(low, high))
    values = torch.tensor([0.0, low, high, (low + high) / 2], dtype=torch.float64)
    once = rounded_activation(values, covered, bits=bits)
    assert once[0] == 0
    torch.testing.assert_close(rounded_activation(once, covered, bits=bits), once)


@given(values=st.lists(finite, min_size=1, max_size=30))
def test_inside_of_its_range_nothing_moves_by_more_than_a_step(values: list[float]) -> None:
    activation = torch.tensor(values, dtype=torch.float64)
    covered = Range.holding_zero(float(activation.min()), float(activation.max()))
    step, _ = covered.grid(8)
    assert (rounded_activation(activation, covered, bits=8) - activation).abs().max() <= step * (1 + 1e-9)


def test_the_first_batch_sets_the_range_and_later_ones_move_it_by_a_tenth() -> None:
    estimator = RangeEstimator("minmax", bits=8)
    estimator.observe(torch.tensor([-1.0, 2.0]))
    assert estimator.range == Range(-1.0, 2.0)
    estimator.observe(torch.tensor([-3.0, 12.0]))
    assert (estimator.range.low, estimator.range.high) == (pytest.approx(-1.2), pytest.approx(3.0))


def test_a_range_holds_zero_and_is_never_empty() -> None:
    estimator = RangeEstimator("minmax", bits=8)
    estimator.observe(torch.tensor([2.0, 3.0]))
    assert estimator.range == Range(0.0, 3.0)
    empty = RangeEstimator("minmax", bits=8).range
    assert empty.high > empty.low == 0.0


@pytest.mark.parametrize("kind", ["percentile", "mse"])
def test_percentile_and_mse_ranges_leave_a_lone_outlier_out(kind: str) -> None:
    batch = torch.randn(10_007, generator=torch.Generator().manual_seed(0))
    batch[17] = 1000.0
    estimator = RangeEstimator(kind, bits=4, percentile=99.9)
    estimator.observe(batch.clamp(max=30) if kind == "mse" else batch)
    assert estimator.range.high < 20


def test_percentiles_are_those_of_numpy() -> None:
    batch = torch.rand(1003, generator=torch.Generator().manual_seed(0)) - 0.5
    estimator = RangeEstimator("percentile", bits=8, percentile=97.5)
    estimator.observe(batch)
    expected = np.percentile(batch.numpy(), [2.5, 97.5])
    assert (estimator.range.low, estimator.range.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
