"""The published network's training step: bisection is what it says, and both ways learn the same."""

from __future__ import annotations

import entmax
import pytest
import torch

from stanhop.benchmarks import training_step
from stanhop.benchmarks.bisection import bisect_entmax, bisect_retrieve, bisecting
from stanhop.benchmarks.training_step import Training, batches, compare, largest_difference, published_config
from stanhop.hopfield.retrieval import retrieve
from stanhop.model import published_layers

CPU = torch.device("cpu")


def test_bisection_is_that_of_the_entmax_package_gradients_included() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 2, 5, 7, dtype=torch.float64, generator=generator).requires_grad_()
    alpha = torch.tensor([1.3, 1.7], dtype=torch.float64).requires_grad_()
    gradient = torch.randn(3, 2, 5, 7, dtype=torch.float64, generator=generator)
    outcomes = []
    for way in (
        lambda: bisect_entmax(scores, alpha[:, None, None]),
        lambda: entmax.entmax_bisect(scores, alpha=alpha[:, None, None], n_iter=50),
    ):
        weights = way()
        outcomes.append([weights, *torch.autograd.grad(weights, (scores, alpha), gradient)])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_bisection_halves_fifty_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """One halving fewer changes the threshold by about 1e-15, so the steps are counted, not the digits."""
    from stanhop.benchmarks import bisection

    powers: list[int] = []
    real = bisection._power
    monkeypatch.setattr(bisection, "_power", lambda x, a: powers.append(1) or real(x, a))
    bisect_entmax(torch.randn(2, 3), torch.tensor(1.5))
    assert len(powers) == 1 + 50


def test_bisection_retrieves_what_we_retrieve() -> None:
    query, memory, values = (torch.randn(3, 2, length, 11, dtype=torch.float64) for length in (5, 7, 7))
    alpha = torch.tensor([1.2, 1.8], dtype=torch.float64)
    got = bisect_retrieve(query, memory, values, alpha=alpha, no_op=False, method="auto")
    expected = retrieve(query, memory, values, alpha=alpha, no_op=False, method="definition")
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("changed", [{"alpha": 1.5}, {"no_op": True}, {"clip": (0.1, 1.1)}], ids=str)
def test_bisection_stands_for_gsh_alone(changed: dict[str, object]) -> None:
    patterns = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="GSH alone"):
        bisect_retrieve(patterns, patterns, patterns, **{"alpha": torch.ones(2) * 1.5, "no_op": False, **changed})  # type: ignore[arg-type]


def test_networks_bisect_within_and_not_after() -> None:
    before = published_layers.retrieve
    with bisecting():
        assert published_layers.retrieve is bisect_retrieve
    assert published_layers.retrieve is before


def test_both_ways_start_equal_take_turns_and_learn_the_same() -> None:
    config = published_config(model_dim=8)
    found = compare(config, device=CPU, batch_size=3, num_steps=4, num_rounds=1, limit=0.0)
    assert len(found["losses"]["ours"]) == len(found["losses"]["bisection"]) == 4
    assert found["largest_difference"] < 1e-4
    assert len(set(found["losses"]["ours"])) == 4, "it does learn"
    assert set(found["seconds"]) == {"ours", "bisection"}
    assert found["bisection_over_ours"]["low"] <= found["bisection_over_ours"]["high"]


def test_a_step_by_bisection_does_bisect(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setitem(training_step.WAYS, "bisection", lambda: called.append(True) or bisecting())
    training = Training.start(published_config(model_dim=8), "bisection", CPU)
    training.step(batches(1, batch_size=2, device=CPU)[0])
    assert called == [True]


def test_curves_that_differ_are_seen() -> None:
    assert largest_difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)


def test_batches_are_shaped_like_etth1() -> None:
    context, target = batches(1, batch_size=5, device=CPU)[0]
    assert context.shape == (5, 168, 7)
    assert target.shape == (5, 24, 7)
