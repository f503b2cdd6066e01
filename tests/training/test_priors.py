"""The simple forecasts that a regression may be pulled to: what each is, and when it is taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from stanhop.config import DataConfig, ModelConfig, RunConfig
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.training import least_squares
from stanhop.training.least_squares import Moments, best_ridge, own_rows, ridge_maps
from stanhop.training.priors import Prior, last_of_context, priors, rise_by_season, season_before

SEASON = 12
LAYOUT = Layout(kind="wide", time_column="date", id_column=None, target_columns=("sales",))
STEPS = [1, 5, 12, 13, 30]


def years(num_rows: int) -> np.ndarray:
    """Months that repeat those of the year before, half above, ``(num_rows,)``."""
    shape = np.random.default_rng(7).normal(size=SEASON)
    place = np.arange(num_rows)
    return shape[place % SEASON] + 0.5 * (place // SEASON)


def walk(num_rows: int = 120) -> np.ndarray:
    """A random walk, ``(num_rows,)``."""
    return np.random.default_rng(6).normal(size=num_rows).cumsum()


def sales(num_rows: int = 120) -> np.ndarray:
    """Months of a sharp season that grows with its level, which strays, ``(num_rows,)``."""
    generator = np.random.default_rng(3)
    shape, place = generator.normal(size=SEASON), np.arange(num_rows)
    growth = np.exp(0.015 * place)
    return growth * (3 + shape[place % SEASON]) + 0.3 * generator.normal(size=num_rows).cumsum()


def datamodule_of(values: np.ndarray, *, frequency: str = "MS") -> SeriesDataModule:
    """Windows of two years and one year ahead."""
    times = pd.date_range("2001-01-01", periods=len(values), freq=frequency)
    model = ModelConfig(context_length=2 * SEASON, prediction_length=SEASON, patch_length=SEASON)
    config = RunConfig(data=DataConfig(source="months.csv"), model=model)
    return SeriesDataModule(SeriesSet.of((Series("", times, values[:, None], ("sales",)),), LAYOUT), config)


def error_of(weight: torch.Tensor, datamodule: SeriesDataModule) -> float:
    """Mean squared error on the test windows."""
    return Moments.of(own_rows(datamodule.test_dataloader(), instance_norm=True)).error(weight.double())


@pytest.mark.parametrize("steps", STEPS)
def test_the_season_before_is_repeated_as_often_as_the_horizon_needs(steps: int) -> None:
    context = np.random.default_rng(1).normal(size=31)
    forecast = season_before(31, steps, season=SEASON).double().numpy() @ context
    np.testing.assert_array_equal(forecast, np.resize(context[-SEASON:], steps))
    np.testing.assert_array_equal(last_of_context(31, steps).double().numpy() @ context, np.full(steps, context[-1]))


@pytest.mark.parametrize("steps", STEPS)
def test_with_its_rise_it_goes_on_as_a_season_does_that_rises_year_by_year(steps: int) -> None:
    values = years(50 + steps)
    weight = season_before(50, steps, season=SEASON) + rise_by_season(50, steps, season=SEASON)
    np.testing.assert_allclose(weight.double().numpy() @ values[:50], values[50:], atol=1e-5)
    moved = weight.double().numpy() @ (values[:50] + 100)
    np.testing.assert_allclose(moved, values[50:] + 100, atol=1e-4, err_msg="wherever the level is")


@pytest.mark.parametrize(
    ("context_length", "season", "count"), [(24, 12, 4), (23, 12, 3), (12, 12, 3), (11, 12, 2), (24, 1, 2)]
)
def test_a_context_has_the_priors_that_it_is_long_enough_for(context_length: int, season: int, count: int) -> None:
    found = list(priors(context_length, 5, season=season))
    assert len(found) == count
    assert {prior.weight.shape for prior in found} == {(5, context_length)}
    sums = torch.stack([prior.weight.sum(dim=1) for prior in found])
    assert torch.allclose(sums, torch.ones(())), "a level is forecast to stay"


def test_a_few_years_of_months_are_forecast_by_the_years_before() -> None:
    datamodule = datamodule_of(sales())
    train = Moments.of(own_rows(datamodule.train_dataloader(), instance_norm=True))
    validation = Moments.of(own_rows(datamodule.val_dataloader(), instance_norm=True))
    mean, *_ = priors(2 * SEASON, SEASON, season=SEASON)
    before = min(ridge_maps(train, mean.weight, least_squares.PENALTIES), key=validation.error)
    assert error_of(best_ridge(datamodule), datamodule) < 0.7 * error_of(before, datamodule)


def test_a_step_of_no_season_has_no_season_before() -> None:
    months, years = (best_ridge(datamodule_of(sales(), frequency=frequency)) for frequency in ("MS", "YS"))
    assert not torch.equal(months, years)


@pytest.mark.parametrize(
    ("rival", "values"),
    [("the last value", walk()), ("the season before", sales()), ("the season before and its rise", sales())],
)
def test_the_mean_is_left_for_another_only_where_that_is_clearly_better(
    rival: str, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    datamodule = datamodule_of(values)
    validation = Moments.of(own_rows(datamodule.val_dataloader(), instance_norm=True))
    margins = {"the mean of the context": 0.0}

    def offered(*lengths: int, season: int) -> Iterator[Prior]:
        for prior in priors(*lengths, season=season):
            if prior.name in margins:
                yield Prior(prior.name, prior.weight, margins[prior.name])

    monkeypatch.setattr(least_squares, "priors", offered)
    monkeypatch.setattr(least_squares, "RANKS", ())
    held = best_ridge(datamodule)
    margins[rival] = 0.0
    freely = best_ridge(datamodule)
    gain = 1 - validation.error(freely.double()) / validation.error(held.double())
    assert gain > 0
    for margin, expected in ((0.9 * gain, freely), (1.1 * gain, held)):
        margins[rival] = margin
        assert torch.equal(best_ridge(datamodule), expected)
