"""Separation of scores alone as a torch operator, like that of a whole retrieval in ``operator.py``."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from stanhop.kernels.launch import COMPILER_OPTIONS
from stanhop.kernels.operator import DTYPES, KINDS
from stanhop.kernels.rows import rows_backward, rows_forward

LARGEST_ROW = 2**15
"""Columns of a row at most. Beyond 8,192 some spill into a cache, still one pass over memory in place of dozens."""
CELLS_OF_A_WARP = 1024
"""Cells of a row for each warp: 32 a thread."""
MOST_WARPS = 32


def separate_rows(scores: Tensor, *, alpha: float | Tensor, no_op: bool) -> Tensor:
    """alpha-entmax over the last axis, in one kernel: ``stanhop.hopfield.separation.separate`` without clipping.

    Results are repeatable bit for bit; second derivatives are refused.

    Args:
        scores: ``(..., memories)``, as ``suits`` accepts them; -inf where there is none.
        alpha: Sparsity in [1, 2]: a number, or a tensor that broadcasts against ``scores`` and is constant in each row.
        no_op: Whether a memory of score 0 competes.

    Returns:
        Weights, as ``scores``; 0 in a row without memories, NaN in one with a NaN or an infinite score.

    Source: alpha-entmax, Peters et al. 2019, arXiv:1905.05702; Softmax_1, Hu et al. 2024, arXiv:2404.03828.
    """
    kind = "entmax" if isinstance(alpha, Tensor) else KINDS.get(float(alpha), "entmax")
    rows = scores.reshape(-1, scores.shape[-1])
    per_row: Tensor | None = None
    if isinstance(alpha, Tensor):
        per_row = alpha.float().expand(*scores.shape[:-1], 1).reshape(-1)
    elif kind == "entmax":
        per_row = rows.new_full(rows.shape[:1], alpha, dtype=torch.float32)
    weights: Tensor
    weights, _ = _separate(rows.contiguous(), per_row, kind, no_op)
    return weights.view_as(scores)


def suits(scores: Tensor) -> bool:
    """Whether the kernel takes ``scores``; the device is not looked at."""
    return scores.dtype in DTYPES and 0 < scores.shape[-1] <= LARGEST_ROW and scores.numel() > 0


@torch.library.custom_op("stanhop::separate_rows", mutates_args=())
def _separate(scores: Tensor, alpha: Tensor | None, kind: str, no_op: bool) -> tuple[Tensor, Tensor]:
    """The weights, and pivot and threshold of each row, (2, rows)."""
    weights, statistics = torch.empty_like(scores), scores.new_empty(2, len(scores), dtype=torch.float32)
    rows_forward[(len(scores),)](
        scores, alpha, weights, *statistics, scores.shape[1],
        KIND=kind, NO_OP=no_op, ON_DEVICE=scores.is_cuda, **_tile(scores),
    )  # fmt: skip
    return weights, statistics


@_separate.register_fake
def _fake_separate(scores: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores), scores.new_empty(2, len(scores), dtype=torch.float32)


@torch.library.custom_op("stanhop::separate_rows_backward", mutates_args=())
def _separate_backward(
    scores: Tensor, alpha: Tensor | None, weights_grad: Tensor, statistics: Tensor, kind: str, no_op: bool,
    learns_alpha: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients by the scores and, if it is learned, by alpha."""
    scores_grad = torch.empty_like(scores)
    alpha_grad = torch.empty_like(alpha) if learns_alpha and alpha is not None else None
    rows_backward[(len(scores),)](
        scores, alpha, weights_grad.contiguous(), *statistics, scores_grad, alpha_grad, scores.shape[1],
        KIND=kind, NO_OP=no_op, LEARNS_ALPHA=learns_alpha, **_tile(scores),
    )  # fmt: skip
    return [scores_grad] if alpha_grad is None else [scores_grad, alpha_grad]


@_separate_backward.register_fake
def _fake_separate_backward(scores: Tensor, alpha: Tensor | None, *arguments: Any) -> list[Tensor]:
    learns_alpha = arguments[-1]
    return [torch.empty_like(scores), *([torch.empty_like(alpha)] if learns_alpha and alpha is not None else [])]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    scores, alpha, ctx.kind, ctx.no_op = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(scores, alpha, output[1])


def _differentiate(ctx: Any, weights_grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if weights_grad is None:
        return None, None, None, None
    scores, alpha, statistics = ctx.saved_tensors
    learns_alpha = alpha is not None and ctx.needs_input_grad[1]
    scores_grad, *others = _separate_backward(
        scores, alpha, weights_grad, statistics, ctx.kind, ctx.no_op, learns_alpha
    )
    return scores_grad, others[0] if others else None, None, None


_separate.register_autograd(_differentiate, setup_context=_keep_for_backward)


def _tile(scores: Tensor) -> dict[str, Any]:
    block = triton.next_power_of_2(scores.shape[1])
    return {"BLOCK": block, "num_warps": min(MOST_WARPS, max(1, block // CELLS_OF_A_WARP)), **COMPILER_OPTIONS}
