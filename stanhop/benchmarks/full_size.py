"""Table 1 of the OutEffHop paper for STanHop-Net at its full size: outliers and W8A8 on the same checkpoints.

Eleven levels, 256 wide, 35 million weights, ETTh1, 168 -> 24 steps, by the preset ``published-outeffhop-etth1``. The
published code has four of the table's six methods; it has no gate.

Source: Hu et al. 2024, arXiv:2404.03828.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stanhop.benchmarks.quantization import Cell, method_settings, run_cells
from stanhop.config import Layer, assignment_layer, nest, preset_layers, resolve
from stanhop.forecasting.bundle import Bundle, load_bundle
from stanhop.forecasting.forecaster import choose_device
from stanhop.model.network import build_network
from stanhop.quantization.outliers import measure_outliers
from stanhop.quantization.windows import split_contexts
from stanhop.series.catalog import data_sets
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.training.outcome import MODEL

METHODS = ("softmax", "outeffhop", "clipped_softmax", "clipped_outeffhop")
SEEDS = (1, 2, 3)
SCHEMES = ("w8a8",)
DATA, PRESET = "ETTh1", "published-outeffhop-etth1"
TINY = {
    "data.source": "synthetic",
    "data.split.train": 800,
    "data.split.validation": 300,
    "data.split.test": 300,
    "model.model_dim": 8,
    "model.feedforward_dim": 8,
    "model.num_levels": 2,
    "train.max_epochs": 1,
    "train.windows_per_epoch": 64,
}


def cells(*, is_tiny: bool = False, assignments: Sequence[str] = ()) -> Iterator[Cell]:
    """Every training, seed by seed.

    Args:
        is_tiny: Whether to cut it to what says nothing and takes seconds.
        assignments: ``key=value`` that change the preset.
    """
    for seed in SEEDS[:1] if is_tiny else SEEDS:
        for method in METHODS:
            grid = {f"model.{key}": value for key, value in method_settings(method).items()}
            own = grid | {"train.seed": seed, "tracking.enabled": False} | (TINY if is_tiny else {})
            layers = [*preset_layers(PRESET), data_sets()[DATA].layer(), Layer("the table", nest(own))]
            config = resolve([*layers, *map(assignment_layer, assignments)])
            yield Cell(method, config, SCHEMES)


def measured(cell: Cell, folder: Path) -> dict[str, Any]:
    """What one training gave, as plain data; begun in ``folder`` before, it goes on.

    Returns:
        Errors in float32 and quantised, outliers by selection of outputs, trained and as the seed made them.
    """
    [found] = run_cells([cell], folder=folder, progress=False)
    series_set = load_series(cell.config.data)
    bundle = load_bundle(folder / cell.name / MODEL)
    return dataclasses.asdict(found) | {"untrained": untrained_outliers(cell, bundle, series_set)}


def untrained_outliers(cell: Cell, bundle: Bundle, series_set: SeriesSet) -> dict[str, dict[str, Any]]:
    """Outliers of the network before its first step, over the windows of ``measured``."""
    torch.manual_seed(cell.config.train.seed)
    network: nn.Module = build_network(cell.config.model, len(bundle.channels)).eval()
    device = choose_device(cell.config.train.device)
    contexts = split_contexts(bundle, series_set, "test", batch_size=32)
    report = measure_outliers(network.to(device), (batch.to(device) for batch in contexts))
    return {counted: dataclasses.asdict(report.summary(counted)) for counted in report.selections}
