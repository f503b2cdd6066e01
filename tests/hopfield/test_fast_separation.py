"""Tests of the fast separation: equal to the definition in weights and every gradient, wherever scores may lie."""

from __future__ import annotations

import math

import entmax
import pytest
import torch
from torch.nn import functional

from stanhop.hopfield import fast_separation
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.separation import CLIP, separate

ALPHAS = [1.0, 1 + 1e-7, 1.001, 1.01, 1.1, 1.37, 1.5, 1.8, 1.99, 2.0]


def scores_of(*shape: int, scale: float = 2.0, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + offset


def evaluate(separation, scores, *, alpha, dtype, no_op, clip=None, per_head=True):
    """Weights, gradient of the scores and gradient of alpha (one a head) under a fixed cotangent."""
    scores = scores.detach().to(dtype).clone().requires_grad_()
    alphas = torch.full((scores.shape[-3], 1, 1), alpha, dtype=dtype, requires_grad=True)
    weights = separation(scores, alpha=alphas if per_head else alpha, no_op=no_op, clip=clip)
    weights.backward(scores_of(*scores.shape, seed=1).to(dtype))
    return weights.detach(), scores.grad, alphas.grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_and_every_gradient_equal_the_definitions(alpha, no_op, dtype, assert_close) -> None:
    scores = torch.cat([scores_of(2, 3, 5, 13, scale=scale) for scale in (0.3, 3.0)])
    scores = torch.cat([scores, scores - 2])  # rows in which the no-op memory wins
    scores[0, :, 1, 3:] = -math.inf
    scores[0, :, 2] = -math.inf
    expected = evaluate(separate, scores, alpha=alpha, dtype=torch.float64, no_op=no_op)
    per_head = evaluate(fast_separate, scores, alpha=alpha, dtype=dtype, no_op=no_op)
    for got, want, quantity in zip(per_head, expected, ["weights", "scores_grad", "alpha_grad"], strict=True):
        assert_close(got, want, quantity)
    weights, scores_grad, _ = evaluate(fast_separate, scores, alpha=alpha, dtype=dtype, no_op=no_op, per_head=False)
    assert_close(weights, expected[0], "weights")
    assert_close(scores_grad, expected[1], "scores_grad")


@pytest.mark.parametrize("num_memories", [1, 2, 7, 59, 127])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.9, 2.0])
def test_any_number_of_memories_will_do(alpha, num_memories, assert_close) -> None:
    scores = scores_of(2, 3, 5, num_memories)
    for no_op in (True, False):
        expected = evaluate(separate, scores, alpha=alpha, dtype=torch.float64, no_op=no_op)
        got = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float64, no_op=no_op)
        assert_close(got[0], expected[0], "weights")
        assert (got[1] - expected[1]).abs().max() <= 1e-12  # of one memory it is 0, so that no ratio can be had
        assert (got[2] - expected[2]).abs().max() <= 1e-10


