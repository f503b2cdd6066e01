"""Looks for where softmax has outliers that OutEffHop has not: depth, width and length of training.

    STANHOP_DATA_DIR=... python benchmarks/outliers.py [--seeds 1 2 3 4] [--set train.loss=mse]

Each setting changes one thing of a small base network on ETTh1, 24 steps ahead (the last axis: two), and is trained
with softmax and with OutEffHop from the same seeds; float error, W8A8 and W6A6 error of the same checkpoint, average
kurtosis and maximum inf-norm over all outputs are measured on the test windows. Nothing is chosen by them. Runs lie in
``runs/outliers``: stopped, the same call goes on with the setting it was at, and more seeds add to those before. The
result, in ``benchmarks/results/outliers.json`` and ``.png``, grows with each setting.

What is left out, for time: more than three seeds (--seeds), the full preset, four fifths of its validation and test
rows, data sets but ETTh1, the other methods (for them see ``stanhop bench quantization``).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stanhop import storage
from stanhop.benchmarks.quantization import Cell, Measured, method_settings, run_cells
from stanhop.cli.layers import data_set_layers
from stanhop.config import Layer, assignment_layer, nest, resolve
from stanhop.forecasting.plots import as_png, tidy

METHODS = {"softmax": "#D55E00", "outeffhop": "#0072B2"}
"""What is compared, and its colour."""
SCHEMES = ("w8a8", "w6a6")
BASE = {
    "data.split.train": 8640,
    "data.split.validation": 600,
    "data.split.test": 600,
    "model.context_length": 168,
    "model.model_dim": 32,
    "model.feedforward_dim": 64,
    "model.num_levels": 2,
    "model.merge_size": 1,
    "train.max_epochs": 2,
    "train.start": "random",
    "train.windows_per_epoch": 2000,
    "train.patience": 0,
    "tracking.enabled": False,
}
FIGURES = ("maximum inf-norm", "average kurtosis", "W8A8 loss, %", "W6A6 loss, %", "MSE")
RUNS = Path("runs/outliers")
RESULTS = Path(__file__).parent / "results"


@dataclass
class Setting:
    """A point on an axis.

    Args:
        axis: What is varied.
        value: To what.
        changes: The keys that differ from the base.
        measured: Every training that is done.
    """

    axis: str
    value: int
    changes: dict[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Settings that are the same trainings, such as the base on each axis, have the same."""
        names = [f"{key.split('.')[1]}-{value}" for key, value in self.changes.items()]
        return "-".join(names) or "base"

    def figures(self, method: str) -> dict[str, list[float]]:
        """Each figure of ``method``, one value a seed."""
        own = [each for each in self.measured if each.method == method]
        values = [
            [each.outliers["all"]["max_inf_norm"] for each in own],
            [each.outliers["all"]["average_kurtosis"] for each in own],
            [100 * each.loss("w8a8") for each in own],
            [100 * each.loss("w6a6") for each in own],
            [each.float32.mse for each in own],
        ]
        return dict(zip(FIGURES, values, strict=True))


def settings() -> list[Setting]:
    """Every point of every axis."""
    depths = [Setting("depth", levels, _unlike_base({"model.num_levels": levels})) for levels in (1, 2, 6, 12)]
    widths = [
        Setting("width", width, _unlike_base({"model.model_dim": width, "model.feedforward_dim": 2 * width}))
        for width in (16, 32, 96)
    ]
    epochs = [Setting("epochs", epochs, _unlike_base({"train.max_epochs": epochs})) for epochs in (1, 2, 8, 32)]
    long = [
        Setting("depth, 8 epochs", levels, _unlike_base({"train.max_epochs": 8, "model.num_levels": levels}))
        for levels in (2, 6)
    ]
    return [*depths, *widths, *epochs, *long]


def cells(changes: dict[str, Any], more: list[str], seed: int) -> Iterator[Cell]:
    """Every method at one setting."""
    for method in METHODS:
        values = {**BASE, **changes, "train.seed": seed, "data.source": "ETTh1"}
        own = Layer("study", nest(values | {f"model.{key}": value for key, value in method_settings(method).items()}))
        config = resolve([*data_set_layers("ETTh1"), own, *map(assignment_layer, more)])
        yield Cell(method, config, SCHEMES)


def plot(rows: list[Setting]) -> bytes:
    """Each figure against each axis: a point for each training, a line through the means."""
    axes_names = list(dict.fromkeys(row.axis for row in rows))
    figure = Figure(figsize=(11, 9), dpi=100, layout="constrained")
    grid = figure.subplots(len(FIGURES) - 1, len(axes_names), sharex="col", sharey="row", squeeze=False)
    for column, axis in enumerate(axes_names):
        own = [row for row in rows if row.axis == axis]
        for axes, name in zip(grid[:, column], FIGURES, strict=False):
            for method, colour in METHODS.items():
                values = [row.figures(method)[name] for row in own]
                axes.plot([row.value for row in own], [statistics.fmean(each) for each in values], "-", color=colour)
                for row, each in zip(own, values, strict=True):
                    axes.plot([row.value] * len(each), each, "o", color=colour, markersize=4)
            axes.set_title(f"{name} by {axis}", fontsize=9, loc="left")
            axes.set_xscale("log", base=2)
            axes.set_xticks([row.value for row in own], [str(row.value) for row in own])
            tidy(axes)
    for method, colour in METHODS.items():
        grid[0, 0].plot([], [], "o-", color=colour, label=method)
    grid[0, 0].legend(fontsize=8)
    return as_png(figure)


def store(rows: list[Setting], more: list[str], folder: Path) -> None:
    """Write the table and the plot of what is done into ``folder``."""
    plain = [
        {
            "axis": row.axis,
            "value": row.value,
            "changes": row.changes,
            "seeds": sorted({each.seed for each in row.measured}),
            **{method: row.figures(method) for method in METHODS},
        }
        for row in rows
    ]
    document = {"base": BASE, "set": more, "rows": plain}
    storage.write_text(folder / "outliers.json", json.dumps(document, indent=2) + "\n")
    storage.write_bytes(folder / "outliers.png", plot(rows))


def main() -> None:
    """Train, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="trainings of each setting")
    parser.add_argument("--output", type=Path, default=RUNS, metavar="FOLDER", help="where the runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where table and plot go")
    options = parser.parse_args()
    rows = settings()
    for seed in options.seeds:
        for row in rows:
            folder = options.output / storage.safe_name("-".join([row.folder, *options.set]))
            row.measured += run_cells(list(cells(row.changes, options.set, seed)), folder=folder, progress=False)
            last = {
                method: {name: round(each[-1], 4) for name, each in row.figures(method).items()} for method in METHODS
            }
            print(f"seed {seed}, {row.axis} {row.value}", *last.items(), sep="\n  ", flush=True)
            store([each for each in rows if each.measured], options.set, options.results)


def _unlike_base(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if BASE[key] != value}


if __name__ == "__main__":
    main()
