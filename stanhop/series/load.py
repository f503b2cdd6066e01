"""The way in: a named data set, the built-in one, or a file, as series ready for use."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, quoted
from stanhop.series import catalog
from stanhop.series.assemble import assemble
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.layout import infer_layout
from stanhop.series.read import PARQUET_SUFFIXES, read_table
from stanhop.series.synthetic import generate

SYNTHETIC = "synthetic"
"""Name of the built-in set."""
FILE_SUFFIXES = (".csv", ".tsv", ".txt", *PARQUET_SUFFIXES)


def load_series(data: DataConfig) -> SeriesSet:
    """The series that ``data.source`` names: the built-in set, one of the catalogue, or a file.

    What looks like a path (a separator, a suffix of tables, something that exists) is a file.  A set of
    the catalogue is downloaded if it is not at hand, and read as the catalogue says where ``data``
    has nothing else than the default.

    Raises:
        DataError: no such set or file, or one that cannot be used as it is.
        MachineError: it could not be downloaded or read.
    """
    if data.source == SYNTHETIC:
        return _selected(generate(), data.target_columns)
    if is_path(data.source):
        return read_series_file(Path(data.source), data)
    data_set = catalog.find(data.source)
    options = {**data_set.read, "frequency": data_set.frequency}
    return read_series_file(catalog.fetch(data_set), _with_defaults(data, options))


def read_series_file(path: Path, data: DataConfig, *, minimum_length: int = 1) -> SeriesSet:
    """The series in the CSV or Parquet file at ``path``, whatever ``data.source`` says.

    Args:
        path: The file.
        data: How to read it, and what to do about duplicates, gaps and missing values.
        minimum_length: Steps that each series needs.

    Raises:
        DataError: the file, with the line and column that cannot be used and what to do about it.
        MachineError: it may not be read.
    """
    table = read_table(path, data)
    layout, notes = infer_layout(table, data)
    return assemble(table, layout, data, minimum_length=minimum_length, notes=notes)


def is_path(source: str) -> bool:
    """Whether ``source`` means a file rather than a named set."""
    if os.sep in source or source.lower().endswith(FILE_SUFFIXES):
        return True
    return source not in catalog.data_sets() and os.path.lexists(source)


def _with_defaults(data: DataConfig, options: dict[str, Any]) -> DataConfig:
    """``data`` with ``options`` where it has the defaults."""
    defaults = DataConfig()
    applied = {key: value for key, value in options.items() if getattr(data, key) == getattr(defaults, key)}
    return data.model_copy(update=applied)


def _selected(series_set: SeriesSet, names: tuple[str, ...] | None) -> SeriesSet:
    """``series_set`` with the channels called ``names`` only, in their order."""
    if names is None:
        return series_set
    known = series_set.channels
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        problem = f"column {quoted(unknown[0])} not found" if unknown else "a column is named twice"
        fix = f"choose --target-columns from {', '.join(known)}"
        raise DataError(Code.COLUMN, f"{problem} in the data set {SYNTHETIC}", fix=fix)
    places = [known.index(name) for name in names]
    series = [Series(one.id, one.times, one.values[:, places], names) for one in series_set.series]
    layout = dataclasses.replace(series_set.layout, target_columns=names)
    return SeriesSet.of(series, layout, series_set.notes)
