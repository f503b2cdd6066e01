"""Reversible instance normalisation: each context is standardised by itself, and the forecast put back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOISE = 8
"""Roundings, relative to the largest value: a smaller deviation is the rounding noise of a constant context."""


@dataclass(frozen=True)
class InstanceStatistics:
    """Level and spread of each channel of each context, both ``(batch, 1, channels)``."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, context: Tensor) -> InstanceStatistics:
        """Statistics of ``context``, ``(batch, context_length, channels)``; a constant channel has deviation 0."""
        mean = context.mean(dim=1, keepdim=True)
        deviation = context.std(dim=1, keepdim=True, correction=0)
        rounding = torch.finfo(context.dtype).eps * context.abs().amax(dim=1, keepdim=True)
        is_flat = deviation <= NOISE * rounding
        return cls(mean, deviation.masked_fill(is_flat, 0.0))

    @property
    def moving_level(self) -> Tensor:
        """The level of what moved, ``(batch, 1, channels)``; 0 for a constant channel."""
        return torch.where(self.deviation == 0, 0.0, self.mean)

    def standardize(self, series: Tensor) -> Tensor:
        """Take level and spread away from ``series``, ``(batch, time, channels)``; a spread of 0 is left as it is."""
        return (series - self.mean) / torch.where(self.deviation == 0, 1.0, self.deviation)

    def restore(self, series: Tensor) -> Tensor:
        """Give level and spread back to ``series``; what never moved is forecast not to move."""
        return series * self.deviation + self.mean
