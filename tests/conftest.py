"""Settings of the whole test run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from stanhop.config import TrackingConfig

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
