"""Allocate and launch: the kernels as plain functions of tensors, forward and backward, without autograd."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from stanhop.kernels.looped import looped_backward_memories, looped_backward_queries, looped_forward
from stanhop.kernels.plan import Plan, Shape, backward_plan, forward_plan, memories_plan, num_chunks
from stanhop.kernels.resident import resident_backward, resident_forward

COMPILER_OPTIONS = {"enable_fp_fusion": True}
"""Pinned, since Triton's default changes with its version; the weights' accuracy was measured with fused products."""


@dataclass(frozen=True)
class Rule:
    """How to retrieve: all but the tensors.

    Args:
        kind: ``softmax``, ``entmax15``, ``sparsemax``, or ``entmax`` with an alpha a head.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature.
        clip: ``(zeta, eta)``: weights are stretched to [-zeta / memories that count, eta] and clipped to [0, 1].
        dropout: Share of the weights dropped.
    """

    kind: str
    no_op: bool
    beta: float
    clip: tuple[float, float] | None
    dropout: float

    @property
    def is_plain_softmax(self) -> bool:
        """Whether one pass over looped memories suffices."""
        return self.kind == "softmax" and self.clip is None


@dataclass(frozen=True)
class Tensors:
    """What a kernel reads.

    Args:
        query: (batch, heads, queries, head_dim).
        memory: (batch, heads, memories, head_dim).
        values: (batch, heads, memories, values_dim).
        alpha: (heads,), or None.
        mask: (batch, memories), or None.
        gate: (batch, heads, queries), or None.
        seed: (1,), int64, or None.
    """

    query: Tensor
    memory: Tensor
    values: Tensor
    alpha: Tensor | None
    mask: Tensor | None
    gate: Tensor | None
    seed: Tensor | None


@dataclass(frozen=True)
class Gradients:
    """Gradients of what a kernel reads, None where there was nothing to differentiate by."""

    query: Tensor
    memory: Tensor
    values: Tensor
    alpha: Tensor | None
    gate: Tensor | None


def output_like(query: Tensor, values: Tensor) -> Tensor:
    """An uninitialised (batch, heads, queries, values_dim), the heads of a query side by side, ready to be joined."""
    batch, heads, num_queries, _ = query.shape
    return query.new_empty(batch, num_queries, heads, values.shape[-1]).transpose(1, 2)


def statistics_like(query: Tensor) -> Tensor:
    """An uninitialised float32 (2, batch, heads, queries): pivot and threshold of each query."""
    return query.new_empty(2, *query.shape[:3], dtype=torch.float32)


def gradient_like(patterns: Tensor) -> Tensor:
    """An uninitialised gradient of ``patterns``, with all its entries even where ``patterns`` is expanded."""
    return torch.empty(patterns.shape, dtype=patterns.dtype, device=patterns.device)


def launch_forward(tensors: Tensors, rule: Rule) -> tuple[Tensor, Tensor]:
    """The read-out (batch, heads, queries, values_dim), and pivot and threshold of each query."""
    query, values = tensors.query, tensors.values
    plan = forward_plan(_shape(tensors, rule))
    retrieved, statistics = output_like(query, values), statistics_like(query)
    num_blocks = triton.cdiv(query.shape[2], plan.query_block)
    num_pairs = query.shape[0] * query.shape[1]
    if num_pairs * num_blocks == 0:
        return retrieved, statistics
    written = (retrieved, _strides(retrieved), statistics[0], statistics[1])
    if plan.is_resident:
        chunks = num_chunks(num_pairs, num_blocks)
        resident_forward[(num_pairs * chunks,)](
            *_read(tensors), *written, *_sizes(tensors), chunks, triton.cdiv(num_blocks, chunks),
            *_numbers(rule), **_constants(tensors, rule, plan),
        )  # fmt: skip
    else:
        looped_forward[(num_pairs * num_blocks,)](
            *_read(tensors), *written, *_sizes(tensors), num_blocks,
            *_numbers(rule), **_constants(tensors, rule, plan),
        )  # fmt: skip
    return retrieved, statistics


def launch_backward(
    tensors: Tensors, rule: Rule, retrieved: Tensor | None, retrieved_grad: Tensor, statistics: Tensor, *,
    learns_alpha: bool,
) -> Gradients:  # fmt: skip
    """Gradients, given that of the read-out; ``retrieved`` is needed where ``needs_retrieved`` says so."""
    if tensors.query.shape[:3].numel() == 0:
        return _no_gradients(tensors, learns_alpha=learns_alpha)
    plan = backward_plan(_shape(tensors, rule))
    launch = _launch_resident_backward if plan.is_resident else _launch_looped_backward
    retrieved = tensors.query if retrieved is None else retrieved  # not read then
    shares = launch(
        tensors, rule, plan, retrieved, with_dense_features(retrieved_grad), statistics, learns_alpha=learns_alpha
    )
    return Gradients(
        query=shares.query,
        memory=_sum_of_shares(shares.memory, tensors.memory.dtype),
        values=_sum_of_shares(shares.values, tensors.values.dtype),
        alpha=None if shares.alpha is None else shares.alpha.sum(dim=(1, 2)),
        gate=None if shares.gate is None else shares.gate.to(tensors.query.dtype),
    )


def _launch_resident_backward(
    tensors: Tensors, rule: Rule, plan: Plan, _: Tensor, retrieved_grad: Tensor, statistics: Tensor, *,
    learns_alpha: bool,
) -> Gradients:  # fmt: skip
    """Gradients, those of memory, values and alpha in shares of each chunk of queries."""
    num_pairs = tensors.query.shape[0] * tensors.query.shape[1]
    num_blocks = triton.cdiv(tensors.query.shape[2], plan.query_block)
    chunks = num_chunks(num_pairs, num_blocks)
    to = _room_for_gradients(tensors, memory_chunks=chunks, alpha_chunks=chunks if learns_alpha else 0)
    resident_backward[(num_pairs * chunks,)](
        *_read(tensors), retrieved_grad, _strides(retrieved_grad), *statistics,
        to.query, _strides(to.query), to.memory, _share_strides(to.memory), to.values, _share_strides(to.values),
        to.gate, to.alpha,
        *_sizes(tensors), chunks, triton.cdiv(num_blocks, chunks), len(tensors.query), *_numbers(rule),
        LEARNS_ALPHA=learns_alpha, ONE_BLOCK=num_blocks <= chunks, **_constants(tensors, rule, plan),
    )  # fmt: skip
    return to


def _launch_looped_backward(
    tensors: Tensors, rule: Rule, plan: Plan, retrieved: Tensor, retrieved_grad: Tensor, statistics: Tensor, *,
    learns_alpha: bool,
) -> Gradients:  # fmt: skip
    """As the resident one, in two launches: by blocks of queries, then by blocks of memories."""
    by_memories = memories_plan(_shape(tensors, rule))
    num_pairs = tensors.query.shape[0] * tensors.query.shape[1]
    num_blocks = triton.cdiv(tensors.query.shape[2], plan.query_block)
    memory_blocks = triton.cdiv(tensors.memory.shape[2], by_memories.memory_block)
    looped_blocks = triton.cdiv(tensors.query.shape[2], by_memories.query_block)
    chunks = num_chunks(num_pairs * memory_blocks, looped_blocks)
    to = _room_for_gradients(tensors, memory_chunks=chunks, alpha_chunks=num_blocks if learns_alpha else 0)
    deltas = torch.empty_like(statistics[0])
    looped_backward_queries[(num_pairs * num_blocks,)](
        *_read(tensors), retrieved, _strides(retrieved), retrieved_grad, _strides(retrieved_grad), *statistics,
        to.query, _strides(to.query), to.gate, to.alpha, deltas,
        *_sizes(tensors), num_blocks, len(tensors.query), *_numbers(rule),
        LEARNS_ALPHA=learns_alpha, **_constants(tensors, rule, plan),
    )  # fmt: skip
    looped_backward_memories[(num_pairs * memory_blocks * chunks,)](
        *_read(tensors), retrieved_grad, _strides(retrieved_grad), *statistics, deltas,
        to.memory, _share_strides(to.memory), to.values, _share_strides(to.values),
        *_sizes(tensors), memory_blocks, chunks, triton.cdiv(looped_blocks, chunks), *_numbers(rule),
        **_constants(tensors, rule, by_memories),
    )  # fmt: skip
    return to


def needs_retrieved(tensors: Tensors, rule: Rule) -> bool:
    """Whether the backward pass reads the read-out again."""
    return rule.is_plain_softmax and not backward_plan(_shape(tensors, rule)).is_resident


def with_dense_features(patterns: Tensor) -> Tensor:
    """``patterns`` with the features of a row side by side, copied if they are not."""
    return patterns if patterns.stride(-1) == 1 else patterns.contiguous()


def _shape(tensors: Tensors, rule: Rule) -> Shape:
    query, memory, values = tensors.query, tensors.memory, tensors.values
    return Shape(
        query.shape[2], memory.shape[2], query.shape[3], values.shape[3], query.element_size(),
        is_softmax=rule.kind == "softmax",
        is_bare=_is_bare(tensors, rule),
        is_before_9=capability_of(query.device) < (9, 0),
    )  # fmt: skip


def _is_bare(tensors: Tensors, rule: Rule) -> bool:
    return tensors.mask is None and tensors.gate is None and rule.clip is None and rule.dropout == 0


@functools.cache
def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU; of what is none, that which the tables were made for."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


def _read(tensors: Tensors) -> tuple[Any, ...]:
    """What every kernel reads, in the order of its arguments."""
    patterns = [(each, _strides(each)) for each in (tensors.query, tensors.memory, tensors.values)]
    mask = (tensors.mask, (0, 0) if tensors.mask is None else tensors.mask.stride())
    gate = (tensors.gate, (0, 0, 0) if tensors.gate is None else tensors.gate.stride())
    return (*patterns[0], *patterns[1], *patterns[2], tensors.alpha, *mask, *gate, tensors.seed)


def _sizes(tensors: Tensors) -> tuple[int, int, int]:
    return tensors.query.shape[1], tensors.query.shape[2], tensors.memory.shape[2]


def _numbers(rule: Rule) -> tuple[float, float, float, float]:
    zeta, eta = rule.clip or (0.0, 1.0)
    return rule.beta, zeta, eta, rule.dropout


def _constants(tensors: Tensors, rule: Rule, plan: Plan) -> dict[str, Any]:
    """What a kernel is specialised on."""
    on_device = tensors.query.is_cuda
    return {
        "KIND": rule.kind,
        "NO_OP": rule.no_op,
        "CLIP": rule.clip is not None,
        "MASKED": tensors.mask is not None,
        "GATED": tensors.gate is not None,
        "DROPOUT": rule.dropout > 0,
        "HEAD_DIM": tensors.query.shape[3],
        "VALUES_DIM": tensors.values.shape[3],
        "HEAD_BLOCK": plan.head_block,
        "VALUES_BLOCK": plan.values_block,
        "QUERY_BLOCK": plan.query_block,
        "MEMORY_BLOCK": plan.memory_block,
        "PRECISION": _precision(tensors.query),
        "ACCURACY": "half" if tensors.query.element_size() == 2 else "exact",
        "ON_DEVICE": on_device,
        "num_warps": plan.num_warps,
        "num_stages": plan.num_stages,
        **COMPILER_OPTIONS,
    }


def _precision(query: Tensor) -> str:
    """How float32 products are taken: in three passes of TF32, or one if torch's own may be."""
    if not query.is_cuda:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def _strides(patterns: Tensor) -> tuple[int, int, int]:
    batch, head, row, _ = patterns.stride()
    return batch, head, row


