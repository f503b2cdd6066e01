"""R14: first starts at once all succeed, and a tracking server that is down or dies costs no training and no metric."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stanhop.tracking.store import ENVIRONMENT
from tests.mlflow_server import free_port, server
from tests.reliability.kit import samples, training
from tests.reliability.kit.jobs import NO_DISK
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import sizes

NUM_STARTS = 6


@pytest.fixture(scope="module")
def tracking_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Has imported MLflow as well, with the variables that the program sets before it does."""
    modules = ("mlflow.store.tracking.sqlalchemy_store", "tests.reliability.kit.jobs")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with Nursery(tmp_path_factory.mktemp("tracking"), modules=modules) as opened:
            yield opened


@pytest.mark.parametrize("rounds", sizes(full=3, soak=20))
def test_first_starts_at_once_all_succeed(
    rounds: int, tracking_nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        starts = [tracking_nursery.start("tracked", f"run-{each}", cwd=folder) for each in range(NUM_STARTS)]
        ended = [start.end() for start in starts]
        assert [each.code for each in ended] == [0] * NUM_STARTS, [each.err for each in ended]
        listed = json.loads(tracking_nursery.run("list_runs", cwd=folder).out)
        assert sorted(listed) == [[f"run-{each}", "FINISHED", [1, 2, 3]] for each in range(NUM_STARTS)]
    total = rounds * NUM_STARTS
    record("R14", "first starts at once", f"{total} of {total} ({NUM_STARTS} at once, {rounds} times) have their run")


@pytest.mark.slow
def test_a_server_that_is_down_or_dies_loses_no_metric(
    tracking_nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def command(name: str, *more: str) -> tuple[str, ...]:
        words = [word for word in training.options(data, tmp_path / name) if word != "--no-tracking"]
        return (*words, "--tracking-uri", address, *more)

    began_s = time.monotonic()
    refused = tracking_nursery.run("command", *command("required", "--require-tracking"), cwd=tmp_path)
    assert (refused.code, refused.err.count("error[E404]")) == (4, 1), refused.err
    down = tracking_nursery.run("command", *command("down"), cwd=tmp_path)
    assert down.code == 0, down.err
    start_s = (time.monotonic() - began_s) / 2
    assert "is kept in" in down.err
    with server(tmp_path, port):
        child = tracking_nursery.start("stepping", "0.2", *command("dies"), cwd=tmp_path)
        assert child.wait_for("step 13"), child.err  # the first epoch is recorded
    dies = child.end()
    assert dies.code == 0, dies.err
    assert len(list((tmp_path / "mlflow-unsent").glob("*.jsonl"))) == 1, "the second training sent the first one's"
    with server(tmp_path, port):
        sent = tracking_nursery.run("command", "tracking", "send", "--tracking-uri", address, cwd=tmp_path)
        assert (sent.code, sent.out) == (0, "1 run sent\n"), sent.err
        assert tracking_nursery.run("abandoned", "killed", address, cwd=tmp_path).code == -signal.SIGKILL
        before = ("abandoned", "before a restart", address, "this machine before it was started anew")
        assert tracking_nursery.run(*before, cwd=tmp_path).code == -signal.SIGKILL
        assert tracking_nursery.run("tracked", "next", address, cwd=tmp_path).code == 0
        listed = json.loads(tracking_nursery.run("list_runs", address, "stanhop", "val/loss", cwd=tmp_path).out)
    assert sorted(listed) == [
        ["before a restart", "KILLED", [1]],
        ["dies", "FINISHED", [1, 2, 3, 4]],
        ["down", "FINISHED", [1, 2, 3, 4]],
        ["killed", "KILLED", [1]],
        ["next", "FINISHED", [1, 2, 3]],
    ]
    assert not list((tmp_path / "mlflow-unsent").iterdir())
    undisturbed = training.end_of(tmp_path / "down")
    assert not training.differences(training.end_of(tmp_path / "dies"), undisturbed)
    record(
        "R14",
        "a server down and one that dies",
        f"both trainings exit with 0 (the wait with none: {start_s:.0f} s a start, its training included),"
        " 8 of 8 epochs are in MLflow after sending, none twice; 2 of 2 runs whose processes were killed, one"
        " before a restart of its machine, are closed by the next",
    )


@pytest.mark.slow
def test_a_store_whose_disk_is_full_ends_no_run(
    tracking_nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    ended = tracking_nursery.run("tracked_on_a_small_disk", "8m", cwd=tmp_path)
    if ended.code == NO_DISK:
        pytest.skip("this machine lets nobody mount a file system in a name space of his own")
    first, listed = ended.out.splitlines()
    assert first == "exit code 0", ended.err
    assert sorted(json.loads(listed)) == [["mine", "KILLED", [1]], ["next", "FINISHED", []]]
    assert "MLflow: database or disk is full; what follows of this run is kept in" in ended.err
    assert "No space left on device; free some space; what follows of this run is not recorded" in ended.err
    assert "Traceback" not in ended.err
    record("R14", "a full disk", "a run goes on beside a database that is full, with two notes; the next run closes it")


@pytest.mark.slow
def test_metrics_of_an_outage_survive_a_kill_at_every_write(
    tmp_path: Path, tracking_nursery: Nursery, record: Callable[..., Any]
) -> None:
    ended = tracking_nursery.run("unsent_struck", 0, cwd=tmp_path)
    num_calls = int(ended.out.split()[-1])
    for call in range(1, num_calls + 1):
        folder = tmp_path / str(call)
        folder.mkdir()
        assert tracking_nursery.run("unsent_struck", call, cwd=folder).code == -signal.SIGKILL
        kept = json.loads(tracking_nursery.run("kept_steps", cwd=folder).out)
        said = [int(line) for line in (folder / "said").read_text().split()] if (folder / "said").exists() else []
        assert kept[: len(said)] == said, call
        assert len(kept) <= len(said) + 1
    record(
        "R4",
        "unsent metrics",
        f"killed at each of {num_calls} changes of the disk: what was kept is there",
    )
