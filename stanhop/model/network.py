"""STanHop-Net: tandem Hopfield blocks at ever coarser resolutions, and a read-out of each that sum to the forecast."""

from __future__ import annotations

from torch import Tensor, nn

from stanhop.config import ModelConfig
from stanhop.model.block import TandemBlock
from stanhop.model.normalization import InstanceStatistics
from stanhop.model.patching import CoarseGraining, PatchEmbedding, num_patches
from stanhop.model.published import PublishedSTanHopNet
from stanhop.model.published_config import published_config


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

    def forward(self, context: Tensor) -> Tensor:
        """Forecast from ``context``.

        Args:
            context: ``(batch, context_length, channels)``, of any floating dtype. Instance normalisation works
                in that dtype, so that a float64 context of large values keeps its digits; the network in its own.

        Returns:
            ``(batch, prediction_length, channels)`` in the dtype of ``context``.
        """
        statistics = InstanceStatistics.of(context) if self.config.instance_norm else None
        series = context if statistics is None else statistics.standardize(context)
        forecast = self._forecast(series.to(self.embedding.position.dtype).transpose(1, 2)).transpose(1, 2)
        forecast = forecast.to(context.dtype)
        return forecast if statistics is None else statistics.restore(forecast)

    def _forecast(self, series: Tensor) -> Tensor:
        """Map ``(batch, channels, context_length)`` to ``(batch, channels, prediction_length)``."""
        forecast: Tensor = self.direct(series)
        patches = self.embedding(series)
        for level, read_out in zip(self.encoder, self.read_outs, strict=True):
            patches = level(patches)
            forecast = forecast + read_out(patches)
        return forecast


class DirectPath(nn.Linear):
    """One linear map from context to horizon, shared by all channels; it starts as the mean of the context.

    Source: DLinear and NLinear, Zeng et al. 2023, arXiv:2205.13504.
    """

    def __init__(self, context_length: int, prediction_length: int) -> None:
        super().__init__(context_length, prediction_length)
        nn.init.constant_(self.weight, 1 / context_length)
        nn.init.zeros_(self.bias)


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

    Maps ``(batch, channels, patches, model_dim)`` to ``(batch, channels, prediction_length)``. (The published
    decoder sends learned queries through tandem blocks of their own to each level.)
    """

    def __init__(self, config: ModelConfig, level: int) -> None:
        num_features = num_patches_at(config, level) * config.model_dim
        super().__init__(
            nn.LayerNorm(config.model_dim),
            nn.Flatten(-2),
            nn.Dropout(config.dropout),
            nn.Linear(num_features, config.prediction_length),
        )


def num_patches_at(config: ModelConfig, level: int) -> int:
    """Patches at encoder level ``level``, counted from 0: each level but the first merges."""
    patches = num_patches(config.context_length, config.patch_length)
    for _ in range(level):
        patches = num_patches(patches, config.merge_size)
    return patches


def build_network(config: ModelConfig, num_channels: int) -> nn.Module:
    """The network that ``config`` describes, with fresh weights."""
    if config.network == "stanhop":
        return STanHopNet(config, num_channels)
    return PublishedSTanHopNet(published_config(config, num_channels))
