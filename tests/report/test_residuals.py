"""Checks of residuals against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from stanhop.report.residuals import autocorrelation, check_residuals


def test_the_autocorrelation_is_that_of_the_formula() -> None:
    series = np.random.default_rng(0).normal(size=(101, 3)).cumsum(axis=0)
    found = autocorrelation(series, num_lags=7)
    for lag in range(1, 8):
        centred = series - series.mean(axis=0)
        each = [
            sum(x[t] * x[t + lag] for t in range(101 - lag)) / sum(x[t] ** 2 for t in range(101)) for x in centred.T
        ]
        assert found[lag - 1] == pytest.approx(np.mean(each))


def test_a_constant_channel_has_none() -> None:
    assert np.allclose(autocorrelation(np.ones((50, 2)), num_lags=3), 0)


def test_a_season_shows_and_noise_stays_in_the_band() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(500, 11, 3))
    season = np.sin(2 * np.pi * np.arange(500) / 24)[:, None, None]
    seasonal, plain = check_residuals(noise + 2 * season), check_residuals(noise)
    assert seasonal.autocorrelation[23] > 0.5
    assert np.mean(np.abs(plain.autocorrelation) < plain.band) > 0.9


def test_a_bias_shows_at_its_step() -> None:
    residuals = np.random.default_rng(2).normal(size=(200, 5, 3))
    residuals[:, 3] += 2
    assert check_residuals(residuals).mean_by_step == pytest.approx([0, 0, 0, 2, 0], abs=0.2)


def test_a_gaussian_lies_on_the_line_and_heavy_tails_off_it() -> None:
    rng = np.random.default_rng(3)
    gaussian = check_residuals(rng.normal(size=(2_000, 2, 3)))
    heavy = check_residuals(rng.standard_t(2, size=(2_000, 2, 3)))
    assert np.abs(gaussian.quantiles - gaussian.normal_quantiles).max() < 0.1
    assert np.abs(heavy.quantiles - heavy.normal_quantiles).max() > 0.4
