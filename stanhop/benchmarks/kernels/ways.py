"""A way to compute a case, and the refusal of one that cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from stanhop.benchmarks.kernels.cases import Rule, Tensors


class Unserved(Exception):  # noqa: N818  # a case that a peer was not made for is no error
    """A peer does not serve a case; the text says why."""


@dataclass(frozen=True)
class Way:
    """How a peer computes a case.

    Args:
        run: Maps the case's tensors to weights or read-outs.
        rule: What it computes, where that is not the case's own rule: such a peer only gives the scale.
        lacks: Names of tensors by which it has no gradient.
        is_capturable: Whether the host looks at no result, so that a CUDA graph can hold it.
        is_contiguous: Whether it takes its tensors best, or only, with queries side by side in memory.
    """

    run: Callable[[Tensors], Tensor]
    rule: Rule
    lacks: frozenset[str] = frozenset()
    is_capturable: bool = True
    is_contiguous: bool = False
