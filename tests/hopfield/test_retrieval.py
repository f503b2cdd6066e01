"""Tests of retrieval and its energy: against plain algebra, the definition, and what the papers prove of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from stanhop.errors import ConfigError
from stanhop.hopfield import retrieval
from stanhop.hopfield.retrieval import energy, retrieval_weights, retrieve
from stanhop.hopfield.separation import CLIP, separate

BATCH, HEADS, QUERIES, MEMORIES, HEAD_DIM, VALUES_DIM = 2, 3, 5, 7, 11, 13


def patterns(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


@pytest.fixture
def query() -> torch.Tensor:
    return patterns(BATCH, HEADS, QUERIES, HEAD_DIM, seed=1, scale=2)


@pytest.fixture
def memory() -> torch.Tensor:
    return patterns(BATCH, HEADS, MEMORIES, HEAD_DIM, seed=2)


@pytest.fixture
def values() -> torch.Tensor:
    return patterns(BATCH, HEADS, MEMORIES, VALUES_DIM, seed=3)


def gradients_of(retrieved, *inputs):
    return torch.autograd.grad(retrieved, inputs, patterns(*retrieved.shape, seed=9).to(retrieved))


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0])
def test_one_update_is_similarity_separation_read_out(alpha, no_op, query, memory, values, assert_close) -> None:
    weights = separate(torch.einsum("bhqd,bhmd->bhqm", query, memory) * 0.7, alpha=alpha, no_op=no_op)
    expected = torch.einsum("bhqm,bhmv->bhqv", weights, values)
    assert_close(retrieve(query, memory, values, alpha=alpha, no_op=no_op, beta=0.7), expected, "retrieved")


def test_beta_is_1_over_the_root_of_head_dim_unless_given(query, memory, values) -> None:
    given_beta = retrieve(query, memory, values, alpha=1.0, no_op=True, beta=HEAD_DIM**-0.5)
    assert retrieve(query, memory, values, alpha=1.0, no_op=True).equal(given_beta)


def test_further_updates_move_the_state_among_the_memories(query, memory, values, assert_close) -> None:
    state = query
    for _ in range(2):
        state = retrieve(state, memory, memory, alpha=1.3, no_op=True)
    expected = retrieve(state, memory, values, alpha=1.3, no_op=True)
    assert_close(retrieve(query, memory, values, alpha=1.3, no_op=True, num_updates=3), expected, "retrieved")


@pytest.mark.parametrize("num_updates", [1, 3])
@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 2.0, torch.tensor([1.0, 1.3, 1.9], dtype=torch.float64)])
def test_the_fast_way_equals_the_definition_with_every_gradient(
    alpha, no_op, clip, num_updates, query, memory, values, assert_close
) -> None:
    mask = torch.ones(BATCH, MEMORIES, dtype=torch.bool)
    mask[0, 2:5] = False
    mask[1] = False
    is_learned = isinstance(alpha, torch.Tensor)
    inputs = [tensor.requires_grad_() for tensor in (query, memory, values)]
    inputs += [alpha.requires_grad_()] if is_learned else []
    results = []
    for method in ("auto", "definition"):
        retrieved = retrieve(
            query,
            memory,
            values,
            alpha=alpha,
            no_op=no_op,
            clip=clip,
            mask=mask,
            num_updates=num_updates,
            method=method,
        )
        results.append((retrieved, gradients_of(retrieved, *inputs)))
    (got, got_gradients), (expected, expected_gradients) = results
    assert_close(got, expected, "retrieved")
    for gradient, expected_gradient in zip(got_gradients[:3], expected_gradients[:3], strict=True):
        assert_close(gradient, expected_gradient, "patterns_grad")
    if is_learned:
        assert_close(got_gradients[3], expected_gradients[3], "alpha_grad")


@pytest.mark.parametrize("method", ["auto", "definition", "triton"])
@pytest.mark.parametrize("num_memories", [7, 131])  # by blocks, fused attention
def test_the_gate_lets_through_a_sigmoid_of_its_logit(method, num_memories, assert_close) -> None:
    dtype = torch.float32 if method == "triton" else torch.float64
    query = patterns(BATCH, HEADS, QUERIES, 13).to(dtype)
    memory = patterns(BATCH, HEADS, num_memories, 13, seed=2).to(dtype)
    gate = patterns(BATCH, HEADS, QUERIES, seed=3).to(dtype)
    got = retrieve(query, memory, memory, alpha=1.0, no_op=True, gate=gate, num_updates=2, method=method)
    ungated = retrieve(*(each.double() for each in (query, memory, memory)), alpha=1.0, no_op=True, num_updates=2)
    assert_close(got, ungated * gate.double().sigmoid().unsqueeze(-1), "retrieved")


@pytest.mark.parametrize(
    "shape", [(), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((2,), (2, 2)))], ids=str
)
@pytest.mark.parametrize("is_shared", [True, False])
def test_the_kernels_take_any_number_of_batch_axes_and_shared_memories(shape, is_shared, assert_close) -> None:
    own = () if is_shared else shape
    query = patterns(*shape, HEADS, QUERIES, HEAD_DIM).float().requires_grad_()
    memory = patterns(*own, HEADS, MEMORIES, HEAD_DIM, seed=2).float().requires_grad_()
    values = patterns(*own, HEADS, MEMORIES, VALUES_DIM, seed=3).float().requires_grad_()
    gate = patterns(*shape, HEADS, QUERIES, seed=4).float().requires_grad_()
    mask = None if is_shared else (patterns(*shape, MEMORIES, seed=5) < 0.5)
    alpha = torch.tensor([1.1, 1.5, 1.9], requires_grad=True)
    options = {"no_op": True, "mask": mask, "num_updates": 2}
    inputs = (query, memory, values, alpha, gate)
    got = retrieve(query, memory, values, alpha=alpha, gate=gate, method="triton", **options)
    double = [each.detach().double().requires_grad_() for each in inputs]
    expected = retrieve(*double[:3], alpha=double[3], gate=double[4], method="definition", **options)
    assert_close(got, expected, "retrieved")
    for name, left, right in zip(
        ["patterns_grad"] * 3 + ["alpha_grad", "patterns_grad"],
        gradients_of(got, *inputs),
        gradients_of(expected, *double),
        strict=True,
    ):
        assert_close(left, right, name)


@pytest.mark.parametrize("alpha", [1.0, 1.3])
def test_weights_are_those_of_the_read_out(alpha, query, memory, values, assert_close) -> None:
    for num_updates in (1, 3):
        options = {"alpha": alpha, "no_op": True, "num_updates": num_updates}
        weights = retrieval_weights(query, memory, **options)
        assert weights.shape == (BATCH, HEADS, QUERIES, MEMORIES)
        assert_close(weights @ values, retrieve(query, memory, values, **options), "retrieved")


@pytest.mark.parametrize("num_batch_axes", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, torch.tensor([1.1, 1.5, 1.9], dtype=torch.float64)])
def test_memories_without_a_batch_serve_every_batch_entry(alpha, num_batch_axes, assert_close) -> None:
    shared = (1,) * num_batch_axes
    query = patterns(2, 17, HEADS, QUERIES, HEAD_DIM).requires_grad_()
    memory = patterns(*shared, HEADS, MEMORIES, HEAD_DIM, seed=2).requires_grad_()
    values = patterns(*shared, HEADS, MEMORIES, VALUES_DIM, seed=3).requires_grad_()
    got = retrieve(query, memory, values, alpha=alpha, no_op=True, num_updates=2)
    repeated = [tensor.expand(2, 17, HEADS, -1, -1) for tensor in (memory, values)]
    expected = retrieve(query, *repeated, alpha=alpha, no_op=True, num_updates=2)
    assert_close(got, expected, "retrieved")
    for gradient, expected_gradient in zip(
        gradients_of(got, query, memory, values), gradients_of(expected, query, memory, values), strict=True
    ):
        assert_close(gradient, expected_gradient, "patterns_grad")


def test_queries_of_all_batch_entries_to_one_memory_are_one_product(memory, values, monkeypatch) -> None:
    shapes = []
    read_out = retrieval._read_out
    monkeypatch.setattr(
        retrieval, "_read_out", lambda state, *a, **k: shapes.append(tuple(state.shape)) or read_out(state, *a, **k)
    )
    query = patterns(2, 17, HEADS, QUERIES, HEAD_DIM)
    retrieve(query, memory[0], values[0], alpha=1.0, no_op=True)
    assert shapes == [(HEADS, 2 * 17 * QUERIES, HEAD_DIM)]


def test_queries_without_a_batch_ask_every_batch_entry(memory, values, assert_close) -> None:
    query = patterns(HEADS, QUERIES, HEAD_DIM)
    got = retrieve(query, memory, values, alpha=1.3, no_op=True)
    expected = retrieve(query.expand(BATCH, -1, -1, -1), memory, values, alpha=1.3, no_op=True)
    assert_close(got, expected, "retrieved")


@pytest.mark.parametrize("num_memories", [7, 131])  # by blocks, fused attention
@pytest.mark.parametrize("alpha", [1.0, 1.3])
def test_what_masked_memories_hold_has_no_influence_even_if_it_is_nan(alpha, num_memories) -> None:
    query = patterns(BATCH, HEADS, QUERIES, HEAD_DIM).requires_grad_()
    memory = patterns(BATCH, HEADS, num_memories, HEAD_DIM, seed=2)
    values = patterns(BATCH, HEADS, num_memories, HEAD_DIM, seed=3)
    mask = torch.arange(num_memories).expand(BATCH, -1) < torch.tensor([[3], [5]])
    expected = retrieve(query[:1], memory[:1, :, :3], values[:1, :, :3], alpha=alpha, no_op=True)
    memory[0, :, 3:], values[0, :, 3:] = math.nan, math.inf
    retrieved = retrieve(query, memory, values, alpha=alpha, no_op=True, mask=mask)
    assert torch.allclose(retrieved[:1], expected, rtol=0, atol=1e-14)
    assert gradients_of(retrieved, query)[0].isfinite().all()


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0])
def test_a_query_whose_memories_are_all_masked_retrieves_0(alpha, no_op, query, memory, values) -> None:
    mask = torch.tensor([[False] * MEMORIES, [True] * MEMORIES])
    retrieved = retrieve(query, memory, values, alpha=alpha, no_op=no_op, mask=mask)
    assert (retrieved[0] == 0).all()
    assert (retrieved[1] != 0).all()


def test_dropout_keeps_the_mean_and_drops_weights_of_the_read_out_only(query, memory) -> None:
    torch.manual_seed(5)
    ones = torch.ones(BATCH, HEADS, MEMORIES, 1, dtype=torch.float64)
    many = query.repeat(1, 1, 997, 1)
    retrieved = retrieve(many, memory, ones, alpha=1.0, no_op=False, dropout=0.3, num_updates=2)
    assert retrieved.mean().item() == pytest.approx(1.0, abs=0.01)
    weights = retrieval_weights(many, memory, alpha=1.0, no_op=False, num_updates=2)
    subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1 / 0.7], dtype=torch.float64)] * MEMORIES)
    sums = weights[1, 2] @ subsets.T  # (queries, subsets)
    nearest = (sums - retrieved[1, 2]).abs().min(dim=-1).values
    assert nearest.max() < 1e-12


def test_a_disturbed_memory_is_retrieved_and_a_strange_query_retrieves_nothing() -> None:
    memory = functional.normalize(patterns(1, 1, MEMORIES, 61), dim=-1)
    disturbed = memory + patterns(1, 1, MEMORIES, 61, seed=1, scale=0.02)
    strange = -memory.sum(dim=-2, keepdim=True)
    for alpha in (1.0, 1.5, 2.0):
        options = {"alpha": alpha, "no_op": True, "beta": 20.0}
        assert (retrieve(disturbed, memory, memory, **options) - memory).abs().max() < 1e-2
        assert retrieve(strange, memory, memory, **options).abs().max() < 1e-2
    assert retrieve(strange, memory, memory, alpha=1.0, no_op=False, beta=20.0).abs().max() > 0.1


@pytest.mark.parametrize("no_op", [True, False])
def test_energy_at_alpha_1_is_the_log_sum_exp_form_of_the_papers(no_op, query, memory, assert_close) -> None:
    beta = 0.7
    scores = beta * query @ memory.transpose(-1, -2)
    columns = functional.pad(scores, (0, 1)) if no_op else scores  # the one more is exp(0)
    expected = query.square().sum(-1) / 2 - columns.logsumexp(-1) / beta
    assert_close(energy(query, memory, alpha=1.0, no_op=no_op, beta=beta), expected, "energy")
    learned = torch.ones(HEADS, dtype=torch.float64)
    assert_close(energy(query, memory, alpha=learned, no_op=no_op, beta=beta), expected, "energy")


def test_energy_at_alpha_2_is_the_closed_form_of_sparsemax(query, memory, assert_close) -> None:
    scores = query @ memory.transpose(-1, -2)
    weights = separate(scores, alpha=2.0, no_op=False)
    conjugate = (scores * weights).sum(-1) - weights.square().sum(-1) / 2 + 0.5  # Psi = (sum p^2 - 1) / 2
    expected = query.square().sum(-1) / 2 - conjugate
    assert_close(energy(query, memory, alpha=2.0, no_op=False, beta=1.0), expected, "energy")


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1.01, 1.4, 2.0])
def test_the_gradient_of_the_energy_is_the_state_less_what_it_retrieves(
    alpha, no_op, query, memory, assert_close
) -> None:
    query.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(query, memory, alpha=alpha, no_op=no_op).sum(), query)
    expected = query - retrieve(query, memory, memory, alpha=alpha, no_op=no_op)
    assert_close(gradient, expected, "patterns_grad")


@given(
    alpha=st.one_of(st.sampled_from([1.0, 1.5, 2.0]), st.floats(1.0, 2.0)),
    no_op=st.booleans(),
    beta=st.floats(0.01, 30.0),
    scale=st.floats(0.01, 10.0),
    num_memories=st.integers(1, 13),
    seed=st.integers(0, 2**31),
)
def test_retrieval_never_raises_the_energy(tolerance, alpha, no_op, beta, scale, num_memories, seed) -> None:
    memory = patterns(HEADS, num_memories, HEAD_DIM, seed=seed, scale=scale)
    state = patterns(HEADS, QUERIES, HEAD_DIM, seed=seed + 1, scale=scale)
    options = {"alpha": alpha, "no_op": no_op, "beta": beta}
    energies = [energy(state, memory, **options)]
    for _ in range(3):
        state = retrieve(state, memory, memory, **options)
        energies.append(energy(state, memory, **options))
    levels = torch.stack(energies)
    rises = levels.diff(dim=0).max().item()
    assert rises <= tolerance(torch.float64, "energy_rise") * max(1.0, levels.abs().max().item(), 1 / beta)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"alpha": 2.5}, r"alpha \(2.5\) must lie in \[1, 2\]"),
        ({"alpha": 1.0, "num_updates": 0}, r"num_updates \(0\) must be at least 1"),
        (
            {"alpha": 1.0, "method": "fasst"},
            r"method \('fasst'\) must be one of \('auto', 'definition', 'fast', 'triton'\)",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, problem, query, memory, values) -> None:
    with pytest.raises(ConfigError, match=problem):
        retrieve(query, memory, values, no_op=True, **arguments)


def test_the_definition_is_slow_and_only_taken_on_request(query, memory, values, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(retrieval, "separate", lambda *a, **k: calls.append(1) or separate(*a, **k))
    retrieve(query, memory, values, alpha=1.3, no_op=True)
    assert not calls
    retrieve(query, memory, values, alpha=1.3, no_op=True, method="definition")
    assert calls
