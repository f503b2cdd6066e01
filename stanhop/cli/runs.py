"""``stanhop runs``: find the runs of an experiment, show one, compare many, name the best, promote it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stanhop.cli.options import TRACKING_FLAGS, Flags, FlagTable, command
from stanhop.cli.output import Output, aligned, is_csv_printed
from stanhop.config import TrackingConfig, resolve
from stanhop.errors import Code, DataError, UsageError, quoted

if TYPE_CHECKING:
    from stanhop.forecasting.window_errors import WindowErrors
    from stanhop.tracking.search import Filter, RunRecord

app = typer.Typer(
    no_args_is_help=True, help="Find, compare and promote recorded runs. Example: stanhop runs list --data ETTh1"
)

STORE_FLAGS: FlagTable = {key: TRACKING_FLAGS[key] for key in ("tracking.uri", "tracking.experiment")}
LIST_METRICS = ("val/best_loss", "test/mse_scaled", "test/mae_scaled")
SHORT_ID = 12

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its name, its folder, or the beginning of its id.")]
RunArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Names, folders or beginnings of ids; all that the filters take if none."),
]
DataFilter = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Only runs on this data set.")]
PresetFilter = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Only runs that began with it.")]
SeparationFilter = Annotated[
    str | None, typer.Option("--separation", metavar="NAME", help="Only networks with this separation.")
]
TagFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="NAME=VALUE", help="Only runs with this tag; `stanhop.` may be left out; repeatable."
    ),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME", help="Which metrics, such as test/mse; repeatable.")
]
CsvFile = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Also write the table as CSV; - prints it instead.", show_default=False),
]


@command(app, name="list", flags=STORE_FLAGS)
def list_runs(
    data: DataFilter = None,
    preset: PresetFilter = None,
    separation: SeparationFilter = None,
    tags: TagFilter = None,
    status: Annotated[
        Literal["FINISHED", "FAILED", "KILLED", "RUNNING"] | None, typer.Option("--status", help="Only runs in it.")
    ] = None,
    metrics: Metrics = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="METRIC", help="Best first by this metric; else newest first.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Runs shown at most; 0 shows all.")] = 20,
    csv_file: CsvFile = None,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """List the runs of an experiment, newest first.

    Example: stanhop runs list --data ETTh1 --separation outeffhop --sort val/best_loss
    """
    from stanhop.tracking.search import find_runs

    chosen = filter_of(data, preset, separation, tags, status=status)
    found = find_runs(tracking_of(flags), folder=Path.cwd(), chosen=chosen)
    ordered = _sorted(found, sort) if sort else found
    shown = ordered[: limit or None]
    names = list(dict.fromkeys([*(metrics or LIST_METRICS), *([sort] if sort else [])]))
    heads = ["run", "id", "began", "status", "data", "horizon", "separation", "seed", *names]
    rows = [_listed(run, names) for run in shown]
    document = {"num_runs": len(found), "runs": [_as_plain(run) for run in shown]}
    more = f"\n\n{len(shown)} of {len(found):,} runs; --limit 0 shows all" if len(shown) < len(found) else ""
    if not is_csv_printed([heads, *rows], target=csv_file):
        output.result(document, human=(aligned([heads, *rows]) if rows else "no run is like that") + more)


@command(app, flags=STORE_FLAGS)
def show(name: RunArgument, *, flags: Flags, output: Output) -> None:
    """Show one run: what it was set to, what it reached, its tags, files and parts.

    Example: stanhop runs show ETTh1-1
    """
    from stanhop.tracking.search import DEFAULTS, children_of, find_runs, pick

    runs = find_runs(tracking_of(flags), folder=Path.cwd())
    run = pick(runs, name)
    parts = children_of(runs, run)
    changed = {key: value for key, value in run.params.items() if DEFAULTS.get(key) != value}
    files = _files(run)
    document = {**_as_plain(run), "differs_from_defaults": changed, "files": files, "children": [p.id for p in parts]}
    facts = [("run", run.name), ("id", run.id), ("status", run.status), ("began", _time(run.start_ms))]
    facts += [] if run.end_ms is None else [("took", f"{(run.end_ms - run.start_ms) / 1000:,.0f} s")]
    facts += [("files", run.artifact_uri)]
    sections = [
        aligned(facts),
        _section("what differs from the defaults", sorted(changed.items())),
        _section("metrics", [(key, f"{value:.6g}") for key, value in sorted(run.metrics.items())]),
        _section("tags", sorted((key, value) for key, value in run.tags.items() if not key.startswith("mlflow."))),
        _section("files", [(path,) for path in files]),
        _section("parts", [(part.name, part.id[:SHORT_ID], part.status) for part in parts]),
    ]
    output.result(document, human="\n\n".join(section for section in sections if section))


@command(app, flags=STORE_FLAGS)
def compare(
    names: RunArguments = None,
    data: DataFilter = None,
    preset: PresetFilter = None,
    separation: SeparationFilter = None,
    tags: TagFilter = None,
    metrics: Metrics = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="KEY=VALUE", help="The group to compare with, by its label; the best if not given."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", min=1, max=99.9, help="Of the intervals, in %.")] = 95,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, max=100_000, help="Draws of the bootstrap.")
    ] = 2_000,
    csv_file: CsvFile = None,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Group finished trainings by what differs, and say which is better, by how much, and how sure that is.

    Runs are compared that forecast the same windows: same data, split and horizon. Those that differ in their seed only
    are one group. Each difference has an interval from a paired bootstrap over test windows and over seeds.

    Example: stanhop runs compare --data ETTh1 --metric test/mse_scaled
    """
    from stanhop.cli.runs_tables import as_plain, comparison_text, csv_rows
    from stanhop.tracking.compare import DEFAULT_METRICS, Settings, compare_runs

    tracking = tracking_of(flags)
    runs = chosen_runs(tracking, names or [], filter_of(data, preset, separation, tags, is_fitted=True))
    settings = Settings(
        metrics=tuple(metrics or DEFAULT_METRICS),
        confidence=confidence / 100,
        num_resamples=resamples,
        reference=reference,
    )
    comparisons = compare_runs(runs, settings, load_errors=lambda run: window_errors(run, tracking))
    document = {"confidence": confidence / 100, "tasks": [as_plain(each) for each in comparisons]}
    if not is_csv_printed(csv_rows(comparisons), target=csv_file):
        texts = [comparison_text(each, confidence=confidence) for each in comparisons]
        output.result(document, human="\n\n\n".join(texts))


