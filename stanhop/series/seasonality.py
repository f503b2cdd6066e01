r"""What each channel usually is at that time of the day, week and year, and how far a series is from it (anomalies).

The profile of a channel is a sum of waves in the calendar,

    :math:`\sum_k a_k \cos(2 \pi \langle k, \phi_t \rangle) + b_k \sin(2 \pi \langle k, \phi_t \rangle)`,

:math:`\phi_t` being how far day, week and year have gone at time :math:`t` and :math:`k` whole cycles of each; a wave
of day and year together is a day that changes with the year, and the wave of no cycle is the level, which rows of
unequal seasons bias. The waves are fitted to the training rows by least squares, beside a straight line that is not
part of the profile. Periods that the rows do not cover twice are left out, and which of the others a channel has is
decided by cross-validation.

Source: Fourier terms as regressors, Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, 7.4;
anomalies from a harmonic climatology, Narapusetty et al. 2009, Journal of Climate 22(22).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stanhop.series.windows import origins

Values = NDArray[np.float64]
Harmonic = tuple[int, int, int]
"""Cycles a day, a week and a year."""

PERIODS_DAYS = (1.0, 7.0, 365.2425)
LEAST_CYCLES = 2
"""Of a period in the training rows: one year alone does not tell a season from a trend."""
ROUNDING_OF_CYCLES = 0.01
"""24 months are two years, though February makes them look shorter."""
DAILY = tuple((cycles, 0, 0) for cycles in (1, 2, 3))
WEEKLY = tuple((0, cycles, 0) for cycles in (1, 2, 3))
YEARLY = tuple((0, 0, cycles) for cycles in (1, 2))
DAILY_BY_YEAR = tuple((day, 0, year) for day in (1, 2, 3) for year in (1, -1, 2, -2))
LEVEL: Harmonic = (0, 0, 0)
RUNGS: tuple[tuple[Harmonic, ...], ...] = (DAILY, WEEKLY, YEARLY + DAILY_BY_YEAR)
"""What is added to the level, one rung after the other."""
WEIGHT_OF_NOTHING = 1.0
"""The ridge: as if that many observations had said that there is no season."""
NUM_FOLDS = 8
"""Parts of the rows, each forecast by the profile of the others."""
ROWS_AT_ONCE = 2**15
"""Whose waves are held at a time."""


@dataclass(frozen=True, eq=False)
class SeasonalProfile:
    """What each channel usually is, in the units of the values it was fitted on.

    Args:
        harmonics: Its waves, at least one.
        coefficients: ``(2 * harmonics, channels)``: of all cosines, then of all sines.
    """

    harmonics: tuple[Harmonic, ...]
    coefficients: Values

    def at(self, times: pd.DatetimeIndex) -> Values:
        """The profile at ``times``, ``(steps, channels)``; a time of a zone is the local time."""
        usual = np.empty((len(times), self.coefficients.shape[1]))
        for rows in _blocks(len(times)):
            usual[rows] = waves(times[rows], self.harmonics) @ self.coefficients
        return usual


def choose_profile(
    values: Values, times: pd.DatetimeIndex, *, context_length: int, prediction_length: int
) -> SeasonalProfile | None:
    """The profile by which the mean of a context forecasts what follows best, in rows the profile was not fitted to.

    Each channel has its own; one that is forecast no better by any has 0.

    Args:
        values: Training rows, ``(steps, channels)``.
        times: Of the rows.
        context_length: Rows of history in a window.
        prediction_length: Rows that it forecasts.

    Returns:
        None if no channel has one.
    """
    ladder = known_harmonics(times)
    if len(ladder) == 1:
        return None
    edges = np.linspace(0, len(times), NUM_FOLDS + 1).astype(int)
    folds = [range(first, stop) for first, stop in itertools.pairwise(edges.tolist())]
    lengths = {"context_length": context_length, "prediction_length": min(prediction_length, len(folds[0]))}
    least = sum(_error_of_mean(values, fold, **lengths) for fold in folds)
    best = np.zeros((2 * len(ladder[-1]), values.shape[1]))
    for harmonics in ladder[1:]:
        parts = [_Normal.of(values, times, fold, harmonics) for fold in folds]
        whole = _Normal.sum_of(parts)
        error = np.zeros(values.shape[1])
        for fold, part in zip(folds, parts, strict=True):
            others = whole.without(part).profile()
            error += _error_of_mean(values - others.at(times), fold, **lengths)
        is_better = error < least
        least = np.where(is_better, error, least)
        best[:, is_better] = _spread(whole.profile(), ladder[-1])[:, is_better]
    return SeasonalProfile(ladder[-1], best) if best.any() else None


def known_harmonics(times: pd.DatetimeIndex) -> list[tuple[Harmonic, ...]]:
    """The harmonics that rows at ``times`` can tell: the level alone, with the first rung, with two, and so on."""
    ladder: list[tuple[Harmonic, ...]] = [(LEVEL,)]
    if len(times) < NUM_FOLDS:
        return ladder
    step_days = (times[-1] - times[0]) / pd.Timedelta(days=1) / (len(times) - 1)
    for rung in RUNGS:
        known = tuple(harmonic for harmonic in rung if is_known(harmonic, step_days, num_steps=len(times)))
        if known:
            ladder.append((*ladder[-1], *known))
    return ladder


@dataclass(frozen=True, eq=False)
class _Normal:
    """Normal equations of some rows: waves and line times themselves, and times the values."""

    harmonics: tuple[Harmonic, ...]
    squares: Values
    products: Values

    @classmethod
    def of(cls, values: Values, times: pd.DatetimeIndex, rows: range, harmonics: tuple[Harmonic, ...]) -> Self:
        """Those of ``rows``; the line is that through all ``times``."""
        parts = []
        for block in _blocks(len(rows)):
            chosen = slice(rows.start + block.start, rows.start + block.stop)
            line = np.linspace(-1, 1, len(times))[chosen]
            regressors = np.column_stack([waves(times[chosen], harmonics), line])
            parts.append(cls(harmonics, regressors.T @ regressors, regressors.T @ values[chosen]))
        return cls.sum_of(parts)

    @classmethod
    def sum_of(cls, parts: Sequence[Self]) -> Self:
        """Those of the rows of all ``parts``."""
        squares, products = (sum(getattr(part, name) for part in parts) for name in ("squares", "products"))
        return cls(parts[0].harmonics, squares, products)

    def without(self, part: Self) -> Self:
        """Those of the other rows."""
        return type(self)(self.harmonics, self.squares - part.squares, self.products - part.products)

    def profile(self) -> SeasonalProfile:
        """The solution, without the line."""
        ridge = WEIGHT_OF_NOTHING * np.eye(len(self.squares))
        solution = np.linalg.solve(self.squares + ridge, self.products)
        return SeasonalProfile(self.harmonics, np.asarray(solution[:-1], dtype=np.float64))


def _blocks(num_rows: int) -> Iterator[slice]:
    for first in range(0, num_rows, ROWS_AT_ONCE):
        yield slice(first, min(first + ROWS_AT_ONCE, num_rows))


def waves(times: pd.DatetimeIndex, harmonics: Sequence[Harmonic]) -> Values:
    """All cosines, then all sines, ``(steps, 2 * harmonics)``; a time of a zone is the local time."""
    # Not what has gone by since midnight, which some zones skip.
    day = (times.hour * 3600 + times.minute * 60 + times.second + times.microsecond / 1e6) / 86_400
    week = (times.dayofweek + day) / 7
    year = (times.dayofyear - 1 + day) / (365 + times.is_leap_year)
    angles = 2 * np.pi * np.stack([day, week, year], axis=1) @ np.array(harmonics, dtype=np.float64).T
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def is_known(harmonic: Harmonic, step_days: float, *, num_steps: int) -> bool:
    """Whether steps are short enough to see ``harmonic``, and enough to see its periods twice."""
    return all(
        not cycles
        or (
            2 * abs(cycles) * step_days <= days * (1 + ROUNDING_OF_CYCLES)
            and num_steps * step_days >= LEAST_CYCLES * days * (1 - ROUNDING_OF_CYCLES)
        )
        for cycles, days in zip(harmonic, PERIODS_DAYS, strict=True)
    )


def _error_of_mean(values: Values, rows: range, *, context_length: int, prediction_length: int) -> Values:
    """Squared error of forecasting each target in ``rows`` by the mean of its context, summed, ``(channels,)``."""
    starts = origins(rows, context_length=context_length, prediction_length=prediction_length, is_first=False)
    start = np.zeros((1, values.shape[1]))
    sums = np.concatenate([start, values.cumsum(axis=0)])
    squares = np.concatenate([start, np.square(values).cumsum(axis=0)])
    first = np.arange(starts.start, starts.stop, starts.step)
    mean = (sums[first] - sums[first - context_length]) / context_length
    target, square = (total[first + prediction_length] - total[first] for total in (sums, squares))
    error: Values = (square - 2 * mean * target + prediction_length * np.square(mean)).sum(axis=0)
    return error


def _spread(profile: SeasonalProfile, harmonics: Sequence[Harmonic]) -> Values:
    """Coefficients of ``profile`` among those of ``harmonics``, which begin with its own."""
    missing = ((0, len(harmonics) - len(profile.harmonics)), (0, 0))
    return np.concatenate([np.pad(half, missing) for half in np.split(profile.coefficients, 2)])
