"""Settings of the whole test run, and the figures of its workers in one place."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported: two workers share two cores

import pytest
import torch
from hypothesis import settings

from stanhop.config import TrackingConfig
from tests.reliability.kit import figures

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is first imported: kernels then run on a CPU

# A slow machine is no failure; the run as a whole has its time limit.
settings.register_profile("stanhop", deadline=None)
settings.load_profile("stanhop")


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its tables, which take seconds to make: copy it."""
    from stanhop.tracking.store import open_store

    folder = tmp_path_factory.mktemp("mlflow")
    open_store(TrackingConfig(experiment="template"), folder=folder)
    return folder / "mlflow.db"


@pytest.fixture
def tracking_folder(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with an MLflow database in it that has its tables and no experiment of ours."""
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported and collected: it stays, and is a million objects."""
    gc.collect()
    gc.freeze()


FIGURES = "figures"
"""Where a worker of pytest-xdist keeps its figures for the process that started it."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Undo that, for libraries count what is left of them at the end; and hand over what a worker measured."""
    gc.unfreeze()
    handed_over = getattr(session.config, "workeroutput", None)
    if handed_over is not None:
        handed_over[FIGURES] = figures.MEASURED


@pytest.hookimpl(optionalhook=True)  # one of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Take it; of a worker that crashed there is none."""
    for figure in getattr(node, "workeroutput", {}).get(FIGURES, []):
        figures.take(figure)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured, and keep it if that is asked for: in one process, whatever the number of workers."""
    if figures.MEASURED and not hasattr(config, "workerinput"):
        terminalreporter.section("what the promises of reliability rest on")
        for line in figures.lines():
            terminalreporter.write_line(line)
        figures.keep()
