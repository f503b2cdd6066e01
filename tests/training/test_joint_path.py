"""Whether a network has a joint path: where channels say much about one another, unless the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from stanhop.config import RunConfig
from stanhop.errors import StoppedError
from stanhop.forecasting.bundle import load_bundle
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import borders
from stanhop.training import joint_path
from stanhop.training.fit import FitResult, fit
from stanhop.training.in_memory import fit_in_memory
from stanhop.training.joint_path import RANK, with_joint_rank


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
def undecided(config: RunConfig) -> RunConfig:
    """A configuration that leaves the joint path to the data, with validation windows enough to judge by."""
    split = config.data.split.model_copy(update={"train": 0.5, "validation": 0.3})
    model = config.model.model_copy(update={"joint_rank": None, "seasonal_profile": False})
    return config.model_copy(update={"model": model, "data": config.data.model_copy(update={"split": split})})


def rank(config: RunConfig, data: SeriesSet) -> int | None:
    return with_joint_rank(config, SeriesDataModule(data, config)).model.joint_rank


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
    model = undecided.model.model_copy(update={"joint_rank": asked})
    config = undecided.model_copy(update={"model": model})
    assert with_joint_rank(config, SeriesDataModule(followers, config)) is config


def test_a_published_network_has_none(undecided: RunConfig, followers: SeriesSet) -> None:
    model = undecided.model.model_copy(update={"network": "published_outeffhop"})
    config = undecided.model_copy(update={"model": model})
    assert with_joint_rank(config, SeriesDataModule(followers, config)) is config


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
    monkeypatch.setattr(joint_path, "_is_worth_it", lambda _: True)
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
