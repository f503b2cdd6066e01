"""Many files in, one table of forecasts out for each: atomic, restartable, the same bytes however often it was killed.

Outputs keep the paths of the inputs below the deepest folder that holds all that was named, and their file names; a
file name without the suffix of a table gets one.  Each output has a record of what it was made from (``records``): a
batch that starts again leaves sound outputs alone and makes the rest.  Several processes may make them (``workers``);
this one alone writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from stanhop import __version__
from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, OutputError, PartialBatchError, UserError
from stanhop.forecasting.bundle import Bundle, bundle_digest, load_bundle
from stanhop.forecasting.forecaster import DEFAULT_BATCH_SIZE, Device, Forecaster
from stanhop.forecasting.inputs import InputFile, resolve_inputs
from stanhop.forecasting.making import Made, Maker, Recipe
from stanhop.forecasting.records import FOLDER, Record, Records
from stanhop.forecasting.tables import TableFormat, csv_bytes, escape_formula
from stanhop.forecasting.tasks import ERRORS, Task, plan_tasks
from stanhop.forecasting.workers import Workers
from stanhop.series.read import read_bytes
from stanhop.storage import locked, make_directory, remove_file, remove_stale_temporaries, sha256_of, write_bytes

LOCK = "lock"
ERRORS_HEADER = ("file", "line", "column", "code", "message")
Outcome = Literal["written", "skipped", "refused"]


@dataclass(frozen=True)
class Refusal:
    """An input that was refused, and why."""

    source: InputFile
    error: UserError


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch: paths of the tables that were written or found sound, and the inputs refused."""

    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True)
class Event:
    """One input is done.

    Args:
        source: The input.
        outcome: What became of it.
        done: Inputs done, this one included.
        total: Inputs in all.
        notes: What a person may want to know, one line each: what was inferred, or why it was refused.
    """

    source: InputFile
    outcome: Outcome
    done: int
    total: int
    notes: tuple[str, ...]


class RefusedInputsError(PartialBatchError):
    """Some inputs were refused and listed in ``errors.csv``; ``result`` tells what became of the others."""

    def __init__(self, result: BatchResult, *, listed_in: Path) -> None:
        self.result = result
        refused, others = len(result.refused), len(result.written) + len(result.skipped)
        problem = f"{refused:,} of {refused + others:,} inputs were refused, {others:,} have their forecasts"
        super().__init__(Code.PARTIAL, problem, fix=f"see {listed_in}")


def forecast_files(
    model: Path | str | Bundle,
    inputs: Sequence[Path | str],
    output: Path,
    *,
    data: DataConfig | None = None,
    table_format: TableFormat | None = None,
    raw_ids: bool = False,
    plot: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    is_compiled: bool = False,
    levels: Sequence[float] = (),
    num_jobs: int = 1,
    progress: Callable[[Event], None] | None = None,
) -> BatchResult:
    """Forecast every file that ``inputs`` name and write one table for each.

    Args:
        model: A model directory, or one that is loaded already.
        inputs: Files, folders and glob patterns, as ``resolve_inputs`` takes them.
        output: A folder; or, for a single input file, the table's path, ending in ``.csv`` or ``.parquet``.
        data: How to read the inputs; as the model's training data if not given.
        table_format: What to write; the inputs' own if not given.
        raw_ids: Leave text of CSV outputs as it is, also where a spreadsheet may take it for a formula.
        plot: Write a PNG of history and forecast beside each table.
        overwrite: Replace files in the way that this program did not write.
        device: Where to compute.
        batch_size: Series of a long table that are computed together.
        is_compiled: Whether torch compiles the network first; see ``Forecaster``.
        levels: Prediction intervals to write beside each forecast, in percent.
        num_jobs: Files that are forecast at the same time, each by a process of its own with as many threads as this
            one has; the outputs are the same.  A program that asks for more than one must do so below
            ``if __name__ == "__main__"``, as always with ``multiprocessing``.
        progress: Called after each input.

    Raises:
        RefusedInputsError: some inputs were refused, all others have their forecasts.
        DataError: nothing could be forecast; for a single input, the reason.
        UsageError: the inputs and ``output`` do not fit together.
        OutputError: an output would overwrite an input or another output, or a file of somebody else's.
        ModelError: as ``load_bundle``.
        MachineError: another process is at work in the folder, or disk, memory or permissions do not suffice.
    """
    root, tasks = plan_tasks(resolve_inputs(inputs), inputs, output, table_format=table_format, plot=plot)
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    reading = data if data is not None else bundle.config.data
    recipe = Recipe(reading, raw_ids, device, batch_size, is_compiled, tuple(levels))
    maker = Maker(bundle, recipe)
    num_workers = min(num_jobs, len(tasks))
    makers = Workers(bundle, recipe, num_workers=num_workers, folder=root / FOLDER) if num_workers > 1 else maker
    batch = _Batch(root, makers, made_from=_made_from(maker.forecaster, recipe), overwrite=overwrite)
    is_new_root = not root.exists()
    make_directory(root)
    with locked(root / FOLDER / LOCK):
        for folder in {root, root / FOLDER, *((root / task.name).parent for task in tasks)}:
            remove_stale_temporaries(folder)
        try:
            return batch.run(tasks, progress)
        finally:
            _remove_if_unused(root, with_root=is_new_root)


