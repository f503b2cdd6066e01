"""GSH as the published STanHop code computes it: 50 halvings forward, and a backward pass from the weights alone.

It is what a training step is compared with, written from the description of that code. The threshold tau of
``p = [(alpha - 1) s - tau]_+ ** (1 / (alpha - 1))`` is found by halving an interval; the last p is divided by its sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stanhop.model import published_layers

NUM_STEPS = 50


def bisect_retrieve(
    query: Tensor,
    memory: Tensor,
    values: Tensor,
    *,
    alpha: float | Tensor,
    no_op: bool,
    clip: tuple[float, float] | None = None,
    dropout: float = 0.0,
    **_: object,
) -> Tensor:
    """``retrieve`` by separate steps and bisection, for the published GSH networks.

    Raises:
        ValueError: another separation than GSH.
    """
    if not isinstance(alpha, Tensor) or no_op or clip is not None:
        raise ValueError("bisection stands for GSH alone: a learned alpha, no no-op memory, no clipping")
    scores = (query / math.sqrt(query.shape[-1])) @ memory.transpose(-1, -2)
    weights = bisect_entmax(scores, alpha[:, None, None])
    return functional.dropout(weights, dropout) @ values


@contextmanager
def bisecting() -> Iterator[None]:
    """Within, published networks retrieve by bisection."""
    with mock.patch.object(published_layers, "retrieve", bisect_retrieve):
        yield


def bisect_entmax(scores: Tensor, alpha: Tensor) -> Tensor:
    """alpha-entmax over the last axis; ``alpha`` broadcasts against ``scores`` and has a gradient."""
    weights: Tensor = _Bisect.apply(scores, alpha)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return weights


class _Bisect(Function):
    """alpha-entmax by 50 halvings, alpha in (1, 2)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor) -> Tensor:
        a = alpha - 1
        scaled = a * scores
        largest = scaled.amax(dim=-1, keepdim=True)
        low = largest - 1
        width = 1 - (1 / scores.shape[-1]) ** a  # from low to where no weight exceeds 1 / memories
        excess = _power(scaled - low, a).sum(dim=-1, keepdim=True) - 1
        weights = scaled
        for _ in range(NUM_STEPS):
            width = width / 2
            middle = low + width
            weights = _power(scaled - middle, a)
            has_same_sign = (weights.sum(dim=-1, keepdim=True) - 1) * excess >= 0
            low = torch.where(has_same_sign, middle, low)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(alpha, weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_grad: Tensor) -> tuple[Tensor, Tensor]:
        alpha, y = ctx.saved_tensors
        a = alpha - 1
        slopes = torch.where(y > 0, y ** (1 - a), 0.0)
        shares = slopes / slopes.sum(dim=-1, keepdim=True)
        scores_grad = slopes * (weights_grad - (shares * weights_grad).sum(dim=-1, keepdim=True))
        entropy = torch.special.xlogy(y, y)
        first = (y - shares) / a**2
        second = (entropy - shares * entropy.sum(dim=-1, keepdim=True)) / a
        alpha_grad = (weights_grad * (first - second)).sum_to_size(_shape_of(alpha, y))
        return scores_grad, alpha_grad.reshape(alpha.shape)


def _shape_of(alpha: Tensor, weights: Tensor) -> tuple[int, ...]:
    """The shape of ``alpha`` with as many axes as ``weights``."""
    return (1,) * (weights.dim() - alpha.dim()) + tuple(alpha.shape)


def _power(x: Tensor, a: Tensor) -> Tensor:
    return x.clamp(min=0) ** (1 / a)
