"""The strict reader: a CSV or Parquet file as a table, or the error that says where it is none; nothing is guessed.

CSV goes from bytes by way of text (``decode``) to fields of text; what a field means is decided by
the column it stands in (``numbers``, ``times``).  A quoted field may hold separators but no line
end, so every row stands on a line of its own and every error knows its line.
"""

from __future__ import annotations

import csv
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, quoted
from stanhop.series.decode import BYTE_ORDER_MARK, PARQUET_MAGIC, decode, split_lines
from stanhop.series.numbers import LARGEST_EXACT
from stanhop.series.table import Column, Table

PARQUET_SUFFIXES = (".parquet", ".pq")
LARGEST_FILE = 2**30
"""Bytes; cells of text take some ten times their size in memory."""
LONGEST_LINE = 1_000_000
MOST_COLUMNS = 10_000
MOST_PARQUET_CELLS = 500_000_000
"""4 GB of float64: a compressed file of some kilobytes may claim any number of rows."""
SEPARATORS = {",": ",", ";": "';'", "\t": "'\\t'", "|": "'|'"}
"""Field separators, and how to write them after ``--sep``."""


def read_table(path: Path, data: DataConfig) -> Table:
    """The table in the file at ``path``: Parquet by its suffix, else CSV, read as ``data`` says.

    Raises:
        DataError: it is no regular file, no text, or no table of rows of equal length.
        MachineError: it may not be read.
    """
    raw = read_bytes(path)
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _parquet_table(raw, path)
    return _csv_table(decode(raw, encoding=data.encoding, path=path), data, path)


def read_bytes(path: Path) -> bytes:
    """The content of the regular file at ``path``; a folder, pipe or device is refused before it is opened."""
    if "\0" in str(path):
        raise DataError(Code.FILE, "is no path: it holds a NUL", fix="check the path", file=ascii(str(path)))
    try:
        _refuse_irregular(path)
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size > LARGEST_FILE:
                problem = f"has {before.st_size:,} bytes, more than {LARGEST_FILE:,}"
                raise DataError(Code.FILE, problem, fix="split it", file=path)
            raw = file.read()
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "no such file"
        raise DataError(Code.FILE, what, fix="check the path", file=path) from None
    except OSError as error:
        problem = f"cannot be read: {error.strerror or quoted(error)}"
        raise MachineError(Code.ENVIRONMENT, problem, fix="may you read it?", file=path) from None
    if len(raw) != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(Code.FILE, "changed while it was read", fix="wait until it is complete", file=path)
    if not raw:
        raise DataError(Code.FILE, "file is empty", fix="export or copy it anew", file=path)
    return raw


