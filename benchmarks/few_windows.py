"""What training windows add to the calibration of prediction intervals, by how many validation windows there are.

    pip install 'stanhop[benchmarks]'
    STANHOP_DATA_DIR=... python benchmarks/few_windows.py

Of each piece of a series a network with the defaults is trained on the first 70 % of the rows, validated on the next
10 %, and its intervals are measured on the rest: calibrated on the validation windows alone, on these and the training
windows with their errors as they are, and with those magnified. Pieces are the first rows of the series of
``untouched.py``, fewer or more of them, and stretches of ETTh1 and WTH before their test rows, so that these decide
nothing. The table goes to ``benchmarks/results/few_windows.{json,md}``. About six minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mean_reversion
import numpy as np
import pandas as pd
import torch
import untouched

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.cli.layers import run_layers
from stanhop.config import DataConfig, RunConfig, resolve
from stanhop.errors import DataError
from stanhop.forecasting.calibration import KnownErrors
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import Values, conformal_quantile, scale_of, tails
from stanhop.forecasting.metrics import interval_scores
from stanhop.forecasting.rolling import Rolled, origins_of, roll, train_rows
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.load import load_series
from stanhop.series.windows import borders
from stanhop.training.in_memory import fit_in_memory

RESULTS = Path(__file__).parent / "results"
LEVELS = (80.0, 95.0)
SHARES = (0.7, 0.85, 1.0)
"""Of the rows of a series."""
STRETCHES = ((300, 48, 24), (600, 48, 24), (1500, 48, 24), (2500, 96, 96), (4000, 96, 24), (11520, 168, 24))
"""Rows, context and horizon of pieces of ETTh1 and WTH."""
NUM_STRETCHES = 3
LONG = ((untouched.el_nino, 48, 12), (untouched.weather, 96, 24), (untouched.sunspots, 96, 24))
"""Series with their context and horizon, beside the short ones."""
NUM_WINDOWS = (1, 6, 16, 40, 100, 400)
"""Fewest validation windows of each line of the table."""
ALONE, AS_THEY_ARE, MAGNIFIED = "validation windows alone", "training windows as they are", "magnified"

Piece = tuple[str, pd.DataFrame, tuple[str, ...]]
"""Name of the series, rows, and what is not as the defaults have it."""


def pieces() -> Iterator[Piece]:
    """All of them."""
    groups = [group for name, group in untouched.GROUPS.items() if name != "long"]
    short = [(make, (f"model.prediction_length={group.prediction_length}", *group.settings))
             for group in groups for make in group.series]  # fmt: skip
    for make, settings in (*short, *((make, _sizes(context, horizon)) for make, context, horizon in LONG)):
        table = make()
        for share in SHARES:
            yield make.__name__, table.iloc[: int(share * len(table))], settings
    for name, num_rows in mean_reversion.BEFORE_TEST_ROWS.items():
        (whole,) = load_series(DataConfig(source=name)).series
        table = pd.DataFrame(whole.values, whole.times, list(whole.channels))
        for length, context, horizon in STRETCHES:
            for first in sorted(
                set(np.linspace(0, num_rows - length, NUM_STRETCHES if length < 9000 else 1).astype(int))
            ):
                yield name, table.iloc[first : first + length], _sizes(context, horizon)


def _sizes(context_length: int, prediction_length: int) -> tuple[str, ...]:
    return f"model.context_length={context_length}", f"model.prediction_length={prediction_length}"


def windows(config: RunConfig) -> dict[str, list[Rolled]] | None:
    """The windows of each split, forecast by a network that was trained on the first of them; None of too few rows."""
    series_set = load_series(config.data)
    (series,) = series_set.series
    try:
        SeriesDataModule(series_set, config)
    except DataError:
        return None
    bundle = fit_in_memory(config, series_set, borders_of=lambda each: borders(len(each), config.data.split))
    forecaster = Forecaster(bundle)
    scaler = forecaster.scaler_of(series, rows=train_rows(bundle, series))
    return {
        split: list(roll(forecaster, series, origins_of(bundle, series, split), scaler=scaler, batch_size=256))
        for split in ("train", "validation", "test")
    }


def measured(found: dict[str, list[Rolled]]) -> dict[str, Any]:
    """Coverage and interval score of each way to calibrate, by level."""
    unseen, learned = found["validation"], found["train"]
    ways = {
        ALONE: KnownErrors.of(unseen, []),
        AS_THEY_ARE: KnownErrors.of([*unseen, *learned], []),
        MAGNIFIED: KnownErrors.of(unseen, learned),
    }
    row: dict[str, Any] = {"num_windows": sum(map(len, unseen)), "magnification": ways[MAGNIFIED].magnification}
    for name, errors in ways.items():
        scores = errors.scores()
        row[name] = {f"{level:g}": figures(scores, errors.floor, found["test"], level) for level in LEVELS}
    return row


def figures(scores: Values, floor: Values, rolled: list[Rolled], level: float) -> dict[str, float]:
    """Coverage and mean interval score of intervals with offsets from ``scores``."""
    target, forecast = (np.concatenate([getattr(batch, name) for batch in rolled]) for name in ("target", "forecast"))
    scale = np.concatenate([scale_of(batch.context, floor) for batch in rolled])
    lower, upper = (forecast + scale * conformal_quantile(scores, probability) for probability in tails(level))
    is_inside = (lower <= target) & (target <= upper)
    return {
        "coverage": float(is_inside.mean()),
        "score": float(interval_scores(lower, upper, target, level=level).mean()),
    }


def summary(fewest: int, most: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the pieces with so many validation windows: mean coverage, and the mean change of the score, in percent."""
    chosen = [row for row in rows if fewest <= row["num_windows"] <= most]
    line: dict[str, Any] = {"fewest": fewest, "most": most, "pieces": len(chosen)}
    for way in (ALONE, AS_THEY_ARE, MAGNIFIED):
        for level in (f"{level:g}" for level in LEVELS):
            coverages = [row[way][level]["coverage"] for row in chosen]
            changes = [math.log(row[way][level]["score"] / row[ALONE][level]["score"]) for row in chosen]
            line[f"{way}, {level} %"] = {
                "coverage": statistics.fmean(coverages),
                "least": min(coverages),
                "score_change_percent": 100 * math.expm1(statistics.fmean(changes)),
            }
    return line


