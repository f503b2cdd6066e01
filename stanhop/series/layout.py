"""Which column holds the times, which tells series apart, which are channels: by name or kind, never by a guess."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

import pandas as pd

from stanhop.config import DataConfig
from stanhop.errors import Code, quoted
from stanhop.series.frame import Layout
from stanhop.series.numbers import BLANKS, is_missing, is_number
from stanhop.series.stamps import is_stamp
from stanhop.series.table import Table

TIME_NAMES = frozenset(("date", "ds", "timestamp", "time", "datetime"))
ID_NAMES = frozenset(("uniqueid", "itemid", "seriesid"))
UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names of columns that have none, in the header and as pandas spells them."""
MOST_NAMES_SHOWN = 12


def infer_layout(table: Table, data: DataConfig) -> tuple[Layout, list[str]]:
    """The layout of ``table``, and notes on what was left out.

    What ``data`` names is taken as it is.  Otherwise the time column is the one with a usual name, or
    else the one of stamps with separators; an id column needs a usual name; all other columns are
    channels.

    Raises:
        DataError: a column is not there, two could be meant, or none is left to forecast.
    """
    id_column = _id_column(table, data)
    time_column = _time_column(table, data, id_column)
    notes = []
    if data.target_columns is None:
        unnamed = [name for name in table.names if UNNAMED.fullmatch(name) and name not in (time_column, id_column)]
        if unnamed:
            places = ", ".join(str(place) for place, name in enumerate(table.names, 1) if name in unnamed)
            notes.append(f"left out: column {places}, which has no name")
        others = [name for name in table.names if name not in (time_column, id_column, *unnamed)]
        targets = tuple(others)
    else:
        targets = _given_targets(table, data.target_columns, taken=(time_column, id_column))
    if not targets:
        beside = quoted(time_column) if id_column is None else f"{quoted(id_column)} and {quoted(time_column)}"
        fix = "add a column of values, or name the columns to forecast with --target-columns"
        raise table.error(Code.COLUMN, f"no column of values beside {beside}", fix=fix)
    kind = "wide" if id_column is None else "long"
    return Layout(kind=kind, time_column=time_column, id_column=id_column, target_columns=targets), notes  # type: ignore[arg-type]  # one of the two


def _id_column(table: Table, data: DataConfig) -> str | None:
    if data.id_column is not None:
        return _present(table, data.id_column, flag="--id-column")
    found = [name for name in table.names if _plain(name) in ID_NAMES]
    if len(found) > 1:
        _refuse_ambiguous(table, found, what="tell series apart", flag="--id-column")
    return found[0] if found else None


def _time_column(table: Table, data: DataConfig, id_column: str | None) -> str:
    if data.time_column is not None:
        if data.time_column == id_column:
            raise table.error(
                Code.COLUMN, "cannot hold both ids and times", column=id_column, fix="name another column"
            )
        return _present(table, data.time_column, flag="--time-column", data=data)
    candidates = [name for name in table.names if name != id_column]
    found = [name for name in candidates if _plain(name) in TIME_NAMES]
    if not found:
        _refuse_headless(table, data, problem="no time column found")
        found = [name for name in candidates if _holds_stamps(table, name)]
    if len(found) > 1:
        _refuse_ambiguous(table, found, what="hold the times", flag="--time-column")
    if not found:
        problem = f"no time column found; columns are {_listed(table.names)}"
        raise table.error(Code.COLUMN, problem, fix="name it with --time-column")
    if not found[0]:
        place = table.names.index("") + 1
        problem = f"column {place} holds the times but has no name"
        raise table.error(Code.COLUMN, problem, fix="name it in the first line, for example date")
    return found[0]


def _given_targets(table: Table, names: Sequence[str], *, taken: Sequence[str | None]) -> tuple[str, ...]:
    for position, name in enumerate(names):
        _present(table, name, flag="--target-columns")
        if name in taken:
            role = "times" if name == taken[0] else "ids"
            fix = "take it out of --target-columns"
            raise table.error(Code.COLUMN, f"holds the {role}, it cannot be forecast", column=name, fix=fix)
        if name in names[:position]:
            raise table.error(Code.COLUMN, "named twice in --target-columns", column=name, fix="name it once")
    return tuple(names)


def _present(table: Table, name: str, *, flag: str, data: DataConfig | None = None) -> str:
    if name in table.names:
        return name
    if data is not None:
        _refuse_headless(table, data, problem=f"column {quoted(name)} not found")
    lower = {known.lower(): known for known in table.names}
    nearest = difflib.get_close_matches(name.lower(), list(lower), n=1)
    did_you_mean = f"; did you mean {quoted(lower[nearest[0]])}?" if nearest else ""
    problem = f"column {quoted(name)} not found; columns are {_listed(table.names)}{did_you_mean}"
    raise table.error(Code.COLUMN, problem, fix=f"correct {flag}")


def _refuse_headless(table: Table, data: DataConfig, *, problem: str) -> None:
    """Refuse a table whose names are data: one is a time stamp, or all are numbers."""
    if data.header and table.lines is not None:
        names = [name for name in table.names if name]
        if any(is_stamp(name) for name in names) or (names and all(is_number(name) for name in names)):
            raise table.error(Code.COLUMN, f"{problem}; the first line looks like data", fix="add --no-header")


def _refuse_ambiguous(table: Table, names: Sequence[str], *, what: str, flag: str) -> NoReturn:
    problem = f"{_listed(names, ' and ')} could each {what}"
    choices = " or ".join(f"{flag} {_shell(name)}" for name in names[:2])
    raise table.error(Code.COLUMN, problem, fix=f"choose with {choices}")


def _holds_stamps(table: Table, name: str) -> bool:
    column = table.column(name)
    if isinstance(column, pd.DatetimeIndex):
        return True
    if not isinstance(column, Sequence):
        return False
    first = next((cell.strip(BLANKS) for cell in column if not is_missing(cell)), "")
    return is_stamp(first)


def _plain(name: str) -> str:
    """A name as it is compared with the usual ones: ``Unique_ID`` is ``uniqueid``."""
    return re.sub(r"[ _-]", "", name).lower()


def _listed(names: Sequence[str], joint: str = ", ") -> str:
    shown = [quoted(name) for name in names[:MOST_NAMES_SHOWN]]
    more = [f"{len(names) - MOST_NAMES_SHOWN:,} more"] if len(names) > MOST_NAMES_SHOWN else []
    return joint.join(shown + more)


def _shell(name: str) -> str:
    return quoted(name) if not re.fullmatch(r"[\w.-]+", name) else name
