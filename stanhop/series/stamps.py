"""The shapes of time stamps: which one is read without being told, and what to tell for the others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stanhop.errors import quoted

DAY = r"(?!0000)\d{4}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))"
CLOCK = r"(?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d{1,6}0{0,3})?)?)?"
OFFSET = r"Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?"
ISO = re.compile(rf"{DAY}?(?:(?<=-\d\d-\d\d)[T ]{CLOCK}(?P<offset>{OFFSET})?)?", re.ASCII)
"""ISO 8601 with separators: a month, a day, or a day and a time of day from the hour to the microsecond,
perhaps with an offset."""

DAY_IN_YEAR = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})(?![\d/.-])(.*)", re.ASCII)
YEAR_FIRST = re.compile(r"(\d{4})([/.-])(\d{1,2})\2(\d{1,2})(?!\d)(.*)", re.ASCII)
TIME_OF_DAY = re.compile(r"([T ])(\d{1,2}):\d\d(:\d\d)?([.,]\d{1,6})?( ?[AaPp][Mm])?( ?[+-]\d\d:?\d\d|Z)?", re.ASCII)
DIGITS = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
ISO_EXAMPLE = "write ISO 8601, such as 2020-01-31 13:00, or describe it with --date-format"


def is_stamp(cell: str) -> bool:
    """Whether ``cell`` has the shape of a date with separators, in whatever order of its parts."""
    return any(shape.fullmatch(cell) for shape in (ISO, YEAR_FIRST, DAY_IN_YEAR))


def advise(cell: str, cells: Sequence[str]) -> tuple[str, str | None]:
    """What is wrong with ``cell``, which is not ISO 8601, and what to do; ``cells`` are all of its column."""
    if DIGITS.fullmatch(cell):
        return _advise_on_digits(cell)
    parts = DAY_IN_YEAR.fullmatch(cell)
    if parts is not None:
        return _advise_on_order(cell, parts, cells)
    parts = YEAR_FIRST.fullmatch(cell)
    if parts is not None:
        return _advise_on_year_first(cell, parts)
    if re.match(r"\d{4}-?W\d\d", cell):
        return f"{quoted(cell)} is an ISO week, not a day", "write the date of its Monday"
    if re.match(r"\d{4,}-\d\d-\d\d", cell) and not re.match(r"(?!0000)\d{4}-", cell):
        return f"{quoted(cell)} is outside the years 1 to 9999", "correct it"
    return f"{quoted(cell)} is not a time stamp", ISO_EXAMPLE


def _advise_on_digits(cell: str) -> tuple[str, str | None]:
    problem = f"{quoted(cell)} has no separators"
    if re.fullmatch(r"(1[6-9]|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d\d){0,3}", cell):
        clock = "%H%M%S"[: len(cell) - len("20200131")]
        reading = (
            f"looks like YYYYMMDD{clock.replace('%', '').replace('H', 'HH').replace('M', 'MM').replace('S', 'SS')}"
        )
        other = " or --date-format epoch_s" if len(cell) == len("1577836800") else ""
        return f"{problem}; {reading}", f"add --date-format %Y%m%d{clock}{other}"
    by_length = {4: ("YYYY", "%Y"), 6: ("YYYYMM", "%Y%m"), 10: ("seconds since 1970", "epoch_s")}
    by_length[13] = ("milliseconds since 1970", "epoch_ms")
    if cell.isdecimal() and len(cell) in by_length:
        reading, date_format = by_length[len(cell)]
        return f"{problem}; looks like {reading}", f"add --date-format {date_format}"
    if re.fullmatch(r"[2-7]\d{4}(\.\d+)?", cell):
        return f"{problem}; looks like a date of Excel's", "format the column as text or date there, and export it anew"
    counted = "; do the rows only count? read them as seconds, with --date-format epoch_s" if cell.isdecimal() else ""
    return f"{quoted(cell)} is a number, not a time stamp", f"{ISO_EXAMPLE}{counted}"


def _advise_on_order(cell: str, parts: re.Match[str], cells: Sequence[str]) -> tuple[str, str | None]:
    mark, year, rest = parts[2], "%Y" if len(parts[4]) == 4 else "%y", parts[5]
    clock = _clock_format(rest)
    if clock is None:
        return f"{quoted(cell)} is not a time stamp", ISO_EXAMPLE
    others = [found for found in map(DAY_IN_YEAR.fullmatch, cells) if found is not None]
    is_day_first = any(int(found[1]) > 12 for found in others)
    is_month_first = any(int(found[3]) > 12 for found in others)
    day_first = f"--date-format {_shell(f'%d{mark}%m{mark}{year}{clock}')}"
    month_first = f"--date-format {_shell(f'%m{mark}%d{mark}{year}{clock}')}"
    if is_day_first == is_month_first:
        return f"{quoted(cell)} is ambiguous", f"day first? add {day_first}; month first? add {month_first}"
    fix = f"day first? add {day_first}" if is_day_first else f"month first? add {month_first}"
    return f"{quoted(cell)} is not ISO 8601", fix


def _advise_on_year_first(cell: str, parts: re.Match[str]) -> tuple[str, str | None]:
    mark, rest = parts[2], parts[5]
    clock = _clock_format(rest)
    is_padded = len(parts[3]) == len(parts[4]) == 2
    if clock is None:
        if mark == "-" and re.fullmatch(r"[T ]\d\d:\d\d:\d\d\.\d{7,}.*", rest):
            return f"{quoted(cell)} is finer than a microsecond", "round it"
        if mark == "-" and re.match(r"[T ]\d\d", rest):
            return f"{quoted(cell)} is no time of day that exists", "correct it"
        return f"{quoted(cell)} is not a time stamp", ISO_EXAMPLE
    if mark == "-" and is_padded and re.fullmatch(r"([T ]\d\d:.*)?", rest):
        return f"{quoted(cell)} does not exist", "correct it"
    return f"{quoted(cell)} is not ISO 8601", f"add --date-format {_shell(f'%Y{mark}%m{mark}%d{clock}')}"


def _clock_format(rest: str) -> str | None:
    """The format of what follows the day, "" if nothing does, None if it is no time of day."""
    if not rest:
        return ""
    parts = TIME_OF_DAY.fullmatch(rest)
    if parts is None or (parts[4] or "").startswith(","):
        return None
    hours, half = ("%I", parts[5].replace(parts[5].strip(), "%p")) if parts[5] else ("%H", "")
    zone = "" if parts[6] is None else " %z" if parts[6].startswith(" ") else "%z"
    seconds = (":%S" if parts[3] else "") + (".%f" if parts[4] else "")
    return f"{parts[1]}{hours}:%M{seconds}{half}{zone}"


def _shell(date_format: str) -> str:
    return f"'{date_format}'" if " " in date_format else date_format
