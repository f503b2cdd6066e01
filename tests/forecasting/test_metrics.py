"""Formulas of the metrics, against slow definitions and another library."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from utilsforecast import losses

from stanhop.forecasting import metrics

SEASON = 5
EXACT = {"rtol": 1e-12}


@pytest.fixture
def target() -> np.ndarray:
    return np.random.default_rng(1).normal(3, 2, size=(13, 3))


@pytest.fixture
def forecast() -> np.ndarray:
    return np.random.default_rng(2).normal(3, 2, size=(13, 3))


@pytest.fixture
def history() -> np.ndarray:
    return np.random.default_rng(3).normal(3, 2, size=(29, 3))


def long_frame(**columns: np.ndarray) -> pd.DataFrame:
    """Arrays ``(steps, channels)`` as a long frame, one series a channel."""
    steps, channels = next(iter(columns.values())).shape
    keys = {"unique_id": np.tile(np.arange(channels), steps), "ds": np.repeat(np.arange(steps), channels)}
    return pd.DataFrame({**keys, **{name: values.ravel() for name, values in columns.items()}})


@pytest.mark.parametrize("name", ["mse", "mae"])
def test_errors_equal_those_of_an_independent_library(name: str, target: np.ndarray, forecast: np.ndarray) -> None:
    theirs = getattr(losses, name)(long_frame(y=target, f=forecast), models=["f"])["f"].mean()
    np.testing.assert_allclose(getattr(metrics, name)(forecast, target), theirs, **EXACT)


def test_rmse_equals_that_of_an_independent_library(target: np.ndarray, forecast: np.ndarray) -> None:
    theirs = losses.rmse(long_frame(y=target, f=forecast).assign(unique_id=0), models=["f"])["f"].item()
    np.testing.assert_allclose(metrics.rmse(forecast, target), theirs, **EXACT)


def test_smape_200_is_200_times_that_of_an_independent_library(target: np.ndarray, forecast: np.ndarray) -> None:
    theirs = losses.smape(long_frame(y=target, f=forecast), models=["f"])["f"].mean()
    np.testing.assert_allclose(metrics.smape_200(forecast, target), 200 * theirs, **EXACT)


def test_mase_equals_that_of_an_independent_library(
    target: np.ndarray, forecast: np.ndarray, history: np.ndarray
) -> None:
    frame, train = long_frame(y=target, f=forecast), long_frame(y=history)
    theirs = losses.mase(frame, models=["f"], seasonality=SEASON, train_df=train)["f"].mean()
    np.testing.assert_allclose(metrics.mase(forecast, target, history=history, season=SEASON), theirs, **EXACT)


def test_errors_by_hand() -> None:
    forecast, target = np.array([[1.0], [2.0]]), np.array([[2.0], [-2.0]])
    assert metrics.mse(forecast, target) == (1 + 16) / 2
    assert metrics.mae(forecast, target) == 2.5
    assert metrics.rmse(forecast, target) == math.sqrt(8.5)
    assert metrics.smape_200(forecast, target) == (200 / 3 + 200) / 2
    history = np.array([[0.0], [1.0], [4.0], [9.0]])
    assert metrics.seasonal_difference(history, 1).item() == 3
    assert metrics.seasonal_difference(history, 2).item() == 6
    assert metrics.mase(forecast, target, history=history, season=2) == 2.5 / 6


def test_smape_200_of_zeros_is_0_and_never_above_200() -> None:
    assert metrics.smape_200(np.zeros((3, 1)), np.zeros((3, 1))) == 0
    assert metrics.smape_200(np.ones((3, 1)), np.zeros((3, 1))) == 200


def test_mase_leaves_out_channels_that_never_change(
    target: np.ndarray, forecast: np.ndarray, history: np.ndarray
) -> None:
    history[:, 1] = 4.0
    kept = [0, 2]
    expected = metrics.mase(forecast[:, kept], target[:, kept], history=history[:, kept], season=SEASON)
    np.testing.assert_allclose(metrics.mase(forecast, target, history=history, season=SEASON), expected, **EXACT)
    assert math.isnan(metrics.mase(forecast, target, history=np.ones((29, 3)), season=SEASON))
    assert math.isnan(metrics.mase(forecast, target, history=history[:SEASON], season=SEASON))


def test_the_seasonal_naive_forecast_repeats_the_last_season() -> None:
    context = np.arange(7.0)[:, None] * np.array([1.0, 10.0])
    naive = metrics.seasonal_naive(context, season=3, steps=5)
    assert naive[:, 0].tolist() == [4, 5, 6, 4, 5]
    assert naive[:, 1].tolist() == [40, 50, 60, 40, 50]
    assert metrics.seasonal_naive(context[None], season=7, steps=2)[0, :, 0].tolist() == [0, 1]


def test_a_context_shorter_than_a_season_repeats_its_last_value() -> None:
    assert metrics.seasonal_naive(np.arange(7.0)[:, None], season=8, steps=2)[:, 0].tolist() == [6, 6]


def test_skill_is_the_share_of_the_naive_error_that_is_gone() -> None:
    assert metrics.skill(1.0, 4.0) == 0.75
    assert metrics.skill(4.0, 4.0) == 0
    assert metrics.skill(8.0, 4.0) == -1
    assert math.isnan(metrics.skill(1.0, 0.0))
