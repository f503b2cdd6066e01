"""A comparison of runs as people, programs and spreadsheets read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from stanhop.cli.output import aligned
from stanhop.tracking.compare import Comparison, Difference, Group

MOST_GROUPS = 20
LONGEST_VALUE = 24


def comparison_text(comparison: Comparison, *, confidence: float) -> str:
    """What differs, the groups with their figures, the differences with their intervals, and the notes."""
    numbers = {group.label: f"#{number}" for number, group in enumerate(comparison.groups, start=1)}
    num_runs = sum(len(group.runs) for group in comparison.groups)
    title = f"{comparison.dataset}, {comparison.prediction_length} steps: {num_runs} runs, {len(numbers)} groups"
    parts = [title, _differing(comparison), _groups(comparison, numbers)]
    if comparison.differences:
        own = numbers[comparison.reference]
        heading = f"difference from {own}, {confidence:g} % interval (paired bootstrap over windows and seeds)"
        parts.append(f"{heading}\n{_differences(comparison, numbers)}")
    parts.append("\n".join(f"note: {note}" for note in comparison.notes))
    return "\n\n".join(part for part in parts if part)


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "dataset": comparison.dataset,
        "prediction_length": comparison.prediction_length,
        "metrics": list(comparison.metrics),
        "differing": {key: list(values) for key, values in comparison.differing.items()},
        "groups": [
            {
                "label": group.label,
                "settings": dict(group.settings),
                "seeds": list(group.seeds),
                "run_ids": [run.id for run in group.runs],
                "metrics": {name: asdict(summary) for name, summary in group.summaries.items()},
                "mean_rank": group.mean_rank,
            }
            for group in comparison.groups
        ],
        "reference": comparison.reference,
        "differences": [
            {
                "label": each.label,
                "metric": each.metric,
                "difference": each.interval.estimate,
                "low": each.interval.low,
                "high": each.interval.high,
                "relative": each.share,
                "excludes_zero": each.interval.excludes_zero if not math.isnan(each.interval.low) else None,
                "num_windows": each.num_windows,
                "paired_seeds": each.is_paired,
                "over_seeds": each.has_seed_variance,
            }
            for each in comparison.differences
        ],
        "notes": list(comparison.notes),
    }


def csv_rows(comparisons: Sequence[Comparison]) -> list[list[str | float]]:
    """One row for each task, group and metric, numbers in full."""
    header = ["dataset", "prediction_length", "group", "metric", "num_seeds", "mean", "sd", "rank"]
    header += ["reference", "difference", "low", "high"]
    rows: list[list[str | float]] = [list(header)]
    for comparison in comparisons:
        differences = {(each.label, each.metric): each.interval for each in comparison.differences}
        for group in comparison.groups:
            for name, summary in group.summaries.items():
                interval = differences.get((group.label, name))
                ends = ["", "", ""] if interval is None else [interval.estimate, interval.low, interval.high]
                rows.append(
                    [
                        comparison.dataset,
                        comparison.prediction_length,
                        group.label,
                        name,
                        len(group.runs),
                        *map(_number, [summary.mean, summary.sd]),
                        summary.rank,
                        comparison.reference,
                        *map(_number, ends),
                    ]
                )
    return rows


def _differing(comparison: Comparison) -> str:
    if not comparison.differing:
        return ""
    rows = [(key, " | ".join(map(_short, values[:6]))) for key, values in comparison.differing.items()]
    return f"what differs\n{aligned(rows, indent='  ')}"


def _groups(comparison: Comparison, numbers: dict[str, str]) -> str:
    keys = list(comparison.differing)
    heads = ["", *(key.split(".")[-1] for key in keys), "seeds"]
    for name in comparison.metrics:
        heads += [name, "rank"]
    heads += ["mean rank"] if len(comparison.metrics) > 1 else []
    rows = [_group_row(group, comparison, numbers) for group in comparison.groups[:MOST_GROUPS]]
    hidden = len(comparison.groups) - MOST_GROUPS
    more = f"\n… and {hidden} groups more; --csv and --format json have all" if hidden > 0 else ""
    return aligned([heads, *rows]) + more


def _group_row(group: Group, comparison: Comparison, numbers: dict[str, str]) -> list[str]:
    row = [numbers[group.label], *map(_short, group.settings.values()), str(len(group.runs))]
    for name in comparison.metrics:
        summary = group.summaries[name]
        spread = "" if math.isnan(summary.sd) else f" ± {summary.sd:.4f}"
        row += [f"{summary.mean:.4f}{spread}", str(summary.rank)]
    return row + ([f"{group.mean_rank:.1f}"] if len(comparison.metrics) > 1 else [])


def _differences(comparison: Comparison, numbers: dict[str, str]) -> str:
    shown = {group.label for group in comparison.groups[:MOST_GROUPS]}
    rows = [_difference_row(each, numbers) for each in comparison.differences if each.label in shown]
    return aligned(rows, indent="  ")


def _difference_row(each: Difference, numbers: dict[str, str]) -> list[str]:
    interval = each.interval
    relative = "" if math.isnan(each.share) else f"({100 * each.share:+.2f} %)"
    row = [numbers[each.label], each.metric, f"{interval.estimate:+.5f}", relative]
    if math.isnan(interval.low):
        return [*row, "no interval", ""]
    verdict = "differs" if interval.excludes_zero else "may be noise"
    return [*row, f"[{interval.low:+.5f}, {interval.high:+.5f}]", verdict]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _number(value: Any) -> str | float:
    return "" if isinstance(value, float) and math.isnan(value) else value
