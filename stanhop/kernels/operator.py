"""Fused retrieval as a torch operator: it can be differentiated, compiled and captured in a CUDA graph."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stanhop.kernels.launch import (
    Rule,
    Tensors,
    gradient_like,
    launch_backward,
    launch_forward,
    needs_retrieved,
    output_like,
    statistics_like,
    with_dense_features,
)
from stanhop.kernels.plan import LARGEST_HEAD_DIM

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KINDS = {1.0: "softmax", 1.5: "entmax15", 2.0: "sparsemax"}
"""Fixed alphas that need no powers."""
LARGEST_SEED = 2**62


def retrieve(
    query: Tensor,
    memory: Tensor,
    values: Tensor,
    *,
    alpha: float | Tensor,
    no_op: bool,
    beta: float | None = None,
    clip: tuple[float, float] | None = None,
    mask: Tensor | None = None,
    gate: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    r"""Read out the ``values`` of the memories that each query resembles, in one kernel.

    .. math:: retrieved = \sigma(gate)\, dropout(clip(\alpha\text{-entmax}(\beta\, query\, memory^T)))\, values

    The Triton version of ``stanhop.hopfield.retrieve`` at one update. No array of queries x memories is stored. Results
    are repeatable bit for bit; second derivatives are refused.

    Args:
        query: ``(batch, heads, queries, head_dim)``; any strides, as for all tensors here (a tensor whose features do
            not lie side by side is copied). Expanded axes are read in place.
        memory: ``(batch, heads, memories, head_dim)``, in the dtype of ``query``.
        values: ``(batch, heads, memories, values_dim)``, likewise.
        alpha: Sparsity in [1, 2]: a number, or a tensor ``(heads,)`` on the same device, which may be learned and is
            never looked at from the host.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature; 1 / sqrt(head_dim) if None.
        clip: ``(zeta, eta)``: weights are stretched to [-zeta / memories that count, eta] and clipped to [0, 1].
        mask: ``(batch, memories)``, True where a memory may be retrieved; what the others hold has no influence.
        gate: ``(batch, heads, queries)``: each read-out is multiplied by its sigmoid.
        dropout: Share of the weights dropped, the rest scaled up.

    Returns:
        ``(batch, heads, queries, values_dim)``, 0 where all memories are masked. NaN and infinite scores make their
        query's row NaN.

    Raises:
        ValueError: shapes, dtypes or sizes that the kernels do not take; see ``refusal``.

    Source: Softmax_1, Hu et al. 2024, arXiv:2404.03828; GSH, Wu et al. 2024, arXiv:2312.17346.
    """
    reason = refusal(query, memory, values)
    if reason is not None:
        raise ValueError(f"retrieve: {reason}")
    kind = "entmax" if isinstance(alpha, Tensor) else KINDS.get(float(alpha), "entmax")
    per_head: Tensor | None = None
    if kind == "entmax":
        per_head = alpha if isinstance(alpha, Tensor) else query.new_full(query.shape[1:2], alpha, dtype=torch.float32)
        per_head = per_head.expand(query.shape[1]).contiguous()
    # Drawn outside of the operator, by torch's generator on the device: seeded, graph-safe, never read by the host.
    seed = torch.randint(LARGEST_SEED, (1,), device=query.device) if dropout else None
    beta = 1 / math.sqrt(query.shape[-1]) if beta is None else float(beta)
    retrieved: Tensor
    retrieved, _ = _retrieve(query, memory, values, per_head, mask, gate, seed, kind, no_op, beta, clip, dropout)
    return retrieved


def refusal(query: Tensor, memory: Tensor, values: Tensor) -> str | None:
    """Why the kernels do not take these tensors, or None if they do; the device is not looked at."""
    patterns = (query, memory, values)
    if any(each.dim() != 4 for each in patterns):
        return f"query, memory and values must have 4 axes, got shapes {[tuple(each.shape) for each in patterns]}"
    if query.dtype not in DTYPES or any(each.dtype != query.dtype for each in patterns):
        return f"dtypes ({query.dtype}, {memory.dtype}, {values.dtype}) must be one of {DTYPES}, the same for all"
    if not query.shape[:2] == memory.shape[:2] == values.shape[:2]:
        return f"batch and heads differ: {[tuple(each.shape[:2]) for each in patterns]}"
    if query.shape[3] != memory.shape[3] or memory.shape[2] != values.shape[2]:
        return f"sizes do not match: query, memory, values are {[tuple(each.shape[2:]) for each in patterns]}"
    if not 1 <= min(query.shape[3], values.shape[3]) <= max(query.shape[3], values.shape[3]) <= LARGEST_HEAD_DIM:
        return f"head_dim ({query.shape[3]}) and values_dim ({values.shape[3]}) must lie in [1, {LARGEST_HEAD_DIM}]"
    return None


@torch.library.custom_op("stanhop::retrieve", mutates_args=())
def _retrieve(
    query: Tensor,
    memory: Tensor,
    values: Tensor,
    alpha: Tensor | None,
    mask: Tensor | None,
    gate: Tensor | None,
    seed: Tensor | None,
    kind: str,
    no_op: bool,
    beta: float,
    clip: Sequence[float] | None,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The read-out, and pivot and threshold of each query, which the backward pass needs."""
    tensors = _tensors(query, memory, values, alpha, mask, gate, seed)
    return launch_forward(tensors, _rule(kind, no_op, beta, clip, dropout))


