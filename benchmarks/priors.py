"""What a regression gains on rows that come later by being pulled to the season before, by what that takes.

    pip install 'stanhop[benchmarks]'
    STANHOP_DATA_DIR=... python benchmarks/priors.py

Of each piece of a series the first three fifths are trained on, the next one chooses, the last one measures. Pieces are
the first rows of a series, fewer or more of them, and of ETTh1 and WTH short stretches before their test rows, so that
these decide nothing. Nothing is trained: the forecast is the ridge regression alone. A margin is by which share the
error on the choosing rows has to be lower than with the other priors. The table goes to
``benchmarks/results/priors.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mean_reversion
import numpy as np
import pandas as pd
import untouched

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.config import DataConfig, ModelConfig, RunConfig
from stanhop.errors import DataError
from stanhop.forecasting.calendar import season_length
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.load import load_series
from stanhop.training.least_squares import PENALTIES, Moments, own_rows, ridge_maps
from stanhop.training.priors import Prior, priors

RESULTS = Path(__file__).parent / "results"
SHARES = (0.55, 0.7, 0.85, 1.0)
"""Of the rows of a series."""
STRETCHES, NUM_STRETCHES = (300, 600, 1500), 8
"""Rows of a piece of ETTh1 and WTH, and how many pieces of each length."""
MARGINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)
SEASONAL = ("the season before", "the season before and its rise")

Case = TypeVar("Case")

Piece = tuple[str, pd.DataFrame, tuple[tuple[int, int], ...]]
"""Name of the series, rows, and contexts with their horizons."""


@dataclass(frozen=True)
class Task:
    """Regressions to be learned on ``train``, chosen on ``choosing`` and measured on ``last``.

    Args:
        candidates: What they may be pulled to.
        train: Of the first three fifths.
        choosing: Of the fifth after them.
        last: Of the last fifth.
    """

    candidates: tuple[Prior, ...]
    train: Moments
    choosing: Moments
    last: Moments


def task_of(path: Path, *, context_length: int, prediction_length: int) -> Task | None:
    """That of the file at ``path``; None where rows are too few."""
    data = DataConfig(source=str(path), split=mean_reversion.SPLIT)
    sizes = {"context_length": context_length, "prediction_length": prediction_length, "patch_length": 1}
    series_set = load_series(data)
    try:
        datamodule = SeriesDataModule(series_set, RunConfig(data=data, model=ModelConfig(**sizes)))
    except DataError:
        return None
    windows, _ = datamodule.ordered_train_windows()
    candidates = priors(context_length, prediction_length, season=season_length(series_set.frequency))
    parts = (windows, datamodule.val_dataloader(), datamodule.test_dataloader())
    return Task(tuple(candidates), *(Moments.of(own_rows(each, instance_norm=True)) for each in parts))


def measured(pieces: Iterable[Piece], measure: Callable[[Task], Case]) -> Iterator[tuple[str, int, Case]]:
    """Series, horizon, and what ``measure`` finds, for each task of ``pieces``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.csv"
        for name, rows, sizes in pieces:
            storage.write_text(path, rows.to_csv(index_label="date"))
            for context_length, prediction_length in sizes:
                task = task_of(path, context_length=context_length, prediction_length=prediction_length)
                if task is not None:
                    yield name, prediction_length, measure(task)


def lengths(num_rows: int) -> tuple[tuple[int, int], ...]:
    """Context and horizon to try on a series of so many rows."""
    if num_rows < 400:
        return (24, 6), (24, 12), (36, 12)
    return ((48, 24), (96, 24)) if num_rows < 2000 else ((96, 24), (336, 24), (336, 96))


def pieces() -> Iterator[Piece]:
    """Name of the series, rows, and contexts with their horizons."""
    for make in (*untouched.SHORT, *untouched.SERIES, mean_reversion.walks):
        table = make()
        for share in SHARES:
            yield make.__name__, table.iloc[: int(share * len(table))], lengths(len(table))
    for name, num_rows in mean_reversion.BEFORE_TEST_ROWS.items():
        (whole,) = load_series(DataConfig(source=name)).series
        table = pd.DataFrame(whole.values, whole.times, list(whole.channels))
        for length in STRETCHES:
            for first in np.linspace(0, num_rows - length, NUM_STRETCHES).astype(int):
                yield f"{name}, short", table.iloc[first : first + length], ((48, 24), (96, 24), (168, 48))


def errors(task: Task) -> dict[str, tuple[float, float]]:
    """Squared errors of each prior's regression on the choosing and the last rows."""
    found = {}
    for prior in task.candidates:
        best = min(ridge_maps(task.train, prior.weight, PENALTIES), key=task.choosing.error)
        held = 1 - prior.margin * (prior.name not in SEASONAL)
        found[prior.name] = (task.choosing.error(best) / held, task.last.error(best))
    return found


def change(found: dict[str, tuple[float, float]], margin: float) -> float | None:
    """Logarithm by which a seasonal prior changes the error on the last rows; None where none is taken."""
    choosing = {name: error / (1 - margin * (name in SEASONAL)) for name, (error, _) in found.items()}
    taken, before = (
        min(names, key=choosing.__getitem__) for names in (found, [name for name in found if name not in SEASONAL])
    )
    return math.log(found[taken][1] / found[before][1]) if taken in SEASONAL else None


def summary(name: str, cases: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    """Cases of a series, in how many a seasonal prior is taken, and the mean change of the squared error there."""
    row: dict[str, Any] = {"data": name, "cases": len(cases), "margins": []}
    for margin in MARGINS:
        changes = [found for found in (change(case, margin) for case in cases) if found is not None]
        mean = 100 * math.expm1(sum(changes) / len(cases))
        row["margins"].append({"margin": margin, "taken": len(changes), "mse_change_percent": mean})
    return row


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        f"| | cases | {' | '.join(f'margin {margin:.0%}: taken, MSE, %' for margin in MARGINS)} |",
        "|---" * (2 + len(MARGINS)) + "|",
    ]
    for row in rows:
        cells = [f"{each['taken']}, {each['mse_change_percent']:+.1f}" for each in row["margins"]]
        lines.append(f"| {row['data']} | {row['cases']} | {' | '.join(cells)} |")
    of_margins = zip(*(row["margins"] for row in rows), strict=True)
    means = [statistics.fmean(each["mse_change_percent"] for each in margin) for margin in of_margins]
    lines.append(f"| mean of the series | | {' | '.join(f'{mean:+.1f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args()
    cases: dict[str, list[dict[str, tuple[float, float]]]] = {}
    for name, _, found in measured(pieces(), errors):
        cases.setdefault(name, []).append(found)
    table = [summary(name, found) for name, found in cases.items()]
    what = "mean change of the squared error on the last fifth of the rows where a seasonal prior may be taken"
    document = {"what": what, "machine": machine(), "rows": table}
    storage.write_text(options.results / "priors.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(options.results / "priors.md", to_markdown(table))
    print(to_markdown(table), end="")


if __name__ == "__main__":
    main()
