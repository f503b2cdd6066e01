"""What the joint path gains by memories, as a regression, on the validation rows.

    STANHOP_DATA_DIR=... python benchmarks/memories.py --data WTH --prediction-length 24 48 168 336 720

Nothing is trained: the forecast is the ridge regression of each channel and, beside it, the one of the joint path that
the preset of the data set has or would have, judged by windows that did not choose its penalty. Memories differ in how
many a head has and by the seed that they are drawn by; a training draws those of seed 0. The table goes to
``benchmarks/results/<data>/memories.json`` and ``.md`` (``--results``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.cli.layers import run_layers
from stanhop.config import Layer, resolve
from stanhop.model import joint_path
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.load import load_series
from stanhop.training.evidence import standard_errors_above_zero
from stanhop.training.joint_path import memories_of
from stanhop.training.joint_regression import JointTask
from stanhop.training.least_squares import best_ridge

RESULTS = Path(__file__).parent / "results"


def measured(data: str, horizon: int, counts: Sequence[int], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Error without memories, then with each number of each seed, and what they gain."""
    layers = run_layers(
        data=data, preset=None, files=[], assignments=[], environment={},
        flags=[Layer("--prediction-length", {"model": {"prediction_length": horizon}})],
    )  # fmt: skip
    config = resolve(layers)
    periods = config.model.time_features or ()
    datamodule = SeriesDataModule(load_series(config.data), config)
    datamodule.tell_time(periods)
    task = JointTask(datamodule, best_ridge(datamodule))
    straight = task.trial([periods])
    assert straight.regression is not None
    yield _row(horizon, 0, None, before=straight.errors, after=straight.errors)
    for count in counts:
        for seed in seeds:
            with mock.patch.object(joint_path, "SEED", seed):
                memories = memories_of(task, straight.regression, count)
            errors = JointTask(datamodule, task.direct, memories).trial([periods]).errors
            yield _row(horizon, count, seed, before=straight.errors, after=errors)


def _row(horizon: int, count: int, seed: int | None, *, before: Tensor, after: Tensor) -> dict[str, Any]:
    return {
        "prediction_length": horizon,
        "joint_memories": count,
        "seed": seed,
        "mse": float(after.mean()),
        "gain_percent": 100 * float((before - after).mean() / before.mean()),
        "standard_errors": standard_errors_above_zero(before - after, shortest=horizon),
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| steps | memories a head | seed | MSE | less, % | standard errors |", "|---|---|---|---|---|---|"]
    for row in rows:
        seed, found = row["seed"], row["standard_errors"]
        cells = [row["prediction_length"], row["joint_memories"], "" if seed is None else seed]
        cells += [f"{row['mse']:.4f}", f"{row['gain_percent']:.2f}", "" if found is None else f"{found:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="WTH", help="a named data set, or a file")
    parser.add_argument("--prediction-length", type=int, nargs="+", default=[24, 48, 168, 336, 720])
    parser.add_argument("--memories", type=int, nargs="+", default=[4, 8, 16], help="of each head")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="that memories are drawn by")
    parser.add_argument("--results", type=Path, help="where the table goes")
    options = parser.parse_args()
    horizons = options.prediction_length
    rows = [row for steps in horizons for row in measured(options.data, steps, options.memories, options.seeds)]
    print(to_markdown(rows), end="")
    document = {
        "what": "validation errors in scaled units of the regressions that the linear paths begin as",
        "data": options.data,
        "machine": machine(),
        "rows": rows,
    }
    folder = options.results or RESULTS / Path(options.data).stem.lower()
    storage.make_directory(folder)
    storage.write_text(folder / "memories.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(folder / "memories.md", to_markdown(rows))


if __name__ == "__main__":
    main()
