"""Softmax and Softmax_1 in few passes: equal to the definition at any size, shape and level of the scores."""

from __future__ import annotations

import pytest
import torch

from stanhop.hopfield import fast_softmax
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve

HEADS, QUERIES, HEAD_DIM, VALUES_DIM = 3, 5, 11, 13
LENGTHS = [1, 2, fast_softmax.SHORTEST_VENDOR_ROW - 1, fast_softmax.SHORTEST_VENDOR_ROW, 37, fast_softmax.SHORTEST_SUM]


def patterns(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)


def outcome(
    batch: tuple[int, ...], memories: int, *, no_op: bool, method: str, dtype: torch.dtype, scale: float = 1.0
) -> list[torch.Tensor]:
    """The read-out and its gradients; patterns lie as projections leave them, heads behind rows."""
    query = patterns(*batch, QUERIES, HEADS, HEAD_DIM, dtype=torch.float32).mul(scale).to(dtype).transpose(-2, -3)
    memory = patterns(*batch, memories, HEADS, HEAD_DIM, seed=1, dtype=torch.float32).to(dtype).transpose(-2, -3)
    values = patterns(*batch, HEADS, memories, VALUES_DIM, seed=2, dtype=torch.float32).to(dtype)
    leaves = [each.requires_grad_() for each in (query, memory, values)]
    retrieved = retrieve(query, memory, values, alpha=1.0, no_op=no_op, beta=0.7, method=method)
    gradient = patterns(*batch, QUERIES, HEADS, VALUES_DIM, seed=3, dtype=torch.float32).to(dtype).transpose(-2, -3)
    return [retrieved, *torch.autograd.grad(retrieved, leaves, gradient)]


def shifts(monkeypatch) -> list[int]:
    """Lists every computation that had to shift its scores."""
    found: list[int] = []
    shifted = fast_softmax._shifted_softmax
    monkeypatch.setattr(fast_softmax, "_shifted_softmax", lambda *a, **k: found.append(1) or shifted(*a, **k))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("memories", LENGTHS)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_a_retrieval_equals_the_definition_with_every_gradient(batch, memories, no_op, dtype, assert_close) -> None:
    got = outcome(batch, memories, no_op=no_op, method="auto", dtype=dtype)
    expected = outcome(batch, memories, no_op=no_op, method="definition", dtype=torch.float64)
    if memories == 1 and not no_op:  # its weight is 1 whatever the scores: two gradients are 0 but for rounding
        for gradient in got[1:3]:
            assert gradient.abs().max() <= 1000 * torch.finfo(dtype).eps
        got, expected = [got[0], got[3]], [expected[0], expected[3]]
    for name, left, right in zip(["retrieved", *["patterns_grad"] * 3], got, expected, strict=False):
        assert_close(left, right, name)


@pytest.mark.parametrize("no_op", [True, False])
def test_scores_are_shifted_only_where_a_total_is_far_from_1(no_op, monkeypatch, assert_close) -> None:
    found = shifts(monkeypatch)
    outcome((2,), 37, no_op=no_op, method="auto", dtype=torch.float32)
    assert not found
    got = outcome((2,), 37, no_op=no_op, method="auto", dtype=torch.float32, scale=40)
    assert found
    expected = outcome((2,), 37, no_op=no_op, method="definition", dtype=torch.float32, scale=40)
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("level", [-2000.0, -60.0, -41.0, 0.0, 41.0, 60.0, 2000.0])
def test_scores_of_any_level_stay_exact(level, no_op, assert_close) -> None:
    query = torch.ones(2, HEADS, QUERIES, 1, dtype=torch.float64)
    memory = (patterns(2, HEADS, 37, 1) + level).requires_grad_()
    results = []
    for method in ("auto", "definition"):
        retrieved = retrieve(query, memory, memory, alpha=1.0, no_op=no_op, beta=1.0, method=method)
        results.append((retrieved, *torch.autograd.grad(retrieved.sum(), memory)))
    assert_close(results[0][0], results[1][0], "retrieved")
    assert_close(results[0][1], results[1][1], "patterns_grad")


def test_gradients_at_the_largest_total_are_finite_and_exact_in_single_precision() -> None:
    level = torch.tensor(fast_softmax.LARGEST_TOTAL).log() - 0.01
    scores = torch.stack([level.expand(20), level - torch.arange(20.0)]).requires_grad_()
    results = []
    for dtype in (torch.float32, torch.float64):
        weights = fast_separate(scores.to(dtype), alpha=1.0, no_op=False)
        gradient = torch.linspace(1e-12, 1, 20).to(dtype).expand(2, -1)
        results.append((weights, *torch.autograd.grad(weights, scores, gradient)))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left.double(), right.double(), rtol=2e-6, atol=1e-12)


def test_a_nan_stays_in_its_row() -> None:
    query, memory = patterns(2, HEADS, QUERIES, HEAD_DIM), patterns(2, HEADS, 37, HEAD_DIM, seed=1)
    query[1, 2, 3] = float("nan")
    is_nan = retrieve(query, memory, memory, alpha=1.0, no_op=True).isnan()
    assert is_nan[1, 2, 3].all()
    assert is_nan.sum() == HEAD_DIM


def test_an_incoming_gradient_is_not_overwritten() -> None:
    scores = patterns(4, 37).requires_grad_()
    gradient = patterns(4, 37, seed=1)
    before = gradient.clone()
    fast_separate(scores, alpha=1.0, no_op=True).backward(gradient)
    assert torch.equal(gradient, before)


def test_half_precision_and_compilers_are_left_to_others(monkeypatch) -> None:
    memory = patterns(2, HEADS, 37, HEAD_DIM)
    assert fast_softmax.suits(memory, memory, memory, alpha=1.0)
    assert not fast_softmax.suits(memory, memory, memory, alpha=1.5)
    assert not fast_softmax.suits(memory, memory, memory, alpha=torch.ones(HEADS))
    assert not fast_softmax.suits(memory.bfloat16(), memory.bfloat16(), memory.bfloat16(), alpha=1.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not fast_softmax.suits(memory, memory, memory, alpha=1.0)
