"""``stanhop outliers``: how far the activations of a model stand out, module by module."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanhop.cli.layers import config_for_data
from stanhop.cli.options import (
    READ_FLAGS,
    TRACKING_FLAGS,
    BatchSize,
    Flags,
    Model,
    NoProgress,
    Overwrite,
    command,
)
from stanhop.cli.output import Output, aligned, counting_bar
from stanhop.errors import Code, UsageError

if TYPE_CHECKING:
    from stanhop.quantization.outliers import Counted, OutlierReport

app = typer.Typer()
JSON_NAME, PLOT_NAME = "outliers.json", "outliers.png"

MeasuredData = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|FILE", help="A named data set, or a file; the model's own if not given."),
]
CountedOutputs = Annotated[
    Literal["blocks", "feedforward", "norms", "decoder", "all"],
    typer.Option(
        "--outputs",
        help="Which outputs the table shows: tandem blocks, feed-forward parts, LayerNorms, decoder layers (which "
        "published networks have), all modules.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help=f"Write {JSON_NAME} and {PLOT_NAME} there.", show_default=False),
]


@command(app, flags=READ_FLAGS | TRACKING_FLAGS)
def outliers(
    model: Model,
    data: MeasuredData = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option("--split", help="Whose windows to send through the model.")
    ] = "test",
    counted: CountedOutputs = "all",
    folder: ReportFolder = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = 32,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Measure the outliers of activations: average kurtosis and maximum inf-norm, as the OutEffHop paper does.

    A Gaussian has kurtosis 3. The published formula, whose constant 1e-6 crushes outputs of small scale, and one that
    does not depend on scale stand side by side. One MLflow run records the figures, the table and the plot.

    Example: stanhop outliers --model runs/ETTh1-1/model --outputs blocks
    """
    from stanhop.forecasting.bundle import load_bundle
    from stanhop.quantization.outliers import measure_outliers
    from stanhop.quantization.plots import outlier_plot
    from stanhop.quantization.windows import num_contexts, split_contexts
    from stanhop.series.load import load_series
    from stanhop.storage import refuse_existing, write_bytes, write_text
    from stanhop.tracking.run import recorded, run_tags
    from stanhop.tracking.store import open_store, store_uri

    bundle = load_bundle(model)
    config = config_for_data(bundle.config, data, flags)
    paths = [] if folder is None else [folder / JSON_NAME, folder / PLOT_NAME]
    for path in [] if overwrite else paths:
        refuse_existing(path)
    series_set = load_series(config.data)
    output.notes(series_set.notes)
    if config.tracking.enabled:
        store_uri(config.tracking, folder=Path.cwd())  # what can be no store is refused before anything is computed
    measured = dataclasses.replace(bundle, config=config)
    total = num_contexts(measured, series_set, split)
    with counting_bar(output, total=total, unit="window", is_shown=not no_progress) as progress:
        contexts = split_contexts(measured, series_set, split, batch_size=batch_size)
        report = measure_outliers(bundle.network, contexts, progress=progress)
    if counted not in report.selections:
        problem = f"--outputs: network {config.model.network} has no {counted}"
        raise UsageError(Code.USAGE, problem, fix=f"choose from {', '.join(report.selections)}")
    store = open_store(config.tracking, folder=Path.cwd()) if config.tracking.enabled else None  # may make files
    title = f"{config.model.separation}, {config.data.source}, {split} windows"
    document = {"model": str(model), "data": config.data.source, "split": split, **report.to_plain()}
    text = json.dumps(document, indent=2, default=str).replace("NaN", "null") + "\n"
    plot = outlier_plot(report, title=title)
    if paths:
        write_text(paths[0], text)
        write_bytes(paths[1], plot)
    tags = run_tags(config, series_set, dataset=Path(config.data.source).name)
    with recorded(store, name=f"outliers-{model.name}", tags={**tags, "stanhop.command": "outliers"}) as run:
        run.log_config(config)
        run.log_metrics(report.metrics())
        run.log_content(JSON_NAME, text.encode())
        run.log_content(PLOT_NAME, plot)
    output.result({**document, "run_id": run.run_id, "written": paths}, human=_text(report, counted, paths))


def _text(report: OutlierReport, counted: Counted, paths: list[Path]) -> str:
    """The outputs of the selection, then what each selection amounts to."""
    header = ("output", "kind", "inf-norm", "kurtosis", "kurtosis without 1e-6")
    rows = [
        (each.name, each.kind, f"{each.inf_norm:.3f}", f"{each.kurtosis:.3f}", f"{each.kurtosis_scale_free:.3f}")
        for each in report.outputs
        if counted in each.counted
    ]
    summaries = [(name, report.summary(name)) for name in report.selections]
    totals = [
        (
            name,
            f"{summary.num_outputs}",
            f"{summary.max_inf_norm:.3f}",
            f"{summary.average_kurtosis:.3f}",
            f"{summary.average_kurtosis_scale_free:.3f}",
        )
        for name, summary in summaries
    ]
    total_header = ("selection", "outputs", "maximum inf-norm", "average kurtosis", "average without 1e-6")
    written = "".join(f"\n\nwritten  {path}" for path in paths)
    return f"{aligned([header, *rows])}\n\n{aligned([total_header, *totals])}{written}"
