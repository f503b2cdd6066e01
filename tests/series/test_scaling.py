"""Claims about standardising channels."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stanhop.errors import Code, DataError, ModelError
from stanhop.series.scaling import Scaler

RELATIVE = 1e-12
"""Of results that take some hundred roundings at 1.1e-16 each."""

magnitudes = st.floats(1e-30, 1e30)
signed = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda value: -value))
tables = arrays(np.float64, st.tuples(st.integers(1, 23), st.integers(1, 5)), elements=signed)


@given(tables)
@example(np.full((7, 1), 0.1))
@example(np.array([[1e30], [-1e30], [1e30]]))
@example(np.array([[1e-30], [2e-30], [4e-30]]))
@example(np.array([[1e9], [np.nextafter(1e9, 2e9)], [1e9]]))
def test_mean_and_deviation_equal_those_of_exact_arithmetic(values: np.ndarray) -> None:
    scaler = Scaler.fit(values)
    for channel, mean, deviation in zip(values.T, scaler.mean, scaler.deviation, strict=True):
        numbers = channel.tolist()
        assert abs(mean - statistics.mean(numbers)) <= RELATIVE * np.abs(channel).max()
        assert deviation == pytest.approx(statistics.pstdev(numbers) or 1.0, rel=RELATIVE)


@given(tables)
@example(np.full((5, 1), 1e30))
@example(np.array([[3.0], [3.0], [1e30]]))
def test_scaled_values_are_finite_and_come_back(values: np.ndarray) -> None:
    scaler = Scaler.fit(values)
    scaled = scaler.transform(values)
    assert np.isfinite(scaled).all()
    tolerance = RELATIVE * np.abs(values).max(axis=0)
    assert (np.abs(scaler.inverse(scaled) - values) <= tolerance).all()


@pytest.mark.parametrize("constant", [0.0, -0.0, 0.1, 1e-30, 1e30, -1e30, 5e-324, 1.7e308])
def test_a_constant_channel_becomes_zero_and_comes_back_exactly(constant: float) -> None:
    values = np.full((1009, 1), constant)
    scaler = Scaler.fit(values)
    assert scaler.deviation == 1.0
    assert (scaler.transform(values) == 0).all()
    assert (scaler.inverse(np.zeros((3, 1))) == constant).all()


def test_every_finite_number_is_accepted() -> None:
    extremes = np.array([[1.7e308, 5e-324], [-1.7e308, 0.0], [0.0, 5e-324]])
    scaler = Scaler.fit(extremes)
    assert np.isfinite(scaler.mean).all()
    assert np.isfinite(scaler.deviation).all()
    assert (scaler.deviation > 0).all()


def test_deviation_is_that_of_the_population() -> None:
    assert Scaler.fit([[1.0], [3.0]]).deviation == 1.0


def test_channels_are_scaled_independently() -> None:
    values = np.random.default_rng(3).normal(size=(29, 3))
    changed = values.copy()
    changed[:, 1] *= 1e9
    before, after = Scaler.fit(values), Scaler.fit(changed)
    assert before.mean[[0, 2]].tolist() == after.mean[[0, 2]].tolist()
    assert before.deviation[[0, 2]].tolist() == after.deviation[[0, 2]].tolist()


def test_fitting_changes_no_argument() -> None:
    values = np.random.default_rng(3).normal(size=(29, 3))
    copy = values.copy()
    scaler = Scaler.fit(values)
    scaler.transform(values)
    scaler.inverse(values)
    assert np.array_equal(values, copy)


def test_any_leading_axes_are_kept() -> None:
    scaler = Scaler.fit(np.random.default_rng(3).normal(size=(29, 3)))
    assert scaler.transform(np.zeros((2, 5, 7, 3))).shape == (2, 5, 7, 3)
    assert scaler.inverse(np.zeros((3,), dtype=np.float32)).dtype == np.float64


@given(tables)
def test_plain_numbers_give_the_same_scaler_bit_for_bit(values: np.ndarray) -> None:
    scaler = Scaler.fit(values)
    again = Scaler.from_plain(json.loads(json.dumps(scaler.to_plain())))
    assert again.mean.tobytes() == scaler.mean.tobytes()
    assert again.deviation.tobytes() == scaler.deviation.tobytes()


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        (None, "must hold 'mean' and 'deviation'"),
        ({"mean": [1.0]}, "must hold 'mean' and 'deviation'"),
        ({"mean": [1.0], "deviation": [1.0], "extra": 1}, "must hold 'mean' and 'deviation'"),
        ({"mean": [], "deviation": []}, "mean is not a list of finite"),
        ({"mean": ["1"], "deviation": [1.0]}, "mean is not a list of finite"),
        ({"mean": [True], "deviation": [1.0]}, "mean is not a list of finite"),
        ({"mean": [10**400], "deviation": [1.0]}, "mean is not a list of finite"),
        ({"mean": [1.0], "deviation": [float("nan")]}, "deviation is not a list of finite"),
        ({"mean": [1.0], "deviation": [[1.0]]}, "deviation is not a list of finite"),
        ({"mean": [1.0, 2.0], "deviation": [1.0]}, "2 means but 1 deviations"),
        ({"mean": [1.0, 2.0], "deviation": [1.0, 0.0]}, "deviation 0.0, which is not above 0"),
    ],
)
def test_damaged_plain_numbers_are_refused(plain: object, text: str) -> None:
    with pytest.raises(ModelError, match=text) as caught:
        Scaler.from_plain(plain)
    assert caught.value.code == Code.MODEL_DAMAGED


def test_other_channels_than_fitted_are_refused() -> None:
    scaler = Scaler.fit(np.zeros((5, 3)))
    with pytest.raises(DataError, match="expected 3 channels, got 1"):
        scaler.transform(np.zeros((5, 1)))
    with pytest.raises(DataError, match="expected 3 channels, got a single number"):
        scaler.inverse(0.0)


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least one row"):
        Scaler.fit(np.zeros((0, 3)))
