"""``stanhop runs``: what a person sees of a store with a few runs, and how long one with thousands takes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stanhop.benchmarks.many_runs import fill_store
from stanhop.forecasting.bundle import load_bundle

NUM_MANY, LIMIT_S = 2_000, 5.0
NUM_WINDOWS = 307


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A store of 40 runs: 20 variants, 2 seeds."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copy(migrated_database, folder / "mlflow.db")
    fill_store(folder, num_runs=40, num_windows=NUM_WINDOWS)
    return folder


@pytest.fixture
def in_few(few: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(few)
    return few


def test_a_list_is_newest_first_and_says_that_there_are_more(in_few: Path, run: Any) -> None:
    lines = run("runs", "list", "--limit", "3").out.splitlines()
    assert lines[0].split()[:4] == ["run", "id", "began", "status"]
    assert [line.split()[0] for line in lines[1:4]] == ["synthetic-40", "synthetic-39", "synthetic-38"]
    assert lines[-1] == "3 of 40 runs; --limit 0 shows all"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--data", "synthetic"), 40),
        (("--data", "ETTh1"), 0),
        (("--preset", "synthetic"), 40),
        (("--separation", "gsh"), 10),
        (("--tag", "seed=2"), 20),
        (("--tag", "seed=2", "--tag", "stanhop.separation=gsh"), 5),
        (("--status", "FAILED"), 0),
    ],
)
def test_filters_narrow_it_down(in_few: Path, run: Any, options: tuple[str, ...], expected: int) -> None:
    document = run("runs", "list", *options, "--limit", "0", "--format", "json").document
    assert document["num_runs"] == len(document["runs"]) == expected


def test_it_can_be_sorted_by_a_metric(in_few: Path, run: Any) -> None:
    document = run("runs", "list", "--sort", "test/mse_scaled", "--format", "json").document
    values = [each["metrics"]["test/mse_scaled"] for each in document["runs"]]
    assert len(values) == 20
    assert values == sorted(values)


def test_show_tells_what_a_run_was_set_to_and_reached(in_few: Path, run: Any) -> None:
    answer = run("runs", "show", "synthetic-12")
    assert answer.code == 0, answer.err
    assert "model.separation  gsh" in answer.out
    assert "test/mse_scaled" in answer.out
    assert "window_errors.npy" in answer.out
    document = run("runs", "show", "synthetic-12", "--format", "json").document
    assert document["differs_from_defaults"]["model.separation"] == "gsh"
    assert document["files"] == ["window_errors.npy"]


def test_compare_groups_by_what_differs(in_few: Path, run: Any) -> None:
    answer = run("runs", "compare", "--separation", "gsh", "--resamples", "200")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == "synthetic, 24 steps: 10 runs, 5 groups"
    assert "model.dropout" in answer.out
    assert "difference from #1, 95 % interval (paired bootstrap over windows and seeds)" in lines
    row = next(line for line in lines if line.strip().startswith("#2") and "[" in line)
    assert row.endswith(("differs", "may be noise"))


def test_compare_as_json_has_the_groups_and_the_intervals(in_few: Path, run: Any) -> None:
    options = ("--separation", "gsh", "--resamples", "200", "--reference", "dropout=0.4", "--format", "json")
    (task,) = run("runs", "compare", *options).document["tasks"]
    assert task["differing"] == {"model.dropout": ["0.0", "0.1", "0.2", "0.3", "0.4"]}
    assert task["reference"] == "dropout=0.4"
    assert len(task["differences"]) == 8, "4 groups, 2 metrics"
    for each in task["differences"]:
        assert each["low"] <= each["difference"] <= each["high"]
        assert (each["num_windows"], each["paired_seeds"], each["over_seeds"]) == (NUM_WINDOWS, True, True)


def test_compare_takes_runs_by_name(in_few: Path, run: Any) -> None:
    (task,) = run("runs", "compare", "synthetic-1", "synthetic-2", "--format", "json").document["tasks"]
    assert [len(group["run_ids"]) for group in task["groups"]] == [1, 1]
    assert any("groups of one seed" in note for note in task["notes"])


def test_compare_writes_csv(in_few: Path, run: Any, tmp_path: Path) -> None:
    options = ("runs", "compare", "--separation", "gsh", "--resamples", "200")
    printed = run(*options, "--csv", "-").out
    assert run(*options, "--csv", tmp_path / "table.csv").code == 0
    assert (tmp_path / "table.csv").read_text() == printed
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == 10, "5 groups, 2 metrics"
    assert rows[0]["difference"] == ""
    assert float(rows[2]["low"]) <= float(rows[2]["difference"]) <= float(rows[2]["high"])
    assert run(*options, "--csv", tmp_path / "table.csv").code == 2, "what exists is kept"


def test_best_goes_by_validation(in_few: Path, run: Any) -> None:
    document = run("runs", "best", "--separation", "gsh", "--format", "json").document
    losses = [
        each["metrics"]["val/best_loss"]
        for each in run("runs", "list", "--separation", "gsh", "--format", "json").document["runs"]
    ]
    assert (document["metric"], document["value"]) == ("val/best_loss", min(losses))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "nobody"), "there is no run 'nobody'"),
        (("list", "--experiment", "other"), "no experiment 'other'"),
        (("list", "--tag", "seed"), "is no NAME=VALUE"),
        (("compare", "--data", "ETTh1"), "no finished training to compare --data ETTh1"),
        (("best", "--metric", "test/beauty"), "no finished training has 'test/beauty'"),
        (("promote",), "name a RUN, or --version with --name"),
    ],
)
def test_what_cannot_be_answered_is_refused(in_few: Path, run: Any, words: tuple[str, ...], message: str) -> None:
    answer = run("runs", *words)
    assert answer.code == 2
    assert message in answer.err


def test_without_a_store_nothing_is_made(elsewhere: Path, run: Any) -> None:
    answer = run("runs", "list")
    assert (answer.code, "there is no tracking store" in answer.err) == (2, True)
    assert not list(elsewhere.iterdir())


def test_a_training_leaves_what_its_runs_are_found_and_compared_by(
    tracking_folder: Path, run: Any, table: Callable[..., Path], small: tuple[str, ...]
) -> None:
    for separation in ("gsh", "softmax"):
        options = (*small, "--set", f"model.separation={separation}", "--output", f"runs/{separation}", "--no-progress")
        assert run("train", "--data", table(), "--preset", "synthetic", *options).code == 0
    assert run("runs", "list", "--preset", "synthetic", "--format", "json").document["num_runs"] == 2
    (task,) = run("runs", "compare", "runs/gsh", "runs/softmax", "--format", "json").document["tasks"]
    assert task["differing"] == {"model.separation": ["gsh", "softmax"]}
    assert all(each["low"] <= each["difference"] <= each["high"] for each in task["differences"])
    promoted = run("runs", "promote", "runs/gsh", "--alias", "champion", "--format", "json").document
    assert (promoted["name"], promoted["version"], promoted["previous"]) == ("stanhop-sales", "1", None)
    again = run("runs", "promote", "softmax", "--alias", "champion", "--format", "json").document
    assert (again["version"], again["previous"], again["is_new"]) == ("2", "1", True)
    same = run("runs", "promote", "gsh", "--alias", "challenger", "--format", "json").document
    assert (same["version"], same["is_new"]) == ("1", False)
    moved = run("runs", "promote", "--name", "stanhop-sales", "--version", "1", "--alias", "champion")
    assert "before: version 2" in moved.out
    refused = run("runs", "promote", "--name", "stanhop-sales", "--version", "9")
    assert "has no version '9'; its versions: 1, 2" in refused.err
    assert_the_champion_loads(tracking_folder)


def assert_the_champion_loads(folder: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    path = mlflow.artifacts.download_artifacts("models:/stanhop-sales@champion", dst_path=str(folder / "got"))
    assert load_bundle(Path(path)).config.model.separation == "gsh"


@pytest.mark.slow
def test_thousands_of_runs_are_listed_and_compared_in_seconds(
    tmp_path: Path, migrated_database: Path, seconds_of: Callable[..., float]
) -> None:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    fill_store(tmp_path, num_runs=NUM_MANY, num_windows=2_857)
    assert seconds_of("list", folder=tmp_path) < LIMIT_S
    assert seconds_of("compare", folder=tmp_path) < LIMIT_S


@pytest.fixture
def seconds_of() -> Callable[..., float]:
    """What a command costs this machine's processor with start-up: time that other programs take does not count."""

    def call(*words: str, folder: Path) -> float:
        began = os.times()
        command = [sys.executable, "-m", "stanhop", "runs", *words, "--format", "json"]
        shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert json.loads(shown.stdout)
        ended = os.times()
        return ended.children_user + ended.children_system - began.children_user - began.children_system

    return call
