"""Small networks of every separation, with and without a gate, whose every parameter matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stanhop.config import DataConfig, ModelConfig, RunConfig, SplitConfig
from stanhop.forecasting.bundle import Bundle
from stanhop.model.network import STanHopNet
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.scaling import Scaler

CHANNELS = ("flow", "level", "rain")
SIZES: dict[str, Any] = {
    "context_length": 37,
    "prediction_length": 11,
    "patch_length": 5,
    "model_dim": 6,
    "num_heads": 2,
    "feedforward_dim": 7,
    "num_levels": 2,
    "num_memories": 3,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., STanHopNet]:
    """A network with random weights."""

    def make(*, seed: int = 0, **changes: Any) -> STanHopNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = STanHopNet(ModelConfig(**{**SIZES, **changes}), 3)
            for parameter in network.parameters():  # also those that start at 0
                torch.nn.init.normal_(parameter, std=0.3)
            if network.reversion is not None:
                network.reversion.begin_as(torch.rand(SIZES["prediction_length"]), torch.tensor(0.1))
        return network.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def contexts() -> list[torch.Tensor]:
    """Batches of contexts."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(13, 37, 3, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.fixture(scope="session")
def series_set() -> SeriesSet:
    """One hourly series of three channels: waves and noise."""
    random = np.random.default_rng(0)
    times = np.arange(211)[:, None]
    values = np.sin(2 * np.pi * times / 24 + np.arange(3)) + 0.3 * random.normal(size=(211, 3))
    series = Series(
        id="", times=pd.date_range("2021-03-04", periods=211, freq="h", unit="us"), values=values, channels=CHANNELS
    )
    return SeriesSet.of([series], Layout("wide", "ds", None, CHANNELS))


@pytest.fixture(scope="session")
def make_bundle(make_network: Callable[..., STanHopNet], series_set: SeriesSet) -> Callable[..., Bundle]:
    """A bundle with random weights for ``series_set``."""

    def make(**changes: Any) -> Bundle:
        network = make_network(**changes)
        split = SplitConfig(train=0.5, validation=0.25, test=0.25)
        return Bundle(
            config=RunConfig(data=DataConfig(split=split), model=network.config),
            num_channels=3,
            channels=CHANNELS,
            frequency="h",
            layout=series_set.layout,
            scalers={"": Scaler.fit(series_set.series[0].values[:105])},
            network=network,
            fingerprint="f1" * 32,
        )

    return make
