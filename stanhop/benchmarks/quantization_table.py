"""The table of ``stanhop bench quantization``: a row a method, mean and deviation over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stanhop.benchmarks.network_figures import StepTime
from stanhop.benchmarks.quantization import Errors, Measured

ABSENT = "–"
Spread = dict[str, float]
"""Mean, and the sample deviation: NaN for one value."""


def checkpoints(measured: Sequence[Measured], steps: Mapping[str, StepTime]) -> list[dict[str, Any]]:
    """Everything about each checkpoint as plain data; ``steps`` are the seconds of a training step by its name."""
    return [{**asdict(each), "step_seconds": steps[each.name].model_dump()} for each in measured]


def summary(measured: Sequence[Measured], steps: Mapping[str, StepTime]) -> list[dict[str, Any]]:
    """One row a method: mean and deviation over its seeds, and of the paired losses."""
    rows = []
    for method in dict.fromkeys(each.method for each in measured):
        own = [each for each in measured if each.method == method]
        rows.append(
            {
                "method": method,
                "seeds": [each.seed for each in own],
                **_errors([each.float32 for each in own]),
                "step_seconds": spread([steps[each.name].median for each in own]),
                "quantized": {way: _quantized(own, way) for way in own[0].quantized},
                "outliers": {
                    counted: {
                        figure: spread([each.outliers[counted][figure] for each in own])
                        for figure in own[0].outliers[counted]
                    }
                    for counted in own[0].outliers
                },
            }
        )
    return rows


def to_markdown(rows: Sequence[dict[str, Any]], *, counted: str = "all") -> str:
    """The table of ``summary``: outliers over ``counted`` outputs, time of a step, errors before and after."""
    ways = list(rows[0]["quantized"])
    header = [
        "method",
        "seeds",
        f"average kurtosis ({counted})",
        f"maximum inf-norm ({counted})",
        "ms a training step",
        "MSE / MAE, float32",
        *[f"{way}: MSE (change)" for way in ways],
    ]
    lines = [header, ["---"] * len(header), *[_cells(row, counted, ways) for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample deviation of ``values``."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "deviation": deviation}


def _quantized(measured: Sequence[Measured], way: str) -> dict[str, Spread] | None:
    """Errors of ``way`` and the paired change of the squared one; None where a backend cannot hold the method."""
    errors = [each.quantized[way] for each in measured]
    present = [each for each in errors if each is not None]
    if len(present) < len(errors):
        return None
    return {**_errors(present), "change_percent": spread([100 * each.loss(way) for each in measured])}


def _errors(errors: Sequence[Errors]) -> dict[str, Spread]:
    return {"mse": spread([each.mse for each in errors]), "mae": spread([each.mae for each in errors])}


def _cells(row: dict[str, Any], counted: str, ways: Sequence[str]) -> list[str]:
    outliers = row["outliers"][counted]
    step = {name: 1e3 * value for name, value in row["step_seconds"].items()}
    return [
        row["method"],
        ", ".join(map(str, row["seeds"])),
        _plus_minus(outliers["average_kurtosis"], 2),
        _plus_minus(outliers["max_inf_norm"], 2),
        _plus_minus(step, 1),
        f"{_plus_minus(row['mse'], 4)} / {_plus_minus(row['mae'], 4)}",
        *[_changed(row["quantized"][way]) for way in ways],
    ]


def _changed(errors: dict[str, Spread] | None) -> str:
    if errors is None:
        return ABSENT
    change = errors["change_percent"]
    deviation = "" if math.isnan(change["deviation"]) else f" ± {change['deviation']:.2f}"
    return f"{errors['mse']['mean']:.4f} ({change['mean']:+.2f}{deviation} %)"


def _plus_minus(figure: Spread, digits: int) -> str:
    deviation = "" if math.isnan(figure["deviation"]) else f" ± {figure['deviation']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{deviation}"
