"""What torch ships for attention: SDPA with each of its backends, FlexAttention; Softmax_1 by their log-sum-exp.

With ``out`` and ``lse`` of softmax, the read-out of Softmax_1 is ``out * sigmoid(lse)`` and its own log-sum-exp
``softplus(lse)``; the vendor's backward pass, fed with that pair, is exact for Softmax_1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from stanhop.benchmarks.kernels.cases import OUTEFFHOP, SOFTMAX, Case, Rule, Tensors, beta
from stanhop.benchmarks.kernels.ways import Unserved, Way

HALF = (torch.float16, torch.bfloat16)

Forward = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, tuple[Any, ...]]]
"""Maps query, memory, values and scale to read-out, log-sum-exp, and what the backward pass needs besides."""
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]


def sdpa_softmax(case: Case) -> Way:
    """Plain softmax attention, backend by torch's choice; it gives the scale."""
    return _sdpa(case, SOFTMAX, nullcontext)


def sdpa_zero_memory(case: Case) -> Way:
    """Softmax_1 as softmax over one memory more, which is 0 and holds 0."""
    if case.shape.is_rows or case.rule != OUTEFFHOP:
        raise Unserved("computes Softmax_1 only")
    scale = beta(case.shape)

    def run(given: Tensors) -> Tensor:
        memory, values = (functional.pad(given[name], (0, 0, 0, 1)) for name in ("memory", "values"))
        memory, values = _expanded(given["query"], memory, values)
        return functional.scaled_dot_product_attention(given["query"], memory, values, scale=scale)

    return Way(run, case.rule)


