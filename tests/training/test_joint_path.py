"""Whether a network has a joint path: where channels say much about one another, unless the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from stanhop.config import RunConfig
from stanhop.errors import StoppedError
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.model.joint_path import NUM_DIRECTIONS, num_joint_inputs
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import borders
from stanhop.training import joint_path
from stanhop.training.fit import FitResult, fit
from stanhop.training.in_memory import fit_in_memory
from stanhop.training.joint_path import NUM_MEMORIES, RANK, with_joint_path
from stanhop.training.joint_regression import JointTask, Trial
from stanhop.training.least_squares import PENALTIES, best_ridge, ridge_maps
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.start import begin


def series_of(values: np.ndarray, data: SeriesSet) -> SeriesSet:
    (one,) = data.series
    return SeriesSet.of((Series("", one.times, values, one.channels[: values.shape[1]]),), data.layout)


@pytest.fixture
def noise(data: SeriesSet) -> SeriesSet:
    """Two channels that know nothing of themselves or each other."""
    (one,) = data.series
    return series_of(np.random.default_rng(4).normal(size=(len(one), 2)), data)


@pytest.fixture
def followers(data: SeriesSet) -> SeriesSet:
    """The second channel repeats the first, which is noise, three steps later."""
    (one,) = data.series
    values = np.random.default_rng(9).normal(size=(len(one) + 3, 1))
    return series_of(np.hstack([values[3:], values[:-3]]), data)


@pytest.fixture
def clockwork(data: SeriesSet) -> SeriesSet:
    """The second channel is the first one's last value times the cosine of the day, and noise; the first is noise."""
    (one,) = data.series
    random, times = np.random.default_rng(6), pd.date_range("2022-01-01", periods=800, freq="h", unit="us")
    first = random.normal(size=len(times))
    cosine = np.cos(2 * np.pi * times.hour / 24)
    second = np.roll(first * cosine, 1) + 0.3 * random.normal(size=len(times))
    return SeriesSet.of((Series("", times, np.stack([first, second], axis=1), one.channels[:2]),), data.layout)


@pytest.fixture
def bent(data: SeriesSet) -> SeriesSet:
    """The second channel is the first one's last value where that is above 0, and noise; the first is noise."""
    (one,) = data.series
    random, times = np.random.default_rng(8), pd.date_range("2022-01-01", periods=1600, freq="h", unit="us")
    first = random.normal(size=len(times))
    second = np.roll(first, 1).clip(min=0) + 0.1 * random.normal(size=len(times))
    return SeriesSet.of((Series("", times, np.stack([first, second], axis=1), one.channels[:2]),), data.layout)


@pytest.fixture
def undecided(config: RunConfig) -> RunConfig:
    """A configuration that leaves the joint path to the data, with validation windows enough to judge by."""
    split = config.data.split.model_copy(update={"train": 0.5, "validation": 0.3})
    model = config.model.model_copy(update={"joint_rank": None, "seasonal_profile": False})
    return config.model_copy(update={"model": model, "data": config.data.model_copy(update={"split": split})})


def asking(config: RunConfig, **model: object) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


def rank(config: RunConfig, data: SeriesSet) -> int | None:
    return with_joint_path(config, SeriesDataModule(data, config)).model.joint_rank


def test_channels_that_follow_one_another_are_forecast_jointly(undecided: RunConfig, followers: SeriesSet) -> None:
    assert rank(undecided, followers) == RANK


def test_channels_that_say_nothing_of_one_another_are_not(undecided: RunConfig, noise: SeriesSet) -> None:
    assert rank(undecided, noise) == 0


def test_what_holds_in_half_of_the_validation_rows_alone_is_not_clear(
    undecided: RunConfig, followers: SeriesSet
) -> None:
    (one,) = followers.series
    values = one.values.copy()
    values[
        -len(values) // 3 :, 1
    ] *= -0.8  # the better part of the validation rows is forecast by it, on the whole less well
    assert rank(undecided, followers) == RANK
    assert rank(undecided, series_of(values, followers)) == 0


