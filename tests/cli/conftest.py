"""Runs the command line inside the test process, and a small trained model to run it on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stanhop.cli.app import main

NUM_ROWS = 211
CHANNELS = ("load", "wind", "price")
SMALL = (
    *("--prediction-length", "5", "--context-length", "23", "--set", "model.patch_length=7"),
    *("--set", "model.model_dim=4", "--set", "model.num_heads=2", "--set", "model.feedforward_dim=3"),
    *("--epochs", "1", "--batch-size", "17", "--device", "cpu"),
)
"""Options of a network that trains in a moment."""


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on standard output, of which there is exactly one document."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error as JSON: the last line on standard error."""
        error: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return error


Stanhop = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Stanhop:
    """Call ``stanhop`` with these arguments."""

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder, and keeps its logs in another."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STANHOP_DATA_DIR", raising=False)
    monkeypatch.delenv("STANHOP_RUN_PATH", raising=False)
    return folder


def write_table(path: Path, *, num_rows: int = NUM_ROWS, separator: str = ",") -> Path:
    first = datetime(2021, 3, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["date", *CHANNELS])
        for step in range(num_rows):
            noise = step * 7919 % 101 / 101
            waves = [math.sin(2 * math.pi * (step + 3 * channel) / 24) * 10 + noise for channel in range(3)]
            stamp = (first + timedelta(hours=step)).isoformat(sep=" ")
            writer.writerow([stamp, *(round(wave, 3) for wave in waves)])
    return path


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write an hourly CSV file of three channels under a name."""
    return lambda name="sales.csv", **options: write_table(tmp_path / "tables" / name, **options)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on ``sales.csv``, which lies beside it; nothing may change it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_table(folder / "sales.csv")
    arguments = ["--data", str(data), *SMALL, "--no-tracking", "--output", str(folder / "run"), "--format", "quiet"]
    assert main(["train", *arguments]) == 0
    return folder / "run"


@pytest.fixture
def small() -> tuple[str, ...]:
    """Options of a network that trains in a moment."""
    return SMALL
