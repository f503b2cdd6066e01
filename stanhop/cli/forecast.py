"""``stanhop forecast``: what follows each table, from a model directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stanhop.cli.options import (
    READ_FLAGS,
    BatchSize,
    Device,
    Flags,
    Levels,
    Model,
    NoProgress,
    Overwrite,
    command,
    parse_levels,
)
from stanhop.cli.output import Output
from stanhop.config import Layer, resolve

if TYPE_CHECKING:
    from stanhop.forecasting.batch import BatchResult

app = typer.Typer()

Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="FILE|FOLDER|GLOB", help="A CSV or Parquet file, a folder or pattern; repeatable."),
]
MoreInputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE]...", help="Further inputs: what a shell makes of an unquoted pattern."),
]
Target = Annotated[
    Path,
    typer.Option("--output", metavar="FOLDER|FILE", help="A folder; or, for one input, a .csv or .parquet file."),
]
TableFormat = Annotated[
    Literal["csv", "parquet"] | None,
    typer.Option("--format-out", help="What to write; the inputs' own format if not given.", show_default=False),
]


@command(app, flags=READ_FLAGS)
def forecast(
    model: Model,
    target: Target,
    inputs: Input = None,
    more_inputs: MoreInputs = None,
    table_format: TableFormat = None,
    levels: Levels = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw history and forecast beside each table.")] = False,
    raw_ids: Annotated[bool, typer.Option("--raw-ids", help="Keep text that spreadsheets take for formulas.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    is_compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch compile the network first: minutes, then faster.")
    ] = False,
    num_jobs: Annotated[
        int,
        typer.Option("--jobs", min=1, help="Files forecast at the same time, each by a process with its own threads."),
    ] = 1,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Forecast what follows each table, in original units, and write one table for each.

    With --levels, bounds of prediction intervals stand beside each forecast, in columns such as HUFL-lo-80. Sound
    forecasts of an earlier, interrupted call are kept. Refused inputs are listed in errors.csv (exit code 3).
    --jobs changes no byte; each job has as many threads as one alone (OMP_NUM_THREADS=1 leaves a core to each).

    Example: stanhop forecast --model runs/ETTh1-1/model --input new/ --output forecasts/ --plot
    """
    from stanhop.forecasting.batch import RefusedInputsError, forecast_files
    from stanhop.forecasting.bundle import load_bundle

    bundle = load_bundle(model)
    reading = resolve([Layer(str(model), {"data": bundle.config.data.model_dump(mode="json")}), *flags]).data
    with _Progress(output, is_shown=not no_progress) as progress:
        try:
            result = forecast_files(
                bundle,
                [*(inputs or []), *(more_inputs or [])],
                target,
                data=reading,
                table_format=table_format,
                raw_ids=raw_ids,
                plot=plot,
                overwrite=overwrite,
                device=device,
                batch_size=batch_size,
                is_compiled=is_compiled,
                levels=parse_levels(levels),
                num_jobs=num_jobs,
                progress=progress.advance,
            )
        except RefusedInputsError as error:
            _print(error.result, output)
            raise
    _print(result, output)


class _Progress:
    """A bar on standard error while a batch runs; what is worth knowing about the inputs, after it."""

    def __init__(self, output: Output, *, is_shown: bool) -> None:
        self._output = output
        self._is_shown = is_shown and output.is_human and sys.stderr.isatty()
        self._notes: list[str] = []
        self._bar: Any = None  # tqdm has no types

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._output.notes(self._notes)

    def advance(self, event: Any) -> None:
        """One input is done."""
        if (event.outcome == "refused") == (
            event.total > 1
        ):  # the refusal of a single input is the command's own error
            self._notes += event.notes
        if self._is_shown:
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=event.total, unit="file", file=sys.stderr, leave=False)
            self._bar.update()


def _print(result: BatchResult, output: Output) -> None:
    refused = [
        {
            "file": refusal.source.path,
            "line": refusal.error.line,
            "column": refusal.error.column,
            "code": str(refusal.error.code),
            "problem": refusal.error.problem,
            "hint": refusal.error.fix,
        }
        for refusal in result.refused
    ]
    lines = [*(f"{path}" for path in result.written), *(f"{path} (was there already)" for path in result.skipped)]
    document = {"written": result.written, "skipped": result.skipped, "refused": refused}
    output.result(document, human="\n".join(lines))
