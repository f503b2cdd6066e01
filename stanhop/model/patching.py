"""Patches: cutting a series into them, embedding them, and merging neighbours into coarser ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITION_DEVIATION = 0.02
"""Spread of learned positions, and of channels' embeddings, at the start: small beside an embedded patch."""


def num_patches(length: int, patch_length: int) -> int:
    """Patches that cover ``length`` steps, the first one padded if need be."""
    return math.ceil(length / patch_length)


class PatchEmbedding(nn.Module):
    """Embed each patch of each channel by one linear map, and add its learned position.

    Channels share map and positions, so that they are told apart by what they hold alone, unless each has a learned
    vector that is added to all its patches.

    Args:
        context_length: Steps of the context.
        patch_length: Steps per patch.
        model_dim: Features per patch.
        num_channels: Channels, if each has a vector of its own.
        dropout: Share of the features dropped in training.
    """

    def __init__(
        self, context_length: int, patch_length: int, model_dim: int, *, num_channels: int | None = None, dropout: float
    ) -> None:
        super().__init__()
        self.num_patches = num_patches(context_length, patch_length)
        self.num_padded = self.num_patches * patch_length - context_length
        self.linear = nn.Linear(patch_length, model_dim)
        self.position = nn.Parameter(POSITION_DEVIATION * torch.randn(self.num_patches, model_dim))
        self.channel = (
            None if num_channels is None else nn.Parameter(POSITION_DEVIATION * torch.randn(num_channels, 1, model_dim))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, series: Tensor) -> Tensor:
        """Map ``(batch, channels, context_length)`` to ``(batch, channels, patches, model_dim)``."""
        if self.num_padded:
            series = functional.pad(series, (self.num_padded, 0), mode="replicate")  # repeats the first step
        patches = series.unflatten(-1, (self.num_patches, -1))  # (batch, channels, patches, patch_length)
        embedded: Tensor = self.linear(patches) + self.position
        if self.channel is not None:
            embedded = embedded + self.channel
        dropped: Tensor = self.dropout(embedded)
        return dropped


class CoarseGraining(nn.Module):
    """Merge ``merge_size`` neighbouring patches into one, halving (or so) the resolution.

    Where they do not come out even, the last patch is repeated. (The published code repeats the last
    *several* patches in order, and fails where there are fewer than it needs.)

    Args:
        model_dim: Features per patch.
        merge_size: Patches that become one.
    """

    def __init__(self, model_dim: int, merge_size: int) -> None:
        super().__init__()
        self.merge_size = merge_size
        self.norm = nn.LayerNorm(merge_size * model_dim)
        self.linear = nn.Linear(merge_size * model_dim, model_dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to the same with ``ceil(patches / merge_size)`` patches."""
        num_missing = -patches.shape[2] % self.merge_size
        if num_missing:
            last = patches[:, :, -1:].expand(-1, -1, num_missing, -1)
            patches = torch.cat([patches, last], dim=2)
        neighbours = patches.unflatten(2, (-1, self.merge_size)).flatten(-2)
        merged: Tensor = self.linear(self.norm(neighbours))
        return merged
