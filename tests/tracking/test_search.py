"""Runs as they are found again: by SQL in a file, through MLflow elsewhere, and the one that a person means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from stanhop.config import ModelConfig, RunConfig, TrackingConfig, TrainConfig
from stanhop.errors import ConfigError, DataError
from stanhop.tracking.names import PRESET_TAG
from stanhop.tracking.run import start_run
from stanhop.tracking.search import Filter, RunRecord, _from_mlflow, children_of, find_runs, pick
from stanhop.tracking.store import open_store

CONFIG = RunConfig(model=ModelConfig(separation="gsh", dropout=0.3), train=TrainConfig(seed=7))


def record(name: str = "first", *, run_id: str = "a" * 32, tags: dict[str, str] | None = None) -> RunRecord:
    return RunRecord(run_id, name, "FINISHED", 1, 2, "file:///x", {}, {}, tags or {})


@pytest.fixture
def filled(tracking_folder: Path) -> Path:
    """A parent with two parts, of which one has a metric that is not a number."""
    store = open_store(TrackingConfig(), folder=tracking_folder)
    parent = start_run(store, name="grid", tags={})
    for number, value in enumerate((0.25, math.nan)):
        part = start_run(store, name=f"part-{number}", tags={PRESET_TAG: "etth1"}, parent_run_id=parent.run_id)
        part.log_config(CONFIG)
        part.log_metrics({"val/best_loss": value})
        part.finish("FINISHED")
    parent.finish("FAILED")
    return tracking_folder


def test_a_file_is_read_as_mlflow_reads_it(filled: Path) -> None:
    found = find_runs(TrackingConfig(), folder=filled)
    store = open_store(TrackingConfig(), folder=filled)
    assert store is not None
    expected = {run.info.run_id: _from_mlflow(run) for run in store.client.search_runs([store.experiment_id])}
    assert {run.id for run in found} == set(expected)
    for run in found:
        theirs = expected[run.id]
        assert str(run) == str(theirs).replace("NaN", "nan") or vars(run) == vars(theirs)
        assert (dict(run.params), dict(run.tags)) == (dict(theirs.params), dict(theirs.tags))
        assert run.metrics == pytest.approx(theirs.metrics, nan_ok=True)


def test_newest_come_first_and_parts_know_their_parent(filled: Path) -> None:
    found = find_runs(TrackingConfig(), folder=filled)
    assert [run.start_ms for run in found] == sorted((run.start_ms for run in found), reverse=True)
    assert [run.name for run in children_of(found, pick(found, "grid"))] == ["part-0", "part-1"]


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tracking store"):
        find_runs(TrackingConfig(), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_experiment_is_told_with_those_there_are(filled: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'other'.*stanhop"):
        find_runs(TrackingConfig(experiment="other"), folder=filled)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), 3),
        (Filter(preset="etth1"), 2),
        (Filter(preset="wth"), 0),
        (Filter(status="FAILED"), 1),
        (Filter(is_fitted=True), 2),
        (Filter(tags={"preset": "etth1"}), 2),
        (Filter(tags={"mlflow.runName": "part-1"}), 1),
    ],
)
def test_filters_take_what_they_say(filled: Path, chosen: Filter, expected: int) -> None:
    assert len(find_runs(TrackingConfig(), folder=filled, chosen=chosen)) == expected


def test_a_run_is_meant_by_its_name_its_folder_or_the_beginning_of_its_id() -> None:
    runs = [record(), record("second", run_id="b" * 32)]
    for text in ("second", "runs/second", "b" * 6, "b" * 32):
        assert pick(runs, text).name == "second"


def test_a_name_of_several_runs_is_refused_with_their_ids() -> None:
    with pytest.raises(DataError, match=r"2 runs are called 'first'.*aaaaaaaaaaaa, bbbbbbbbbbbb"):
        pick([record(), record(run_id="b" * 32)], "first")


@pytest.mark.parametrize("text", ["third", "bbb"])
def test_a_run_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=f"there is no run '{text}'"):
        pick([record(run_id="b" * 32)], text)


def test_the_seed_of_a_training_is_a_number(filled: Path) -> None:
    assert pick(find_runs(TrackingConfig(), folder=filled), "part-0").seed == 7


def test_a_key_that_an_old_run_has_not_counts_as_its_default() -> None:
    assert record().setting("model.model_dim") == str(RunConfig().model.model_dim)
