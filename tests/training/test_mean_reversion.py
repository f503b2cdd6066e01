"""How far levels return to their mean: the regression against its definition, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stanhop.config import RunConfig
from stanhop.forecasting.bundle import load_bundle
from stanhop.model.network import STanHopNet, mean_of_context
from stanhop.series import datamodule
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Borders
from stanhop.training import mean_reversion
from stanhop.training.fit import fit
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.mean_reversion import LevelMoments, estimated
from stanhop.training.start import begin

WINDOWS, CHANNELS, STEPS = 23, 2, 3


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Levels ``(windows, channels)`` and what is left ``(windows, channels, steps)``."""
    random = np.random.default_rng(7)
    level = 2 + random.normal(size=(WINDOWS, CHANNELS))
    pulls = np.array([-0.2, -0.7, 0.4])
    return level, level[..., None] * pulls + random.normal(size=(WINDOWS, CHANNELS, STEPS))


def moments() -> LevelMoments:
    """Those of ``drawn``, summed from two parts."""
    level, left = (torch.from_numpy(each) for each in drawn())
    return LevelMoments.of(level[:9], left[:9]) + LevelMoments.of(level[9:], left[9:])


@pytest.mark.parametrize("mean", [0.0, [1.5, 2.5]])
def test_shares_are_the_regression_of_what_is_left_on_the_level(mean: float | list[float]) -> None:
    level, left = drawn()
    rows = (level - np.asarray(mean)).reshape(-1, 1)
    slopes = np.linalg.lstsq(rows, left.reshape(-1, STEPS), rcond=None)[0][0]
    found = moments().shares(torch.tensor(mean, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), np.clip(-slopes, 0, 1))
    assert found[1] > 0 == found[2]  # the last step goes on rather than back, which is no share


@pytest.mark.parametrize("mean", [0.0, [1.5, 2.5]])
def test_the_gain_is_what_shares_take_from_the_squared_error(mean: float | list[float]) -> None:
    level, left = drawn()
    shares = np.array([0.1, 0.8, 0.3])
    change = -shares * (level - np.asarray(mean))[..., None]
    expected = (left**2).sum() - ((left - change) ** 2).sum()
    found = moments().gain(torch.from_numpy(shares), torch.tensor(mean, dtype=torch.float64))
    assert found == pytest.approx(expected)


def test_levels_that_never_leave_their_mean_have_no_share() -> None:
    nowhere = LevelMoments.of(torch.zeros(4, CHANNELS).double(), torch.ones(4, CHANNELS, STEPS).double())
    assert torch.equal(nowhere.shares(), torch.zeros(STEPS).double())


def series_of(values: np.ndarray, data: SeriesSet) -> SeriesSet:
    (one,) = data.series
    times = pd.date_range(one.times[0], periods=len(values), freq=one.times.freq, unit="us")
    return SeriesSet.of((Series("", times, values, one.channels),), data.layout)


def walk(*, kept: float, seed: int, num_steps: int = 2000) -> np.ndarray:
    """Three channels that keep this much of their level from step to step."""
    noise = np.random.default_rng(seed).normal(size=(num_steps, 3))
    values = np.zeros_like(noise)
    for step in range(1, num_steps):
        values[step] = kept * values[step - 1] + noise[step]
    return values


def reverting(config: RunConfig, **train: object) -> RunConfig:
    model = config.model.model_copy(update={"mean_reversion": True, "seasonal_profile": False})
    return config.model_copy(update={"model": model, "train": config.train.model_copy(update=train)})


def shares_of(config: RunConfig, data: SeriesSet) -> torch.Tensor:
    """Beside a direct path that forecasts the mean of the context."""
    model = config.model
    datamodule = SeriesDataModule(data, config)
    shares, _ = estimated(datamodule, mean_of_context(model.context_length, model.prediction_length))
    return shares