@command(app, flags=STORE_FLAGS)
def best(
    data: DataFilter = None,
    preset: PresetFilter = None,
    separation: SeparationFilter = None,
    tags: TagFilter = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="What decides; a test metric should decide nothing.")
    ] = "val/best_loss",
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Name the best finished training, by its validation loss if nothing else is asked for.

    Example: stanhop runs best --data ETTh1
    """
    from stanhop.tracking.compare import is_better
    from stanhop.tracking.search import find_runs

    chosen = filter_of(data, preset, separation, tags, is_fitted=True)
    runs = [run for run in find_runs(tracking_of(flags), folder=Path.cwd(), chosen=chosen) if metric in run.metrics]
    if not runs:
        fix = "`stanhop runs list` shows what there is"
        raise DataError(Code.TRACKING, f"no finished training has {quoted(metric)} {chosen}".rstrip(), fix=fix)
    winner = runs[0]
    for run in runs[1:]:
        if is_better(metric, run.metrics[metric], winner.metrics[metric]):
            winner = run
    if metric.startswith("val/") and len({run.setting("train.loss") for run in runs}) > 1:
        output.notes(["these runs minimise different losses, whose values say nothing about one another"])
    if len({(run.tags.get("stanhop.dataset"), run.setting("model.prediction_length")) for run in runs}) > 1:
        output.notes(["these runs are of different data sets or horizons; narrow them down with --data or --tag"])
    model = None if winner.artifact_path is None else winner.artifact_path / "model"
    document = {**_as_plain(winner), "metric": metric, "value": winner.metrics[metric], "model": model}
    facts = [
        (metric, f"{winner.metrics[metric]:.6g}, best of {len(runs):,}"),
        *_facts(winner),
        *([("model", model)] if model else []),
    ]
    output.result(document, human=aligned(facts))


@command(app, flags=STORE_FLAGS)
def promote(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Name, folder or beginning of the id of a training.")
    ] = None,
    alias: Annotated[
        Literal["champion", "challenger"], typer.Option("--alias", help="What it is to be.")
    ] = "challenger",
    model_name: Annotated[
        str | None, typer.Option("--name", metavar="MODEL", help="The registered model; stanhop-<data> if not given.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Promote this version of --name instead of a run.")
    ] = None,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Register the model directory of a training, if it is not yet, and make it the champion or the challenger.

    The alias moves: the version that had it keeps its number. MLflow finds it as models:/<name>@champion.

    Example: stanhop runs promote ETTh1-1 --alias champion
    """
    from stanhop.tracking.registry import model_name as name_for
    from stanhop.tracking.registry import promote as promote_run
    from stanhop.tracking.registry import promote_version
    from stanhop.tracking.search import find_runs, pick
    from stanhop.tracking.store import open_store

    if (name is None) == (version is None) or (version is not None and model_name is None):
        raise UsageError(Code.USAGE, "name a RUN, or --version with --name", fix="see stanhop runs promote --help")
    tracking = tracking_of(flags)
    run = None if name is None else pick(find_runs(tracking, folder=Path.cwd()), name)
    store = open_store(tracking, folder=Path.cwd(), is_required=True)
    assert store is not None
    if run is not None:
        done = promote_run(
            store, run, name=model_name or name_for(run.tags.get("stanhop.dataset", "model")), alias=alias
        )
    else:
        assert model_name is not None
        done = promote_version(store, name=model_name, version=str(version), alias=alias)
    before = "" if done.previous in (None, done.version) else f" (before: version {done.previous})"
    facts = [("model", f"{done.name}, version {done.version}"), (alias, f"{done.uri}{before}")]
    output.result({**asdict(done), "uri": done.uri}, human=aligned(facts))


