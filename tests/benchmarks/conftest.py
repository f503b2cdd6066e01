"""A small data set and network, so that a grid takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanhop.benchmarks import baselines, network_figures
from stanhop.config import DataConfig, ModelConfig, RunConfig, TrackingConfig, TrainConfig
from stanhop.series.frame import Series
from stanhop.series.synthetic import generate
from stanhop.storage import write_text

NUM_ROWS = 307


@pytest.fixture(autouse=True)
def short_linear_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "LINEAR_CONTEXT", 31)
    monkeypatch.setattr(baselines, "LINEAR_TRAINING", {"num_epochs": 1, "batch_size": 32, "lr": 1e-2})
    monkeypatch.setattr(baselines, "LOCAL_SEASONS", 2)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_figures, "NUM_ROUNDS", 3)


@pytest.fixture(scope="session")
def series() -> Series:
    """Three channels, hourly."""
    (made,) = generate(num_steps=NUM_ROWS, seed=3).series
    return Series(id="", times=made.times, values=made.values[:, :3].copy(), channels=made.channels[:3])


@pytest.fixture
def config(series: Series, tmp_path: Path) -> RunConfig:
    """One epoch of a network of a few hundred weights on the series, from a file."""
    return config_in(tmp_path, series)


def config_in(folder: Path, series: Series) -> RunConfig:
    """As the fixture, with the file in ``folder``."""
    path = folder / "tables" / "waves.csv"
    lines = [",".join(["date", *series.channels])]
    lines += [
        ",".join([str(time), *map(repr, map(float, row))])
        for time, row in zip(series.times, series.values, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")
    return RunConfig(
        data=DataConfig(source=str(path)),
        model=ModelConfig(
            context_length=11, prediction_length=3, patch_length=4, model_dim=4, num_heads=2, feedforward_dim=3
        ),
        train=TrainConfig(max_epochs=1, batch_size=29, seed=5, device="cpu"),
        tracking=TrackingConfig(enabled=False),
    )


@pytest.fixture(autouse=True)
def closed_databases() -> Iterator[None]:
    """MLflow keeps connections until the process ends."""
    yield
    module = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if module is not None:
        for engine in module.SqlAlchemyStore._engine_map.values():
            engine.dispose()
