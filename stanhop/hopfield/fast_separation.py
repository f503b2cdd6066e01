"""The fast equal of ``separation.separate``: closed form or Newton's method, with gradients written out.

alpha-entmax of one row, the no-op memory (score 0) being one more column of it. With a = alpha - 1, d the scores less
their largest and u = 1 - a t, the u is sought at which the weights p sum to 1:

    v = [u + a d]_+      w = v ** (1 / a - 1)      p = w v      F(u) = sum(p)

``F ** a`` is a norm of the positive part of an affine map, hence convex and nondecreasing in u, so Newton's method on
``F ** a = 1`` falls monotonically from u = 1 to the root; for alpha from 1.4 on it begins at a guess, which spares two
steps. As a goes to 0 its first step is log-sum-exp; at alpha = 2 it is the finite iteration known for sparsemax. The
slopes of the weights, g = w / F, are all the backward pass needs:

    delta = sum(g dP) / sum(g)      dS = g (dP - delta)      dalpha = -sum(psi (dP - delta))
    psi = p (exp(x) - 1 - x) / a ** 2,      x = -a log(p)

Source: alpha-entmax, Peters et al. 2019, arXiv:1905.05702; its derivative by alpha, Correia et al. 2019,
arXiv:1909.00015. Newton's method on F ** a, and a form of dalpha that does not cancel near alpha = 1, are ours.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

GUESSED_FROM = 0.4
"""From this a on, Newton's method begins at a guess: below, its first steps from u = 1 are as good."""

SMALLEST_GUESS = 1e-4
"""The smallest u that is guessed: its powers are far from underflow."""

SERIES_BELOW = 0.5
"""Up to where exp(x) - 1 - x is a polynomial; beyond, subtracting loses at most three bits."""


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
    """alpha-entmax over the last axis."""
    if isinstance(alpha, Tensor):
        alpha = alpha.to(scores.dtype).expand(*scores.shape[:-1], 1).reshape(-1)
    rows = scores.reshape(-1, scores.shape[-1])
    weights: Tensor = _Entmax.apply(rows, alpha, no_op)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return weights.view_as(scores)


class _Entmax(Function):
    """alpha-entmax of (rows, memories), with one alpha in (1, 2] or one in [1, 2] a row, block by block.

    Rows are short and many, so within a block memories are the first axis: vector instructions then work on rows side
    by side, not on parts of one short row.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: float | Tensor, no_op: bool) -> Tensor:
        # Below the smallest a that moves 1 + a, weights are those of a = 0 to the last digit.
        a = (alpha - 1).clamp(min=torch.finfo(scores.dtype).eps) if isinstance(alpha, Tensor) else float(alpha) - 1
        needs_alpha = isinstance(a, Tensor) and ctx.needs_input_grad[1]
        weights = scores.new_empty(scores.shape)
        all_slopes, all_columns = [], []
        for block in _blocks(scores):
            columns, slopes = _weigh(scores[block], a[block] if isinstance(a, Tensor) else a, no_op=no_op)
            _write(columns, weights[block])
            all_slopes.append(slopes)
            if needs_alpha:
                all_columns.append(columns)
        ctx.save_for_backward(*all_slopes, *all_columns, *((a,) if needs_alpha else ()))
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        blocks = _blocks(weights_grad)
        all_slopes, for_alpha = ctx.saved_tensors[: len(blocks)], ctx.saved_tensors[len(blocks) :]
        scores_grad = weights_grad.new_empty(weights_grad.shape)
        alpha_grad = weights_grad.new_empty(len(weights_grad)) if for_alpha else None
        for index, (block, slopes) in enumerate(zip(blocks, all_slopes, strict=True)):
            deviations = _columns(weights_grad[block], has_no_op=len(slopes) > weights_grad.shape[1])
            deviations.sub_((slopes * deviations).sum(dim=0).div_(slopes.sum(dim=0)))
            _write(slopes * deviations, scores_grad[block])
            if alpha_grad is not None:
                psi = _alpha_slopes(for_alpha[index], for_alpha[-1][block])
                alpha_grad[block] = psi.mul_(deviations).sum(dim=0).neg_()
        return scores_grad, alpha_grad, None


def _blocks(rows: Tensor) -> list[slice]:
    """Which rows are computed together."""
    size = max(1, BLOCK_SIZE // rows.shape[-1])
    if torch.compiler.is_compiling():  # the steps are one loop over memory then, which needs no blocks
        size = max(1, len(rows))
    return [slice(start, start + size) for start in range(0, len(rows), size)]


def _weigh(scores: Tensor, a: float | Tensor, *, no_op: bool) -> tuple[Tensor, Tensor]:
    """Weights and slopes of (rows, memories), as (memories, rows)."""
    columns = _columns(scores, has_no_op=no_op)
    pivot = columns.amax(dim=0)
    if no_op:
        return _solve(columns.sub_(pivot), a)
    # For the time being, the first memory of an empty row is its only one, and then gradients are 0.
    is_empty = pivot == -math.inf
    pivot.masked_fill_(is_empty, 0.0)
    columns[0].masked_fill_(is_empty, 0.0)
    weights, slopes = _solve(columns.sub_(pivot), a)
    weights[0].masked_fill_(is_empty, 0.0)
    return weights, slopes


def _columns(rows: Tensor, *, has_no_op: bool) -> Tensor:
    """A copy of (rows, memories) as (memories, rows), with 0 for the no-op memory as a last one."""
    num_rows, num_memories = rows.shape
    columns = rows.new_empty(num_memories + has_no_op, num_rows)
    columns[:num_memories].copy_(rows.t())
    columns[num_memories:].fill_(0.0)
    return columns


def _write(columns: Tensor, rows: Tensor) -> None:
    """Copy (memories, rows) to (rows, memories), without the no-op memory that ``rows`` does not have."""
    rows.copy_(columns[: rows.shape[1]].t())


def _solve(differences: Tensor, a: float | Tensor) -> tuple[Tensor, Tensor]:
    """Weights p and slopes g of ``differences`` d, (memories, rows), which is overwritten; a may be (rows,)."""
    scaled = differences.mul_(a)
    slopes, weights = torch.empty_like(scaled), torch.empty_like(scaled)
    is_compiled = torch.compiler.is_compiling()
    lowered = torch.zeros_like(scaled[0])  # 1 - u
    if not is_compiled and _is_steep(a):
        lowered = _first_guess(scaled, a, slopes, weights)
    exponent, eps = _exponent(a), torch.finfo(scaled.dtype).eps
    for _ in range(_enough_steps(len(scaled)) if is_compiled else MAX_STEPS):
        _evaluate(scaled, lowered, exponent, slopes, weights)
        slope = slopes.sum(dim=0)
        total = weights.mul_(slopes).sum(dim=0)
        # u has a last digit, too; never true of a NaN
        if not is_compiled and ((total - 1).abs() < (16 + slope) * eps).all():
            break
        lowered = lowered - total * (total.log() * -a).expm1() / slope
    return weights.div_(total), slopes.div_(total)


def _is_steep(a: float | Tensor) -> bool:
    """Whether Newton's method takes many steps from u = 1, and each of them a logarithm and a power."""
    if isinstance(a, Tensor):
        return bool((a >= GUESSED_FROM).any())
    return a >= GUESSED_FROM and a not in (0.5, 1)