@pytest.mark.parametrize("asked", [0, 3])
def test_what_the_configuration_says_is_not_decided(asked: int, undecided: RunConfig, followers: SeriesSet) -> None:
    model = undecided.model.model_copy(update={"joint_rank": asked, "time_features": (), "joint_memories": 0})
    config = undecided.model_copy(update={"model": model})
    assert with_joint_path(config, SeriesDataModule(followers, config)) is config


def test_a_published_network_has_none(undecided: RunConfig, followers: SeriesSet) -> None:
    model = undecided.model.model_copy(update={"network": "published_outeffhop"})
    config = undecided.model_copy(update={"model": model})
    assert with_joint_path(config, SeriesDataModule(followers, config)) is config


@pytest.mark.parametrize("rank", [None, 3])
def test_what_levels_mean_by_day_is_told_where_it_helps(
    rank: int | None, undecided: RunConfig, clockwork: SeriesSet
) -> None:
    config = asking(undecided, joint_rank=rank)
    datamodule = SeriesDataModule(clockwork, config)
    assert datamodule.known_periods() == ("day", "week")
    model = with_joint_path(config, datamodule).model
    assert model.joint_rank == (rank or RANK)
    assert model.time_features == ("day",) == datamodule.time_features
    context, _ = next(iter(datamodule.val_dataloader()))
    assert context.shape[2] == 2 + model.num_time_features


def test_the_time_is_not_told_where_that_is_asked_for_or_there_is_no_joint_path(
    undecided: RunConfig, clockwork: SeriesSet, noise: SeriesSet
) -> None:
    for config, series_set in (
        (asking(undecided, time_features=()), clockwork),
        (asking(undecided, joint_rank=0), clockwork),
        (undecided, noise),
        (asking(undecided, joint_rank=3), noise),
        (asking(undecided, time_features=("day",)), noise),
    ):
        datamodule = SeriesDataModule(series_set, config)
        assert with_joint_path(config, datamodule).model.time_features == () == datamodule.time_features


def test_the_time_is_not_told_where_the_windows_are_for_it_and_not_clearly(
    undecided: RunConfig, clockwork: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_path, "is_clear", lambda *_, **__: False)
    config = asking(undecided, joint_rank=3)
    assert with_joint_path(config, SeriesDataModule(clockwork, config)).model.time_features == ()


def test_periods_that_are_asked_for_are_told_whatever_the_windows_say(
    undecided: RunConfig, followers: SeriesSet
) -> None:
    config = asking(undecided, time_features=("year", "week"))
    assert with_joint_path(config, SeriesDataModule(followers, config)).model.time_features == ("year", "week")
    split = config.data.split.model_copy(update={"train": 0.9, "validation": 0.01, "test": 0.01})
    for periods in (None, ("week",)):  # without windows to judge by
        blind = asking(config, joint_rank=3, time_features=periods)
        datamodule = SeriesDataModule(followers, blind, borders_of=lambda one: borders(len(one), split))
        assert with_joint_path(blind, datamodule).model.time_features == (periods or ())


def test_a_choice_of_periods_has_the_regression_of_a_training_that_is_told_no_others(
    undecided: RunConfig, clockwork: SeriesSet
) -> None:
    direct = torch.zeros(undecided.model.prediction_length, undecided.model.context_length)
    every = SeriesDataModule(clockwork, undecided)
    every.tell_time(("day", "week", "year"))
    for periods in ((), ("day",), ("week", "year"), ("day", "year")):
        alone = SeriesDataModule(clockwork, undecided)
        alone.tell_time(periods)
        chosen, expected = (JointTask(each, direct).regression([periods]) for each in (every, alone))
        torch.testing.assert_close(chosen.weight, expected.weight)
        assert chosen.time_features == periods


