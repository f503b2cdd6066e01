"""A training that takes a moment, ways to interrupt it at a step, and one that was not interrupted to compare with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import ModelConfig, RunConfig, TrackingConfig, TrainConfig
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.synthetic import generate
from stanhop.training import outcome
from stanhop.training.fit import FitResult, fit
from stanhop.training.lightning_module import ForecastingModule

Train = Callable[..., FitResult]
STEPS_AN_EPOCH, NUM_EPOCHS = 5, 3


@pytest.fixture(scope="session")
def config() -> RunConfig:
    """3 epochs of 5 steps, whose weights are kept as they are: in the tests of stacking they are not."""
    return RunConfig(
        model=ModelConfig(
            context_length=11, prediction_length=3, patch_length=4, model_dim=6, num_heads=2, feedforward_dim=7
        ),
        train=TrainConfig(
            max_epochs=NUM_EPOCHS, batch_size=29, seed=5, device="cpu", learning_rate=0.01, stacking=False
        ),
        tracking=TrackingConfig(enabled=False),
    )


@pytest.fixture(scope="session")
def data() -> SeriesSet:
    """One series of three channels, 136 training windows."""
    (made,) = generate(num_steps=213, seed=3).series
    names = made.channels[:3]
    series = Series(id="", times=made.times, values=made.values[:, :3].copy(), channels=names)
    layout = generate(num_steps=2).layout
    return SeriesSet.of((series,), layout, ("a note",))


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these trainings."""
    monkeypatch.setattr(outcome, "loss_plot", lambda *_, **__: b"losses")
    monkeypatch.setattr(outcome, "forecast_plot", lambda *_: b"forecast")


@pytest.fixture
def train(config: RunConfig, data: SeriesSet) -> Train:
    """Train into a folder."""

    def call(run_path: Path, **options: Any) -> FitResult:
        arguments: dict[str, Any] = {"series_set": data, "progress": False, **options}
        return fit(arguments.pop("config", config), run_path=run_path, **arguments)

    return call


@pytest.fixture(scope="session")
def reference(config: RunConfig, data: SeriesSet, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A training that nothing disturbed; nothing may change its folder."""
    return fit(config, run_path=tmp_path_factory.mktemp("reference") / "run", series_set=data, progress=False)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something in the training step of that number, counted from 1, and only the first time."""
    original = ForecastingModule.training_step

    def arrange(step: int, action: Callable[[], None]) -> None:
        todo = [action]

        def training_step(self: ForecastingModule, batch: Any, batch_index: int) -> Any:
            if self.trainer.global_step + 1 == step and todo:
                todo.pop()()
            return original(self, batch, batch_index)

        monkeypatch.setattr(ForecastingModule, "training_step", training_step)

    return arrange


@pytest.fixture
def signal_at_step(at_step: Callable[[int, Callable[[], None]], None]) -> Callable[..., None]:
    """Send this process a signal in the training step of that number."""

    def arrange(step: int, number: int = signal.SIGTERM) -> None:
        at_step(step, lambda: os.kill(os.getpid(), number))

    return arrange


@pytest.fixture(autouse=True)
def closed_databases() -> Iterator[None]:
    """MLflow keeps connections until the process ends."""
    yield
    module = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if module is not None:
        for engine in module.SqlAlchemyStore._engine_map.values():
            engine.dispose()
