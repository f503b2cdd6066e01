"""Retrieval by the Triton kernels: whether they can serve the tensors at hand, and how these are handed over.

The kernels are imported when a CUDA tensor first comes by, so that everything else works where Triton is not installed.
"""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SMALLEST_CAPABILITY = (8, 0)
"""Compute capability from which a GPU has bfloat16 and TF32 products."""

_PROBLEMS: dict[int, str | None] = {}
"""What was found out about each CUDA device."""


def refusal(query: Tensor, memory: Tensor, values: Tensor, *, in_interpreter: bool = False) -> str | None:
    """Why the kernels do not take these tensors, whose shapes are those of ``retrieve``; None if they do.

    Args:
        query: As in ``retrieve``.
        memory: As in ``retrieve``.
        values: As in ``retrieve``.
        in_interpreter: Whether Triton's interpreter will do (``TRITON_INTERPRET=1``), which runs on a CPU and is for
            tests.
    """
    is_interpreted = in_interpreter and os.environ.get("TRITON_INTERPRET") == "1"
    reason = None if is_interpreted else unusable_because(query.device)
    if reason is not None:
        return reason
    from stanhop import kernels

    return kernels.refusal(*_with_one_batch_axis(query, memory, values))


def read_out(
    query: Tensor,
    memory: Tensor,
    values: Tensor,
    *,
    alpha: float | Tensor,
    no_op: bool,
    beta: float,
    clip: tuple[float, float] | None,
    mask: Tensor | None,
    gate: Tensor | None,
    dropout: float,
) -> Tensor:
    """One update of ``retrieve`` in one kernel; the arguments are as there, ``alpha`` broadcasting over the heads."""
    from stanhop import kernels

    batch = torch.broadcast_shapes(query.shape[:-3], memory.shape[:-3], values.shape[:-3])
    retrieved = kernels.retrieve(
        *_with_one_batch_axis(query, memory, values),
        alpha=alpha.flatten() if isinstance(alpha, Tensor) else alpha,
        no_op=no_op,
        beta=beta,
        clip=clip,
        mask=None if mask is None else mask.expand(*batch, -1).reshape(-1, mask.shape[-1]),
        gate=None if gate is None else gate.expand(*batch, -1, -1).reshape(-1, *gate.shape[-2:]),
        dropout=dropout,
    )
    return retrieved.unflatten(0, batch) if batch else retrieved.squeeze(0)


def separates(scores: Tensor) -> bool:
    """Whether ``separated`` serves these scores."""
    if not scores.is_cuda or unusable_because(scores.device) is not None:
        return False
    from stanhop.kernels import rows_operator

    return rows_operator.suits(scores)


def separated(scores: Tensor, *, alpha: float | Tensor, no_op: bool) -> Tensor:
    """``separation.separate`` in one kernel, without clipping, for an alpha in [1, 2]."""
    from stanhop import kernels

    return kernels.separate_rows(scores, alpha=alpha, no_op=no_op)


def unusable_because(device: torch.device) -> str | None:
    """Why the kernels do not run on ``device``, or None if they do; tried out once a device.

    While torch compiles nothing can be tried out: a device that was not before is taken to work.
    """
    if device.type != "cuda":
        return f"the tensors are on a {device.type.upper()} device, the kernels need CUDA"
    index = device.index or 0
    if index not in _PROBLEMS:
        if torch.compiler.is_compiling():
            return None
        _PROBLEMS[index] = _problem_on_cuda(index)
    return _PROBLEMS[index]


def _problem_on_cuda(index: int) -> str | None:
    """Run a small retrieval there and back; what goes wrong is said once, and torch serves from then on."""
    if torch.cuda.get_device_capability(index) < SMALLEST_CAPABILITY:
        return f"compute capability {torch.cuda.get_device_capability(index)} is below {SMALLEST_CAPABILITY}"
    try:
        from stanhop import kernels

        with torch.enable_grad(), torch.cuda.device(index):
            patterns = torch.ones(1, 1, 3, 16, device="cuda", requires_grad=True)
            kernels.retrieve(patterns, patterns, patterns, alpha=1.0, no_op=True).sum().backward()
            torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as problem:
        reason = f"they do not work here: {type(problem).__name__}: {problem}".splitlines()[0]
        logger.warning("Triton kernels are left unused, torch takes over: %s", reason)
        return reason
    return None


def _with_one_batch_axis(*patterns: Tensor) -> tuple[Tensor, ...]:
    """Patterns ``(..., heads, length, features)`` as ``(batch, heads, length, features)``, broadcast, not copied."""
    batch = torch.broadcast_shapes(*(each.shape[:-3] for each in patterns))
    return tuple(each.expand(*batch, *each.shape[-3:]).reshape(-1, *each.shape[-3:]) for each in patterns)
