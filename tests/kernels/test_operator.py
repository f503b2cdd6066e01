"""The kernels as a torch operator: checked by torch itself, compiled whole, and refused a second derivative."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

from stanhop.kernels import retrieve
from stanhop.kernels.operator import _retrieve
from tests.kernels.cases import breaches, expected_outcome, outcome, random_case


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(("alpha", "kind"), [(1.0, "softmax"), ((1.2, 1.7), "entmax")], ids=["softmax", "entmax"])
@pytest.mark.parametrize("loops", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["resident", "looped"])
def test_torch_finds_nothing_wrong_with_the_operator(alpha, kind, masked, loops, request) -> None:
    if loops:
        request.getfixturevalue("looped")
    case = random_case(3, 18, alpha=alpha, no_op=True, masked=masked, gated=masked)
    tensors = {name: tensor.requires_grad_() for name, tensor in case.learned.items()}
    arguments = (
        tensors["query"], tensors["memory"], tensors["values"], tensors.get("alpha"), case.mask, tensors.get("gate"),
        None, kind, True, 0.5, None, 0.0,
    )  # fmt: skip
    results = opcheck(_retrieve, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_function_is_one_graph_and_equal() -> None:
    case = random_case(5, 7, alpha=(1.2, 1.7), no_op=True, gated=True)
    compiled = torch.compile(retrieve, fullgraph=True, backend="aot_eager")
    assert not breaches(outcome(compiled, case), expected_outcome(case))


def test_the_device_is_never_asked_for_the_value_of_alpha(monkeypatch) -> None:
    case = random_case(5, 7, alpha=(1.2, 1.7), no_op=True)
    monkeypatch.setattr(torch.Tensor, "item", lambda _: pytest.fail("a value was read"))
    fake_alpha = case.alpha.to("meta")
    got = retrieve(*(each.to("meta") for each in (case.query, case.memory, case.values)), alpha=fake_alpha, no_op=True)
    assert got.shape == (1, 2, 5, 13)


def test_second_derivatives_are_refused() -> None:
    case = random_case(3, 4, alpha=1.0, no_op=True)
    query = case.query.requires_grad_()
    (gradient,) = torch.autograd.grad(
        retrieve(query, case.memory, case.values, alpha=1.0, no_op=True).square().sum(), query, create_graph=True
    )
    with pytest.raises(RuntimeError, match="retrieve_backward"):
        torch.autograd.grad(gradient.square().sum(), query)


def test_no_queries_give_no_answers_and_gradients_of_0() -> None:
    case = random_case(5, 7, alpha=1.0, no_op=True)
    memory = case.memory.requires_grad_()
    retrieved = retrieve(case.query[:, :, :0], memory, case.values, alpha=1.0, no_op=True)
    assert retrieved.shape == (1, 2, 0, 13)
    (gradient,) = torch.autograd.grad(retrieved.sum(), memory)
    assert (gradient == 0).all()
