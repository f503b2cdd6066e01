"""Other people's packages, imported when their turn comes; each says what it cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stanhop.benchmarks.kernels.cases import OUTEFFHOP, Case, Tensors, beta
from stanhop.benchmarks.kernels.ways import Unserved, Way

SMALLEST_ADASPLASH = 128
"""Queries below which its tiles reach out of bounds: with 64 an H200 reported an illegal memory access."""


def entmax_bisect(num_steps: int) -> Callable[[Case], Way]:
    """alpha-entmax by bisection, with the gradient by alpha: what the published STanHop code calls, with 50 steps."""

    def make(case: Case) -> Way:
        if case.rule.alpha == 1:
            raise Unserved("is for alpha > 1")
        from entmax import entmax_bisect as bisect

        def separated(scores: Tensor, given: Tensors) -> Tensor:
            weights: Tensor = bisect(scores, alpha=case.rule.broadcast_alpha_of(given), n_iter=num_steps)
            return weights

        return _with_weights(case, separated)

    return make


def entmax_sort(case: Case) -> Way:
    """The exact solutions by sorting, at alpha 1.5 and 2."""
    import entmax

    if case.rule.alpha not in (1.5, 2):
        raise Unserved("is for alpha 1.5 and 2")
    exact = entmax.entmax15 if case.rule.alpha == 1.5 else entmax.sparsemax
    return _with_weights(case, lambda scores, _: exact(scores, dim=-1))


def liger_sparsemax(case: Case) -> Way:
    """Sparsemax of rows, by sorting and one pass."""
    if case.rule.alpha != 2:
        raise Unserved("is for alpha 2")
    from liger_kernel.transformers.functional import liger_sparsemax as sparsemax

    return _with_weights(case, lambda scores, _: sparsemax(scores, -1))


def adasplash_1(case: Case) -> Way:
    """Fused alpha-entmax attention with one fixed alpha, which has no gradient."""
    _check_adasplash(case)
    from adasplash import adasplash_v1

    alpha = case.rule.alpha

    def run(given: Tensors) -> Tensor:
        retrieved: Tensor = adasplash_v1(given["query"], given["memory"], given["values"], alpha=alpha, is_causal=False)
        return retrieved

    return Way(run, case.rule, is_capturable=False, is_contiguous=True)


def adasplash_2(case: Case) -> Way:
    """Its successor, which is causal and for alpha 1.5: half the work, so it only gives the scale."""
    _check_adasplash(case)
    if case.rule.alpha != 1.5:
        raise Unserved("is for alpha 1.5")
    from adasplash import adasplash_v2

    def run(given: Tensors) -> Tensor:
        retrieved: Tensor = adasplash_v2(given["query"], given["memory"], given["values"])
        return retrieved

    causal = dataclasses.replace(case.rule, name="entmax 1.5, causal", is_causal=True)
    return Way(run, causal, is_capturable=False, is_contiguous=True)


def adasplash_rows(case: Case) -> Way:
    """Its kernel for scores alone, which a retrieval puts between two matrix products; alpha is fixed."""
    if case.rule.is_learned or case.rule.alpha == 1:
        raise Unserved("computes one fixed alpha > 1")
    from adasplash import triton_entmax

    alpha = case.rule.alpha
    return _with_weights(case, lambda scores, _: triton_entmax(scores.contiguous(), alpha=alpha))


def flash_attention_softmax_n(case: Case) -> Way:
    """Softmax_n through SDPA, n = 1."""
    if case.shape.is_rows or case.rule != OUTEFFHOP:
        raise Unserved("computes Softmax_1 only")
    from flash_attention_softmax_n import flash_attention_n

    scale = beta(case.shape)

    def run(given: Tensors) -> Tensor:
        retrieved: Tensor = flash_attention_n(
            given["query"], given["memory"], given["values"], softmax_n_param=1, scale=scale
        )
        return retrieved

    return Way(run, case.rule)


def transformer_engine(case: Case) -> Way:
    """Softmax_1 under its name there, by cuDNN where that is new enough."""
    if case.shape.is_rows or case.rule != OUTEFFHOP:
        raise Unserved("computes Softmax_1 only")
    if case.dtype == torch.float32:
        raise Unserved("takes half precision only")
    from transformer_engine.pytorch import DotProductAttention

    layer = DotProductAttention(
        case.shape.heads, case.shape.head_dim, attention_dropout=0.0, attn_mask_type="no_mask",
        softmax_scale=beta(case.shape), qkv_format="bshd", softmax_type="off-by-one",
    )  # fmt: skip
    length = (case.shape.batch, -1, case.shape.heads, case.shape.head_dim)

    def run(given: Tensors) -> Tensor:
        patterns = (given[name].transpose(1, 2).expand(*length) for name in ("query", "memory", "values"))
        retrieved: Tensor = layer(*patterns)  # (batch, queries, heads * head_dim)
        heads: Tensor = retrieved.unflatten(-1, (case.shape.heads, -1)).transpose(1, 2)
        return heads

    return Way(run, case.rule)


def _check_adasplash(case: Case) -> None:
    shape = case.shape
    if shape.is_rows or case.rule.is_learned or case.rule.no_op or case.rule.alpha == 1:
        raise Unserved("computes retrieval with one fixed alpha > 1 and without no-op memory")
    is_power = shape.queries & (shape.queries - 1) == 0
    if shape.queries != shape.memories or shape.queries < SMALLEST_ADASPLASH or not is_power or shape.is_shared:
        raise Unserved("needs as many queries as memories, a power of 2 from 128 on")


def _with_weights(case: Case, separated: Callable[[Tensor, Tensors], Tensor]) -> Way:
    """Rows separated, or a retrieval by matrix products around them; a no-op memory is a column of zeros."""
    no_op = case.rule.no_op
    scale = 0.0 if case.shape.is_rows else beta(case.shape)

    def weights_of(scores: Tensor, given: Tensors) -> Tensor:
        if not no_op:
            return separated(scores, given)
        return separated(functional.pad(scores, (0, 1)), given)[..., :-1]

    def retrieve(given: Tensors) -> Tensor:
        scores = (given["query"] * scale) @ given["memory"].transpose(-1, -2)
        weights = weights_of(scores.float(), given)  # these packages give NaN, or refuse, in half precision
        return weights.to(scores.dtype) @ given["values"]

    if case.shape.is_rows:
        return Way(lambda given: weights_of(given["scores"], given), case.rule)
    return Way(retrieve, case.rule)
