"""Tests of the definition of separation: against hand-set answers, the entmax package, and its own invariances."""

from __future__ import annotations

import math
from typing import get_args

import entmax
import pytest
import torch
from torch.nn import functional

from stanhop.config import ModelConfig
from stanhop.errors import ConfigError
from stanhop.hopfield.separation import CLIP, SEPARATIONS, Separation, separate

ALPHAS = [1.0, 1.01, 1.25, 1.5, 1.83, 2.0]


def scores_of(*shape: int, scale: float = 2.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize(
    ("scores", "alpha", "no_op", "weights"),
    [
        ([0.0, 0.0], 1.0, False, [1 / 2, 1 / 2]),
        ([0.0, 0.0], 1.0, True, [1 / 3, 1 / 3]),
        ([math.log(2.0), math.log(5.0)], 1.0, True, [2 / 8, 5 / 8]),
        ([1.0, 0.5], 2.0, False, [0.75, 0.25]),
        ([1.0, 0.5], 2.0, True, [0.75, 0.25]),  # the no-op is below the threshold 0.25
        ([0.5, 0.0], 2.0, True, [2 / 3, 1 / 6]),
        ([2.0, 0.5], 2.0, False, [1.0, 0.0]),
        ([0.0, 0.0, 0.0], 1.5, False, [1 / 3, 1 / 3, 1 / 3]),
        ([2.0, 0.0], 1.5, False, [1.0, 0.0]),  # p = [s / 2 - tau]^2 and tau = 0
        ([-3.0], 1.3, False, [1.0]),
    ],
)
def test_weights_equal_those_worked_out_by_hand(
    scores: list[float], alpha: float, no_op: bool, weights: list[float]
) -> None:
    got = separate(torch.tensor(scores, dtype=torch.float64), alpha=alpha, no_op=no_op)
    assert got.tolist() == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.01, 1.25, 1.5, 1.83, 2.0, 2.6])
def test_weights_and_gradients_equal_the_entmax_packages_on_scores_with_a_zero_appended(
    alpha, no_op, assert_close
) -> None:
    scores, cotangent = scores_of(3, 5, 7).requires_grad_(), scores_of(3, 5, 7, seed=1)
    alphas = torch.full((5, 1), alpha, dtype=torch.float64, requires_grad=True)
    weights = separate(scores, alpha=alphas, no_op=no_op)
    scores_grad, alpha_grad = torch.autograd.grad(weights, (scores, alphas), cotangent)

    columns = functional.pad(scores, (0, 1)) if no_op else scores
    expected = entmax.entmax_bisect(columns, alpha=alphas, n_iter=100)[..., :7]
    expected_scores_grad, expected_alpha_grad = torch.autograd.grad(expected, (scores, alphas), cotangent)
    assert_close(weights, expected, "weights")
    assert_close(scores_grad, expected_scores_grad, "scores_grad")
    assert_close(alpha_grad, expected_alpha_grad, "package_alpha_grad")


