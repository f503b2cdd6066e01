"""The page: what was collected about some runs, as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import stanhop
from stanhop.report import figures
from stanhop.report.contents import RunContents
from stanhop.tracking.compare import Comparison, differing_keys
from stanhop.tracking.search import DEFAULTS, RunRecord

TEMPLATE = "template.html"
STEP_METRICS = ("mse_scaled", "mae_scaled")
SHOWN_METRICS = (
    *("test/mse_scaled", "test/mae_scaled", "test/mse", "test/mae", "test/rmse", "test/mase", "test/smape_200"),
    *(
        "test/skill_vs_snaive",
        "val/best_loss",
        "val/best_epoch",
        "val/network_share",
        "time/train_s",
        "size/num_parameters",
    ),
)
MOST_DETAILED = 6
"""Runs that are shown with their own forecasts, residuals and layers."""


@dataclass(frozen=True)
class Shown:
    """One run and where it belongs.

    Args:
        contents: The run.
        group: Number of its group, which gives it its colour.
        label: That of the group.
    """

    contents: RunContents
    group: int
    label: str


def render(contents: Sequence[RunContents], comparisons: Sequence[Comparison], *, made_at: str, title: str) -> str:
    """The page about ``contents``.

    Args:
        contents: The runs, at least one.
        comparisons: Of the same runs, one for each task.
        made_at: Date and time to print.
        title: Heading of the page.
    """
    shown, legend = _in_groups(contents, comparisons)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "count": count}
    runs = [each.contents.run for each in shown]
    return environment.get_template(TEMPLATE).render(
        title=title,
        made_at=made_at,
        version=stanhop.__version__,
        legend=legend,
        shown=shown,
        comparisons=comparisons,
        key_figures=_key_figures(shown, comparisons),
        differing=differing_keys(runs),
        changed=_changed(runs[0]),
        metrics=_metric_table(runs),
        intervals=_interval_table(runs),
        step_figure=_step_figure(shown),
        channel_figure=_channel_figure(shown),
        channel_table=_channel_table(shown),
        loss_figure=_loss_figure(shown),
        alpha_figure=_alpha_figure(shown),
        details=[_details(each) for each in shown[:MOST_DETAILED]],
        num_hidden=max(0, len(shown) - MOST_DETAILED),
        cards=_cards(shown),
    )


def number(value: float | None) -> str:
    """Four digits; a dash for what there is not."""
    if value is None or math.isnan(value):
        return "–"
    if float(value).is_integer() and abs(value) >= 1:
        return f"{value:,.0f}"
    return f"{value:.4f}" if 0.01 <= abs(value) < 1 else f"{value:.4g}"


def signed(value: float) -> str:
    """Five decimals with the sign; a dash for what there is not."""
    return "–" if math.isnan(value) else f"{value:+.5f}"


def count(value: float) -> str:
    """A whole number with commas."""
    return f"{value:,.0f}"


def _in_groups(
    contents: Sequence[RunContents], comparisons: Sequence[Comparison]
) -> tuple[list[Shown], list[tuple[int, str]]]:
    """Every run with the number of its group, best group first, and the groups with their labels."""
    several = len(comparisons) > 1
    groups = [
        (f"{task.dataset}, {task.prediction_length} steps: {group.label}" if several else group.label, group.runs)
        for task in comparisons
        for group in task.groups
    ]
    number_of = {run.id: place for place, (_, runs) in enumerate(groups) for run in runs}
    legend = [(place, label) for place, (label, _) in enumerate(groups)]
    if len(contents) == 1:
        legend = [(0, contents[0].run.name)]
    placed = [(number_of.get(each.run.id, len(groups) - 1), each) for each in contents]
    placed.sort(key=lambda pair: (pair[0], pair[1].run.seed))
    return [Shown(each, place, legend[place][1]) for place, each in placed], legend


def _key_figures(shown: Sequence[Shown], comparisons: Sequence[Comparison]) -> list[tuple[str, str, str]]:
    """Label, value and a remark of what a reader looks for first."""
    best = comparisons[0].groups[0]
    seeds = f"{len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
    whose = best.label if len(comparisons[0].groups) > 1 else seeds
    figures_: list[tuple[str, str, str]] = []
    for name, label in (
        ("test/mse_scaled", "MSE, scaled"),
        ("test/mae_scaled", "MAE, scaled"),
        ("test/mase", "MASE"),
        ("test/skill_vs_snaive", "skill over seasonal naive"),
    ):
        values = [run.metrics[name] for run in best.runs if not math.isnan(run.metrics.get(name, math.nan))]
        if values:
            spread = f"± {np.std(values, ddof=1):.2g}, " if len(values) > 1 else ""
            figures_.append((label, number(float(np.mean(values))), f"{spread}{whose}"))
    windows = shown[0].contents.run.metrics.get("test/num_windows")
    if windows is not None:
        figures_.append(("test windows", count(windows), "none dropped"))
    return figures_


def _changed(run: RunRecord) -> list[tuple[str, str, str]]:
    """The keys in which a run is not at its default: key, value, default."""
    return [(key, value, DEFAULTS.get(key, "–")) for key, value in run.params.items() if DEFAULTS.get(key) != value]


def _metric_table(runs: Sequence[RunRecord]) -> list[tuple[str, list[float | None]]]:
    names = [name for name in SHOWN_METRICS if any(name in run.metrics for run in runs)]
    return [(name, [run.metrics.get(name) for run in runs]) for name in names]


def _interval_table(runs: Sequence[RunRecord]) -> list[tuple[str, list[float | None]]]:
    """What is known of prediction intervals: coverage and width."""
    names = {name for run in runs for name in run.metrics if "coverage_" in name or "width_" in name}
    return [(name, [run.metrics.get(name) for run in runs]) for name in sorted(names) if name.startswith("test/")]


def _step_figure(shown: Sequence[Shown]) -> Markup | None:
    lines = {
        metric: [(each.group, each.contents.per_step[metric]) for each in shown if metric in each.contents.per_step]
        for metric in STEP_METRICS
    }
    lines = {metric: each for metric, each in lines.items() if each}
    return figures.step_figure(lines) if lines else None


def _channel_table(shown: Sequence[Shown]) -> list[tuple[str, list[tuple[int, dict[str, float]]]]]:
    """For each channel the mean of each metric over the runs of each group."""
    known = [each for each in shown if each.contents.per_channel]
    channels = list(dict.fromkeys(name for each in known for name in each.contents.per_channel))
    groups = list(dict.fromkeys(each.group for each in known))
    return [
        (channel, [(group, means) for group in groups if (means := _channel_means(known, group, channel))])
        for channel in channels
    ]


def _channel_means(shown: Sequence[Shown], group: int, channel: str) -> dict[str, float]:
    found = [
        each.contents.per_channel[channel]
        for each in shown
        if each.group == group and channel in each.contents.per_channel
    ]
    names = list(found[0]) if found else []
    return {name: _mean([errors[name] for errors in found]) for name in names}


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _channel_figure(shown: Sequence[Shown]) -> Markup | None:
    table = _channel_table(shown)
    if not table:
        return None
    groups = sorted({group for _, each in table for group, _ in each})
    lacking: dict[str, float] = {}
    values = {
        metric: [
            (group, [dict(each).get(group, lacking).get(metric, math.nan) for _, each in table]) for group in groups
        ]
        for metric in STEP_METRICS
    }
    return figures.channel_figure([channel for channel, _ in table], values)


def _loss_figure(shown: Sequence[Shown]) -> Markup | None:
    curves = [
        (
            each.group,
            [epoch["training_loss"] for epoch in each.contents.epochs],
            [epoch["validation_loss"] for epoch in each.contents.epochs],
        )
        for each in shown
        if each.contents.epochs
    ]
    return figures.loss_figure(curves) if curves else None


def _alpha_figure(shown: Sequence[Shown]) -> Markup | None:
    layers = list(dict.fromkeys(layer for each in shown for layer in each.contents.alphas))
    alphas = {
        layer: [(each.group, each.contents.alphas[layer]) for each in shown if layer in each.contents.alphas]
        for layer in layers
    }
    return figures.alpha_figure(alphas) if alphas else None


def _details(each: Shown) -> dict[str, Any]:
    """The figures of one run."""
    contents, name = each.contents, each.contents.run.name

    def drawn(part: Any, draw: Callable[[], Markup]) -> Markup | None:
        return draw() if part else None

    return {
        "shown": each,
        "forecasts": drawn(
            contents.forecasts, lambda: figures.forecast_figure(contents.forecasts, contents.channels, name=name)
        ),
        "levels": sorted({level for one in contents.forecasts for level in one.bounds}),
        "num_channels_hidden": max(0, len(contents.channels) - figures.MOST_CHANNELS),
        "worst": drawn(contents.worst, lambda: figures.worst_figure(contents.worst, contents.channels, name=name)),
        "residuals": None if contents.residuals is None else figures.residual_figure(contents.residuals, name=name),
        "checks": contents.residuals,
        "outliers": None if contents.outliers is None else figures.outlier_figure(contents.outliers, name=name),
        "summary": None if contents.outliers is None else contents.outliers.summary("blocks"),
    }


def _cards(shown: Sequence[Shown]) -> list[Any]:
    """The data cards, each once."""
    cards: Mapping[str, Any] = {
        dict(each.contents.card.facts)["SHA-256"]: each.contents.card
        for each in shown
        if each.contents.card is not None
    }
    return list(cards.values())
