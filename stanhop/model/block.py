"""The tandem block of STanHop-Net: retrieval across time, then across channels."""

from __future__ import annotations

import torch
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
        has_scale: Whether that is multiplied by one learned number, which begins as 0: a step that can learn to do
            nothing, and does nothing at first.

    Source: the scale, Bachlechner et al. 2021, ReZero, arXiv:2003.04887.
    """

    def __init__(self, config: ModelConfig, change: nn.Module, *, has_scale: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.model_dim)
        self.change = change
        self.dropout = nn.Dropout(config.dropout)
        self.scale = nn.Parameter(torch.zeros(())) if has_scale else None

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(..., model_dim)`` to its shape."""
        added: Tensor = self.dropout(self.change(self.norm(patches)))
        return patches + (added if self.scale is None else self.scale * added)

    @torch.no_grad()
    def absorb_scale(self) -> None:
        """Have the last maps of what is added take up the scale, which is 1 then; nothing but rounding changes."""
        if self.scale is None:
            return
        assert isinstance(self.change, AcrossChannels)
        self.change.scale_output(self.scale)
        nn.init.ones_(self.scale)


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

    def scale_output(self, factor: Tensor) -> None:
        """Have all that is retrieved be ``factor``, a scalar, times as large."""
        for layer in self.modules():
            if isinstance(layer, Hopfield):
                layer.scale_output(factor)


class TandemBlock(nn.Sequential):
    """Retrieval across time, then across channels, each followed by a feed-forward step.

    Each step is residual with its norm in front. Where there is no joint path, which takes channels that say much about
    one another, what they retrieve from one another has a scale: it has to show that it is of use. (In the published
    block nothing but what learned memories and channels give back passes the second stage.)

    Maps ``(batch, channels, patches, model_dim)`` to its shape.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(
            Residual(config, hopfield(config)),
            Residual(config, FeedForward(config)),
            Residual(config, AcrossChannels(config), has_scale=not config.joint_rank),
            Residual(config, FeedForward(config)),
        )


def absorb_scales(network: nn.Module) -> None:
    """Have no step of ``network`` a scale but 1, as ``Residual.absorb_scale``: for a network that is trained.

    What a small scale makes small is large before it, and neither integers nor figures of outliers know of the scale.
    """
    for module in network.modules():
        if isinstance(module, Residual):
            module.absorb_scale()
