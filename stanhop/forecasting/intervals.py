r"""Prediction intervals: conformal offsets of each step and channel, in units of how much a context moves.

An interval for the value :math:`y` of one step and channel goes from :math:`l + s\,a` to :math:`u + s\,b`.  Here
:math:`l` and :math:`u` are the network's own bounds if it has a quantile head, and its forecast twice if not.  The
scale :math:`s = \sigma(\text{context}) + 0.5\,\bar\sigma` is the deviation of the channel in the context, plus half of
what that is on average.  The offsets :math:`a` and :math:`b` are quantiles of the scores :math:`(y - l) / s` and
:math:`(y - u) / s` over windows whose outcome is known (``calibration.py``).

Sources: split conformal prediction, Papadopoulos et al. 2002; its scores over a scale plus a constant, Papadopoulos et
al. 2011 and Lei et al. 2018, arXiv:1604.04173; around quantiles of a network, Romano et al. 2019, arXiv:1905.03222.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stanhop.errors import Code, UsageError

Values = NDArray[np.float64]
SHARE_OF_MEAN = 0.5
"""What of the mean deviation is added to a context's own.  Chosen on the validation rows of ETTh1 by the interval score
of either half with offsets of the other: 0.25 and 0.5 are level, 0 and 1 are worse, and so is no scale at all."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of a batch of windows, in scaled units.

    Args:
        forecast: ``(windows, prediction_length, channels)``.
        bounds: Lower and upper bound of each level that the network itself forecasts, of the same shape each.
    """

    forecast: Values
    bounds: Mapping[float, tuple[Values, Values]] = field(default_factory=dict)

    def bounds_of(self, level: float) -> tuple[Values, Values]:
        """The network's own bounds of ``level``; where it has none, its forecast twice."""
        return self.bounds.get(level, (self.forecast, self.forecast))


@dataclass(frozen=True, eq=False)
class Intervals:
    """Calibrated offsets of prediction intervals, in scaled units.

    Args:
        levels: Nominal coverage in percent, ascending, such as ``(80.0, 95.0)``.
        lower: Offsets of the lower bounds in units of the scale, ``(levels, prediction_length, channels)``.
        upper: Those of the upper bounds.
        floor: What is added to a context's own deviation, ``(channels,)``, above 0.
        num_windows: Validation windows they were calibrated on.
    """

    levels: tuple[float, ...]
    lower: Values
    upper: Values
    floor: Values
    num_windows: int

    def only(self, levels: Sequence[float]) -> Intervals:
        """The intervals of ``levels`` alone, ascending.

        Raises:
            UsageError: one was not calibrated.
        """
        missing = [level for level in levels if level not in self.levels]
        if missing:
            problem = (
                f"the model has no interval of {named(missing[0])} %, only of {', '.join(map(named, self.levels))}"
            )
            raise UsageError(Code.USAGE, problem, fix="choose from these, or train with --levels")
        places = [self.levels.index(level) for level in sorted(levels)]
        return dataclasses.replace(
            self, levels=tuple(sorted(levels)), lower=self.lower[places], upper=self.upper[places]
        )

    def around(self, prediction: Prediction, context: Values) -> tuple[Values, Values]:
        """Lower and upper bounds, ``(levels, windows, prediction_length, channels)`` both, of which none cross.

        Args:
            prediction: What the network says.
            context: Of what, ``(windows, context_length, channels)``.
        """
        scale = scale_of(context, self.floor)
        bounds = [prediction.bounds_of(level) for level in self.levels]
        lower = np.stack([low + scale * offset for (low, _), offset in zip(bounds, self.lower, strict=True)])
        upper = np.stack([high + scale * offset for (_, high), offset in zip(bounds, self.upper, strict=True)])
        return nested(lower, upper)


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
