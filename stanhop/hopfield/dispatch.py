"""Which way computes a retrieval, and why: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from stanhop.errors import Code, ConfigError
from stanhop.hopfield import attention, fast_softmax, fused

Method = Literal["auto", "definition", "fast", "triton"]
"""What may be asked for: a way, or with ``auto`` the fastest there is for the tensors at hand."""

Way = Literal["definition", "fast", "triton", "attention", "softmax"]
"""``definition`` is the slow way that all others must equal; ``fast`` takes the same steps with the fast separation,
``triton`` one fused kernel. At alpha 1, ``softmax`` takes the steps of a retrieval in few
passes over memory, and ``attention`` is torch's fused attention."""


@dataclass(frozen=True)
class Choice:
    """A way, and why it was chosen."""

    way: Way
    reason: str


def choose(
    query: Tensor, memory: Tensor, values: Tensor, *, alpha: float | Tensor, is_plain: bool, method: Method
) -> Choice:
    """The way to serve tensors whose shapes are those of ``retrieve``.

    Args:
        query: As in ``retrieve``.
        memory: As in ``retrieve``.
        values: As in ``retrieve``.
        alpha: As in ``retrieve``.
        is_plain: Whether there is neither mask nor clipping nor dropout.
        method: What was asked for.

    Raises:
        ConfigError: Triton was asked for and does not take these tensors here.
    """
    if method in ("definition", "fast"):
        return Choice("definition" if method == "definition" else "fast", "asked for")
    refusal = fused.refusal(query, memory, values, in_interpreter=method == "triton")
    if refusal is None and method == "triton":
        return Choice("triton", "asked for")
    if method == "triton":
        raise ConfigError(Code.CONFIG, f"retrieve: method triton cannot serve: {refusal}", fix="use method auto")
    if is_plain and attention.suits(query, memory, values, alpha=alpha):
        return Choice("attention", "alpha is 1 and there are so many memories that torch's fused attention pays")
    if refusal is None:
        return Choice("triton", "the tensors are on a CUDA device")
    if is_plain and fast_softmax.suits(query, memory, values, alpha=alpha):
        return Choice("softmax", f"{refusal}; alpha is 1")
    return Choice("fast", refusal)
