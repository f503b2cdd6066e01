"""``stanhop report``: runs on one HTML page that needs nothing else."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from stanhop.cli.options import Flags, NoProgress, Overwrite, command
from stanhop.cli.output import Output, aligned
from stanhop.cli.runs import (
    STORE_FLAGS,
    DataFilter,
    PresetFilter,
    SeparationFilter,
    TagFilter,
    chosen_runs,
    filter_of,
    tracking_of,
    window_errors,
)
from stanhop.errors import Code, DataError

app = typer.Typer()

REPORT = "report.html"
MOST_RUNS = 24


@command(app, flags=STORE_FLAGS)
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Names, folders or beginnings of ids; all that the filters take if none."
        ),
    ] = None,
    data: DataFilter = None,
    preset: PresetFilter = None,
    separation: SeparationFilter = None,
    tags: TagFilter = None,
    file: Annotated[Path, typer.Option("--output", metavar="FILE", help="Where the page goes.")] = Path(REPORT),
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME|FILE", help="Where the data are now, if they were moved.", show_default=False
        ),
    ] = None,
    origins: Annotated[int, typer.Option("--origins", min=1, max=6, help="Forecasts shown of each run.")] = 3,
    title: Annotated[str | None, typer.Option("--title", help="Heading of the page.", show_default=False)] = None,
    overwrite: Overwrite = False,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Put finished trainings on one HTML page: what differs, metrics, forecasts, residuals, layers, training, data.

    The page needs no network and follows the light or dark of its reader. It is also kept with each run in MLflow.

    Example: stanhop report ETTh1-1

    Example: stanhop report --data ETTh1 --separation gsh --output gsh.html
    """
    from stanhop.report.contents import collect
    from stanhop.report.page import MOST_DETAILED, render
    from stanhop.storage import refuse_existing, write_text
    from stanhop.tracking.compare import Settings, compare_runs
    from stanhop.tracking.run import TrackedRun
    from stanhop.tracking.store import open_store

    if not overwrite:
        refuse_existing(file)
    tracking = tracking_of(flags)
    runs = chosen_runs(tracking, names or [], filter_of(data, preset, separation, tags, is_fitted=True))
    if len(runs) > MOST_RUNS:
        fix = "name the runs, or narrow them down with --data, --separation or --tag"
        raise DataError(Code.TRACKING, f"{len(runs):,} runs are too many for one page (at most {MOST_RUNS})", fix=fix)

    def progress(line: str) -> None:
        if output.is_human and not no_progress:
            output.notes([line])

    comparisons = compare_runs(runs, Settings(), load_errors=lambda run: window_errors(run, tracking))
    in_order = [run for task in comparisons for group in task.groups for run in group.runs]
    contents = [
        collect(run, tracking, folder=Path.cwd(), source=source, num_origins=origins, report=progress)
        if number < MOST_DETAILED
        else collect(run, tracking, folder=Path.cwd(), source=source, num_origins=0)
        for number, run in enumerate(in_order)
    ]
    for each in contents:
        output.notes(f"{each.run.name}: {problem}" for problem in each.problems)
    heading = title or _title([run.name for run in in_order], comparisons[0].dataset)
    page = render(contents, comparisons, made_at=f"{datetime.now():%Y-%m-%d %H:%M}", title=heading)
    write_text(file, page)
    store = open_store(tracking, folder=Path.cwd(), is_required=True)
    for run in in_order:
        TrackedRun(store, run.id).log_content(REPORT, page.encode())
    document = {"report": file, "run_ids": [run.id for run in in_order], "num_bytes": len(page.encode())}
    facts = [("report", file), ("runs", ", ".join(run.name for run in in_order)), ("MLflow", f"{REPORT} of each run")]
    output.result(document, human=aligned(facts))


def _title(names: list[str], dataset: str) -> str:
    return f"{names[0]}: forecasts of {dataset}" if len(names) == 1 else f"{len(names)} runs on {dataset}"
