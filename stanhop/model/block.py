"""The tandem block of STanHop-Net: retrieval across time, then across channels."""

from __future__ import annotations

from torch import Tensor, nn

from stanhop.config import ModelConfig
from stanhop.hopfield.layers import Hopfield, HopfieldLayer
from stanhop.hopfield.separation import SEPARATIONS


def hopfield(config: ModelConfig) -> Hopfield:
    """A ``Hopfield`` layer of the network's size and separation."""
    return Hopfield(
        config.model_dim,
        config.num_heads,
        separation=SEPARATIONS[config.separation],
        gate=config.gate,
        dropout=config.dropout,
        num_updates=config.num_updates,
    )


def hopfield_layer(config: ModelConfig) -> HopfieldLayer:
    """A ``HopfieldLayer`` (learned memories) of the network's size and separation."""
    return HopfieldLayer(
        config.model_dim,
        config.num_heads,
        num_memories=config.num_memories,
        separation=SEPARATIONS[config.separation],
        gate=config.gate,
        dropout=config.dropout,
        num_updates=config.num_updates,
    )


class FeedForward(nn.Sequential):
    """Two linear maps around a GELU, of each patch by itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(
            nn.Linear(config.model_dim, config.feedforward_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward_dim, config.model_dim),
        )


class Residual(nn.Module):
    """``patches + dropout(change(norm(patches)))``: a step that starts from the normalised patches.

    Args:
        config: Sizes and dropout.
        change: What is added.
    """

    def __init__(self, config: ModelConfig, change: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.model_dim)
        self.change = change
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(..., model_dim)`` to its shape."""
        changed: Tensor = patches + self.dropout(self.change(self.norm(patches)))
        return changed


class AcrossChannels(nn.Module):
    """What channels retrieve from one another at the same time, and from learned memories."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.between_channels = hopfield(config)
        self.learned_memories = hopfield_layer(config)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to its shape."""
        channels = patches.transpose(1, 2)  # (batch, patches, channels, model_dim)
        retrieved: Tensor = self.between_channels(channels) + self.learned_memories(channels)
        return retrieved.transpose(1, 2)


class TandemBlock(nn.Sequential):
    """Retrieval across time, then across channels, each followed by a feed-forward step.

    Each step is residual with its norm in front. (In the published block nothing but what learned memories and
    channels give back passes the second stage.)

    Maps ``(batch, channels, patches, model_dim)`` to its shape.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(
            Residual(config, hopfield(config)),
            Residual(config, FeedForward(config)),
            Residual(config, AcrossChannels(config)),
            Residual(config, FeedForward(config)),
        )
