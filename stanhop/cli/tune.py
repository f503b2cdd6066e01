"""``stanhop tune``: a better configuration by its validation loss, as a preset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanhop.cli.layers import require_data, run_layers
from stanhop.cli.options import READ_FLAGS, TRAIN_FLAGS, Assignments, Files, Flags, NoProgress, command
from stanhop.cli.output import Output, aligned
from stanhop.cli.train import RUNS, Data, Preset, folder_name
from stanhop.config import resolve

if TYPE_CHECKING:
    from stanhop.tuning.study import SearchResult, TrialResult

app = typer.Typer()

FLAGS = {
    key: names
    for key, names in (TRAIN_FLAGS | READ_FLAGS).items()
    if key not in ("train.devices", "train.strategy")  # a search trains on one device
}


@command(app, flags=FLAGS)
def tune(
    data: Data = None,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            metavar="FILE",
            help="What varies: a YAML file with {low, high, log, step} or {choices} behind each key.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all; a search that is there goes on.")] = 30,
    timeout_min: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="MINUTES", help="Begin no trial after so long.")
    ] = None,
    preset: Preset = None,
    files: Files = None,
    assignments: Assignments = None,
    folder: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="The search's folder; runs/tune-<data> if not given."),
    ] = None,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Search for a configuration with a lower validation loss, and write it as a preset.

    The same command goes on where it was stopped; --trials counts those that are done. Weak trials are cut short. The
    test rows are not looked at: train with the preset to measure it once. Needs the extra: tune.

    Example: stanhop tune --data ETTh1 --trials 40

    Example: stanhop tune --data sales.csv --space space.yaml --epochs 3
    """
    layers = run_layers(
        data=data,
        preset=preset,
        files=files or [],
        assignments=assignments or [],
        flags=flags,
        environment=os.environ,
    )
    require_data(layers)
    config = resolve(layers)
    from stanhop.tuning.space import DEFAULT_SPACE, read_space

    dimensions = read_space(space or DEFAULT_SPACE)
    from stanhop.tuning.study import require_optuna, search

    require_optuna()
    folder = folder or RUNS / f"tune-{folder_name(config.data.source)}"

    def report(trial: TrialResult, best: TrialResult, num_done: int) -> None:
        if output.is_human and not no_progress:
            output.notes([f"trial {num_done} of {trials}: {_line(trial, best)}"])

    timeout_s = None if timeout_min is None else 60 * timeout_min
    result = search(config, dimensions, folder=folder, num_trials=trials, timeout_s=timeout_s, report=report)
    _print_result(result, config.data.source, output)


def _line(trial: TrialResult, best: TrialResult) -> str:
    loss = "failed" if trial.loss is None else f"{trial.loss:.5f}"
    how = {"complete": "", "pruned": " (cut short)", "failed": f" ({trial.problem})"}[trial.state]
    values = ", ".join(f"{key.split('.')[-1]}={_short(value)}" for key, value in trial.values.items())
    return f"{loss}{how}, best {best.loss:.5f}; {values}"


def _print_result(result: SearchResult, source: str, output: Output) -> None:
    best = result.best
    counts = {"complete": result.num_complete, "pruned": result.num_pruned, "failed": result.num_failed}
    document = {
        "best_loss": best.loss,
        "start_loss": result.start_loss,
        "best": dict(best.values),
        "trials": counts,
        "preset": result.best_path,
        "output": result.folder,
        "run_id": result.run_id,
    }
    start = "" if result.start_loss is None else f" (at the start {result.start_loss:.6g})"
    facts = [
        ("validation loss", f"{best.loss:.6g}{start}"),
        *((key, _short(value)) for key, value in best.values.items()),
        ("trials", ", ".join(f"{count} {state}" for state, count in counts.items() if count)),
        *([("MLflow", result.run_id)] if result.run_id else []),
        ("preset", result.best_path),
        ("next", f"stanhop train --data {source} -c {result.best_path}"),
    ]
    output.result(document, human=aligned(facts))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