@dataclass(frozen=True)
class Backend:
    """One of SDPA's kernels on CUDA.

    Args:
        backend: As torch names it.
        takes_float32: Whether it takes more than half precision.
        forward: The operator with its log-sum-exp.
        backward: Its backward pass.
    """

    backend: SDPBackend
    takes_float32: bool
    forward: Forward
    backward: Backward

    def softmax(self, case: Case) -> Way:
        """Plain softmax by this kernel; it gives the scale."""
        self._check(case)
        return _sdpa(case, SOFTMAX, lambda: sdpa_kernel(self.backend))

    def softmax_1(self, case: Case) -> Way:
        """Softmax_1 by this kernel and its log-sum-exp."""
        self._check(case)
        if case.rule != OUTEFFHOP:
            raise Unserved("computes Softmax_1 only")
        scale = beta(case.shape)

        def run(given: Tensors) -> Tensor:
            memory, values = _expanded(given["query"], given["memory"], given["values"])
            retrieved: Tensor = _WithNoOp.apply(given["query"], memory, values, scale, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return retrieved

        return Way(run, case.rule)

    def _check(self, case: Case) -> None:
        if case.dtype not in HALF and not self.takes_float32:
            raise Unserved("takes half precision only")


class _WithNoOp(Function):
    """Softmax_1 by a kernel for softmax that tells its log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, values: Tensor, scale: float, backend: Backend) -> Tensor:
        retrieved, log_sum, rest = backend.forward(query, memory, values, scale)
        length = query.shape[-2]
        share = log_sum.reshape(*query.shape[:2], -1)[..., :length].sigmoid().unsqueeze(-1)  # lse may be padded
        retrieved = (retrieved * share).to(query.dtype)
        ctx.save_for_backward(query, memory, values, retrieved, functional.softplus(log_sum, threshold=50))
        ctx.rest, ctx.scale, ctx.backend = rest, scale, backend
        return retrieved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, retrieved_grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.backend.backward(retrieved_grad, *ctx.saved_tensors, ctx.rest, ctx.scale)
        return (*gradients, None, None)


def _flash_forward(
    query: Tensor, memory: Tensor, values: Tensor, scale: float
) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    found = torch.ops.aten._scaled_dot_product_flash_attention(query, memory, values, 0.0, False, False, scale=scale)
    return found[0], found[1], tuple(found[2:8])


def _flash_backward(
    retrieved_grad: Tensor, query: Tensor, memory: Tensor, values: Tensor, retrieved: Tensor, log_sum: Tensor,
    rest: tuple[Any, ...], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    *lengths, seed, offset = rest
    found = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        retrieved_grad, query, memory, values, retrieved, log_sum, *lengths, 0.0, False, seed, offset, scale=scale
    )
    return found[0], found[1], found[2]


def _efficient_forward(
    query: Tensor, memory: Tensor, values: Tensor, scale: float
) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    found = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, memory, values, None, True, 0.0, False, scale=scale
    )
    return found[0], found[1], tuple(found[2:4])


def _efficient_backward(
    retrieved_grad: Tensor, query: Tensor, memory: Tensor, values: Tensor, retrieved: Tensor, log_sum: Tensor,
    rest: tuple[Any, ...], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        retrieved_grad, query, memory, values, None, retrieved, log_sum, *rest, 0.0, [True, True, True, False], False,
        scale=scale,
    )  # fmt: skip
    return found[0], found[1], found[2]


def _cudnn_forward(
    query: Tensor, memory: Tensor, values: Tensor, scale: float
) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    found = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query, memory, values, None, True, 0.0, False, False, scale=scale
    )
    return found[0], found[1], tuple(found[2:8])


def _cudnn_backward(
    retrieved_grad: Tensor, query: Tensor, memory: Tensor, values: Tensor, retrieved: Tensor, log_sum: Tensor,
    rest: tuple[Any, ...], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    *lengths, seed, offset = rest
    found = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        retrieved_grad, query, memory, values, retrieved, log_sum, seed, offset, None, *lengths, 0.0, False, scale=scale
    )
    return found[0], found[1], found[2]


BACKENDS = {
    "flash": Backend(SDPBackend.FLASH_ATTENTION, False, _flash_forward, _flash_backward),
    "efficient": Backend(SDPBackend.EFFICIENT_ATTENTION, True, _efficient_forward, _efficient_backward),
    "cuDNN": Backend(SDPBackend.CUDNN_ATTENTION, False, _cudnn_forward, _cudnn_backward),
}


def flex_attention(case: Case) -> Way:
    """Softmax_1 by FlexAttention, compiled, and its log-sum-exp, all under autograd."""
    if case.shape.is_rows or case.rule != OUTEFFHOP:
        raise Unserved("computes Softmax_1 only")
    if case.device.type != "cuda":
        raise Unserved("needs CUDA")
    compiled, scale = _compiled_flex_attention(), beta(case.shape)

    def run(given: Tensors) -> Tensor:
        memory, values = _expanded(given["query"], given["memory"], given["values"])
        retrieved, log_sum = compiled(given["query"], memory, values, scale=scale, return_lse=True)
        shrunk: Tensor = retrieved * log_sum.sigmoid().unsqueeze(-1).to(retrieved.dtype)
        return shrunk

    return Way(run, case.rule)


@functools.cache
def _compiled_flex_attention() -> Any:
    import torch._functorch.config as functorch_config
    from torch.nn.attention.flex_attention import flex_attention as flex

    functorch_config.donated_buffer = False  # the backward pass is timed again and again on one graph
    return torch.compile(flex, dynamic=False)


def _sdpa(case: Case, rule: Rule, chosen: Callable[[], AbstractContextManager[Any]]) -> Way:
    if case.shape.is_rows or case.rule.alpha != 1:
        raise Unserved("computes softmax only")
    scale = beta(case.shape)

    def run(given: Tensors) -> Tensor:
        memory, values = _expanded(given["query"], given["memory"], given["values"])
        with chosen():
            return functional.scaled_dot_product_attention(given["query"], memory, values, scale=scale)

    return Way(run, rule)


def _expanded(query: Tensor, memory: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Memory and values with the batch axis of ``query``, which these kernels do not broadcast."""
    batch = len(query)
    return memory.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
