"""Looks for where softmax has outliers that OutEffHop has not: depth, width and length of training.

    STANHOP_DATA_DIR=... python benchmarks/outliers.py [--seeds 1 2 3] [--set train.loss=mse]

Each setting changes one thing of a small base network on ETTh1, 24 steps ahead, and is trained with softmax and with
OutEffHop from the same seeds; float error, W8A8 and W6A6 error of the same checkpoint, average kurtosis and maximum
inf-norm are measured on the test windows. Nothing is chosen by them. Runs lie in ``runs/outliers``, and a second call
goes on where the first was stopped. The result goes to ``benchmarks/results/outliers.json`` and ``.png``.

What is left out, for time: more than two seeds (--seeds), the full preset, data sets but ETTh1, the other methods (for
them see ``stanhop bench quantization``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stanhop import storage
from stanhop.benchmarks.quantization import Cell, Measured, method_settings, run_cells
from stanhop.cli.layers import data_set_layers
from stanhop.config import Layer, assignment_layer, nest, resolve
from stanhop.forecasting.plots import as_png, tidy

METHODS = ("softmax", "outeffhop")
SCHEMES = ("w8a8", "w6a6")
BASE = {
    "model.context_length": 168,
    "model.model_dim": 32,
    "model.feedforward_dim": 64,
    "model.num_levels": 2,
    "model.merge_size": 1,
    "train.max_epochs": 2,
    "train.windows_per_epoch": 2000,
    "train.patience": 0,
}
AXES: dict[str, list[dict[str, Any]]] = {
    "depth": [{"model.num_levels": levels} for levels in (1, 2, 5)],
    "width": [
        {"model.model_dim": width, "model.feedforward_dim": 2 * width, "model.num_heads": 4} for width in (16, 32, 96)
    ],
    "epochs": [{"train.max_epochs": epochs} for epochs in (1, 2, 6)],
}
FOLDER = Path("runs/outliers")
RESULTS = Path(__file__).parent / "results"


def cells(changes: dict[str, Any], more: list[str], seeds: list[int]) -> list[Cell]:
    """Both methods and all seeds of one setting."""
    found = []
    for method in METHODS:
        for seed in seeds:
            values = {**BASE, **changes, "train.seed": seed, "data.source": "ETTh1"}
            own = Layer("study", nest(values | {f"model.{k}": v for k, v in method_settings(method).items()}))
            config = resolve([*data_set_layers("ETTh1"), own, *map(assignment_layer, more)])
            found.append(Cell(method, config, SCHEMES))
    return found


def mean(measured: list[Measured], method: str, figure: str) -> float:
    """``figure`` of ``method``, mean over the seeds."""
    own = [each for each in measured if each.method == method]
    values = {
        "inf-norm": [each.outliers["all"]["max_inf_norm"] for each in own],
        "kurtosis": [each.outliers["all"]["average_kurtosis"] for each in own],
        "W8A8 loss, %": [100 * each.loss("w8a8") for each in own],
        "W6A6 loss, %": [100 * each.loss("w6a6") for each in own],
        "MSE": [each.mse for each in own],
    }[figure]
    return sum(values) / len(values)


def plot(rows: list[dict[str, Any]]) -> bytes:
    """Each figure against each axis, softmax and OutEffHop."""
    figures = ["inf-norm", "kurtosis", "W8A8 loss, %", "W6A6 loss, %"]
    figure = Figure(figsize=(9, 9), dpi=100, layout="constrained")
    grid = figure.subplots(len(figures), len(AXES), sharex="col", squeeze=False)
    for column, axis in enumerate(AXES):
        own = [row for row in rows if row["axis"] == axis]
        for line, name in enumerate(figures):
            axes = grid[line, column]
            for method, colour in zip(METHODS, ("#D55E00", "#0072B2"), strict=True):
                axes.plot(
                    [row["value"] for row in own], [row[method][name] for row in own], "o-", color=colour, label=method
                )
            axes.set_title(f"{name} by {axis}", fontsize=9, loc="left")
            tidy(axes)
    grid[0, 0].legend(fontsize=8)
    return as_png(figure)


def main() -> None:
    """Train, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="trainings of each setting")
    options = parser.parse_args()
    more = options.set
    rows = []
    for axis, settings in AXES.items():
        for changes in settings:
            value = next(iter(changes.values()))
            # the settings that equal the base are the same trainings: one folder for each configuration
            names = [f"{key.split('.')[1]}-{each}" for key, each in (BASE | changes).items()]
            folder = FOLDER / storage.safe_name("-".join([*names, *more]))
            measured = run_cells(cells(changes, more, options.seeds), folder=folder, progress=False)
            names_of_figures = ["inf-norm", "kurtosis", "W8A8 loss, %", "W6A6 loss, %", "MSE"]
            row = {"axis": axis, "value": value, "changes": changes} | {
                method: {figure: mean(measured, method, figure) for figure in names_of_figures} for method in METHODS
            }
            rows.append({**row, "cells": [asdict(each) for each in measured]})
            print(axis, value, *[f"{method}: {row[method]}" for method in METHODS], sep="\n  ", flush=True)
    document = {"base": BASE, "set": more, "seeds": options.seeds, "rows": rows}
    storage.write_text(RESULTS / "outliers.json", json.dumps(document, indent=2) + "\n")
    storage.write_bytes(RESULTS / "outliers.png", plot(rows))


if __name__ == "__main__":
    main()
