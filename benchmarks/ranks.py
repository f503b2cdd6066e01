"""What a regression of low rank is worth, and how clearly the validation windows have to be for it.

    pip install 'stanhop[benchmarks]'
    python benchmarks/ranks.py

On stretches of series that come with packages, and of ETTh1 and WTH before their test rows, the ridge regression of the
first three fifths of the rows gives way to the best one of a lower rank where that is better on the fifth after them by
a margin; errors are those on the last fifth. Beside the margins stands what a lower rank does where it is always taken.
The table goes to ``benchmarks/results/ranks.{json,md}``. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mean_reversion
import numpy as np
import pandas as pd
import torch
import untouched
from priors import SHARES, Piece, Task, measured

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.config import DataConfig
from stanhop.series.load import load_series
from stanhop.training.least_squares import best_pulled, of_best_rank

RESULTS = Path(__file__).parent / "results"
STRETCHES, NUM_STRETCHES = (4000, 7000), 4
"""Rows of a piece of ETTh1 and WTH, and how many pieces of each length."""
ALWAYS = -math.inf
MARGINS = (ALWAYS, 0.0, 0.002, 0.005, 0.01)

Change = tuple[bool, float]
"""Whether a lower rank was taken, and the logarithm by which it changes the error on the last rows."""


def lengths(num_rows: int) -> tuple[tuple[int, int], ...]:
    """Context and horizon to try on a series of so many rows."""
    if num_rows < 400:
        return (24, 12), (36, 12)
    return ((96, 24), (96, 48)) if num_rows < 2000 else ((336, 24), (336, 96), (336, 336))


def pieces() -> Iterator[Piece]:
    """Name of the series, rows, and contexts with their horizons."""
    for make in (*untouched.SHORT, *untouched.SERIES):
        table = make()
        for share in SHARES:
            yield make.__name__, table.iloc[: int(share * len(table))], lengths(len(table))
    for name, num_rows in mean_reversion.BEFORE_TEST_ROWS.items():
        (whole,) = load_series(DataConfig(source=name)).series
        table = pd.DataFrame(whole.values, whole.times, list(whole.channels))
        for length in STRETCHES:
            for first in np.linspace(0, num_rows - length, NUM_STRETCHES).astype(int):
                yield name, table.iloc[first : first + length], (*lengths(length), (336, 720))


def changes(task: Task) -> list[Change]:
    """What each margin does."""
    prior, maps = best_pulled(task.candidates, task.train, task.choosing)
    whole = min(maps, key=task.choosing.error)
    taken = [of_best_rank(maps, prior.weight.double(), task.train, task.choosing, margin=margin) for margin in MARGINS]
    return [(not torch.equal(each, whole), math.log(task.last.error(each) / task.last.error(whole))) for each in taken]


def summary(name: str, steps: int, cases: list[list[Change]]) -> dict[str, Any]:
    """Of a series and horizon: in how many cases each margin takes a lower rank, and the mean change of the error."""
    row: dict[str, Any] = {"data": name, "prediction_length": steps, "cases": len(cases), "margins": []}
    for margin, found in zip(MARGINS, zip(*cases, strict=True), strict=True):
        change = 100 * math.expm1(statistics.fmean(each for _, each in found))
        name_of_margin = "always" if margin == ALWAYS else margin
        taken = sum(was_taken for was_taken, _ in found)
        row["margins"].append({"margin": name_of_margin, "taken": taken, "mse_change_percent": change})
    return row


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    headings = ["always" if margin == ALWAYS else f"margin {margin:.1%}" for margin in MARGINS]
    lines = [
        f"| | steps | cases | {' | '.join(f'{heading}: taken, MSE, %' for heading in headings)} |",
        "|---" * (3 + len(MARGINS)) + "|",
    ]
    for row in rows:
        cells = [f"{each['taken']}, {each['mse_change_percent']:+.2f}" for each in row["margins"]]
        lines.append(f"| {row['data']} | {row['prediction_length']} | {row['cases']} | {' | '.join(cells)} |")
    of_margins = zip(*(row["margins"] for row in rows), strict=True)
    means = [statistics.fmean(each["mse_change_percent"] for each in margin) for margin in of_margins]
    lines.append(f"| mean | | | {' | '.join(f'{mean:+.2f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args()
    cases: dict[tuple[str, int], list[list[Change]]] = {}
    for name, prediction_length, found in measured(pieces(), changes):
        cases.setdefault((name, prediction_length), []).append(found)
    table = [summary(name, steps, found) for (name, steps), found in cases.items()]
    what = "mean change of the squared error on the last fifth of the rows where a regression may have a lower rank"
    document = {"what": what, "machine": machine(), "rows": table}
    storage.write_text(options.results / "ranks.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(options.results / "ranks.md", to_markdown(table))
    print(to_markdown(table), end="")


if __name__ == "__main__":
    main()
