"""A small training, and a space of two keys for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanhop.config import DataConfig, ModelConfig, RunConfig, SplitConfig, TrackingConfig, TrainConfig
from stanhop.series.synthetic import generate
from stanhop.series.write import csv_bytes
from stanhop.tuning.space import Dimension


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "sales.csv"
    path.write_bytes(csv_bytes(generate(num_steps=213, seed=3)))
    return path


@pytest.fixture
def config(table: Path) -> RunConfig:
    return RunConfig(
        data=DataConfig(source=str(table), split=SplitConfig()),
        model=ModelConfig(
            context_length=11, prediction_length=3, patch_length=4, model_dim=6, num_heads=2, feedforward_dim=7
        ),
        train=TrainConfig(max_epochs=2, batch_size=29, seed=5, device="cpu", learning_rate=0.01),
        tracking=TrackingConfig(enabled=False),
    )


@pytest.fixture
def space() -> tuple[Dimension, ...]:
    return (
        Dimension("train.learning_rate", low=1e-4, high=0.1, is_log=True),
        Dimension("model.model_dim", choices=(4, 6)),
    )


@pytest.fixture(autouse=True)
def closed_databases() -> Iterator[None]:
    """MLflow keeps connections until the process ends."""
    yield
    module = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if module is not None:
        for engine in module.SqlAlchemyStore._engine_map.values():
            engine.dispose()
