"""Do prediction intervals hold what they promise? Coverage and width on the test rows of ETTh1, 24 steps ahead.

Trains a network with a point head and one with a quantile head (preset etth1), calibrates each on the validation rows
with and without the scale of the context, and measures both as they are and as they learn from each outcome. Nothing is
chosen by the test rows. Networks that stand in the folder already are not trained again.

With --choose, it shows instead what the two constants in stanhop/forecasting were chosen by: interval scores on one
half of the validation rows, with offsets of the other half, the mean of both ways round.

Run: python benchmarks/intervals.py --threads 1
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stanhop.benchmarks.table import machine
from stanhop.cli.layers import run_layers
from stanhop.config import Layer, RunConfig, resolve
from stanhop.forecasting.adaptive import RATE, AdaptiveIntervals
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.evaluation import Evaluation, evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import (
    SHARE_OF_MEAN,
    Intervals,
    Prediction,
    conformal_quantile,
    scale_of,
    tails,
)
from stanhop.forecasting.metrics import interval_scores
from stanhop.forecasting.rolling import origins_of, roll
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import write_text
from stanhop.training.once import fit_once

LEVELS = (80.0, 95.0)
HEADS = ("point", "quantile")
SHARES = (0.0, 0.25, 0.5, 1.0, 1e6)
RATES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SMALLEST = 1e-6
SAME_FOR_ALL = 1e6
"""A floor beside which no context's own deviation counts: the scale is the same for all windows."""
RESULTS = Path(__file__).parent / "results"
HEADINGS = ("head", "scores", "kind", "80 %: coverage", "width", "score", "95 %: coverage", "width", "score", "MSE")


def config_of(head: str, source: str) -> RunConfig:
    """Preset etth1 with ``head``, tracked nowhere."""
    own = {"model": {"head": head, "levels": list(LEVELS)}, "tracking": {"enabled": False}}
    layers = run_layers(data=source, preset=None, files=[], assignments=[], flags=[Layer("here", own)], environment={})
    return resolve(layers)


def rows_of(head: str, model_path: Path, series_set: SeriesSet) -> list[dict[str, Any]]:
    """A row for each way to score errors and for each kind of interval."""
    bundle = load_bundle(model_path)
    rows = []
    for scores in ("scaled", "plain"):
        floor = np.full(bundle.num_channels, SAME_FOR_ALL) if scores == "plain" else None
        intervals = calibrate(bundle, series_set, levels=LEVELS, floor=floor)
        measured = evaluate(
            dataclasses.replace(bundle, intervals=intervals), series_set, levels=LEVELS, is_adaptive=True
        )
        for kind, prefix in (("calibrated", ""), ("adaptive", "adaptive_")):
            rows.append({"head": head, "scores": scores, "kind": kind, **figures(measured, prefix)})
    return rows


def figures(measured: Evaluation, prefix: str) -> dict[str, Any]:
    """What one kind of interval is worth."""
    names = ("coverage_{:g}", "width_{:g}_scaled", "winkler_{:g}_scaled")
    found = {name.format(level): measured.metrics[prefix + name.format(level)] for level in LEVELS for name in names}
    by_channel = {
        channel: [errors[f"{prefix}coverage_{level:g}"] for level in LEVELS]
        for channel, errors in measured.per_channel.items()
    }
    by_step = {f"coverage_{level:g}": measured.per_step[f"{prefix}coverage_{level:g}"] for level in LEVELS}
    return {**found, "mse_scaled": measured.metrics["mse_scaled"], "by_channel": by_channel, "by_step": by_step}


def choices(model_path: Path, series_set: SeriesSet) -> dict[str, dict[str, float]]:
    """The interval score, summed over levels, by what is added to a context's deviation, and by learning rate."""
    bundle = load_bundle(model_path)
    forecaster, (series,) = Forecaster(bundle), series_set.series
    rows, scaler = origins_of(bundle, series, "validation"), bundle.scalers[series.id]
    rolled = list(roll(forecaster, series, rows, scaler=scaler, batch_size=64))
    context, forecast, target = (
        np.concatenate([getattr(batch, name) for batch in rolled]) for name in ("context", "forecast", "target")
    )
    middle, steps = len(target) // 2, target.shape[1]
    halves = (slice(0, middle), slice(middle + steps, None))  # a horizon apart: no row is a target in both
    found: dict[str, dict[str, float]] = {"share_of_mean": {}, "rate": {}}
    for share in SHARES:
        found["share_of_mean"][f"{share:g}" if share < SAME_FOR_ALL else "plain"] = 0.0
    for tuned_on, measured_on in (halves, halves[::-1]):
        unseen = (Prediction(forecast[measured_on]), context[measured_on])
        for share in SHARES:
            intervals = _calibrated(context[tuned_on], (target - forecast)[tuned_on], share)
            key = f"{share:g}" if share < SAME_FOR_ALL else "plain"
            found["share_of_mean"][key] += _score(intervals.around(*unseen), target[measured_on]) / 2
        intervals = _calibrated(context[tuned_on], (target - forecast)[tuned_on], SHARE_OF_MEAN)
        for rate in RATES:
            bounds = AdaptiveIntervals(intervals, rate=rate).around(*unseen, target[measured_on])
            score = _score(bounds, target[measured_on]) / 2
            found["rate"][f"{rate:g}"] = found["rate"].get(f"{rate:g}", 0.0) + score
    return found


def _calibrated(context: np.ndarray, errors: np.ndarray, share: float) -> Intervals:
    floor = share * context.std(axis=1).mean(axis=0) + SMALLEST
    scores = errors / scale_of(context, floor)
    lower, upper = (np.stack([conformal_quantile(scores, tails(level)[side]) for level in LEVELS]) for side in (0, 1))
    return Intervals(LEVELS, lower, upper, floor, num_windows=len(errors))


def _score(bounds: tuple[np.ndarray, np.ndarray], target: np.ndarray) -> float:
    return sum(
        float(interval_scores(lower, upper, target, level=level).mean())
        for lower, upper, level in zip(*bounds, LEVELS, strict=True)
    )


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table; widths and interval scores are in scaled units."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in rows:
        cells = [row["head"], row["scores"], row["kind"]]
        for level in ("80", "95"):
            cells.append(f"{100 * row[f'coverage_{level}']:.1f} %")
            cells += [f"{row[f'{name}_{level}_scaled']:.3f}" for name in ("width", "winkler")]
        lines.append((*cells, f"{row['mse_scaled']:.3f}"))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Train what is missing, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ETTh1", help="A named data set.")
    parser.add_argument("--folder", type=Path, default=Path("runs/intervals"), help="Where the networks are kept.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Where the figures go.")
    parser.add_argument("--choose", action="store_true", help="Show what the constants were chosen by.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for head in HEADS:
        config = config_of(head, options.data)
        series_set, run_path = load_series(config.data), options.folder / head
        fit_once(config, run_path=run_path, series_set=series_set)
        if options.choose:
            print(json.dumps(choices(run_path / "model", series_set), indent=2))
            return
        rows += rows_of(head, run_path / "model", series_set)
        sys.stderr.write(to_markdown(rows))
    document = {
        "what": "Coverage, mean width and interval score of every test window, step and channel, in scaled units",
        "command": " ".join(["python", "benchmarks/intervals.py", *sys.argv[1:]]),
        "data": options.data,
        "share_of_mean": SHARE_OF_MEAN,
        "rate": RATE,
        "machine": machine(),
        "rows": rows,
    }
    write_text(options.results / "intervals.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_text(options.results / "intervals.md", to_markdown(rows))
    print(to_markdown(rows), end="")


if __name__ == "__main__":
    main()
