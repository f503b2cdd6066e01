"""``stanhop backtest``: windows in words, a table and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_backtest_ends_in_a_table_and_files(run: Any, table: Any, small: tuple[str, ...]) -> None:
    options = ("--windows", "4", "--refit", "every", "2", "--baselines", "naive,seasonal_naive", "--no-tracking")
    arguments = ("backtest", "--data", table(), *small, *options, "--levels", "80")
    answer = run(*arguments, "--format", "json")
    assert answer.code == 0, answer.err
    document = answer.document
    assert (document["windows"], document["trainings"]) == (4, 2)
    assert {each["forecaster"] for each in document["forecasters"]} == {"stanhop", "naive", "seasonal_naive"}
    assert all(len(each["mae_by_window"]) == 4 for each in document["forecasters"])
    folder = Path("runs/backtest-sales")
    assert {"scores.csv", "forecasts.csv", "backtest.md", "backtest.json", "backtest.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "backtest.json").read_text())["windows"] == 4
    header = next(csv.reader((folder / "forecasts.csv").read_text().splitlines()))
    assert header[-2:] == ["stanhop-lo-80", "stanhop-hi-80"]
    again = run(*arguments)
    assert again.code == 0
    assert "training" not in again.err
    assert again.out.splitlines()[0].split() == [
        "|",
        "forecaster",
        "|",
        "MAE",
        "|",
        "sd",
        "|",
        "MSE",
        "|",
        "MASE",
        "|",
        "skill",
        "|",
        "wins",
        "|",
        "in",
        "80",
        "%",
        "|",
        "s",
        "|",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--refit", "each", "4"), "--refit 'each 4' does not say after how many windows; write --refit every 4"),
        (("--refit", "every", "-1"), "--refit 'every -1' does not say after how many windows"),
        (("--windows", "0"), "--windows"),
        (("--windows", "99"), "of which 0 come before the first of 99 windows"),
        (("--baselines", "prophet"), "no baseline is called 'prophet'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    run: Any, table: Any, small: tuple[str, ...], options: tuple[str, ...], message: str
) -> None:
    answer = run("backtest", "--data", table(), *small, "--no-tracking", *options)
    assert answer.code == 2
    assert message in answer.err
    assert not Path("runs").exists()


def test_data_must_be_named(run: Any) -> None:
    assert "no data set or file is given" in run("backtest").err
