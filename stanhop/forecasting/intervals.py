r"""Prediction intervals: conformal offsets of each step and channel, in units of how much a context moves.

An interval for the value :math:`y` of one step and channel goes from :math:`l + s\,a` to :math:`u + s\,b`.  Here
:math:`l` and :math:`u` are the network's own bounds if it has a quantile head, and its forecast twice if not.  The
scale :math:`s = \sigma(\text{context}) + 0.5\,\bar\sigma` is the deviation of the channel in the context, plus half of
what that is on average.  The offsets :math:`a` and :math:`b` are quantiles of the scores :math:`(y - l) / s` and
:math:`(y - u) / s` over windows that the network has not learned from.

Sources: split conformal prediction, Papadopoulos et al. 2002; its scores over a scale plus a constant, Papadopoulos et
al. 2011 and Lei et al. 2018, arXiv:1604.04173; around quantiles of a network, Romano et al. 2019, arXiv:1905.03222.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stanhop.errors import Code, UsageError

Values = NDArray[np.float64]
SHARE_OF_MEAN = 0.5
"""What of the mean deviation is added to a context's own.  Chosen on the validation rows of ETTh1 by the interval score
of either half with offsets of the other: 0.25 and 0.5 are level, 0 and 1 are worse, and so is no scale at all."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Calibrated offsets of prediction intervals, in scaled units.

    Args:
        levels: Nominal coverage in percent, ascending, such as ``(80.0, 95.0)``.
        lower: Offsets of the lower bounds in units of the scale, ``(levels, prediction_length, channels)``.
        upper: Those of the upper bounds.
        floor: What is added to a context's own deviation, ``(channels,)``, above 0.
        num_windows: Windows they were calibrated on.
    """

    levels: tuple[float, ...]
    lower: Values
    upper: Values
    floor: Values
    num_windows: int

    def scale_of(self, context: Values) -> Values:
        """The scale of each window and channel; as the function ``scale_of``."""
        return scale_of(context, self.floor)

    def places_of(self, levels: Sequence[float]) -> list[int]:
        """Where each of ``levels`` stands.

        Raises:
            UsageError: one was not calibrated.
        """
        missing = [level for level in levels if level not in self.levels]
        if missing:
            problem = (
                f"the model has no interval of {named(missing[0])} %, only of {', '.join(map(named, self.levels))}"
            )
            raise UsageError(Code.USAGE, problem, fix="choose from these, or train with --levels")
        return [self.levels.index(level) for level in levels]


def named(level: float) -> str:
    """``level`` as names of columns and metrics have it: ``80``, ``97.5``."""
    return f"{level:g}"


def floor_of(deviations: Values) -> Values:
    """What is added to a context's own deviation, from those of many contexts, ``(windows, channels)``."""
    mean: Values = deviations.mean(axis=0)
    return np.where(mean > 0, SHARE_OF_MEAN * mean, 1.0)


def scale_of(context: Values, floor: Values) -> Values:
    """The scale of each window and channel, ``(windows, 1, channels)``, above 0.

    Args:
        context: ``(windows, context_length, channels)``.
        floor: ``(channels,)``, above 0.
    """
    scale: Values = context.std(axis=1, keepdims=True) + floor
    return scale


def conformal_quantile(scores: Values, probability: float) -> Values:
    r"""A quantile of what comes next, from ``scores`` that are exchangeable with it.

    The order statistic with rank :math:`\lceil p (n + 1) \rceil`, and :math:`\lfloor p (n + 1) \rfloor` below the
    middle, so that the next one lies between two of them at least as often as they say.  Where ``n`` is too small for
    such a rank it is the smallest or largest score, and the promise does not hold.

    Args:
        scores: ``(n, ...)``.
        probability: Between 0 and 1.

    Returns:
        ``(...)``.

    Source: Lei et al. 2018, arXiv:1604.04173, algorithm 2, for both tails apart.
    """
    count = len(scores)
    exact = round(probability * (count + 1), 9)  # 0.95 * 20 is 19, not a hair more
    rank = min(max(1, math.ceil(exact) if probability >= 0.5 else math.floor(exact)), count)
    quantile: Values = np.partition(scores, rank - 1, axis=0)[rank - 1]
    return quantile


def tails(level: float) -> tuple[float, float]:
    """The probabilities of the two bounds of a central interval: 0.1 and 0.9 for 80 %."""
    outside = (100 - level) / 200
    return outside, 1 - outside


def nested(lower: Values, upper: Values) -> tuple[Values, Values]:
    """Bounds ``(levels, ...)``, levels ascending, made to nest: a wider level holds the narrower ones."""
    return np.minimum.accumulate(lower, axis=0), np.maximum.accumulate(upper, axis=0)
