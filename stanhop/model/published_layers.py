"""The layers of the published STanHop-Net networks, quirks included; our own network differs where each says so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stanhop.hopfield.dispatch import Method
from stanhop.hopfield.retrieval import retrieve
from stanhop.model.published_config import PublishedConfig


class PublishedHopfield(nn.Module):
    """Retrieve for each query from a memory, the published way.

    Three things are not as in ``stanhop.hopfield.Hopfield``, of which our network is made:

    - **Values come from the projected memory**, ``W_V (W_K memory)`` with both biases. Ours projects the memory
      itself.
    - **Heads are mixed with positions**: the retrieved ``(heads, queries, head_dim)`` are read as
      ``(queries, heads * head_dim)`` without transposing. Row r, slot c of the result is head ``(r h + c) // L`` at
      position ``(r h + c) % L``, with h heads and L queries, so patches (or channels) change places by index, and
      permuting the channels of a series does more than permute its forecast. Ours transposes back.
    - **One alpha is shared by all heads** in mode ``entmax``. Ours learns one a head.

    There is no residual and no norm inside.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        inner_dim = config.num_heads * config.head_dim
        self.query_proj = nn.Linear(config.model_dim, inner_dim)
        self.memory_proj = nn.Linear(config.model_dim, inner_dim)
        self.values_proj = nn.Linear(inner_dim, inner_dim)
        self.output_proj = nn.Linear(inner_dim, config.model_dim)
        self.alpha_logit = nn.Parameter(torch.randn(1)) if config.separation.alpha is None else None

    @property
    def alpha(self) -> float | Tensor:
        """The separation's alpha: a number, or one for all ``(heads,)`` in (1, ``largest_alpha``) if learned."""
        if self.alpha_logit is not None:
            learned = 1 + (self.config.largest_alpha - 1) * self.alpha_logit.sigmoid()
            return learned.expand(self.config.num_heads)
        assert self.config.separation.alpha is not None
        return self.config.separation.alpha

    @property
    def method(self) -> Method:
        """How to retrieve: the fast ways are equal to the definition for alpha up to 2, and alpha may be learned to 3.

        Looking at the value waits for the device, once a call.
        """
        if self.alpha_logit is None or self.config.largest_alpha <= 2 or self.alpha_logit.item() <= 0:
            return "auto"
        return "definition"

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Map ``(..., queries, model_dim)`` and ``(..., memories, model_dim)`` to the query's shape."""
        projected = self.memory_proj(memory)
        retrieved = retrieve(
            self.split_heads(self.query_proj(query)),
            self.split_heads(projected),
            self.split_heads(self.values_proj(projected)),
            alpha=self.alpha,
            no_op=self.config.separation.no_op,
            clip=self.clip(num_memories=memory.shape[-2]),
            dropout=self.config.dropout if self.training else 0.0,
            method=self.method,
        )  # (..., heads, queries, head_dim)
        mixed = retrieved.reshape(*query.shape[:-1], -1)  # (..., queries, heads * head_dim), not transposed
        output: Tensor = self.output_proj(mixed)  # (..., queries, model_dim)
        return output

    def clip(self, *, num_memories: int) -> tuple[float, float] | None:
        """Published clipping, ``clamp(weights * (eta - gamma) + gamma, 0, 1)``, as ``retrieve`` takes it.

        There the lower end is ``-zeta / num_memories``; the published one is the same for any number of memories.
        """
        return (-self.config.gamma * num_memories, self.config.eta) if self.config.is_clipped else None

    def split_heads(self, patterns: Tensor) -> Tensor:
        """``(..., length, heads * head_dim)`` as ``(..., heads, length, head_dim)``."""
        heads: Tensor = patterns.unflatten(-1, (self.config.num_heads, -1))  # (..., length, heads, head_dim)
        return heads.transpose(-2, -3)


