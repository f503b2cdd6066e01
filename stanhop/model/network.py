"""STanHop-Net: tandem Hopfield blocks at ever coarser resolutions, and a read-out of each that sum to the forecast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stanhop.config import ModelConfig
from stanhop.model.block import TandemBlock
from stanhop.model.joint_path import JointPath
from stanhop.model.normalization import InstanceStatistics
from stanhop.model.patching import CoarseGraining, PatchEmbedding, num_patches
from stanhop.model.published import PublishedSTanHopNet
from stanhop.model.published_config import published_config

Outputs = Tensor | tuple[Tensor, Tensor, Tensor]
"""What calling a network gives: a forecast, or from ``WithBounds`` a forecast, lower and upper bounds."""


class STanHopNet(nn.Module):
    """Forecast all channels of a series from their recent past.

    The forecast is the sum of a direct linear map of each channel's context and one correction per encoder
    level. What differs from the published network, and why, stands in the README.

    Args:
        config: Sizes, separation, dropout.
        num_channels: Channels of the series. What a patch says is read the same way in every channel; but for the
            embedding of each channel, which can be left out, the parameters do not depend on it.

    Source: Wu et al. 2024, arXiv:2312.17346, section 4; OutEffHop, Hu et al. 2024, arXiv:2404.03828.
    """

    def __init__(self, config: ModelConfig, num_channels: int) -> None:
        super().__init__()
        self.config = config
        self.num_channels = num_channels
        self.embedding = PatchEmbedding(
            config.context_length,
            config.patch_length,
            config.model_dim,
            num_channels=num_channels if config.channel_embedding else None,
            dropout=config.dropout,
        )
        self.encoder = nn.ModuleList(EncoderLevel(config, level) for level in range(config.num_levels))
        self.read_outs = nn.ModuleList(ReadOut(config, level) for level in range(config.num_levels))
        self.direct = DirectPath(config.context_length, config.prediction_length)
        self.joint = JointPath(config, num_channels, rank=config.joint_rank) if config.joint_rank else None
        reverts = config.instance_norm and config.mean_reversion
        self.reversion = MeanReversion(config.prediction_length) if reverts else None
        if config.head == "quantile":
            self.spreads = nn.ModuleList(
                ReadOut(config, level, num_outputs=2 * len(config.levels)) for level in range(config.num_levels)
            )

    def forward(self, context: Tensor) -> Tensor:
        """Forecast from ``context``.

        Args:
            context: ``(batch, context_length, channels)``, of any floating dtype, behind the channels the time
                features that ``config`` names. Instance normalisation works in that dtype, so that a float64 context of
                large values keeps its digits; the network in its own.

        Returns:
            ``(batch, prediction_length, channels)`` in the dtype of ``context``.
        """
        context, time = self._parted(context)
        statistics, series = self._standardized(context)
        forecast = self._forecast(series, time, self._encoded(series), statistics)
        return self.reverted(_restored(forecast, statistics, like=context), statistics)

    def with_bounds(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forecast with the bounds of the quantile head.

        A bound lies beyond that of the next narrower level, and the first beyond the forecast, by the softplus of what
        is read out: no two can cross.

        Args:
            context: As in ``forward``.

        Returns:
            The forecast of ``forward``, lower and upper bounds, both ``(batch, levels, prediction_length, channels)``.
        """
        context, time = self._parted(context)
        statistics, series = self._standardized(context)
        encoded = self._encoded(series)
        forecast = self._forecast(series, time, encoded, statistics)
        spread = torch.stack([read(patches) for read, patches in zip(self.spreads, encoded, strict=True)]).sum(0)
        sides = spread.unflatten(-1, (2, len(self.config.levels), -1))  # (batch, channels, 2, levels, steps)
        distances = functional.softplus(sides).cumsum(dim=-2).unbind(dim=2)
        point = forecast.unsqueeze(-2)
        bounds = (point - distances[0], point + distances[1])  # (batch, channels, levels, steps) both
        lower, upper = (_restored(bound.flatten(-2), statistics, like=context) for bound in bounds)
        levels = (len(self.config.levels), self.config.prediction_length)
        restored = _restored(forecast, statistics, like=context)
        outputs = (restored, lower.unflatten(1, levels), upper.unflatten(1, levels))
        restored, lower, upper = (self.reverted(each, statistics) for each in outputs)
        return restored, lower, upper

    def reverted(self, values: Tensor, statistics: InstanceStatistics | None) -> Tensor:
        """A forecast whose level goes back to the mean of the training rows, if the network's forecasts do.

        Args:
            values: The forecast, or bounds of it, ``(batch, ..., prediction_length, channels)``.
            statistics: Of the context; with ``instance_norm`` alone levels return.
        """
        if self.reversion is None:
            return values
        assert statistics is not None
        change: Tensor = self.reversion(statistics.moving_level)
        return values + (change if values.dim() == change.dim() else change.unsqueeze(1))

    @torch.no_grad()
    def begin_as_linear(self, weight: Tensor) -> None:
        """Have the direct path with this ``weight`` make the whole forecast: all read-outs are 0, and so is its bias.

        An encoder that has learned nothing adds noise otherwise, which the direct path then learns to undo.

        Args:
            weight: ``(prediction_length, context_length)``.
        """
        self.direct.weight.copy_(weight)
        nn.init.zeros_(self.direct.bias)
        for read_out in self.read_outs:
            assert isinstance(read_out, ReadOut)
            nn.init.zeros_(read_out.linear.weight)
            nn.init.zeros_(read_out.linear.bias)
        if self.joint is not None:
            self.joint.begin_as_nothing()

    @torch.no_grad()
    def shrink_towards(self, weight: Tensor, share: float) -> None:
        """Have it forecast ``share`` of what it does now, and the rest of what a linear map makes of the context.

        Bounds of the quantile head stay where they are beside the forecast.

        Args:
            weight: The map, as in ``begin_as_linear``.
            share: 0 to 1; 1 leaves every bit.
        """
        if share == 1:
            return
        self.direct.weight.mul_(share).add_(weight, alpha=1 - share)
        maps = [read_out.linear for read_out in self.read_outs if isinstance(read_out, ReadOut)]
        if self.joint is not None:
            maps.append(self.joint.up)
        for scaled in (self.direct.bias, *(part for each in maps for part in (each.weight, each.bias))):
            scaled.mul_(share)

    def _parted(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The channels of ``context``, and the time features of its last step, ``(batch, time features)``."""
        return context[..., : self.num_channels], context[:, -1, self.num_channels :]

    def _standardized(self, context: Tensor) -> tuple[InstanceStatistics | None, Tensor]:
        """Statistics of ``context`` and what the network sees of it, ``(batch, channels, context_length)``."""
        statistics = InstanceStatistics.of(context) if self.config.instance_norm else None
        series = context if statistics is None else statistics.standardize(context)
        return statistics, series.to(self.embedding.position.dtype).transpose(1, 2)

    def _encoded(self, series: Tensor) -> list[Tensor]:
        """The patches of ``series`` after each encoder level, ``(batch, channels, patches, model_dim)``."""
        encoded = [self.embedding(series)]
        for level in self.encoder:
            encoded.append(level(encoded[-1]))
        return encoded[1:]

    def _forecast(
        self, series: Tensor, time: Tensor, encoded: list[Tensor], statistics: InstanceStatistics | None
    ) -> Tensor:
        """What ``series`` and its patches say of the future, ``(batch, channels, prediction_length)``."""
        forecast: Tensor = self.direct(series)
        if self.joint is not None:
            unit = None if statistics is None else statistics.deviation.to(series.dtype).transpose(1, 2)
            forecast = forecast + self.joint(series, time.to(series.dtype), unit)
        for patches, read_out in zip(encoded, self.read_outs, strict=True):
            forecast = forecast + read_out(patches)
        return forecast


class WithBounds(nn.Module):
    """``network`` so that calling it gives what ``with_bounds`` does, for those that compile what they call."""

    network: STanHopNet

    def __init__(self, network: STanHopNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forecast, lower and upper bounds."""
        return self.network.with_bounds(context)


def mean_of_context(context_length: int, prediction_length: int) -> Tensor:
    """The linear map, ``(prediction_length, context_length)``, by which every step is the mean of the context."""
    return torch.full((prediction_length, context_length), 1 / context_length)


class DirectPath(nn.Linear):
    """One linear map from context to horizon, shared by all channels; it starts as the mean of the context.

    Source: DLinear and NLinear, Zeng et al. 2023, arXiv:2205.13504.
    """

    def __init__(self, context_length: int, prediction_length: int) -> None:
        super().__init__(context_length, prediction_length)
        self.weight = nn.Parameter(mean_of_context(context_length, prediction_length))
        nn.init.zeros_(self.bias)


class MeanReversion(nn.Module):
    """The level of a context returns to the mean of the training rows, by a share of the way for each step.

    Shares are estimated before training (``training/mean_reversion.py``) and stay as they are: windows overlap so much
    that a gradient would take what happened once for a rule. A level beyond all that were seen returns no further than
    the farthest of those, so that a series that has moved for good, or an absurd value, is not answered by another one.

    Source: Uhlenbeck & Ornstein 1930, Physical Review 36.
    """

    share: Tensor
    farthest: Tensor

    def __init__(self, prediction_length: int) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(prediction_length))
        self.register_buffer("farthest", torch.zeros(()))

    @torch.no_grad()
    def begin_as(self, share: Tensor, farthest: Tensor) -> None:
        """Take over what was estimated.

        Args:
            share: Of the way back that the level has gone at each step, 0 to 1, ``(prediction_length,)``.
            farthest: The largest magnitude of a level that was seen, in scaled units, a scalar.
        """
        self.share.copy_(share)
        self.farthest.copy_(farthest)

    def forward(self, level: Tensor) -> Tensor:
        """What to add to a forecast, ``(batch, prediction_length, channels)``.

        Args:
            level: Mean of each context in scaled units, ``(batch, 1, channels)``.
        """
        farthest = self.farthest.to(level.dtype)
        return -self.share[:, None].to(level.dtype) * level.clamp(-farthest, farthest)