def test_they_are_the_regression_over_all_windows_of_what_the_direct_path_leaves(
    config: RunConfig, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_reversion, "FACTORS", (1.0,))
    config = reverting(config)
    values = 5 + walk(kept=0.9, seed=1, num_steps=300)
    values[20:60, 1] = 3.0  # what does not move has no level that returns
    given = series_of(values, data)
    direct = torch.randn(STEPS, config.model.context_length, generator=torch.Generator().manual_seed(3)).double() / 20
    levels, left = [], []
    for contexts, targets in SeriesDataModule(given, config).train_dataloader():
        for context, target in zip(contexts.double().numpy(), targets.double().numpy(), strict=True):
            level = context.mean(0)
            moves = np.ptp(context, axis=0) > 0
            levels.append(np.where(moves, level, 0.0))
            left.append(target - level - direct.numpy() @ (context - level))
    m, r = np.stack(levels), np.stack(left)  # (windows, channels), (windows, steps, channels)
    expected = np.clip(-(m[:, None] * r).sum((0, 2)) / (m**2).sum(), 0, 1)
    assert expected.any()
    shares, farthest = estimated(SeriesDataModule(given, config), direct)
    np.testing.assert_allclose(shares.numpy(), expected, rtol=1e-6)
    assert float(farthest) == pytest.approx(np.abs(m).max())


def test_the_factor_is_the_smallest_that_may_be_the_best() -> None:
    factors = torch.tensor(mean_reversion.FACTORS)
    sure = -(factors - 0.8).square() + 0.64  # gains of every trial
    assert mean_reversion.factor(sure.repeat(5, 1)) == 0.8
    assert mean_reversion.factor(sure[None]) == 0.8
    slopes = torch.tensor([1.0, -0.2, 0.6, 0.1, -0.1])[:, None]  # 0.28 on average, with a standard error of 0.23
    assert mean_reversion.factor(slopes * factors) == 1.0
    assert mean_reversion.factor((slopes - 0.1) * factors) == 0.0
    assert mean_reversion.factor(sure + 1.4 * (slopes - 0.28) * factors) == 0.5
    assert mean_reversion.factor(-sure.repeat(5, 1)) == 0.0
    assert mean_reversion.factor(torch.zeros(0, len(factors))) == 0.0


def test_levels_that_return_are_forecast_to_return_and_better_so(config: RunConfig, data: SeriesSet) -> None:
    config = reverting(config)
    bounded = series_of(walk(kept=0.9, seed=1), data)
    shares = shares_of(config, bounded)
    assert shares.dtype == torch.float64
    length = config.model.context_length
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length + STEPS)))
    covariances = (0.9**lags).mean(axis=0)  # of the level and each step, in units of the variance
    expected = 1 - covariances[length:] / covariances[:length].mean()
    np.testing.assert_allclose(shares.numpy(), expected, atol=0.05)
    left = [
        (target - context.mean(1, keepdim=True), context.mean(1, keepdim=True))
        for context, target in SeriesDataModule(bounded, config).test_dataloader()
    ]
    without = torch.cat([ahead.flatten() for ahead, _ in left]).square().mean()
    with_shares = torch.cat([(ahead + shares[:, None] * level).flatten() for ahead, level in left]).square().mean()
    assert with_shares < 0.95 * without


def test_levels_that_stay_where_they_went_are_left_there(config: RunConfig, data: SeriesSet) -> None:
    """Walks seem to return to the mean of the rows they are known from; windows held out say otherwise."""
    config = reverting(config)
    found, plain = [], []
    for seed in range(8):
        wandering = series_of(walk(kept=1.0, seed=seed), data)
        found.append(shares_of(config, wandering)[-1])
        train, _ = SeriesDataModule(wandering, config).ordered_train_windows()
        context, target = (torch.cat(parts).double() for parts in zip(*train, strict=True))
        level = context.mean(1)
        plain.append(LevelMoments.of(level, (target - context.mean(1, keepdim=True)).transpose(1, 2)).shares()[-1])
    assert sum(plain) > 0.02
    assert sum(found) < 0.6 * sum(plain)


def test_a_level_that_is_left_for_good_after_the_training_rows_costs_the_shares(
    config: RunConfig, data: SeriesSet
) -> None:
    values = walk(kept=0.9, seed=1)
    steady = shares_of(reverting(config), series_of(values, data))
    values[1400:] += 40  # the validation windows are there
    assert steady.all()
    assert not shares_of(reverting(config), series_of(values, data)).any()


def test_without_validation_windows_the_folds_of_the_training_windows_decide(
    config: RunConfig, data: SeriesSet
) -> None:
    config = reverting(config)
    bounded = series_of(walk(kept=0.9, seed=1), data)
    datamodule = SeriesDataModule(
        bounded, config, borders_of=lambda series: Borders(range(len(series)), range(0), range(0))
    )
    mean = mean_of_context(config.model.context_length, config.model.prediction_length)
    assert estimated(datamodule, mean)[0].all()


