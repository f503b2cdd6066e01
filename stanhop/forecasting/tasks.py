"""What a batch has to do: for each input the table and the plot to write, none of them in the way of another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stanhop.errors import Code, DataError, OutputError, UsageError
from stanhop.forecasting.inputs import InputFile
from stanhop.forecasting.records import Records
from stanhop.forecasting.tables import SUFFIXES, TableFormat

ERRORS = "errors.csv"
"""The list of refused inputs in the output folder of a batch of several."""


@dataclass(frozen=True)
class Task:
    """One input and what to write for it; ``name`` and ``plot_name`` are relative to the output folder."""

    source: InputFile
    name: str
    plot_name: str | None
    table_format: TableFormat

    @property
    def names(self) -> list[str]:
        """What will be written."""
        return [self.name] if self.plot_name is None else [self.name, self.plot_name]


def plan_tasks(
    files: Sequence[InputFile],
    patterns: Sequence[Path | str],
    output: Path,
    *,
    table_format: TableFormat | None,
    plot: bool,
) -> tuple[Path, list[Task]]:
    """The output folder and the tasks of a batch.

    Args:
        files: The inputs.
        patterns: What the inputs were named by.
        output: A folder; or, for a single input file, the table's path.
        table_format: What to write; the inputs' own if not given.
        plot: Whether to write a plot beside each table.

    Raises:
        UsageError: ``output`` is a file, and there are several inputs, or its suffix is of another format.
        DataError: all inputs are outputs of an earlier batch.
        OutputError: an output would overwrite an input or another output.
    """
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        only = _only_input(files, patterns, output, table_format=table_format)
        root, tables = output.parent, {only: Path(output.name)}
    else:
        records = Records(output)  # an earlier batch may have written below a folder of inputs
        inputs = [file for file in files if not records.is_output(file.path)]
        root, tables = output, {file: _table_name(file.relative, table_format) for file in inputs}
        if not tables:
            fix = "name other inputs, or another output folder"
            raise DataError(Code.FILE, "all inputs are outputs of this command", fix=fix, file=output)
    tasks = [
        Task(
            source=file,
            name=table.as_posix(),
            plot_name=table.with_suffix(".png").as_posix() if plot else None,
            table_format=SUFFIXES[table.suffix.lower()],
        )
        for file, table in tables.items()
    ]
    _refuse_collisions(root, tasks)
    return root, tasks


def _only_input(
    files: Sequence[InputFile], patterns: Sequence[Path | str], output: Path, *, table_format: TableFormat | None
) -> InputFile:
    """The one input file whose forecast goes to the file ``output``."""
    if len(files) > 1 or [file.path for file in files] != [Path(pattern) for pattern in patterns]:
        fix = "give a folder as output"
        raise UsageError(Code.USAGE, f"only the forecast of a single file can be written to {output}", fix=fix)
    if table_format not in (None, SUFFIXES[output.suffix.lower()]):
        fix = "give it another suffix, or leave --format-out away"
        raise UsageError(Code.USAGE, f"the output {output} is not named as a {table_format} file is", fix=fix)
    return files[0]


def _table_name(relative: Path, table_format: TableFormat | None) -> Path:
    if relative.suffix.lower() in SUFFIXES and table_format in (None, SUFFIXES[relative.suffix.lower()]):
        return relative
    return relative.with_suffix(f".{table_format or 'csv'}")


def _refuse_collisions(root: Path, tasks: Sequence[Task]) -> None:
    sources = {os.path.realpath(task.source.path) for task in tasks}
    makers = {ERRORS: "the list of refused inputs"} if len(tasks) > 1 else {}
    for task in tasks:
        for name in task.names:
            if os.path.realpath(root / name) in sources:
                problem = "the output would overwrite an input"
                raise OutputError(Code.OUTPUT, problem, fix="choose another output folder", file=root / name)
            if name in makers:
                problem = f"{makers[name]} and the forecast of {task.source.path} would both be written here"
                raise OutputError(Code.OUTPUT, problem, fix="rename one, or forecast them apart", file=root / name)
            makers[name] = f"the forecast of {task.source.path}"
