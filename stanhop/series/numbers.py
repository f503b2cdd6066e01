"""Columns of text as numbers: ASCII decimal notation, exactly rounded, everything else refused with its line."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, quoted
from stanhop.series.table import Table

BLANKS = " \t"
"""What may stand around a cell."""
MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none"))
"""What stands for a missing value, in any case."""
LARGEST_EXACT = 2**53
"""Up to here float64 holds every whole number; the next one becomes this."""
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LARGEST_VALUE = 1e30
"""Larger magnitudes are refused: soon after, float32 ends, in which networks compute."""
PLAIN_CHARACTERS = b"0123456789+-eE \t\n"
TYPOGRAPHIC_BLANKS = " \xa0\u202f"
"""A blank between thousands may be a no-break or a narrow one."""
DECIMALS = {".": "points", ",": "commas"}
THOUSANDS = {",": ",", ".": ".", " ": "' '", "'": '"\'"'}
"""Marks between thousands, and how to write them after ``--thousands``."""
CORRECT_IT = "correct it, or leave the cell empty"


def parse_numbers(table: Table, name: str, data: DataConfig) -> np.ndarray:
    """Column ``name`` as float64 ``(rows,)``, NaN where a value is missing.

    Raises:
        DataError: a cell is no number in the notation of ``data``, not finite, or beyond ±1e30; or, where ``data`` asks
            for that, a whole number that float64 rounds, or one below 0.
    """
    column = table.column(name)
    if isinstance(column, np.ndarray):
        values = column
    elif isinstance(column, Sequence):
        fast = _all_at_once(column, data.decimal) if data.thousands is None else None
        values = _cell_by_cell(table, name, column, data) if fast is None else fast
    else:
        raise table.error(Code.COLUMN, "holds times, not numbers", column=name, fix=_other_columns_fix(name))
    too_large = np.flatnonzero(np.abs(values) > LARGEST_VALUE)  # infinities as well, never NaN
    if len(too_large):
        row = int(too_large[0])
        why = f"is outside ±{LARGEST_VALUE:g}" if np.isfinite(values[row]) else "is not finite"
        raise table.error(Code.VALUE, f"{quoted(column[row])} {why}", row=row, column=name, fix=CORRECT_IT)
    if data.strict and isinstance(column, Sequence):  # of numbers that came typed, only text can be too large
        _refuse_rounded(table, name, column, values, data)
    below = np.flatnonzero(values < 0)
    if data.nonnegative and len(below):
        row = int(below[0])
        fix = "correct it, or leave --nonnegative out"
        raise table.error(Code.VALUE, f"{quoted(column[row])} is below 0", row=row, column=name, fix=fix)
    return values


def _refuse_rounded(table: Table, name: str, cells: Sequence[str], values: np.ndarray, data: DataConfig) -> None:
    """Refuse the first whole number of ``cells`` that its value in ``values`` does not equal."""
    for row in np.flatnonzero(np.abs(values) >= LARGEST_EXACT).tolist():
        digits = cells[row].strip(BLANKS).translate(str.maketrans("", "", _marks(data.thousands)))
        if WHOLE.fullmatch(digits) and int(digits) != int(values[row]):
            problem = f"{quoted(cells[row])} would be rounded to {int(values[row])}"
            raise table.error(Code.VALUE, problem, row=row, column=name, fix="round it, or leave --strict out")


def is_number(cell: str) -> bool:
    """Whether ``cell`` is a number with a decimal point and no marks between thousands."""
    return _pattern(".", None).fullmatch(cell.strip(BLANKS)) is not None


def is_missing(cell: str) -> bool:
    """Whether ``cell`` stands for a missing value."""
    return cell.strip(BLANKS).lower() in MISSING


def _all_at_once(cells: Sequence[str], decimal: str) -> np.ndarray | None:
    """Every one of ``cells``, or None where one needs a closer look.

    Out of digits, signs, decimal points, ``e`` and blanks around them, ``float`` accepts plain decimal
    notation only: all else it would take (``nan``, ``infinity``, ``1_000``) needs other characters.
    """
    joined = "\n".join(cells)
    if not joined.isascii() or joined.encode().translate(None, PLAIN_CHARACTERS + decimal.encode()):
        return None
    if decimal != ".":
        cells = joined.replace(decimal, ".").split("\n")
    try:
        return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
    except ValueError:  # a missing value, or a number with two signs
        return None


def _cell_by_cell(table: Table, name: str, cells: Sequence[str], data: DataConfig) -> np.ndarray:
    is_plain = _pattern(data.decimal, data.thousands).fullmatch
    to_plain = str.maketrans(data.decimal, ".", _marks(data.thousands))
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        stripped = cell.strip(BLANKS)
        if is_plain(stripped):
            values[row] = float(stripped.translate(to_plain))
        elif stripped.lower() not in MISSING:
            raise _refusal(table, name, row, cells, data)
    return values


def _marks(thousands: str | None) -> str:
    return TYPOGRAPHIC_BLANKS if thousands == " " else thousands or ""


@functools.cache
def _pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    point = re.escape(decimal)
    whole = r"\d+"
    if thousands is not None:
        whole = rf"(?:\d{{1,3}}(?:[{_marks(thousands)}]\d{{3}})+|\d+)"
    return re.compile(rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _refusal(table: Table, name: str, row: int, cells: Sequence[str], data: DataConfig) -> DataError:
    """The error for the cell in ``row``, with the flag that would read it if there is one."""
    cell = cells[row].strip(BLANKS)
    if cell.lower().lstrip("+-") in ("inf", "infinity"):
        return table.error(Code.VALUE, f"{quoted(cell)} is not finite", row=row, column=name, fix=CORRECT_IT)
    fix = _notation_fix(cell, data)
    if fix is None:
        is_numeric = any(map(is_number, cells))
        fix = CORRECT_IT if is_numeric else _other_columns_fix(name)
    return table.error(Code.VALUE, f"{quoted(cell)} is not a number", row=row, column=name, fix=fix)


def _notation_fix(cell: str, data: DataConfig) -> str | None:
    if any(character.isdecimal() and not character.isascii() for character in cell):
        return "write it with the digits 0 to 9"
    if "\u2212" in cell:
        return "write the minus sign as '-'"
    if cell.lower() in ("true", "false"):
        return "write 1 and 0"
    readings = []
    for thousands in (None, *THOUSANDS):
        if thousands is not None and not any(mark in cell for mark in _marks(thousands)):
            continue
        decimals = [mark for mark in DECIMALS if mark != thousands and _pattern(mark, thousands).fullmatch(cell)]
        if decimals:
            readings.append((data.decimal if data.decimal in decimals else decimals[0], thousands))
    return " or ".join(_reading_fix(decimal, thousands, data) for decimal, thousands in readings[:2]) or None


def _reading_fix(decimal: str, thousands: str | None, data: DataConfig) -> str:
    questions, flags = [], []
    if decimal != data.decimal:
        questions.append(f"decimal {DECIMALS[decimal]}")
        flags.append(f"--decimal {decimal}")
    if thousands is not None:
        questions.append("marks between thousands")
        flags.append(f"--thousands {THOUSANDS[thousands]}")
    return f"{' and '.join(questions)}? add {' '.join(flags)}"


def _other_columns_fix(name: str) -> str:
    return f"leave {quoted(name)} out by naming the columns to forecast with --target-columns, or is it --id-column?"
