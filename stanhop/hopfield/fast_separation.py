"""The fast equal of ``separation.separate``: closed form or Newton's method, with gradients written out.

alpha-entmax of one row, the no-op memory (score 0) being one more column of it. With a = alpha - 1, d the scores less
their largest and u = 1 - a t, the u is sought at which the weights p sum to 1:

    v = [u + a d]_+      w = v ** (1 / a - 1)      p = w v      F(u) = sum(p)

``F ** a`` is a norm of the positive part of an affine map, hence convex and nondecreasing in u, so Newton's method on
``F ** a = 1`` falls monotonically from u = 1 to the root. As a goes to 0 its first step is log-sum-exp; at alpha = 2 it
is the finite iteration known for sparsemax. The slopes of the weights, g = w / F, are all the backward pass needs:

    delta = sum(g dP) / sum(g)      dS = g (dP - delta)      dalpha = -sum(psi (dP - delta))
    psi = p (exp(x) - 1 - x) / a ** 2,      x = -a log(p)

Source: alpha-entmax, Peters et al. 2019, arXiv:1905.05702; its derivative by alpha, Correia et al. 2019,
arXiv:1909.00015. Newton's method on F ** a, and a form of dalpha that does not cancel near alpha = 1, are ours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stanhop.hopfield import fused
from stanhop.hopfield.fast_softmax import LOG2_E, softmax
from stanhop.hopfield.separation import clipped, in_full_precision

MAX_STEPS = 32
"""Newton steps at most: a few serve short rows, rows of many thousand memories need the most."""

BLOCK_SIZE = 2**18
"""Scores at a time: the few arrays of a block stay in a cache, and memory is reused instead of fetched anew."""

SERIES_BELOW = 0.5
"""Up to where exp(x) - 1 - x is summed as a series; beyond, subtracting loses at most three bits."""


def fast_separate(
    scores: Tensor, *, alpha: float | Tensor, no_op: bool, clip: tuple[float, float] | None = None
) -> Tensor:
    """``separate``, faster: the same weights and first derivatives; second derivatives are refused.

    Args:
        scores: As in ``separate``.
        alpha: In [1, 2]: a number, or a tensor that broadcasts against ``scores`` and is constant in each row.
        no_op: As in ``separate``.
        clip: As in ``separate``.

    Returns:
        As ``separate``.
    """
    precise = in_full_precision(scores)
    if fused.separates(precise):
        weights = fused.separated(precise, alpha=alpha, no_op=no_op)
    elif isinstance(alpha, Tensor) or alpha != 1:
        weights = _entmax(precise, alpha, no_op)
    else:
        weights = softmax(precise, no_op=no_op)
    if clip is not None:
        weights = clipped(weights, scores, clip=clip)
    return weights.to(scores.dtype)


def _entmax(scores: Tensor, alpha: float | Tensor, no_op: bool) -> Tensor:
    """alpha-entmax over the last axis, block by block."""
    rows = scores.reshape(-1, scores.shape[-1])
    # Compiled, the steps are one loop over memory that needs no blocks.
    block = len(rows) if torch.compiler.is_compiling() else max(1, BLOCK_SIZE // scores.shape[-1])
    parts = rows.split(block)
    alphas: tuple[float | Tensor, ...] = (alpha,) * len(parts)
    if isinstance(alpha, Tensor):
        alphas = alpha.to(scores.dtype).expand(*scores.shape[:-1], 1).reshape(-1).split(block)
    weights = [
        _Entmax.apply(part, part_alpha, no_op)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        for part, part_alpha in zip(parts, alphas, strict=True)
    ]
    return torch.cat(weights).view_as(scores)


class _Entmax(Function):
    """alpha-entmax of (rows, memories), with one alpha in (1, 2] or one in [1, 2] a row.

    Rows are short and many, so within, memories are the first axis: vector instructions then work on rows side by
    side, not on parts of one short row.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: float | Tensor, no_op: bool) -> Tensor:
        # Below the smallest a that moves 1 + a, weights are those of a = 0 to the last digit.
        a = (alpha - 1).clamp(min=torch.finfo(scores.dtype).eps) if isinstance(alpha, Tensor) else float(alpha) - 1
        columns = _columns(scores, has_no_op=no_op)
        pivot = columns.amax(dim=0)
        is_empty = pivot == -math.inf  # no row with the no-op memory in it
        if not no_op:  # for the time being, the first memory of an empty row is its only one, and then gradients are 0
            pivot.masked_fill_(is_empty, 0.0)
            columns[0].masked_fill_(is_empty, 0.0)
        weights, slopes = _solve(columns.sub_(pivot), a)
        if not no_op:
            weights[0].masked_fill_(is_empty, 0.0)
        needs_alpha = isinstance(a, Tensor) and ctx.needs_input_grad[1]
        ctx.save_for_backward(slopes, *((weights, a) if needs_alpha else ()))
        return _rows(weights, scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        slopes, *for_alpha = ctx.saved_tensors
        deviations = _columns(weights_grad, has_no_op=len(slopes) > weights_grad.shape[1])
        deviations.sub_((slopes * deviations).sum(dim=0).div_(slopes.sum(dim=0)))
        scores_grad = _rows(slopes * deviations, weights_grad)
        if not for_alpha:
            return scores_grad, None, None
        weights, a = for_alpha
        return scores_grad, -_alpha_slopes(weights, a).mul_(deviations).sum(dim=0), None


def _columns(rows: Tensor, *, has_no_op: bool) -> Tensor:
    """A copy of (rows, memories) as (memories, rows), with 0 for the no-op memory as a last one."""
    num_rows, num_memories = rows.shape
    columns = rows.new_empty(num_memories + has_no_op, num_rows)
    columns[:num_memories].copy_(rows.t())
    columns[num_memories:].fill_(0.0)
    return columns


def _rows(columns: Tensor, like: Tensor) -> Tensor:
    """A copy of (memories, rows) as (rows, memories), without the no-op memory that ``like`` does not have."""
    return columns[: like.shape[1]].t().contiguous()


def _solve(differences: Tensor, a: float | Tensor) -> tuple[Tensor, Tensor]:
    """Weights p and slopes g of ``differences`` d, (memories, rows), which is overwritten; a may be (rows,)."""
    scaled = differences.mul_(a)
    lowered = torch.zeros_like(scaled[0])  # 1 - u
    slopes, weights = torch.empty_like(scaled), torch.empty_like(scaled)
    eps = torch.finfo(scaled.dtype).eps
    is_compiled = torch.compiler.is_compiling()
    for _ in range(_enough_steps(len(scaled)) if is_compiled else MAX_STEPS):
        _evaluate(scaled, lowered, a, slopes, weights)
        slope = slopes.sum(dim=0)
        total = weights.mul_(slopes).sum(dim=0)
        # u has a last digit, too; never true of a NaN
        if not is_compiled and ((total - 1).abs() < (16 + slope) * eps).all():
            break
        lowered = lowered - total * (total.log() * -a).expm1() / slope
    return weights.div_(total), slopes.div_(total)


def _enough_steps(num_memories: int) -> int:
    """Steps that any row of this length needs at most: what a compiled graph, which cannot look, takes always."""
    return 7 + num_memories.bit_length() // 2


def _evaluate(scaled: Tensor, lowered: Tensor, a: float | Tensor, w: Tensor, v: Tensor) -> None:
    """Write w and v at ``scaled`` = a d and ``lowered`` = 1 - u."""
    torch.sub(scaled, lowered, out=w)
    torch.add(w, 1.0, out=v).clamp_(min=0.0)
    if isinstance(a, Tensor):
        w.clamp_(min=-1.0).log1p_()  # log1p: 1 + a d rounds a small a away
        w.mul_((1 / a - 1).clamp(min=1e-30).mul_(LOG2_E)).exp2_()  # min: off the support, 0 * -inf would be NaN
    elif a == 1:
        torch.sign(v, out=w)
    elif a == 0.5:
        w.copy_(v)
    else:
        w.clamp_(min=-1.0).log1p_().mul_((1 / a - 1) * LOG2_E).exp2_()


def _alpha_slopes(weights: Tensor, a: Tensor) -> Tensor:
    """psi: minus the derivative of the weights by alpha at a fixed threshold, 0 off the support."""
    x = weights.clamp(min=torch.finfo(weights.dtype).tiny).log_().mul_(-a)
    far = functional.hardshrink(x, SERIES_BELOW)  # x or 0; a torch.where is slow on a CPU
    near = x.sub_(far)
    series = torch.zeros_like(near)
    num_terms = 13 if weights.dtype == torch.float64 else 7  # the next is below the last digit
    for k in range(num_terms, 0, -1):
        series.mul_(near).add_(1 / math.factorial(k + 1))
    series.mul_(near).mul_(near)
    # exp2(0) - 1 is 0, and far from 0 nothing cancels: expm1 is slower.
    return far.mul(LOG2_E).exp2_().sub_(1.0).sub_(far).add_(series).mul_(weights).div_(a * a)
