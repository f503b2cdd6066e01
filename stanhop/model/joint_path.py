"""The joint path of a STanHop-Net: from the last patch of all channels to the forecast of all, by one linear map.

It maps the patch, what it is told of the time and, where it has memories, what the patch retrieves from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stanhop.config import ModelConfig
from stanhop.hopfield.retrieval import retrieval_weights

NUM_HEADS, NUM_DIRECTIONS = 64, 8
"""Of the memories of a joint path: many heads that ask the same few directions of the patch."""
SPREAD = 2.0
"""Standard deviation of the memories' entries as they are drawn; those of a query have about 1."""
WEIGHT_OF_TIME = 2.0
"""Of time features in a query."""
SEED = 0
"""Of the memories. They are part of the method, as is their number: no training draws others."""


class JointPath(nn.Module):
    """One linear map of low rank from the last patch of all channels to the horizons of all; it starts as 0.

    It works on contexts without their mean but with their spread, since a small motion of one channel may say much
    about another. Where it is told the time, what a level says changes with it (``joint_inputs``). Where it has
    memories, it is no longer linear in the patch: what is retrieved is mapped beside it.

    Args:
        config: Lengths of patch and horizon, of what it is told the time, and its memories.
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
        self.down = nn.Linear(num_inputs, rank)
        self.up = nn.Linear(rank, num_channels * config.prediction_length)
        self.memories = JointMemories(config, num_channels) if num_memories else None
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
    """Learned memories that the last patch of all channels retrieves from, by OutEffHop in many heads.

    A query is a few directions of the patch and the time; all heads ask the same, each of memories of its own. A query
    that is like none of them retrieves nothing, and the rest of the path forecasts it. The values that a head reads out
    are columns of the map behind it, which begin in closed form like the others; so do the directions, as those that
    the forecast of a path without memories moves along (``training/joint_path.py``). Before that, queries are the time
    alone. Nothing in it takes a number of the generator that a training draws from.

    Args:
        config: How many memories a head has, the length of a patch, what is told of the time, and the share of the
            weights that is dropped in training.
        num_channels: Channels of the series.

    Source: OutEffHop, Hu et al. 2024, arXiv:2404.03828, equation 2.2; the closed form of random features, Rahimi &
    Recht 2008, Advances in Neural Information Processing Systems 20.
    """

    usual: Tensor

    def __init__(self, config: ModelConfig, num_channels: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        first, num_time_features = num_channels * config.patch_length, config.num_time_features
        self._time = slice(first, first + num_time_features)
        num_inputs = num_joint_inputs(num_channels, config.patch_length, num_time_features)
        self.query_proj = nn.utils.skip_init(nn.Linear, num_inputs, NUM_DIRECTIONS)
        self.ask(torch.empty(0, num_inputs))
        num_memories = config.joint_memories or 0
        size = (NUM_HEADS, num_memories, NUM_DIRECTIONS + num_time_features)
        self.memory = nn.Parameter(SPREAD * torch.randn(size, generator=torch.Generator().manual_seed(SEED)))
        self.register_buffer("usual", torch.full((self.num_shares,), 1 / (num_memories + 1)))

    @property
    def num_shares(self) -> int:
        """How many ``forward`` gives for a window."""
        return self.memory.shape[:2].numel()

    @torch.no_grad()
    def ask(self, directions: Tensor) -> None:
        """Have queries be along ``directions``, ``(directions, inputs)``; there are no more than ``NUM_DIRECTIONS``."""
        nn.init.zeros_(self.query_proj.weight)
        nn.init.zeros_(self.query_proj.bias)
        self.query_proj.weight[: len(directions)].copy_(directions)

    @torch.no_grad()
    def expect(self, windows: Iterable[Tensor]) -> None:
        """Have the shares that are usual be their mean over ``windows``, inputs of ``forward``, some at a time."""
        total, count = torch.zeros_like(self.usual), 0
        for inputs in windows:
            total += self._shares(inputs).sum(dim=0)
            count += len(inputs)
        self.usual.copy_(total / count)

    def forward(self, inputs: Tensor) -> Tensor:
        """By how much the share of each memory in what its head reads out is above the usual; in training some are 0.

        All shares are above 0, so that each step of training would move what they have in common, which is a constant,
        hundreds of times as far as any one of them.

        Args:
            inputs: What ``joint_inputs`` gives without memories, ``(batch, inputs)``.

        Returns:
            ``(batch, heads * memories)``.
        """
        return functional.dropout(self._shares(inputs) - self.usual, self.dropout, self.training)

    def _shares(self, inputs: Tensor) -> Tensor:
        query = torch.cat([self.query_proj(inputs), WEIGHT_OF_TIME * inputs[:, self._time]], dim=1)
        of_heads = query.expand(NUM_HEADS, *query.shape)
        weights = retrieval_weights(of_heads, self.memory, alpha=1.0, no_op=True)  # (heads, batch, memories)
        return weights.transpose(0, 1).flatten(1)


def joint_inputs(recent: Tensor, time: Tensor, memories: JointMemories | None = None) -> Tensor:
    """What the joint path maps: a patch, and where the time is told, that, and what it makes of levels.

    Args:
        recent: The last patch of all channels, ``(batch, channels, steps)``.
        time: ``(batch, time features)``.
        memories: Of the path, if it has any.

    Returns:
        ``(batch, inputs)``: the patch; each time feature; each time feature times each level, a level being the last
        value of a channel and the mean of its patch; what is retrieved.
    """
    inputs = recent.flatten(1)
    if time.shape[1]:
        levels = torch.cat([recent[..., -1], recent.mean(dim=-1)], dim=1)
        by_time = time.unsqueeze(2) * levels.unsqueeze(1)  # (batch, time features, levels)
        inputs = torch.cat([inputs, time, by_time.flatten(1)], dim=1)
    return inputs if memories is None else torch.cat([inputs, memories(inputs)], dim=1)


def num_joint_inputs(num_channels: int, num_steps: int, num_time_features: int, num_memories: int = 0) -> int:
    """How many ``joint_inputs`` gives."""
    return num_channels * num_steps + num_time_features * (1 + 2 * num_channels) + NUM_HEADS * num_memories
