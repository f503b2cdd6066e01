"""Separation: how scores become retrieval weights. One equation with two knobs, and its slow, plain definition.

    weights = alpha-entmax([score_1, ..., score_M, 0 if no_op])[1..M]

``alpha`` runs from 1 (softmax: every memory gets a share) to 2 (sparsemax: few do). ``no_op`` adds a memory whose
score and value are 0, so that a query that resembles nothing may retrieve nothing. Everything that computes the same
faster must equal ``separate``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stanhop.errors import Code, ConfigError

CLIP = (0.25, 1.0)
"""Clipping of the presets, as ``(zeta, eta)``: see ``Separation.clip`` for why zeta is far below 1."""

NEGLIGIBLE_SCORE = -1e4
"""A score this far below its row's largest has weight 0 in every dtype: weights never exceed exp(difference)."""

BISECTIONS = 64
"""Halvings of the threshold's bracket, which is at most log(memories) wide: beyond the last digit of a float64."""


@dataclass(frozen=True)
class Separation:
    """One choice of the two knobs, and of clipping.

    Args:
        alpha: Sparsity in [1, 2]; None if each head learns its own in (1, 2).
        no_op: Whether a memory of score 0 and value 0 competes with the others.
        clip: ``(zeta, eta)`` stretches the weights to [-zeta / num_memories, eta] and clips them to [0, 1];
            None leaves them. A constant lower end, such as the -0.1 once used with 28 memories, silences every
            weight below 0.083 although the mean weight is 0.036. Tied to the number of memories, a weight
            becomes 0 below about ``zeta`` times the mean weight, whatever their number: zeta < 1 keeps a row of
            equal weights alive.

    Raises:
        ConfigError: alpha lies outside [1, 2], zeta is negative or eta below 1.

    Source: clipping, Bondarenko et al. 2023, arXiv:2306.12929, equation 4, with gamma = -zeta / length.
    """

    alpha: float | None
    no_op: bool
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 1 <= self.alpha <= 2:
            raise ConfigError(Code.CONFIG, f"separation: alpha ({self.alpha}) must lie in [1, 2]")
        if self.clip is not None and not (self.clip[0] >= 0 and self.clip[1] >= 1):
            zeta, eta = self.clip
            raise ConfigError(Code.CONFIG, f"separation: clip needs zeta ({zeta}) >= 0 and eta ({eta}) >= 1")


SEPARATIONS = {
    "outeffhop": Separation(alpha=1.0, no_op=True),
    "sparse_outeffhop": Separation(alpha=None, no_op=True),
    "softmax": Separation(alpha=1.0, no_op=False),
    "gsh": Separation(alpha=None, no_op=False),
    "sparsemax": Separation(alpha=2.0, no_op=False),
    "clipped_softmax": Separation(alpha=1.0, no_op=False, clip=CLIP),
    "clipped_outeffhop": Separation(alpha=1.0, no_op=True, clip=CLIP),
}
"""The separations of the papers, by name; ``sparse_outeffhop`` is GSH with a no-op memory."""


def separate(scores: Tensor, *, alpha: float | Tensor, no_op: bool, clip: tuple[float, float] | None = None) -> Tensor:
    r"""Turn scores into weights: the definition, slow and differentiable in ``scores`` and ``alpha``.

    .. math:: p_i = [1 + a (s_i - T)]_+^{1/a}, \quad a = \alpha - 1, \quad \sum_i p_i = 1

    with :math:`p_i = e^{s_i - T}` in the limit a = 0; the sum includes the no-op memory, the result does not.

    Args:
        scores: Similarities times beta, ``(..., memories)``. ``-inf`` marks a masked memory; NaN and ``+inf`` make
            their row NaN.
        alpha: At least 1: a number, or a tensor that broadcasts against ``scores``, such as ``(heads, 1, 1)``.
        no_op: Whether a memory of score 0 takes its share.
        clip: ``(zeta, eta)`` as in ``Separation.clip``; masked memories are not counted.

    Returns:
        Weights in the dtype of ``scores``, ``(..., memories)``, computed in float32 if that is a half precision.
        Without clipping each row sums to 1, with ``no_op`` to at most 1. A row whose memories are all masked has
        weights and gradients of 0, with or without ``no_op``.

    Source: Softmax_1, Hu et al. 2024, arXiv:2404.03828; GSH, Wu et al. 2024, arXiv:2312.17346; alpha-entmax,
    Peters et al. 2019, arXiv:1905.05702.
    """
    precise = in_full_precision(scores)
    columns = functional.pad(precise, (0, 1)) if no_op else precise  # (..., memories + 1) with no_op
    is_empty = (columns == -math.inf).all(dim=-1, keepdim=True)
    columns = columns.masked_fill(is_empty, 0.0)
    is_softmax = not isinstance(alpha, Tensor) and alpha == 1
    weights = columns.softmax(dim=-1) if is_softmax else _entmax(columns, alpha)
    weights = weights.masked_fill(is_empty, 0.0)
    if no_op:
        weights = weights[..., :-1]  # (..., memories)
    if clip is not None:
        weights = clipped(weights, scores, clip=clip)
    return weights.to(scores.dtype)


