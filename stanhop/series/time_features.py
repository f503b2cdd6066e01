"""Where times lie in the day, the week and the year, as columns that a network sees beside the channels.

A period is told by the cosine and the sine of how far it has gone, so that its end is as near to its beginning as
neighbours are.

Source: Taylor & Letham 2018, The American Statistician 72(1), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stanhop.config import Period
from stanhop.series.seasonality import Harmonic, is_known, waves

HARMONICS: dict[Period, Harmonic] = {"day": (1, 0, 0), "week": (0, 1, 0), "year": (0, 0, 1)}
"""The wave that goes round once in a period."""


def known_periods(times: pd.DatetimeIndex) -> tuple[Period, ...]:
    """The periods that rows at ``times`` cover twice, in steps short enough to see them."""
    if len(times) < 2:
        return ()
    step_days = (times[-1] - times[0]) / pd.Timedelta(days=1) / (len(times) - 1)
    return tuple(
        period for period, harmonic in HARMONICS.items() if is_known(harmonic, step_days, num_steps=len(times))
    )


def time_features(times: pd.DatetimeIndex, periods: Sequence[Period]) -> NDArray[np.float64]:
    """Cosines, then sines, of how far each of ``periods`` has gone, ``(steps, 2 * periods)``."""
    return waves(times, [HARMONICS[period] for period in periods])


def with_time_features(
    rows: NDArray[np.floating[Any]], times: pd.DatetimeIndex, periods: Sequence[Period]
) -> NDArray[np.floating[Any]]:
    """``rows`` ``(steps, channels)`` at ``times`` as a network sees them: time features are the last columns."""
    return np.concatenate([rows, time_features(times, periods)], axis=1) if periods else rows


def columns_of(periods: Sequence[Period], among: Sequence[Period]) -> list[int]:
    """Places of the time features of ``periods`` in those of ``among``, which holds them in the same order."""
    places = [among.index(period) for period in periods]
    return [*places, *(len(among) + place for place in places)]
