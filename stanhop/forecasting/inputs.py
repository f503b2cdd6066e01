"""Which files a batch takes: those that paths, folders and glob patterns name, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stanhop.errors import Code, DataError, UsageError
from stanhop.forecasting.records import absolute
from stanhop.forecasting.tables import SUFFIXES


@dataclass(frozen=True)
class InputFile:
    """A file to forecast.

    Args:
        path: The file.
        relative: Its path below the deepest folder that holds everything that was named.
    """

    path: Path
    relative: Path


def resolve_inputs(patterns: Sequence[Path | str]) -> list[InputFile]:
    """The files that ``patterns`` name, each once, sorted.

    Args:
        patterns: Files as they are; folders for the tables in them, at any depth, but not in hidden ones; glob
            patterns (``**`` for any depth) for the files they match.

    Raises:
        UsageError: there are no patterns.
        DataError: a folder or pattern yields no file.
    """
    if not patterns:
        raise UsageError(Code.USAGE, "no input files", fix="name files, folders or glob patterns")
    bases: list[Path] = []
    found: dict[Path, Path] = {}
    for pattern in map(Path, patterns):
        base, paths = _matches(pattern)
        if not paths:
            problem = "holds no CSV or Parquet file" if pattern.is_dir() else "matches no file"
            raise DataError(Code.FILE, problem, fix="check the path", file=pattern)
        bases.append(absolute(base))
        found |= {absolute(path): path for path in paths}
    common = os.path.commonpath(bases)
    return [InputFile(found[path], path.relative_to(common)) for path in sorted(found)]


def _matches(pattern: Path) -> tuple[Path, list[Path]]:
    """The folder whose structure the outputs of ``pattern`` keep, and its files, spelled as the pattern is."""
    if pattern.is_dir():
        tables = [path for path in pattern.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        return pattern, [path for path in tables if not _is_hidden(path.relative_to(pattern))]
    if pattern.exists() or not glob.has_magic(str(pattern)):
        return pattern.parent, [pattern]  # if it does not exist, reading it will say so
    num_fixed = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    matches = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - pathlib's does not skip hidden files
    return Path(*pattern.parts[:num_fixed]), [match for match in matches if match.is_file()]


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)
