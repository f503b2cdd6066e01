"""Softmax and Softmax_1 on a CPU in few passes over the weights, and retrieval by them.

Exponentials need no shift by the largest score of their row as long as their sums are far from overflow and underflow,
and the sums themselves tell whether they are:

    weights = exp(scores) * share      share = 1 / (1 + sum(exp(scores)))      (without no-op: no 1)

They are powers of 2, which torch computes faster than those of e, and the product that makes the scores multiplies
them by log2(e) at no cost. Where a share is out of range the weights are computed again, from shifted scores. torch's
own backward pass of softmax serves Softmax_1 too, because the no-op memory, whose value is 0, has no part in the sum:

    dscores = weights * (dweights - sum(weights * dweights))

Heads lie beside one another in what projections make. Large ones are multiplied where they lie, one after another, so
that what is made of a head is used while it is in a cache, and no head is copied.

Source: Softmax_1, Hu et al. 2024, arXiv:2404.03828. Exponentials that are shifted only if need be are ours.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LOG2_E = math.log2(math.e)
"""Turns exponents of e into those of 2, whose powers torch computes faster, above all where results are subnormal."""

LARGEST_TOTAL = 2.0**60
"""Totals up to here, and down to its inverse, are trusted. Scores are then below 42, so that neither exponentials nor
gradients divided by a total come near the ends of float32."""

SHORTEST_VENDOR_ROW = 16
"""Weights a row from which torch's backward pass of softmax is taken: where rows are shorter than a vector of the
processor it computes one weight at a time."""

SHORTEST_SUM = 64
"""Weights a row from which torch sums them itself; shorter rows are multiplied by a column of ones."""

SMALLEST_HEAD = 896
"""Numbers of one head in one batch entry from which heads are multiplied where they lie; products of smaller ones are
faster on a copy that puts them side by side: see `stanhop bench kernels --shapes lengths`."""

FEWEST_WEIGHTS = 2**14
"""Weights of a head over the batch from which going head by head is worth its calls."""


def suits(query: Tensor, memory: Tensor, values: Tensor, *, alpha: float | Tensor) -> bool:
    """Whether ``read_out`` can serve these tensors."""
    is_full = all(each.dtype in (torch.float32, torch.float64) for each in (query, memory, values))
    is_softmax = not isinstance(alpha, Tensor) and alpha == 1
    return is_softmax and is_full and query.device.type == "cpu" and not torch.compiler.is_compiling()


def softmax(scores: Tensor, *, no_op: bool) -> Tensor:
    """Softmax or, with ``no_op``, Softmax_1 over the last axis of ``scores`` (..., memories).

    A row that is -inf throughout has weights 0. Second derivatives are refused.
    """
    weights: Tensor = _Softmax.apply(scores, no_op)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return weights


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
    heads = tuple(query.shape[:-2])
    if not heads == memory.shape[:-2] == values.shape[:-2]:
        # NumPy's, since torch's own loads a computer algebra system at its first call.
        heads = np.broadcast_shapes(heads, memory.shape[:-2], values.shape[:-2])
        query, memory, values = (each.expand(*heads, *each.shape[-2:]) for each in (query, memory, values))
    if len(heads) != 2:  # as (batch, heads, length, features)
        query, memory, values = (each.reshape(-1, *each.shape[-3:]) for each in (query, memory, values))
    is_learning = torch.is_grad_enabled() and any(each.requires_grad for each in (query, memory, values))
    retrieved: Tensor = _ReadOut.apply(query, memory, values, no_op, beta, is_learning)  # type: ignore[no-untyped-call]  # torch's
    return retrieved if len(heads) == 2 else retrieved.view(*heads, *retrieved.shape[-2:])


class _ReadOut(Function):
    """Retrieval over (batch, heads, length, features)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, memory: Tensor, values: Tensor, no_op: bool, beta: float, is_learning: bool
    ) -> Tensor:
        rows, num_memories, values_dim = query.shape[:3], *values.shape[2:]
        by_head = _pays_by_head(query, values)
        retrieved = _empty(query, (*rows, values_dim), by_head=by_head)
        shares = _empty(query, (*rows, 1), by_head=by_head)
        # Where nothing is learned all heads use the same memory.
        num_kept = 1 if by_head and not is_learning else rows[1]
        weights = _empty(query, (rows[0], num_kept, rows[2], num_memories), by_head=by_head)
        query, memory, values, weights, shares, out = (
            _laid_out(each, by_head=by_head) for each in (query, memory, values, weights, shares, retrieved)
        )
        every_weights = _parts(weights) if is_learning else itertools.repeat(_parts(weights)[0])
        divides_weights = is_learning or num_memories < values_dim  # else what is read out, which is smaller
        for exponentiate, unit in ((_exponentiate, LOG2_E), (_exponentiate_shifted, 1.0)):
            every_part = map(_parts, (query, memory, values, shares, out))
            for q, m, v, share, o, w in zip(*every_part, every_weights, strict=False):
                exponentiate(_product(q, m.transpose(1, 2), scale=beta * unit, out=w), no_op=no_op, out=w, share=share)
                if divides_weights:
                    torch.bmm(w.mul_(share), v, out=o)
                else:
                    torch.bmm(w, v, out=o).mul_(share)
            if _are_near_1(shares):
                break
        if is_learning:
            ctx.save_for_backward(query, memory, values, weights)
        ctx.by_head, ctx.beta = by_head, beta
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor | None, ...]:
        query, memory, values, weights = ctx.saved_tensors
        batch_and_heads = retrieved_grad.shape[:2]
        gradients = [
            _empty(each, (*batch_and_heads, *each.shape[-2:]), by_head=ctx.by_head) for each in (query, memory, values)
        ]
        laid_out = [_laid_out(each, by_head=ctx.by_head) for each in (retrieved_grad, *gradients)]
        every_part = map(_parts, (query, memory, values, weights, *laid_out))
        scratch = torch.empty_like(_parts(weights)[0])
        for q, m, v, w, grad, query_grad, memory_grad, values_grad in zip(*every_part, strict=True):
            scores_grad = _scores_grad_(torch.bmm(grad, v.transpose(1, 2), out=scratch), w)
            torch.bmm(w.transpose(1, 2), grad, out=values_grad)
            _product(scores_grad, m, scale=ctx.beta, out=query_grad)
            _product(scores_grad.transpose(1, 2), q, scale=ctx.beta, out=memory_grad)
        return *gradients, None, None, None