def _refuse_irregular(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
        raise DataError(Code.FILE, what, fix="give a CSV or Parquet file", file=path)


def _csv_table(text: str, data: DataConfig, path: Path) -> Table:
    if not text.strip():
        raise DataError(Code.STRUCTURE, "holds only blank lines", fix="export it anew", file=path)
    lines = split_lines(text)
    longest = max(lines, key=len)
    if len(longest) > LONGEST_LINE:
        problem = f"the line has {len(longest):,} characters, more than {LONGEST_LINE:,}"
        fix = "is a line end or a quote missing?"
        raise DataError(Code.STRUCTURE, problem, fix=fix, file=path, line=lines.index(longest) + 1)
    records = _records(lines, data.separator, path)
    numbered = [(number, record) for number, record in enumerate(records, 1) if record]  # [] is a blank line
    first_line, first = numbered[0]
    names = _names(first, data, path=path, line=first_line)
    rows = [record for _, record in numbered[data.header :]]
    line_numbers = [number for number, _ in numbered[data.header :]]
    if not rows:
        fix = "add rows, or add --no-header if this line is one"
        raise DataError(Code.STRUCTURE, "no data rows, only a header", fix=fix, file=path, line=first_line)
    is_cut = not text.endswith(("\n", "\r"))
    _check_widths(rows, line_numbers, len(names), is_cut=is_cut, data=data, path=path)
    notes = ("the last line has no line end; was the file cut short?",) if is_cut else ()
    return Table(path, names, tuple(zip(*rows, strict=True)), line_numbers, notes)


def _records(lines: list[str], separator: str, path: Path) -> list[list[str]]:
    """The fields of each line."""
    try:
        records = list(csv.reader(lines, delimiter=separator, strict=True))
        if len(records) == len(lines):
            return records
    except csv.Error:
        pass
    for number, line in enumerate(lines, 1):  # up to the first faulty line, each line is a record of its own
        try:
            list(csv.reader([line], delimiter=separator, strict=True))
        except csv.Error as error:
            raise _quote_error(error, lines, number, separator, path) from None
    raise AssertionError("a table whose every line is sound is sound")


def _quote_error(error: csv.Error, lines: list[str], number: int, separator: str, path: Path) -> DataError:
    fix = 'a quote inside a quoted field is written twice ("")'
    if "field larger" in str(error):
        problem, fix = f"a field is longer than {csv.field_size_limit():,} characters", "is a quote missing?"
    elif "unexpected end" not in str(error):
        problem = "text after a closing quote"
    elif _is_closed_later(lines[number - 1 :], separator):
        problem, fix = "a quoted field runs over the end of the line", f"a stray quote? {fix}"
    else:
        problem, fix = "a quote opens here and never closes", "close it or take it out"
    return DataError(Code.STRUCTURE, problem, fix=fix, file=path, line=number)


def _is_closed_later(lines: list[str], separator: str) -> bool:
    try:
        next(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error as error:
        return "unexpected end" not in str(error)
    return True


def _names(first: list[str], data: DataConfig, *, path: Path, line: int) -> tuple[str, ...]:
    """The columns' names: those of the header without blanks around them, else ``1``, ``2`` and so on."""
    if len(first) > MOST_COLUMNS:
        problem = f"{len(first):,} columns, more than {MOST_COLUMNS:,}"
        raise DataError(
            Code.STRUCTURE, problem, fix=f"is {quoted(data.separator)} the separator?", file=path, line=line
        )
    if len(first) == 1:
        _refuse_one_column(first[0], data, path=path, line=line)
    if not data.header:
        return tuple(str(position) for position in range(1, len(first) + 1))
    marked = next((name for name in first if BYTE_ORDER_MARK in name), None)
    if marked is not None:
        problem = f"a byte-order mark inside the name {quoted(marked)}"
        raise DataError(Code.FORMAT, problem, fix="remove it", file=path, line=line)
    names = tuple(name.strip() for name in first)
    _refuse_repeated(names, path=path, line=line)
    return names


def _refuse_one_column(field: str, data: DataConfig, *, path: Path, line: int) -> None:
    others = [mark for mark in SEPARATORS if mark in field and mark != data.separator]
    problem, fix = "found 1 column", "a table needs a time column and one of values at least; check --sep"
    if others:
        best = max(others, key=field.count)
        problem, fix = "found 1 column", f"is the separator {quoted(best)}? add --sep {SEPARATORS[best]}"
    raise DataError(Code.STRUCTURE, problem, fix=fix, file=path, line=line)


def _refuse_repeated(names: tuple[str, ...], *, path: Path, line: int | None) -> None:
    seen: dict[str, int] = {}
    for position, name in enumerate(names, 1):
        if name and name in seen:
            problem = f"the name stands over column {seen[name]} and column {position}"
            raise DataError(Code.COLUMN, problem, fix="rename one of them", file=path, line=line, column=name)
        seen.setdefault(name, position)


def _check_widths(
    rows: list[list[str]], lines: list[int], width: int, *, is_cut: bool, data: DataConfig, path: Path
) -> None:
    widths = [len(row) for row in rows]
    wrong = next((index for index, found in enumerate(widths) if found != width), None)
    if wrong is None:
        return
    found, line = widths[wrong], lines[wrong]
    expected = f"header has {width}" if data.header else f"the first line has {width}"
    problem = f"line {line} has {found} field{'s' * (found != 1)}, {expected}"
    fix = "correct the line"
    if is_cut and wrong == len(rows) - 1 and found < width:
        fix = "truncated? export or copy the file anew"
    elif found > width and all(row[-1] == "" for row in rows):
        fix = "every row ends with a separator: take it away, or end the header with one as well"
    elif found > width and min(widths) > width:
        fix = "decimal commas? write the fields in quotes, or use another separator (--sep ';' --decimal ,)"
    elif not "".join(rows[wrong]).strip():
        fix = "take the line out"
    raise DataError(Code.STRUCTURE, problem, fix=fix, file=path, line=line)


def _parquet_table(raw: bytes, path: Path) -> Table:
    import pyarrow as pa  # only those who read Parquet wait for it
    import pyarrow.parquet as pq

    if not raw.startswith(PARQUET_MAGIC):
        raise DataError(Code.FORMAT, "this is not a Parquet file", fix="is the suffix right?", file=path)
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        num_rows, num_columns = file.metadata.num_rows, len(file.schema_arrow.names)
        if num_columns > MOST_COLUMNS or num_rows * num_columns > MOST_PARQUET_CELLS:
            problem = f"{num_rows:,} rows of {num_columns:,} columns are too many"
            raise DataError(Code.STRUCTURE, problem, fix="split it", file=path)
        names = tuple(name.strip() for name in file.schema_arrow.names)
        content = file.read(use_threads=False)
        content.validate(full=True)  # pyarrow trusts a file until told not to, and indices beyond an array crash it
        columns = tuple(_typed_column(column, pa) for column in content.columns)
    except (pa.ArrowException, OSError, OverflowError, KeyError, UnicodeDecodeError) as error:
        problem = f"cannot be read as Parquet: {quoted(error)}"
        raise DataError(Code.FORMAT, problem, fix="export it anew", file=path) from None
    _refuse_repeated(names, path=path, line=None)
    if len(names) < 2:
        fix = "a table needs a time column and one of values at least"
        raise DataError(Code.STRUCTURE, f"found {len(names)} column{'s' * (len(names) != 1)}", fix=fix, file=path)
    if not num_rows:
        raise DataError(Code.STRUCTURE, "no data rows", fix="add rows", file=path)
    return Table(path, names, columns, None)


def _typed_column(column: Any, pa: Any) -> Column:  # pyarrow has no types
    """Numbers as float64, times as an index, all else as text.

    Booleans are text too, since they are no numbers, and whole numbers that float64 would round, which may be ids.
    """
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        stored = column if pa.types.is_timestamp(kind) else column.cast(pa.timestamp("ms"))
        times = pd.DatetimeIndex(stored.cast(pa.timestamp(stored.type.unit)).to_numpy())
        return times if zone is None else times.tz_localize("UTC").tz_convert(zone)
    is_exact = not pa.types.is_integer(kind) or _is_exact_in_float64(column)
    if is_exact and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    cells = column.to_pylist()
    if pa.types.is_decimal(kind):
        return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)
    return tuple("" if cell is None else str(cell) for cell in cells)


def _is_exact_in_float64(column: Any) -> bool:
    """Whether every whole number of ``column`` is one that float64 can hold."""
    import pyarrow.compute as pc

    ends = pc.min_max(column).as_py()
    return all(end is None or abs(end) <= LARGEST_EXACT for end in ends.values())
