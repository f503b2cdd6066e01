"""Steps of time: whether two frequencies are one, how long a season is, and which times come next."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from pandas.tseries import offsets

from stanhop.errors import Code, DataError, quoted
from stanhop.series.frame import Series
from stanhop.series.grid import parse_frequency

LAST_YEAR = 9999
"""The last year that ISO 8601, and so our tables, can write with four digits."""
UNITS = {"W": 7 * 86_400_000_000, "D": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "us": 1}
"""Microseconds."""
MONTHS = {
    "MS": {offsets.MonthBegin: 1, offsets.QuarterBegin: 3, offsets.YearBegin: 12},
    "ME": {offsets.MonthEnd: 1, offsets.QuarterEnd: 3, offsets.YearEnd: 12},
    "BMS": {offsets.BMonthBegin: 1, offsets.BQuarterBegin: 3, offsets.BYearBegin: 12},
    "BME": {offsets.BMonthEnd: 1, offsets.BQuarterEnd: 3, offsets.BYearEnd: 12},
}
"""Months in each step of the calendar, by where in the month it falls."""
SEASONS = {
    "s": 3_600,  # an hour
    "min": 1_440,  # a day
    "h": 24,  # a day
    "D": 7,  # a week
    "B": 5,  # a week of business days
    "W": 52,  # a year, as all below
    "SMS": 24,
    "SME": 24,
    "MS": 12,
    "ME": 12,
    "BMS": 12,
    "BME": 12,
}
"""Steps of one unit after which a series is expected to look alike."""


@dataclass(frozen=True)
class Step:
    """A step of time as ``count`` of the largest ``unit`` that measures it: quarters are 3 months, ``7D`` is 1 week."""

    unit: str
    count: int

    @classmethod
    def of(cls, frequency: str) -> Step:
        """The step that a pandas alias means, wherever its weeks, quarters and years begin."""
        offset = parse_frequency(frequency)
        if offset is None:
            return cls(frequency, 1)
        for unit, months in MONTHS.items():
            if type(offset) in months:
                return cls(unit, offset.n * months[type(offset)])
        if not isinstance(offset, offsets.Tick | offsets.Day | offsets.Week):
            return cls(offset.rule_code.split("-")[0], offset.n)
        if isinstance(offset, offsets.Tick):
            length = offset.nanos // 1_000
        else:
            length = offset.n * UNITS["W" if isinstance(offset, offsets.Week) else "D"]
        return next(cls(unit, length // size) for unit, size in UNITS.items() if length % size == 0)


def is_same_step(frequency: str, other: str) -> bool:
    """Whether two aliases mean one step, as ``60min`` and ``h``, ``W-SUN`` and ``W-MON``, ``3MS`` and ``QS`` do."""
    return Step.of(frequency) == Step.of(other)


def season_length(frequency: str) -> int:
    """Steps in one season of a series at ``frequency`` (a pandas alias), from ``SEASONS``.

    A multiple of a unit divides its season: 24 for ``h``, 96 for ``15min``, 4 for ``6h`` and ``QS``.  Where it does
    not come out even, or the unit is not in the table, the season is 1: nothing but the last value is expected to
    return.
    """
    step = Step.of(frequency)
    season, rest = divmod(SEASONS.get(step.unit, 1), step.count)
    return season if season and not rest else 1


def future_times(series: Series, *, steps: int) -> pd.DatetimeIndex:
    """The ``steps`` time stamps after ``series``, on its calendar and in its time zone.

    Raises:
        DataError: the calendar ends at the year 9999, or a stamp falls into the hour that a clock change skips.
    """
    last = series.times[-1]
    whose = f"series {quoted(series.id)}" if series.id else "the series"
    try:
        times = pd.date_range(last, periods=steps + 1, freq=series.times.freq, unit="us")[1:]
    except (ValueError, OverflowError) as error:
        problem = f"the times after {last} of {whose} do not exist: {quoted(error)}"
        raise DataError(Code.TIME, problem, fix="read the times with --tz UTC") from None
    if times[-1].year > LAST_YEAR:
        problem = f"the forecast of {whose} reaches beyond the year {LAST_YEAR}"
        raise DataError(Code.TIME, problem, fix="check the time stamps")
    return times
