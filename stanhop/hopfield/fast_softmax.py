"""Softmax and Softmax_1 on a CPU in few passes over the weights, and retrieval by them.

Exponentials need no shift by the largest score of their row as long as their sums are far from overflow and underflow,
and the sums themselves tell whether they are:

    weights = exp(scores) / total      total = 1 + sum(exp(scores))      (without no-op: no 1)

Where a total is out of range the weights are computed again, from shifted scores. torch's own backward pass of softmax
serves Softmax_1 too, because the no-op memory, whose value is 0, has no part in the sum:

    dscores = weights * (dweights - sum(weights * dweights))

Source: Softmax_1, Hu et al. 2024, arXiv:2404.03828. Exponentials that are shifted only if need be are ours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LARGEST_TOTAL = 2.0**60
"""Totals up to here, and down to its inverse, are trusted. Scores are then below 42, so that neither exponentials nor
gradients divided by a total come near the ends of float32."""

SHORTEST_VENDOR_ROW = 16
"""Weights a row from which torch's backward pass of softmax is taken: where rows are shorter than a vector of the
processor it computes one weight at a time."""


SHORTEST_SUM = 64
"""Weights a row from which torch sums them itself; shorter rows are multiplied by a column of ones."""


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
    pairs = tuple(query.shape[:-2])  # a head of a batch entry each
    if not pairs == memory.shape[:-2] == values.shape[:-2]:
        # NumPy's, since torch's own loads a computer algebra system at its first call.
        pairs = np.broadcast_shapes(pairs, memory.shape[:-2], values.shape[:-2])
        query, memory, values = (each.expand(*pairs, *each.shape[-2:]) for each in (query, memory, values))
    query, memory, values = (each.reshape(-1, *each.shape[-2:]) for each in (query, memory, values))
    retrieved: Tensor = _ReadOut.apply(query, memory, values, no_op, beta)  # type: ignore[no-untyped-call]  # torch's
    return retrieved.view(*pairs, *retrieved.shape[-2:])


class _ReadOut(Function):
    """Retrieval over (pairs, length, features)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor, no_op: bool, beta: float) -> Tensor:
        weights = query.new_empty(len(query), query.shape[1], memory.shape[1])
        scores = _product(query, memory.transpose(1, 2), scale=beta, out=weights)
        if not _is_unshifted_softmax(scores, no_op=no_op, out=weights):
            scores = _product(query, memory.transpose(1, 2), scale=beta, out=weights)
            _shifted_softmax(scores, no_op=no_op, out=weights)
        ctx.save_for_backward(query, memory, values, weights)
        ctx.beta = beta
        return torch.bmm(weights, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, memory, values, weights = ctx.saved_tensors
        values_grad = torch.bmm(weights.transpose(1, 2), retrieved_grad)
        scores_grad = _scores_grad_(torch.bmm(retrieved_grad, values.transpose(1, 2)), weights)
        query_grad = _product(scores_grad, memory, scale=ctx.beta, out=torch.empty_like(query))
        memory_grad = _product(scores_grad.transpose(1, 2), query, scale=ctx.beta, out=torch.empty_like(memory))
        return query_grad, memory_grad, values_grad, None, None


class _Softmax(Function):
    """``softmax``."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, no_op: bool) -> Tensor:
        weights = torch.empty_like(scores)
        # While torch compiles, nothing can look at totals.
        if torch.compiler.is_compiling() or not _is_unshifted_softmax(scores, no_op=no_op, out=weights):
            weights = _shifted_softmax(scores, no_op=no_op, out=weights)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_grad: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        return _scores_grad_(weights_grad.clone(), weights), None


def _is_unshifted_softmax(scores: Tensor, *, no_op: bool, out: Tensor) -> bool:
    """Write the weights to ``out``, which may be ``scores``; False, and ``out`` is of no use, if a total is too far."""
    weights = torch.exp(scores, out=out)
    is_short = weights.shape[-1] < SHORTEST_SUM  # torch sums short rows slowly
    total = weights @ weights.new_ones(weights.shape[-1], 1) if is_short else weights.sum(dim=-1, keepdim=True)
    if total.numel() == 0:
        return True
    if no_op:
        is_near = total.add_(1.0).amax() <= LARGEST_TOTAL  # a NaN is not
    else:
        lowest, highest = total.aminmax()
        is_near = (lowest >= 1 / LARGEST_TOTAL) & (highest <= LARGEST_TOTAL)
    if not is_near:
        return False
    weights.mul_(total.reciprocal_())
    return True


def _shifted_softmax(scores: Tensor, *, no_op: bool, out: Tensor) -> Tensor:
    """Write the weights to ``out``, which may be ``scores``."""
    pivot = scores.amax(dim=-1, keepdim=True)
    # The no-op memory scores 0 and takes part in the maximum, or exp(-pivot) would overflow below -88. Without it,
    # a row that is all masked has the maximum -inf, and -inf less -inf is NaN.
    pivot = pivot.clamp(min=0.0) if no_op else pivot.masked_fill(pivot == -math.inf, 0.0)
    weights = torch.sub(scores, pivot, out=out).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    total = total + (-pivot).exp() if no_op else total.masked_fill(total == 0, 1.0)
    return weights.div_(total)


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
