"""R11: forecasting, and training on local data, ask no network; forecasting opens no pickle and starts no program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kit import samples, training
from tests.reliability.kit.nursery import ROOT, Nursery


def watched(nursery: Nursery, folder: Path, *arguments: object) -> tuple[list[str], int]:
    """What a command did that it must not, and how many events were seen."""
    ended = nursery.run("audited", folder, *arguments, cwd=folder)
    assert ended.code == 0, ended.err
    events = [line.removeprefix("event ") for line in ended.out.splitlines() if line.startswith("event ")]
    return events, int(ended.out.split()[-1])


def test_forecasting_asks_nobody_and_runs_nothing(
    nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]
) -> None:
    samples.write_csv(tmp_path / "in" / "a.csv", samples.rows())
    command = ("forecast", "--model", model, "--input", "in", "--output", "out", "--plot", "--no-progress")
    events, num_seen = watched(nursery, tmp_path, *command)
    assert not events
    assert num_seen > 100, "the hook must see the files that are opened"
    record(
        "R11", "forecast", f"{num_seen:,} events: 0 connections, 0 look-ups, 0 pickles, 0 programs, 0 writes elsewhere"
    )


def test_training_on_local_data_asks_nobody(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    events, num_seen = watched(nursery, tmp_path, *training.options(data, tmp_path / "run"), "--epochs", "1")
    assert not [event for event in events if event.startswith(("socket", "subprocess", "os.system", "write"))]
    record("R11", "train", f"{num_seen:,} events: 0 connections, 0 look-ups, 0 programs, 0 writes elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dynamic", "static"])
def test_quantizing_asks_nobody_and_runs_nothing(
    backend: str, nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    assert nursery.run("command", *training.options(data, tmp_path / "run"), "--epochs", "1").code == 0
    quiet = ("--no-tracking", "--no-progress", "--max-degradation", "99%", "--output", tmp_path / "small")
    command = ("quantize", "--model", tmp_path / "run" / "model", "--backend", backend, *quiet)
    events, num_seen = watched(nursery, tmp_path, *command)
    assert not events
    record(
        "R11",
        f"quantize, {backend}",
        f"{num_seen:,} events: 0 connections, 0 look-ups, 0 pickles, 0 programs, 0 writes elsewhere",
    )


def test_the_hook_sees_what_it_is_for(tmp_path: Path) -> None:
    program = (
        "import socket, subprocess, sys, pickle, pathlib; from tests.reliability.kit.audit import watched\n"
        "found = watched(pathlib.Path('/nowhere'))\n"
        "for call in (lambda: socket.getaddrinfo('localhost', 1), lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "             lambda: subprocess.run(['true']), lambda: pickle.loads(pickle.dumps(pathlib.Path)),\n"
        f"             lambda: open({str(tmp_path / 'written')!r}, 'a')):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
        "print(sorted({event.split()[0] for event in found}))"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for event in ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "write"):
        assert event in shown


@pytest.mark.slow
def test_without_a_network_at_all_it_works(model: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "a.csv", samples.rows(100))
    forecast = ("forecast", "--model", str(model), "--input", str(data), "--output", str(tmp_path / "out.csv"))
    recorded = [word for word in training.options(data, tmp_path / "run") if word != "--no-tracking"]
    for arguments in (forecast, (*recorded, "--epochs", "1")):
        words = ["unshare", "-rn", sys.executable, "-m", "stanhop", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no unshare here")
        if "unshare" in done.stderr:
            pytest.skip("this machine lets nobody have a name space of his own")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "mlflow.db").exists()
    record("R11", "no network", "forecast, and train with its record, in a name space without one: exit code 0")
