"""``stanhop evaluate``: how wrong a model is over every window of a split."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanhop.cli.layers import config_for_data
from stanhop.cli.options import READ_FLAGS, BatchSize, Device, Flags, Model, command
from stanhop.cli.output import Output, aligned, metric_lines

if TYPE_CHECKING:
    from stanhop.forecasting.evaluation import Evaluation

app = typer.Typer()

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
    device: Device = "auto",
    batch_size: BatchSize = 64,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Measure a model over every window of a split, none dropped.

    Data other than the model's own are read and split as those were, unless flags or the catalogue say otherwise.

    Example: stanhop evaluate --model runs/ETTh1-1/model --data ETTh1
    """
    from stanhop.forecasting.bundle import load_bundle
    from stanhop.forecasting.evaluation import evaluate as measure
    from stanhop.series.load import load_series

    bundle = load_bundle(model)
    config = config_for_data(bundle.config, data, flags)
    series_set = load_series(config.data)
    output.notes(series_set.notes)
    evaluation = measure(
        dataclasses.replace(bundle, config=config), series_set, split=split, device=device, batch_size=batch_size
    )
    document = {
        "model": model,
        "data": config.data.source,
        "split": split,
        split: evaluation.metrics,
        "per_channel": evaluation.per_channel,
        "per_step": evaluation.per_step,
    }
    output.result(document, human=_text(evaluation))


def _text(evaluation: Evaluation) -> str:
    names = list(next(iter(evaluation.per_channel.values())))
    rows = [[name, *(f"{errors[each]:.4g}" for each in names)] for name, errors in evaluation.per_channel.items()]
    return f"{metric_lines(evaluation.metrics)}\n\n{aligned([['channel', *names], *rows])}"
