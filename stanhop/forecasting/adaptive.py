r"""Prediction intervals that learn from each outcome, so that they hold their promise while the data drift.

The offset of each bound, step and channel starts where calibration put it and goes up by :math:`\eta (1 - p)` when the
outcome lies beyond the bound, down by :math:`\eta\, p` when it does not, where :math:`p` is how often it may: then it
does so about as often, whatever the data do.  An outcome counts from the moment it is known, ``h`` steps after a
forecast of ``h`` steps ahead was made, and never before.

Sources: adaptive conformal inference, Gibbs & Candès 2021, arXiv:2106.00170; on the offset itself, as here, quantile
tracking of Angelopoulos, Candès & Tibshirani 2023, arXiv:2307.16895.
"""

from __future__ import annotations

import numpy as np

from stanhop.forecasting.intervals import Intervals, Prediction, Values, nested, scale_of, tails

RATE = 0.005
""":math:`\\eta` as a share of the interval's width.  Chosen on the validation rows of ETTh1, of 0.002 to 0.1, by the
interval score of either half with offsets of the other."""


class AdaptiveIntervals:
    """The intervals of one series, window after window in order of time, one row apart.

    Args:
        intervals: Where the offsets start; they are not changed.
        rate: How fast they move.
    """

    def __init__(self, intervals: Intervals, *, rate: float = RATE) -> None:
        self._start = intervals
        self._rate = rate
        self._offsets = np.stack([intervals.lower, intervals.upper])  # (2, levels, steps, channels)
        self._num_steps = intervals.lower.shape[1]
        self._num_windows = 0
        # Of the last windows, as many as there are steps: whether each bound was missed, at each step.
        self._missed = np.zeros((self._num_steps, *self._offsets.shape))
        self._may_miss = np.array([tails(level)[0] for level in intervals.levels])[:, None, None]

    def around(self, prediction: Prediction, context: Values, target: Values) -> tuple[Values, Values]:
        """Bounds of the next windows, each by what was known before it.

        Args:
            prediction: What the network says of them.
            context: ``(windows, context_length, channels)``.
            target: What came true, ``(windows, prediction_length, channels)``; looked at once it is known.

        Returns:
            Lower and upper bounds, ``(levels, windows, prediction_length, channels)`` both.
        """
        scale = scale_of(context, self._start.floor)  # (windows, 1, channels)
        sides = zip(*(prediction.bounds_of(level) for level in self._start.levels), strict=True)
        bases = np.stack([np.stack(side) for side in sides])  # (2, levels, windows, steps, channels)
        calibrated = self._start.around(prediction, context)
        widths = (calibrated[1] - calibrated[0]) / scale  # (levels, windows, steps, channels)
        bounds = np.empty_like(bases)
        for window in range(len(context)):
            bounds[:, :, window] = bases[:, :, window] + scale[window] * self._offsets
            self._record(bounds[:, :, window], target[window])
            self._learn(self._rate * widths[:, window])
        return nested(bounds[0], bounds[1])

    def _record(self, bounds: Values, target: Values) -> None:
        """Keep whether ``target`` ``(steps, channels)`` lies beyond ``bounds`` ``(2, levels, steps, channels)``."""
        missed = self._missed[self._num_windows % self._num_steps]
        missed[0], missed[1] = target < bounds[0], target > bounds[1]
        self._num_windows += 1

    def _learn(self, sizes: Values) -> None:
        """Move the offsets by what has come true by the origin of the next window; ``sizes`` as one side of them.

        Of the last window that is its first step, of the one before its second, and so on.
        """
        steps = np.arange(min(self._num_steps, self._num_windows))
        windows = (self._num_windows - 1 - steps) % self._num_steps
        missed = self._missed[windows, :, :, steps].transpose(1, 2, 0, 3)  # (2, levels, steps, channels)
        moved = sizes[:, steps] * (missed - self._may_miss)
        self._offsets[0, :, steps] -= moved[0].swapaxes(0, 1)
        self._offsets[1, :, steps] += moved[1].swapaxes(0, 1)
