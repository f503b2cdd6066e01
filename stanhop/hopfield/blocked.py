"""Retrieval at alpha = 1 on a CPU, some batch entries at a time: no array of all queries by all memories is stored.

The scores of a block stay in a cache while they become weights and are read out, and their memory serves the next block
too, instead of being fetched anew. The backward pass computes the
weights anew from the log-sum-exp of each query, in which the no-op memory has its 1:

    log_sum = log(1 + sum(exp(scores)))         weights = exp(scores - log_sum)       (without no-op: no 1)
    delta = sum(retrieved * dretrieved)         dscores = weights * (dretrieved @ values.T - delta)

Source: Softmax_1, Hu et al. 2024, arXiv:2404.03828; weights computed anew in the backward pass, Dao et al. 2022,
arXiv:2205.14135.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BLOCK_SIZE = 2**19
"""Numbers that a block may touch: 2 MB of float32, the second-level cache of one core, more or less."""

PAYS_FROM = 32
"""Memories from which blocks are taken, provisionally: in `stanhop bench kernels --shapes lengths`, whose tensors are
contiguous, separate steps are ahead; in training steps timed by hand, blocks were with 60 patches, and not with 14."""


def suits(query: Tensor, memory: Tensor, values: Tensor, *, alpha: float | Tensor) -> bool:
    """Whether ``read_out`` can serve these tensors, of which one batch entry must fit into a block, and is worth it."""
    if memory.shape[-2] < PAYS_FROM:
        return False
    is_full = all(each.dtype in (torch.float32, torch.float64) for each in (query, memory, values))
    is_softmax = not isinstance(alpha, Tensor) and alpha == 1
    is_here = query.device.type == "cpu" and not torch.compiler.is_compiling()  # a compiler finds blocks of its own
    return is_softmax and is_full and is_here and _entry_size(query, memory, values) <= BLOCK_SIZE


def read_out(query: Tensor, memory: Tensor, values: Tensor, *, no_op: bool, beta: float) -> Tensor:
    """``retrieve`` at alpha = 1 on a CPU, without mask, clipping and dropout; second derivatives are refused.

    Args:
        query: ``(..., heads, queries, head_dim)``; the leading batch axes broadcast.
        memory: ``(..., heads, memories, head_dim)``.
        values: ``(..., heads, memories, values_dim)``.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature.

    Returns:
        ``(..., heads, queries, values_dim)``.
    """
    # NumPy's, since torch's own loads a computer algebra system at its first call.
    batch = np.broadcast_shapes(query.shape[:-2], memory.shape[:-2], values.shape[:-2])
    query, memory, values = (
        patterns.expand(*batch, *patterns.shape[-2:]).reshape(-1, *batch[-1:], *patterns.shape[-2:])
        for patterns in (query, memory, values)
    )  # (batch, heads, length, features)
    retrieved: Tensor = _ReadOut.apply(query, memory, values, no_op, beta)  # type: ignore[no-untyped-call]  # torch's
    return retrieved.reshape(*batch, *retrieved.shape[-2:])


class _ReadOut(Function):
    """Retrieval over (batch, heads, length, features); within a block, over (pairs, length, features)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor, no_op: bool, beta: float) -> Tensor:
        retrieved = query.new_empty(*query.shape[:3], values.shape[3])
        log_sums = query.new_empty(*query.shape[:3], 1)
        room = _room(query, memory, values)
        for block in _blocks(query, memory, values):
            block_query, block_memory, block_values = (_pairs(each[block]) for each in (query, memory, values))
            weights = _product(block_query, block_memory.transpose(1, 2), room, scale=beta)
            pivot = weights.amax(dim=-1, keepdim=True)
            # The no-op memory scores 0 and takes part in the maximum, or exp(-pivot) would overflow below -88. Without
            # it a row of -inf, which only a mask could make, does not come here.
            pivot = pivot.clamp_(min=0.0) if no_op else pivot
            total = weights.sub_(pivot).exp_().sum(dim=-1, keepdim=True)
            total = total.add_((-pivot).exp_()) if no_op else total
            torch.bmm(weights, block_values, out=_pairs(retrieved[block])).div_(total)
            torch.add(pivot, total.log_(), out=_pairs(log_sums[block]))
        ctx.save_for_backward(query, memory, values, retrieved, log_sums)
        ctx.beta = beta
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, memory, values, *others = ctx.saved_tensors
        gradients = tuple(each.new_empty(each.shape) for each in (query, memory, values))
        room, room_for_grad = _room(query, memory, values), _room(query, memory, values)
        for block in _blocks(query, memory, values):
            q, k, v, out, log_sum, out_grad = (
                _pairs(each[block]) for each in (query, memory, values, *others, retrieved_grad)
            )
            query_grad, memory_grad, values_grad = (_pairs(each[block]) for each in gradients)
            weights = _product(q, k.transpose(1, 2), room, scale=ctx.beta).sub_(log_sum).exp_()
            delta = (out_grad * out).sum(dim=-1, keepdim=True)
            scores_grad = _product(out_grad, v.transpose(1, 2), room_for_grad).sub_(delta).mul_(weights)
            torch.baddbmm(query_grad, scores_grad, k, beta=0, alpha=ctx.beta, out=query_grad)
            torch.baddbmm(memory_grad, scores_grad.transpose(1, 2), q, beta=0, alpha=ctx.beta, out=memory_grad)
            torch.bmm(weights.transpose(1, 2), out_grad, out=values_grad)
        return *gradients, None, None


def _entry_size(query: Tensor, memory: Tensor, values: Tensor) -> int:
    """Numbers that one batch entry touches: scores, their gradient, patterns and theirs."""
    heads, num_queries, head_dim = query.shape[-3:]
    num_memories, values_dim = memory.shape[-2], values.shape[-1]
    return 2 * heads * (num_queries * num_memories + (num_queries + num_memories) * max(head_dim, values_dim))


def _entries(query: Tensor, memory: Tensor, values: Tensor) -> int:
    """Batch entries of a block."""
    return max(1, min(len(query), BLOCK_SIZE // _entry_size(query, memory, values)))


def _blocks(query: Tensor, memory: Tensor, values: Tensor) -> Iterator[slice]:
    """The batch, block by block."""
    entries = _entries(query, memory, values)
    return (slice(first, first + entries) for first in range(0, len(query), entries))


def _room(query: Tensor, memory: Tensor, values: Tensor) -> Tensor:
    """Memory for the scores of one block, (pairs, queries, memories)."""
    num_pairs = _entries(query, memory, values) * query.shape[1]
    return query.new_empty(num_pairs, query.shape[2], memory.shape[2])


def _pairs(patterns: Tensor) -> Tensor:
    """(batch, heads, ...) as (pairs, ...), a pair being a head of a batch entry; a view where strides allow it."""
    return patterns.reshape(-1, *patterns.shape[2:])


def _product(left: Tensor, right: Tensor, room: Tensor, *, scale: float = 1.0) -> Tensor:
    """``scale * left @ right``, written into ``room``."""
    product = room[: len(left)]
    return torch.baddbmm(product, left, right, beta=0, alpha=scale, out=product)
