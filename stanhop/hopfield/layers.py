"""The Hopfield layers: modules that own projections, alpha, gate and learned patterns around ``retrieve``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stanhop.errors import Code, ConfigError
from stanhop.hopfield.retrieval import retrieval_weights, retrieve
from stanhop.hopfield.separation import Separation, in_full_precision

OPEN_GATE = 0.25
"""Share of a head's output that a new gate lets through: the pi_init of Bondarenko et al. 2023, arXiv:2306.12929."""


class Hopfield(nn.Module):
    """Retrieve from ``memory`` what each ``query`` resembles, in several heads, by learned projections.

    Values are projected from the memory as it was given. The published code projects them from the projected memory,
    ``W_V (W_K y)``, which ties what a memory answers to how it is found.

    Args:
        model_dim: Features of query, memory and output.
        num_heads: Parallel retrievals; must divide ``model_dim``.
        separation: How scores become weights. Where its alpha is None each head learns its own, starting at 1.5.
        gate: Whether each head's output is multiplied by a sigmoid of a linear map of the query, one number for each
            head and query, a quarter at the start ("conditional per token" over all features, Bondarenko et al. 2023).
        dropout: Share of the weights dropped in training.
        num_updates: How often the retrieval dynamics is applied.

    Raises:
        ConfigError: ``num_heads`` does not divide ``model_dim``.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        separation: Separation,
        gate: bool = False,
        dropout: float = 0.0,
        num_updates: int = 1,
    ) -> None:
        super().__init__()
        if model_dim % num_heads:
            raise ConfigError(Code.CONFIG, f"num_heads ({num_heads}) must divide model_dim ({model_dim})")
        self.num_heads = num_heads
        self.separation = separation
        self.dropout = dropout
        self.num_updates = num_updates
        self.query_proj = nn.Linear(model_dim, model_dim)
        self.memory_proj = nn.Linear(model_dim, model_dim)
        self.values_proj = nn.Linear(model_dim, model_dim)
        self.output_proj = nn.Linear(model_dim, model_dim)
        self.alpha_logit = nn.Parameter(torch.zeros(num_heads)) if separation.alpha is None else None
        self.gate_proj = nn.Linear(model_dim, num_heads) if gate else None
        if self.gate_proj is not None:
            nn.init.constant_(self.gate_proj.bias, math.log(OPEN_GATE / (1 - OPEN_GATE)))

    @property
    def alpha(self) -> float | Tensor:
        """The separation's alpha: a number, or ``(heads,)`` in (1, 2) where it is learned."""
        if self.separation.alpha is not None:
            return self.separation.alpha
        assert self.alpha_logit is not None
        return 1 + in_full_precision(self.alpha_logit).sigmoid()  # steps of bfloat16 near 1 are too coarse

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        *,
        values: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Retrieve for each query.

        Args:
            query: ``(..., queries, model_dim)``; any number of batch axes leads, which broadcast.
            memory: ``(..., memories, model_dim)``; the query if None.
            values: What each memory answers, ``(..., memories, model_dim)``; the memory if None.
            mask: ``(..., memories)``, True where a memory may be retrieved.

        Returns:
            ``(..., queries, model_dim)``.
        """
        memory = query if memory is None else memory
        values = memory if values is None else values
        retrieved = retrieve(
            *map(self._split_heads, self._projected(query, memory, values)),
            alpha=self.alpha,
            no_op=self.separation.no_op,
            clip=self.separation.clip,
            mask=mask,
            gate=None if self.gate_proj is None else self.gate_proj(query).transpose(-1, -2),
            dropout=self.dropout if self.training else 0.0,
            num_updates=self.num_updates,
        )  # (..., heads, queries, head_dim)
        retrieved = retrieved.transpose(-2, -3)  # (..., queries, heads, head_dim)
        projected: Tensor = self.output_proj(retrieved.flatten(-2))  # (..., queries, model_dim)
        return projected

    @torch.no_grad()
    def scale_output(self, factor: Tensor) -> None:
        """Have all that it retrieves be ``factor``, a scalar, times as large."""
        self.output_proj.weight.mul_(factor)
        self.output_proj.bias.mul_(factor)

    def retrieval_weights(self, query: Tensor, memory: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """How much of each memory ``forward`` reads out, ``(..., heads, queries, memories)``, before gate and dropout.

        The arguments are those of ``forward``.
        """
        memory = query if memory is None else memory
        return retrieval_weights(
            self._split_heads(self.query_proj(query)),
            self._split_heads(self.memory_proj(memory)),
            alpha=self.alpha,
            no_op=self.separation.no_op,
            clip=self.separation.clip,
            mask=mask,
            num_updates=self.num_updates,
        )

    def _projected(self, query: Tensor, memory: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Query, memory and values by their projections: by one product where all three are the same patterns.

        One product pays on a GPU, where each costs a launch, and only in training, where weights stay as they are: what
        quantises or observes a projection meets the module itself. On a CPU three products are faster.
        """
        projections = (self.query_proj, self.memory_proj, self.values_proj)
        if query is memory is values and self.training and _pays_to_fuse(query):
            weight = torch.cat([each.weight for each in projections])  # (3 * model_dim, model_dim)
            bias = torch.cat([each.bias for each in projections])
            return functional.linear(query, weight, bias).chunk(3, dim=-1)
        return self.query_proj(query), self.memory_proj(memory), self.values_proj(values)

    def _split_heads(self, patterns: Tensor) -> Tensor:
        """``(..., length, model_dim)`` as ``(..., heads, length, head_dim)``."""
        heads: Tensor = patterns.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
        return heads