@_retrieve.register_fake
def _fake_retrieve(query: Tensor, memory: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return output_like(query, values), statistics_like(query)


@torch.library.custom_op("stanhop::retrieve_backward", mutates_args=())
def _retrieve_backward(
    query: Tensor,
    memory: Tensor,
    values: Tensor,
    alpha: Tensor | None,
    mask: Tensor | None,
    gate: Tensor | None,
    seed: Tensor | None,
    kind: str,
    no_op: bool,
    beta: float,
    clip: Sequence[float] | None,
    dropout: float,
    learns_alpha: bool,
    retrieved: Tensor | None,
    retrieved_grad: Tensor,
    statistics: Tensor,
) -> list[Tensor]:
    """Gradients by query, memory and values, and by alpha and gate if these are learned and given."""
    tensors = _tensors(query, memory, values, alpha, mask, gate, seed)
    rule = _rule(kind, no_op, beta, clip, dropout)
    gradients = launch_backward(tensors, rule, retrieved, retrieved_grad, statistics, learns_alpha=learns_alpha)
    optional = [each for each in (gradients.alpha, gradients.gate) if each is not None]
    return [gradients.query, gradients.memory, gradients.values, *optional]


@_retrieve_backward.register_fake
def _fake_retrieve_backward(*arguments: Any) -> list[Tensor]:
    query, memory, values, alpha, _, gate, *_, learns_alpha, _, _, _ = arguments
    optional = [torch.empty_like(alpha)] if learns_alpha else []
    optional += [] if gate is None else [gradient_like(gate)]
    return [*map(gradient_like, (query, memory, values)), *optional]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, kind, no_op, beta, clip, dropout = inputs
    retrieved, statistics = output
    ctx.set_materialize_grads(False)
    ctx.rule = (kind, no_op, beta, clip, dropout)
    is_kept = needs_retrieved(Tensors(*tensors), _rule(*ctx.rule))
    ctx.save_for_backward(*tensors, retrieved if is_kept else None, statistics)


def _differentiate(ctx: Any, retrieved_grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if retrieved_grad is None:
        return (None,) * len(ctx.needs_input_grad)
    *tensors, retrieved, statistics = ctx.saved_tensors
    _, _, _, alpha, _, gate, _ = tensors
    learns_alpha = alpha is not None and ctx.needs_input_grad[3]
    query_grad, memory_grad, values_grad, *others = _retrieve_backward(
        *tensors, *ctx.rule, learns_alpha, retrieved, retrieved_grad, statistics
    )
    alpha_grad = others.pop(0) if learns_alpha else None
    gate_grad = None if gate is None else others.pop(0)
    return query_grad, memory_grad, values_grad, alpha_grad, None, gate_grad, *[None] * 6


_retrieve.register_autograd(_differentiate, setup_context=_keep_for_backward)


def _tensors(query: Tensor, memory: Tensor, values: Tensor, *others: Tensor | None) -> Tensors:
    query, memory, values = (with_dense_features(each) for each in (query, memory, values))
    return Tensors(query, memory, values, *others)


def _rule(kind: str, no_op: bool, beta: float, clip: Sequence[float] | None, dropout: float) -> Rule:
    return Rule(kind=kind, no_op=no_op, beta=beta, clip=None if clip is None else (clip[0], clip[1]), dropout=dropout)