def tracking_of(flags: Flags) -> TrackingConfig:
    """The store and experiment that flags and environment name."""
    import os

    from stanhop.config import environment_layers

    return resolve([*environment_layers(os.environ), *flags]).tracking


def filter_of(
    data: str | None,
    preset: str | None,
    separation: str | None,
    tags: Sequence[str] | None,
    *,
    status: str | None = None,
    is_fitted: bool = False,
) -> Filter:
    """The filter that options ask for.

    Raises:
        UsageError: a tag is no ``NAME=VALUE``.
    """
    from stanhop.tracking.search import Filter

    parts = [tag.partition("=") for tag in tags or []]
    for text, (name, equals, _) in zip(tags or [], parts, strict=True):
        if not name or not equals:
            raise UsageError(Code.USAGE, f"--tag {quoted(text)} is no NAME=VALUE", fix="write --tag seed=1")
    wanted = {name: value for name, _, value in parts}
    return Filter(data, preset, separation, wanted, status=status, is_fitted=is_fitted)


def chosen_runs(tracking: TrackingConfig, names: Sequence[str], chosen: Filter) -> list[RunRecord]:
    """The finished trainings that are named, or that the filter takes.

    Raises:
        DataError: a run that is named is none, or nothing is left.
    """
    from stanhop.tracking.search import children_of, find_runs, pick

    if not names:
        runs = find_runs(tracking, folder=Path.cwd(), chosen=chosen)
    else:
        everything = find_runs(tracking, folder=Path.cwd())
        named = [pick(everything, name) for name in names]
        expanded = [each for run in named for each in (children_of(everything, run) or [run])]
        unfit = [run for run in expanded if not run.is_fitted]
        if unfit and len(unfit) == len(expanded):
            raise DataError(Code.TRACKING, f"run {quoted(unfit[0].name)} is no finished training")
        runs = [run for run in {run.id: run for run in expanded}.values() if chosen.takes(run)]
    if not runs:
        fix = "`stanhop runs list` shows what there is"
        raise DataError(Code.TRACKING, f"no finished training to compare {chosen}".rstrip(), fix=fix)
    return runs


def window_errors(run: RunRecord, tracking: TrackingConfig) -> WindowErrors | None:
    """The errors of a run by test window; None if it keeps none."""
    from stanhop.forecasting.window_errors import WindowErrors
    from stanhop.tracking.artifacts import artifact
    from stanhop.tracking.names import WINDOW_ERRORS

    with artifact(run, WINDOW_ERRORS, tracking, folder=Path.cwd()) as path:
        return None if path is None else WindowErrors.from_bytes(path.read_bytes(), file=str(path))


def _sorted(runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
    """Best first; runs without the metric last."""
    from stanhop.tracking.compare import HIGHER_IS_BETTER

    sign = -1 if metric.endswith(HIGHER_IS_BETTER) else 1
    values = [run.metrics.get(metric, math.nan) for run in runs]
    places = sorted(range(len(runs)), key=lambda place: (math.isnan(values[place]), sign * values[place]))
    return [runs[place] for place in places]


def _listed(run: RunRecord, metrics: Sequence[str]) -> list[str]:
    values = [f"{run.metrics[name]:.5g}" if name in run.metrics else "" for name in metrics]
    tag = run.tags.get
    return [
        run.name,
        run.id[:SHORT_ID],
        _time(run.start_ms),
        run.status.lower(),
        tag("stanhop.dataset", ""),
        run.params.get("model.prediction_length", ""),
        tag("stanhop.separation", tag("stanhop.baseline", "")),
        tag("stanhop.seed", ""),
        *values,
    ]


def _facts(run: RunRecord) -> list[tuple[str, Any]]:
    horizon = run.setting("model.prediction_length")
    data = run.tags.get("stanhop.dataset", "")
    return [
        ("run", run.name),
        ("MLflow", run.id),
        ("data", f"{data}, {horizon} steps"),
        ("separation", run.setting("model.separation")),
    ]


def _as_plain(run: RunRecord) -> dict[str, Any]:
    return asdict(run)


def _files(run: RunRecord) -> list[str]:
    folder = run.artifact_path
    if folder is None or not folder.is_dir():
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _section(title: str, rows: Sequence[Sequence[object]]) -> str:
    return f"{title}\n{aligned(rows, indent='  ')}" if rows else ""


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
