"""Columns of text as time stamps: ISO 8601, a given format, or a count; never a guess at the order of the parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from stanhop.errors import Code, DataError, quoted
from stanhop.series.numbers import BLANKS, MISSING
from stanhop.series.stamps import DIGITS, ISO, advise
from stanhop.series.table import Table

EPOCH_UNITS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
"""Date formats that count from 1970 in UTC, and their microseconds."""
FIRST_MICROSECOND = -62_135_596_800_000_000
"""Of the year 1, counted from 1970."""
LAST_MICROSECOND = 253_402_300_799_999_999
"""Of the year 9999."""
MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
CORRECT_STAMP = "correct it, or change --date-format"
BLANK_STAMPS = MISSING | {"nat"}
SAMPLE = datetime(2001, 11, 22, 13, 44, 55, tzinfo=UTC)  # every part has two digits
ADJACENT_PARTS = re.compile(r"%[YmdHIMSyjVWUGf]%[YmdHIMSyjVWUGf]")


def parse_times(
    table: Table, name: str, *, date_format: str | None, may_differ_in_offset: bool = False
) -> pd.DatetimeIndex:
    """Column ``name`` as times ``(rows,)`` in microseconds, with a zone if all stamps carry the same offset.

    Args:
        table: Where the column is.
        name: Its name.
        date_format: As in ``strptime``, or ``epoch_s`` or ``epoch_ms``; ISO 8601 if None.
        may_differ_in_offset: Whether stamps that carry an offset may carry different ones; they come in UTC then.

    Raises:
        DataError: a stamp is missing, does not exist, can be read in two ways, is finer than a microsecond, or has
            another offset than those before.
    """
    column = table.column(name)
    if isinstance(column, pd.DatetimeIndex):
        return _in_microseconds(column, table, name)
    cells = _cells(column)
    blank = next((row for row, cell in enumerate(cells) if cell.lower() in BLANK_STAMPS), None)
    if blank is not None:
        problem = "the time stamp is missing"
        raise table.error(Code.TIME, problem, row=blank, column=name, fix="fill it in or remove the row")
    if date_format is None:
        times = _iso_times(cells, table, name, may_differ_in_offset=may_differ_in_offset)
    elif date_format in EPOCH_UNITS:
        times = _epoch_times(cells, table, name, date_format)
    else:
        is_utc = may_differ_in_offset and "%z" in date_format
        times = _formatted_times(cells, table, name, date_format, is_utc=is_utc)
    return _in_microseconds(times, table, name)


def _cells(column: Sequence[str] | np.ndarray) -> list[str]:
    """Stripped text of every cell; a whole number of a typed column is ``20200101``, not ``20200101.0``."""
    if isinstance(column, np.ndarray):
        return ["" if cell != cell else str(int(cell)) if cell.is_integer() else repr(cell) for cell in column.tolist()]
    return [cell.strip(BLANKS) for cell in column]


def _iso_times(cells: list[str], table: Table, name: str, *, may_differ_in_offset: bool) -> pd.DatetimeIndex:
    matches = list(map(ISO.fullmatch, cells))
    if None in matches:
        row = matches.index(None)
        problem, fix = advise(cells[row], cells)
        raise table.error(Code.TIME, problem, row=row, column=name, fix=fix)
    offsets = [match["offset"] for match in matches if match is not None]
    is_utc = may_differ_in_offset and None not in offsets
    if len(set(offsets)) > 1 and not is_utc:
        canonical = [_canonical_offset(offset) for offset in offsets]
        _refuse_mixed_offsets(canonical, table, name, may_differ=may_differ_in_offset)
    try:
        return pd.to_datetime(cells, format="ISO8601", utc=is_utc)
    except (ValueError, OverflowError):
        raise _first_refused(cells, table, name, _iso_time, "does not exist", fix="correct it") from None


def _iso_time(cell: str) -> datetime:
    return datetime.fromisoformat(f"{cell}-01" if len(cell) == len("2020-01") else cell)


def _canonical_offset(offset: str | None) -> str:
    """Equal offsets as equal text: ``Z``, ``+00`` and ``-00:00`` are one; none is empty."""
    digits = "+00" if offset == "Z" else (offset or "").replace(":", "")
    full = digits.ljust(len("+0000"), "0") if digits else ""
    return "+0000" if full == "-0000" else full


def _refuse_mixed_offsets(offsets: Sequence[str], table: Table, name: str, *, may_differ: bool = False) -> None:
    """Refuse offsets that differ; or, if they ``may_differ``, that some times have one and others none."""
    kinds = [offset != "" for offset in offsets] if may_differ else offsets
    row = next((row for row, kind in enumerate(kinds) if kind != kinds[0]), None)
    if row is not None:
        first, other = offsets[0], offsets[row]
        found = [f"offset {offset}" if offset else "no offset" for offset in (other, first)]
        problem = f"{found[0]} here, {found[1]} in {table.place(0)}"
        fix = (
            "add --tz UTC, or --tz with the zone they are of"
            if first and other
            else "give all of them an offset from UTC, or none"
        )
        raise table.error(Code.TIME, problem, row=row, column=name, fix=fix)


def _epoch_times(cells: list[str], table: Table, name: str, date_format: str) -> pd.DatetimeIndex:
    unit = EPOCH_UNITS[date_format]
    counts = []
    for row, cell in enumerate(cells):
        if not DIGITS.fullmatch(cell) or "." in cell:
            problem = f"{quoted(cell)} is not a whole number, as --date-format {date_format} needs"
            raise table.error(Code.TIME, problem, row=row, column=name, fix=CORRECT_STAMP)
        counts.append(int(cell[:20]) * unit)  # twenty digits are out of range already
        if not FIRST_MICROSECOND <= counts[-1] <= LAST_MICROSECOND:
            raise _outside_years(table, name, row, cell, fix="another unit? --date-format epoch_s or epoch_ms")
    return pd.DatetimeIndex(np.array(counts, dtype="datetime64[us]"), tz="UTC")


def _formatted_times(cells: list[str], table: Table, name: str, date_format: str, *, is_utc: bool) -> pd.DatetimeIndex:
    _check_format(date_format, table)
    misfit = f"does not fit --date-format {quoted(date_format)}"
    width = len(SAMPLE.strftime(date_format)) if ADJACENT_PARTS.search(date_format) else None
    for row, cell in enumerate(cells):
        # digits of other scripts, and words with a meaning to pandas; one digit for two could be read in two ways
        is_foreign = any(character.isdecimal() for character in cell if character > "\x7f")
        if is_foreign or cell in ("now", "today") or (width is not None and len(cell) != width):
            raise table.error(Code.TIME, f"{quoted(cell)} {misfit}", row=row, column=name, fix=CORRECT_STAMP)

    def parse(cell: str) -> datetime:
        return datetime.strptime(cell, date_format)

    try:
        return pd.to_datetime(cells, format=date_format, utc=is_utc)
    except (ValueError, OverflowError):
        raise _first_refused(cells, table, name, parse, misfit, fix=CORRECT_STAMP) from None


def _check_format(date_format: str, table: Table) -> None:
    """Refuse a format that ``strptime`` does not know, or that leaves the year open."""
    problem = None
    try:
        if datetime.strptime(SAMPLE.strftime(date_format), date_format).year != SAMPLE.year:
            problem = f"--date-format {quoted(date_format)} holds no year"
    except ValueError:
        problem = f"--date-format {quoted(date_format)} is no format of strptime"
    if "%Z" in date_format:
        problem = f"--date-format {quoted(date_format)} has %Z, and names of zones are ambiguous"
    if problem is not None:
        fix = "an example is --date-format '%d.%m.%Y %H:%M'; leave it out for ISO 8601"
        raise table.error(Code.TIME, problem, fix=fix)


def _first_refused(
    cells: list[str], table: Table, name: str, parse: Callable[[str], datetime], problem: str, *, fix: str
) -> DataError:
    """The error about the first of ``cells`` that ``parse`` refuses, after the whole column was refused."""
    offsets = []
    for row, cell in enumerate(cells):
        try:
            offsets.append(str(parse(cell).utcoffset()))
        except (ValueError, OverflowError):
            return table.error(Code.TIME, f"{quoted(cell)} {problem}", row=row, column=name, fix=fix)
    _refuse_mixed_offsets(offsets, table, name)
    return table.error(Code.TIME, f"the time stamps cannot be read: one {problem}", column=name, fix=fix)


def _in_microseconds(times: pd.DatetimeIndex, table: Table, name: str) -> pd.DatetimeIndex:
    if times.hasnans:
        row = int(np.flatnonzero(times.isna())[0])
        problem = "the time stamp is missing"
        raise table.error(Code.TIME, problem, row=row, column=name, fix="fill it in or remove the row")
    counts = times.asi8
    if times.unit == "ns":
        finer = np.flatnonzero(counts % 1_000)
        if len(finer):
            row = int(finer[0])
            problem = f"{quoted(times[row])} is finer than a microsecond"
            raise table.error(Code.TIME, problem, row=row, column=name, fix="round it")
        return times.as_unit("us")
    micro = MICROSECONDS[times.unit]
    # a day less at both ends where there is a zone, so that local times stay within the years as well
    margin = 0 if times.tz is None else 86_400_000_000
    outside = (counts < (FIRST_MICROSECOND + margin) // micro) | (counts > (LAST_MICROSECOND - margin) // micro)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        cells = table.column(name)
        cell = cells[row] if isinstance(cells, Sequence) else int(counts[row])  # pandas cannot spell such a time
        raise _outside_years(table, name, row, cell, fix="correct it")
    return times.as_unit("us")


def _outside_years(table: Table, name: str, row: int, cell: object, *, fix: str) -> DataError:
    problem = f"{quoted(cell)} is outside the years 1 to 9999"
    return table.error(Code.TIME, problem, row=row, column=name, fix=fix)
