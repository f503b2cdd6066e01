"""Tolerances of the Hopfield tests, all of them, and the measure they are meant in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

# Relative root mean square of the difference to the definition in float64: |got - expected| / |expected|.
# Rounding of the scores alone moves weights by eps times the largest score difference that still counts (about 20).
TOLERANCES: dict[tuple[torch.dtype, str], float] = {
    (torch.float64, "weights"): 1e-13,
    (torch.float64, "scores_grad"): 1e-12,
    (torch.float64, "alpha_grad"): 1e-10,
    (torch.float64, "package_alpha_grad"): 1e-8,  # the package cancels as alpha goes to 1
    (torch.float64, "retrieved"): 1e-13,
    (torch.float64, "patterns_grad"): 1e-12,
    (torch.float64, "energy"): 1e-13,
    (torch.float64, "energy_rise"): 1e-13,  # of a step of the dynamics, relative to the largest energy
    (torch.float32, "weights"): 2e-6,
    (torch.float32, "scores_grad"): 1e-5,
    (torch.float32, "alpha_grad"): 1e-4,
    (torch.float32, "retrieved"): 2e-6,
    (torch.float32, "patterns_grad"): 1e-5,
}


@pytest.fixture
def assert_close() -> Callable[[Tensor, Tensor, str], None]:
    """``assert_close(got, expected, quantity)`` at the tolerance of the dtype of ``got``."""

    def check(got: Tensor, expected: Tensor, quantity: str) -> None:
        assert got.shape == expected.shape
        expected = expected.detach().double()
        difference = (got.detach().double() - expected).norm()
        error = (difference / expected.norm().clamp(min=1e-30)).item()
        assert error <= TOLERANCES[got.dtype, quantity], f"{quantity}: relative error {error:.1e}"

    return check


@pytest.fixture(scope="session")
def tolerance() -> Callable[[torch.dtype, str], float]:
    """``tolerance(dtype, quantity)`` from the table."""
    return lambda dtype, quantity: TOLERANCES[dtype, quantity]
