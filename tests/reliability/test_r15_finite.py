"""R15: no scores, however extreme, make a separation or its gradient other than finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.separation import SEPARATIONS, separate
from tests.reliability.kit.sizes import sizes

EXTREMES = {
    torch.float32: (3.4e38, 1e30, 2e4, 88.7, 1.0, 1e-30, 0.0),
    torch.float64: (1.7e308, 1e30, 2e4, 709.0, 1.0, 1e-300, 0.0),
    torch.bfloat16: (3.3e38, 1e30, 2e4, 88.0, 1.0, 1e-30, 0.0),
    torch.float16: (65504.0, 2e4, 11.0, 1.0, 6e-8, 0.0, 0.0),
}


def extreme_scores(generator: torch.Generator, dtype: torch.dtype, rows: int) -> torch.Tensor:
    """``(rows, memories)``: huge, tiny, equal and masked scores side by side."""
    memories = int(torch.randint(1, 18, (1,), generator=generator))
    sizes_of = torch.tensor(EXTREMES[dtype], dtype=torch.float64)
    chosen = sizes_of[torch.randint(len(sizes_of), (rows, memories), generator=generator)]
    signs = torch.randint(2, (rows, memories), generator=generator) * 2 - 1
    scores = (chosen * signs).to(dtype)
    scores[torch.rand((rows, memories), generator=generator) < 0.15] = -math.inf
    scores[0] = -math.inf
    scores[rows // 2] = scores[rows // 2, 0]
    return scores


@pytest.mark.parametrize("count", sizes(default=1_000, full=10_000, soak=100_000))
def test_every_separation_and_its_gradient_stay_finite(count: int, record: Callable[..., None]) -> None:
    generator, rows, num_cases = torch.Generator().manual_seed(count), 10, 0
    broken = []
    while num_cases < count:
        for name, separation in SEPARATIONS.items():
            for dtype in EXTREMES:
                scores = extreme_scores(generator, dtype, rows).requires_grad_()
                alpha = (
                    separation.alpha
                    if separation.alpha is not None
                    else torch.tensor(1.0 + 0.98 * float(torch.rand(1, generator=generator)) + 0.01)
                )
                for function in (separate, fast_separate):
                    weights = function(scores, alpha=alpha, no_op=separation.no_op, clip=separation.clip)
                    (gradient,) = torch.autograd.grad(weights.double().square().sum(), scores)
                    if not (torch.isfinite(weights).all() and torch.isfinite(gradient).all()):
                        broken.append((name, dtype, function.__name__, scores.detach()))
                num_cases += rows
    assert not broken, broken[:3]
    record("R15", "extreme scores", f"{num_cases:,} rows, all 7 separations, 4 precisions, both ways: 0 not finite")