def test_a_network_that_is_told_the_time_begins_as_the_regression(undecided: RunConfig, clockwork: SeriesSet) -> None:
    config = asking(undecided, instance_norm=False)
    datamodule = SeriesDataModule(clockwork, config)
    module = ForecastingModule(with_joint_path(config, datamodule), clockwork.channels)
    begin(module, datamodule)
    errors = []
    for context, target in datamodule.test_dataloader():
        with torch.no_grad():
            errors.append((module.network(context) - target)[:, 0, 1].square())
    variance = 0.09 / (0.5 + 0.09)  # of the noise alone, in scaled units
    assert torch.cat(errors).mean() < 1.5 * variance


def test_the_model_forecasts_by_the_clock(
    undecided: RunConfig, clockwork: SeriesSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = asking(undecided, instance_norm=False)
    result = fit(config, run_path=tmp_path / "run", series_set=clockwork, progress=True)
    assert "the joint path is told the time of day (model.time_features)" in capsys.readouterr().err
    bundle = load_bundle(result.model_path)
    assert bundle.config.model.time_features == ("day",)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["time_features"] is None
    (one,) = clockwork.series
    values = np.zeros((bundle.config.model.context_length, 2))
    values[-1, 0] = 3.0
    steps = []
    for hour in range(24):
        last = pd.Timestamp("2022-05-01") + pd.Timedelta(hours=hour)
        times = pd.date_range(end=last, periods=len(values), freq="h", unit="us")
        steps.append(Forecaster(bundle, device="cpu").forecast(Series("", times, values, one.channels)).values[0, 1])
    assert np.corrcoef(steps, np.cos(2 * np.pi * np.arange(24) / 24))[0, 1] > 0.9


def test_a_path_has_memories_where_one_channel_bends_with_another(
    undecided: RunConfig, bent: SeriesSet, followers: SeriesSet
) -> None:
    for rank in (None, 3):
        config = asking(undecided, joint_rank=rank)
        model = with_joint_path(config, SeriesDataModule(bent, config)).model
        assert (model.joint_rank, model.joint_memories) == (rank or RANK, NUM_MEMORIES)
    straight = with_joint_path(undecided, SeriesDataModule(followers, undecided)).model
    assert (straight.joint_rank, straight.joint_memories) == (RANK, 0)


def test_there_are_no_more_memories_than_the_windows_are_clearly_for_or_than_are_asked_for(
    undecided: RunConfig, bent: SeriesSet, followers: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memories(config: RunConfig, series_set: SeriesSet) -> int | None:
        return with_joint_path(config, SeriesDataModule(series_set, config)).model.joint_memories

    assert memories(asking(undecided, joint_memories=0), bent) == 0
    assert memories(asking(undecided, joint_memories=3), followers) == 3
    assert memories(asking(undecided, joint_rank=0), bent) == 0
    split = undecided.data.split.model_copy(update={"train": 0.9, "validation": 0.01, "test": 0.01})
    for asked in (None, 3):  # without windows to judge by
        blind = asking(undecided, joint_rank=3, joint_memories=asked)
        datamodule = SeriesDataModule(followers, blind, borders_of=lambda one: borders(len(one), split))
        assert with_joint_path(blind, datamodule).model.joint_memories == (asked or 0)
    monkeypatch.setattr(joint_path, "is_clear", lambda *_, **__: False)
    assert memories(asking(undecided, joint_rank=3), bent) == 0


def test_a_path_that_only_memories_make_worth_it_is_had(
    undecided: RunConfig, bent: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = JointTask.trial_of_nothing

    def little_worse(task: JointTask) -> Trial:
        """What the direct path is worth, if the regression without memories were no better."""
        straight = task.trial([()])
        return replace(nothing(task), errors=straight.errors)

    monkeypatch.setattr(JointTask, "trial_of_nothing", little_worse)
    config = asking(undecided, time_features=())
    assert rank(asking(config, joint_memories=0), bent) == 0
    assert rank(config, bent) == RANK


def test_too_many_inputs_with_memories_are_tried_without(
    undecided: RunConfig, bent: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asking(undecided, joint_rank=3, time_features=())
    inputs = num_joint_inputs(2, config.model.patch_length, 0, NUM_MEMORIES)
    monkeypatch.setattr(joint_path, "LONGEST_CONTEXT", inputs)
    assert with_joint_path(config, SeriesDataModule(bent, config)).model.joint_memories == NUM_MEMORIES
    monkeypatch.setattr(joint_path, "LONGEST_CONTEXT", inputs - 1)
    assert with_joint_path(config, SeriesDataModule(bent, config)).model.joint_memories == 0


def test_memories_are_asked_along_what_the_forecast_without_them_moves_along(
    undecided: RunConfig, bent: SeriesSet
) -> None:
    config = asking(undecided, joint_rank=3, time_features=(), joint_memories=3)
    datamodule = SeriesDataModule(bent, config)
    module = ForecastingModule(config, bent.channels)
    begin(module, datamodule)
    task = JointTask(datamodule, best_ridge(datamodule))
    straight = task.regression([()])
    for network in (module.network, module.trained_network):
        assert isinstance(network, STanHopNet)
        assert network.joint is not None
        assert network.joint.memories is not None
        memories = network.joint.memories.eval().requires_grad_(False)
        asked = memories.query_proj.weight.double()
        assert not memories.query_proj.bias.any()
        # uncorrelated, each with a mean square of 1
        torch.testing.assert_close(
            asked @ straight.moments.contexts @ asked.T, torch.eye(NUM_DIRECTIONS).double(), atol=1e-3, rtol=0
        )
        # the forecast, but for what is narrower than them all, is a map of them
        kept = torch.linalg.lstsq(asked.T, straight.weight.T).solution
        left = straight.weight - (asked.T @ kept).T
        lost, all_of_it = (
            float((weight @ straight.moments.contexts * weight).sum()) for weight in (left, straight.weight)
        )
        assert lost < 0.05 * all_of_it
        windows, _ = datamodule.ordered_train_windows()
        told = torch.cat([memories(inputs.float()) for inputs, _ in task.rows(windows)])
        torch.testing.assert_close(told.mean(dim=0), torch.zeros(told.shape[1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", [True, False])
def test_a_path_with_memories_begins_as_the_regression_and_forecasts_what_bends(
    norm: bool, undecided: RunConfig, bent: SeriesSet
) -> None:
    def error(num_memories: int) -> float:
        config = asking(undecided, joint_rank=64, time_features=(), joint_memories=num_memories, instance_norm=norm)
        datamodule = SeriesDataModule(bent, config)
        module = ForecastingModule(config, bent.channels)
        begin(module, datamodule)
        network, errors = module.network.eval(), []
        for context, target in datamodule.test_dataloader():
            with torch.no_grad():
                errors.append((network(context) - target)[:, 0, 1].square())
        return float(torch.cat(errors).mean())

    assert error(NUM_MEMORIES) < 0.75 * error(0)


def test_a_run_says_that_there_are_memories_and_its_model_has_them(
    undecided: RunConfig, bent: SeriesSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(undecided, run_path=tmp_path / "run", series_set=bent, progress=True)
    said = f"the joint path retrieves from memories, {NUM_MEMORIES} a head (model.joint_memories)"
    assert said in capsys.readouterr().err
    model = load_bundle(result.model_path)
    assert model.config.model.joint_memories == NUM_MEMORIES
    assert isinstance(model.network, STanHopNet)
    assert model.network.get_parameter("joint.memories.memory").shape[1] == NUM_MEMORIES
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["joint_memories"] is None


def test_what_a_regression_is_worth_is_told_by_windows_that_did_not_choose_it(
    undecided: RunConfig, clockwork: SeriesSet
) -> None:
    (one,) = clockwork.series
    values = one.values.copy()
    values[520:640, 1] *= -1  # the later half of the validation rows chooses otherwise
    clockwork = series_of(values, clockwork)
    datamodule = SeriesDataModule(clockwork, undecided)
    datamodule.tell_time(("day", "week"))
    direct = torch.zeros(undecided.model.prediction_length, undecided.model.context_length)
    task = JointTask(datamodule, direct)
    choices = [(), ("day",), ("week",)]
    trial = task.trial(choices)
    rows = [torch.cat(each) for each in zip(*task.rows(datamodule.val_dataloader()), strict=True)]
    border = len(rows[0]) // 2
    own, other = ([part[:border] for part in rows], [part[border:] for part in rows])
    for judged, judges, errors in ((own, other, trial.errors[:border]), (other, own, trial.errors[border:])):
        candidates = []
        for periods in choices:
            alone = SeriesDataModule(clockwork, undecided)
            alone.tell_time(periods)
            train = JointTask(alone, direct).train
            places = JointTask(datamodule, direct).regression([periods]).places
            nothing = torch.zeros_like(train.products.T)
            for weight in (nothing, *ridge_maps(train, nothing, PENALTIES)):
                error = float((judges[1] - judges[0][:, places] @ weight.T).square().mean())
                candidates.append((error, weight, places))
        _, weight, places = min(candidates, key=lambda each: each[0])
        torch.testing.assert_close(errors, (judged[1] - judged[0][:, places] @ weight.T).square().mean(dim=1))
    torch.testing.assert_close(task.trial_of_nothing().errors, rows[1].square().mean(dim=1))


@pytest.mark.parametrize("bound", ["LONGEST_CONTEXT", "LARGEST_MAP"])
def test_large_regressions_are_not_tried_unasked(
    bound: str, undecided: RunConfig, followers: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = undecided.model
    largest = {
        "LONGEST_CONTEXT": model.context_length,
        "LARGEST_MAP": 2 * model.patch_length * 2 * model.prediction_length,
    }
    monkeypatch.setattr(joint_path, bound, largest[bound])
    assert rank(undecided, followers) == RANK
    monkeypatch.setattr(joint_path, bound, largest[bound] - 1)
    assert rank(undecided, followers) == 0


def test_one_channel_has_none(undecided: RunConfig, followers: SeriesSet, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = followers.series
    monkeypatch.setattr(joint_path, "is_clear", lambda *_, **__: True)
    assert rank(undecided, followers) == RANK
    assert rank(undecided, series_of(one.values[:, :1], followers)) == 0


def test_a_run_says_so_and_its_model_needs_no_data_to_know(
    undecided: RunConfig, followers: SeriesSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(undecided, run_path=tmp_path / "run", series_set=followers, progress=True)
    assert "channels say much about one another" in capsys.readouterr().err
    bundle = load_bundle(tmp_path / "run" / "model")
    assert bundle.config.model.joint_rank == RANK
    assert isinstance(bundle.network, STanHopNet)
    assert bundle.network.joint is not None
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["joint_rank"] is None


def test_a_resumed_run_decides_as_before(
    undecided: RunConfig, followers: SeriesSet, tmp_path: Path, signal_at_step: Callable[..., None]
) -> None:
    def train(path: Path, *, resume: bool = False) -> FitResult:
        return fit(undecided, run_path=path, series_set=followers, progress=False, resume=resume)

    whole = train(tmp_path / "whole")
    signal_at_step(3)
    with pytest.raises(StoppedError):
        train(tmp_path / "cut")
    resumed = train(tmp_path / "cut", resume=True)
    weights = [(result.model_path / "model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_training_in_memory_decides_likewise(undecided: RunConfig, followers: SeriesSet, tmp_path: Path) -> None:
    result = fit(undecided, run_path=tmp_path / "run", series_set=followers, progress=False)
    held = fit_in_memory(
        undecided, followers, borders_of=lambda one: borders(len(one), undecided.data.split), progress=False
    )
    assert held.config.model == load_bundle(result.model_path).config.model