def clipped(weights: Tensor, scores: Tensor, *, clip: tuple[float, float]) -> Tensor:
    """Stretch ``weights`` to [-zeta / num_memories, eta] and clip them to [0, 1]; they no longer sum to 1.

    Args:
        weights: ``(..., memories)``.
        scores: What they were made of, same shape; ``-inf`` marks the memories that do not count.
        clip: ``(zeta, eta)``.
    """
    zeta, eta = clip
    num_memories = (scores != -math.inf).sum(dim=-1, keepdim=True).clamp(min=1)
    gamma = -zeta / num_memories.to(weights.dtype)
    return ((eta - gamma) * weights + gamma).clamp(0.0, 1.0)


def in_full_precision(scores: Tensor) -> Tensor:
    """``scores`` as they are, or in float32 if they are of half precision."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _entmax(scores: Tensor, alpha: float | Tensor) -> Tensor:
    """alpha-entmax over the last axis: bisection for the threshold, then one Newton step that carries gradients.

    At the root, the derivative of a Newton step is that of the root itself (implicit function theorem), so autograd
    needs no more than the step, whose slope may be a constant.
    """
    a = torch.as_tensor(alpha, dtype=scores.dtype, device=scores.device) - 1
    differences = (scores - scores.amax(dim=-1, keepdim=True).detach()).clamp(min=NEGLIGIBLE_SCORE)
    threshold = _threshold(differences.detach(), a.detach())  # (..., 1)
    weights = _power(differences - threshold, a)
    with torch.no_grad():
        slope = torch.where(weights > 0, weights ** (1 - a), 0.0).sum(dim=-1, keepdim=True)
    threshold = threshold + (weights.sum(dim=-1, keepdim=True) - 1) / slope
    weights = _power(differences - threshold, a)
    return weights / weights.sum(dim=-1, keepdim=True)


def _threshold(differences: Tensor, a: Tensor) -> Tensor:
    """The T at which the weights of ``differences`` (each at most 0, the largest 0) sum to 1, by bisection.

    At T = 0 the largest alone has weight 1; at T = log(n) none has more than 1/n.
    """
    low = torch.zeros_like(differences[..., :1])
    width = math.log(differences.shape[-1])
    for _ in range(BISECTIONS):
        width /= 2
        is_above = _power(differences - low - width, a).sum(dim=-1, keepdim=True) >= 1
        low = torch.where(is_above, low + width, low)
    return low


def _power(x: Tensor, a: Tensor) -> Tensor:
    """``[1 + a x]_+ ** (1 / a)``, and ``exp(x)`` where a is 0; gradients of both stay finite and exact."""
    y = a * x
    is_outside = y <= -1  # False for NaN, which so reaches the result
    y = y.masked_fill(is_outside, 0.0)
    is_near = y.abs() < 0.02
    series = _log1p_over_identity(torch.where(is_near, y, 0.0))
    far = torch.where(is_near, 1.0, y)
    ratio = torch.where(is_near, series, far.log1p() / far)
    return (x.masked_fill(is_outside, 0.0) * ratio).exp().masked_fill(is_outside, 0.0)


def _log1p_over_identity(y: Tensor) -> Tensor:
    """``log(1 + y) / y`` by its power series, for |y| < 0.02: the quotient has no derivative at 0."""
    total = torch.zeros_like(y)
    for k in range(11, 0, -1):  # 0.02 ** 11 is below the last digit of a float64
        total = 1 / k - y * total
    return total
