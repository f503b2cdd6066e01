"""Retrieval at alpha = 1 through torch's fused attention, which stores no weights.

A fused kernel returns its read-out and the log-sum-exp of each query's scores. With a no-op memory the read-out shrinks
by sigmoid(log-sum-exp), the share that the others keep, and the log-sum-exp becomes its softplus; that pair is also
all the kernel's own backward pass needs to be exact for Softmax_1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

PAYS_FROM = 256
"""Memories from which the fused kernel is taken: see `stanhop bench kernels --shapes lengths`."""


def suits(query: Tensor, memory: Tensor, values: Tensor, *, alpha: float | Tensor) -> bool:
    """Whether ``attend`` can serve these tensors and is worth it."""
    return (
        not isinstance(alpha, Tensor)
        and alpha == 1
        and query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.float64)
        and query.shape[-1] == values.shape[-1]
        and memory.shape[-2] >= PAYS_FROM
    )


def attend(query: Tensor, memory: Tensor, values: Tensor, *, no_op: bool, beta: float) -> Tensor:
    """``retrieve`` at alpha = 1 on a CPU, without mask, clipping and dropout.

    Args:
        query: ``(..., heads, queries, head_dim)``; the leading batch axes broadcast.
        memory: ``(..., heads, memories, head_dim)``.
        values: ``(..., heads, memories, head_dim)``.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature.

    Returns:
        ``(..., heads, queries, head_dim)``.
    """
    batch = torch.broadcast_shapes(query.shape[:-2], memory.shape[:-2], values.shape[:-2])
    query, memory, values = (
        patterns.expand(*batch, *patterns.shape[-2:]).reshape(-1, *batch[-1:], *patterns.shape[-2:])
        for patterns in (query * beta, memory, values)
    )  # (batch, heads, length, head_dim)
    retrieved: Tensor
    if no_op:
        retrieved = _AttendNoOp.apply(query, memory, values)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    else:
        retrieved = functional.scaled_dot_product_attention(query, memory, values, scale=1.0)
    return retrieved.reshape(*batch, *retrieved.shape[-2:])


class _AttendNoOp(Function):
    """Softmax_1 over (batch, heads, length, head_dim), scores not scaled."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        retrieved: Tensor
        retrieved, log_sum = kernel(query, memory, values, 0.0, False, scale=1.0)
        retrieved = retrieved.mul_(log_sum.sigmoid().unsqueeze(-1))
        with_no_op = functional.softplus(
            log_sum, threshold=50
        )  # torch's own threshold of 20 costs a float64 six digits
        ctx.save_for_backward(query, memory, values, retrieved, with_no_op)
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients: tuple[Tensor, Tensor, Tensor] = kernel(retrieved_grad, *ctx.saved_tensors, 0.0, False, scale=1.0)
        return gradients
