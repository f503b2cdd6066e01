"""Retrieval at alpha = 1 through torch's fused attention, which stores no weights.

A fused kernel returns its read-out and the log-sum-exp of each query's scores. With a no-op memory the read-out shrinks
by sigmoid(log-sum-exp), the share that the others keep, and the log-sum-exp becomes its softplus; that pair is also
all the kernel's own backward pass needs to be exact for Softmax_1.

On a CPU the kernel is torch's own; on CUDA it is cuDNN's, in half precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.backends import cuda
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from stanhop.hopfield import fused

PAYS_FROM = 256
"""Memories from which the fused kernel is taken on a CPU: see `stanhop bench kernels --shapes lengths`."""
PAYS_FROM_ON_CUDA = 256
"""The same on CUDA, where Triton kernels serve the shorter ones: see ``benchmarks/gpu.py``."""
LARGEST_HEAD_DIM, HEAD_DIM_STEP = 128, 8
"""Features of a head that cuDNN takes: multiples of 8."""


def suits(query: Tensor, memory: Tensor, values: Tensor, *, alpha: float | Tensor) -> bool:
    """Whether ``attend`` can serve these tensors and is worth it."""
    is_softmax = not isinstance(alpha, Tensor) and alpha == 1
    if not is_softmax or query.shape[-1] != values.shape[-1]:
        return False
    if query.is_cuda:
        return memory.shape[-2] >= PAYS_FROM_ON_CUDA and _suits_cudnn(query, memory, values)
    is_precise = query.dtype in (torch.float32, torch.float64)
    return query.device.type == "cpu" and is_precise and memory.shape[-2] >= PAYS_FROM


def attend(query: Tensor, memory: Tensor, values: Tensor, *, no_op: bool, beta: float) -> Tensor:
    """``retrieve`` at alpha = 1, without mask, clipping and dropout, for tensors that ``suits`` accepts but for length.

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
        for patterns in (query, memory, values)
    )  # (batch, heads, length, head_dim)
    retrieved = _attended(query, memory, values, no_op=no_op, beta=beta)
    return retrieved.reshape(*batch, *retrieved.shape[-2:])


def _attended(query: Tensor, memory: Tensor, values: Tensor, *, no_op: bool, beta: float) -> Tensor:
    retrieved: Tensor
    if no_op:
        function = _AttendNoOpByCudnn if query.is_cuda else _AttendNoOp
        retrieved = function.apply(query, memory, values, beta)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    elif query.is_cuda:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            retrieved = functional.scaled_dot_product_attention(query, memory, values, scale=beta)
    else:
        retrieved = functional.scaled_dot_product_attention(query, memory, values, scale=beta)
    return retrieved


def _suits_cudnn(query: Tensor, memory: Tensor, values: Tensor) -> bool:
    """Whether cuDNN and Triton are there and take these tensors, whatever their batch axes."""
    if torch.compiler.is_compiling():  # compiled, cuDNN's operator gave other numbers, seen with torch 2.11
        return False
    if fused.unusable_because(query.device) is not None:
        return False
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    is_whole = query.shape[-1] % HEAD_DIM_STEP == 0 and query.shape[-1] <= LARGEST_HEAD_DIM
    if not is_half or not is_whole or torch.cuda.get_device_capability(query.device) < (9, 0):
        return False
    one, other, third = (_first_of_batch(each.detach()) for each in (query, memory, values))
    return bool(cuda.can_use_cudnn_attention(cuda.SDPAParams(one, other, third, None, 0.0, False, False)))


def _first_of_batch(patterns: Tensor) -> Tensor:
    """The first entry along all batch axes, ``(1, heads, length, head_dim)``; a view."""
    return patterns[(0,) * (patterns.dim() - 3)].unsqueeze(0)


class _AttendNoOp(Function):
    """Softmax_1 over (batch, heads, length, head_dim) on a CPU."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor, beta: float) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        retrieved: Tensor
        retrieved, log_sum = kernel(query, memory, values, 0.0, False, scale=beta)
        retrieved = retrieved.mul_(log_sum.sigmoid().unsqueeze(-1))
        with_no_op = functional.softplus(
            log_sum, threshold=50
        )  # torch's own threshold of 20 costs a float64 six digits
        ctx.save_for_backward(query, memory, values, retrieved, with_no_op)
        ctx.beta = beta
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return (*kernel(retrieved_grad, *ctx.saved_tensors, 0.0, False, scale=ctx.beta), None)


class _AttendNoOpByCudnn(Function):
    """Softmax_1 over (batch, heads, length, head_dim) on CUDA."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor, beta: float) -> Tensor:
        from stanhop.kernels.no_op import add_no_op

        found = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, memory, values, None, True, 0.0, False, False, scale=beta
        )
        retrieved: Tensor
        retrieved, log_sum = found[:2]
        add_no_op(retrieved, log_sum)
        ctx.save_for_backward(query, memory, values, retrieved, log_sum)
        ctx.lengths, ctx.randomness, ctx.beta = found[2:6], found[6:8], beta
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel = torch.ops.aten._scaled_dot_product_cudnn_attention_backward
        gradients = kernel(
            retrieved_grad, *ctx.saved_tensors, *ctx.randomness, None, *ctx.lengths, 0.0, False, scale=ctx.beta
        )
        return (*gradients[:3], None)
