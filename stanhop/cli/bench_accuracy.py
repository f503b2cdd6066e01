"""``stanhop bench accuracy``: a grid of trainings and baselines, and the table they end in."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Annotated

import typer

from stanhop.cli.layers import preset_of, run_layers
from stanhop.cli.options import Assignments, Files, Flags, FlagTable, NoProgress, command
from stanhop.cli.output import Output
from stanhop.config import Layer, flatten, resolve
from stanhop.errors import Code, UsageError, quoted

app = typer.Typer()

FLAGS: FlagTable = {
    "train.max_epochs": ("--epochs",),
    "train.device": ("--device",),
    "tracking.enabled": ("--tracking/--no-tracking",),
    "tracking.uri": ("--tracking-uri",),
    "tracking.experiment": ("--experiment",),
}
GATED = "gated_"
NONE = "none"
DEFAULT_SEPARATION = "outeffhop"
TABLE = "accuracy"

Names = Annotated[str, typer.Option("--data", metavar="NAME[,NAME]...", help="Named data sets, or files.")]
Horizons = Annotated[
    str, typer.Option("--prediction-length", "--horizon", metavar="STEPS[,STEPS]...", help="Steps to forecast.")
]
Separations = Annotated[
    str,
    typer.Option(
        "--separations",
        metavar="NAME[,NAME]...",
        help="How scores become weights; gated_ before a name gates the heads as well. None trains no network.",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="SEED[,SEED]...", help="A training for each.")]
Baselines = Annotated[
    str,
    typer.Option("--baselines", metavar="NAME[,NAME]...", help="Forecasters of sktime to measure as well, or none."),
]
Stride = Annotated[
    int, typer.Option("--stride", min=1, help="Measure naive, seasonal_naive and theta on each n-th test window.")
]


@command(app, flags=FLAGS)
def accuracy(
    data: Names = "ETTh1",
    horizons: Horizons = "24",
    separations: Separations = DEFAULT_SEPARATION,
    seeds: Seeds = "1,2,3",
    baselines: Baselines = "naive,seasonal_naive,theta,dlinear,nlinear",
    stride: Stride = 25,
    folder: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where runs are kept; the same folder goes on.")
    ] = Path("runs/accuracy"),
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
    """Train a grid of data sets, horizons, separations and seeds, measure baselines, and write the table.

    Each data set has its preset, with what the one for the horizon changes. Of our networks the table has outliers over
    all outputs (as `stanhop outliers`) and the time of a training step too. What was done in the folder before is not
    done again; until all is done, `so-far.md` there has the table of what is.

    Example: stanhop bench accuracy --data ETTh1,WTH --prediction-length 24,48 --seeds 1,2,3

    Example: stanhop bench accuracy --separations softmax,gsh,outeffhop,gated_outeffhop --baselines none

    Example: stanhop bench accuracy --separations none --baselines naive,theta
    """
    names = [] if baselines == NONE else _words(baselines, option="--baselines")
    trains_networks = separations != NONE
    if not (names or trains_networks):
        problem = "--separations and --baselines are both none: there is nothing to measure"
        raise UsageError(Code.USAGE, problem, fix="leave one of them out")
    grid = [
        (separation, _layers(source, horizon, separation, seed, files or [], assignments or [], flags))
        for source, horizon, separation, seed in product(
            _words(data, option="--data"),
            _numbers(horizons, option="--prediction-length"),
            _words(separations, option="--separations") if trains_networks else [DEFAULT_SEPARATION],
            _numbers(seeds, option="--seeds"),
        )
    ]
    configs = [resolve(layers) for _, layers in grid]
    from stanhop.benchmarks.accuracy import (
        SO_FAR,
        Cell,
        run_grid,
    )  # torch, Lightning, sktime: --help must not pay for them
    from stanhop.benchmarks.baselines import find_baseline
    from stanhop.benchmarks.table import document_of, rows_of, to_markdown
    from stanhop.storage import remove_file, write_text

    cells = [
        Cell(separation, config, preset=preset_of(layers))
        for (separation, layers), config in zip(grid, configs, strict=True)
    ]
    measured = run_grid(
        cells,
        [find_baseline(name) for name in names],
        folder=folder,
        stride=stride,
        trains_networks=trains_networks,
        tracking=cells[0].config.tracking,
        progress=output.is_human and not no_progress,
        report=lambda line: output.notes([line]),
    )
    options = {"--data": data, "--prediction-length": horizons, "--separations": separations, "--seeds": seeds}
    options |= {"--baselines": baselines, "--stride": str(stride)}
    document = document_of(measured, command=_call(options, files or [], assignments or [], flags))
    markdown = to_markdown(rows_of(measured))
    target = results or folder
    write_text(target / f"{TABLE}.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_text(target / f"{TABLE}.md", markdown)
    remove_file(folder / SO_FAR)
    output.result({"table": target / f"{TABLE}.md", "rows": document["rows"]}, human=markdown.rstrip())


def _layers(
    source: str,
    horizon: int,
    separation: str,
    seed: int,
    files: Sequence[Path],
    assignments: Sequence[str],
    flags: Sequence[Layer],
) -> list[Layer]:
    model = {"prediction_length": horizon, "separation": separation.removeprefix(GATED)}
    gate = {"gate": True} if separation.startswith(GATED) else {}
    grid = Layer("the grid", {"model": {**model, **gate}, "train": {"seed": seed}})
    return run_layers(
        data=source,
        preset=None,
        files=files,
        assignments=assignments,
        flags=[*flags, grid],
        environment=os.environ,
    )


def _call(options: Mapping[str, str], files: Sequence[Path], assignments: Sequence[str], flags: Sequence[Layer]) -> str:
    """The command line that measures the same again."""
    given = [(layer.origin, str(value)) for layer in flags for value in flatten(layer.values).values()]
    words = [
        *options.items(),
        *(("-c", str(file)) for file in files),
        *(("--set", assignment) for assignment in assignments),
        *(option for option in given if option[0] in ("--epochs", "--device")),
    ]
    return shlex.join(["stanhop", "bench", "accuracy", *chain(*words)])


def _words(text: str, *, option: str) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(words):
        raise UsageError(Code.USAGE, f"{option} {quoted(text)} has an empty name", fix="write NAME,NAME,…")
    return words


def _numbers(text: str, *, option: str) -> list[int]:
    words = _words(text, option=option)
    if not all(re.fullmatch(r"\d{1,9}", word) for word in words):
        raise UsageError(Code.USAGE, f"{option} {quoted(text)} is not whole numbers", fix="write 24,48,…")
    return [int(word) for word in words]
