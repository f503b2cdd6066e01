r"""Rounding to integers: the plain definitions that simulation and int8 kernels share, and how ranges are estimated.

Weights are symmetric, activations asymmetric, both on a uniform grid of ``bits`` bits:

    weights      s = max|w| / (2^(bits-1) - 1)    q = clamp(round(w / s), -2^(bits-1), 2^(bits-1) - 1)    w' = s q
    activations  s = (high - low) / (2^bits - 1)  q = clamp(round(x / s) + z, 0, 2^bits - 1)              x' = s (q - z)

with z = round(-low / s). A range always holds 0, so that 0 is exact.

Source: Bondarenko et al. 2023, arXiv:2306.12929, appendix, and their code; Hu et al. 2024, arXiv:2404.03828.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WeightRanges = Literal["minmax", "mse"]
ActivationRanges = Literal["minmax", "percentile", "mse"]

SMALLEST_HIGH = 1e-8
"""The least upper end of an activation's range, so that its scale is positive."""
SHRINKS = torch.linspace(1.0, 0.2, 81).tolist()
"""Shares of the full range that the ``mse`` ranges try; the first of the best is taken."""
MOST_SAMPLES = 100_000
"""Elements of a batch that percentiles and squared errors look at, evenly spaced: more change nothing that matters."""


@dataclass(frozen=True)
class Range:
    """The ends of what an activation's grid covers; ``low`` is at most 0 and ``high`` above it."""

    low: float
    high: float

    @classmethod
    def holding_zero(cls, low: float, high: float) -> Range:
        """The range from ``low`` to ``high``, widened to hold 0."""
        return cls(min(low, 0.0), max(high, SMALLEST_HIGH))

    def grid(self, bits: int) -> tuple[float, int]:
        """Scale and zero point of the grid of ``bits`` bits."""
        levels = 2**bits - 1
        scale = (self.high - self.low) / levels
        return scale, min(max(round(-self.low / scale), 0), levels)


def weight_scale(weight: Tensor, *, bits: int, per_channel: bool, ranges: WeightRanges = "minmax") -> Tensor:
    """The scale of ``weight``: one number, or one a row.

    Args:
        weight: ``(outputs, …)``.
        bits: Of the integers.
        per_channel: Whether each output gets its own scale.
        ranges: ``minmax`` covers the largest magnitude, ``mse`` the share of it that makes the squared rounding error
            least.

    Returns:
        ``(outputs, 1, …)`` or ``(1, 1, …)``, positive; 1 where all weights are 0.
    """
    axes = tuple(range(1, weight.dim())) if per_channel else tuple(range(weight.dim()))
    largest = weight.abs().amax(dim=axes, keepdim=True)
    scale = torch.where(largest > 0, largest / (2 ** (bits - 1) - 1), 1.0)
    if ranges == "minmax":
        return scale
    best, least = scale, torch.full_like(scale, torch.inf)
    for shrink in SHRINKS:
        tried = shrink * scale
        error = (rounded_weight(weight, tried, bits=bits) - weight).square().sum(dim=axes, keepdim=True)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best


def weight_integers(weight: Tensor, scale: Tensor, *, bits: int) -> Tensor:
    """The integers of ``weight`` on the grid of ``scale``, in the dtype of ``weight``."""
    return (weight / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def rounded_weight(weight: Tensor, scale: Tensor, *, bits: int) -> Tensor:
    """``weight`` with every element on the grid of ``scale``."""
    return scale * weight_integers(weight, scale, bits=bits)


def rounded_activation(activation: Tensor, covered: Range, *, bits: int) -> Tensor:
    """``activation`` with every element on the grid of ``covered``; what lies outside goes to its end."""
    scale, zero = covered.grid(bits)
    integers = (activation / scale).round_().clamp_(-zero, 2**bits - 1 - zero)  # less the zero point; a fresh tensor
    return integers.mul_(scale)


class RangeEstimator:
    """A running range over batches: the first one sets it, each later one moves it by 1 - ``momentum``.

    Args:
        kind: ``minmax`` takes the smallest and largest element of a batch; ``percentile`` those that leave
            100 - ``percentile`` percent out at either end; ``mse`` shrinks the first until the squared rounding error
            of the batch is least.
        bits: Of the grid, which ``mse`` depends on.
        momentum: Weight of what was before.
        percentile: For that kind.
    """

    def __init__(self, kind: ActivationRanges, *, bits: int, momentum: float = 0.9, percentile: float = 99.999) -> None:
        self.kind = kind
        self.bits = bits
        self.momentum = momentum
        self.percentile = percentile
        self._ends: tuple[float, float] | None = None

    @property
    def range(self) -> Range:
        """What was seen so far; the range of nothing but zeros if that is nothing."""
        low, high = self._ends or (0.0, 0.0)
        return Range.holding_zero(low, high)

    def observe(self, batch: Tensor) -> None:
        """Take in one batch."""
        low, high = self._ends_of(batch.detach().flatten().float())
        if self._ends is not None:
            low, high = (
                self.momentum * old + (1 - self.momentum) * new
                for old, new in zip(self._ends, (low, high), strict=True)
            )
        self._ends = (low, high)

    def _ends_of(self, elements: Tensor) -> tuple[float, float]:
        smallest, largest = (float(end) for end in torch.aminmax(elements))
        if self.kind == "minmax":
            return smallest, largest
        sample = elements[:: max(1, len(elements) // MOST_SAMPLES)]
        if self.kind == "percentile":
            share = self.percentile / 100
            return float(quantile(sample, 1 - share)), float(quantile(sample, share))
        candidates = [Range.holding_zero(shrink * smallest, shrink * largest) for shrink in SHRINKS]
        errors = [
            float((rounded_activation(sample, each, bits=self.bits) - sample).square().sum()) for each in candidates
        ]
        best = candidates[errors.index(min(errors))]
        return best.low, best.high


def quantile(elements: Tensor, share: float) -> Tensor:
    """The value that ``share`` of the 1-d ``elements`` do not exceed, by linear interpolation."""
    return torch.quantile(elements, share)
