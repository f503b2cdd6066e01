"""Local times and their zone: an hour that the clocks repeat is told apart, one that they skip is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd

from stanhop.errors import Code, DataError, quoted
from stanhop.series.table import Table

WITH_OFFSET = "write times with their offset from UTC, as in 2020-10-25 02:00+02:00"


def in_zone(times: pd.DatetimeIndex, codes: np.ndarray, zone: str, table: Table, name: str) -> pd.DatetimeIndex:
    """``times`` in the time zone ``zone``: converted where they have an offset, else taken as local times.

    An hour that the clocks repeat in autumn is the first or the second one by the order of the rows of its series, of
    which both must be there.

    Args:
        times: ``(rows,)``, in the order of the file.
        codes: Number of each row's series, ``(rows,)``.
        zone: Its name, such as ``Europe/Berlin``.
        table: Where the times stand.
        name: Their column.

    Raises:
        DataError: there is no such zone, or a local time that it does not have, or that can be two and is not both.
    """
    known = _zone(zone, table)
    if times.tz is not None:
        return times.tz_convert(known)
    _refuse_ends_of_the_calendar(times, table, name)
    is_either = np.asarray(times.tz_localize(known, ambiguous="NaT", nonexistent="shift_forward").isna())
    skipped = times.tz_localize(known, ambiguous=np.ones(len(times), dtype=bool), nonexistent="NaT").isna()
    if skipped.any():
        row = int(np.argmax(skipped))
        problem = f"{quoted(times[row])} does not exist in {zone}: the clocks went forward over it"
        raise table.error(Code.TIME, problem, row=row, column=name, fix="correct it, or give another zone with --tz")
    is_first = np.zeros(len(times), dtype=bool)
    for rows in _series_of(codes, is_either):
        is_first[rows] = _first_passes(times, rows, is_either, zone, table, name)
    return times.tz_localize(known, ambiguous=is_first)


def _zone(name: str, table: Table) -> tzinfo:
    if name.upper() in ("UTC", "ETC/UTC"):  # a fixed offset, whose days all have 24 hours
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        nearest = difflib.get_close_matches(name, available_timezones(), n=1)
        fix = f"did you mean {nearest[0]}?" if nearest else "write a name such as Europe/Berlin, or UTC"
        raise table.error(Code.TIME, f"--tz {quoted(name)} is no time zone", fix=fix) from None


def _refuse_ends_of_the_calendar(times: pd.DatetimeIndex, table: Table, name: str) -> None:
    """Refuse times within a day of the years 1 and 9999, which would leave them on the way to UTC."""
    first, last = (np.datetime64(end, "us").astype(np.int64) for end in ("0001-01-02", "9999-12-31"))
    outside = np.flatnonzero((times.asi8 < first) | (times.asi8 >= last))
    if len(outside):
        row = int(outside[0])
        problem = f"{quoted(times[row])} is within a day of the end of the calendar"
        raise table.error(Code.TIME, problem, row=row, column=name, fix="correct it, or leave --tz out")


def _series_of(codes: np.ndarray, is_either: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each series that has a time that can be two, in the order of the file."""
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    for code in np.unique(codes[is_either]):
        start, stop = np.searchsorted(sorted_codes, (code, code + 1))
        yield order[start:stop]


def _first_passes(
    times: pd.DatetimeIndex, rows: np.ndarray, is_either: np.ndarray, zone: str, table: Table, name: str
) -> np.ndarray:
    """For each of ``rows``, those of one series, whether it is in the first of two passes of the clocks."""
    counts = times.asi8[rows]
    is_falling = counts[-1] < counts[0]
    if is_falling:
        rows, counts = rows[::-1], counts[::-1]
    can_be_two = is_either[rows]
    goes_back = np.diff(counts) <= 0
    is_within = can_be_two[:-1] & can_be_two[1:]
    if (np.diff(counts)[~is_within] < 0).any():
        row = int(rows[np.argmax(can_be_two)])
        problem = (
            f"{quoted(times[row])} occurs twice in {zone}, and only the order of rows would tell, which is not by time"
        )
        raise table.error(Code.TIME, problem, row=row, column=name, fix=f"sort the rows, or {WITH_OFFSET}")
    is_first = np.zeros(len(rows), dtype=bool)
    places = np.flatnonzero(can_be_two)
    for group in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        turns = np.flatnonzero(goes_back[group[:-1]])
        if len(turns) != 1:
            raise _not_both(int(rows[group[0]]), len(turns), times, zone, table, name)
        is_first[group[: turns[0] + 1]] = True
    return is_first[::-1] if is_falling else is_first


def _not_both(row: int, num_turns: int, times: pd.DatetimeIndex, zone: str, table: Table, name: str) -> DataError:
    here = "once" if num_turns == 0 else "more often"
    problem = f"{quoted(times[row])} occurs twice in {zone}, where the clocks went back, and {here} in this table"
    return table.error(Code.TIME, problem, row=row, column=name, fix=WITH_OFFSET)
