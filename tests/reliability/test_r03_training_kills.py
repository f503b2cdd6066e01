"""R3: a training that is killed outright, wherever that meets it, ends bit for bit like one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stanhop.cli.app import main
from tests.reliability.kit import processes, samples, training
from tests.reliability.kit.nursery import ROOT, Nursery
from tests.reliability.kit.sizes import sizes

PAUSE_S = "0.004"
LONGEST_LIFE_S = 0.45


def killed_until_done(nursery: Nursery, data: Path, run_path: Path, moments: random.Random, *, at_most: int) -> int:
    """Train, kill, resume, kill …; the number of kills that met a training at work."""
    kills = 0
    while True:
        child = nursery.start(
            "stepping",
            PAUSE_S,
            *training.resuming(data, run_path),
            environment={"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {},  # another file system
        )
        manifest = run_path / "checkpoints" / "manifest.json"  # before it is there, there is nothing to resume
        if kills < at_most and child.speaks() and child.wait_until(manifest.exists):
            time.sleep(moments.uniform(0, LONGEST_LIFE_S))
            child.send(signal.SIGKILL)
        ended = child.end()
        if ended.code == -signal.SIGKILL:
            kills += 1
        else:
            assert ended.code == 0, ended.err
            return kills


@pytest.mark.parametrize("num_kills", sizes(full=20, soak=500))
def test_killed_at_random_times_it_ends_with_the_same_bits(
    num_kills: int, nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    assert nursery.run("command", *training.options(data, tmp_path / "undisturbed")).code == 0
    expected = training.end_of(tmp_path / "undisturbed")
    forecast = _forecast(tmp_path / "undisturbed", data)
    moments, kills, runs = random.Random(num_kills), 0, 0
    while kills < num_kills:
        runs += 1
        run_path = tmp_path / f"run-{runs}"
        kills += killed_until_done(nursery, data, run_path, moments, at_most=num_kills - kills)
        assert not training.differences(training.end_of(run_path), expected)
        assert _forecast(run_path, data) == forecast
        assert not list(run_path.rglob(".tmp-*"))
        assert runs < num_kills + 5, "the kills miss"
    num_leaves = len(expected)
    record(
        "R3",
        "SIGKILL in training",
        f"{kills} kills over {runs} trainings, 0 of {runs} differ in any of {num_leaves} compared values"
        " (weights, optimiser, random generators, metrics, model files) or in their forecast",
    )


class Pair:
    """A training by two processes, as the command line starts it; it takes some seconds.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "stanhop", *arguments, "--devices", "2", "--epochs", "30"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._main = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def kill_one(self, moments: random.Random, *, manifest: Path) -> str:
        """Kill either process at a random time after they have written to ``manifest``; the name of it."""
        before = _content(manifest)
        while _content(manifest) == before:
            assert self._main.poll() is None, self.end()
            time.sleep(0.002)
        helpers = processes.children_of(self._main.pid)
        time.sleep(moments.uniform(0, LONGEST_LIFE_S))
        name = moments.choice(["main", "helping"])
        for process in [self._main.pid] if name == "main" else helpers:
            os.kill(process, signal.SIGKILL)
        return name

    def end(self) -> tuple[int, str]:
        """Exit code and standard error, once both have left it."""
        _, error = self._main.communicate()
        return self._main.returncode, error.decode()


@pytest.mark.parametrize("num_kills", sizes(full=3, soak=40))
def test_of_two_processes_that_train_together_either_may_be_killed(
    num_kills: int, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    undisturbed = Pair(training.options(data, tmp_path / "undisturbed")).end()
    assert undisturbed[0] == 0, undisturbed
    moments, run_path, kills = random.Random(num_kills), tmp_path / "run", dict.fromkeys(("main", "helping"), 0)
    for _ in range(num_kills):
        pair = Pair(training.resuming(data, run_path))
        killed = pair.kill_one(moments, manifest=run_path / "checkpoints" / "manifest.json")
        code, error = pair.end()
        assert (code, error.count("error[E402]")) == ((-signal.SIGKILL, 0) if killed == "main" else (4, 1)), error
        assert "Traceback" not in error
        kills[killed] += 1
    code, error = Pair(training.resuming(data, run_path)).end()
    assert code == 0, error
    assert not training.differences(training.end_of(run_path), training.end_of(tmp_path / "undisturbed"))
    assert not list(run_path.rglob(".tmp-*"))
    record(
        "R3",
        "SIGKILL of one of two processes",
        f"{kills['main']} kills of the main one, {kills['helping']} of the other: neither outlives the other, exit code"
        " 4 and one line where the main one is left, resumed to the same bits",
    )


@pytest.mark.slow
def test_the_comparison_notices_a_bit(nursery: Nursery, tmp_path: Path) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    assert nursery.run("command", *training.options(data, tmp_path / "one")).code == 0
    assert (
        nursery.run("command", *training.options(data, tmp_path / "two"), "--set", "train.weight_decay=0.0002").code
        == 0
    )
    found = training.differences(training.end_of(tmp_path / "one"), training.end_of(tmp_path / "two"))
    for part in ("/checkpoint/state_dict/", "/checkpoint/optimizer_states/", "/metrics/", "/model/"):
        assert any(key.startswith(part) for key in found), part


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _forecast(run_path: Path, data: Path) -> bytes:
    output = run_path.parent / f"{run_path.name}.csv"
    arguments = ["forecast", "--model", run_path / "model", "--input", data, "--output", output, "--format", "quiet"]
    assert main([str(argument) for argument in arguments]) == 0
    return output.read_bytes()
