"""The joint path of a STanHop-Net: a linear map from the last patch of all channels to the forecast of all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stanhop.config import ModelConfig


class JointPath(nn.Module):
    """One linear map of low rank from the last patch of all channels to the horizons of all; it starts as 0.

    It works on contexts without their mean but with their spread, since a small motion of one channel may say much
    about another. Where it is told the time, what a level says changes with it (``joint_inputs``).

    Args:
        config: Lengths of patch and horizon, and of what it is told the time.
        num_channels: Channels of the series.
        rank: At most; there are no more directions than inputs.

    Source: reduced-rank regression, Izenman 1975, Journal of Multivariate Analysis 5(2).
    """

    def __init__(self, config: ModelConfig, num_channels: int, *, rank: int) -> None:
        super().__init__()
        self.num_channels, self.num_steps = num_channels, config.patch_length
        num_inputs = num_joint_inputs(num_channels, config.patch_length, config.num_time_features)
        rank = min(rank, num_inputs)
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
        flat: Tensor = self.up(self.down(joint_inputs(recent, time)))
        forecast: Tensor = flat.unflatten(1, (self.num_channels, -1))
        return forecast


def joint_inputs(recent: Tensor, time: Tensor) -> Tensor:
    """What the joint path maps: a patch, and where the time is told, that, and what it makes of levels.

    Args:
        recent: The last patch of all channels, ``(batch, channels, steps)``.
        time: ``(batch, time features)``.

    Returns:
        ``(batch, inputs)``: the patch; each time feature; each time feature times each level, a level being the last
        value of a channel and the mean of its patch.
    """
    if not time.shape[1]:
        return recent.flatten(1)
    levels = torch.cat([recent[..., -1], recent.mean(dim=-1)], dim=1)
    by_time = time.unsqueeze(2) * levels.unsqueeze(1)  # (batch, time features, levels)
    return torch.cat([recent.flatten(1), time, by_time.flatten(1)], dim=1)


def num_joint_inputs(num_channels: int, num_steps: int, num_time_features: int) -> int:
    """How many ``joint_inputs`` gives."""
    return num_channels * num_steps + num_time_features * (1 + 2 * num_channels)
