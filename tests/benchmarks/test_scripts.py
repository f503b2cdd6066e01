"""The scripts of benchmarks/: each can still be imported, so that what it takes from the program is still there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

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
