"""What MLflow holds of a run afterwards, as a person would look for it."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from stanhop.config import ModelConfig, RunConfig, TrackingConfig, TrainConfig, flatten
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.tracking import dead_runs
from stanhop.tracking.run import LONGEST_PARAMETER, TrackedRun, git_commit, run_tags, start_run
from stanhop.tracking.store import Store, open_store
from stanhop.tracking.unsent import Unsent

CONFIG = RunConfig(model=ModelConfig(separation="sparse_outeffhop"), train=TrainConfig(seed=7))


@pytest.fixture
def store(tracking_folder: Path) -> Store:
    opened = open_store(TrackingConfig(), folder=tracking_folder)
    assert opened is not None
    return opened


@pytest.fixture
def series_set() -> SeriesSet:
    times = pd.date_range("2021-01-01", periods=11, freq="h", unit="us")
    values = np.arange(33, dtype=np.float64).reshape(11, 3)
    layout = Layout(kind="wide", time_column="date", id_column=None, target_columns=("a", "b", "c"))
    return SeriesSet.of((Series(id="", times=times, values=values, channels=("a", "b", "c")),), layout)


@pytest.fixture
def found(tracking_folder: Path) -> Callable[[], dict[str, Any]]:
    """The one run in the store, as ``mlflow.search_runs`` shows it."""

    def find() -> dict[str, Any]:
        mlflow.set_tracking_uri(f"sqlite:///{tracking_folder}/mlflow.db")
        (row,) = mlflow.search_runs(experiment_names=["stanhop"]).to_dict("records")
        return {str(key): value for key, value in row.items()}

    return find


def test_a_run_is_found_by_its_configuration(store: Store, found: Callable[[], dict[str, Any]]) -> None:
    run = start_run(store, name="first", tags={})
    run.log_config(CONFIG)
    run.finish("FINISHED")
    row = found()
    parameters = {key.removeprefix("params."): value for key, value in row.items() if key.startswith("params.")}
    assert parameters == {key: str(value) for key, value in flatten(CONFIG.model_dump(mode="json")).items()}
    assert row["status"] == "FINISHED"
    assert row["tags.mlflow.runName"] == "first"
    assert row["run_id"] == run.run_id


def test_parameters_fit_one_call_of_mlflow() -> None:
    assert len(flatten(CONFIG.model_dump())) <= 100


def test_a_run_is_found_by_its_tags(store: Store, series_set: SeriesSet, found: Callable[[], dict[str, Any]]) -> None:
    start_run(store, name="first", tags=run_tags(CONFIG, series_set, dataset="sales.csv")).finish("FINISHED")
    row = found()
    assert row["tags.stanhop.dataset"] == "sales.csv"
    assert row["tags.stanhop.dataset_sha256"] == series_set.fingerprint
    assert row["tags.stanhop.separation"] == "sparse_outeffhop"
    assert row["tags.stanhop.seed"] == "7"
    assert row["tags.stanhop.version"]


def test_metrics_have_the_epoch_as_step(store: Store) -> None:
    run = start_run(store, name="first", tags={})
    run.log_metrics({"val/loss": 0.5, "train/loss": 0.75}, step=1)
    run.log_metrics({"val/loss": 0.25}, step=2)
    history = store.client.get_metric_history(run.run_id, "val/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.5), (2, 0.25)]


def test_nan_is_kept_and_infinity_left_out(
    store: Store, found: Callable[[], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    run = start_run(store, name="first", tags={})
    run.log_metrics({"test/mase": math.nan, "test/mse": math.inf, "test/mae": 1.0})
    row = found()
    assert math.isnan(row["metrics.test/mase"])
    assert row["metrics.test/mae"] == 1.0
    assert "metrics.test/mse" not in row
    assert "test/mse is infinite and not recorded" in caplog.text


def test_the_data_are_an_input_of_the_run(store: Store, series_set: SeriesSet) -> None:
    run = start_run(store, name="first", tags={})
    run.log_data(series_set, name="sales.csv", source="data/sales.csv")
    (data,) = store.client.get_run(run.run_id).inputs.dataset_inputs
    assert data.dataset.name == "sales.csv"
    assert series_set.fingerprint.startswith(data.dataset.digest)
    assert json.loads(data.dataset.profile) == {"num_series": 1, "num_rows": 11, "frequency": "h"}
    assert mlflow.data.get_source(data).to_dict() == {"uri": "data/sales.csv"}


def test_files_and_folders_are_kept_under_their_names(store: Store, tracking_folder: Path) -> None:
    (tracking_folder / "model").mkdir()
    (tracking_folder / "model" / "manifest.json").write_text("{}")
    (tracking_folder / "config.yaml").write_text("a: 1")
    run = start_run(store, name="first", tags={})
    run.log_file(tracking_folder / "config.yaml")
    run.log_folder(tracking_folder / "model")
    kept = tracking_folder / "mlruns" / str(run.run_id) / "artifacts"
    assert (kept / "config.yaml").read_text() == "a: 1"
    assert (kept / "model" / "manifest.json").read_text() == "{}"


def test_a_resumed_run_goes_on_in_its_record_without_doubling_steps(store: Store) -> None:
    run = start_run(store, name="first", tags={})
    run.log_config(CONFIG)
    run.log_metrics({"val/loss": 0.5}, step=1)
    run.log_metrics({"val/loss": 0.25}, step=2)
    run.finish("KILLED")
    again = start_run(store, name="first", tags={}, run_id=run.run_id)
    assert again.run_id == run.run_id
    assert store.client.get_run(run.run_id).info.status == "RUNNING"
    again.log_config(CONFIG)
    again.log_metrics({"val/loss": 0.25}, step=2)
    again.log_metrics({"val/loss": 0.125, "test/mse": 1.0}, step=3)
    again.finish("FINISHED")
    history = store.client.get_metric_history(run.run_id, "val/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert len(store.client.search_runs([store.experiment_id])) == 1
    assert store.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_that_mlflow_no_longer_has_is_recorded_anew(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run = start_run(store, name="first", tags={}, run_id="0" * 32)
    assert run.run_id not in (None, "0" * 32)
    assert "no longer has run" in caplog.text


def test_runs_of_dead_processes_are_closed_and_those_of_living_ones_are_not(store: Store) -> None:
    dead = start_run(store, name="dead", tags={})
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    store.client.set_tag(dead.run_id, "stanhop.process", str(process.pid))
    living = start_run(store, name="living", tags={})
    elsewhere = start_run(store, name="elsewhere", tags={})
    store.client.set_tag(elsewhere.run_id, "stanhop.process", str(process.pid))
    store.client.set_tag(elsewhere.run_id, "stanhop.host", "another-machine")
    start_run(store, name="next", tags={})
    statuses = {run: store.client.get_run(run.run_id).info.status for run in (dead, living, elsewhere)}
    assert statuses == {dead: "KILLED", living: "RUNNING", elsewhere: "RUNNING"}


def test_on_a_server_those_of_the_same_machine_are_closed_and_no_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = replace(store, is_local=False)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead, elsewhere, unknown, living = (start_run(server, name=name, tags={}) for name in "abcd")
    for run in (dead, elsewhere, unknown):
        server.client.set_tag(run.run_id, "stanhop.process", str(process.pid))
    server.client.set_tag(elsewhere.run_id, "stanhop.machine", "the-same-host-name-in-another-container")
    server.client.delete_tag(unknown.run_id, "stanhop.machine")

    def statuses() -> list[str]:
        runs = (dead, elsewhere, unknown, living)
        return [str(server.client.get_run(str(run.run_id)).info.status) for run in runs]

    with monkeypatch.context() as patch:
        patch.setattr(dead_runs, "BOOT_ID", Path("/nowhere"))  # a system that does not tell
        start_run(server, name="next", tags={})
        assert statuses() == ["RUNNING"] * 4
    start_run(server, name="next", tags={})
    assert statuses() == ["KILLED", "RUNNING", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("is_local", [True, False])
def test_those_of_another_machine_or_start_are_closed_once_nobody_holds_their_lock(
    is_local: bool, store: Store
) -> None:
    shared = replace(store, is_local=is_local)
    run = start_run(shared, name="elsewhere", tags={})
    for tag in ("stanhop.host", "stanhop.machine"):
        shared.client.set_tag(run.run_id, tag, "another-start-or-container")

    def status_after_another(other: Store) -> str:
        start_run(other, name="next", tags={}).finish("FINISHED")
        return str(shared.client.get_run(str(run.run_id)).info.status)

    assert status_after_another(shared) == "RUNNING"
    assert run._life is not None
    run._life._lock.close()  # as the system does when a process or a machine dies
    assert status_after_another(replace(shared, experiment="other")) == "RUNNING", "who asks elsewhere forgets nothing"
    assert status_after_another(shared) == "KILLED"
    assert not list(shared.life_folder.glob("*.alive"))


def test_a_run_that_ended_leaves_no_sign_of_life(store: Store) -> None:
    run = start_run(store, name="first", tags={})
    assert len(list(store.life_folder.glob("*.alive"))) == 1
    run.finish("FINISHED")
    assert not list(store.life_folder.glob("*.alive"))


def test_a_folder_that_takes_no_lock_keeps_no_run_from_being_recorded(store: Store) -> None:
    (store.unsent_folder).write_text("no folder")
    run = start_run(replace(store, is_local=False), name="first", tags={})
    run.finish("FINISHED")
    assert store.client.get_run(str(run.run_id)).info.status == "FINISHED"


class FailingClient:
    """A store that was there and is no more."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            self.calls.append(name)
            raise ConnectionError("http://ada:secret@there: gone\nand more")

        return fail


