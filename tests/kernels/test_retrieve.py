"""The kernels equal the definition: read-out and every gradient, at odd sizes, masked rows and extreme scores."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from stanhop.kernels import launch, plan, refusal, retrieve
from tests.kernels.cases import DEVICE, Case, breaches, expected_outcome, outcome, random_case

LEARNED = (1.01, 1.37, 1.93)
ALPHAS = [1.0, 1.3, 1.5, 2.0, LEARNED]
RESIDENT_AND_LOOPED = [
    pytest.param(False, id="resident"),
    pytest.param(True, id="looped", marks=pytest.mark.slow),  # many small launches in the interpreter
]
SIZES = [(1, 1), (15, 16), (16, 15), (17, 17)]  # below, at and above a block of 16


def assert_equals_the_definition(case: Case) -> None:
    assert not breaches(outcome(retrieve, case), expected_outcome(case))


@pytest.mark.parametrize("no_op", [True, False], ids=["no-op", "none"])
@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_short_memories_equal_the_definition_with_every_gradient(alpha, no_op) -> None:
    assert_equals_the_definition(random_case(5, 7, alpha=alpha, no_op=no_op))


@pytest.mark.usefixtures("looped")
@pytest.mark.parametrize("no_op", [True, False], ids=["no-op", "none"])
@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_long_memories_equal_the_definition_with_every_gradient(alpha, no_op) -> None:
    assert_equals_the_definition(random_case(3, 18, alpha=alpha, no_op=no_op))


@pytest.mark.parametrize("loops", [False, True], ids=["resident", "looped"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_any_length_from_1_up_is_served(sizes, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    assert_equals_the_definition(random_case(*sizes, alpha=LEARNED, no_op=True))


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
@pytest.mark.parametrize("alpha", [1.0, 2.0, LEARNED], ids=str)
@pytest.mark.parametrize(
    "options", [{"clip": (0.25, 1.0)}, {"clip": (0.9, 1.4), "gated": True}, {"gated": True}], ids=str
)
def test_clipping_gate_and_mask_equal_the_definition_with_every_gradient(options, alpha, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    assert_equals_the_definition(random_case(5, 19, alpha=alpha, no_op=True, masked=True, **options))


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
@pytest.mark.parametrize("no_op", [True, False], ids=["no-op", "none"])
@pytest.mark.parametrize("alpha", [1.0, 1.5, LEARNED], ids=str)
def test_a_query_whose_memories_are_all_masked_retrieves_0_with_gradients_of_0(alpha, no_op, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(3, 18, alpha=alpha, no_op=no_op, masked=True)
    got = outcome(retrieve, case)
    assert not breaches(got, expected_outcome(case))
    for name in ("retrieved", "query", "memory", "values"):
        assert (got[name][0] == 0).all(), name
        assert (got[name][1] != 0).any(), name


@pytest.mark.parametrize("loops", [False, True], ids=["resident", "looped"])
def test_what_masked_memories_hold_has_no_influence_even_if_it_is_nan(loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(3, 18, alpha=LEARNED, no_op=False, masked=True)
    assert case.mask is not None
    is_out = ~case.mask[:, None, :, None]
    poisoned = dataclasses.replace(
        case,
        memory=case.memory.masked_fill(is_out, math.nan),
        values=case.values.masked_fill(is_out, math.inf),
    )
    clean, got = outcome(retrieve, case), outcome(retrieve, poisoned)
    for name, tensor in clean.items():
        assert got[name].equal(tensor), name


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
@pytest.mark.parametrize("no_op", [True, False], ids=["no-op", "none"])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-3, 0.0), (30.0, 0.0), (1.0, -6.0), (1.0, 300.0)], ids=["tiny", "huge", "negative", "high"]
)
def test_scores_of_any_size_are_separated(scale, offset, no_op, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(5, 17, alpha=(1.0, 1.3, 2.0), no_op=no_op, scale=scale, offset=offset)
    assert_equals_the_definition(case)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("alpha", [1.0, (1.05, 1.3, 1.6)], ids=str)
def test_the_no_op_memory_takes_any_share(alpha, share) -> None:
    offset = math.log((1 - share) / share / 7)
    case = random_case(5, 7, alpha=alpha, no_op=True, scale=0.3, offset=offset)
    ones = dataclasses.replace(case, values=torch.ones_like(case.values))
    left = 1 - retrieve(ones.query, ones.memory, ones.values, alpha=ones.alpha, no_op=True, beta=ones.beta).mean()
    assert left.item() == pytest.approx(share, rel=0.6, abs=0.02)
    assert_equals_the_definition(case)


def test_alpha_at_both_ends_of_its_range_is_served() -> None:
    case = random_case(5, 7, alpha=(1.0, 1.0 + 1e-4, 2.0), no_op=True)
    got, expected = outcome(retrieve, case), expected_outcome(case)
    assert not breaches(got, expected)


def test_a_learned_alpha_of_1_is_softmax() -> None:
    learned = random_case(5, 7, alpha=(1.0, 1.0, 1.0), no_op=True)
    fixed = outcome(retrieve, dataclasses.replace(learned, alpha=1.0))
    got = outcome(retrieve, learned)
    assert not breaches(got, {name: tensor.double() for name, tensor in fixed.items()})


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("alpha", [1.0, 2.0, (1.2, 1.5, 1.8)], ids=str)
def test_a_score_that_is_no_number_makes_its_row_nan_and_no_other(alpha, bad, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(5, 18, alpha=alpha, no_op=True)
    query = case.query.clone()
    query[0, 1, 2] = bad
    got = retrieve(query, case.memory, case.values, alpha=case.alpha, no_op=True)
    is_nan = got.isnan().all(dim=-1)
    expected = torch.zeros_like(is_nan)
    expected[0, 1, 2] = True
    assert is_nan.equal(expected)
    assert got.isnan().any(dim=-1).equal(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("alpha", [1.0, LEARNED], ids=str)
def test_half_precision_is_at_most_twice_as_far_off_as_torch_in_that_dtype(alpha, dtype) -> None:
    from stanhop.hopfield.retrieval import retrieve as by_torch

    case = random_case(5, 14, alpha=alpha, no_op=True, dtype=dtype, gated=True)
    expected = expected_outcome(case)
    got, same_dtype = outcome(retrieve, case), outcome(by_torch, case, method="definition")
    for name, right in expected.items():
        error = ((got[name].double() - right).norm() / right.norm()).item()
        allowed = 2 * ((same_dtype[name].double() - right).norm() / right.norm()).item() + 1e-5
        assert got[name].dtype == (torch.float32 if name == "alpha" else dtype)
        assert error <= max(allowed, 1e-3 if name == "alpha" else 0), name


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
def test_weights_in_half_precision_sum_to_1(loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(100, 18, alpha=(1.2, 1.5, 1.9), no_op=False, dtype=torch.float16, scale=0.5)
    sums = retrieve(case.query, case.memory, torch.ones_like(case.values), alpha=case.alpha, no_op=False)
    assert (sums.double() - 1).abs().max() <= 1e-3


def test_memories_of_the_whole_batch_are_read_in_place_and_their_gradient_summed() -> None:
    case = random_case(5, 7, alpha=LEARNED, no_op=True)
    query = torch.cat([case.query, case.query.flip(2)])
    memory, values = case.memory.clone().requires_grad_(), case.values.clone().requires_grad_()
    expanded = memory.expand(2, -1, -1, -1), values.expand(2, -1, -1, -1)
    got = retrieve(query, *expanded, alpha=case.alpha, no_op=True)
    copied = retrieve(query, *(each.contiguous() for each in expanded), alpha=case.alpha, no_op=True)
    assert got.equal(copied)
    ones = torch.ones_like(got)
    for left, right in zip(
        torch.autograd.grad(got, (memory, values), ones),
        torch.autograd.grad(copied, (memory, values), ones),
        strict=True,
    ):
        assert left.equal(right)


def test_strides_of_every_kind_are_read_in_place() -> None:
    case = random_case(5, 7, alpha=LEARNED, no_op=True, gated=True, masked=True)
    assert case.mask is not None
    assert case.gate is not None
    expected = outcome(retrieve, case)
    strided = dataclasses.replace(
        case,
        query=case.query.contiguous(),
        memory=torch.cat([case.memory, case.memory], dim=-1)[..., : case.memory.shape[-1]],
        values=case.values.movedim(-1, 0).contiguous().movedim(0, -1),
        mask=case.mask.repeat_interleave(2, dim=1)[:, ::2],
        gate=case.gate.transpose(1, 2).contiguous().transpose(1, 2),
    )
    for name, tensor in outcome(retrieve, strided).items():
        assert tensor.equal(expected[name]), name


@pytest.mark.parametrize("programs", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (4, 1024))])
def test_queries_in_chunks_of_any_number_add_up(programs, monkeypatch) -> None:
    monkeypatch.setattr(plan, "PROGRAMS_WANTED", programs)
    assert_equals_the_definition(random_case(150, 5, alpha=(1.2, 1.7), no_op=True))


def test_two_runs_are_bitwise_equal() -> None:
    num_queries = 150 if DEVICE == "cuda" else 50  # several blocks; where there are no races more show nothing
    case = random_case(num_queries, 7, alpha=LEARNED, no_op=True, gated=True)
    first, second = outcome(retrieve, case), outcome(retrieve, case)
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.usefixtures("looped")
def test_no_array_of_queries_by_memories_is_stored(monkeypatch) -> None:
    sizes = []
    for name in ("empty", "new_empty"):
        owner = torch if name == "empty" else Tensor
        create = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, create=create, **k: sizes.append((t := create(*a, **k)).numel()) or t
        )
    case = random_case(90, 110, alpha=(1.4,), no_op=True, head_dim=8, values_dim=8)
    outcome(retrieve, case)
    assert sizes
    assert max(sizes) <= 8 * 110 * 6  # a gradient of memories, in a share of each chunk of queries
    assert max(sizes) < 90 * 110


def weights_of(case: Case, *, dropout: float) -> Tensor:
    """What the read-out weighs memories with: values are the identity."""
    num_memories = case.memory.shape[2]
    identity = torch.eye(num_memories, device=DEVICE).expand(*case.values.shape[:2], -1, -1)
    return retrieve(case.query, case.memory, identity, alpha=case.alpha, no_op=case.no_op, dropout=dropout)


@pytest.mark.parametrize("alpha", [1.0, LEARNED], ids=str)
def test_dropout_drops_weights_at_its_rate_and_scales_up_the_rest(alpha) -> None:
    case = random_case(61, 23, alpha=alpha, no_op=True)
    torch.manual_seed(3)
    dropped, whole = weights_of(case, dropout=0.3), weights_of(case, dropout=0.0)
    is_kept = dropped != 0
    assert is_kept[whole > 0].double().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.allclose(dropped[is_kept], whole[is_kept] / 0.7, rtol=1e-5)


def test_dropout_follows_the_seed_and_not_the_tiles(monkeypatch) -> None:
    case = random_case(37, 23, alpha=LEARNED, no_op=True)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(weights_of(case, dropout=0.3))
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    from tests.kernels.cases import looped_plan

    monkeypatch.setattr(launch, "forward_plan", looped_plan)
    torch.manual_seed(3)
    assert weights_of(case, dropout=0.3).ne(0).equal(drawn[0].ne(0))


@pytest.mark.parametrize("loops", RESIDENT_AND_LOOPED)
@pytest.mark.parametrize(("alpha", "clip"), [(1.0, None), (1.0, (0.25, 1.2)), (LEARNED, None)], ids=str)
def test_gradients_are_those_of_the_weights_that_were_kept(alpha, clip, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(5, 18, alpha=alpha, no_op=True, gated=True, clip=clip)
    plain = dataclasses.replace(case, clip=None, gate=None)
    torch.manual_seed(3)
    factor = (weights_of(plain, dropout=0.3) != 0) / 0.7  # of weights that are 0 it does not matter

    def with_same_weights_kept(query, memory, values, *, alpha, no_op, beta, clip, mask, gate):  # type: ignore[no-untyped-def]
        from stanhop.hopfield.separation import separate

        scores = beta * query @ memory.transpose(-1, -2)
        per_head = alpha[:, None, None] if isinstance(alpha, Tensor) else alpha
        weights = separate(scores, alpha=per_head, no_op=no_op, clip=clip) * factor.to(scores)
        return weights @ values * gate.sigmoid().unsqueeze(-1)

    double = {name: tensor.double() for name, tensor in case.learned.items()}
    expected = outcome(with_same_weights_kept, dataclasses.replace(case, **double))

    def seeded(*tensors, **options):  # type: ignore[no-untyped-def]
        torch.manual_seed(3)
        return retrieve(*tensors, **options, dropout=0.3)

    assert not breaches(outcome(seeded, case), expected)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"query": torch.zeros(1, 2, 5, 11, dtype=torch.float64)}, "must be one of"),
        ({"query": torch.zeros(2, 5, 11)}, "must have 4 axes"),
        ({"query": torch.zeros(1, 3, 5, 11)}, "batch and heads differ"),
        ({"query": torch.zeros(1, 2, 5, 12)}, "sizes do not match"),
        ({"values": torch.zeros(1, 2, 7, 129)}, r"values_dim \(129\) must lie in \[1, 128\]"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(change, problem) -> None:
    case = dataclasses.replace(random_case(5, 7, alpha=1.0, no_op=True), **change)
    assert refusal(case.query, case.memory, case.values) is not None
    with pytest.raises(ValueError, match=problem):
        retrieve(case.query, case.memory, case.values, alpha=1.0, no_op=True)
