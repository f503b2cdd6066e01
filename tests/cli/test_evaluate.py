"""``stanhop evaluate``: errors of a model on the split that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROWS, TEST_ROWS, TRAIN_ROWS = 211, 43, 147
"""With fractions 0.7, 0.1, 0.2."""


def test_the_model_s_own_data_give_the_metrics_of_training(trained: Path, run: Any) -> None:
    answer = run("evaluate", "--model", trained / "model", "--format", "json")
    assert answer.code == 0, answer.err
    document = answer.document
    training = run("train", "--resume", "--output", trained, "--format", "json").document
    assert document["test"] == pytest.approx(training["test"], rel=1e-4)
    assert (document["model"], document["split"]) == (str(trained / "model"), "test")
    assert set(document["per_channel"]) == {"load", "wind", "price"}
    assert len(document["per_step"]["mse"]) == 5


def test_the_split_can_be_chosen(trained: Path, run: Any) -> None:
    counts = {}
    for split in ("train", "validation", "test"):
        document = run("evaluate", "--model", trained / "model", "--split", split, "--format", "json").document
        counts[split] = document[split]["num_windows"]
    assert counts["train"] > counts["test"] > counts["validation"] > 0


def test_other_data_are_read_and_split_as_the_model_s_were(trained: Path, run: Any, table: Any) -> None:
    path = table("other.csv", num_rows=307)
    document = run("evaluate", "--model", trained / "model", "--data", path, "--format", "json").document
    assert document["data"] == str(path)
    assert document["test"]["num_windows"] > 50


def test_flags_change_how_other_data_are_read(trained: Path, run: Any, table: Any) -> None:
    path = table("semicolons.csv", separator=";")
    assert run("evaluate", "--model", trained / "model", "--data", path).code == 2
    assert run("evaluate", "--model", trained / "model", "--data", path, "--sep", ";").code == 0


def test_data_with_other_channels_are_refused(trained: Path, run: Any) -> None:
    answer = run("evaluate", "--model", trained / "model", "--data", "synthetic")
    assert answer.code == 2
    assert "error[E111]" in answer.err


def test_people_get_a_table(trained: Path, run: Any) -> None:
    lines = run("evaluate", "--model", trained / "model").out.splitlines()
    assert lines[0].split()[0] == "mse_scaled"
    assert [line.split()[0] for line in lines[-4:]] == ["channel", "load", "wind", "price"]
    assert [line.split()[0] for line in lines if " % " in line] == ["80", "95"]


def test_intervals_are_measured_at_the_levels_asked_for_and_as_they_learn(trained: Path, run: Any) -> None:
    answer = run("evaluate", "--model", trained / "model", "--levels", "80", "--adaptive", "--format", "json")
    assert answer.code == 0, answer.err
    names = {"coverage_80", "width_80", "width_80_scaled", "winkler_80_scaled"}
    assert names | {f"adaptive_{name}" for name in names} <= set(answer.document["test"])
    assert "coverage_95" not in answer.document["test"]
    assert len(answer.document["per_step"]["adaptive_coverage_80"]) == 5
    assert answer.document["per_channel"]["wind"]["coverage_80"] <= 1


def test_levels_that_the_model_lacks_are_calibrated_and_that_is_said(trained: Path, run: Any) -> None:
    answer = run("evaluate", "--model", trained / "model", "--levels", "90")
    assert "intervals are calibrated now, on the validation and training rows of" in answer.err
    assert "90 %" in answer.out
    for split in ("validation", "train"):
        assert "on these very rows" in run("evaluate", "--model", trained / "model", "--split", split).err
    assert "on these very rows" not in answer.err


@pytest.mark.parametrize("levels", ["", "80,80", "0", "100", "eighty", "80;95", "-5"])
def test_levels_that_are_no_percentages_are_refused(trained: Path, run: Any, levels: str) -> None:
    answer = run("evaluate", "--model", trained / "model", "--levels", levels)
    assert answer.code == 2
    assert "is not percentages between 0 and 100, each once; write --levels 80,95" in answer.err