@pytest.mark.parametrize("no_op", [True, False])
def test_alpha_1_is_softmax(no_op, assert_close) -> None:
    scores = scores_of(5, 7)
    expected = functional.pad(scores, (0, 1)).softmax(-1)[..., :-1] if no_op else scores.softmax(-1)
    assert_close(separate(scores, alpha=1.0, no_op=no_op), expected, "weights")
    assert_close(separate(scores, alpha=torch.ones(5, 1).double(), no_op=no_op), expected, "weights")


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1 + 1e-4, 1.02, 1.5, 1.97])
def test_autograd_is_exact_in_scores_and_alpha(alpha, no_op) -> None:
    scores = scores_of(3, 5, scale=1.0).requires_grad_()
    step = 1e-6
    alphas = torch.full((3, 1), alpha + 2 * step, dtype=torch.float64, requires_grad=True)

    def weights_of(scores: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
        return separate(scores, alpha=alphas, no_op=no_op)

    assert torch.autograd.gradcheck(weights_of, (scores, alphas), eps=step, atol=1e-7)


def test_the_gradient_by_alpha_is_continuous_at_1(assert_close) -> None:
    scores, cotangent = scores_of(5, 7), scores_of(5, 7, seed=1)

    def alpha_grad(a: float) -> torch.Tensor:
        alphas = torch.full((5, 1), 1 + a, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(separate(scores, alpha=alphas, no_op=True), alphas, cotangent)[0]

    assert_close(alpha_grad(1e-11), alpha_grad(0.0), "alpha_grad")


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_permuting_memories_permutes_weights(alpha, no_op, assert_close) -> None:
    scores, order = scores_of(5, 7), torch.tensor([3, 0, 6, 2, 5, 1, 4])
    permuted = separate(scores[:, order], alpha=alpha, no_op=no_op)
    assert_close(permuted, separate(scores, alpha=alpha, no_op=no_op)[:, order], "weights")


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_constant_added_to_all_scores_matters_with_a_no_op_memory_only(alpha, assert_close) -> None:
    scores = scores_of(5, 7, scale=0.1)
    assert_close(separate(scores - 3, alpha=alpha, no_op=False), separate(scores, alpha=alpha, no_op=False), "weights")
    lowered, weights = (separate(s, alpha=alpha, no_op=True).sum(-1) for s in (scores - 3, scores))
    assert (lowered < weights - 0.1).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rows_sum_to_1_without_and_to_less_with_a_no_op_memory(alpha) -> None:
    scores = scores_of(5, 7, scale=0.05)
    assert separate(scores, alpha=alpha, no_op=False).sum(-1).tolist() == pytest.approx([1.0] * 5)
    assert (separate(scores, alpha=alpha, no_op=True).sum(-1) < 0.95).all()


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_memories_have_no_weight_and_no_influence(alpha, no_op, clip, assert_close) -> None:
    scores = scores_of(5, 7)
    padded = functional.pad(scores, (2, 3), value=-math.inf)
    weights = separate(padded, alpha=alpha, no_op=no_op, clip=clip)
    assert (weights[:, [0, 1, 9, 10, 11]] == 0).all()
    assert_close(weights[:, 2:9], separate(scores, alpha=alpha, no_op=no_op, clip=clip), "weights")


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_row_that_is_all_masked_has_weights_and_gradients_of_0(alpha, no_op) -> None:
    scores = scores_of(3, 7)
    scores[1] = -math.inf
    scores.requires_grad_()
    alphas = torch.full((3, 1), alpha, dtype=torch.float64, requires_grad=True)
    for given in (alpha, alphas):
        weights = separate(scores, alpha=given, no_op=no_op)
        assert (weights[1] == 0).all()
        inputs = (scores, alphas) if given is alphas else (scores,)
        gradients = torch.autograd.grad(weights, inputs, scores_of(3, 7, seed=1))
        assert all((gradient[1] == 0).all() and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_nan_scores_are_not_hidden(alpha, no_op) -> None:
    scores = scores_of(3, 7)
    scores[1, 4] = math.nan
    weights = separate(scores, alpha=alpha, no_op=no_op)
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1.0, 1.4])
def test_half_precision_is_computed_in_float32(alpha, dtype) -> None:
    scores = scores_of(5, 7).to(dtype)
    weights = separate(scores, alpha=alpha, no_op=True)
    assert weights.dtype == dtype
    assert weights.equal(separate(scores.float(), alpha=alpha, no_op=True).to(dtype))


def test_higher_alpha_leaves_fewer_memories() -> None:
    scores = scores_of(53, 59, scale=1.0)
    counts = [(separate(scores, alpha=alpha, no_op=True) > 0).sum().item() for alpha in (1.0, 1.3, 1.6, 2.0)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4


def test_clipping_silences_weights_below_zeta_times_the_mean_and_keeps_equal_ones_alive() -> None:
    for num_memories in (7, 28, 97):
        few = torch.zeros(num_memories, dtype=torch.float64)
        few[0] = -math.log(7.0)  # a seventh of the weight of the others, and below a quarter of the mean
        few[1] = -math.log(3.5)
        weights = separate(few, alpha=1.0, no_op=False, clip=(0.25, 1.0))
        assert weights[0] == 0
        assert (weights[1:] > 0).all()
        assert weights.sum() > 0.7


def test_clipping_reaches_0_and_1_and_not_beyond() -> None:
    scores = torch.tensor([30.0, 0.0, -30.0], dtype=torch.float64)
    assert separate(scores, alpha=1.0, no_op=False, clip=(0.3, 1.1)).tolist() == [1.0, 0.0, 0.0]


def test_presets_are_the_separations_that_a_configuration_can_name() -> None:
    assert set(SEPARATIONS) == set(get_args(ModelConfig.model_fields["separation"].annotation))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"alpha": 0.9}, r"alpha \(0.9\) must lie in \[1, 2\]"),
        ({"alpha": math.nan}, r"alpha \(nan\) must lie in \[1, 2\]"),
        ({"alpha": 1.0, "clip": (-0.1, 1.0)}, r"zeta \(-0.1\) >= 0"),
        ({"alpha": 1.0, "clip": (0.1, 0.9)}, r"eta \(0.9\) >= 1"),
    ],
)
def test_a_separation_that_is_none_is_refused(arguments, problem) -> None:
    with pytest.raises(ConfigError, match=problem):
        Separation(no_op=True, **arguments)
