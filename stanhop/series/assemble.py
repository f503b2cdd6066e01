"""From a table to a set of series: one frequency, regular grids, finite values, and a note on each thing inferred."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, quoted
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.grid import LEAST_POINTS, Misfit, canonical, describe, infer, lay, parse_frequency
from stanhop.series.repair import fill_gaps, fill_missing, merge_duplicates
from stanhop.series.rows import CLOCKS_CHANGED, Rows, counted, gather, is_clock_change, shown
from stanhop.series.table import Table

MOST_SERIES_SHOWN = 3


def assemble(
    table: Table, layout: Layout, data: DataConfig, *, minimum_length: int = 1, notes: list[str] | None = None
) -> SeriesSet:
    """The series that ``table`` holds in ``layout``, repaired as far as ``data`` asks for it.

    Args:
        table: As read.
        layout: Which column is what.
        data: Formats, frequency and policies.
        minimum_length: Steps that each series needs.
        notes: What was found before, put after the summary.

    Raises:
        DataError: a cell, a time, a gap or a length that ``data`` does not allow.
    """
    rows, sorting = gather(table, layout, data)
    rows, merging = merge_duplicates(rows, data.duplicates)
    offset = _frequency(rows, data)
    series, repairs = [], _Repairs(data)
    for index in range(len(rows.ids)):
        one = repairs.apply(rows, index, offset)
        if len(one.times) < minimum_length:
            problem = f"needs {minimum_length:,} points, has {len(one.times):,}"
            raise one.error(Code.LENGTH, problem, row=len(one.times) - 1, fix="give a longer history")
        series.append(Series(one.ids[0], one.times, np.ascontiguousarray(one.values), layout.target_columns))
    summary = _summary(table, layout, num_series=len(series), offset=offset)
    return SeriesSet.of(series, layout, [summary, *(notes or []), *table.notes, *sorting, *merging, *repairs.notes()])


class _Repairs:
    """The repairs of all series, counted for the notes."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.added_rows = 0
        self.filled_values = 0

    def apply(self, rows: Rows, index: int, offset: pd.offsets.BaseOffset) -> Rows:
        """Series number ``index`` of ``rows`` on the grid of ``offset``, nothing missing."""
        one = rows.of(index)
        laid = lay(one.times, offset)
        if isinstance(laid, Misfit):
            if not (self.data.fill_gaps and laid.is_gap):
                raise _misfit_error(rows, index, laid, offset, self.data)
            one, added = fill_gaps(one, laid)
            self.added_rows += added
        else:
            one = one.on(laid)
        one, filled = fill_missing(one, self.data.missing)
        self.filled_values += filled
        return one

    def notes(self) -> Iterator[str]:
        if self.added_rows:
            yield f"{counted(self.added_rows, 'row')} added in gaps"
        if self.filled_values and self.data.missing == "drop":
            yield f"{counted(self.filled_values, 'row')} with missing values dropped"
        elif self.filled_values:
            yield f"{counted(self.filled_values, 'missing value')} filled ({self.data.missing})"


def _frequency(rows: Rows, data: DataConfig) -> pd.offsets.BaseOffset:
    if data.frequency is None:
        offset = infer(rows.times, rows.starts)
        if offset is None:
            problem = f"fewer than {LEAST_POINTS} points, too few to see their frequency"
            raise rows.table.error(
                Code.FREQUENCY, problem, column=rows.layout.time_column, fix="add --freq, for example --freq h"
            )
        return offset
    offset = parse_frequency(data.frequency)
    if offset is None:
        fix = "write a pandas alias such as h, 15min, D, B, W-SUN, MS or ME"
        raise rows.table.error(Code.FREQUENCY, f"--freq {quoted(data.frequency)} is no frequency", fix=fix)
    return canonical(offset, rows.times[rows.starts[:-1]])


def _misfit_error(rows: Rows, index: int, misfit: Misfit, offset: pd.offsets.BaseOffset, data: DataConfig) -> DataError:
    if len(rows.ids) > 1 and data.frequency is None:
        _refuse_mixed_frequencies(rows)
    row = int(rows.starts[index]) + misfit.row
    if misfit.is_gap and misfit.expected is not None:
        before = rows.table.place(int(rows.origins[row - 1]))
        count = f", the first of {misfit.num_missing:,}" if misfit.num_missing > 1 else ""
        problem = f"missing {shown(misfit.expected)} after {before}{count} (the grid is {describe(offset)})"
        fix = "add --fill-gaps" + (" --missing interpolate" if data.missing == "error" else "")
        if is_clock_change(misfit.expected):
            fix += CLOCKS_CHANGED
        return rows.error(Code.FREQUENCY, problem, row=row - 1, fix=fix)
    problem = f"{shown(rows.times[row])} is not on a grid that is {describe(offset)}"
    own = _own_frequency(rows.of(index)) if data.frequency is not None else None
    fix = "correct it, or give the frequency with --freq" if own is None else f"add --freq {own}"
    return rows.error(Code.FREQUENCY, problem, row=row, fix=fix)


def _refuse_mixed_frequencies(rows: Rows) -> None:
    """Refuse series that are regular, but not with one and the same step."""
    names: dict[str, list[str]] = defaultdict(list)
    for index, name in enumerate(rows.ids):
        own = _own_frequency(rows.of(index))
        if own is not None:
            names[own].append(name)
    if len(names) > 1:
        kinds = sorted(names.items(), key=lambda item: len(item[1]))
        problem = f"the series differ in frequency: {'; '.join(_some(alias, ids) for alias, ids in kinds)}"
        fix = "put them in files of their own"
        first = int(rows.starts[rows.ids.index(kinds[0][1][0])])
        raise rows.table.error(
            Code.FREQUENCY, problem, row=int(rows.origins[first]), column=rows.layout.time_column, fix=fix
        )


def _some(alias: str, ids: list[str]) -> str:
    shown_ids = ", ".join(map(quoted, ids[:MOST_SERIES_SHOWN]))
    more = f" and {len(ids) - MOST_SERIES_SHOWN:,} more" if len(ids) > MOST_SERIES_SHOWN else ""
    return f"{alias}: {shown_ids}{more}"


def _own_frequency(rows: Rows) -> str | None:
    """The frequency of the one series ``rows``, None if it is irregular or too short to tell."""
    offset = infer(rows.times, rows.starts)
    return None if offset is None or isinstance(lay(rows.times, offset), Misfit) else str(offset.freqstr)


def _summary(table: Table, layout: Layout, *, num_series: int, offset: pd.offsets.BaseOffset) -> str:
    parts = [counted(table.num_rows, "row"), layout.kind]
    if layout.id_column is not None:
        parts.append(f"{num_series:,} series by column {quoted(layout.id_column)}")
    parts.append(counted(len(layout.target_columns), "channel"))
    parts.append(f"time column {quoted(layout.time_column)}")
    return ", ".join([*parts, describe(offset)])
