"""The table of accuracy: what was measured, mean and deviation over seeds, beside what papers report."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stanhop.benchmarks.literature import published
from stanhop.benchmarks.measurement import Measurement

PROCESSORS = Path("/proc/cpuinfo")
HEADINGS = ("model", "MSE", "MAE", "seeds", "windows", "seconds", "source")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        data: Name of the data set.
        prediction_length: Steps forecast.
        model: Name of the forecaster.
        mse: Mean over seeds, in scaled units.
        mae: Likewise; None where a source has none.
        mse_deviation: Sample standard deviation over seeds; None for one seed, or a published figure.
        mae_deviation: Likewise.
        seeds: What was measured with; empty where nothing is drawn, or in a published figure.
        num_windows: Test windows measured; None in a published figure.
        stride: Every which window that was.
        seconds: Mean time of training, or of forecasting where nothing is trained.
        source: Where the figure is from.
    """

    data: str
    prediction_length: int
    model: str
    mse: float
    mae: float | None
    mse_deviation: float | None = None
    mae_deviation: float | None = None
    seeds: tuple[int, ...] = ()
    num_windows: int | None = None
    stride: int | None = None
    seconds: float | None = None
    source: str = "measured"


def rows_of(measurements: Sequence[Measurement]) -> list[Row]:
    """A row a forecaster and one a published figure, by data set and horizon, best MSE first."""
    groups: dict[tuple[str, int, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.data, one.prediction_length, one.model), []).append(one)
    rows = [_row(group) for group in groups.values()]
    for data, steps in dict.fromkeys((row.data, row.prediction_length) for row in rows):
        rows += [Row(data, steps, one.model, one.mse, one.mae, source=one.source) for one in published(data, steps)]
    order = list(dict.fromkeys(one.data for one in measurements))
    return sorted(rows, key=lambda row: (order.index(row.data), row.prediction_length, row.mse))


def document_of(measurements: Sequence[Measurement], *, command: str) -> dict[str, Any]:
    """The table as plain data, with the machine that writes it and every measurement."""
    return {
        "what": "MSE and MAE over test windows, in units of the training rows' deviation; mean and sample deviation",
        "command": command,
        "machine": machine(),
        "rows": [vars(row) for row in rows_of(measurements)],
        "measurements": [one.model_dump(mode="json") for one in measurements],
    }


def to_markdown(rows: Iterable[Row]) -> str:
    """``rows`` as one table a data set and horizon."""
    sections: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        sections.setdefault((row.data, row.prediction_length), []).append(row)
    return "\n".join(_section(data, steps, group) for (data, steps), group in sections.items())


def machine() -> dict[str, Any]:
    """What the figures of time depend on."""
    return {
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("stanhop", "torch", "pytorch_lightning", "sktime")},
    }


def _row(group: Sequence[Measurement]) -> Row:
    first = group[0]
    mse, mae = [one.mse for one in group], [one.mae for one in group]
    return Row(
        data=first.data,
        prediction_length=first.prediction_length,
        model=first.model,
        mse=statistics.fmean(mse),
        mae=statistics.fmean(mae),
        mse_deviation=statistics.stdev(mse) if len(mse) > 1 else None,
        mae_deviation=statistics.stdev(mae) if len(mae) > 1 else None,
        seeds=tuple(one.seed for one in group if one.seed is not None),
        num_windows=first.num_windows,
        stride=first.stride,
        seconds=statistics.fmean(one.seconds for one in group),
    )


def _section(data: str, steps: int, rows: Sequence[Row]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(_cells, rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {data}, {steps} steps\n\n{table}\n"


def _cells(row: Row) -> tuple[str, ...]:
    windows = "" if row.num_windows is None else f"{row.num_windows:,}"
    return (
        row.model,
        _figure(row.mse, row.mse_deviation),
        _figure(row.mae, row.mae_deviation),
        ", ".join(map(str, row.seeds)),
        windows if row.stride in (None, 1) else f"{windows} (stride {row.stride})",
        "" if row.seconds is None else f"{row.seconds:,.0f}",
        row.source,
    )


def _figure(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _processor() -> str:
    """The processor's name, where the system tells it."""
    lines = PROCESSORS.read_text(encoding="utf-8").splitlines() if PROCESSORS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
