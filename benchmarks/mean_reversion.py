"""What the return of levels to their mean gains on rows that come later, by how its factor is chosen.

    pip install 'stanhop[benchmarks]'
    STANHOP_DATA_DIR=... python benchmarks/mean_reversion.py

Of each series the first three fifths are trained on, the next one chooses, the last one measures. Nothing is trained:
the forecast is the ridge regression alone, with and without the return. Of ETTh1 and WTH only the rows before their
test rows are used, so that these decide nothing. The table goes to ``benchmarks/results/mean_reversion.json`` and
``.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import untouched

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.config import DataConfig, ModelConfig, RunConfig, SplitConfig
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.load import load_series
from stanhop.training.least_squares import Moments, best_ridge, own_rows
from stanhop.training.mean_reversion import FACTORS, LevelMoments, factor, moments, tried

RESULTS = Path(__file__).parent / "results"
SPLIT = SplitConfig(train=0.6, validation=0.2, test=0.2)
BEFORE_TEST_ROWS = {"ETTh1": 11_520, "WTH": 27_360}


def walks() -> pd.DataFrame:
    """Six random walks of 4,000 steps, which return to nothing."""
    steps = np.random.default_rng(1).normal(size=(4000, 6))
    columns = [f"walk_{number}" for number in range(6)]
    return pd.DataFrame(steps.cumsum(axis=0), pd.date_range("2020-01-01", periods=4000, freq="h"), columns)


def series(folder: Path) -> Iterator[tuple[str, DataConfig]]:
    """Every series by its name."""
    for make in (*untouched.SERIES, walks):
        yield make.__name__, DataConfig(source=str(untouched.written(make, folder)), split=SPLIT)
    for name, num_rows in BEFORE_TEST_ROWS.items():
        (whole,) = load_series(DataConfig(source=name)).series
        path = folder / f"{name}.csv"
        table = pd.DataFrame(whole.values, whole.times, list(whole.channels))[:num_rows]
        storage.write_text(path, table.to_csv(index_label="date"))
        yield f"{name} before its test rows", DataConfig(source=str(path), split=SPLIT)


def measured(data: DataConfig, *, context_length: int, prediction_length: int) -> dict[str, Any]:
    """Change of the squared error on the last fifth, in percent, with either factor."""
    sizes = {"context_length": context_length, "prediction_length": prediction_length, "patch_length": 1}
    datamodule = SeriesDataModule(load_series(data), RunConfig(data=data, model=ModelConfig(**sizes)))
    direct = best_ridge(datamodule).double()
    whole, gains = tried(datamodule, direct)
    first, *others = moments(datamodule.test_dataloader(), direct)
    later: LevelMoments = sum(others, first)
    error = Moments.of(own_rows(datamodule.test_dataloader(), instance_norm=True)).error(direct)
    squares = error * prediction_length * later.count * len(later.level)

    def change(chosen: float) -> dict[str, float]:
        return {"factor": chosen, "mse_change_percent": -100 * later.gain(chosen * whole.shares()) / squares}

    return {
        "prediction_length": prediction_length,
        "share_at_the_last_step": float(whole.shares()[-1]),
        "best": change(FACTORS[int(gains.mean(0).argmax())]),
        "within_one_standard_error": change(factor(gains)),
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| | steps | share, last step | best factor | MSE, % | factor within one standard error | MSE, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        best, safe = row["best"], row["within_one_standard_error"]
        cells = [f"{each['factor']:.1f} | {each['mse_change_percent']:+.1f}" for each in (best, safe)]
        share = f"{row['share_at_the_last_step']:.2f}"
        lines.append(f"| {row['data']} | {row['prediction_length']} | {share} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in series(Path(folder)):
            (longest, *_) = sorted((len(each) for each in load_series(data).series), reverse=True)
            context = 336 if longest >= 2000 else 96
            for steps in (24, 96) if context < 336 or longest < 10_000 else (24, 96, 336, 720):
                row = measured(data, context_length=context, prediction_length=steps)
                rows.append({"data": name, "context_length": context, **row})
                print(to_markdown(rows[-1:]).splitlines()[-1], flush=True)
    what = "change of the squared error on the last fifth of the rows, ridge regression with and without the return"
    document = {"what": what, "machine": machine(), "rows": rows}
    storage.write_text(options.results / "mean_reversion.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(options.results / "mean_reversion.md", to_markdown(rows))


if __name__ == "__main__":
    main()