def test_few_windows_that_can_hold_none_out_give_no_share(config: RunConfig, data: SeriesSet) -> None:
    short = series_of(walk(kept=0.5, seed=1, num_steps=16), data)
    config = reverting(config)
    datamodule = SeriesDataModule(
        short, config, borders_of=lambda series: Borders(range(len(series)), range(0), range(0))
    )
    mean = mean_of_context(config.model.context_length, config.model.prediction_length)
    assert not estimated(datamodule, mean)[0].any()


@pytest.mark.parametrize("gap", [0, 2])
def test_a_fold_is_forecast_by_the_blocks_that_are_a_gap_away_from_it(gap: int) -> None:
    size = 3
    blocks = [
        LevelMoments.of(torch.full((size, 1), 2.0**index).double(), torch.ones(size, 1, STEPS).double())
        for index in range(8)
    ]
    found = list(mean_reversion.folds(blocks, gap=gap))
    assert len(found) == 4
    for fold, (shares, mean, held) in enumerate(found):
        inside = {2 * fold, 2 * fold + 1}
        others = [index for index in range(8) if all(abs(index - each) > gap for each in inside)]
        assert float(held.level) == size * sum(2.0**index for index in inside)
        assert float(mean) == pytest.approx(sum(2.0**index for index in others) / len(others))
        expected = sum((blocks[index] for index in others[1:]), blocks[others[0]]).shares(mean)
        assert torch.equal(shares, expected)
    assert not list(mean_reversion.folds(blocks, gap=8))


@pytest.mark.parametrize("windows_per_epoch", [10_000, 500])
def test_the_gap_is_long_enough_that_no_row_is_on_both_sides(
    windows_per_epoch: int, config: RunConfig, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, int] = {}
    folds = mean_reversion.folds

    def spy(blocks: list[LevelMoments], *, gap: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, LevelMoments]]:
        told.update(gap=gap, smallest=min(block.count for block in blocks[:-1]), blocks=len(blocks))
        return folds(blocks, gap=gap)

    monkeypatch.setattr(mean_reversion, "folds", spy)
    monkeypatch.setattr(datamodule, "MOST_ROWS", 1)
    config = reverting(config, windows_per_epoch=windows_per_epoch, batch_size=7)
    long = series_of(walk(kept=0.9, seed=1), data)
    shares_of(config, long)
    spacing = -(-SeriesDataModule(long, config).num_windows("train") // windows_per_epoch)
    assert told["gap"] * told["smallest"] * spacing >= config.model.context_length + config.model.prediction_length
    assert told["gap"] < told["blocks"] / 8  # and no longer than that asks for


@pytest.mark.parametrize("start", ["ridge", "mean", "random"])
def test_a_network_and_its_average_begin_with_the_shares_and_else_as_without(
    start: str, config: RunConfig, data: SeriesSet
) -> None:
    bounded = series_of(walk(kept=0.9, seed=1), data)
    config = reverting(config, start=start)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"mean_reversion": False})})

    def begun(of: RunConfig) -> ForecastingModule:
        torch.manual_seed(1)
        module = ForecastingModule(of, bounded.channels)
        begin(module, SeriesDataModule(bounded, of))
        return module

    module, expected = begun(config), begun(plain).network.state_dict()
    for network in (module.network, module.trained_network):
        assert isinstance(network, STanHopNet)
        state = network.state_dict()
        assert state.pop("reversion.share").all()
        assert state.pop("reversion.farthest") > 0
        assert state.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in state.items())


def test_training_leaves_the_shares_and_the_model_keeps_them(
    config: RunConfig, data: SeriesSet, tmp_path: Path
) -> None:
    bounded = series_of(walk(kept=0.9, seed=1, num_steps=400), data)
    config = reverting(config)
    module = ForecastingModule(config, bounded.channels)
    begin(module, SeriesDataModule(bounded, config))
    result = fit(config, run_path=tmp_path / "run", series_set=bounded, progress=False)
    kept = load_bundle(result.model_path).network.get_buffer("reversion.share")
    assert torch.equal(kept, module.network.get_buffer("reversion.share"))
    assert kept.any()
