"""Runs read from a tracking server: the same as its database holds, however many pages, and nothing is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanhop.config import ModelConfig, RunConfig, TrackingConfig
from stanhop.errors import ConfigError
from stanhop.tracking import search
from stanhop.tracking.artifacts import artifact
from stanhop.tracking.names import PRESET_TAG
from stanhop.tracking.run import start_run
from stanhop.tracking.search import Filter, find_runs, pick
from stanhop.tracking.store import open_store
from tests.mlflow_server import free_port, server

pytestmark = pytest.mark.slow
NUM_PARTS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def tracking(place: Path) -> Iterator[TrackingConfig]:
    """A server with a parent and its parts, one of which has a file and a metric that is not a number."""
    with server(place, free_port()) as address:
        tracking = TrackingConfig(uri=address)
        store = open_store(tracking, folder=place, is_required=True)
        parent = start_run(store, name="grid", tags={})
        for number in range(NUM_PARTS):
            part = start_run(store, name=f"part-{number}", tags={PRESET_TAG: "etth1"}, parent_run_id=parent.run_id)
            part.log_config(RunConfig(model=ModelConfig(dropout=0.1 * number)))
            part.log_metrics({"val/best_loss": 1.0 / number if number else math.nan})
            part.finish("FINISHED")
        parent.log_content("table.md", b"| a |")
        parent.finish("FAILED")
        yield tracking


def test_a_server_tells_what_its_database_holds(
    tracking: TrackingConfig, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PAGE", 2)  # of five runs
    told = find_runs(tracking, folder=place)
    held = find_runs(TrackingConfig(uri=f"sqlite:///{place}/server.db"), folder=place)
    assert [run.name for run in told] == [run.name for run in held]
    assert len(told) == 1 + NUM_PARTS
    for one, other in zip(told, held, strict=True):
        assert {**vars(one), "metrics": {}} == {**vars(other), "metrics": {}}
        assert one.metrics == pytest.approx(other.metrics, nan_ok=True)
    assert len(find_runs(tracking, folder=place, chosen=Filter(preset="etth1", status="FINISHED"))) == NUM_PARTS


def test_reading_makes_no_experiment(tracking: TrackingConfig, place: Path) -> None:
    for _ in range(2):  # not even for the second time
        with pytest.raises(ConfigError, match=r"no experiment 'other'; name one with --experiment: .*stanhop"):
            find_runs(tracking.model_copy(update={"experiment": "other"}), folder=place)


def test_the_file_of_a_run_is_fetched_and_gone_afterwards(tracking: TrackingConfig, place: Path) -> None:
    run = pick(find_runs(tracking, folder=place), "grid")
    assert run.artifact_path is None, "on the server"
    with artifact(run, "table.md", tracking, folder=place) as fetched:
        assert fetched is not None
        assert fetched.read_bytes() == b"| a |"
    assert not fetched.exists()
    with artifact(run, "plot.png", tracking, folder=place) as missing:
        assert missing is None
