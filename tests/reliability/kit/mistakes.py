"""One mistake that a person may make, and what the refusal must say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.kit import samples

Prepare = Callable[[Path, Path], None]
"""Puts what a case needs into its folder (the first path); the second is a sound model directory to copy."""


@dataclass(frozen=True)
class Case:
    """One mistake.

    Args:
        name: What it is.
        prepare: Makes its files.
        arguments: The command line, run in the folder of the case.
        code: The exit code it must have.
        line: The physical line the refusal must name, if it must.
        column: The column it must name, if it must.
        says: Text that problem or fix must hold.
        names: What tells the place: a file, a key or an option that must stand in the line.
    """

    name: str
    prepare: Prepare
    arguments: tuple[str, ...]
    code: int = 2
    line: int | None = None
    column: str | None = None
    says: tuple[str, ...] = field(default_factory=tuple)
    names: str = "table.csv"


def nothing(folder: Path, model: Path) -> None:
    """Some mistakes need no file."""


def raw(content: bytes, name: str = "table.csv") -> Prepare:
    """A file of these bytes."""

    def prepare(folder: Path, model: Path) -> None:
        (folder / name).write_bytes(content)

    return prepare


def text(content: str, name: str = "table.csv") -> Prepare:
    """A file of this text."""
    return raw(content.encode(), name)


def cells(change: Callable[[list[list[str]]], object], num_rows: int = 40) -> Prepare:
    """A sound table with something changed."""

    def prepare(folder: Path, model: Path) -> None:
        table = samples.rows(num_rows)
        changed = change(table)
        samples.write_csv(folder / "table.csv", changed if isinstance(changed, list) else table)

    return prepare


def with_cell(row: int, place: int, cell: str) -> Prepare:
    """A sound table with one other cell; row 0 is the header."""

    def change(table: list[list[str]]) -> None:
        table[row][place] = cell

    return cells(change)
