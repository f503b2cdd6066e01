"""Whether the default network gains by size: presets of ETTh1 trained wider and deeper than two CPU cores carry.

Everything but width and depth is the preset's. Which size is better is for the validation rows to say; the test rows
are measured beside them, and choose nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stanhop.benchmarks.quantization import Errors
from stanhop.config import Layer, RunConfig, assignment_layer, nest, preset_layers, resolve
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.series.catalog import data_sets
from stanhop.series.load import load_series
from stanhop.series.windows import Split
from stanhop.training.once import fit_once
from stanhop.training.outcome import MODEL

DATA = "ETTh1"
PRESETS = {24: "etth1", 168: "etth1-168"}
"""By steps ahead."""
MODEL_DIMS = (64, 128, 256)
"""Features of a pattern; the feed-forward part has twice as many. The first is the presets'."""
NUM_LEVELS = (2, 4)
"""Levels of the encoder; the first is the presets'."""
SEEDS = (1, 2, 3)
TINY = {
    "data.source": "synthetic",
    "data.split.train": 800,
    "data.split.validation": 300,
    "data.split.test": 300,
    "model.context_length": 96,
    "train.max_epochs": 1,
    "train.windows_per_epoch": 64,
}


@dataclass(frozen=True)
class SizeCell:
    """One training.

    Args:
        prediction_length: Steps ahead.
        model_dim: Its width.
        num_levels: Its depth.
        config: The whole configuration.
    """

    prediction_length: int
    model_dim: int
    num_levels: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Name of its folder."""
        sizes = f"{self.prediction_length}-steps-{self.model_dim}-wide-{self.num_levels}-levels"
        return f"{sizes}-{self.config.train.seed}"


def cells(*, is_tiny: bool = False, assignments: Sequence[str] = ()) -> Iterator[SizeCell]:
    """Every training, seed by seed.

    Args:
        is_tiny: Whether to cut it to what says nothing and takes seconds.
        assignments: ``key=value`` that change every preset.
    """
    every = list(itertools.product(SEEDS, PRESETS, MODEL_DIMS, NUM_LEVELS))
    for seed, steps, model_dim, num_levels in every[: len(NUM_LEVELS)] if is_tiny else every:
        own = {
            "model.model_dim": 8 if is_tiny else model_dim,
            "model.feedforward_dim": 8 if is_tiny else 2 * model_dim,
            "model.num_levels": num_levels,
            "train.seed": seed,
            "tracking.enabled": False,
        } | (TINY if is_tiny else {})
        layers = [*preset_layers(PRESETS[steps]), data_sets()[DATA].layer(), Layer("the grid of sizes", nest(own))]
        config = resolve([*layers, *map(assignment_layer, assignments)])
        yield SizeCell(steps, model_dim, num_levels, config)


def measured(cell: SizeCell, folder: Path) -> dict[str, Any]:
    """What one training gave, as plain data; begun in ``folder`` before, it goes on.

    Returns:
        Errors on the validation and the test rows in scaled units; size, time, and the network's share in the forecast.
    """
    series_set = load_series(cell.config.data)
    metrics = fit_once(cell.config, run_path=folder / cell.name, series_set=series_set, progress=False).metrics
    bundle = load_bundle(folder / cell.name / MODEL)

    def errors(split: Split) -> dict[str, float]:
        found = evaluate(bundle, series_set, split=split, device=cell.config.train.device).metrics
        return asdict(Errors(found["mse_scaled"], found["mae_scaled"]))

    return {
        "prediction_length": cell.prediction_length,
        "model_dim": cell.model_dim,
        "num_levels": cell.num_levels,
        "seed": cell.config.train.seed,
        "num_parameters": int(metrics["size/num_parameters"]),
        "training_seconds": metrics["time/train_s"],
        "network_share": metrics.get("val/network_share"),
        "losses": {"trained": metrics["val/best_loss"], "stacked": metrics.get("val/stacked_loss")},
        "validation": errors("validation"),
        "test": errors("test"),
    }


def to_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a size: MSE and MAE in scaled units, means and standard deviations over the seeds, as columns.

    Args:
        found: What ``measured`` gave, by name; at least one.
    """
    size = ["prediction_length", "num_levels", "model_dim", "num_parameters"]
    parts = [f"{split}.{error}" for split in ("validation", "test") for error in ("mse", "mae")]
    flat = pd.json_normalize([dict(each) for each in found.values()])
    seeds = flat.groupby(size)
    columns = {"seeds": seeds.size().astype(str), "network share": seeds["network_share"].mean().map("{:.2f}".format)}
    for part in parts:
        mean, deviation = seeds[part].mean().map("{:.4f}".format), seeds[part].std().map("{:.4f}".format)
        columns[part] = mean.str.cat(deviation, sep=" ± ").str.removesuffix(" ± nan")
    return pd.DataFrame(columns).reset_index().to_string(index=False)
