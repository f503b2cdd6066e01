"""``stanhop bench accuracy``: the grid as words, the table as files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    *("--prediction-length", "5", "--set", "model.context_length=23", "--set", "model.patch_length=7"),
    *("--set", "model.model_dim=4", "--set", "model.num_heads=2", "--set", "model.feedforward_dim=3"),
    *("--epochs", "1", "--set", "train.batch_size=17", "--device", "cpu", "--no-tracking"),
)


def test_a_grid_ends_in_a_table_and_goes_on_when_called_again(run: Any, table: Callable[..., Path]) -> None:
    data = table()
    command = ("bench", "accuracy", "--data", data, *SMALL, "--seeds", "1", "--baselines", "naive", "--results", "out")
    separations = ("--separations", "softmax,gated_outeffhop", "--format", "json")
    answer = run(*command, *separations)
    assert answer.code == 0
    document = answer.document
    names = {row["model"] for row in document["rows"]}
    assert names == {"STanHop-Net (softmax)", "STanHop-Net (gated_outeffhop)", "naive (sktime)"}
    stored = json.loads(Path("out/accuracy.json").read_text())
    words = shlex.split(stored["command"])
    assert words[:3] == ["stanhop", "bench", "accuracy"]
    assert words[words.index("--set") + 1] == "model.context_length=23"
    assert words[words.index("--baselines") + 1] == "naive"
    assert stored["rows"] == json.loads(json.dumps(document["rows"]))
    assert Path(document["table"]).read_text().startswith("### sales.csv, 5 steps")
    gated = Path("runs/accuracy/sales-5-gated_outeffhop-1/config.yaml").read_text()
    assert "separation: outeffhop\n  gate: true" in gated
    assert len(answer.err.splitlines()) == 3
    again = run(*command, *separations)
    assert again.document["rows"] == document["rows"]
    assert not again.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--seeds", "1,x"), "--seeds '1,x' is not whole numbers; write 24,48,…"),
        (("--prediction-length", "24,"), "--prediction-length '24,' has an empty name"),
        (("--baselines", "prophet"), "no baseline is called 'prophet'"),
        (("--separations", "hardmax"), "model.separation: input should be"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(run: Any, words: tuple[str, ...], problem: str) -> None:
    answer = run("bench", "accuracy", *words)
    assert answer.code == 2
    assert problem in answer.err
    assert not Path("runs").exists()
