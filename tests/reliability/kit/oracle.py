"""A second reader of tables, slow and independent of the first: what a CSV file says, cell by cell.

It shares no code with ``stanhop.series``: text by Python's decoder, rows by the ``csv`` module, numbers by exact
decimal arithmetic, stamps by ``datetime``.  It answers one question: given the columns, which value stands at which
time?  What it cannot read it refuses, and then the product must have refused as well.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
STAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2})(?:[ T]([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?)?"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnreadableError(Exception):
    """It says nothing that can be relied on."""


def cells_of(content: bytes) -> list[list[str]]:
    """Rows of fields, blank lines left out."""
    text = content.decode("utf-8").removeprefix("\ufeff")
    return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]


def values_of(content: bytes, *, time: str, targets: tuple[str, ...]) -> dict[int, tuple[float, ...]]:
    """The values of ``targets`` by the time of their row, in microseconds since 1970.

    Raises:
        UnreadableError: a cell is neither, a row is too long or short, or a time stands twice.
    """
    rows = cells_of(content)
    header = [name.strip() for name in rows[0]]
    places = [header.index(name) for name in targets]
    values: dict[int, tuple[float, ...]] = {}
    for row in rows[1:]:
        if len(row) != len(header):
            raise UnreadableError(f"{len(row)} fields")
        stamp = _microseconds(row[header.index(time)].strip(" \t"))
        if stamp in values:
            raise UnreadableError(f"{stamp} twice")
        values[stamp] = tuple(_number(row[place].strip(" \t")) for place in places)
    return values


def _number(cell: str) -> float:
    if NUMBER.fullmatch(cell) is None:
        raise UnreadableError(cell)
    return float(Decimal(cell))


def _microseconds(cell: str) -> int:
    match = STAMP.fullmatch(cell)
    if match is None:
        raise UnreadableError(cell)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        moment = datetime(
            *(int(part or least) for part, least in zip((year, month, day), (1, 1, 1), strict=True)),  # type: ignore[arg-type]
            *(int(part or 0) for part in (hour, minute, second)),
            tzinfo=UTC,
        )
    except ValueError as error:
        raise UnreadableError(cell) from error
    counted = (moment - EPOCH) // timedelta(microseconds=1) + int((fraction or "").ljust(6, "0")[:6])
    if offset and offset != "Z":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        shift = 60_000_000 * (60 * int(digits[:2]) + int(digits[2:]))
        counted -= shift if offset[0] == "+" else -shift
    return counted
