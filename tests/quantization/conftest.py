"""Small networks of every separation, with and without a gate, whose every parameter matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stanhop.config import ModelConfig
from stanhop.hopfield.separation import SEPARATIONS
from stanhop.model.network import STanHopNet

METHODS = [(separation, gate) for separation in SEPARATIONS for gate in (False, True)]
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
        return network.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def contexts() -> list[torch.Tensor]:
    """Batches of contexts."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(13, 37, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
