"""The rows of all series of a table, parsed and in order: one after the other by id, each by time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, quoted
from stanhop.series.frame import Layout
from stanhop.series.numbers import parse_numbers
from stanhop.series.table import Column, Table
from stanhop.series.times import parse_times
from stanhop.series.zones import in_zone

CLOCK_CHANGE_MONTHS = (3, 4, 9, 10, 11)
WIDE_ID = ""
"""Id of the one series of a wide table."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Parsed rows, those of a series together and rising in time (or level, where times repeat)."""

    table: Table
    layout: Layout
    ids: tuple[str, ...]
    """Of each series, rising."""
    starts: np.ndarray
    """First row of each series, then the number of rows, ``(series + 1,)``."""
    times: pd.DatetimeIndex
    """``(rows,)``."""
    values: np.ndarray
    """``(rows, channels)``, NaN where missing."""
    origins: np.ndarray
    """Row of the table that each row came from, ``(rows,)``."""

    def of(self, index: int) -> Rows:
        """The rows of series number ``index`` alone."""
        part = slice(self.starts[index], self.starts[index + 1])
        return dataclasses.replace(
            self,
            ids=(self.ids[index],),
            starts=np.array([0, part.stop - part.start]),
            times=self.times[part],
            values=self.values[part],
            origins=self.origins[part],
        )

    def on(self, grid: pd.DatetimeIndex) -> Rows:
        """The same rows, with the same times as ``grid`` but knowing their step."""
        return dataclasses.replace(self, times=grid)

    def error(
        self, code: Code, problem: str, *, row: int, column: str | None = None, fix: str | None = None
    ) -> DataError:
        """The error at ``row``: in the time column unless ``column`` is given, naming the series in a long table."""
        index = int(np.searchsorted(self.starts, row, side="right")) - 1
        whose = f"series {quoted(self.ids[index])}: " if self.layout.kind == "long" else ""
        name = self.layout.time_column if column is None else column
        return self.table.error(code, f"{whose}{problem}", row=int(self.origins[row]), column=name, fix=fix)


def gather(table: Table, layout: Layout, data: DataConfig) -> tuple[Rows, list[str]]:
    """Parse the columns that ``layout`` names and put the rows in order; notes say if they were in another.

    Raises:
        DataError: a cell that cannot be read; an empty id; a missing value where no policy says what to do.
    """
    is_zoned = data.time_zone is not None
    times = parse_times(table, layout.time_column, date_format=data.date_format, may_differ_in_offset=is_zoned)
    values = np.column_stack([parse_numbers(table, name, data) for name in layout.target_columns])
    _check_missing(values, table, layout, data)
    ids, codes = _ids(table, layout)
    if data.time_zone is not None:
        times = in_zone(times, codes, data.time_zone, table, layout.time_column)
    order = np.lexsort((times.asi8, codes))  # stable: rows of one time stay in the order of the file
    codes = codes[order]
    was_unsorted = bool(((np.diff(codes) == 0) & (np.diff(order) < 0)).any())
    starts = np.searchsorted(codes, np.arange(len(ids) + 1))
    rows = Rows(table, layout, ids, starts, times[order], values[order], order)
    return rows, ["the rows were not in order of time: sorted"] if was_unsorted else []


def counted(number: int, noun: str) -> str:
    """The number with its noun: ``1 row``, ``1,432 rows``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


CLOCKS_CHANGED = "; if the clocks changed, add --tz with the zone of the times, such as --tz Europe/Berlin"
"""What to add to the way out where ``is_clock_change``."""


def is_clock_change(time: pd.Timestamp) -> bool:
    """Whether local clocks may be set at ``time``, which has no zone: early on a Sunday in spring or autumn."""
    return time.tzinfo is None and time.weekday() == 6 and 0 < time.hour <= 3 and time.month in CLOCK_CHANGE_MONTHS


def shown(time: pd.Timestamp) -> str:
    """A time in messages: without its clock at midnight."""
    return str(time).removesuffix(" 00:00:00")


def _ids(table: Table, layout: Layout) -> tuple[tuple[str, ...], np.ndarray]:
    """Ids, rising, and the number of each row's id in them."""
    if layout.id_column is None:
        return (WIDE_ID,), np.zeros(table.num_rows, dtype=np.int64)
    texts = _id_texts(table.column(layout.id_column), table, layout.id_column)
    empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        fix = "name the series or remove the row"
        raise table.error(Code.COLUMN, "the id is empty", row=empty, column=layout.id_column, fix=fix)
    ids = tuple(sorted(set(texts)))
    numbers = {text: number for number, text in enumerate(ids)}
    return ids, np.fromiter(map(numbers.__getitem__, texts), dtype=np.int64, count=len(texts))


def _id_texts(column: Column, table: Table, name: str) -> Sequence[str]:
    if isinstance(column, np.ndarray):
        if not all(value.is_integer() for value in column.tolist()):
            raise table.error(Code.COLUMN, "holds fractions, not ids", column=name, fix="store ids as text")
        return [str(int(value)) for value in column.tolist()]
    if isinstance(column, pd.DatetimeIndex):
        raise table.error(Code.COLUMN, "holds times, not ids", column=name, fix="store ids as text")
    return column


def _check_missing(values: np.ndarray, table: Table, layout: Layout, data: DataConfig) -> None:
    is_missing = np.isnan(values)
    for name, is_empty in zip(layout.target_columns, is_missing.all(axis=0), strict=True):
        if is_empty:
            fix = "leave it out by naming the columns to forecast with --target-columns"
            raise table.error(Code.MISSING, "holds no value at all", column=name, fix=fix)
    if data.missing == "error" and is_missing.any():
        row = int(np.argmax(is_missing.any(axis=1)))
        name = layout.target_columns[int(np.argmax(is_missing[row]))]
        count = int(is_missing.sum())
        problem = "the value is missing" + (f", the first of {count:,}" if count > 1 else "")
        fix = "add --missing ffill, --missing interpolate or --missing drop"
        raise table.error(Code.MISSING, problem, row=row, column=name, fix=fix)
