"""The table of accuracy: what was measured, mean and deviation over seeds, beside what papers report."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from stanhop.benchmarks.literature import Published, published
from stanhop.benchmarks.machine import processor
from stanhop.benchmarks.measurement import Measurement

HEADINGS = ("model", "MSE", "MAE", "kurtosis", "inf-norm", "ms a step", "seeds", "windows", "seconds", "source")
KURTOSIS, INF_NORM = "outliers/all/average_kurtosis", "outliers/all/max_inf_norm"
"""The outliers that the table shows: those over all outputs, by the published formula."""


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
        kurtosis: Average over all outputs of the network, mean over seeds; None for other forecasters.
        kurtosis_deviation: As of the errors.
        inf_norm: The largest over all outputs, likewise.
        inf_norm_deviation: Likewise.
        step_ms: Time of a training step, likewise.
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
    kurtosis: float | None = None
    kurtosis_deviation: float | None = None
    inf_norm: float | None = None
    inf_norm_deviation: float | None = None
    step_ms: float | None = None
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
    rows = [row for group in groups.values() for row in (_row(group), *_rows_in_whole_batches(group))]
    for data, steps in dict.fromkeys((row.data, row.prediction_length) for row in rows):
        rows += [Row(data, steps, one.model, one.mse, one.mae, source=_source(one)) for one in published(data, steps)]
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
        "processor": processor(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("stanhop", "torch", "pytorch_lightning", "sktime")},
    }


def _row(group: Sequence[Measurement]) -> Row:
    first = group[0]
    mse, mse_deviation = _spread([one.mse for one in group])
    mae, mae_deviation = _spread([one.mae for one in group])
    outliers = [one.outliers for one in group if one.outliers is not None]
    kurtosis, kurtosis_deviation = _spread([each[KURTOSIS] for each in outliers])
    inf_norm, inf_norm_deviation = _spread([each[INF_NORM] for each in outliers])
    assert mse is not None
    return Row(
        data=first.data,
        prediction_length=first.prediction_length,
        model=first.model,
        mse=mse,
        mae=mae,
        mse_deviation=mse_deviation,
        mae_deviation=mae_deviation,
        kurtosis=kurtosis,
        kurtosis_deviation=kurtosis_deviation,
        inf_norm=inf_norm,
        inf_norm_deviation=inf_norm_deviation,
        step_ms=first.step_ms,
        seeds=tuple(one.seed for one in group if one.seed is not None),
        num_windows=first.num_windows,
        stride=first.stride,
        seconds=statistics.fmean(one.seconds for one in group),
    )


def _source(one: Published) -> str:
    batches = "" if one.batch_size is None else f"; whole batches of {one.batch_size} windows alone"
    return one.source + batches


def _rows_in_whole_batches(group: Sequence[Measurement]) -> Iterator[Row]:
    """The same forecaster as published figures of others would have it: on the windows that those are of."""
    for each in zip(*(one.in_whole_batches for one in group), strict=True):
        alone = [
            one.model_copy(update=errors.model_dump(exclude={"batch_size"}) | {"step_ms": None, "outliers": None})
            for one, errors in zip(group, each, strict=True)
        ]
        source = f"measured, whole batches of {each[0].batch_size} windows alone"
        yield dataclasses.replace(_row(alone), seconds=None, source=source)


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample deviation, as far as there are enough of them."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


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
        _figure(row.kurtosis, row.kurtosis_deviation, digits=2),
        _figure(row.inf_norm, row.inf_norm_deviation, digits=2),
        "" if row.step_ms is None else f"{row.step_ms:.1f}",
        ", ".join(map(str, row.seeds)),
        windows if row.stride in (None, 1) else f"{windows} (stride {row.stride})",
        "" if row.seconds is None else f"{row.seconds:,.0f}",
        row.source,
    )


def _figure(mean: float | None, deviation: float | None, *, digits: int = 3) -> str:
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
