"""Softmax and Softmax_1 in few passes: equal to the definition at any size, shape and level of the scores."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stanhop.hopfield import fast_softmax
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve

HEADS, QUERIES, HEAD_DIM, VALUES_DIM = 3, 5, 11, 13
LENGTHS = [1, 2, fast_softmax.SHORTEST_VENDOR_ROW - 1, fast_softmax.SHORTEST_VENDOR_ROW, 37, fast_softmax.SHORTEST_SUM]
NEVER = 10**9


@pytest.fixture(params=["by head", "at once"], autouse=True)
def is_by_head(request, monkeypatch) -> bool:
    """Whether heads are taken one by one, whatever their size."""
    monkeypatch.setattr(fast_softmax, "SMALLEST_HEAD", 0 if request.param == "by head" else NEVER)
    monkeypatch.setattr(fast_softmax, "FEWEST_WEIGHTS", 0)
    return request.param == "by head"


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


class LargestOutput(TorchDispatchMode):
    """Notes the size of the largest memory that any operation returns a part of."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves(found) if isinstance(each, torch.Tensor)]
        self.numel = max([self.numel, *(each.untyped_storage().nbytes() // each.itemsize for each in tensors)])
        return found

    def __enter__(self):
        self.numel = 0
        return super().__enter__()


def shifts(monkeypatch) -> list[int]:
    """Lists every computation that had to shift its scores."""
    found: list[int] = []
    shifted = fast_softmax._exponentiate_shifted
    monkeypatch.setattr(fast_softmax, "_exponentiate_shifted", lambda *a, **k: found.append(1) or shifted(*a, **k))
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("memories", [VALUES_DIM - 1, VALUES_DIM, 37])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_where_nothing_is_learned_a_retrieval_equals_the_definition_too(
    scale, memories, no_op, dtype, assert_close
) -> None:
    query = patterns(2, QUERIES, HEADS, HEAD_DIM, dtype=torch.float32).transpose(1, 2)
    memory = patterns(2, HEADS, memories, HEAD_DIM, seed=1, dtype=torch.float32)
    values = patterns(2, HEADS, memories, VALUES_DIM, seed=2, dtype=torch.float32)
    got, expected = (
        retrieve(
            query.to(precision) * scale, memory.to(precision), values.to(precision),
            alpha=1.0, no_op=no_op, beta=0.5, method=method,
        )
        for precision, method in ((dtype, "auto"), (torch.float64, "definition"))
    )  # fmt: skip
    if scale == 1:
        assert_close(got, expected, "retrieved")
    else:  # rounding of scores of several hundreds moves weights by more
        torch.testing.assert_close(got, expected.to(dtype), rtol=1e-4, atol=1e-4)


def test_where_nothing_is_learned_there_is_memory_for_the_weights_of_one_head_only(is_by_head) -> None:
    memory = patterns(2, HEADS, 37, 3)
    largest = LargestOutput()
    with largest:
        retrieve(memory, memory, memory, alpha=1.0, no_op=True)
    assert largest.numel == 2 * 37 * 37 * (1 if is_by_head else HEADS)
    with largest:
        retrieve(memory.requires_grad_(), memory, memory, alpha=1.0, no_op=True)
    assert largest.numel == 2 * 37 * 37 * HEADS


@pytest.mark.parametrize("learned", [0, 1, 2])
def test_one_pattern_alone_may_be_learned(learned, assert_close) -> None:
    gradients = []
    for method in ("auto", "definition"):
        triple = [patterns(2, HEADS, 37, HEAD_DIM, seed=seed) for seed in range(3)]
        triple[learned].requires_grad_()
        retrieved = retrieve(*triple, alpha=1.0, no_op=True, method=method)
        gradients += torch.autograd.grad(retrieved.square().sum(), triple[learned])
    assert_close(*gradients, "patterns_grad")


def test_patterns_in_any_order_of_memory_and_gradients_without_strides_are_taken(assert_close) -> None:
    results = []
    for method in ("auto", "definition"):
        query = patterns(2, HEADS, HEAD_DIM, QUERIES).transpose(-1, -2).requires_grad_()
        memory = patterns(HEADS, 37, HEAD_DIM, seed=1).requires_grad_()  # one for all batch entries
        values = patterns(37, 2, 1, VALUES_DIM, seed=2).permute(1, 2, 0, 3).requires_grad_()  # one for all heads
        retrieved = retrieve(query, memory, values, alpha=1.0, no_op=True, method=method)
        results.append((retrieved, *torch.autograd.grad(retrieved.sum(), (query, memory, values))))
    for name, left, right in zip(["retrieved", *["patterns_grad"] * 3], *results, strict=True):
        assert_close(left, right, name)


def test_what_is_read_out_may_be_changed_in_place() -> None:
    memory = patterns(2, HEADS, 37, HEAD_DIM).requires_grad_()
    retrieved = retrieve(memory, memory, memory, alpha=1.0, no_op=True)
    expected = torch.autograd.grad((2 * retrieved).sum(), memory, retain_graph=True)
    assert torch.equal(*torch.autograd.grad(retrieved.mul_(2).sum(), memory), *expected)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_far_and_near_the_no_op_memory_stay_exact_side_by_side(dtype, assert_close) -> None:
    levels = torch.tensor([-2000.0, -1.0, 0.5, 60.0, 2000.0])
    query = levels[:, None].expand(2, HEADS, QUERIES, 1)
    memory = 1 + patterns(2, HEADS, 37, 1, dtype=torch.float32) / 2**12
    results = []
    for precision, method in ((dtype, "auto"), (torch.float64, "definition")):
        leaves = [each.to(precision).requires_grad_() for each in (query, memory)]
        retrieved = retrieve(*leaves, leaves[1], alpha=1.0, no_op=True, beta=1.0, method=method)
        results.append((retrieved, *torch.autograd.grad(retrieved[..., 1:4, :].sum(), leaves)))
    for left, right in zip(results[0][0].unbind(-2), results[1][0].unbind(-2), strict=True):
        assert_close(left, right, "retrieved")
    for left, right in zip(results[0][1:], results[1][1:], strict=True):
        assert_close(left, right, "patterns_grad")


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


def test_heads_are_taken_one_by_one_where_they_are_large_and_many(monkeypatch) -> None:
    monkeypatch.undo()
    for (batch, length, head_dim), expected in (((90, 14, 64), True), ((90, 13, 64), False), ((1, 60, 32), False)):
        memory = torch.zeros(batch, HEADS, length, head_dim)
        assert fast_softmax._pays_by_head(memory, memory) == expected
