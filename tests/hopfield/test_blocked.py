"""Softmax_1 by blocks that stay in a cache: equal to the definition however a batch is cut."""

from __future__ import annotations

import pytest
import torch

from stanhop.hopfield import blocked
from stanhop.hopfield.retrieval import retrieve

HEADS, QUERIES, MEMORIES, HEAD_DIM, VALUES_DIM = 3, 5, 37, 11, 13


def patterns(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)


def outcome(batch: tuple[int, ...], *, no_op: bool, method: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """The read-out and its gradients; patterns lie as projections leave them, heads behind rows."""
    query = patterns(*batch, QUERIES, HEADS, HEAD_DIM, dtype=torch.float32).to(dtype).transpose(-2, -3).requires_grad_()
    memory = patterns(*batch, MEMORIES, HEADS, HEAD_DIM, seed=1, dtype=torch.float32).to(dtype).transpose(-2, -3)
    values = patterns(*batch, HEADS, MEMORIES, VALUES_DIM, seed=2, dtype=torch.float32).to(dtype)
    memory.requires_grad_(), values.requires_grad_()
    retrieved = retrieve(query, memory, values, alpha=1.0, no_op=no_op, beta=0.7, method=method)
    gradient = patterns(*batch, QUERIES, HEADS, VALUES_DIM, seed=3, dtype=torch.float32).to(dtype).transpose(-2, -3)
    return [retrieved, *torch.autograd.grad(retrieved, (query, memory, values), gradient)]


@pytest.mark.parametrize("block_size", [1, 3000, blocked.BLOCK_SIZE], ids=["one-entry", "some", "all"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
def test_blocks_of_any_size_equal_the_definition_with_every_gradient(
    batch, no_op, dtype, block_size, monkeypatch, assert_close
) -> None:
    monkeypatch.setattr(blocked, "suits", lambda *_, **__: True)
    monkeypatch.setattr(blocked, "BLOCK_SIZE", block_size)
    got = outcome(batch, no_op=no_op, method="auto", dtype=dtype)
    expected = outcome(batch, no_op=no_op, method="definition", dtype=torch.float64)
    for name, left, right in zip(["retrieved"] + ["patterns_grad"] * 3, got, expected, strict=True):
        assert_close(left, right, name)


@pytest.mark.parametrize("level", [-2000.0, 2000.0])
def test_scores_far_from_0_stay_exact(level, assert_close) -> None:
    query = torch.ones(2, HEADS, QUERIES, 1, dtype=torch.float64)
    memory = (patterns(2, HEADS, MEMORIES, 1) + level).requires_grad_()
    results = []
    for method in ("auto", "definition"):
        retrieved = retrieve(query, memory, memory, alpha=1.0, no_op=True, beta=1.0, method=method)
        results.append((retrieved, *torch.autograd.grad(retrieved.sum(), memory)))
    assert_close(results[0][0], results[1][0], "retrieved")
    assert_close(results[0][1], results[1][1], "patterns_grad")


def test_a_nan_stays_in_its_row() -> None:
    query, memory = patterns(2, HEADS, QUERIES, HEAD_DIM), patterns(2, HEADS, MEMORIES, HEAD_DIM, seed=1)
    query[1, 2, 3] = float("nan")
    is_nan = retrieve(query, memory, memory, alpha=1.0, no_op=True).isnan()
    assert is_nan[1, 2, 3].all()
    assert is_nan.sum() == HEAD_DIM


def test_half_precision_compilers_and_entries_beyond_a_block_are_left_to_others(monkeypatch) -> None:
    memory = patterns(2, HEADS, MEMORIES, HEAD_DIM)
    assert blocked.suits(memory, memory, memory, alpha=1.0)
    assert not blocked.suits(memory, memory[..., :31, :], memory[..., :31, :], alpha=1.0)
    assert not blocked.suits(memory, memory, memory, alpha=1.5)
    assert not blocked.suits(memory, memory, memory, alpha=torch.ones(HEADS))
    assert not blocked.suits(memory.bfloat16(), memory.bfloat16(), memory.bfloat16(), alpha=1.0)
    long = patterns(1, HEADS, 500, HEAD_DIM)
    assert not blocked.suits(long, long, long, alpha=1.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not blocked.suits(memory, memory, memory, alpha=1.0)
