"""A table as it was read: named columns of text or typed cells, and the place of every row in its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stanhop.errors import Code, DataError

Column = Sequence[str] | np.ndarray | pd.DatetimeIndex
"""Text as written, or (from Parquet) float64 with NaN where a value is missing, or times with NaT."""


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, at least one row."""

    path: Path
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: Sequence[int] | None
    """Physical line of each row, from 1; None where a file has no lines."""
    notes: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of rows, the header not counted."""
        return len(self.columns[0])

    def column(self, name: str) -> Column:
        """The column called ``name``."""
        return self.columns[self.names.index(name)]

    def place(self, row: int) -> str:
        """Where ``row`` (from 0) stands, in words: ``line 3``."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def error(
        self, code: Code, problem: str, *, row: int | None = None, column: str | None = None, fix: str | None = None
    ) -> DataError:
        """The error that names this file and, if given, the ``row`` (from 0) and the ``column``."""
        if row is None:
            return DataError(code, problem, fix=fix, file=self.path, column=column)
        if self.lines is None:
            return DataError(code, f"{self.place(row)}: {problem}", fix=fix, file=self.path, column=column)
        return DataError(code, problem, fix=fix, file=self.path, line=int(self.lines[row]), column=column)