def _pays_to_fuse(patterns: Tensor) -> bool:
    return patterns.is_cuda


class HopfieldPooling(nn.Module):
    """Summarise a memory by what learned queries retrieve from it.

    The queries start as standard normal, the scale of a layer-normalised token.

    Args:
        model_dim: Features of memory and output.
        num_heads: Parallel retrievals; must divide ``model_dim``.
        num_queries: Rows of the summary.
        separation: This, ``gate``, ``dropout`` and ``num_updates`` are ``Hopfield``'s.
        gate: See ``Hopfield``.
        dropout: See ``Hopfield``.
        num_updates: See ``Hopfield``.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        num_queries: int,
        separation: Separation,
        gate: bool = False,
        dropout: float = 0.0,
        num_updates: int = 1,
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(num_queries, model_dim))
        self.hopfield = Hopfield(
            model_dim, num_heads, separation=separation, gate=gate, dropout=dropout, num_updates=num_updates
        )

    def forward(self, memory: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Map ``(..., memories, model_dim)`` to ``(..., num_queries, model_dim)``.

        ``mask`` is ``(..., memories)``, True where a memory may be retrieved.
        """
        summary: Tensor = self.hopfield(self.query, memory, mask=mask)
        return summary


class HopfieldLayer(nn.Module):
    """Answer each query from learned memories, each with a learned value.

    Both start as standard normal, the scale of a layer-normalised token; the published code leaves its memories as
    the allocator found them.

    Args:
        model_dim: Features of query, memories and output.
        num_heads: Parallel retrievals; must divide ``model_dim``.
        num_memories: Learned memories.
        separation: This, ``gate``, ``dropout`` and ``num_updates`` are ``Hopfield``'s.
        gate: See ``Hopfield``.
        dropout: See ``Hopfield``.
        num_updates: See ``Hopfield``.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        num_memories: int,
        separation: Separation,
        gate: bool = False,
        dropout: float = 0.0,
        num_updates: int = 1,
    ) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(num_memories, model_dim))
        self.values = nn.Parameter(torch.randn(num_memories, model_dim))
        self.hopfield = Hopfield(
            model_dim, num_heads, separation=separation, gate=gate, dropout=dropout, num_updates=num_updates
        )

    def forward(self, query: Tensor) -> Tensor:
        """Map ``(..., queries, model_dim)`` to the same shape."""
        retrieved: Tensor = self.hopfield(query, self.memory, values=self.values)
        return retrieved
