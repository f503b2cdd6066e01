"""The no-op memory put into what an attention kernel without one returns: one pass over its read-out.

With the log-sum-exp s of a query's scores the read-out shrinks by sigmoid(s), the share that the memories keep, and
softplus(s) is the log-sum-exp with the no-op's score 0 among the scores. (Torch takes three passes, by which attention
over some hundred memories would be a fifth slower.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32
"""Queries of a program."""
NUM_WARPS = 4


def add_no_op(retrieved: Tensor, log_sum: Tensor) -> None:
    """Let a memory of score and value 0 compete, in place.

    Args:
        retrieved: (batch, heads, queries, features), features side by side; the rest in any order.
        log_sum: Log-sum-exp of each query's scores, as many float32 in the order of (batch, heads, queries).
    """
    if not log_sum.is_contiguous() or log_sum.dtype != torch.float32:
        raise ValueError(f"log_sum must be contiguous float32, not {log_sum.dtype} of strides {log_sum.stride()}")
    _, num_heads, num_queries, num_features = retrieved.shape
    num_rows = log_sum.numel()
    _add_no_op[(triton.cdiv(num_rows, ROWS),)](
        retrieved, retrieved.stride()[:3], log_sum, num_heads, num_queries, num_rows,
        NUM_FEATURES=num_features, FEATURES_BLOCK=triton.next_power_of_2(num_features), ROWS=ROWS, num_warps=NUM_WARPS,
    )  # fmt: skip


@triton.jit(do_not_specialize=("num_rows",))
def _add_no_op(
    retrieved, strides, log_sum, num_heads, num_queries, num_rows,
    NUM_FEATURES: tl.constexpr, FEATURES_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS queries of any pairs."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, FEATURES_BLOCK)
    is_row = rows < num_rows
    pair, query = rows // num_queries, rows % num_queries
    begin = pair // num_heads * strides[0] + pair % num_heads * strides[1] + query * strides[2]
    cells = retrieved + begin[:, None] + features[None, :]
    inside = is_row[:, None] & (features[None, :] < NUM_FEATURES)
    s = tl.load(log_sum + rows, mask=is_row, other=0.0)
    out = tl.load(cells, mask=inside, other=0.0).to(tl.float32) * tl.sigmoid(s)[:, None]
    tl.store(cells, out.to(retrieved.dtype.element_ty), mask=inside)
    tl.store(log_sum + rows, tl.maximum(s, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(s))), mask=is_row)
