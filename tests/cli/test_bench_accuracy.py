"""``stanhop bench accuracy``: the grid as words, the table as files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stanhop.benchmarks import accuracy, network_figures
from stanhop.benchmarks.accuracy import Cell
from stanhop.benchmarks.measurement import Measurement
from stanhop.cli.layers import data_set_layers
from stanhop.config import Layer, preset_layers, resolve
from stanhop.hopfield.separation import SEPARATIONS

SMALL = (
    *("--prediction-length", "5", "--set", "model.context_length=23", "--set", "model.patch_length=7"),
    *("--set", "model.model_dim=4", "--set", "model.num_heads=2", "--set", "model.feedforward_dim=3"),
    *("--epochs", "1", "--set", "train.batch_size=17", "--device", "cpu", "--no-tracking"),
)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_figures, "NUM_ROUNDS", 3)


@pytest.mark.slow
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
    assert len(answer.err.splitlines()) == 6, "two trainings with their outliers, the time of steps, a baseline"
    assert not list(Path("runs/accuracy").glob("*.md")), "the whole table is elsewhere"
    again = run(*command, *separations)
    assert again.document["rows"] == document["rows"]
    assert not again.err


def test_every_cell_has_the_preset_of_its_data_and_horizon(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[Cell] = []

    def run_grid(given: list[Cell], *_: Any, **__: Any) -> list[Measurement]:
        cells.extend(given)
        return []

    monkeypatch.setattr(accuracy, "run_grid", run_grid)
    horizons = ("--prediction-length", "24,336", "--seeds", "1,2")
    assert run("bench", "accuracy", "--data", "ETTh1", *horizons, "--baselines", "none", "--no-tracking").code == 0
    assert [cell.name for cell in cells] == [
        f"ETTh1-{steps}-outeffhop-{seed}" for steps in (24, 336) for seed in (1, 2)
    ]
    for cell in cells:
        steps = cell.config.model.prediction_length
        layers = [*preset_layers("etth1-336" if steps == 336 else "etth1"), *data_set_layers("ETTh1")]
        alone = resolve([*layers, Layer("horizon", {"model": {"prediction_length": steps}})])
        assert cell.config.model == alone.model
        assert cell.config.train == alone.train.model_copy(update={"seed": cell.config.train.seed})
        assert cell.preset == ("etth1-336" if steps == 336 else "etth1")
    assert cells[0].config.model.dropout != cells[2].config.model.dropout, "or nothing of the variation was seen"


def test_every_separation_of_the_papers_can_be_asked_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[Cell] = []
    monkeypatch.setattr(accuracy, "run_grid", lambda given, *_, **__: cells.extend(given) or [])
    names = [f"{gate}{name}" for gate in ("", "gated_") for name in SEPARATIONS]
    answer = run("bench", "accuracy", "--separations", ",".join(names), "--seeds", "1", "--baselines", "none")
    assert answer.code == 0
    assert [cell.model for cell in cells] == names
    assert [(cell.config.model.gate, cell.config.model.separation) for cell in cells] == [
        (is_gated, name) for is_gated in (False, True) for name in SEPARATIONS
    ]


def test_baselines_can_be_measured_without_a_network(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(accuracy, "run_grid", lambda *_, trains_networks, **__: asked.append(trains_networks) or [])
    assert run("bench", "accuracy", "--separations", "none", "--baselines", "naive").code == 0
    assert run("bench", "accuracy", "--baselines", "naive").code == 0
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--separations", "none", "--baselines", "none"), "both none: there is nothing to measure"),
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
