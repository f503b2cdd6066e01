"""A Hopfield layer taken apart: the same mathematics step by step, so that each tensor of a retrieval can be reached.

The layers retrieve in one call, which may be a fused kernel. Simulated rounding needs the scores and the weights in
between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.layers import Hopfield
from stanhop.hopfield.separation import separate
from stanhop.model.published_layers import PublishedHopfield

OnStep = Callable[[str, Tensor], Tensor]
"""Is given the name of what a retrieval makes and the tensor, and returns what goes on instead. The names are
``scores``, ``weights``, ``retrieved`` and ``gated``; ``update_1.``, … stands in front in all updates but the last."""


class SteppedHopfield(nn.Module):
    """``Hopfield``, in evaluation mode and without a mask, as plain steps.

    Args:
        hopfield: The layer; its modules are shared.
        on_step: Is given each tensor of a retrieval and returns what goes on instead.
    """

    _learned_alpha: Tensor

    def __init__(self, hopfield: Hopfield, *, on_step: OnStep | None = None) -> None:
        super().__init__()
        self.num_heads = hopfield.num_heads
        self.separation = hopfield.separation
        self.num_updates = hopfield.num_updates
        self.query_proj = hopfield.query_proj
        self.memory_proj = hopfield.memory_proj
        self.values_proj = hopfield.values_proj
        self.output_proj = hopfield.output_proj
        self.gate_proj = hopfield.gate_proj
        alpha = hopfield.alpha
        self.register_buffer("_learned_alpha", alpha[:, None, None] if isinstance(alpha, Tensor) else None)
        self._on_step: OnStep = on_step or (lambda _name, tensor: tensor)

    def forward(self, query: Tensor, memory: Tensor | None = None, *, values: Tensor | None = None) -> Tensor:
        """As ``Hopfield.forward``: ``(..., queries, model_dim)`` to its shape."""
        memory = query if memory is None else memory
        values = memory if values is None else values
        state = self._split_heads(self.query_proj(query))  # (..., heads, queries, head_dim)
        stored = self._split_heads(self.memory_proj(memory))
        answers = self._split_heads(self.values_proj(values))
        for number in range(1, self.num_updates):
            state = self._read_out(state, stored, stored, prefix=f"update_{number}.")
        retrieved = self._read_out(state, stored, answers).transpose(-2, -3)  # (..., queries, heads, head_dim)
        if self.gate_proj is not None:
            retrieved = self._on_step("gated", retrieved * self.gate_proj(query).sigmoid().unsqueeze(-1))
        projected: Tensor = self.output_proj(retrieved.flatten(-2))
        return projected

    def _read_out(self, state: Tensor, memory: Tensor, values: Tensor, *, prefix: str = "") -> Tensor:
        beta = state.shape[-1] ** -0.5
        scores = self._on_step(f"{prefix}scores", (state * beta) @ memory.transpose(-1, -2))
        alpha = self._learned_alpha if self.separation.alpha is None else self.separation.alpha
        weights = fast_separate(scores, alpha=alpha, no_op=self.separation.no_op, clip=self.separation.clip)
        return self._on_step(f"{prefix}retrieved", self._on_step(f"{prefix}weights", weights) @ values)

    def _split_heads(self, patterns: Tensor) -> Tensor:
        heads: Tensor = patterns.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
        return heads


class SteppedPublishedHopfield(nn.Module):
    """``PublishedHopfield`` in evaluation mode as plain steps, quirks included.

    Args:
        hopfield: The layer; it is kept.
        on_step: As in ``SteppedHopfield``; there is no gate.
    """

    def __init__(self, hopfield: PublishedHopfield, *, on_step: OnStep | None = None) -> None:
        super().__init__()
        self.query_proj = hopfield.query_proj
        self.memory_proj = hopfield.memory_proj
        self.values_proj = hopfield.values_proj
        self.output_proj = hopfield.output_proj
        self._published = (hopfield,)  # a tuple, so that its modules are not found twice
        self._on_step: OnStep = on_step or (lambda _name, tensor: tensor)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """As ``PublishedHopfield.forward``."""
        (hopfield,) = self._published
        projected = self.memory_proj(memory)
        state, stored, answers = map(
            hopfield.split_heads, (self.query_proj(query), projected, self.values_proj(projected))
        )
        scores = self._on_step("scores", (state * state.shape[-1] ** -0.5) @ stored.transpose(-1, -2))
        alpha = hopfield.alpha[:, None, None] if isinstance(hopfield.alpha, Tensor) else hopfield.alpha
        separation = separate if hopfield.method == "definition" else fast_separate
        clip = hopfield.clip(num_memories=memory.shape[-2])
        weights = separation(scores, alpha=alpha, no_op=hopfield.config.separation.no_op, clip=clip)
        retrieved = self._on_step("retrieved", self._on_step("weights", weights) @ answers)
        output: Tensor = self.output_proj(retrieved.reshape(*query.shape[:-1], -1))  # heads not transposed back
        return output


def stepped(hopfield: Hopfield | PublishedHopfield, *, on_step: OnStep | None = None) -> nn.Module:
    """The layer as plain steps."""
    if isinstance(hopfield, PublishedHopfield):
        return SteppedPublishedHopfield(hopfield, on_step=on_step)
    return SteppedHopfield(hopfield, on_step=on_step)


def hopfields_in(network: nn.Module) -> Iterator[tuple[str, Hopfield | PublishedHopfield]]:
    """Every Hopfield layer of ``network`` by its dotted name."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Hopfield | PublishedHopfield):
            yield name, module
