"""Whether retrieval on this machine equals its definition: every separation, few and many memories, gradients too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stanhop.hopfield.dispatch import Choice, Method, choose
from stanhop.hopfield.retrieval import retrieve
from stanhop.hopfield.separation import SEPARATIONS, Separation

LENGTHS = (14, 60, 260)
"""Memories: one for each way on a CPU."""
BATCH, HEADS, HEAD_DIM = 3, 4, 16
MOST_QUERIES = 32
"""The definition takes its time: more queries would only cost more of it."""
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest relative root mean square error, of the read-out and of each gradient, that rounding explains."""


@dataclass(frozen=True)
class Check:
    """How far one retrieval on one device was off.

    Args:
        separation: Its name in ``SEPARATIONS``.
        num_memories: Memories, and as many queries up to ``MOST_QUERIES``.
        dtype: Of the patterns.
        choice: The way it was computed, and why.
        error: Largest relative root mean square error over the read-out and all gradients.
    """

    separation: str
    num_memories: int
    dtype: torch.dtype
    choice: Choice
    error: float

    @property
    def is_sound(self) -> bool:
        """Whether the error is one of rounding; that of a NaN is not."""
        return self.error <= TOLERANCES[self.dtype]


def check(device: torch.device) -> list[Check]:
    """Compare what ``retrieve`` chooses on ``device`` with the definition in float64 on a CPU."""
    dtypes = [torch.float32] if device.type == "cpu" else list(TOLERANCES)
    return [
        _check(name, separation, num_memories, dtype, device)
        for dtype in dtypes
        for name, separation in SEPARATIONS.items()
        for num_memories in LENGTHS
    ]


def _check(name: str, separation: Separation, num_memories: int, dtype: torch.dtype, device: torch.device) -> Check:
    patterns = _patterns(num_memories, dtype)
    got = _outcome(separation, [each.to(device) for each in patterns], method="auto")
    expected = _outcome(separation, [each.double() for each in patterns], method="definition")
    errors = [_relative_error(left, right) for left, right in zip(got, expected, strict=True)]
    query, memory, values = (each.to(device) for each in patterns)
    is_plain = separation.clip is None
    choice = choose(query, memory, values, alpha=_alpha(separation, device), is_plain=is_plain, method="auto")
    return Check(name, num_memories, dtype, choice, max(errors))


def _patterns(num_memories: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, memory and values, standard normal, the same at every call."""
    generator = torch.Generator().manual_seed(num_memories)
    lengths = (min(num_memories, MOST_QUERIES), num_memories, num_memories)
    return [torch.randn(BATCH, HEADS, length, HEAD_DIM, generator=generator).to(dtype) for length in lengths]


def _alpha(separation: Separation, device: torch.device) -> float | Tensor:
    """The separation's alpha, or one a head over most of its range where it is learned."""
    return torch.linspace(1.1, 1.9, HEADS, device=device) if separation.alpha is None else separation.alpha


def _outcome(separation: Separation, patterns: list[Tensor], *, method: Method) -> list[Tensor]:
    """The read-out and the gradients of its sum of squares, by the patterns and by alpha if it is learned."""
    query, memory, values = (each.detach().requires_grad_() for each in patterns)
    alpha = _alpha(separation, query.device)
    learned = [query, memory, values]
    if isinstance(alpha, Tensor):
        learned.append(alpha.requires_grad_())
    retrieved = retrieve(
        query, memory, values, alpha=alpha, no_op=separation.no_op, clip=separation.clip, method=method
    )
    return [retrieved, *torch.autograd.grad(retrieved.square().sum(), learned)]


def _relative_error(got: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference relative to what is expected; infinite for NaN."""
    expected = expected.detach()
    error = float((got.detach().double().cpu() - expected).norm() / expected.norm())
    return math.inf if math.isnan(error) else error
