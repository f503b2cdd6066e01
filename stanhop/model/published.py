"""The two published STanHop-Net networks, to run their checkpoints and to be measured against.

Variant ``stanhop`` is the network of github.com/MAGICS-LAB/STanHop (Wu et al. 2024, arXiv:2312.17346), ``outeffhop``
the copy in github.com/MAGICS-LAB/OutEffHop (Hu et al. 2024, arXiv:2404.03828). Both are reproduced as their code
computes, not as their papers read; each oddity is named where it is, with what our own ``STanHopNet`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stanhop.errors import Code, ModelError
from stanhop.model.published_config import PublishedConfig, Variant, read_published_config
from stanhop.model.published_layers import PublishedDecoderLayer, PublishedEncoderLevel

PUBLISHED_NAMES: dict[str, dict[Variant, str] | str] = {
    "context_positions": "enc_pos",
    "forecast_positions": "dec_pos",
    "patch_embedding": "enc_emb.linear",
    "embedding_norm": "pre_norm",
    # encoder
    "encoder": "encoder.encode_blocks",
    "coarse_graining": {"stanhop": "coarse_grain", "outeffhop": "merge_layer"},
    "merged_norm": "norm",
    "merged_proj": "linear_trans",
    "context_block": "encode_layers.0",
    # decoder
    "decoder": "decoder.decode_layers",
    "forecast_block": "sthm",
    "from_context": "hopfield",
    "from_context_norm": "norm1",
    "hidden_proj": {"stanhop": "MLP1.0", "outeffhop": "MLP1"},
    "hidden_output_proj": {"stanhop": "MLP1.2", "outeffhop": "MLP2"},
    "layer_norm": "norm2",
    "forecast_proj": "linear_pred",
    # tandem block
    "across_time": "cross_time",
    "time_norm": "norm1",
    "time_feedforward": "MLP1",
    "time_feedforward_norm": "norm2",
    "learned_memories": "cross_series.key",
    "from_memories": "cross_series",
    "across_channels": "hopfield",
    "channels_norm": "norm3",
    "channels_feedforward": "MLP2",
    "channels_feedforward_norm": "norm4",
    # retrieval
    "query_proj": "query_projection",
    "memory_proj": "key_projection",
    "values_proj": "value_projection",
    "output_proj": "out_projection",
    "alpha_logit": {"stanhop": "inner_attention.entmax.alpha", "outeffhop": "inner_attention.softmax.alpha"},
}
"""The published name of each part of our dotted parameter names; parts that are not here are the same."""

ALPHA = "alpha_logit"
"""Our name of a learned alpha, before the sigmoid."""

DEAD_SUFFIX = "_chooser"
"""Beside each learned alpha the published code keeps a parameter of this suffix, which nothing uses."""

PARALLEL_PREFIX = "module."
"""What DataParallel puts before every name."""


class PublishedSTanHopNet(nn.Module):
    """A published STanHop-Net, to be trained afresh or filled by ``from_published``.

    Where our ``STanHopNet`` differs, besides what the layers say:

    - **Nothing normalises a context**; ``baseline`` at most adds its mean to the forecast, without having taken it
      away from the context. Ours standardises each context by itself unless told not to.
    - **Positions are learned for each channel**, so that the number of channels is part of the network. They start as
      standard normal, and those of the forecast enter the decoder without a norm. Ours shares small ones.
    - **The embedded patches are the first level** that the decoder reads, before any retrieval, and all that leads
      from the context to the forecast are the decoder's retrievals. Ours adds a direct linear map.

    As in ours, the context is filled up to whole patches by repeating its first step in front.

    Args:
        config: Its shape.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        channels, dim = config.num_channels, config.model_dim
        self.patch_embedding = nn.Linear(config.patch_length, dim)
        self.context_positions = nn.Parameter(torch.randn(1, channels, config.num_context_patches, dim))
        self.embedding_norm = nn.LayerNorm(dim)
        self.encoder = nn.ModuleList(
            PublishedEncoderLevel(config, is_first=level == 0) for level in range(config.num_levels)
        )
        self.forecast_positions = nn.Parameter(torch.randn(1, channels, config.num_forecast_patches, dim))
        self.decoder = nn.ModuleList(PublishedDecoderLayer(config) for _ in range(config.num_levels + 1))

    def forward(self, context: Tensor) -> Tensor:
        """Forecast ``(batch, prediction_length, channels)`` from ``(batch, context_length, channels)``, scaled units.

        The context may have any floating dtype; the network works in its own, and the forecast has the context's.

        Raises:
            ValueError: the context has another shape.
        """
        expected = (self.config.context_length, self.config.num_channels)
        if context.ndim != 3 or context.shape[1:] != expected:
            raise ValueError(f"context must be (batch, {expected[0]}, {expected[1]}), got {tuple(context.shape)}")
        levels = [self._embed(context.to(self.context_positions.dtype))]
        for encoder_level in self.encoder:
            levels.append(encoder_level(levels[-1]))
        forecast = self._decode(levels).to(context.dtype)
        return forecast + context.mean(dim=1, keepdim=True) if self.config.baseline else forecast

    def _embed(self, context: Tensor) -> Tensor:
        """The context's patches, ``(batch, channels, patches, model_dim)``."""
        num_missing = -self.config.context_length % self.config.patch_length
        filled = torch.cat([context[:, :1].expand(-1, num_missing, -1), context], dim=1)
        patches = filled.transpose(1, 2).unflatten(2, (-1, self.config.patch_length))  # (batch, channels, patches, ...)
        embedded: Tensor = self.embedding_norm(self.patch_embedding(patches) + self.context_positions)
        return embedded

    def _decode(self, levels: list[Tensor]) -> Tensor:
        """The forecast ``(batch, prediction_length, channels)``, each decoder layer reading its level."""
        state = self.forecast_positions.expand(len(levels[0]), -1, -1, -1)
        shares = []
        for layer, level in zip(self.decoder, levels, strict=True):
            state, share = layer(state, level)
            shares.append(share)
        patches = torch.stack(shares).sum(dim=0)  # (batch, channels, forecast patches, patch_length)
        return patches.flatten(2).transpose(1, 2)[:, : self.config.prediction_length]


