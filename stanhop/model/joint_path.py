"""The joint path of a STanHop-Net: from the last patch of all channels to the forecast of all, by one linear map.

It maps the patch, what it is told of the time, and what the patch retrieves from memories of the training rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stanhop.config import ModelConfig
from stanhop.hopfield.separation import separate

NUM_HEADS, HEAD_DIM = 64, 4
"""Of the memories of a joint path: many heads that each see little make smoother maps than one that sees all."""
WEIGHT_OF_TIME = 2.0
"""Of time features beside levels where moments are compared: an hour apart is further than a degree."""
SEED = 0
"""Of the directions that heads look in. They are part of the method, as is their number: no training draws others."""


class JointPath(nn.Module):
    """One linear map of low rank from the last patch of all channels to the horizons of all; it starts as 0.

    It works on contexts without their mean but with their spread, since a small motion of one channel may say much
    about another. Where it is told the time, what a level says changes with it (``joint_inputs``). Where it has
    memories, it is no longer linear in the patch: what they retrieve is mapped beside it.

    Args:
        config: Lengths of patch and horizon, of what it is told the time, and how much it remembers.
        num_channels: Channels of the series.
        rank: At most; there are no more directions than inputs.

    Source: reduced-rank regression, Izenman 1975, Journal of Multivariate Analysis 5(2).
    """

    def __init__(self, config: ModelConfig, num_channels: int, *, rank: int) -> None:
        super().__init__()
        self.num_channels, self.num_steps = num_channels, config.patch_length
        num_memories, num_time_features = config.joint_memories or 0, config.num_time_features
        num_inputs = num_joint_inputs(num_channels, config.patch_length, num_time_features, num_memories)
        rank = min(rank, num_inputs)
        self.memories = JointMemories(num_memories, num_channels, num_time_features) if num_memories else None
        self.down = nn.Linear(num_inputs, rank)
        self.up = nn.Linear(rank, num_channels * config.prediction_length)
        self.begin_as_nothing()

    def forward(self, series: Tensor, time: Tensor, unit: Tensor | None) -> Tensor:
        """Forecast from ``series``.

        Args:
            series: ``(batch, channels, context_length)``.
            time: Time features of the last step, ``(batch, time features)``.
            unit: The spread that was taken away, ``(batch, channels, 1)``, if it was.

        Returns:
            ``(batch, channels, prediction_length)``, in units of ``unit``.
        """
        recent = series[..., -self.num_steps :]
        if unit is None:
            return self._mapped(recent, time)
        forecast: Tensor = self._mapped(recent * unit, time) / torch.where(unit == 0, 1.0, unit)
        return forecast

    @torch.no_grad()
    def begin_as(self, down: Tensor, up: Tensor) -> None:
        """Have the map be ``up @ down``, ``(channels * prediction_length, rank)`` and ``(rank, channels * steps)``."""
        self.begin_as_nothing()
        self.down.weight.copy_(down)
        self.up.weight.copy_(up)

    def begin_as_nothing(self) -> None:
        """Have it add nothing to a forecast."""
        for weight in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(weight)

    def _mapped(self, recent: Tensor, time: Tensor) -> Tensor:
        flat: Tensor = self.up(self.down(joint_inputs(recent, time, self.memories)))
        forecast: Tensor = flat.unflatten(1, (self.num_channels, -1))
        return forecast


class JointMemories(nn.Module):
    """How much a moment is like each of some moments of the training rows, as each of many heads sees them.

    A moment is the levels of all channels and the time. A head sees ``HEAD_DIM`` random directions of it; its scores
    are minus half the squared distances to the memories, its weights their Softmax_1: a moment that is like none of
    them retrieves nothing, and the rest of the path forecasts it. The values that a head reads out are columns of the
    map behind it, which begin in closed form like the others (``training/joint_path.py``).

    Args:
        num_memories: Moments that it remembers; they are 0 until it is told them.
        num_channels: Channels of the series.
        num_time_features: Columns that tell the time.

    Source: OutEffHop, Hu et al. 2024, arXiv:2404.03828, equation 2.2, with stored patterns; the closed form of random
    features, Rahimi & Recht 2008, Advances in Neural Information Processing Systems 20.
    """

    patterns: Tensor
    directions: Tensor

    def __init__(self, num_memories: int, num_channels: int, num_time_features: int) -> None:
        super().__init__()
        size = 2 * num_channels + num_time_features
        self.register_buffer("patterns", torch.zeros(num_memories, size))
        drawn = torch.randn(size, NUM_HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(SEED))
        self.register_buffer("directions", drawn / size**0.5)

    @property
    def num_weights(self) -> int:
        """How many ``forward`` gives for a moment."""
        return NUM_HEADS * len(self.patterns)

    @torch.no_grad()
    def remember(self, moments: Tensor) -> None:
        """Keep ``moments`` ``(memories, size)``, each as ``moment_of`` gives them."""
        self.patterns.copy_(moments)

    def forward(self, moment: Tensor) -> Tensor:
        """The weights, times the root of the number of memories, which keeps them in the size of a level.

        Args:
            moment: As ``moment_of`` gives it, ``(batch, size)``.

        Returns:
            ``(batch, heads * memories)``.
        """
        query, memory = self._seen(moment), self._seen(self.patterns.to(moment.dtype))
        distance = (query.unsqueeze(2) - memory.transpose(0, 1)).square().sum(dim=-1)  # (batch, heads, memories)
        weights = separate(distance / -2, alpha=1.0, no_op=True).flatten(1)
        return weights * math.sqrt(len(self.patterns))

    def _seen(self, moments: Tensor) -> Tensor:
        """``(moments, heads, HEAD_DIM)``."""
        seen: Tensor = (moments @ self.directions.to(moments.dtype)).unflatten(1, (NUM_HEADS, HEAD_DIM))
        return seen


def joint_inputs(recent: Tensor, time: Tensor, memories: JointMemories | None = None) -> Tensor:
    """What the joint path maps: a patch, and where the time is told, that, and what it makes of levels.

    Args:
        recent: The last patch of all channels, ``(batch, channels, steps)``.
        time: ``(batch, time features)``.
        memories: Of the path, if it has any.

    Returns:
        ``(batch, inputs)``: the patch; each time feature; each time feature times each level; what memories retrieve.
    """
    parts = [recent.flatten(1)]
    if time.shape[1]:
        by_time = time.unsqueeze(2) * levels_of(recent).unsqueeze(1)  # (batch, time features, levels)
        parts += [time, by_time.flatten(1)]
    if memories is not None:
        parts.append(memories(moment_of(recent, time)))
    return torch.cat(parts, dim=1)


def levels_of(recent: Tensor) -> Tensor:
    """The last value of each channel, then the mean of its patch, ``(batch, 2 * channels)``."""
    return torch.cat([recent[..., -1], recent.mean(dim=-1)], dim=1)


def moment_of(recent: Tensor, time: Tensor) -> Tensor:
    """What memories are compared by, ``(batch, 2 * channels + time features)``: levels, and the time."""
    return torch.cat([levels_of(recent), WEIGHT_OF_TIME * time], dim=1)


def num_joint_inputs(num_channels: int, num_steps: int, num_time_features: int, num_memories: int) -> int:
    """How many ``joint_inputs`` gives."""
    return num_channels * num_steps + num_time_features * (1 + 2 * num_channels) + NUM_HEADS * num_memories