def _made_from(forecaster: Forecaster, recipe: Recipe) -> dict[str, str]:
    """What decides the bytes of every output, beside its input: not how many processes make them."""
    return {
        "bundle": bundle_digest(forecaster.bundle),
        "reading": json.dumps(recipe.reading.model_dump(mode="json", exclude={"source", "split"}), sort_keys=True),
        "raw_ids": str(recipe.raw_ids),
        "batch_size": str(recipe.batch_size),
        "device": forecaster.device.type,
        **({"compiled": "yes"} if recipe.is_compiled else {}),
        **({} if forecaster.intervals is None else {"levels": str(list(forecaster.intervals.levels))}),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "stanhop": __version__,
    }


class _Report:
    """What has become of each task so far, in the order of the tasks, told to ``progress`` as it happens."""

    def __init__(self, tasks: Sequence[Task], progress: Callable[[Event], None] | None) -> None:
        self._tasks = tasks
        self._progress = progress
        self._outcomes: dict[str, Outcome | Refusal] = {}

    def add(self, task: Task, outcome: Outcome | Refusal, notes: Sequence[str] = ()) -> None:
        """``task`` is done."""
        self._outcomes[task.name] = outcome
        if self._progress is not None:
            name = "refused" if isinstance(outcome, Refusal) else outcome
            self._progress(Event(task.source, name, len(self._outcomes), len(self._tasks), tuple(notes)))

    def refuse(self, task: Task, error: UserError) -> None:
        """``task`` cannot be done because of ``error``, which is raised if it concerns the others as well."""
        if isinstance(error, MachineError) and error.file != str(task.source.path):  # disk, memory or lock
            raise error
        self.add(task, Refusal(task.source, error), (error.message,))

    def refused(self) -> list[Refusal]:
        """The inputs that were refused."""
        outcomes = [self._outcomes[task.name] for task in self._tasks]
        return [outcome for outcome in outcomes if isinstance(outcome, Refusal)]

    def result(self, root: Path) -> BatchResult:
        """All of it."""

        def paths(outcome: Outcome) -> tuple[Path, ...]:
            return tuple(root / task.name for task in self._tasks if self._outcomes[task.name] == outcome)

        return BatchResult(paths("written"), paths("skipped"), tuple(self.refused()))