def lost_store(folder: Path, client: FailingClient) -> Store:
    return Store(client, "1", False, "http://ada:secret@127.0.0.1:9", "stanhop", folder / "mlflow-unsent")  # type: ignore[arg-type]  # as far as a run needs it


def test_a_store_that_is_lost_is_reported_once_and_all_else_is_kept(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = FailingClient()
    run = TrackedRun(lost_store(tmp_path, client), "abc", name="mine")
    with caplog.at_level(logging.WARNING):
        run.log_metrics({"val/loss": 0.5}, step=1)
        run.log_metrics({"val/loss": 0.25}, step=2)
        run.log_config(CONFIG)
    assert client.calls == ["log_batch"]
    (record,) = caplog.records
    folder = tmp_path / "mlflow-unsent"
    assert record.message == f"MLflow: http://***@there: gone; what follows of this run is kept in {folder}"
    run.finish("FINISHED")
    (kept,) = folder.iterdir()
    events = Unsent(kept).events()
    assert [event["kind"] for event in events] == ["run", "metrics", "metrics", "params", "finish"]
    assert [event["values"]["val/loss"] for event in events[1:3]] == [0.5, 0.25]
    assert "secret" not in kept.read_text()
    assert "run mine is kept in" in caplog.text


def test_a_store_that_is_lost_before_the_run_begins_is_a_warning(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run = start_run(lost_store(tmp_path, FailingClient()), name="first", tags={})
    assert str(run.run_id).startswith("unsent-")
    assert "this run is kept in" in caplog.text


def test_where_nothing_can_be_kept_either_that_is_said_and_training_goes_on(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "mlflow-unsent").write_text("a file")
    run = start_run(lost_store(tmp_path, FailingClient()), name="first", tags={})
    run.log_metrics({"val/loss": 0.5}, step=1)
    run.finish("FINISHED")
    assert caplog.text.count("what follows of this run is not recorded") == 1


def test_without_a_store_nothing_is_done_and_mlflow_not_imported(
    monkeypatch: pytest.MonkeyPatch, series_set: SeriesSet, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name == "mlflow" or name.startswith("mlflow.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = start_run(None, name="first", tags={})
    run.log_config(CONFIG)
    run.log_data(series_set, name="a", source="a")
    run.log_metrics({"val/loss": 1.0})
    run.log_file(tmp_path)
    run.log_folder(tmp_path)
    run.finish("FINISHED")
    assert run.run_id is None


def test_passwords_and_endless_values_are_not_recorded(store: Store) -> None:
    run = start_run(store, name="first", tags={})
    columns = tuple(f"column number {number}" for number in range(1000))
    config = RunConfig.model_validate(
        {"data": {"target_columns": columns}, "tracking": {"uri": "http://ada:secret@there:5000"}}
    )
    run.log_config(config)
    parameters = store.client.get_run(run.run_id).data.params
    assert parameters["tracking.uri"] == "http://***@there:5000"
    assert len(parameters["data.target_columns"]) == LONGEST_PARAMETER


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": "abc123\n"}, "abc123"),
        ({"HEAD": "abc123\n"}, "abc123"),
        (
            {"HEAD": "ref: refs/heads/main\n", "packed-refs": "# pack\nfff refs/heads/other\nabc123 refs/heads/main\n"},
            "abc123",
        ),
        ({"HEAD": "ref: refs/heads/main\n"}, None),
        ({}, None),
    ],
    ids=["branch", "detached", "packed", "no commit yet", "no checkout"],
)
def test_the_commit_of_a_checkout_is_read(files: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert git_commit(tmp_path) == expected
