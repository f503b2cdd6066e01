"""``stanhop train``: from data to a model directory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanhop.cli.layers import SYNTHETIC, preset_of, require_data, run_layers
from stanhop.cli.options import (
    READ_FLAGS,
    TRAIN_FLAGS,
    Assignments,
    Files,
    Flags,
    NoProgress,
    Overwrite,
    command,
)
from stanhop.cli.output import Output, aligned, metric_lines
from stanhop.config import Layer, RunConfig, flatten, origin_of_keys, resolve
from stanhop.errors import Code, ModelError, quoted
from stanhop.storage import safe_name

if TYPE_CHECKING:
    from stanhop.training.outcome import FitResult

app = typer.Typer()

RUNS = Path("runs")
RUN_CONFIG = "config.yaml"
ALL_ROWS = Layer("--all-rows", {"data": {"split": {"train": 0.9, "validation": 0.1, "test": 0.0}}})
"""What ``--all-rows`` stands for."""
RUN_PATH_VARIABLE = "STANHOP_RUN_PATH"
"""How the processes that share the work of one training learn which folder the first of them chose."""

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|FILE", help="A named data set, or a CSV or Parquet file."),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME|FILE", help="A preset; the one made for the data set if not given."),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help="The run's folder; runs/<data>-<number> if not given."),
]


@command(app, flags=TRAIN_FLAGS | READ_FLAGS)
def train(
    data: Data = None,
    preset: Preset = None,
    files: Files = None,
    assignments: Assignments = None,
    run_path: RunFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output, or the last one of these data.")
    ] = False,
    strict_resume: Annotated[
        bool,
        typer.Option("--strict-resume", help="Resume, but not where last bits may differ (threads, versions)."),
    ] = False,
    overwrite: Overwrite = False,
    all_rows: Annotated[
        bool,
        typer.Option("--all-rows", help="Learn from the newest rows too: 90 % to train on, 10 % to validate, no test."),
    ] = False,
    require_tracking: Annotated[
        bool, typer.Option("--require-tracking", help="Do not train without the tracking server (exit code 4).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read and written.")] = False,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Fit a model, measure it once on the test rows, log the run, and print where its model directory went.

    Example: stanhop train --data ETTh1

    Example: stanhop train --data sales.csv --all-rows --output final

    Example: stanhop train --data sales.csv --prediction-length 48 --set model.num_heads=8
    """
    if (resume or strict_resume) and data is None and not (preset or files) and run_path is not None:
        files = [path for path in [run_path / RUN_CONFIG] if path.exists()]
    layers = run_layers(
        data=data,
        preset=preset,
        files=files or [],
        assignments=assignments or [],
        flags=[*([ALL_ROWS] if all_rows else []), *flags],
        environment=os.environ,
    )
    require_data(layers)
    config = resolve(layers)
    run_path = run_path or _default_run_path(config.data.source, resume=resume or strict_resume)
    if dry_run:
        _print_plan(config, layers, run_path, output)
        return
    from stanhop.training.fit import fit  # torch, Lightning, MLflow: --help must not pay for them

    os.environ[RUN_PATH_VARIABLE] = str(run_path)
    shows_progress = output.is_human and not no_progress
    result = fit(
        config,
        run_path=run_path,
        resume=resume or strict_resume,
        overwrite=overwrite,
        progress=shows_progress,
        require_tracking=require_tracking,
        strict_resume=strict_resume,
        preset=preset_of(layers),
    )
    _print_result(result, output)


def folder_name(source: str) -> str:
    """What folders of runs on ``source`` begin with: its name, made safe where that is no plain word."""
    stem = Path(source).stem or source
    return stem if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", stem) else safe_name(stem)


def _default_run_path(source: str, *, resume: bool) -> Path:
    """The first of ``runs/<data>-1``, ``-2``, … that is free; to resume, the last that is not."""
    if os.environ.get("LOCAL_RANK", "0") != "0":  # Lightning runs this command line again, once a further device
        return Path(os.environ[RUN_PATH_VARIABLE])
    name = folder_name(source)
    number = 1
    while os.path.lexists(RUNS / f"{name}-{number}"):
        number += 1
    if not resume:
        return RUNS / f"{name}-{number}"
    if number == 1:
        fix = "name the run's folder with --output"
        raise ModelError(Code.CHECKPOINT, f"there is no run of {quoted(source)} to go on with", fix=fix, file=RUNS)
    return RUNS / f"{name}-{number - 1}"


def _print_plan(config: RunConfig, layers: Sequence[Layer], run_path: Path, output: Output) -> None:
    values, origins = flatten(config.model_dump(mode="json")), origin_of_keys(layers)
    source = _place_of(config.data.source)
    document = {"reads": source, "writes": run_path, "config": values}
    rows = [(key, json.dumps(value, ensure_ascii=False), origins[key]) for key, value in values.items()]
    output.result(document, human=f"{aligned(rows)}\n\nreads   {source}\nwrites  {run_path}")


def _place_of(source: str) -> str:
    """Where the data would come from."""
    from stanhop.series import catalog

    if source == SYNTHETIC:
        return "nothing: synthetic is built in"
    if source not in catalog.data_sets():
        return source
    data_set = catalog.data_sets()[source]
    return str(catalog.locate(data_set) or data_set.url)


def _print_result(result: FitResult, output: Output) -> None:
    if result.was_complete:
        output.notes([f"{result.run_path} was complete already; nothing was done"])
    test = {name.removeprefix("test/"): value for name, value in result.metrics.items() if name.startswith("test/")}
    document = {
        "model": result.model_path,
        "run": result.run_path,
        "run_id": result.run_id,
        "num_epochs": result.num_epochs,
        "best_epoch": result.best_epoch,
        "test": test,
        "metrics": result.metrics,
    }
    facts = [
        ("epochs", f"{result.num_epochs}, the best was {result.best_epoch}"),
        ("run", result.run_path),
        *([("MLflow", result.run_id)] if result.run_id else []),
        ("model", result.model_path),
    ]
    measured = metric_lines(test) if test else "no rows were kept for the test: nothing tells how good this model is"
    output.result(document, human=f"{measured}\n\n{aligned(facts)}")