@pytest.mark.parametrize("alpha", [1.01, 1.37, 1.5, 1.8, 2.0])
def test_weights_and_gradients_equal_the_entmax_packages_on_scores_with_a_zero_appended(alpha, assert_close) -> None:
    def package(scores, *, alpha, no_op, clip):
        return entmax.entmax_bisect(functional.pad(scores, (0, 1)), alpha=alpha, n_iter=100)[..., :-1]

    scores = scores_of(5, 3, 7, 13)
    expected = evaluate(package, scores, alpha=alpha, dtype=torch.float64, no_op=True)
    got = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float64, no_op=True)
    for a, b, quantity in zip(got, expected, ["weights", "scores_grad", "package_alpha_grad"], strict=True):
        assert_close(a, b, quantity)


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.02, 1.5, 1.97])
def test_gradients_equal_finite_differences(alpha, no_op) -> None:
    scores = scores_of(3, 5, scale=1.0).requires_grad_()
    alphas = torch.full((3, 1), alpha, dtype=torch.float64, requires_grad=True)

    def weights_of(scores: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
        return fast_separate(scores, alpha=alphas, no_op=no_op)

    assert torch.autograd.gradcheck(weights_of, (scores, alphas), atol=1e-7)
    assert torch.autograd.gradcheck(lambda s: fast_separate(s, alpha=1.0, no_op=no_op), scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("separation", [separate, fast_separate])
def test_extreme_scores_give_finite_weights_and_gradients(separation, dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    largest = torch.finfo(dtype).max
    extremes = [largest, -largest, -math.inf, 0.0, 1e-30, 90.0, -90.0, 1e4, -1e4, 3e38, -3e38]
    extremes = torch.tensor(extremes, dtype=dtype)
    num_cases = 1_000
    scores = extremes[torch.randint(len(extremes), (num_cases, 7), generator=generator)]
    scores[:50] = scores[:50, :1]  # constant rows
    scores[50:90] += torch.randn(40, 7, generator=generator)
    scores.requires_grad_()
    alphas = 1 + torch.rand(num_cases, 1, generator=generator).to(dtype)
    alphas[::7], alphas[1::7] = 1.0, 2.0
    alphas.requires_grad_()
    cotangent = torch.randn(num_cases, 7, generator=generator, dtype=dtype)
    for no_op in (True, False):
        for alpha, clip in ((alphas, None), (1.0, None), (1.0, CLIP), (1.5, None), (2.0, None)):
            weights = separation(scores, alpha=alpha, no_op=no_op, clip=clip)
            inputs = (scores, alphas) if alpha is alphas else (scores,)
            gradients = torch.autograd.grad(weights, inputs, cotangent)
            assert all(result.isfinite().all() for result in (weights, *gradients))
            assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()


@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0, torch.full((7, 1), 1.3)])
def test_ties_at_huge_scores_share(alpha) -> None:
    scores = torch.tensor([[3e38, 3e38, -3e38, 0.0]]).expand(7, 4)
    weights = fast_separate(scores, alpha=alpha, no_op=True)
    assert weights[0].tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize("no_op", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.7, 2.0, torch.full((3, 1), 1.4, dtype=torch.float64)])
def test_nan_scores_are_not_hidden(alpha, no_op) -> None:
    scores = scores_of(3, 7)
    scores[1, 4] = math.nan
    weights = fast_separate(scores, alpha=alpha, no_op=no_op)
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()


def test_the_gradient_by_alpha_holds_in_float32_where_the_package_cancels(assert_close) -> None:
    for alpha in (1 + 1e-6, 1.0001, 1.003):
        scores = scores_of(5, 3, 7, 13)
        expected = evaluate(separate, scores, alpha=alpha, dtype=torch.float64, no_op=True)
        got = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float32, no_op=True)
        assert_close(got[2], expected[2], "alpha_grad")


@pytest.mark.parametrize("clip", [CLIP, (0.9, 1.2)])
@pytest.mark.parametrize("alpha", [1.0, 1.4])
def test_clipping_equals_the_definitions(alpha, clip, assert_close) -> None:
    scores = scores_of(5, 3, 7, 13)
    expected = evaluate(separate, scores, alpha=alpha, dtype=torch.float64, no_op=True, clip=clip)
    got = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float64, no_op=True, clip=clip)
    for a, b, quantity in zip(got, expected, ["weights", "scores_grad", "alpha_grad"], strict=True):
        assert_close(a, b, quantity)


def test_blocks_do_not_show(monkeypatch, assert_close) -> None:
    scores = scores_of(5, 3, 7, 13)
    whole = evaluate(fast_separate, scores, alpha=1.4, dtype=torch.float64, no_op=True)
    blocks = []
    solve = fast_separation._solve
    monkeypatch.setattr(fast_separation, "BLOCK_SIZE", 11 * 13)
    monkeypatch.setattr(fast_separation, "_solve", lambda d, a: blocks.append(d.shape) or solve(d, a))
    parts = evaluate(fast_separate, scores, alpha=1.4, dtype=torch.float64, no_op=True)
    assert blocks == [(14, 11)] * 9 + [(14, 6)]
    for a, b, quantity in zip(parts, whole, ["weights", "scores_grad", "alpha_grad"], strict=True):
        assert_close(a, b, quantity)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newtons_method_ends_by_itself(dtype, monkeypatch) -> None:
    steps = []
    evaluate_at = fast_separation._evaluate
    monkeypatch.setattr(fast_separation, "_evaluate", lambda *a: steps.append(1) or evaluate_at(*a))
    alphas = [*torch.tensor([1 + 1e-7, 1.1, 1.41, 1.5, 1.75, 1.99, 2.0], dtype=dtype).expand(31, -1).t()[..., None]]
    alphas += [torch.linspace(1, 2, 31, dtype=dtype)[:, None], 1.1, 1.41, 1.75]
    for alpha in alphas:
        for scale in (0.0, 0.01, 0.3, 1.0, 10.0, 300.0):
            for offset in (0.0, -5.0, 5.0):
                steps.clear()
                scores = scores_of(31, 127, scale=scale, offset=offset).to(dtype)
                fast_separate(scores, alpha=alpha, no_op=True)
                assert len(steps) <= 10  # of at most 32