class EncoderLevel(nn.Sequential):
    """A tandem block, behind coarse-graining at every level but the first (0).

    Maps ``(batch, channels, patches, model_dim)`` to the same at the level's resolution.
    """

    def __init__(self, config: ModelConfig, level: int) -> None:
        merges = level > 0 and config.merge_size > 1
        super().__init__(
            *([CoarseGraining(config.model_dim, config.merge_size)] if merges else []),
            TandemBlock(config),
        )


class ReadOut(nn.Sequential):
    """One linear map from all patches of an encoder level to the horizon, shared by all channels.

    Maps ``(batch, channels, patches, model_dim)`` to ``(batch, channels, num_outputs * prediction_length)``. (The
    published decoder sends learned queries through tandem blocks of their own to each level.)
    """

    def __init__(self, config: ModelConfig, level: int, *, num_outputs: int = 1) -> None:
        num_features = num_patches_at(config, level) * config.model_dim
        super().__init__(
            nn.LayerNorm(config.model_dim),
            nn.Flatten(-2),
            nn.Dropout(config.dropout),
            nn.Linear(num_features, num_outputs * config.prediction_length),
        )

    @property
    def linear(self) -> nn.Linear:
        """The map."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last


def _restored(series: Tensor, statistics: InstanceStatistics | None, *, like: Tensor) -> Tensor:
    """``series`` ``(batch, channels, steps)`` as ``(batch, steps, channels)`` in the units and dtype of ``like``."""
    values = series.transpose(1, 2).to(like.dtype)
    return values if statistics is None else statistics.restore(values)


def num_patches_at(config: ModelConfig, level: int) -> int:
    """Patches at encoder level ``level``, counted from 0: each level but the first merges."""
    patches = num_patches(config.context_length, config.patch_length)
    for _ in range(level):
        patches = num_patches(patches, config.merge_size)
    return patches


def with_head(network: nn.Module) -> nn.Module:
    """``network`` so that calling it computes all that it can: with a quantile head, the bounds as well."""
    if isinstance(network, STanHopNet) and network.config.head == "quantile":
        return WithBounds(network)
    return network


def build_network(config: ModelConfig, num_channels: int) -> nn.Module:
    """The network that ``config`` describes, with fresh weights."""
    if config.network == "stanhop":
        return STanHopNet(config, num_channels)
    return PublishedSTanHopNet(published_config(config, num_channels))
