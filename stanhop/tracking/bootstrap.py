r"""How sure a difference between two groups of runs is: a paired bootstrap over test windows and over seeds.

Errors of windows that overlap are alike, so windows are drawn in blocks of neighbours (the circular block bootstrap),
and both groups get the same ones: what makes a stretch of time hard for all of them cancels. Seeds are drawn by
themselves; a seed that both groups have is drawn for both. With ``S`` seeds a drawn mean varies by only ``(S - 1) / S``
of what the mean of S new trainings would, so its deviation from the mean of all is stretched by
:math:`\sqrt{S / (S - 1)}`. One seed says nothing about others: the interval then is about windows alone.

Source: Politis & Romano 1992 (circular blocks); Davison & Hinkley 1997, section 3.8 (nested data).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_RESAMPLES = 2_000
CHUNK = 250
"""Draws counted at once: bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where it lies.

    Args:
        estimate: What was measured.
        low: The interval's lower end.
        high: Its upper end.
    """

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone is an unlikely reason for the estimate."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True, eq=False)
class _Draw:
    """The blocks drawn of one series.

    Args:
        places: Its windows among all, ``(windows,)``.
        length: Windows in a block.
        starts: The first window of each block, ``(resamples, blocks)``.
    """

    places: np.ndarray
    length: int
    starts: np.ndarray

    def counts(self, first: int) -> np.ndarray:
        """How often a block begins at each window, ``(windows, resamples)``, in ``CHUNK`` draws from ``first`` on."""
        starts, num_windows = self.starts[first : first + CHUNK], len(self.places)
        flat = starts + num_windows * np.arange(len(starts))[:, None]
        counts = np.bincount(flat.ravel(), minlength=num_windows * len(starts))
        return counts.reshape(len(starts), num_windows).T.astype(np.float32)


def _block_sums(errors: np.ndarray, length: int) -> np.ndarray:
    """The sum over the block that begins at each window, going on at the first after the last: of ``errors``' shape."""
    sums = np.empty(errors.shape, dtype=np.float32)  # for thousands of runs this halves the time of all that follows
    for row, own in enumerate(errors):
        around = np.concatenate([[0.0], own, own[: length - 1]]).cumsum()
        sums[row] = around[length:] - around[:-length]
    return sums


class Resamples:
    """Draws of windows that all comparisons of one set of windows share.

    Args:
        series: Which series each window is of, ``(windows,)``, ascending.
        block_length: Neighbouring windows drawn together.
        num_resamples: How many draws.
        seed: Of the draws.
    """

    def __init__(self, series: np.ndarray, *, block_length: int, num_resamples: int, seed: int) -> None:
        self.num_resamples = num_resamples
        self._rng = np.random.default_rng(seed)
        self._draws = [
            self._draw(np.flatnonzero(series == number), block_length=block_length) for number in np.unique(series)
        ]

    def _draw(self, places: np.ndarray, *, block_length: int) -> _Draw:
        length = min(block_length, len(places))
        shape = (self.num_resamples, math.ceil(len(places) / length))
        return _Draw(places, length, self._rng.integers(len(places), size=shape))

    def means(self, errors: np.ndarray) -> np.ndarray:
        """The mean of each run's errors ``(runs, windows)`` over each draw, ``(runs, resamples)``."""
        sums = np.zeros((len(errors), self.num_resamples), dtype=np.float32)
        for draw in self._draws:
            blocks = _block_sums(errors[:, draw.places], draw.length)
            for first in range(0, self.num_resamples, CHUNK):
                sums[:, first : first + CHUNK] += blocks @ draw.counts(first)
        means: np.ndarray = sums / sum(draw.length * draw.starts.shape[1] for draw in self._draws)
        return means

    def difference(
        self,
        ours: np.ndarray,
        theirs: np.ndarray,
        *,
        our_seeds: Sequence[int],
        their_seeds: Sequence[int],
        confidence: float,
    ) -> tuple[float, float]:
        """The interval of the mean of ``ours`` minus that of ``theirs``.

        Args:
            ours: What ``means`` made of the errors of one group, ``(seeds, resamples)``.
            theirs: The same of the other.
            our_seeds: The seed of each row.
            their_seeds: Likewise.
            confidence: Share of the draws inside, such as 0.95.
        """
        if list(our_seeds) == list(their_seeds):  # paired: one draw of seeds serves both
            drawn = self._over_seeds(ours - theirs)
        else:
            drawn = self._over_seeds(ours) - self._over_seeds(theirs)
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def _over_seeds(self, means: np.ndarray) -> np.ndarray:
        """Draw seeds too: ``(seeds, resamples)`` to ``(resamples,)``."""
        num_seeds = len(means)
        centre: np.ndarray = means.mean(axis=0)
        if num_seeds == 1:
            return centre
        chosen = self._rng.integers(num_seeds, size=means.shape)
        drawn = np.take_along_axis(means, chosen, axis=0).mean(axis=0)
        stretched: np.ndarray = centre + math.sqrt(num_seeds / (num_seeds - 1)) * (drawn - centre)
        return stretched


def block_length(num_windows: int, prediction_length: int) -> int:
    """Windows drawn together: as long as targets overlap, and at least the cube root of their number."""
    return min(num_windows, max(prediction_length, math.ceil(math.cbrt(num_windows))))
