"""``stanhop tune``: from a table to a preset that trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPACE = "train: {learning_rate: {low: 1e-4, high: 1e-1, log: true}}\nmodel: {dropout: {low: 0.0, high: 0.3}}\n"


@pytest.mark.slow
def test_a_search_writes_a_preset_that_trains(
    run: Any, table: Callable[..., Path], small: tuple[str, ...], elsewhere: Path
) -> None:
    (elsewhere / "space.yaml").write_text(SPACE)
    options = ("--data", table(), "--space", "space.yaml", *small, "--no-tracking")
    answer = run("tune", *options, "--trials", "3")
    assert answer.code == 0, answer.err
    assert "trial 3 of 3" in answer.err
    document = run("tune", *options, "--trials", "4", "--format", "json").document
    assert document["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert document["best_loss"] <= document["start_loss"]
    assert document["preset"] == "runs/tune-sales/best.yaml"
    training = run("train", "--data", table(), "-c", document["preset"], "--no-tracking", "--format", "json").document
    assert training["metrics"]["val/best_loss"] == document["best_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no data set or file is given"),
        (("--data", "synthetic", "--space", "missing.yaml"), "missing.yaml: cannot read"),
        (("--data", "synthetic", "--set", "train.devices=2"), "train.devices is 2"),
    ],
)
def test_what_cannot_be_searched_is_refused(run: Any, elsewhere: Path, options: tuple[str, ...], message: str) -> None:
    answer = run("tune", *options)
    assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not list(elsewhere.iterdir())
