"""Regular grids of times: which step a table keeps, and the first time at which it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timezone
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import offsets
from pandas.tseries.frequencies import to_offset

DAY = 86_400_000_000
"""Microseconds."""
LEAST_POINTS = 3
"""A series of fewer has at most one step, which may be a gap."""
OLD_ALIASES = {
    "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "M": "ME", "Q": "QE", "Y": "YE", "A": "YE",
    "AS": "YS", "BM": "BME", "BQ": "BQE", "BY": "BYE", "BA": "BYE", "BAS": "BYS", "SM": "SME",
}  # fmt: skip
"""What pandas 2 called them."""
KNOWN_OFFSETS = (
    offsets.Tick, offsets.Day, offsets.Week, offsets.BusinessDay, offsets.SemiMonthBegin, offsets.SemiMonthEnd,
    offsets.MonthBegin, offsets.MonthEnd, offsets.BMonthBegin, offsets.BMonthEnd,
    offsets.QuarterBegin, offsets.QuarterEnd, offsets.BQuarterBegin, offsets.BQuarterEnd,
    offsets.YearBegin, offsets.YearEnd, offsets.BYearBegin, offsets.BYearEnd,
)  # fmt: skip
TICKS = (
    (3_600_000_000, offsets.Hour), (60_000_000, offsets.Minute), (1_000_000, offsets.Second),
    (1_000, offsets.Milli), (1, offsets.Micro),
)  # fmt: skip
MONTHLY: dict[Any, tuple[Any, Any]] = {
    offsets.MonthBegin: (offsets.QuarterBegin, offsets.YearBegin),
    offsets.MonthEnd: (offsets.QuarterEnd, offsets.YearEnd),
    offsets.BMonthBegin: (offsets.BQuarterBegin, offsets.BYearBegin),
    offsets.BMonthEnd: (offsets.BQuarterEnd, offsets.BYearEnd),
}
"""Steps of one month, and those of three and of twelve."""
QUARTERLY = (offsets.QuarterBegin, offsets.QuarterEnd, offsets.BQuarterBegin, offsets.BQuarterEnd)
WORDS = {
    "h": "hourly", "D": "daily", "B": "business days", "W": "weekly", "MS": "monthly", "ME": "month ends",
    "QS": "quarterly", "QE": "quarter ends", "YS": "yearly", "YE": "year ends", "min": "minutely",
}  # fmt: skip
MOST_STEPS_PER_POINT = 20
"""A grid with more places than this for each point is not built; some time stamp is wrong."""
LEAST_GRID = 10_000


def parse_frequency(alias: str) -> pd.offsets.BaseOffset | None:
    """The step called ``alias`` (of pandas 3, or older); None for what is none, or finer than a microsecond."""
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Za-z]{3})?", alias.strip())
    if match is not None and match[2] in OLD_ALIASES:
        alias = f"{match[1]}{OLD_ALIASES[match[2]]}{match[3] or ''}"
    try:
        offset = to_offset(alias)
    except (ValueError, OverflowError, TypeError):
        return None
    is_known = isinstance(offset, KNOWN_OFFSETS) and not isinstance(offset, offsets.CustomBusinessDay) and offset.n >= 1
    if not is_known or (isinstance(offset, offsets.Tick) and offset.nanos % 1_000):
        return None
    return offset


def describe(offset: pd.offsets.BaseOffset) -> str:
    """The step in words and as an alias: ``hourly (h)``."""
    alias = str(offset.freqstr)
    word = WORDS.get(alias.split("-")[0])
    return f"frequency {alias}" if word is None else f"{word} ({alias})"


def infer(times: pd.DatetimeIndex, starts: np.ndarray) -> pd.offsets.BaseOffset | None:
    """The step that most of ``times`` keep; None if every series has fewer than 3.

    Steps of the calendar (months, quarters, years from the first or last day or business day; business
    days; days; weeks) are looked for where all times of day are one; otherwise the step is the commonest
    difference.  Whether all times keep it is for ``lay`` to say.

    Args:
        times: ``(rows,)``, rising within each series.
        starts: First row of each series, then the number of rows.
    """
    if np.diff(starts).max() < LEAST_POINTS:
        return None
    is_step = np.ones(len(times) - 1, dtype=bool)
    is_step[starts[1:-1] - 1] = False  # from one series to the next
    days, clocks = np.divmod(_wall(times).asi8, DAY)
    if (clocks == clocks[0]).all():
        offset = _infer_from_days(days.astype("datetime64[D]"), is_step)
    else:
        offset = _tick(_commonest(np.diff(times.asi8)[is_step]))
    return canonical(offset, times[starts[:-1]])


def canonical(offset: pd.offsets.BaseOffset, firsts: pd.DatetimeIndex) -> pd.offsets.BaseOffset:
    """The one name of ``offset`` for series that begin at ``firsts``: ``60min`` is ``h``, ``7D`` may be ``W-MON``."""
    has_even_days = firsts.tz is None or isinstance(firsts.tz, timezone)  # else a day may have 23 or 25 hours
    if isinstance(offset, offsets.Tick):
        step = offset.nanos // 1_000
        offset = offsets.Day(step // DAY) if step % DAY == 0 and has_even_days else _tick(step)
    firsts = _wall(firsts)
    if isinstance(offset, offsets.Day) and offset.n % 7 == 0 and _is_constant(firsts.weekday):
        return offsets.Week(offset.n // 7, weekday=int(firsts.weekday[0]))
    if type(offset) in MONTHLY:
        quarterly, yearly = MONTHLY[type(offset)]
        if offset.n % 12 == 0 and _is_constant(firsts.month):
            offset = yearly(offset.n // 12, month=int(firsts.month[0]))
        elif offset.n % 3 == 0 and _is_constant(firsts.month % 3):
            offset = quarterly(offset.n // 3, startingMonth=_first_quarter(int(firsts.month[0]), quarterly))
    if isinstance(offset, QUARTERLY):
        named: Any = offset  # the stubs know no startingMonth
        offset = type(named)(named.n, startingMonth=_first_quarter(named.startingMonth, type(named)))
    return offset


@dataclass(frozen=True, eq=False)
class Misfit:
    """Where times leave the grid of a step."""

    row: int
    """The first that is not on the grid or, if all are, the first after a gap."""
    is_gap: bool
    expected: pd.Timestamp | None
    """The first place that is empty."""
    grid: pd.DatetimeIndex | None
    """All places from the first time to the last, if all times are on them."""
    num_missing: int
    """Empty places, at least about."""


def lay(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> pd.DatetimeIndex | Misfit:
    """``times`` with ``offset`` as their ``freq``, or where they leave it.

    Args:
        times: ``(steps,)``, rising.
        offset: The step.
    """
    try:
        step = (times[0] + offset) - times[0]
        num_places = int((times[-1] - times[0]) / step) + 1
        if num_places > max(LEAST_GRID, MOST_STEPS_PER_POINT * len(times)):
            start = pd.date_range(times[0], periods=len(times), freq=offset, unit="us")
            row = int(np.argmax(start.asi8 != times.asi8))
            is_gap = bool(start.asi8[row] < times.asi8[row])
            return Misfit(row, is_gap, start[row] if is_gap else None, None, num_places - len(times))
        grid = pd.date_range(times[0], times[-1], freq=offset, unit="us")
    except (ValueError, OverflowError):  # the grid leaves the calendar, or a zone has no such hour
        return Misfit(0, False, None, None, 0)
    if np.array_equal(grid.asi8, times.asi8):
        return grid
    is_on = np.isin(times.asi8, grid.asi8)
    if not is_on.all():
        return Misfit(int(np.argmin(is_on)), False, None, None, 0)
    row = int(np.argmax(grid.asi8[: len(times)] != times.asi8))
    return Misfit(row, True, grid[row], grid, len(grid) - len(times))


def _wall(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Local times, without their zone."""
    return times if times.tz is None else times.tz_localize(None)