class PublishedFeedForward(nn.Sequential):
    """Two linear maps around a GELU, of each patch by itself; ours has dropout between them."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__(
            nn.Linear(config.model_dim, config.feedforward_dim),
            nn.GELU(),
            nn.Linear(config.feedforward_dim, config.model_dim),
        )


class PublishedTandemBlock(nn.Module):
    """Retrieve across time, then across channels, the published way.

    - **No residual leads past the retrievals across channels**: what goes on is what the learned memories and the
      other channels answer. Ours adds that to what was there.
    - **Learned memories and channels do not meet**: the code passes what the memories answer to the retrieval between
      channels, which never reads it. The two answers add up, as they do in ours.
    - **Few norms, behind the steps**: variant ``outeffhop`` has a single one, after the retrievals across channels;
      variant ``stanhop`` has four. Ours has one in front of each step.
    - **Learned memories are uninitialised** in the published code. Here, and in ours, they start as standard normal.
    - **Dropout** is applied to the weights of each retrieval, and to what ``across_time``, ``across_channels`` and the
      two feed-forward parts add, but not to what the learned memories answer. Ours drops it all.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        has_four_norms = config.variant == "stanhop"
        self.across_time = PublishedHopfield(config)
        self.time_norm = nn.LayerNorm(config.model_dim) if has_four_norms else nn.Identity()
        self.time_feedforward = PublishedFeedForward(config)
        self.time_feedforward_norm = nn.LayerNorm(config.model_dim) if has_four_norms else nn.Identity()
        self.learned_memories = nn.Parameter(torch.randn(1, config.num_memories, config.model_dim))
        self.from_memories = PublishedHopfield(config)
        self.across_channels = PublishedHopfield(config)
        self.channels_norm = nn.LayerNorm(config.model_dim)
        self.channels_feedforward = PublishedFeedForward(config)
        self.channels_feedforward_norm = nn.LayerNorm(config.model_dim) if has_four_norms else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to the same shape."""
        patches = self.time_norm(patches + self.dropout(self.across_time(patches, patches)))
        patches = self.time_feedforward_norm(patches + self.dropout(self.time_feedforward(patches)))
        patches = patches.transpose(1, 2)  # (batch, patches, channels, model_dim)
        from_memories = self.from_memories(patches, self.learned_memories)
        patches = self.channels_norm(from_memories + self.dropout(self.across_channels(patches, patches)))
        patches = self.channels_feedforward_norm(patches + self.dropout(self.channels_feedforward(patches)))
        return patches.transpose(1, 2)  # (batch, channels, patches, model_dim)


class PublishedCoarseGraining(nn.Module):
    """Merge ``merge_size`` adjacent patches into one.

    Where the number of patches is no multiple, the published code **appends the last patches once more**, in order,
    and fails where there are fewer than it needs (``PublishedConfig`` refuses that). Ours repeats the last one.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.merge_size = config.merge_size
        self.merged_norm = nn.LayerNorm(config.merge_size * config.model_dim)
        self.merged_proj = nn.Linear(config.merge_size * config.model_dim, config.model_dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to ``(batch, channels, merged patches, model_dim)``."""
        num_patches = patches.shape[2]
        repeated = patches[:, :, num_patches - (-num_patches % self.merge_size) :]
        patches = torch.cat([patches, repeated], dim=2)
        merged = patches.unflatten(2, (-1, self.merge_size)).flatten(3)  # (..., merged patches, merge_size * model_dim)
        coarse: Tensor = self.merged_proj(self.merged_norm(merged))
        return coarse


class PublishedEncoderLevel(nn.Module):
    """A tandem block, after merging patches on every level but the first."""

    def __init__(self, config: PublishedConfig, *, is_first: bool) -> None:
        super().__init__()
        merges = config.merge_size > 1 and not is_first
        self.coarse_graining = PublishedCoarseGraining(config) if merges else nn.Identity()
        self.context_block = PublishedTandemBlock(config)

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to ``(batch, channels, merged patches, model_dim)``."""
        level: Tensor = self.context_block(self.coarse_graining(patches))
        return level


class PublishedDecoderLayer(nn.Module):
    """A tandem block on the forecast's patches, which then retrieve from one level of the context.

    Its own feed-forward part is ``model_dim`` wide and, unlike the others, has **no dropout**. Ours has no decoder: it
    reads each level out by a linear map.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.forecast_block = PublishedTandemBlock(config)
        self.from_context = PublishedHopfield(config)
        self.from_context_norm = nn.LayerNorm(config.model_dim)
        self.hidden_proj = nn.Linear(config.model_dim, config.model_dim)
        self.hidden_output_proj = nn.Linear(config.model_dim, config.model_dim)
        self.layer_norm = nn.LayerNorm(config.model_dim)
        self.forecast_proj = nn.Linear(config.model_dim, config.patch_length)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, state: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the forecast's patches by one layer.

        Args:
            state: ``(batch, channels, forecast patches, model_dim)``.
            level: One level of the encoder, ``(batch, channels, patches, model_dim)``.

        Returns:
            The next state, and this layer's share of the forecast ``(batch, channels, forecast patches,
            patch_length)``.
        """
        state = self.forecast_block(state)
        state = self.from_context_norm(state + self.dropout(self.from_context(state, level)))
        hidden = nn.functional.gelu(self.hidden_proj(state))
        state = self.layer_norm(state + self.hidden_output_proj(hidden))
        return state, self.forecast_proj(state)
