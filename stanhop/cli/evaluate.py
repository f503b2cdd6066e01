"""``stanhop evaluate``: how wrong a model is over every window of a split."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanhop.cli.layers import config_for_data
from stanhop.cli.options import READ_FLAGS, BatchSize, Device, Flags, Levels, Model, command, parse_levels
from stanhop.cli.output import Output, aligned, metric_lines
from stanhop.errors import Code, UsageError

if TYPE_CHECKING:
    from stanhop.forecasting.bundle import Bundle
    from stanhop.forecasting.evaluation import Evaluation

app = typer.Typer()

INTERVAL_METRIC = re.compile(r"(adaptive_)?(coverage|width|winkler)_")

EvaluatedData = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|FILE", help="A named data set, or a file; the model's own if not given."),
]
SplitName = Annotated[
    Literal["train", "validation", "test"], typer.Option("--split", help="Which rows to forecast and compare with.")
]


@command(app, flags=READ_FLAGS)
def evaluate(
    model: Model,
    data: EvaluatedData = None,
    split: SplitName = "test",
    levels: Levels = None,
    is_adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Also let the intervals learn from each outcome (needs intervals).")
    ] = False,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Measure a model over every window of a split, none dropped.

    Data other than the model's own are read and split as those were, unless flags or the catalogue say otherwise.
    Coverage and width are those of the model's own intervals if --levels does not name others.

    Example: stanhop evaluate --model runs/ETTh1-1/model --data ETTh1
    """
    from stanhop.forecasting.bundle import load_bundle
    from stanhop.forecasting.evaluation import evaluate as measure
    from stanhop.series.load import load_series

    bundle = load_bundle(model)
    asked = parse_levels(levels)
    if not asked and bundle.intervals is not None:
        asked = bundle.intervals.levels
    if is_adaptive and not asked:
        raise UsageError(Code.USAGE, "--adaptive: the model has no prediction intervals", fix="add --levels 80,95")
    config = config_for_data(bundle.config, data, flags)
    series_set = load_series(config.data)
    output.notes(series_set.notes)
    output.notes(_notes_on_intervals(bundle, asked, split, source=config.data.source))
    evaluation = measure(
        dataclasses.replace(bundle, config=config),
        series_set,
        split=split,
        device=device,
        batch_size=batch_size,
        levels=asked,
        is_adaptive=is_adaptive,
    )
    document = {
        "model": model,
        "data": config.data.source,
        "split": split,
        split: evaluation.metrics,
        "per_channel": evaluation.per_channel,
        "per_step": evaluation.per_step,
    }
    output.result(document, human=_text(evaluation, asked))


def _notes_on_intervals(bundle: Bundle, levels: Sequence[float], split: str, *, source: str) -> list[str]:
    """What the intervals of ``levels`` rest on, where that is not what one would expect."""
    if not levels:
        return []
    known = () if bundle.intervals is None else bundle.intervals.levels
    notes = (
        [f"intervals are calibrated now, on the validation and training rows of {source}"]
        if set(levels) - set(known)
        else []
    )
    if split != "test":
        notes.append("intervals were calibrated on these very rows: their coverage is better than on rows to come")
    return notes


def _text(evaluation: Evaluation, levels: Sequence[float]) -> str:
    """Three tables: errors, intervals by level, and errors by channel."""
    of_intervals = [name for name in evaluation.metrics if INTERVAL_METRIC.match(name)]
    errors = {name: value for name, value in evaluation.metrics.items() if name not in of_intervals}
    names = [name for name in next(iter(evaluation.per_channel.values())) if name not in of_intervals]
    coverages = [name for name in of_intervals if "coverage" in name]
    rows = [
        [name, *(f"{errors[each]:.4g}" for each in names), *(f"{100 * errors[each]:.1f}" for each in coverages)]
        for name, errors in evaluation.per_channel.items()
    ]
    tables = [metric_lines(errors), *([_interval_table(evaluation.metrics, levels)] if levels else [])]
    return "\n\n".join([*tables, aligned([["channel", *names, *coverages], *rows])])


def _interval_table(metrics: Mapping[str, float], levels: Sequence[float]) -> str:
    """A line a level and kind: coverage in percent, mean width and interval score in scaled units."""
    kinds = {"": "calibrated", "adaptive_": "adaptive"}
    rows = [
        [
            f"{level:g} %",
            label,
            f"{100 * metrics[f'{prefix}coverage_{level:g}']:.1f} %",
            f"{metrics[f'{prefix}width_{level:g}_scaled']:.4g}",
            f"{metrics[f'{prefix}winkler_{level:g}_scaled']:.4g}",
        ]
        for level in levels
        for prefix, label in kinds.items()
        if f"{prefix}coverage_{level:g}" in metrics
    ]
    return aligned([["interval", "kind", "coverage", "width_scaled", "winkler_scaled"], *rows])
