"""``stanhop bench quantization``: the table, its figures, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stanhop.benchmarks import network_figures

ON_TEST = ("--split", "test", "--dry-run", "--format", "json")
NO_EXTRAS = ("--set", "model.channel_embedding=false", "--set", "model.instance_norm=false")
PUBLISHED = ("--set", "model.network=published_outeffhop", *NO_EXTRAS)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_figures, "NUM_ROUNDS", 3)


def call(run: Any, table: Any, small: Any, *more: Any) -> Any:
    methods = (
        "--methods",
        "softmax,gated_outeffhop",
        "--seeds",
        "1,2",
        "--schemes",
        "w8a8,w4a8",
        "--backends",
        "dynamic",
    )
    return run("bench", "quantization", "--data", table(), *methods, *small, "--no-tracking", "--output", "b", *more)


@pytest.mark.slow
def test_every_method_and_seed_is_trained_once_and_measured_on_its_own_checkpoint(
    run: Any, table: Any, small: Any, elsewhere: Path
) -> None:
    answer = call(run, table, small, "--results", "results", "--format", "json")
    assert answer.code == 0, answer.err
    rows = answer.document["rows"]
    assert [(row["method"], row["seeds"]) for row in rows] == [("softmax", [1, 2]), ("gated_outeffhop", [1, 2])]
    kept = [json.loads((elsewhere / "b" / f"softmax-{seed}" / "quantization.json").read_text()) for seed in (1, 2)]
    measured = [each["measured"] for each in kept]
    changes = [100 * (each["quantized"]["w4a8"]["mse"] / each["float32"]["mse"] - 1) for each in measured]
    change = rows[0]["quantized"]["w4a8"]["change_percent"]["mean"]
    assert change == pytest.approx(sum(changes) / 2), "paired: each with its own"
    evaluated = run("evaluate", "--model", "b/softmax-1/model", "--format", "json").document["test"]
    assert measured[0]["float32"] == pytest.approx({"mse": evaluated["mse_scaled"], "mae": evaluated["mae_scaled"]})
    quantized = run("quantize", "--model", "b/softmax-1/model", *ON_TEST).document["after"]
    assert measured[0]["quantized"]["int8-dynamic"]["mae"] == pytest.approx(quantized["mae_scaled"])
    assert (elsewhere / "results" / "quantization.md").read_text().count("\n") == 4
    document = json.loads((elsewhere / "results" / "quantization.json").read_text())
    assert "bench quantization" in document["command"]
    names = [(each["method"], each["seed"]) for each in document["checkpoints"]]
    assert names == [(method, seed) for seed in (1, 2) for method in ("softmax", "gated_outeffhop")]
    steps = [each["step_seconds"]["median"] for each in document["checkpoints"]]
    assert rows[1]["step_seconds"]["mean"] == pytest.approx((steps[1] + steps[3]) / 2)
    assert all(0 < seconds < 5 for seconds in steps)

    times = {path: path.stat().st_mtime_ns for path in sorted((elsewhere / "b").rglob("*.*")) if path.is_file()}
    again = call(run, table, small, "--results", "results", "--format", "json")
    assert again.document["rows"] == rows
    assert "training" not in again.err
    assert "quantising" not in again.err
    assert "timing" not in again.err
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert not changed

    other = call(run, table, small, "--set", "train.learning_rate=0.5")
    assert other.code == 2
    assert "holds a training of another configuration; choose another --output folder" in other.err


def test_published_networks_are_measured_likewise_with_the_outputs_of_their_decoder(
    run: Any, table: Any, small: Any, elsewhere: Path
) -> None:
    methods = ("--methods", "outeffhop", "--seeds", "1", "--schemes", "w8a8", "--backends", "none")
    options = (*methods, "--outputs", "decoder", *small, *PUBLISHED, "--no-tracking", "--output", "b")
    answer = run("bench", "quantization", "--data", table(), *options, "--format", "json")
    assert answer.code == 0, answer.err
    [row] = answer.document["rows"]
    assert row["quantized"]["w8a8"]["change_percent"]["mean"] != 0
    assert row["outliers"]["decoder"]["max_inf_norm"]["mean"] > 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--methods", "hardmax"), "'hardmax' is no method; choose from outeffhop"),
        (("--schemes", "int8"), "'int8' is no quantisation scheme"),
        (("--backends", "int4"), "--backends: 'int4' is none of dynamic, static, onnx; write none for no real int8"),
        (("--seeds", "a"), "--seeds: 'a' is no list of numbers"),
        (("--outputs", "heads"), "--outputs: 'heads' is none of blocks"),
        (("--outputs", "decoder"), "--outputs: 'decoder' is none of blocks, feedforward, norms, all"),
        (("--methods", "gated_softmax", *PUBLISHED), "network published_outeffhop has no gate"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_trained(run: Any, arguments: Any, problem: str) -> None:
    answer = run("bench", "quantization", "--data", "synthetic", *arguments)
    assert answer.code == 2
    assert problem in answer.err
    assert not Path("runs").exists()
