"""The scripts of benchmarks/: each can still be imported, so that what it takes from the program is still there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from stanhop.config import ModelConfig
from stanhop.forecasting.bundle import network as bundle_network
from stanhop.training import lightning_module

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_all_that_it_imports(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(path.parent)  # as `python benchmarks/...` does
    names = runpy.run_path(str(path), run_name="imported")
    assert callable(names["main"])


def test_what_an_ablation_cuts_is_missing_where_networks_are_trained_and_loaded() -> None:
    names = runpy.run_path(str(SCRIPTS[0].with_name("ablation.py")), run_name="imported")
    config = ModelConfig(context_length=8, prediction_length=2, patch_length=4, model_dim=4, num_heads=2)
    with names["built"](names["without_encoder"]):
        for module in (lightning_module, bundle_network):
            assert not len(module.build_network(config, 2).encoder)
    assert len(lightning_module.build_network(config, 2).encoder) == config.num_levels


def test_an_ablation_says_in_standard_errors_how_clearly_a_variant_is_worse() -> None:
    names = runpy.run_path(str(SCRIPTS[0].with_name("ablation.py")), run_name="imported")
    figures = {"mse": 1.0, "mae": 1.0, "parameters": 7, "seconds": 2.0}
    preset = names["Run"](figures, torch.zeros(16))
    more = torch.tensor([1.0, 3.0]).repeat(4).repeat_interleave(2)  # by stretches of two windows: 2 on average
    worse, better = (names["Run"](figures, sign * more) for sign in (1, -1))
    rows = [
        names["summary"](names["Variant"](name), [run, run], [preset, preset], horizon=2)
        for name, run in (("preset", preset), ("worse", worse), ("better", better))
    ]
    expected = 2 / (torch.tensor([1.0, 3.0] * 4).std().item() / 8**0.5)
    found = [row["mse_change_standard_errors"] for row in rows]
    assert found[0] is None
    assert found[1:] == pytest.approx([expected, -expected])
    assert rows[1]["runs"] == [figures, figures]
    lines = names["to_markdown"](rows).splitlines()
    assert "| worse | 1.0000 ± 0.0000 | +0.0 ± 0.0 | +5.3 |" in lines[3]
