"""What the joint path gains by being told the time, as a regression, on the validation rows.

    STANHOP_DATA_DIR=... python benchmarks/time_features.py --data WTH --prediction-length 24 48 168 336

Each choice of periods that the training rows cover twice, in the preset of the data set. Nothing is trained: the
forecast is the ridge regression of each channel and the one of the joint path beside it, judged by windows that did not
choose its penalty. The table goes to ``benchmarks/results/<data>/time_features.json`` and ``.md`` (``--results``).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.cli.layers import run_layers
from stanhop.config import Layer, resolve
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.load import load_series
from stanhop.training.evidence import standard_errors_above_zero
from stanhop.training.joint_regression import JointTask
from stanhop.training.least_squares import best_ridge

RESULTS = Path(__file__).parent / "results"


def measured(data: str, horizon: int) -> Iterator[dict[str, Any]]:
    """Error with each choice of periods, and what it gains against being told nothing."""
    layers = run_layers(
        data=data, preset=None, files=[], assignments=[], environment={},
        flags=[Layer("--prediction-length", {"model": {"prediction_length": horizon}})],
    )  # fmt: skip
    config = resolve(layers)
    datamodule = SeriesDataModule(load_series(config.data), config)
    known = datamodule.known_periods()
    datamodule.tell_time(known)
    direct = best_ridge(datamodule)
    task = JointTask(datamodule, direct)
    untold = task.trial([()]).errors
    for size in range(len(known) + 1):
        for periods in itertools.combinations(known, size):
            gains = untold - task.trial([periods]).errors
            found = standard_errors_above_zero(gains, shortest=horizon)
            yield {
                "prediction_length": horizon,
                "time_features": periods,
                "mse": float((untold - gains).mean()),
                "gain_percent": 100 * float(gains.mean() / untold.mean()),
                "standard_errors": found,
            }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| steps | told | MSE | less, % | standard errors |", "|---|---|---|---|---|"]
    for row in rows:
        told, found = ", ".join(row["time_features"]) or "nothing", row["standard_errors"]
        cells = [row["prediction_length"], told, f"{row['mse']:.4f}", f"{row['gain_percent']:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {'' if found is None else format(found, '.1f')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="WTH", help="a named data set, or a file")
    parser.add_argument("--prediction-length", type=int, nargs="+", default=[24, 48, 168, 336])
    parser.add_argument("--results", type=Path, help="where the table goes")
    options = parser.parse_args()
    rows = [row for horizon in options.prediction_length for row in measured(options.data, horizon)]
    print(to_markdown(rows), end="")
    document = {
        "what": "validation errors in scaled units of the regressions that the linear paths begin as",
        "data": options.data,
        "machine": machine(),
        "rows": rows,
    }
    folder = options.results or RESULTS / Path(options.data).stem.lower()
    storage.make_directory(folder)
    storage.write_text(folder / "time_features.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(folder / "time_features.md", to_markdown(rows))


if __name__ == "__main__":
    main()
