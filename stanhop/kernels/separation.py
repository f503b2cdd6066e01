"""Separation of a tile of scores, as device functions: threshold, weights, slopes, and the derivative by alpha.

A tile holds some rows (queries) and memories; ``differences`` d are its scores less each row's pivot m, the largest
score, in which the no-op memory (score 0, difference -m) takes part. With a = alpha - 1 one number a row, the
threshold t, gives every weight:

    v = [1 + a (d - t)]_+      weight = v ** (1 / a)      slope = v ** (1 / a - 1)      a -> 0: both exp(d - t)

The threshold at which weights sum to 1 is found by Newton's method on ``sum ** a``, which is convex in it, so that the
steps, at the latest from the second on, rise monotonically to the root: log-sum-exp in one step as a goes to 0, the
finite iteration known for sparsemax at a = 1.

``KIND`` names the case: ``softmax`` (a = 0), ``entmax15`` (a = 1/2) and ``sparsemax`` (a = 1) need no powers,
``entmax`` takes any a in [0, 1]. ``ACCURACY`` says how nearly these powers are taken: ``exact`` to rounding; ``half``
with logarithms within 5e-6 of their size, a hundredth of what half precision rounds patterns by; ``rough`` as the
hardware does, good enough on the way to the threshold. ``ON_DEVICE`` is False in the interpreter, which knows no
hardware instruction.

Source: alpha-entmax, Peters et al. 2019, arXiv:1905.05702; its derivative by alpha, Correia et al. 2019,
arXiv:1909.00015; Softmax_1, Hu et al. 2024, arXiv:2404.03828. The iteration, and a derivative by alpha that does not
cancel as alpha goes to 1, are ours (``stanhop/hopfield/fast_separation.py``).
"""

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_A = tl.constexpr(2.5e-7)
"""Below, weights are those of a = 0 to the last digit of a float32."""
NEGLIGIBLE = tl.constexpr(-1e30)
"""A difference this low has weight 0; -inf would turn into NaN where it meets 0."""
START = tl.constexpr(0.3)
"""Fewest steps on average for 7 to 120 normal scores of sd 0.3 to 2 at alpha 1.2 to 1.8: 0.1 to 0.4 fewer than from
0."""
NEARLY = tl.constexpr(1e-4)
"""Distance of a sum from 1 after which one step is left to take: then it is off by 1e-6 at most."""
NEARLY_HALF = tl.constexpr(1e-2)
"""The same where patterns are in half precision: then it is off by 1e-5 in root mean square, and by 1e-3 at most."""
SMALL_A = tl.constexpr(1e-2)
"""Below, a rough logarithm, 2e-7 off, divided by a would show even in half precision."""
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NEAR_ZERO = tl.constexpr(-0.0625)
"""From here up, log(1 + y) is taken by its series where the hardware's logarithm would lose its digits."""
MAX_STEPS = tl.constexpr(16)
"""Newton steps at most: 1 to 5 serve short rows, long flat ones need the most."""


@triton.jit
def sharpness(alpha, head, KIND: tl.constexpr):
    """The a = alpha - 1 of a head; ``entmax`` reads it, and keeps it off 0, for which its powers have no value."""
    if KIND == "softmax":
        return 0.0
    elif KIND == "entmax15":  # noqa: RET505 - a trailing return would be compiled, too
        return 0.5
    elif KIND == "sparsemax":
        return 1.0
    else:
        return tl.maximum(tl.load(alpha + head).to(tl.float32) - 1.0, SMALLEST_A)


@triton.jit
def pivot(scores, NO_OP: tl.constexpr):
    """Largest score of each row, the no-op's 0 among them; 0 for a row without memories."""
    largest = tl.max(scores, axis=1)
    if NO_OP:
        return tl.maximum(largest, 0.0)
    else:  # noqa: RET505 - a trailing return would be compiled, too
        return tl.where(largest == -float("inf"), 0.0, largest)


@triton.jit
def differences(scores, pivots, KIND: tl.constexpr):
    """Scores less their row's pivot; a NaN stays one. The exponential of ``softmax`` takes -inf as it is."""
    d = scores - pivots[:, None]
    if KIND != "softmax":
        d = tl.maximum(d, NEGLIGIBLE, propagate_nan=tl.PropagateNan.ALL)
    return d


@triton.jit
def _rough_log2(x, ON_DEVICE: tl.constexpr):
    """Within 2 ** -22 of log2 where x is in [1/2, 2], and relatively so elsewhere."""
    if ON_DEVICE:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:  # noqa: RET505 - a trailing return would be compiled, too
        return tl.log2(x)


@triton.jit
def _log2_of_1_plus(y, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr):
    """log2(1 + y) for -1 <= y <= 0.

    Exactly: with what rounding 1 + y leaves over put back. From y = -1/2 on that sum is rounded, by less than 1e-7, and
    the logarithm is linear so far; below it is exact.
    """
    rounded = 1.0 + y
    if ACCURACY == "exact":
        log = tl.log2(rounded) + LOG2E * (y - (rounded - 1.0))
    elif ACCURACY == "half":
        series = LOG2E * (y * (1.0 - y * (1 / 2 - y * (1 / 3 - y / 4))))
        log = tl.where(y > NEAR_ZERO, series, _rough_log2(rounded, ON_DEVICE))
    else:
        log = _rough_log2(rounded, ON_DEVICE)
    return log


