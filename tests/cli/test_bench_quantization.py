"""``stanhop bench quantization``: the table, its figures, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def call(run: Any, table: Any, small: Any, *more: Any) -> Any:
    methods = ("--methods", "softmax,gated_outeffhop", "--seeds", "1,2", "--schemes", "w8a8,w4a8")
    return run("bench", "quantization", "--data", table(), *methods, *small, "--no-tracking", "--output", "b", *more)


def test_every_method_and_seed_is_trained_once_and_measured_on_its_own_checkpoint(
    run: Any, table: Any, small: Any, elsewhere: Path
) -> None:
    answer = call(run, table, small, "--results", "results", "--format", "json")
    assert answer.code == 0, answer.err
    rows = answer.document["rows"]
    assert [(row["method"], row["seeds"]) for row in rows] == [("softmax", [1, 2]), ("gated_outeffhop", [1, 2])]
    kept = [json.loads((elsewhere / "b" / f"softmax-{seed}" / "quantization.json").read_text()) for seed in (1, 2)]
    losses = [100 * (each["measured"]["mse_by_scheme"]["w4a8"] / each["measured"]["mse"] - 1) for each in kept]
    assert rows[0]["loss_percent"]["w4a8"]["mean"] == pytest.approx(sum(losses) / 2), "paired: each with its own"
    evaluated = run("evaluate", "--model", "b/softmax-1/model", "--format", "json").document["test"]["mse_scaled"]
    assert kept[0]["measured"]["mse"] == pytest.approx(evaluated)
    assert (elsewhere / "results" / "quantization.md").read_text().count("\n") == 4
    assert "bench quantization" in json.loads((elsewhere / "results" / "quantization.json").read_text())["command"]

    times = {path: path.stat().st_mtime_ns for path in sorted((elsewhere / "b").rglob("*.*")) if path.is_file()}
    again = call(run, table, small, "--results", "results", "--format", "json")
    assert again.document["rows"] == rows
    assert "training" not in again.err
    assert "simulating" not in again.err
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert not changed

    other = call(run, table, small, "--set", "train.learning_rate=0.5")
    assert other.code == 2
    assert "holds a training of another configuration; choose another --output folder" in other.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--methods", "hardmax"), "'hardmax' is no method; choose from outeffhop"),
        (("--schemes", "int8"), "'int8' is no quantisation scheme"),
        (("--seeds", "a"), "--seeds: 'a' is no list of numbers"),
        (("--outputs", "heads"), "--outputs: 'heads' is none of blocks"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_trained(run: Any, arguments: Any, problem: str) -> None:
    answer = run("bench", "quantization", "--data", "synthetic", *arguments)
    assert answer.code == 2
    assert problem in answer.err
    assert not Path("runs").exists()