def _infer_from_days(days: np.ndarray, is_step: np.ndarray) -> pd.offsets.BaseOffset:
    """The step of ``days`` (datetime64[D]), all at the same time of day."""
    months = days.astype("datetime64[M]")
    month_starts, next_starts = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    places = (
        (offsets.MonthBegin, month_starts),
        (offsets.MonthEnd, next_starts - 1),
        (offsets.BMonthBegin, np.busday_offset(month_starts, 0, roll="forward")),
        (offsets.BMonthEnd, np.busday_offset(next_starts, -1, roll="forward")),
    )
    for kind, place in places:
        if (days == place).all():
            return kind(_commonest(np.diff(months.astype(np.int64))[is_step]))
    differences = np.diff(days.astype(np.int64))[is_step]
    if np.is_busday(days).all():
        business = np.busday_count(days[:-1], days[1:])[is_step]
        if _commonest(business) == 1 and (business != differences).any():
            return offsets.BusinessDay()
    return offsets.Day(_commonest(differences))


def _commonest(steps: np.ndarray) -> int:
    """The commonest of ``steps``; the smallest of several."""
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def _is_constant(numbers: pd.Index) -> bool:
    return bool((numbers == numbers[0]).all())


def _tick(step: int) -> pd.offsets.BaseOffset:
    """``step`` microseconds in the largest unit that divides them."""
    unit, tick = next((unit, tick) for unit, tick in TICKS if step % unit == 0)
    return tick(step // unit)


def _first_quarter(month: int, quarterly: type) -> int:
    """The month that names a quarter of which ``month`` is one: January to March, or October to December for ends."""
    in_quarter = (month - 1) % 3 + 1
    return in_quarter + 9 if quarterly in (offsets.QuarterEnd, offsets.BQuarterEnd) else in_quarter
