"""How commands answer: one result on standard output, everything else on standard error."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from stanhop.errors import UserError, masked, render, render_json
from stanhop.storage import refuse_existing, write_text


class Format(StrEnum):
    """How results are written."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True)
class Output:
    """What ``--format`` and ``--debug`` ask for, and the ways to answer accordingly."""

    format: Format = Format.HUMAN
    debug: bool = False

    @property
    def is_human(self) -> bool:
        """Whether a person reads along, so that progress may be shown."""
        return self.format is Format.HUMAN

    def result(self, document: Mapping[str, Any], *, human: str) -> None:
        """Print the result: ``document`` as JSON, or ``human`` text, or nothing when quiet."""
        if self.format is Format.JSON:
            _write(json.dumps(_plain(document), ensure_ascii=False, allow_nan=False), sys.stdout)
        elif self.format is Format.HUMAN:
            _write(human, sys.stdout)

    def notes(self, lines: Iterable[str]) -> None:
        """Tell what was inferred or is worth knowing, on standard error; nothing when quiet."""
        for line in lines:
            if self.format is Format.JSON:
                _write(json.dumps({"note": masked(line)}), sys.stderr)
            elif self.format is Format.HUMAN:
                _write(f"stanhop: {masked(line)}", sys.stderr)

    def error(self, error: UserError) -> None:
        """Report ``error`` in one line on standard error."""
        _write(render_json(error) if self.format is Format.JSON else render(error), sys.stderr)


@contextmanager
def counting_bar(output: Output, *, total: int, unit: str, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if a person at a terminal reads along; call what comes back with the number done."""
    if not (is_shown and output.is_human and sys.stderr.isatty()):
        yield lambda _done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, file=sys.stderr, leave=False) as bar:

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        yield advance


def aligned(rows: Sequence[Sequence[object]], *, indent: str = "") -> str:
    """``rows`` of equal length as text, each column as wide as its widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"{indent}{line}".rstrip() for line in padded)


def is_csv_printed(rows: Sequence[Sequence[str | float]], *, target: Path | None) -> bool:
    """Write ``rows`` to what ``--csv`` named; whether that was standard output, so that nothing else belongs there.

    Raises:
        OutputError: the file exists already.
        MachineError: it cannot be written.
    """
    if target is None:
        return False
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if str(target) == "-":
        _write(text.getvalue().removesuffix("\n"), sys.stdout)
        return True
    refuse_existing(target)
    write_text(target, text.getvalue())
    return False


def metric_lines(metrics: Mapping[str, float]) -> str:
    """``metrics`` by name, one a line."""
    counts = {name: f"{value:,.0f}" for name, value in metrics.items() if name.startswith("num_")}
    return aligned([(name, counts.get(name, f"{value:.4g}")) for name, value in metrics.items()])


def _plain(value: Any) -> Any:  # anything a result holds
    """``value`` as JSON knows it: a path becomes text, a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def _write(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal without UTF-8
        print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
    except BrokenPipeError:
        # The reader left (`stanhop … | head -1`).  The work is done; the interpreter would complain about the
        # unflushed rest at its exit, so let that go to nowhere.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
