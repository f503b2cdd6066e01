"""A model small enough to build in a millisecond, and the files it can forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stanhop.config import DataConfig, ModelConfig, RunConfig, SplitConfig
from stanhop.forecasting.bundle import Bundle, save_bundle
from stanhop.forecasting.intervals import Intervals
from stanhop.model.network import build_network
from stanhop.series.frame import Layout, Series
from stanhop.series.scaling import Scaler

CHANNELS = ("flow", "level", "rain")
CONTEXT, STEPS = 37, 11
MODEL = ModelConfig(
    context_length=CONTEXT,
    prediction_length=STEPS,
    patch_length=5,
    model_dim=6,
    num_heads=2,
    feedforward_dim=7,
    num_levels=2,
    num_memories=3,
)
SPLIT = SplitConfig(train=0.5, validation=0.25, test=0.25)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_values() -> Callable[..., np.ndarray]:
    """``(steps, channels)`` of waves and noise, on a level and scale of its own for each channel."""

    def make(steps: int, *, num_channels: int = 3, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        times = np.arange(steps)[:, None]
        waves = np.sin(2 * np.pi * times / 24 + np.arange(num_channels)) + 0.3 * random.normal(
            size=(steps, num_channels)
        )
        return 10.0 ** np.arange(num_channels) * waves + 5.0 * np.arange(num_channels)

    return make


@pytest.fixture(scope="session")
def make_series(make_values: Callable[..., np.ndarray]) -> Callable[..., Series]:
    """A series of ``steps`` at ``frequency``."""

    def make(
        steps: int = 101,
        *,
        series_id: str = "",
        channels: tuple[str, ...] = CHANNELS,
        frequency: str = "h",
        start: str = "2021-03-04",
        seed: int = 0,
    ) -> Series:
        times = pd.date_range(start, periods=steps, freq=frequency, unit="us")
        values = make_values(steps, num_channels=len(channels), seed=seed)
        return Series(id=series_id, times=times, values=values, channels=channels)

    return make


@pytest.fixture(scope="session")
def make_bundle(make_values: Callable[..., np.ndarray]) -> Callable[..., Bundle]:
    """A bundle with random weights, and scalers for ``ids``."""

    def make(
        *, channels: tuple[str, ...] = CHANNELS, frequency: str = "h", ids: tuple[str, ...] = ("",), seed: int = 0
    ) -> Bundle:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(MODEL, len(channels))
            for parameter in network.parameters():  # also those that start at 0, so that every one matters
                torch.nn.init.normal_(parameter, std=0.3)
        is_wide = ids == ("",)
        layout = Layout("wide" if is_wide else "long", "ds", None if is_wide else "unique_id", channels)
        return Bundle(
            config=RunConfig(data=DataConfig(split=SPLIT), model=MODEL),
            num_channels=len(channels),
            channels=channels,
            frequency=frequency,
            layout=layout,
            scalers={name: Scaler.fit(make_values(53, num_channels=len(channels), seed=7)) for name in ids},
            network=network.eval().requires_grad_(False),
            fingerprint="f1" * 32,
        )

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle of a wide table; nobody changes it."""
    return make_bundle()


@pytest.fixture(scope="session")
def seasonal_bundle(bundle: Bundle, make_series: Callable[..., Series]) -> Bundle:
    """``bundle`` whose channels have a daily and a weekly profile."""
    series = make_series(24 * 15, start="2021-01-04", seed=7)
    lengths = {"context_length": CONTEXT, "prediction_length": STEPS}
    scaler = Scaler.with_profile(series.values, series.times, **lengths)
    assert scaler.profile is not None
    assert scaler.profile.coefficients.any(axis=0).all()
    return replace(bundle, scalers={"": scaler})


@pytest.fixture(scope="session")
def bundle_path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of ``bundle``; nobody changes it."""
    path = tmp_path_factory.mktemp("bundle") / "model"
    save_bundle(path, bundle)
    return path


@pytest.fixture(scope="session")
def write_wide(make_series: Callable[..., Series]) -> Callable[..., Path]:
    """Write a wide CSV file that the model can forecast."""

    def write(path: Path, steps: int = 59, *, seed: int = 0, time_column: str = "ds") -> Path:
        series = make_series(steps, seed=seed)
        frame = pd.DataFrame(series.values, columns=list(series.channels))
        frame.insert(0, time_column, series.times)
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def write_long(make_series: Callable[..., Series]) -> Callable[..., Path]:
    """Write a long CSV file with one series for each id."""

    def write(path: Path, ids: tuple[str, ...], steps: int = 43, *, channels: tuple[str, ...] = CHANNELS) -> Path:
        frames = []
        for seed, series_id in enumerate(ids):
            series = make_series(steps, channels=channels, seed=seed)
            frame = pd.DataFrame(series.values, columns=list(channels))
            frame.insert(0, "unique_id", series_id)
            frame.insert(1, "ds", series.times)
            frames.append(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(frames).to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def interval_bundle(bundle: Bundle) -> Bundle:
    """``bundle`` with intervals of 80 and 95 %, different for every step and channel."""
    offsets = np.random.default_rng(3).uniform(0.5, 1.5, size=(2, 2, STEPS, len(CHANNELS))).cumsum(axis=1)
    intervals = Intervals((80.0, 95.0), -offsets[0], offsets[1], np.array([0.5, 0.6, 0.7]), num_windows=44)
    return replace(bundle, intervals=intervals)