def _pays_by_head(query: Tensor, values: Tensor) -> bool:
    """Whether the heads of these (batch, heads, length, features) are large enough to be taken one by one."""
    (batch, _, num_queries, head_dim), (num_memories, values_dim) = query.shape, values.shape[2:]
    size = min(num_queries, num_memories) * min(head_dim, values_dim)
    return size >= SMALLEST_HEAD and batch * num_queries * num_memories >= FEWEST_WEIGHTS


def _laid_out(patterns: Tensor, *, by_head: bool) -> Tensor:
    """``(batch, heads, length, features)`` as it lies, or side by side as ``(batch * heads, length, features)``."""
    if not by_head:
        return patterns.reshape(-1, *patterns.shape[2:])
    return patterns if patterns.stride(-1) == 1 else patterns.contiguous()  # a sum's gradient is one number for all


def _empty(like: Tensor, shape: tuple[int, ...], *, by_head: bool) -> Tensor:
    """Memory for ``shape``, (batch, heads, length, features), each part of which is contiguous."""
    batch, heads, length, features = shape
    entry = length * features
    strides = (entry, batch * entry) if by_head else (heads * entry, entry)
    return like.new_empty_strided(shape, (*strides, features, 1))


def _parts(laid_out: Tensor) -> tuple[Tensor, ...]:
    """What is computed at a time, (pairs, length, features): a head, or all that lies side by side."""
    return laid_out.unbind(1) if laid_out.dim() == 4 else (laid_out,)


class _Softmax(Function):
    """``softmax``."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, no_op: bool) -> Tensor:
        weights, share = scores.new_empty(scores.shape), scores.new_empty(*scores.shape[:-1], 1)
        is_near = False
        if not torch.compiler.is_compiling():  # while torch compiles, nothing can look at shares
            _exponentiate(torch.mul(scores, LOG2_E, out=weights), no_op=no_op, out=weights, share=share)
            is_near = _are_near_1(share)
        if not is_near:
            _exponentiate_shifted(scores, no_op=no_op, out=weights, share=share)
        weights.mul_(share)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_grad: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        return _scores_grad_(weights_grad.clone(), weights), None


def _exponentiate(scores: Tensor, *, no_op: bool, out: Tensor, share: Tensor) -> None:
    """Write powers of 2 to ``out``, which may be ``scores``, and to ``share`` what each row is to be multiplied by."""
    torch.exp2(scores, out=out)
    if out.shape[-1] < SHORTEST_SUM:  # torch sums short rows slowly
        torch.mm(out.view(-1, out.shape[-1]), out.new_ones(out.shape[-1], 1), out=share.view(-1, 1))
    else:
        torch.sum(out, dim=-1, keepdim=True, out=share)
    if no_op:
        share.add_(1.0)
    share.reciprocal_()


def _exponentiate_shifted(scores: Tensor, *, no_op: bool, out: Tensor, share: Tensor) -> None:
    """The same with powers of e, exact for scores of any level."""
    pivot = scores.amax(dim=-1, keepdim=True)
    # The no-op memory scores 0 and takes part in the maximum, or exp(-pivot) would overflow below -88. Without it,
    # a row that is all masked has the maximum -inf, and -inf less -inf is NaN.
    pivot = pivot.clamp(min=0.0) if no_op else pivot.masked_fill(pivot == -math.inf, 0.0)
    torch.sub(scores, pivot, out=out).exp_()
    torch.sum(out, dim=-1, keepdim=True, out=share)
    if no_op:
        share.add_((-pivot).exp())
    else:
        share.masked_fill_(share == 0, 1.0)
    share.reciprocal_()


def _are_near_1(shares: Tensor) -> bool:
    """Whether all totals can be trusted; one that is NaN can not."""
    if shares.numel() == 0:
        return True
    lowest, highest = shares.aminmax()
    return bool((lowest >= 1 / LARGEST_TOTAL) & (highest <= LARGEST_TOTAL))


def _scores_grad_(weights_grad: Tensor, weights: Tensor) -> Tensor:
    """The gradient by scores, in the place of ``weights_grad``."""
    if weights.shape[-1] >= SHORTEST_VENDOR_ROW:
        vendor = torch.ops.aten._softmax_backward_data.out
        scores_grad: Tensor = vendor(weights_grad, weights, -1, weights.dtype, grad_input=weights_grad)
        return scores_grad
    scores_grad = weights_grad.mul_(weights)
    return scores_grad.addcmul_(weights, scores_grad.sum(dim=-1, keepdim=True), value=-1)


def _product(left: Tensor, right: Tensor, *, scale: float, out: Tensor) -> Tensor:
    """``scale * left @ right``, written to ``out``."""
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)
