"""``stanhop config``: the presets, and where each value of a configuration comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stanhop.config import RunConfig, find_preset, flatten, preset_layers, resolve
from stanhop.resources import preset_paths

PRESETS = list(preset_paths())


def test_every_preset_is_listed_with_its_first_line(run: Any) -> None:
    assert PRESETS
    listed = run("config", "list", "--format", "json").document["presets"]
    assert [preset["name"] for preset in listed] == PRESETS
    assert all(preset["description"] and not preset["description"].startswith("#") for preset in listed)
    lines = run("config", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves_and_says_what_it_is_and_how_to_run_it(name: str) -> None:
    resolve(preset_layers(name))
    first, second = find_preset(name).read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ")
    assert "stanhop train" in second


def test_show_prints_every_key_with_value_and_origin(run: Any) -> None:
    answer = run("config", "show", "--set", "model.dropout=0.5", "--sep", ";", "--format", "json")
    keys = answer.document["keys"]
    assert set(keys) == set(flatten(RunConfig().model_dump()))
    assert keys["model.dropout"] == {"value": 0.5, "origin": "--set model.dropout"}
    assert keys["data.separator"] == {"value": ";", "origin": "--sep"}
    assert keys["train.seed"] == {"value": RunConfig().train.seed, "origin": "default"}
    human = run("config", "show", "--set", "model.dropout=0.5").out
    assert [line.split() for line in human.splitlines() if "dropout" in line] == [
        ["model.dropout", "0.5", "--set", "model.dropout"]
    ]


def test_show_knows_the_environment(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANHOP_TRAIN__SEED", "9")
    assert run("config", "show", "--format", "json").document["keys"]["train.seed"] == {
        "value": 9,
        "origin": "STANHOP_TRAIN__SEED",
    }


def test_show_refuses_what_does_not_hold_together(run: Any) -> None:
    answer = run("config", "show", "--set", "train.max_epoch=3")
    assert answer.code == 2
    assert "unknown key train.max_epoch (from --set train.max_epoch); did you mean train.max_epochs?" in answer.err
    assert "no preset is called 'nope'" in run("config", "show", "nope").err
    assert "nope.yaml: cannot read" in run("config", "show", "nope.yaml").err


def test_a_copied_preset_is_a_file_to_use_and_not_written_over(run: Any, elsewhere: Path) -> None:
    name = PRESETS[0]
    answer = run("config", "copy", name, "mine.yaml")
    assert (answer.code, answer.out) == (0, "mine.yaml\n")
    assert (elsewhere / "mine.yaml").read_bytes() == find_preset(name).read_bytes()
    assert yaml.safe_load((elsewhere / "mine.yaml").read_text())
    again = run("config", "copy", name, "mine.yaml")
    assert again.code == 2
    assert "mine.yaml: exists already; choose another name or add --overwrite" in again.err
    assert run("config", "copy", name, "mine.yaml", "--overwrite").code == 0
    assert run("config", "show", "-c", "mine.yaml").code == 0


def test_an_unknown_preset_is_not_copied(run: Any, elsewhere: Path) -> None:
    assert run("config", "copy", "nope", "mine.yaml").code == 2
    assert list(elsewhere.iterdir()) == []
