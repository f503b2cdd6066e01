"""Compiled retrieval: one graph without a look at any value, equal to the definition, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve
from stanhop.hopfield.separation import separate

# Tracing looks at .grad of tensors, uses torch.jit and instantiates functions, on all of which torch itself comments.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def compiled(function):  # type: ignore[no-untyped-def]
    """As one graph, run as it is: what is compared is the graph, not the compiler behind it."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")


def outcome(function, scores: Tensor, alpha: Tensor, *, no_op: bool) -> list[Tensor]:
    scores, alpha = scores.detach().requires_grad_(), alpha.detach().requires_grad_()
    weights = function(scores, alpha=alpha[:, None, None], no_op=no_op)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    return [weights, *torch.autograd.grad(weights, (scores, alpha), gradient)]


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize(("num_memories", "scale"), [(1, 1.0), (14, 0.01), (14, 20.0), (121, 1.0), (1009, 0.1)])
def test_the_steps_a_graph_takes_are_enough(num_memories, scale, no_op, assert_close, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(num_memories)
    alpha = torch.tensor([1.001, 1.2, 1.5, 1.9, 2.0], dtype=torch.float64)
    scores = torch.randn(len(alpha), 7, num_memories, generator=generator, dtype=torch.float64) * scale
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    got = outcome(fast_separate, scores, alpha, no_op=no_op)
    expected = outcome(separate, scores, alpha, no_op=no_op)
    for name, left, right in zip(("weights", "scores_grad", "alpha_grad"), got, expected, strict=True):
        assert_close(left, right, name)


@pytest.mark.slow
@pytest.mark.parametrize("num_memories", [7, 131])  # separate steps, fused attention
@pytest.mark.parametrize("alpha", [1.0, torch.tensor([1.2, 1.7])], ids=["softmax", "learned"])
def test_a_retrieval_is_one_graph(alpha, num_memories, assert_close) -> None:
    patterns = torch.randn(3, 2, num_memories, 11, generator=torch.Generator().manual_seed(3))

    def function(alpha: float | Tensor) -> Tensor:
        return retrieve(patterns, patterns, patterns, alpha=alpha, no_op=True)

    assert_close(compiled(function)(alpha), function(alpha), "retrieved")