class _Batch:
    """One batch at work in its output folder, which it has locked."""

    def __init__(self, root: Path, makers: Maker | Workers, *, made_from: Mapping[str, str], overwrite: bool) -> None:
        self.root = root
        self.records = Records(root)
        self.makers = makers
        self.made_from = made_from
        self.overwrite = overwrite
        self._in_hand: dict[str, dict[str, str]] = {}
        """What the outputs will be made from that are being made."""

    def run(self, tasks: Sequence[Task], progress: Callable[[Event], None] | None) -> BatchResult:
        """Do all ``tasks``; raises what ``forecast_files`` says."""
        if len(tasks) > 1:
            self._refuse_foreign(ERRORS, None, owned=self._owned(ERRORS))
        report = _Report(tasks, progress)
        with closing(self.makers.make_all(self._left_to_do(tasks, report))) as answers:
            for task, answer in answers:
                self._settle(task, answer, report)
        refused = report.refused()
        if len(refused) == len(tasks):
            raise _nothing_done(refused)
        if len(tasks) > 1:
            self._list_refusals(refused)
        result = report.result(self.root)
        if refused:
            raise RefusedInputsError(result, listed_in=self.root / ERRORS)
        return result

    def _left_to_do(self, tasks: Sequence[Task], report: _Report) -> Iterator[Task]:
        """Those of ``tasks`` whose outputs are not there and sound; the others are reported."""
        for task in tasks:
            try:
                input_sha256 = sha256_of(read_bytes(task.source.path))
            except UserError as error:
                report.refuse(task, error)
                continue
            made_from = {**self.made_from, "input": input_sha256, "format": task.table_format}
            if self._is_done(task, made_from):
                report.add(task, "skipped")
            else:
                self._in_hand[task.name] = made_from
                yield task

    def _is_done(self, task: Task, made_from: Mapping[str, str]) -> bool:
        record = self.records.read(task.name)
        if record is None or record.made_from != made_from:
            return False
        outputs = record.outputs
        return all(name in outputs and self.records.is_sound(name, outputs[name]) for name in task.names)

    def _settle(self, task: Task, answer: Made | UserError, report: _Report) -> None:
        """Write what ``task`` became, or report why it became nothing."""
        made_from = self._in_hand.pop(task.name)
        if isinstance(answer, UserError):
            report.refuse(task, answer)
            return
        record = Record(name=task.name, made_from=made_from, outputs={}, batch_size=answer.batch_size)
        try:
            notes = self._write(record, answer.contents)
        except OutputError as error:  # somebody else's file is in the way
            report.refuse(task, error)
        else:
            report.add(task, "written", (*answer.notes, *notes))

    def _write(self, record: Record, contents: Mapping[str, bytes]) -> list[str]:
        """Write ``contents`` and before them their ``record``; the notes say what was found in their place."""
        owned = self._owned(record.name)
        for name, content in contents.items():
            self._refuse_foreign(name, content, owned=owned)
        present = [name for name in owned if os.path.lexists(self.root / name)]
        damaged = [name for name in present if not self.records.is_sound(name, owned[name])]
        checksums = {name: sha256_of(content) for name, content in contents.items()}
        self.records.write(record.model_copy(update={"outputs": checksums}))
        for name, content in contents.items():
            if not self.records.is_sound(name, checksums[name]):
                write_bytes(self.root / name, content)
        for name in set(present) - set(contents) - set(damaged):  # a plot that is not asked for any more
            remove_file(self.root / name)
        return [f"{self.root / name} was not as it had been written; it is made again" for name in damaged]

    def _list_refusals(self, refused: Sequence[Refusal]) -> None:
        """Write ``errors.csv``, or take away the one of an earlier batch if there is nothing to list."""
        if refused:
            content = csv_bytes([ERRORS_HEADER, *map(_error_row, refused)])
            self._write(Record(name=ERRORS, made_from={}, outputs={}, batch_size=0), {ERRORS: content})
        elif self._owned(ERRORS):
            remove_file(self.root / ERRORS)
            self.records.remove(ERRORS)

    def _owned(self, name: str) -> Mapping[str, str]:
        """What the record of ``name`` says was written: SHA-256 by file."""
        record = self.records.read(name)
        return {} if record is None else record.outputs

    def _refuse_foreign(self, name: str, content: bytes | None, *, owned: Mapping[str, str]) -> None:
        """Refuse to replace a file that no record speaks of, unless it holds ``content`` already."""
        path = self.root / name
        if self.overwrite or name in owned or not os.path.lexists(path):
            return
        if content is None or not self.records.is_sound(name, sha256_of(content)):
            problem = "the output exists already and was not written by this command"
            raise OutputError(Code.OUTPUT, problem, fix="choose another output, or add --overwrite", file=path)


def _nothing_done(refused: Sequence[Refusal]) -> UserError:
    first = refused[0].error
    if len(refused) == 1:
        return first
    problem = f"none of the {len(refused):,} inputs could be forecast; the first one: {first.problem}"
    return DataError(first.code, problem, fix=first.fix, file=first.file, line=first.line, column=first.column)


def _error_row(refusal: Refusal) -> list[str]:
    error = refusal.error
    message = error.problem if error.fix is None else f"{error.problem}; {error.fix}"
    line = "" if error.line is None else str(error.line)
    cells = [refusal.source.relative.as_posix(), line, error.column or "", error.code, message]
    return [escape_formula(cell) for cell in cells]


def _remove_if_unused(root: Path, *, with_root: bool) -> None:
    """Leave nothing behind where nothing could be done: take the lock away, and folders that are empty without it."""
    folder = root / FOLDER
    if [entry.name for entry in folder.iterdir()] == [LOCK]:
        remove_file(folder / LOCK)
        folder.rmdir()
        with suppress(OSError):  # it is not empty
            if with_root:
                root.rmdir()
