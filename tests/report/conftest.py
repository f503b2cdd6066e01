"""The folder of a small training with learned alphas, and the run that a store would have of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from stanhop.config import DataConfig, ModelConfig, RunConfig, TrackingConfig, TrainConfig, flatten
from stanhop.tracking.search import RunRecord
from stanhop.training.fit import FitResult, fit

NUM_ROWS = 307
CHANNELS = ("load", "wind <b>$5", "price")


def write_table(path: Path) -> Path:
    lines = ["date," + ",".join(CHANNELS)]
    for step in range(NUM_ROWS):
        values = [10 * math.sin(2 * math.pi * (step + 5 * place) / 24) + step * 7919 % 101 / 25 for place in range(3)]
        lines.append(f"2021-03-{1 + step // 24:02d} {step % 24:02d}:00," + ",".join(f"{value:.3f}" for value in values))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, FitResult]:
    folder = tmp_path_factory.mktemp("fitted")
    config = RunConfig(
        data=DataConfig(source=str(write_table(folder / "sales.csv"))),
        model=ModelConfig(
            separation="gsh",
            context_length=23,
            prediction_length=5,
            patch_length=7,
            model_dim=4,
            num_heads=2,
            feedforward_dim=3,
        ),
        train=TrainConfig(max_epochs=2, batch_size=17, device="cpu"),
        tracking=TrackingConfig(enabled=False),
    )
    return config, fit(config, run_path=folder / "<run>", progress=False)


@pytest.fixture(scope="session")
def record(fitted: tuple[RunConfig, FitResult]) -> RunRecord:
    config, result = fitted
    return RunRecord(
        id="a1" * 16,
        name="<run>",
        status="FINISHED",
        start_ms=0,
        end_ms=1,
        artifact_uri=result.run_path.as_uri(),
        params={key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()},
        metrics=dict(result.metrics),
        tags={"stanhop.dataset": "sales.csv", "stanhop.dataset_sha256": "f" * 64},
    )
