"""What a store that does not answer is told later: all of it, once, under the run it belongs to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import RunConfig, TrackingConfig
from stanhop.tracking import run as run_module
from stanhop.tracking.run import start_run
from stanhop.tracking.store import Store, open_store
from stanhop.tracking.unsent import Unsent, pending, send, send_all


@pytest.fixture
def store(tracking_folder: Path) -> Store:
    return open_store(TrackingConfig(), folder=tracking_folder)


@pytest.fixture
def away(store: Store) -> Store:
    """The same store while it does not answer."""
    return replace(store, client=None, is_reachable=False)  # type: ignore[arg-type]  # nobody asks for it


def runs_in(store: Store) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id]))


def orphaned(store: Store) -> None:
    """Let the files be those of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    for unsent in pending(store):
        text = unsent.path.read_text()
        unsent.path.write_text(text.replace(f'process": "{os.getpid()}"', f'process": "{process.pid}"'))
    for path in store.life_folder.glob("*.alive"):
        path.unlink()


def test_a_run_of_an_outage_is_sent_when_it_ends_and_the_store_is_back(
    store: Store, away: Store, tmp_path: Path
) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    run = start_run(away, name="mine", tags={"colour": "blue"})
    run.log_config(RunConfig())
    for step in (1, 2, 3):
        run.log_metrics({"val/loss": 1 / step}, step=step)
    run.log_content("report.json", b"{}")
    run.log_file(tmp_path / "kept.txt")
    run.finish("FINISHED")
    (sent,) = runs_in(store)
    assert (sent.info.run_name, sent.info.status, sent.data.tags["colour"]) == ("mine", "FINISHED", "blue")
    assert sent.info.run_id == run.run_id
    assert sent.data.params["train.seed"] == "1"
    history = store.client.get_metric_history(sent.info.run_id, "val/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    names = {artifact.path for artifact in store.client.list_artifacts(sent.info.run_id)}
    assert names == {"report.json", "kept.txt"}
    assert not list(store.unsent_folder.iterdir())


def test_a_store_that_comes_back_is_told_before_the_run_ends(
    store: Store, away: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(away, name="mine", tags={})
    run.log_metrics({"val/loss": 1.0}, step=1)
    assert not runs_in(store)
    monkeypatch.setattr(run_module, "RETRY_S", 0.0)
    run.log_metrics({"val/loss": 0.5}, step=2)
    (sent,) = runs_in(store)
    assert [entry.step for entry in store.client.get_metric_history(sent.info.run_id, "val/loss")] == [1, 2]
    assert sent.info.status == "RUNNING"


def test_the_next_run_sends_what_a_killed_one_left_and_closes_it(store: Store, away: Store) -> None:
    start_run(away, name="killed", tags={}).log_metrics({"val/loss": 1.0}, step=1)
    orphaned(store)
    start_run(store, name="next", tags={}).finish("FINISHED")
    assert {(run.info.run_name, run.info.status) for run in runs_in(store)} == {
        ("killed", "KILLED"),
        ("next", "FINISHED"),
    }


def test_runs_under_way_are_left_alone(store: Store, away: Store) -> None:
    run = start_run(away, name="mine", tags={})
    assert send_all(store) == 0
    assert not runs_in(store)
    run.finish("FINISHED")
    assert len(runs_in(store)) == 1


def test_those_of_another_container_are_left_alone_while_their_lock_is_held(store: Store, away: Store) -> None:
    run = start_run(away, name="mine", tags={})
    (unsent,) = pending(store)
    unsent.path.write_text(unsent.path.read_text().replace(socket.gethostname(), "another-container"))
    assert send_all(store) == 0
    assert run._life is not None
    run._life._lock.close()  # as the system does when the process dies
    assert send_all(store) == 1
    (sent,) = runs_in(store)
    assert sent.info.status == "KILLED"


def test_a_resumed_run_finds_its_record_and_repeats_no_step(store: Store, away: Store) -> None:
    first = start_run(away, name="mine", tags={})
    for step in (1, 2):
        first.log_metrics({"val/loss": 1 / step}, step=step)
    orphaned(store)
    again = start_run(store, name="mine", tags={}, run_id=first.run_id)
    for step in (2, 3):
        again.log_metrics({"val/loss": 1 / step}, step=step)
    again.finish("FINISHED")
    (run,) = runs_in(store)
    assert [entry.step for entry in store.client.get_metric_history(run.info.run_id, "val/loss")] == [1, 2, 3]
    assert run.info.status == "FINISHED"


def test_sending_twice_records_nothing_twice(store: Store, away: Store) -> None:
    run = start_run(away, name="mine", tags={})
    run.log_metrics({"val/loss": 1.0}, step=1)
    (unsent,) = pending(store)
    content = unsent.path.read_bytes()
    send(unsent, store, is_over=True)
    unsent.path.write_bytes(content)  # killed before the file was deleted
    send(unsent, store, is_over=True)
    (sent,) = runs_in(store)
    assert len(store.client.get_metric_history(sent.info.run_id, "val/loss")) == 1


def test_a_line_cut_by_a_kill_is_passed_over(store: Store, away: Store) -> None:
    run = start_run(away, name="mine", tags={})
    run.log_metrics({"val/loss": 1.0}, step=1)
    (unsent,) = pending(store)
    with unsent.path.open("a") as file:
        file.write('{"kind": "metrics", "val')
    run.log_metrics({"val/loss": 0.5}, step=2)
    assert [event["kind"] for event in unsent.events()] == ["run", "metrics", "metrics"]


def test_a_file_that_is_gone_does_not_hold_up_the_rest(
    store: Store, away: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start_run(away, name="mine", tags={})
    run.log_file(tmp_path / "gone.txt")
    run.log_metrics({"val/loss": 1.0}, step=1)
    run.finish("FINISHED")
    (sent,) = runs_in(store)
    assert sent.data.metrics == {"val/loss": 1.0}
    assert "gone.txt" in caplog.text


def test_what_is_for_another_store_is_kept(store: Store, away: Store) -> None:
    start_run(replace(away, uri="http://elsewhere"), name="mine", tags={})
    orphaned(replace(store, uri="http://elsewhere"))
    assert send_all(store) == 0
    assert len(list(store.unsent_folder.iterdir())) == 1


def test_a_part_of_an_unsent_run_becomes_a_part_of_the_sent_one(store: Store, away: Store) -> None:
    parent = start_run(away, name="grid", tags={})
    part = start_run(away, name="cell", tags={}, parent_run_id=parent.run_id)
    parent.finish("FINISHED")
    part.finish("FINISHED")
    tags = {run.info.run_name: run.data.tags for run in runs_in(store)}
    assert tags["cell"]["mlflow.parentRunId"] == parent.run_id


def test_every_line_is_plain_json(away: Store) -> None:
    run = start_run(away, name="mine", tags={})
    run.log_metrics({"val/loss": float("nan")}, step=1)
    (path,) = away.unsent_folder.iterdir()
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["run", "metrics"]
    assert Unsent(path).record == str(run.run_id).removeprefix("unsent-")