def _first_guess(scaled: Tensor, a: float | Tensor, w: Tensor, v: Tensor) -> Tensor:
    """1 - u, roughly: two of Newton's steps with a parabola in place of v ** (1 / a); ``w`` and ``v`` are scratch.

    The parabola is 0 at 0 and 1 at 1, has the area of the power below it, and is v and v ** 2 where the power is.
    ``F ** (1 - a)``, by which a step on F ** a differs from one on F, is drawn between 1 and a square root. Whatever
    u comes of it, only speed is at stake: from a u below the root, Newton's next one is between the root and 1, for
    F ** a is convex, 0 at 0 and at least u.
    """
    power = (1 / a).clamp(max=2.0) if isinstance(a, Tensor) else min(1 / a, 2.0)
    linear = 6 / (power + 1) - 2
    square = 1 - linear
    bend = 2 - 2 / power
    lowered = torch.zeros_like(scaled[0])
    for _ in range(2):
        torch.sub(scaled, lowered, out=v).add_(1.0).clamp_(min=0.0)
        count, first = torch.sign(v, out=w).sum(dim=0), v.sum(dim=0)
        total = linear * first + square * v.square_().sum(dim=0)
        excess = total - 1 - bend * (total.sqrt() - 1)
        lowered = lowered + excess / (a * (linear * count + 2 * square * first))
        lowered.clamp_(min=0.0, max=1 - SMALLEST_GUESS)
    return lowered.masked_fill_(a < GUESSED_FROM, 0.0) if isinstance(a, Tensor) else lowered


def _enough_steps(num_memories: int) -> int:
    """Steps that any row of this length needs at most: what a compiled graph, which cannot look, takes always."""
    return 7 + num_memories.bit_length() // 2


def _exponent(a: float | Tensor) -> float | Tensor:
    """1 / a - 1, the power of v that w is."""
    if isinstance(a, Tensor):
        return (1 / a - 1).clamp_(min=1e-30)  # off the support, 0 * -inf would be NaN
    return 1 / a - 1


def _evaluate(scaled: Tensor, lowered: Tensor, exponent: float | Tensor, w: Tensor, v: Tensor) -> None:
    """Write w and v at ``scaled`` = a d and ``lowered`` = 1 - u."""
    torch.sub(scaled, lowered, out=w).clamp_(min=-1.0)
    torch.add(w, 1.0, out=v)
    if isinstance(exponent, float) and exponent == 0:
        torch.sign(v, out=w)
    elif isinstance(exponent, float) and exponent == 1:
        w.copy_(v)
    else:
        w.log1p_().mul_(exponent * LOG2_E).exp2_()  # log1p: 1 + a d rounds a small a away


def _alpha_slopes(weights: Tensor, a: Tensor) -> Tensor:
    """psi: minus the derivative of the weights by alpha at a fixed threshold, 0 off the support."""
    x = weights.clamp(min=torch.finfo(weights.dtype).tiny).log_().mul_(-a)
    far = functional.hardshrink(x, SERIES_BELOW)  # x or 0; a torch.where is slow on a CPU
    near = x.sub_(far)
    first, second, *others = _remainder(weights.dtype)
    series = near.mul(first).add_(second)
    for coefficient in others:
        series.mul_(near).add_(coefficient)
    series.mul_(near).mul_(near)
    # exp2(0) - 1 is 0, and far from 0 nothing cancels: expm1 is slower.
    return far.mul(LOG2_E).exp2_().sub_(1.0).sub_(far).add_(series).mul_(weights).div_(a * a)


@functools.cache
def _remainder(dtype: torch.dtype) -> tuple[float, ...]:
    """Coefficients, the highest first, of a polynomial that is (exp(x) - 1 - x) / x ** 2 up to ``SERIES_BELOW``."""

    def remainder(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.polynomial.Polynomial([1 / math.factorial(k + 2) for k in range(15)])(x)

    degree = 9 if dtype == torch.float64 else 4  # the next one is below the last digit
    series = np.polynomial.Chebyshev.interpolate(remainder, degree, domain=[0.0, SERIES_BELOW])
    return tuple(float(each) for each in reversed(series.convert(kind=np.polynomial.Polynomial).coef))
