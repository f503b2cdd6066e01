"""Separation of scores alone, without a read-out: one program a row, which is read once and stays in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from stanhop.kernels.separation import (
    alpha_slope,
    differences,
    pivot,
    sharpness,
    threshold,
    weights_and_slopes,
    weights_slopes_and_logs,
)


@triton.jit
def rows_forward(
    scores, alpha, weights, pivots, thresholds, num_columns,
    KIND: tl.constexpr, NO_OP: tl.constexpr, BLOCK: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Weights of one row of scores, (rows, columns); BLOCK >= num_columns; ``alpha`` is (rows,)."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    s, cells, inside = _load_row(scores, row, num_columns, BLOCK)
    s = tl.where(inside, s, -float("inf"))
    a = sharpness(alpha, tl.program_id(0), KIND)
    m = pivot(s, NO_OP)
    d = differences(s, m, KIND)
    t = threshold(d, m, num_columns, a, KIND, NO_OP, "exact", ON_DEVICE)
    p, _ = weights_and_slopes(d, t[:, None], a, KIND, "exact", ON_DEVICE)
    tl.store(weights + cells, p.to(weights.dtype.element_ty), mask=inside)
    tl.store(pivots + row, m)
    tl.store(thresholds + row, t)


@triton.jit
def rows_backward(
    scores, alpha, weights_grad, pivots, thresholds, scores_grad, alpha_grad, num_columns,
    KIND: tl.constexpr, NO_OP: tl.constexpr, LEARNS_ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by one row of scores and by its alpha; the equations are those of ``resident.py``."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    s, cells, inside = _load_row(scores, row, num_columns, BLOCK)
    p_grad, _, _ = _load_row(weights_grad, row, num_columns, BLOCK)
    a = sharpness(alpha, tl.program_id(0), KIND)
    m, t = tl.load(pivots + row), tl.load(thresholds + row)
    d = differences(tl.where(inside, s, -float("inf")), m, KIND)
    p, g, logs = weights_slopes_and_logs(d, t[:, None], a, KIND, "exact", False)
    slope = tl.sum(g, axis=1)
    if NO_OP:
        no_op_p, no_op_g, no_op_logs = weights_slopes_and_logs(-m, t, a, KIND, "exact", False)
        slope += no_op_g
    delta = tl.sum(g * p_grad, axis=1) / tl.where(slope == 0.0, 1.0, slope)
    s_grad = g * (p_grad - delta[:, None])
    tl.store(scores_grad + cells, s_grad.to(scores_grad.dtype.element_ty), mask=inside)
    if LEARNS_ALPHA:
        a_grad = -tl.sum(alpha_slope(p, g, logs) * (p_grad - delta[:, None]), axis=1)
        if NO_OP:
            a_grad += alpha_slope(no_op_p, no_op_g, no_op_logs) * delta
        tl.store(alpha_grad + row, a_grad / (a * a))


@triton.jit
def _load_row(patterns, row, num_columns, BLOCK: tl.constexpr):
    """A row as float32 (1, BLOCK), 0 beyond its end; where its cells lie, and which exist."""
    columns = tl.arange(0, BLOCK)
    inside = (columns < num_columns)[None, :]
    cells = row[:, None] * num_columns + columns[None, :]
    return tl.load(patterns + cells, mask=inside, other=0.0).to(tl.float32), cells, inside
