"""What only a GPU can show: real rounding, long memories, compiled graphs, CUDA graphs, no wait for the device."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stanhop.hopfield import fused
from stanhop.hopfield.dispatch import choose
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve as dispatched
from stanhop.hopfield.separation import separate
from stanhop.kernels import retrieve
from tests.kernels.cases import breaches, expected_outcome, outcome, random_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA; the interpreter shows none of this"),
]

LEARNED = (1.01, 1.37, 1.93)
LENGTHS = [7, 14, 31, 60, 120, 300, 700]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, LEARNED], ids=str)
def test_float32_equals_the_definition_at_every_length_with_every_gradient(alpha, length) -> None:
    case = random_case(length, length, alpha=alpha, no_op=True, head_dim=64, values_dim=64, gated=True, masked=True)
    assert not breaches(outcome(retrieve, case), expected_outcome(case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("alpha", [1.0, LEARNED], ids=str)
def test_half_precision_is_at_most_twice_as_far_off_as_torch_in_that_dtype(alpha, length, dtype) -> None:
    case = random_case(length, length, alpha=alpha, no_op=True, head_dim=64, values_dim=64, dtype=dtype)
    expected = expected_outcome(case)
    got, same_dtype = outcome(retrieve, case), outcome(dispatched, case, method="definition")
    for name, right in expected.items():
        error = ((got[name].double() - right).norm() / right.norm()).item()
        by_torch = ((same_dtype[name].double() - right).norm() / right.norm()).item()
        assert error <= max(2 * by_torch + 1e-5, 1e-3 if name == "alpha" else 0), name


def test_two_runs_are_bitwise_equal() -> None:
    case = random_case(5000, 7, alpha=LEARNED, no_op=True, head_dim=64, values_dim=64, gated=True)
    first, second = outcome(retrieve, case), outcome(retrieve, case)
    assert all(first[name].equal(second[name]) for name in first)


def test_cuda_tensors_go_to_the_kernels_by_themselves() -> None:
    assert fused.unusable_because(torch.device("cuda")) is None
    case = random_case(14, 14, alpha=LEARNED, no_op=True)
    by_kernel, chosen = outcome(retrieve, case), outcome(dispatched, case)
    assert all(by_kernel[name].equal(chosen[name]) for name in by_kernel)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_function_is_one_graph_and_equal(mode) -> None:
    case = random_case(14, 14, alpha=LEARNED, no_op=True, head_dim=64, values_dim=64)
    compiled = torch.compile(retrieve, fullgraph=True, mode=mode)
    for _ in range(3):  # the first runs warm up, the third replays
        assert not breaches(outcome(compiled, case), expected_outcome(case))


def test_a_cuda_graph_replays_with_new_numbers_and_new_dropout() -> None:
    case = random_case(14, 14, alpha=LEARNED, no_op=True, head_dim=64, values_dim=64)
    query = case.query.clone()

    def call() -> torch.Tensor:
        return retrieve(query, case.memory, case.values, alpha=case.alpha, no_op=True, dropout=0.3)

    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    graph.replay()
    first = captured.clone()
    graph.replay()
    assert not captured.equal(first), "dropout draws anew"
    query.zero_()
    graph.replay()
    assert captured.isfinite().all()


def test_a_call_never_waits_for_the_device() -> None:
    case = random_case(14, 14, alpha=LEARNED, no_op=True)
    outcome(retrieve, case)  # compiles
    learned = {name: tensor.requires_grad_() for name, tensor in case.learned.items()}
    ready = dataclasses.replace(case, **learned)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = retrieve(ready.query, ready.memory, ready.values, alpha=ready.alpha, no_op=True, dropout=0.1)
        got.sum().backward()
        assert ready.query.grad is not None
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize(("num_queries", "num_memories"), [(300, 300), (7, 1025), (1000, 256)])
def test_long_memories_go_to_cudnn_which_equals_the_definition(num_queries, num_memories, no_op, dtype) -> None:
    case = random_case(num_queries, num_memories, alpha=1.0, no_op=no_op, head_dim=64, values_dim=64, dtype=dtype)
    assert choose(case.query, case.memory, case.values, alpha=1.0, is_plain=True, method="auto").way == "attention"
    expected = expected_outcome(case)
    got, same_dtype = outcome(dispatched, case), outcome(dispatched, case, method="definition")
    for name, right in expected.items():
        error = ((got[name].double() - right).norm() / right.norm()).item()
        assert error <= 2 * ((same_dtype[name].double() - right).norm() / right.norm()).item() + 1e-5, name


def test_long_memories_compile_as_one_graph_too() -> None:
    case = random_case(300, 300, alpha=1.0, no_op=True, head_dim=64, values_dim=64, dtype=torch.bfloat16)
    expected = outcome(dispatched, case)
    compiled = outcome(torch.compile(dispatched, fullgraph=True), case)
    assert all(compiled[name].sub(right).norm() <= 1e-2 * right.norm() for name, right in expected.items())


@pytest.mark.parametrize("length", [1, 7, 120, 1000, 4096, 32768])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.3], ids=str)
@pytest.mark.parametrize("no_op", [True, False])
def test_rows_of_scores_equal_the_definition(no_op, alpha, length) -> None:
    scores = torch.randn(5, length, device="cuda")
    assert fused.separates(scores)
    learned = torch.full((5, 1), alpha, device="cuda") if alpha == 1.3 else alpha
    found = []
    for separation, dtype in ((fast_separate, torch.float32), (separate, torch.float64)):
        given = scores.to(dtype).requires_grad_()
        own = learned.to(dtype).requires_grad_() if isinstance(learned, torch.Tensor) else learned
        weights = separation(given, alpha=own, no_op=no_op)
        gradient = torch.linspace(-1, 1, 5 * length, device="cuda").view(5, length).to(dtype)
        by = [given] if own is learned and not isinstance(own, torch.Tensor) else [given, own]
        found.append([weights.detach(), *torch.autograd.grad(weights, by, gradient)])
    for got, right, tolerance in zip(*found, (2e-6, 1e-5, 1e-4)[: len(found[0])], strict=True):
        assert (got.double() - right).norm() <= tolerance * right.norm().clamp(min=1e-12) + 1e-12
