"""Rows of scores in one kernel: equal to the definition with every gradient, empty and extreme rows included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stanhop.hopfield.separation import separate
from stanhop.kernels import separate_rows
from stanhop.kernels.rows_operator import LARGEST_ROW, suits
from tests.kernels.cases import DEVICE

LEARNED = torch.tensor([1.01, 1.4, 1.9], device=DEVICE)[:, None, None]
ALPHAS = [1.0, 1.5, 2.0, 1.3, LEARNED]
TOLERANCES = {"weights": 2e-6, "scores": 1e-5, "alpha": 1e-4}


def random_scores(length: int, *, scale: float = 1.0) -> Tensor:
    """(2, 3, 2, length); from 3 scores on one of them is no memory, and one head of one entry has none at all."""
    scores = torch.randn(2, 3, 2, length, generator=torch.Generator().manual_seed(0)) * scale
    if length > 2:
        scores[0, 0, 0, 0] = -torch.inf
        scores[1, 1] = -torch.inf
    return scores.to(DEVICE)


def outcome(separation, scores: Tensor, alpha: float | Tensor, no_op: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights and their gradients, by alpha if it is a tensor."""
    given = {"scores": scores.to(dtype).requires_grad_()}
    if isinstance(alpha, Tensor):
        given["alpha"] = alpha = alpha.to(dtype).requires_grad_()
    weights = separation(given["scores"], alpha=alpha, no_op=no_op)
    gradient = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)).to(weights)
    gradients = torch.autograd.grad(weights, list(given.values()), gradient)
    return {"weights": weights.detach(), **dict(zip(given, gradients, strict=True))}


@pytest.mark.parametrize("length", [7, *(pytest.param(length, marks=pytest.mark.slow) for length in (1, 16, 33))])
@pytest.mark.parametrize("alpha", ALPHAS, ids=lambda alpha: "learned" if isinstance(alpha, Tensor) else str(alpha))
@pytest.mark.parametrize("no_op", [True, False])
def test_rows_equal_the_definition_with_every_gradient(no_op, alpha, length) -> None:
    scores = random_scores(length)
    got = outcome(separate_rows, scores, alpha, no_op, torch.float32)
    expected = outcome(separate, scores, alpha, no_op, torch.float64)
    for name, right in expected.items():
        error = (got[name].double() - right).norm() / right.norm().clamp(min=1e-12)
        assert error <= TOLERANCES[name], name


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, LEARNED], ids=["1", "1.5", "2", "learned"])
def test_large_scores_neither_overflow_nor_vanish(alpha) -> None:
    scores = random_scores(14, scale=1e4)
    got = outcome(separate_rows, scores, alpha, True, torch.float32)
    expected = outcome(separate, scores, alpha, True, torch.float64)
    assert (got["weights"].double() - expected["weights"]).norm() <= 1e-5 * expected["weights"].norm()
    assert got["scores"].isfinite().all()


def test_a_row_with_a_nan_is_nan_and_its_neighbour_is_not() -> None:
    scores = torch.randn(2, 9, device=DEVICE)
    scores[0, 3] = torch.nan
    weights = separate_rows(scores, alpha=1.5, no_op=True)
    assert weights[0].isnan().all()
    assert weights[1].isfinite().all()


def test_half_precision_is_computed_in_full_and_rounded_once() -> None:
    scores = random_scores(14).to(torch.float16)
    got = separate_rows(scores, alpha=1.5, no_op=True)
    assert got.dtype == torch.float16
    assert got.equal(separate_rows(scores.float(), alpha=1.5, no_op=True).to(torch.float16))


def test_strided_scores_are_read_as_they_are_meant() -> None:
    scores = random_scores(14)
    turned = scores.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    assert separate_rows(turned, alpha=LEARNED, no_op=False).equal(separate_rows(scores, alpha=LEARNED, no_op=False))


def test_what_no_program_can_hold_is_not_taken() -> None:
    assert suits(torch.empty(1, LARGEST_ROW))
    assert not suits(torch.empty(1, LARGEST_ROW + 1))
    assert not suits(torch.empty(0, 3))
    assert not suits(torch.empty(1, 3, dtype=torch.float64))


def test_the_operator_is_sound() -> None:
    alpha = torch.full((4,), 1.3, device=DEVICE, requires_grad=True)
    arguments = (torch.randn(4, 9, device=DEVICE, requires_grad=True), alpha, "entmax", True)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    results = torch.library.opcheck(torch.ops.stanhop.separate_rows, arguments, test_utils=checks)
    assert set(results.values()) == {"SUCCESS"}