def from_published(
    parameters: Mapping[str, Tensor], config: Mapping[str, Any], variant: Variant
) -> PublishedSTanHopNet:
    """The published network with the ``parameters`` of a checkpoint, ready to forecast (``eval`` mode).

    Args:
        parameters: The checkpoint's state dict by the published names, with or without DataParallel's ``module.``
            prefix and the unused ``alpha_chooser``. They are copied; the network takes their dtype and device.
        config: The published constructor's arguments by the published words (``in_len``, ``seg_len``, ...); what is
            absent has the published class's default.
        variant: Which of the two networks.

    Raises:
        ConfigError: arguments that this constructor does not have, needs, or cannot run with.
        ModelError: parameters that are missing, not this network's, of another shape, or not finite.
    """
    with torch.device("meta"):  # shapes only: the parameters come from the checkpoint
        network = PublishedSTanHopNet(read_published_config(config, variant))
    ours = {published_name(name, variant): name for name in network.state_dict()}
    dead = {name + DEAD_SUFFIX for name, own in ours.items() if own.endswith(ALPHA)}
    given = {name: value for name, value in _without_prefix(parameters).items() if name not in dead}
    _check_names(given, ours)
    _check_values(given, {name: network.get_parameter(own).shape for name, own in ours.items()})
    network.load_state_dict({ours[name]: value.detach().clone() for name, value in given.items()}, assign=True)
    return network.eval()


def to_published(network: PublishedSTanHopNet) -> dict[str, Tensor]:
    """A copy of the parameters by the published names, complete enough for the published code to load strictly.

    The unused ``alpha_chooser`` beside each alpha is 0.
    """
    variant = network.config.variant
    published = {}
    for name, value in network.state_dict().items():
        published[published_name(name, variant)] = value.clone()
        if name.endswith(ALPHA):
            published[published_name(name, variant) + DEAD_SUFFIX] = torch.zeros_like(value)
    return published


def published_name(name: str, variant: Variant) -> str:
    """The published name of our parameter ``name``."""
    parts = []
    for part in name.split("."):
        published = PUBLISHED_NAMES.get(part, part)
        parts.append(published if isinstance(published, str) else published[variant])
    return ".".join(parts)


def _without_prefix(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    is_parallel = all(name.startswith(PARALLEL_PREFIX) for name in parameters)
    return {name.removeprefix(PARALLEL_PREFIX) if is_parallel else name: value for name, value in parameters.items()}


def _check_names(given: Mapping[str, Tensor], expected: Mapping[str, str]) -> None:
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    problems = [f"missing parameters: {_first_three(missing)}"] if missing else []
    problems += [f"unexpected parameters: {_first_three(unexpected)}"] if unexpected else []
    if problems:
        fix = "check the variant and the arguments e_layers, win_size and mode"
        raise ModelError(Code.MODEL, "; ".join(problems), fix=fix)


def _check_values(given: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    dtype = next(iter(given.values())).dtype
    problems = []
    for name, value in given.items():
        if value.shape != shapes[name]:
            problems.append(f"{name} has shape {tuple(value.shape)} instead of {tuple(shapes[name])}")
        elif value.dtype != dtype or not value.is_floating_point():
            problems.append(f"{name} is of {value.dtype}, others are of {dtype}; all must be of one floating dtype")
        elif not value.isfinite().all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise ModelError(Code.MODEL, _first_three(problems))


def _first_three(texts: list[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more
