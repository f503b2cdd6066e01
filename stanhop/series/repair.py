"""What is done, and only when asked for, about repeated times, gaps and missing values."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pandas as pd

from stanhop.errors import Code
from stanhop.series.grid import Misfit
from stanhop.series.rows import CLOCKS_CHANGED, Rows, counted, is_clock_change, shown

MOST_ADDED_SHARE = 1.0
"""Rows that filling gaps may add to each row of a series: with more, a time stamp is wrong rather than rows missing."""


def merge_duplicates(rows: Rows, policy: Literal["error", "first", "mean"]) -> tuple[Rows, list[str]]:
    """``rows`` with one row a time: the first in the file, or the mean of those that hold a value.

    Raises:
        DataError: two rows have the same time and ``policy`` is ``error``.
    """
    is_again = np.diff(rows.times.asi8, prepend=rows.times.asi8[0] - 1) == 0
    is_again[rows.starts[:-1]] = False
    if not is_again.any():
        return rows, []
    if policy == "error":
        row = int(np.argmax(is_again))
        problem = f"{shown(rows.times[row])} again, after {rows.table.place(int(rows.origins[row - 1]))}"
        fix = "add --duplicates first or --duplicates mean"
        if rows.layout.id_column is None:
            fix += ", or --id-column if a column tells series apart"
        if is_clock_change(rows.times[row]):
            fix += CLOCKS_CHANGED
        raise rows.error(Code.DUPLICATE, problem, row=row, fix=fix)
    kept = np.flatnonzero(~is_again)
    values = rows.values[kept]
    if policy == "mean":
        stops = np.append(kept[1:], len(is_again))
        for place in np.flatnonzero(stops - kept > 1):
            values[place] = _mean(rows.values[kept[place] : stops[place]])
    merged = dataclasses.replace(
        rows,
        starts=np.searchsorted(kept, rows.starts),
        times=rows.times[kept],
        values=values,
        origins=rows.origins[kept],
    )
    how = "the first of each kept" if policy == "first" else "their mean taken"
    return merged, [f"{counted(int(is_again.sum()), 'row')} for a time that another row has: {how}"]


def fill_gaps(rows: Rows, misfit: Misfit) -> tuple[Rows, int]:
    """The one series ``rows`` on its whole grid, NaN in new rows, and how many were added.

    A new row has the origin of the row before it.

    Raises:
        DataError: more rows would be added than ``MOST_ADDED_SHARE`` allows.
    """
    limit = int(MOST_ADDED_SHARE * len(rows.times))
    if misfit.grid is None or misfit.num_missing > limit:
        row = _loneliest(rows.times)
        problem = (
            f"filling gaps adds {misfit.num_missing:,} rows (limit {limit:,}); {shown(rows.times[row])} looks wrong"
        )
        raise rows.error(Code.FREQUENCY, problem, row=row, fix="correct it, or split the file at the gap")
    places = np.searchsorted(misfit.grid.asi8, rows.times.asi8)
    values = np.full((len(misfit.grid), rows.values.shape[1]), np.nan)
    values[places] = rows.values
    before = np.searchsorted(rows.times.asi8, misfit.grid.asi8, side="right") - 1
    filled = dataclasses.replace(
        rows,
        starts=np.array([0, len(values)]),
        times=misfit.grid,
        values=values,
        origins=rows.origins[before],
    )
    return filled, misfit.num_missing


def fill_missing(rows: Rows, policy: Literal["error", "ffill", "interpolate", "drop"]) -> tuple[Rows, int]:
    """The one series ``rows`` (on its grid) without missing values, and how many values or rows that concerned.

    ``ffill`` repeats the value before; ``interpolate`` draws a line in time between its neighbours;
    ``drop`` leaves rows out, which keeps the grid regular at the two ends only.

    Raises:
        DataError: nothing stands before (or after) to fill from, or dropping leaves a gap, or nothing.
    """
    is_missing = np.isnan(rows.values)
    if not is_missing.any():
        return rows, 0
    if policy == "error":  # values missing in the file were refused before
        row = int(np.argmax(is_missing.any(axis=1)))
        problem = f"a row for {shown(rows.times[row])} was added and has no values"
        fix = "say how to fill it: --missing ffill or --missing interpolate"
        raise rows.error(Code.MISSING, problem, row=row, fix=fix)
    if policy == "drop":
        return _drop(rows, is_missing.any(axis=1))
    values = rows.values.copy()
    for channel in np.flatnonzero(is_missing.any(axis=0)):
        _refuse_open_ends(rows, is_missing[:, channel], int(channel), policy)
        fill = _carried if policy == "ffill" else _interpolated
        values[:, channel] = fill(values[:, channel], rows.times.asi8, ~is_missing[:, channel])
    return dataclasses.replace(rows, values=values), int(is_missing.sum())


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of each channel of ``(rows, channels)`` over the rows that hold it; exact sums, whatever the order."""
    known = [column[~np.isnan(column)].tolist() for column in values.T]
    return np.array([math.fsum(one) / len(one) if one else np.nan for one in known])


def _loneliest(times: pd.DatetimeIndex) -> int:
    """The row beside the widest gap, on the side with fewer rows."""
    after = int(np.argmax(np.diff(times.asi8))) + 1
    return after if len(times) - after <= after else after - 1


def _drop(rows: Rows, is_incomplete: np.ndarray) -> tuple[Rows, int]:
    kept = np.flatnonzero(~is_incomplete)
    if not len(kept):
        raise rows.error(Code.MISSING, "no row is complete", row=0, fix="use --missing ffill or --missing interpolate")
    first, last = int(kept[0]), int(kept[-1])
    if last - first + 1 != len(kept):
        row = first + int(np.argmax(is_incomplete[first:]))
        problem = f"dropping the row of {shown(rows.times[row])} would leave a gap"
        fix = "use --missing ffill or --missing interpolate"
        raise rows.error(Code.MISSING, problem, row=row, fix=fix)
    part = slice(first, last + 1)
    dropped = dataclasses.replace(
        rows,
        starts=np.array([0, len(kept)]),
        times=rows.times[part],
        values=rows.values[part],
        origins=rows.origins[part],
    )
    return dropped, int(is_incomplete.sum())


def _refuse_open_ends(rows: Rows, is_missing: np.ndarray, channel: int, policy: str) -> None:
    name = rows.layout.target_columns[channel]
    if is_missing.all():
        fix = "remove the series, or leave the column out of --target-columns"
        raise rows.error(Code.MISSING, "every value is missing", row=0, column=name, fix=fix)
    for row, end, neighbour in ((0, "first", "before"), (len(is_missing) - 1, "last", "after")):
        if is_missing[row] and not (policy == "ffill" and end == "last"):
            problem = f"the {end} value is missing and {policy} finds none {neighbour} it"
            fix = "use --missing drop, or remove the row" if end == "first" else "use --missing ffill or --missing drop"
            raise rows.error(Code.MISSING, problem, row=row, column=name, fix=fix)


def _carried(values: np.ndarray, _: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """The last known value of each step."""
    last_known: np.ndarray = np.maximum.accumulate(np.where(is_known, np.arange(len(values)), 0))
    carried: np.ndarray = values[last_known]
    return carried


def _interpolated(values: np.ndarray, times: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Known values as they are (``interp`` is exact there), the others on the line in time between their neighbours."""
    since_first = (times - times[0]).astype(np.float64)
    line: np.ndarray = np.interp(since_first, since_first[is_known], values[is_known])
    return line
