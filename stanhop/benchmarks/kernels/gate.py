"""The gate of correctness: every way against the definition in float64, outputs and every gradient, before its time.

The definition takes much memory, so the gate uses a part of a case's sequences and heads, at its true lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stanhop.benchmarks.kernels.cases import Case, Rule, Tensors, beta
from stanhop.benchmarks.kernels.ways import Way
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.separation import separate

MOST_SCORES = 2**18
"""Scores in the gate's part of a case. The definition keeps several float64 arrays of them; and near alpha = 2, where
gradients jump at the edge of the support, few memories must lie so near it that rounding decides."""
FLOAT32 = {"output": 2e-6, "query": 1e-5, "memory": 1e-5, "values": 1e-5, "scores": 1e-5, "alpha": 1e-4}
"""Tolerances in float32: relative root mean square of the difference."""
HALF_ALPHA = 1e-3
"""Tolerance of the gradient by alpha in half precision."""
HALF_FACTOR, HALF_FLOOR = 2.0, 1e-5
"""In half precision the error may be this many times that of plain torch in the same precision, plus the floor."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Args:
        errors: Relative root mean square by quantity: ``output``, and the gradient by each tensor.
        tolerances: What each may be at most.
    """

    errors: Mapping[str, float]
    tolerances: Mapping[str, float]

    @property
    def is_accurate(self) -> bool:
        """Whether nothing is out of tolerance."""
        return all(error <= self.tolerances[name] for name, error in self.errors.items())

    @property
    def text(self) -> str:
        """The worst quantity against its tolerance, in words."""
        name, error = max(self.errors.items(), key=lambda item: item[1] / self.tolerances[item[0]])
        return f"{name} is {error:.1e} off, {self.tolerances[name]:.1e} allowed"


@dataclass(frozen=True)
class Gate:
    """Judges the ways of one case.

    Args:
        case: The part of it that is looked at.
    """

    case: Case

    @classmethod
    def of(cls, case: Case, *, most_scores: int = MOST_SCORES) -> Gate:
        """The gate of ``case``."""
        return cls(case.part(most_scores))

    def judge(self, way: Way) -> Verdict:
        """Compute the part by ``way`` and by the definition of what it says it computes."""
        given = self.case.tensors()
        double = {name: tensor.detach().double().requires_grad_() for name, tensor in given.items()}
        expected = outcome(lambda tensors: _defined(tensors, way.rule, self.case), double, way.lacks, self.case.dtype)
        got = outcome(way.run, laid_out(given, way), way.lacks)
        errors = {name: relative_error(got[name], right) for name, right in expected.items()}
        return Verdict(errors, self._tolerances(way, expected))

    def _tolerances(self, way: Way, expected: Tensors) -> dict[str, float]:
        if self.case.dtype == torch.float32:
            return {name: FLOAT32[name] for name in expected}
        plain = outcome(lambda tensors: _plain(tensors, way.rule, self.case), self.case.tensors(), way.lacks)
        found = {
            name: HALF_FACTOR * relative_error(plain[name], right) + HALF_FLOOR for name, right in expected.items()
        }
        return found | ({"alpha": HALF_ALPHA} if "alpha" in found else {})


def outcome(
    run: Callable[[Tensors], Tensor],
    given: Tensors,
    lacks: frozenset[str] = frozenset(),
    precision: torch.dtype | None = None,
) -> Tensors:
    """The ``output`` of a way, and its gradient by every tensor but those it ``lacks``, for a fixed random gradient.

    That gradient is rounded to ``precision``, by default the output's: what a way in half precision is given, the
    definition is given, too.
    """
    output = run(given)
    generator = torch.Generator(output.device).manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator, device=output.device)
    gradient = gradient.to(precision or output.dtype).to(output.dtype)
    names = [name for name in given if name not in lacks]
    gradients = torch.autograd.grad(output, [given[name] for name in names], gradient)
    return {"output": output.detach(), **dict(zip(names, gradients, strict=True))}


def laid_out(given: Tensors, way: Way) -> Tensors:
    """The tensors as ``way`` takes them: alpha without gradient if it has none, contiguous if it wants that."""
    found = {}
    for name, tensor in given.items():
        leaf = tensor.detach()
        leaf = leaf.contiguous() if way.is_contiguous else leaf
        found[name] = leaf.requires_grad_(name not in way.lacks)
    return found


def relative_error(got: Tensor, right: Tensor) -> float:
    """Root mean square of the difference over that of ``right``; infinite where ``got`` is NaN."""
    error = ((got.double() - right).norm() / right.norm().clamp(min=1e-30)).item()
    return error if error == error else float("inf")


def _defined(given: Tensors, rule: Rule, case: Case) -> Tensor:
    """The definition, in the precision of its tensors."""
    return _by(separate, given, rule, case)


def _plain(given: Tensors, rule: Rule, case: Case) -> Tensor:
    """Separate steps in torch in the precision of the tensors, products rounded to it: the yardstick of half ways."""
    return _by(fast_separate, given, rule, case)


def _by(separation: Callable[..., Tensor], given: Tensors, rule: Rule, case: Case) -> Tensor:
    alpha = rule.broadcast_alpha_of(given)
    if case.shape.is_rows:
        return separation(given["scores"], alpha=alpha, no_op=rule.no_op)
    scores = (given["query"] * beta(case.shape)) @ given["memory"].transpose(-1, -2)
    if rule.is_causal:
        is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(is_later, -torch.inf)
    return separation(scores, alpha=alpha, no_op=rule.no_op) @ given["values"]