@triton.jit
def weights_slopes_and_logs(d, t, a, KIND: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr):
    """Weights and slopes of differences ``d`` at threshold ``t``, 0 off the support.

    And, for ``alpha_slope``, the logarithm of v to base 2 where the kind is ``entmax``: a times that of the weight.
    """
    logs = d
    if KIND == "softmax":
        weights = tl.exp(d - t)
        slopes = weights
    else:
        y = tl.maximum(a * (d - t), -1.0, propagate_nan=tl.PropagateNan.ALL)
        v = 1.0 + y
        if KIND == "sparsemax":
            slopes = tl.where(v > 0, 1.0, 0.0)
        elif KIND == "entmax15":
            slopes = v
        else:
            logs = tl.where(v > 0, _log2_of_1_plus(y, ACCURACY, ON_DEVICE), 0.0)
            slopes = tl.where(v > 0, tl.exp2((1.0 / a - 1.0) * logs), 0.0)
        weights = slopes * v
    return weights, slopes, logs


@triton.jit
def weights_and_slopes(d, t, a, KIND: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr):
    """The first two of these."""
    weights, slopes, _ = weights_slopes_and_logs(d, t, a, KIND, ACCURACY, ON_DEVICE)
    return weights, slopes


@triton.jit
def sums(d, t, a, KIND: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr):
    """Sum of each row's weights and of its slopes at threshold ``t``."""
    weights, slopes = weights_and_slopes(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
    return tl.sum(weights, axis=1), tl.sum(slopes, axis=1)


@triton.jit
def with_no_op(
    total, slope, pivots, t, a,
    KIND: tl.constexpr, NO_OP: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Both sums with the no-op memory's share, if there is one: its difference is -pivot."""
    if NO_OP:
        no_op_weight, no_op_slope = weights_and_slopes(-pivots, t, a, KIND, ACCURACY, ON_DEVICE)
        total, slope = total + no_op_weight, slope + no_op_slope
    return total, slope


@triton.jit
def first_threshold(pivots, num_memories, a, KIND: tl.constexpr, NO_OP: tl.constexpr):
    """Where Newton's method begins: START of the threshold of equal scores, which is the largest there is."""
    t = tl.zeros_like(pivots)
    if KIND != "softmax":
        n = t + (num_memories + 1 if NO_OP else num_memories)
        t += START * (1.0 - tl.exp(-a * tl.log(n))) / a
    return t


@triton.jit
def newton_step(t, total, slope, a):
    """The next threshold, given the sums at ``t``; unchanged in a row without memories, whose sums are 0."""
    is_empty = total == 0.0
    z = a * tl.log(tl.where(is_empty, 1.0, total))
    series = z * (1.0 - z * (1 / 2 - z * (1 / 6 - z * (1 / 24 - z / 120))))
    shrink = tl.where(tl.abs(z) < 0.25, series, 1.0 - tl.exp(-z))  # 1 - total ** -a
    step = total * shrink / (a * tl.where(is_empty, 1.0, slope))
    return tl.maximum(t + step, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def has_converged(total, a, ACCURACY: tl.constexpr):
    """Whether all rows sum to 1 so nearly that one more step, whose error is the square of this one's, is exact.

    Rounding 1 + a d costs 1e-7 / a. A row that is empty or NaN does not count.
    """
    excess = tl.where(total > 0.0, tl.abs(total - 1.0), 0.0)
    nearly = NEARLY_HALF if ACCURACY == "half" else NEARLY
    return tl.max(excess, axis=0) <= nearly + 1e-7 / a


@triton.jit
def needs_another_sum(a, ACCURACY: tl.constexpr):
    """Whether rough sums do not suffice for the last step."""
    return (a < SMALL_A) if ACCURACY == "half" else True


@triton.jit
def threshold(
    d, pivots, num_memories, a,
    KIND: tl.constexpr, NO_OP: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """The threshold of each row of a tile that holds all its memories, so exact that weights need no normalising."""
    t = first_threshold(pivots, num_memories, a, KIND, NO_OP)
    total, slope = sums(d, t, a, KIND, "rough", ON_DEVICE)
    total, slope = with_no_op(total, slope, pivots, t, a, KIND, NO_OP, "rough", ON_DEVICE)
    if KIND == "softmax":
        t = tl.log(tl.where(total == 0.0, 1.0, total))
    else:
        step = 0
        done = has_converged(total, a, ACCURACY)
        while (step < MAX_STEPS) & (done == 0):
            t = newton_step(t, total, slope, a)
            total, slope = sums(d, t, a, KIND, "rough", ON_DEVICE)
            total, slope = with_no_op(total, slope, pivots, t, a, KIND, NO_OP, "rough", ON_DEVICE)
            done = has_converged(total, a, ACCURACY)
            step += 1
        if needs_another_sum(a, ACCURACY):
            total, slope = sums(d, t, a, KIND, ACCURACY, ON_DEVICE)
            total, slope = with_no_op(total, slope, pivots, t, a, KIND, NO_OP, ACCURACY, ON_DEVICE)
        t = newton_step(t, total, slope, a)
    return t


@triton.jit
def alpha_slope(weights, slopes, logs):
    """A ** 2 psi, where psi is minus the derivative of weights by alpha at a fixed threshold, 0 off the support.

    a ** 2 psi = p (exp(x) - 1 - x) with x = -a log(p), which is -``logs`` but for the base; as a series near x = 0,
    where the terms cancel. Sums of it are divided, not each weight's.
    """
    x = -LN2 * logs
    series = 1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720))))
    near = weights * x * x * series
    far = slopes - weights - weights * x  # slope = p exp(x)
    return tl.where(x < 0.25, near, far)
