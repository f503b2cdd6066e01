"""Many files in, one table of forecasts out for each: atomic, restartable, the same bytes however often it was killed.

Outputs keep the paths of the inputs below the deepest folder that holds all that was named, and their file names; a
file name without the suffix of a table gets one.  Each output has a record of what it was made from (``records``): a
batch that starts again leaves sound outputs alone and makes the rest.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from stanhop import __version__
from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, OutputError, PartialBatchError, UsageError, UserError
from stanhop.forecasting.bundle import Bundle, bundle_digest, load_bundle
from stanhop.forecasting.forecaster import DEFAULT_BATCH_SIZE, Device, Forecast, Forecaster
from stanhop.forecasting.records import FOLDER, Record, Records, absolute
from stanhop.forecasting.tables import SUFFIXES, TableFormat, csv_bytes, escape_formula, table_bytes
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.load import read_series_file
from stanhop.series.read import read_bytes
from stanhop.storage import locked, make_directory, remove_file, remove_stale_temporaries, sha256_of, write_bytes

LOCK = "lock"
ERRORS = "errors.csv"
ERRORS_HEADER = ("file", "line", "column", "code", "message")
Outcome = Literal["written", "skipped", "refused"]


@dataclass(frozen=True)
class InputFile:
    """A file to forecast.

    Args:
        path: The file.
        relative: Its path below the deepest folder that holds everything that was named.
    """

    path: Path
    relative: Path


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
        progress: Called after each input.

    Raises:
        RefusedInputsError: some inputs were refused, all others have their forecasts.
        DataError: nothing could be forecast; for a single input, the reason.
        UsageError: the inputs and ``output`` do not fit together.
        OutputError: an output would overwrite an input or another output, or a file of somebody else's.
        ModelError: as ``load_bundle``.
        MachineError: another process is at work in the folder, or disk, memory or permissions do not suffice.
    """
    root, jobs = _plan(resolve_inputs(inputs), inputs, output, table_format=table_format, plot=plot)
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    forecaster = Forecaster(bundle, device=device, batch_size=batch_size, is_compiled=is_compiled, levels=levels)
    reading = data if data is not None else bundle.config.data
    batch = _Batch(root, forecaster, reading=reading, raw_ids=raw_ids, overwrite=overwrite)
    is_new_root = not root.exists()
    make_directory(root)
    with locked(root / FOLDER / LOCK):
        for folder in {root, root / FOLDER, *((root / job.name).parent for job in jobs)}:
            remove_stale_temporaries(folder)
        try:
            return batch.run(jobs, progress)
        finally:
            _remove_if_unused(root, with_root=is_new_root)


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


@dataclass(frozen=True)
class _Job:
    """One input and what to write for it; ``name`` and ``plot_name`` are relative to the output folder."""

    source: InputFile
    name: str
    plot_name: str | None
    table_format: TableFormat

    @property
    def names(self) -> list[str]:
        return [self.name] if self.plot_name is None else [self.name, self.plot_name]


def _plan(
    files: Sequence[InputFile],
    patterns: Sequence[Path | str],
    output: Path,
    *,
    table_format: TableFormat | None,
    plot: bool,
) -> tuple[Path, list[_Job]]:
    """The output folder and the jobs; refuses outputs that would collide with one another or with an input."""
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
    jobs = [
        _Job(
            source=file,
            name=table.as_posix(),
            plot_name=table.with_suffix(".png").as_posix() if plot else None,
            table_format=SUFFIXES[table.suffix.lower()],
        )
        for file, table in tables.items()
    ]
    _refuse_collisions(root, jobs)
    return root, jobs


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


def _refuse_collisions(root: Path, jobs: Sequence[_Job]) -> None:
    sources = {os.path.realpath(job.source.path) for job in jobs}
    makers = {ERRORS: "the list of refused inputs"} if len(jobs) > 1 else {}
    for job in jobs:
        for name in job.names:
            if os.path.realpath(root / name) in sources:
                problem = "the output would overwrite an input"
                raise OutputError(Code.OUTPUT, problem, fix="choose another output folder", file=root / name)
            if name in makers:
                problem = f"{makers[name]} and the forecast of {job.source.path} would both be written here"
                raise OutputError(Code.OUTPUT, problem, fix="rename one, or forecast them apart", file=root / name)
            makers[name] = f"the forecast of {job.source.path}"


