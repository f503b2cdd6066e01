"""Closes the databases that a test opened: MLflow keeps their connections until the process ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def closed_databases() -> Iterator[None]:
    yield
    module = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if module is not None:
        for engine in module.SqlAlchemyStore._engine_map.values():
            engine.dispose()
