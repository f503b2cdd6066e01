"""Retrieval: what memories answer to a query, the energy this lowers, and the choice of how to compute it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from stanhop.errors import Code, ConfigError, quoted
from stanhop.hopfield import attention, fast_softmax, fused
from stanhop.hopfield.dispatch import Method, choose
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.separation import separate


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
    num_updates: int = 1,
    method: Method = "auto",
) -> Tensor:
    r"""Read out the ``values`` of the memories that each query resembles.

    .. math:: x \leftarrow \mathrm{weights}(\beta\, x\, memory^T)\, memory, \qquad
              retrieved = \sigma(gate)\, \mathrm{weights}(\beta\, x\, memory^T)\, values

    The left step is taken ``num_updates`` - 1 times, starting from the query, then the right one once.

    Args:
        query: ``(..., heads, queries, head_dim)``; the leading batch axes broadcast.
        memory: ``(..., heads, memories, head_dim)``.
        values: ``(..., heads, memories, values_dim)``.
        alpha: Sparsity in [1, 2]: a number, or one a head, ``(heads,)``, which the definition allows to be larger.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature; 1 / sqrt(head_dim) if None.
        clip: ``(zeta, eta)`` as in ``Separation.clip``.
        mask: ``(..., memories)``, True where a memory may be retrieved. What the others hold, NaN included, has no
            influence.
        gate: ``(..., heads, queries)``: logits of the share of each read-out that is let through; all of it if None.
        dropout: Share of the weights that the read-out drops, scaling up the rest; for training only.
        num_updates: How often the retrieval dynamics is applied, at least 1.
        method: How to compute.

    Returns:
        ``(..., heads, queries, values_dim)``; 0 for a query whose memories are all masked.

    Raises:
        ConfigError: alpha, num_updates or method is outside of what is said above, or ``triton`` does not take these
            tensors.

    Source: Hu et al. 2024, arXiv:2404.03828, and Wu et al. 2024, arXiv:2312.17346: their retrieval dynamics. Gate:
    Bondarenko et al. 2023, arXiv:2306.12929.
    """
    rule = _rule(query, alpha=alpha, no_op=no_op, beta=beta, clip=clip, mask=mask, method=method)
    if _is_shared(query, memory, values, mask):
        rows = query.movedim(-3, 0)  # (heads, ..., queries, head_dim)
        memory, values = memory.reshape(memory.shape[-3:]), values.reshape(values.shape[-3:])
        row_gate = None if gate is None else gate.movedim(-2, 0).flatten(1)  # (heads, batch * queries)
        state = _updated(rows.flatten(1, -2), memory, rule, num_updates=num_updates - 1)
        retrieved = _read_out(state, memory, values, rule, gate=row_gate, dropout=dropout)
        unfolded: Tensor = retrieved.unflatten(1, rows.shape[1:-1])  # (heads, ..., queries, values_dim)
        return unfolded.movedim(0, -3)
    state = _updated(query, memory, rule, num_updates=num_updates - 1)
    return _read_out(state, memory, values, rule, gate=gate, dropout=dropout)


def retrieval_weights(
    query: Tensor,
    memory: Tensor,
    *,
    alpha: float | Tensor,
    no_op: bool,
    beta: float | None = None,
    clip: tuple[float, float] | None = None,
    mask: Tensor | None = None,
    num_updates: int = 1,
    method: Method = "auto",
) -> Tensor:
    """The share of each memory in what ``retrieve`` reads out, ``(..., heads, queries, memories)``, before the gate.

    The arguments are those of ``retrieve``.
    """
    rule = _rule(query, alpha=alpha, no_op=no_op, beta=beta, clip=clip, mask=mask, method=method)
    state = _updated(query, memory, rule, num_updates=num_updates - 1)
    return _weights(state, _without_masked(memory, mask), rule)


def energy(state: Tensor, memory: Tensor, *, alpha: float | Tensor, no_op: bool, beta: float | None = None) -> Tensor:
    r"""The energy that retrieval with ``values = memory`` never raises.

    .. math:: H(x) = -\frac{1}{\beta} \Psi^*_\alpha(\beta\, x\, memory^T) + \frac{1}{2} \langle x, x \rangle

    :math:`\Psi^*_\alpha(z) = \max_p \langle p, z \rangle - \Psi_\alpha(p)` is the convex conjugate of the negative
    Tsallis entropy :math:`\Psi_\alpha(p) = \sum_i (p_i^\alpha - p_i) / (\alpha (\alpha - 1))`; at alpha = 1 it is the
    log-sum-exp. The no-op memory enters as a memory at the origin.

    Args:
        state: ``(..., heads, queries, head_dim)``.
        memory: ``(..., heads, memories, head_dim)``.
        alpha: Sparsity in [1, 2]: a number, or one a head, ``(heads,)``.
        no_op: Whether a memory of score 0 and value 0 competes.
        beta: Inverse temperature; 1 / sqrt(head_dim) if None.

    Returns:
        ``(..., heads, queries)``.

    Source: Hu et al. 2024, arXiv:2404.03828, and Wu et al. 2024, arXiv:2312.17346: their energies.
    """
    if no_op:
        memory = functional.pad(memory, (0, 0, 0, 1))  # (..., heads, memories + 1, head_dim)
    rule = _rule(state, alpha=alpha, no_op=False, beta=beta, clip=None, mask=None, method="definition")
    scores = _scores(state, memory, rule)
    weights = separate(scores, alpha=rule.alpha, no_op=False)
    conjugate = (weights * scores).sum(dim=-1) - _negative_tsallis_entropy(weights, rule.alpha)
    return state.square().sum(dim=-1) / 2 - conjugate / rule.beta


@dataclass(frozen=True)
class _Rule:
    """How to retrieve, once checked: the arguments of ``retrieve`` but for its patterns."""

    alpha: float | Tensor  # a tensor is (heads, 1, 1)
    no_op: bool
    beta: float
    clip: tuple[float, float] | None
    mask: Tensor | None
    method: Method


def _rule(
    query: Tensor,
    *,
    alpha: float | Tensor,
    no_op: bool,
    beta: float | None,
    clip: tuple[float, float] | None,
    mask: Tensor | None,
    method: Method,
) -> _Rule:
    if not isinstance(alpha, Tensor) and not 1 <= alpha <= 2:  # looking into a tensor would stall a GPU
        raise ConfigError(Code.CONFIG, f"retrieve: alpha ({alpha}) must lie in [1, 2]")
    if method not in get_args(Method):
        raise ConfigError(Code.CONFIG, f"retrieve: method ({quoted(method)}) must be one of {get_args(Method)}")
    per_head = alpha[:, None, None] if isinstance(alpha, Tensor) else alpha
    beta = 1 / math.sqrt(query.shape[-1]) if beta is None else beta
    return _Rule(alpha=per_head, no_op=no_op, beta=beta, clip=clip, mask=mask, method=method)


def _is_shared(query: Tensor, memory: Tensor, values: Tensor, mask: Tensor | None) -> bool:
    """Whether all batch entries of ``query`` ask the same memories: their queries then fit into one product a head."""
    batch_sizes = {patterns.shape[:-3].numel() for patterns in (memory, values)}
    return query.dim() > 3 and batch_sizes == {1} and mask is None


def _updated(state: Tensor, memory: Tensor, rule: _Rule, *, num_updates: int) -> Tensor:
    """The state after ``num_updates`` steps of the dynamics, 0 or more."""
    if num_updates < 0:
        raise ConfigError(Code.CONFIG, f"retrieve: num_updates ({num_updates + 1}) must be at least 1")
    for _ in range(num_updates):
        state = _read_out(state, memory, memory, rule, gate=None, dropout=0.0)
    return state


def _read_out(
    state: Tensor, memory: Tensor, values: Tensor, rule: _Rule, *, gate: Tensor | None, dropout: float
) -> Tensor:
    """One retrieval, by the way that ``dispatch`` chooses."""
    plain = rule.clip is None and rule.mask is None and dropout == 0
    way = choose(state, memory, values, alpha=rule.alpha, is_plain=plain, method=rule.method).way
    if way == "triton":
        return fused.read_out(
            state, memory, values,
            alpha=rule.alpha, no_op=rule.no_op, beta=rule.beta, clip=rule.clip, mask=rule.mask,
            gate=gate, dropout=dropout,
        )  # fmt: skip
    memory, values = _without_masked(memory, rule.mask), _without_masked(values, rule.mask)
    if way == "attention":
        retrieved = attention.attend(state, memory, values, no_op=rule.no_op, beta=rule.beta)
    elif way == "softmax":
        retrieved = fast_softmax.read_out(state, memory, values, no_op=rule.no_op, beta=rule.beta)
    else:
        weights = _weights(state, memory, rule)
        retrieved = (functional.dropout(weights, dropout) if dropout else weights) @ values
    return retrieved if gate is None else retrieved * gate.sigmoid().unsqueeze(-1)


def _weights(state: Tensor, memory: Tensor, rule: _Rule) -> Tensor:
    separation = separate if rule.method == "definition" else fast_separate
    return separation(_scores(state, memory, rule), alpha=rule.alpha, no_op=rule.no_op, clip=rule.clip)


def _scores(state: Tensor, memory: Tensor, rule: _Rule) -> Tensor:
    """``(..., heads, queries, memories)``, -inf where masked."""
    scores = (state * rule.beta) @ memory.transpose(-1, -2)  # scaling before the product keeps float16 from overflowing
    return scores if rule.mask is None else scores.masked_fill(~rule.mask[..., None, None, :], -math.inf)


def _without_masked(patterns: Tensor, mask: Tensor | None) -> Tensor:
    """``patterns`` (..., heads, memories, dim), 0 where masked: a weight of 0 does not silence NaN."""
    return patterns if mask is None else patterns.masked_fill(~mask[..., None, :, None], 0.0)


def _negative_tsallis_entropy(weights: Tensor, alpha: float | Tensor) -> Tensor:
    """``sum(p ** alpha - p) / (alpha (alpha - 1))`` over the last axis; ``sum(p log p)`` where alpha is 1."""
    a = torch.as_tensor(alpha, dtype=weights.dtype, device=weights.device) - 1
    log_weights = torch.where(weights > 0, weights, 1.0).log()
    power = torch.where(a == 0, log_weights, (a * log_weights).expm1() / torch.where(a == 0, 1.0, a))
    return (weights * power / (a + 1)).sum(dim=-1)