def to_markdown(lines: list[dict[str, Any]]) -> str:
    """The table."""
    ways = [f"{way}, {level:g} %" for way in (ALONE, AS_THEY_ARE, MAGNIFIED) for level in LEVELS]
    text = [f"| validation windows | pieces | {' | '.join(f'{way}: covers (least), score' for way in ways)} |"]
    text.append("|---" * (2 + len(ways)) + "|")
    for line in lines:
        cells = [
            f"{each['coverage']:.0%} ({each['least']:.0%}), {each['score_change_percent']:+.0f} %"
            for each in (line[way] for way in ways)
        ]
        span = f"{line['fewest']} to {line['most']:g}" if math.isfinite(line["most"]) else f"from {line['fewest']} on"
        text.append(f"| {span} | {line['pieces']} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def main() -> None:
    """Train, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.csv"
        for name, table, settings in pieces():
            storage.write_text(path, table.to_csv(index_label="date", date_format="%Y-%m-%d %H:%M"))
            config = resolve(
                run_layers(data=str(path), preset=None, files=[], assignments=list(settings), flags=[], environment={})
            )
            found = windows(config)
            if found is None:
                continue
            rows.append({"data": name, "rows": len(table), "settings": settings, **measured(found)})
            print(f"{name}, {len(table):,} rows: {rows[-1]['num_windows']} validation windows", flush=True)
    spans = zip(NUM_WINDOWS, (*(each - 1 for each in NUM_WINDOWS[1:]), math.inf), strict=True)
    lines = [summary(fewest, most, rows) for fewest, most in spans]
    what = "coverage on later rows, and how much lower or higher the interval score is than of validation windows alone"
    document = {"what": what, "machine": machine(), "rows": rows}
    storage.write_text(options.results / "few_windows.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(options.results / "few_windows.md", to_markdown(lines))
    print(to_markdown(lines), end="")


if __name__ == "__main__":
    main()
