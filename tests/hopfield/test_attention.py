"""Tests of Softmax_1 through fused attention: equal to the definition, and taken where it pays."""

from __future__ import annotations

import pytest
import torch

from stanhop.hopfield import attention
from stanhop.hopfield.attention import PAYS_FROM, attend, suits
from stanhop.hopfield.retrieval import retrieve

QUERIES, MEMORIES, HEADS, HEAD_DIM = 59, 261, 3, 5


def patterns(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("batch", [(), (2,), (2, 7)])
def test_it_equals_the_definition_with_every_gradient(batch, no_op, dtype, assert_close) -> None:
    results = []
    for precision, method in ((dtype, "auto"), (torch.float64, "definition")):
        query = patterns(*batch, HEADS, QUERIES, HEAD_DIM, dtype=dtype).to(precision).requires_grad_()
        memory = patterns(*batch, HEADS, MEMORIES, HEAD_DIM, seed=1, dtype=dtype).to(precision).requires_grad_()
        values = patterns(*batch, HEADS, MEMORIES, HEAD_DIM, seed=2, dtype=dtype).to(precision).requires_grad_()
        retrieved = retrieve(query, memory, values, alpha=1.0, no_op=no_op, beta=0.7, method=method)
        cotangent = patterns(*batch, QUERIES, HEADS, HEAD_DIM, seed=3, dtype=dtype).to(precision).transpose(-2, -3)
        results.append((retrieved, torch.autograd.grad(retrieved, (query, memory, values), cotangent)))
    (got, got_gradients), (expected, expected_gradients) = results
    assert_close(got, expected, "retrieved")
    for gradient, expected_gradient in zip(got_gradients, expected_gradients, strict=True):
        assert_close(gradient, expected_gradient, "patterns_grad")


def test_one_memory_for_all_batch_entries_collects_their_gradients(assert_close) -> None:
    query = patterns(7, HEADS, QUERIES, HEAD_DIM)
    memory = patterns(1, HEADS, MEMORIES, HEAD_DIM, seed=1).requires_grad_()
    gradients = []
    for copies in (memory, memory.repeat(7, 1, 1, 1)):
        retrieved = attend(query, copies, copies, no_op=True, beta=1.0)
        gradients.append(torch.autograd.grad(retrieved.square().sum(), memory)[0])
    assert_close(*gradients, "patterns_grad")


@pytest.mark.parametrize("level", [-2000.0, 0.0, 2000.0])
def test_scores_far_from_0_stay_exact(level, assert_close) -> None:
    query = torch.ones(1, HEADS, QUERIES, 1, dtype=torch.float64)
    memory = patterns(1, HEADS, MEMORIES, 1) + level
    memory.requires_grad_()
    results = []
    for method in ("auto", "definition"):
        retrieved = retrieve(query, memory, memory, alpha=1.0, no_op=True, beta=1.0, method=method)
        results.append((retrieved, *torch.autograd.grad(retrieved.sum(), memory)))
    assert_close(results[0][0], results[1][0], "retrieved")
    assert_close(results[0][1], results[1][1], "patterns_grad")


def test_long_memories_are_retrieved_by_it_and_short_ones_are_not(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "attend", lambda *a, **k: calls.append(1) or attend(*a, **k))
    for num_memories, num_calls in ((PAYS_FROM - 1, 0), (PAYS_FROM, 1)):
        memory = patterns(2, HEADS, num_memories, HEAD_DIM)
        retrieve(memory, memory, memory, alpha=1.0, no_op=True)
        assert len(calls) == num_calls


@pytest.mark.parametrize("reason", ["clip", "mask", "dropout", "method", "alpha"])
def test_it_leaves_alone_what_it_cannot_do(reason, monkeypatch) -> None:
    monkeypatch.setattr(attention, "attend", lambda *a, **k: pytest.fail("not to be called"))
    memory = patterns(2, HEADS, MEMORIES, HEAD_DIM)
    options = {
        "clip": {"alpha": 1.0, "clip": (0.2, 1.0)},
        "mask": {"alpha": 1.0, "mask": torch.ones(2, MEMORIES, dtype=torch.bool)},
        "dropout": {"alpha": 1.0, "dropout": 0.1},
        "method": {"alpha": 1.0, "method": "fast"},
        "alpha": {"alpha": torch.ones(HEADS, dtype=torch.float64)},
    }[reason]
    retrieve(memory, memory, memory, no_op=True, **options)


def test_other_value_sizes_and_half_precision_do_not_suit_it() -> None:
    memory = patterns(2, HEADS, MEMORIES, HEAD_DIM)
    assert suits(memory, memory, memory, alpha=1.0)
    assert not suits(memory, memory, memory[..., :-1], alpha=1.0)
    assert not suits(memory.bfloat16(), memory.bfloat16(), memory.bfloat16(), alpha=1.0)