class _Batch:
    """One batch at work in its output folder, which it has locked."""

    def __init__(
        self, root: Path, forecaster: Forecaster, *, reading: DataConfig, raw_ids: bool, overwrite: bool
    ) -> None:
        self.root = root
        self.records = Records(root)
        self.forecaster = forecaster
        self.reading = reading
        self.raw_ids = raw_ids
        self.overwrite = overwrite
        self.made_from = {
            "bundle": bundle_digest(forecaster.bundle),
            "reading": json.dumps(reading.model_dump(mode="json", exclude={"source", "split"}), sort_keys=True),
            "raw_ids": str(raw_ids),
            "batch_size": str(forecaster.batch_size),
            "device": forecaster.device.type,
            **({"compiled": "yes"} if forecaster.is_compiled else {}),
            **({} if forecaster.intervals is None else {"levels": str(list(forecaster.intervals.levels))}),
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
            "stanhop": __version__,
        }

    def run(self, jobs: Sequence[_Job], progress: Callable[[Event], None] | None) -> BatchResult:
        """Do all ``jobs``; raises what ``forecast_files`` says."""
        if len(jobs) > 1:
            self._refuse_foreign(ERRORS, None, owned=self._owned(ERRORS))
        done: dict[Outcome, list[Path]] = {"written": [], "skipped": []}
        refused: list[Refusal] = []
        for count, job in enumerate(jobs, 1):
            outcome: Outcome
            try:
                outcome, notes = self._forecast(job)
                done[outcome].append(self.root / job.name)
            except UserError as error:
                if not _is_about_the_input(error, job):
                    raise
                outcome, notes = "refused", (error.message,)
                refused.append(Refusal(job.source, error))
            if progress is not None:
                progress(Event(job.source, outcome, count, len(jobs), notes))
        result = BatchResult(tuple(done["written"]), tuple(done["skipped"]), tuple(refused))
        if len(refused) == len(jobs):
            raise _nothing_done(refused)
        if len(jobs) > 1:
            self._list_refusals(refused)
        if refused:
            raise RefusedInputsError(result, listed_in=self.root / ERRORS)
        return result

    def _forecast(self, job: _Job) -> tuple[Literal["written", "skipped"], tuple[str, ...]]:
        """Make the outputs of ``job``, unless they are there and sound."""
        input_sha256 = sha256_of(read_bytes(job.source.path))
        made_from = {**self.made_from, "input": input_sha256, "format": job.table_format}
        record = self.records.read(job.name)
        if record is not None and record.made_from == made_from:
            outputs = record.outputs
            if all(name in outputs and self.records.is_sound(name, outputs[name]) for name in job.names):
                return "skipped", ()
        series_set = self._read(job)
        forecasts = self._forecasts_of(series_set, job)
        contents = {
            job.name: table_bytes(forecasts, series_set.layout, table_format=job.table_format, raw_ids=self.raw_ids)
        }
        if job.plot_name is not None:
            contents[job.plot_name] = _plot(series_set.series, forecasts)
        batch_size = min(forecast.batch_size for forecast in forecasts)
        notes = self._write(Record(name=job.name, made_from=made_from, outputs={}, batch_size=batch_size), contents)
        return "written", (*series_set.notes, *notes)

    def _read(self, job: _Job) -> SeriesSet:
        needed = self.forecaster.bundle.config.model.context_length
        return read_series_file(job.source.path, self.reading, minimum_length=needed)

    def _forecasts_of(self, series_set: SeriesSet, job: _Job) -> list[Forecast]:
        try:
            if series_set.layout.kind == "wide":
                return [self.forecaster.forecast(series_set.series[0])]
            return self.forecaster.forecast_all(series_set.series)
        except DataError as error:  # the forecaster knows no file
            raise DataError(error.code, error.problem, fix=error.fix, file=job.source.path) from None

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


def _is_about_the_input(error: UserError, job: _Job) -> bool:
    """Whether ``error`` concerns one input only: not disk, memory or lock, but an input that may not be read does."""
    return not isinstance(error, MachineError) or error.file == str(job.source.path)


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


def _plot(series: Sequence[Series], forecasts: Sequence[Forecast]) -> bytes:
    from stanhop.forecasting.plots import forecast_plots  # matplotlib: only those who ask for plots wait for it

    return forecast_plots(list(zip(series, forecasts, strict=True)))


def _remove_if_unused(root: Path, *, with_root: bool) -> None:
    """Leave nothing behind where nothing could be done: take the lock away, and folders that are empty without it."""
    folder = root / FOLDER
    if [entry.name for entry in folder.iterdir()] == [LOCK]:
        remove_file(folder / LOCK)
        folder.rmdir()
        with suppress(OSError):  # it is not empty
            if with_root:
                root.rmdir()