def _shares(patterns: Tensor, chunks: int) -> Tensor:
    """Room for each chunk's share of a gradient, (chunks, batch, heads, length, features)."""
    dtype = patterns.dtype if chunks == 1 else torch.float32
    return torch.empty(chunks, *patterns.shape, dtype=dtype, device=patterns.device)


def _share_strides(shares: Tensor) -> tuple[int, int, int, int]:
    chunk, batch, head, row, _ = shares.stride()
    return batch, head, row, chunk


def _sum_of_shares(shares: Tensor, dtype: torch.dtype) -> Tensor:
    return shares[0] if len(shares) == 1 else shares.sum(dim=0).to(dtype)


def _room_for_gradients(tensors: Tensors, *, memory_chunks: int, alpha_chunks: int) -> Gradients:
    """Uninitialised gradients: of memory and values (chunks, batch, heads, ...), of the gate in float32.

    And of alpha (heads, chunks, batch), the shares of a head side by side, where they are summed fastest.
    """
    batch, heads, num_queries, _ = tensors.query.shape
    exact = functools.partial(torch.empty, dtype=torch.float32, device=tensors.query.device)
    return Gradients(
        query=gradient_like(tensors.query),
        memory=_shares(tensors.memory, memory_chunks),
        values=_shares(tensors.values, memory_chunks),
        alpha=exact(heads, alpha_chunks, batch) if alpha_chunks else None,
        gate=None if tensors.gate is None else exact(batch, heads, num_queries),
    )


def _no_gradients(tensors: Tensors, *, learns_alpha: bool) -> Gradients:
    alpha, gate = tensors.alpha, tensors.gate
    return Gradients(
        query=torch.zeros_like(tensors.query),
        memory=torch.zeros_like(tensors.memory),
        values=torch.zeros_like(tensors.values),
        alpha=torch.zeros(alpha.shape, device=alpha.device) if learns_alpha and alpha is not None else None,
        gate=None if gate is None else torch.zeros_like(gate),
    )
