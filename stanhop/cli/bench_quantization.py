"""``stanhop bench quantization``: what quantising costs each method, on the same checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanhop.cli.layers import run_layers, topmost
from stanhop.cli.options import TRAIN_FLAGS, Assignments, Files, Flags, NoProgress, command
from stanhop.cli.output import Output
from stanhop.config import Layer, resolve
from stanhop.errors import Code, UsageError, quoted

if TYPE_CHECKING:
    from stanhop.benchmarks.quantization import Cell

app = typer.Typer()
TABLE = "quantization"
NONE = "none"
METHODS = "softmax,outeffhop,clipped_softmax,clipped_outeffhop,gated_softmax,gated_outeffhop,gsh,sparse_outeffhop"
BENCH_FLAGS = {key: names for key, names in TRAIN_FLAGS.items() if key != "train.seed"}


@command(app, flags=BENCH_FLAGS)
def quantization(
    data: Annotated[str, typer.Option("--data", help="A named data set, or a CSV or Parquet file.")] = "ETTh1",
    preset: Annotated[
        str | None, typer.Option("--preset", help="A preset by name or file, in place of the data set's own.")
    ] = None,
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="NAME,…", help="Separations; with gated_ in front also gated."),
    ] = METHODS,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,…", help="One training each.")] = "1,2,3",
    schemes: Annotated[
        str, typer.Option("--schemes", metavar="wNaM,…", help="Bits of weights and activations to simulate.")
    ] = "w8a8,w6a6,w4a8",
    backends: Annotated[
        str,
        typer.Option("--backends", metavar="NAME,…", help="Real int8 as `stanhop quantize` makes it; none for none."),
    ] = "dynamic,static",
    counted: Annotated[str, typer.Option("--outputs", help="Outputs whose outliers the table shows.")] = "all",
    folder: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where runs are kept; the same folder goes on.")
    ] = Path("runs/quantization"),
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FOLDER", help="Where the table goes; --output if not given.")
    ] = None,
    files: Files = None,
    assignments: Assignments = None,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Train methods and seeds, then quantise each checkpoint, simulated and for real: the paper's table, paired.

    What was done in the folder before is not done again, and a training that was stopped goes on.

    Example: stanhop bench quantization --methods softmax,outeffhop --seeds 1,2,3
    """
    from stanhop.benchmarks.machine import machine
    from stanhop.benchmarks.quantization import run_cells, step_times
    from stanhop.benchmarks.quantization_table import checkpoints, summary, to_markdown
    from stanhop.forecasting.forecaster import choose_device
    from stanhop.storage import write_text

    layers = run_layers(
        data=data, preset=preset, files=files or [], assignments=assignments or [], flags=flags, environment=os.environ
    )
    _check_outputs(counted, network=topmost("model.network", layers) or "stanhop")
    cells = _cells(layers, methods=methods, seeds=seeds, schemes=_schemes(schemes), backends=_backends(backends))

    def report(line: str) -> None:
        output.notes([line])

    measured = run_cells(cells, folder=folder, progress=output.is_human and not no_progress, report=report)
    steps = step_times(cells, folder=folder, report=report)
    rows = summary(measured, steps)
    chosen = "" if preset is None else f"--preset {preset} "
    command_line = (
        f"stanhop bench quantization --data {data} {chosen}--methods {methods} --seeds {seeds} --schemes {schemes} "
        f"--backends {backends}"
    )
    document = {
        "command": " ".join([command_line, *(f"--set {each}" for each in assignments or [])]),
        "machine": machine(choose_device(cells[0].config.train.device)),
        "rows": rows,
        "checkpoints": checkpoints(measured, steps),
    }
    target = results or folder
    markdown = to_markdown(rows, counted=counted)
    text = json.dumps(document, indent=2).replace("NaN", "null") + "\n"
    write_text(target / f"{TABLE}.json", text)
    write_text(target / f"{TABLE}.md", markdown)
    output.result({"table": target / f"{TABLE}.md", "rows": rows}, human=markdown.rstrip())


def _cells(
    layers: Sequence[Layer], *, methods: str, seeds: str, schemes: tuple[str, ...], backends: tuple[str, ...]
) -> list[Cell]:
    """A training for each method and seed, over ``layers``.

    Raises:
        UsageError: a list cannot be read, or names a method that does not exist.
        ConfigError: the network does not have a method.
    """
    from stanhop.benchmarks.quantization import Cell, method_settings

    settings = {method: method_settings(method) for method in _words(methods, option="--methods")}
    cells = []
    for seed, method in product(_numbers(seeds, option="--seeds"), settings):
        config = resolve([*layers, Layer("the grid", {"model": settings[method], "train": {"seed": seed}})])
        cells.append(Cell(method, config, schemes, backends))
    return cells


def _check_outputs(counted: str, *, network: str) -> None:
    from stanhop.quantization.outliers import COUNTED

    selections = [each for each in COUNTED if each != "decoder" or network != "stanhop"]  # ours has none
    if counted not in selections:
        raise UsageError(Code.USAGE, f"--outputs: {quoted(counted)} is none of {', '.join(selections)}")


def _schemes(text: str) -> tuple[str, ...]:
    """The bit widths in ``text``, all of which can be simulated."""
    from stanhop.quantization.simulate import Protocol

    words = tuple(_words(text, option="--schemes"))
    for word in words:
        Protocol.of(word)
    return words


def _backends(text: str) -> tuple[str, ...]:
    """The backends in ``text``, all of which this machine can make.

    Raises:
        UsageError: one is none.
        MachineError: ``onnx`` is asked for and its packages are not installed.
    """
    from stanhop.benchmarks.quantization import BACKENDS
    from stanhop.model.onnx import require_packages
    from stanhop.quantization.onnx import TO_WRITE

    words = tuple(_words(text, option="--backends"))
    if words == (NONE,):
        return ()
    for word in words:
        if word not in BACKENDS:
            problem = f"--backends: {quoted(word)} is none of {', '.join(BACKENDS)}"
            raise UsageError(Code.USAGE, problem, fix=f"write {NONE} for no real int8")
    if "onnx" in words:
        require_packages(TO_WRITE, what="writing ONNX")
    return words


def _words(text: str, *, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or len(set(words)) < len(words):
        raise UsageError(Code.USAGE, f"{option}: {quoted(text)} is no list of different names", fix="write them as a,b")
    return words


def _numbers(text: str, *, option: str) -> list[int]:
    words = _words(text, option=option)
    if not all(word.isdecimal() for word in words):
        raise UsageError(Code.USAGE, f"{option}: {quoted(text)} is no list of numbers", fix="write them as 1,2,3")
    return [int(word) for word in words]
