"""``stanhop backtest``: how a network and simpler forecasters would have done at the last windows of the data."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanhop.cli.layers import preset_of, require_data, run_layers
from stanhop.cli.options import READ_FLAGS, TRAIN_FLAGS, Assignments, Files, Flags, NoProgress, command
from stanhop.cli.output import Output
from stanhop.config import resolve
from stanhop.errors import Code, UsageError, quoted

if TYPE_CHECKING:
    from stanhop.benchmarks.backtest import Backtest
    from stanhop.benchmarks.backtest_scores import Scores

app = typer.Typer()

NO_BASELINES = "none"
EVERY = "every"
SCORES, FORECASTS, TABLE, PLOT, DOCUMENT = "scores.csv", "forecasts.csv", "backtest.md", "backtest.png", "backtest.json"

Data = Annotated[
    str | None, typer.Option("--data", metavar="NAME|FILE", help="A named data set, or a CSV or Parquet file.")
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME|FILE", help="A preset; the one made for the data set if not given."),
]
Windows = Annotated[int, typer.Option("--windows", min=1, help="Windows to forecast; the last one ends with the data.")]
Step = Annotated[
    int | None, typer.Option("--step", min=1, help="Rows from one window to the next; the horizon if not given.")
]
Refit = Annotated[
    tuple[str, int],
    typer.Option("--refit", metavar="every K", help="Train anew before every K-th window; once if not given."),
]
Baselines = Annotated[
    str, typer.Option("--baselines", metavar="NAME[,NAME]...", help="Forecasters of sktime to compare with, or none.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help="Where all is kept; the same folder goes on where it stopped."),
]


@command(app, flags=TRAIN_FLAGS | READ_FLAGS)
def backtest(
    data: Data = None,
    num_windows: Windows = 10,
    step: Step = None,
    refit: Refit = (EVERY, 0),
    baselines: Baselines = "naive,seasonal_naive,theta,dlinear",
    preset: Preset = None,
    files: Files = None,
    assignments: Assignments = None,
    folder: Folder = None,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Forecast the last windows of the data by what was known before each, with a network and with simpler forecasters.

    The network is trained on the rows before the first window, and with --refit again later on. What was done in the
    folder before is not done again. Errors are in units of each channel's deviation before the first window.

    Example: stanhop backtest --data sales.csv --windows 12 --refit every 4 --prediction-length 24
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
    refit_every = _refit_every(refit)
    config = resolve(layers)
    from stanhop.benchmarks.backtest import BacktestTask  # torch, Lightning, sktime: --help must not pay for them
    from stanhop.benchmarks.backtest import backtest as run_backtest
    from stanhop.benchmarks.backtest_scores import scores_of
    from stanhop.benchmarks.baselines import find_baseline

    names = [] if baselines == NO_BASELINES else [name.strip() for name in baselines.split(",")]
    target = folder or Path("runs") / f"backtest-{Path(config.data.source).stem}"
    task = BacktestTask(
        config=config,
        baselines=[find_baseline(name) for name in dict.fromkeys(names)],
        num_windows=num_windows,
        step=step,
        refit_every=refit_every,
        folder=target,
        preset=preset_of(layers),
    )
    found = run_backtest(task, progress=output.is_human and not no_progress, report=lambda line: output.notes([line]))
    _answer(found, scores_of(found), target, output)


def _refit_every(refit: tuple[str, int]) -> int | None:
    """The K of ``--refit every K``; None where the option was not given."""
    word, count = refit
    if (word, count) == (EVERY, 0):
        return None
    if word != EVERY or count < 1:
        problem = f"--refit {quoted(f'{word} {count}')} does not say after how many windows"
        raise UsageError(Code.USAGE, problem, fix="write --refit every 4")
    return count


def _answer(found: Backtest, scores: list[Scores], folder: Path, output: Output) -> None:
    """Write the files and print the table."""
    from stanhop.benchmarks.backtest_scores import error_plot, forecasts_csv, scores_csv, to_markdown
    from stanhop.storage import write_bytes, write_text

    markdown = to_markdown(scores)
    document: dict[str, Any] = {
        "windows": len(found.origins),
        "trainings": len(found.folds),
        "cutoffs": [time.isoformat(sep=" ") for time in found.cutoffs],
        "forecasters": [
            {
                "forecaster": each.forecaster,
                **{key: value if math.isfinite(value) else None for key, value in each.metrics.items()},
                "mae_by_window": each.mae_by_window,
                "seconds": each.seconds,
            }
            for each in scores
        ],
        **{name: folder / file for name, file in (("scores", SCORES), ("forecasts", FORECASTS), ("plot", PLOT))},
    }
    write_bytes(folder / SCORES, scores_csv(scores))
    write_bytes(folder / FORECASTS, forecasts_csv(found))
    write_bytes(folder / PLOT, error_plot(found, scores))
    write_text(folder / TABLE, markdown)
    write_text(folder / DOCUMENT, json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")
    facts = (
        f"{len(found.origins)} windows of {found.targets.shape[2]} steps, {len(found.folds)} trainings, "
        f"cutoffs {found.cutoffs[0]} to {found.cutoffs[-1]}\n"
        f"MAE (mean and deviation over windows) and MSE in units of each channel's deviation; skill against seasonal "
        f"naive; wins: windows in which none was better\n\n{folder / PLOT}\n{folder / FORECASTS}"
    )
    output.result(document, human=f"{markdown}\n{facts}")