@pytest.mark.parametrize("alpha", [1.6, 1.9, 1.99])
def test_a_guess_saves_newtons_method_steps(alpha, monkeypatch) -> None:
    steps = []
    evaluate_at = fast_separation._evaluate
    monkeypatch.setattr(fast_separation, "_evaluate", lambda *a: steps.append(1) or evaluate_at(*a))
    scores = scores_of(999, 14, scale=1.0).float()
    for one in (alpha, torch.full((999, 1), alpha)):
        steps.clear()
        fast_separate(scores, alpha=one, no_op=False)
        assert len(steps) <= 4  # 5 or 6 from u = 1


def test_a_head_near_softmax_is_not_guessed_because_another_is_steep() -> None:
    alphas = torch.tensor([[1.02], [1.9]])
    weights = fast_separate(torch.zeros(2, 40_000), alpha=alphas, no_op=False)
    assert weights == pytest.approx(torch.full((2, 40_000), 1 / 40_000))


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_fixed_alphas_of_one_and_a_half_and_2_need_no_logarithm(alpha, monkeypatch, assert_close) -> None:
    scores = scores_of(5, 3, 7, 13)
    expected = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float64, no_op=True)
    monkeypatch.setattr(torch.Tensor, "log1p_", lambda tensor: pytest.fail("not to be called"))
    got = evaluate(fast_separate, scores, alpha=alpha, dtype=torch.float64, no_op=True, per_head=False)
    assert_close(got[0], expected[0], "weights")
    assert_close(got[1], expected[1], "scores_grad")


def test_strided_scores_and_gradients_will_do(assert_close) -> None:
    scores = scores_of(7, 13, 3, 5).permute(0, 2, 3, 1)
    for alpha in (1.0, 1.4):
        expected = evaluate(separate, scores.contiguous(), alpha=alpha, dtype=torch.float64, no_op=True, per_head=False)
        strided = scores.detach().requires_grad_()
        weights = fast_separate(strided, alpha=alpha, no_op=True)
        cotangent = scores_of(*scores.shape, seed=1).transpose(0, 1).contiguous().transpose(0, 1)
        assert not cotangent.is_contiguous()
        assert_close(weights, expected[0], "weights")
        assert_close(torch.autograd.grad(weights, strided, cotangent)[0], expected[1], "scores_grad")


@pytest.mark.parametrize("alpha", [1.0, 1.4, 2.0])
def test_scores_are_left_as_they_were(alpha) -> None:
    scores = scores_of(5, 7)
    before = scores.clone()
    fast_separate(scores, alpha=alpha, no_op=True)
    assert scores.equal(before)


@pytest.mark.parametrize("alpha", [1.0, 1.4])
def test_no_rows_give_no_weights(alpha) -> None:
    assert fast_separate(torch.zeros(0, 7), alpha=alpha, no_op=True).shape == (0, 7)


@pytest.mark.parametrize("alpha", [1.0, 1.4])
def test_half_precision_is_computed_in_float32(alpha) -> None:
    scores = scores_of(5, 7).bfloat16()
    weights = fast_separate(scores, alpha=alpha, no_op=True)
    assert weights.equal(fast_separate(scores.float(), alpha=alpha, no_op=True).bfloat16())


@pytest.mark.parametrize("alpha", [1.0, 1.4])
def test_second_derivatives_are_refused_rather_than_wrong(alpha) -> None:
    scores = scores_of(5, 7).requires_grad_()
    weights = fast_separate(scores, alpha=alpha, no_op=True)
    (gradient,) = torch.autograd.grad(weights.square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
