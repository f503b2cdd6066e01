"""A float model and its quantised copy, measured side by side: accuracy, size, latency, outliers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from stanhop.forecasting.bundle import Bundle, bundle_bytes
from stanhop.forecasting.evaluation import evaluate
from stanhop.quantization.outliers import measure_outliers
from stanhop.quantization.windows import split_contexts
from stanhop.series.frame import SeriesSet
from stanhop.series.windows import Split

LATENCY_BATCHES = (1, 64)
ROUNDS = {1: 60, 64: 12}
"""Calls timed for each batch size, each model in turn."""
WARM_UP = 2
OUTLIER_BATCHES = 8
"""Batches of 32 windows, from the start of the split, that kurtosis and inf-norm are taken from."""

FIGURES = {
    "mse_scaled": "MSE, scaled",
    "mae_scaled": "MAE, scaled",
    "bytes": "directory, bytes",
    "latency_1_p50_ms": "latency, 1 window, median ms",
    "latency_1_p95_ms": "latency, 1 window, 95th percentile ms",
    "latency_64_p50_ms": "latency, 64 windows, median ms",
    "latency_64_p95_ms": "latency, 64 windows, 95th percentile ms",
    "average_kurtosis": "average kurtosis, all outputs",
    "max_inf_norm": "maximum inf-norm, all outputs",
}
"""What is measured of each model, and how a table calls it."""


@dataclass(frozen=True)
class Comparison:
    """Figures of a float model and of its quantised copy, by the names in ``FIGURES``."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    split: Split

    @property
    def degradation(self) -> float:
        """By which share the squared error grew; negative where it fell."""
        return self.after["mse_scaled"] / self.before["mse_scaled"] - 1

    def exceeds(self, limit: float) -> bool:
        """Whether the loss grew by more than ``limit``; an error that is not a number does."""
        return not self.degradation <= limit


def compare(
    before: Bundle,
    after: Bundle,
    series_set: SeriesSet,
    *,
    split: Split,
    twin: nn.Module | None = None,
    progress: Callable[[str], None] = lambda _step: None,
) -> Comparison:
    """Measure both models on the same windows, in this process, on the CPU.

    Args:
        before: The float model.
        after: The quantised one.
        series_set: Data with their channels.
        split: Whose windows; what decides on a model should not be the test rows.
        twin: A network with the same integers as ``after``, to take kurtosis and inf-norm from where that one is an
            ONNX file, whose inner outputs cannot be seen.
        progress: Called with what begins.
    """
    bundles = {"before": before, "after": after}
    listened = {"before": before.network, "after": twin or after.network}
    figures: dict[str, dict[str, float]] = {}
    for name, bundle in bundles.items():
        progress(f"measuring the model {name} quantising")
        metrics = evaluate(bundle, series_set, split=split, device="cpu").metrics
        contexts = islice(split_contexts(bundle, series_set, split, batch_size=32), OUTLIER_BATCHES)
        summary = measure_outliers(listened[name], contexts).summary("all")
        figures[name] = {
            "mse_scaled": metrics["mse_scaled"],
            "mae_scaled": metrics["mae_scaled"],
            "bytes": float(bundle_bytes(bundle)),
            "average_kurtosis": summary.average_kurtosis,
            "max_inf_norm": summary.max_inf_norm,
        }
    networks = {name: bundle.network for name, bundle in bundles.items()}
    for size in LATENCY_BATCHES:
        progress(f"timing batches of {size}")
        for name, times in alternating_times(networks, _batch(before, size), rounds=ROUNDS[size]).items():
            figures[name][f"latency_{size}_p50_ms"] = 1e3 * float(np.percentile(times, 50))
            figures[name][f"latency_{size}_p95_ms"] = 1e3 * float(np.percentile(times, 95))
    ordered = {name: {figure: values[figure] for figure in FIGURES} for name, values in figures.items()}
    return Comparison(ordered["before"], ordered["after"], split)


def alternating_times(networks: Mapping[str, nn.Module], contexts: Tensor, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call by network, the networks taking turns, after a few to warm up."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for number in range(rounds + WARM_UP):
            for name, network in networks.items():
                began_s = time.perf_counter()
                network(contexts)
                if number >= WARM_UP:
                    times[name].append(time.perf_counter() - began_s)
    return times


def table(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Rows of figure, before, after and change."""
    rows = [("", "before", "after", "change")]
    for figure, label in FIGURES.items():
        before, after = comparison.before[figure], comparison.after[figure]
        rows.append((label, _shown(before), _shown(after), _change(before, after)))
    return rows


def as_metrics(figures: Mapping[str, float], split: Split) -> dict[str, float]:
    """``figures`` by the names that MLflow records them under."""
    prefixes = {"mse_scaled": f"{split}/", "mae_scaled": f"{split}/", "bytes": "size/model_"}
    outliers = {"average_kurtosis": "outliers/all/", "max_inf_norm": "outliers/all/"}
    places = {**dict.fromkeys(figures, "time/"), **prefixes, **outliers}
    return {f"{places[name]}{name}": value for name, value in figures.items() if math.isfinite(value)}


def _batch(bundle: Bundle, size: int) -> Tensor:
    """A batch of contexts of unit scale; time does not depend on what they hold."""
    shape = (size, bundle.config.model.context_length, bundle.num_columns)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.2f} %" if before else ""


def as_plain(comparison: Comparison) -> dict[str, object]:
    """The comparison as plain data."""
    return {**dataclasses.asdict(comparison), "degradation": comparison.degradation}
