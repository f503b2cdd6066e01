"""The order of layers: defaults < preset < data set < files < environment < --set < flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stanhop.cli import layers as layers_module
from stanhop.cli.layers import data_set_layers, preset_of, run_layers, topmost
from stanhop.config import Layer, RunConfig, origin_of_keys, resolve
from stanhop.errors import ConfigError


@pytest.fixture(autouse=True)
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three presets: for a data set, for a horizon of it, for the built-in set."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "etth1.yaml").write_text(
        "# x\ndata: {source: ETTh1}\nmodel: {num_levels: 3, dropout: 0.05, model_dim: 8}\n"
    )
    (folder / "etth1-96.yaml").write_text("# x\nmodel: {num_levels: 5}\n")
    (folder / "synthetic.yaml").write_text("# x\nmodel: {num_levels: 4}\n")
    paths = {path.stem: path for path in folder.iterdir()}
    monkeypatch.setattr(layers_module, "preset_paths", lambda: paths)
    monkeypatch.setattr("stanhop.config.sources.preset_paths", lambda: paths)


def layers_of(
    data: str | None = None,
    *,
    preset: str | None = None,
    files: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Layer]:
    flag_layers = [Layer(f"--{name}", {"model": {name: value}}) for name, value in (flags or {}).items()]
    return run_layers(
        data=data,
        preset=preset,
        files=files,
        assignments=assignments,
        flags=flag_layers,
        environment=environment or {},
    )


def test_each_layer_covers_the_one_below(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {dropout: 0.1}\n")
    given: dict[str, Any] = {}
    expected = [0.05]
    assert resolve(layers_of("ETTh1")).model.dropout == 0.05
    for addition, value in (
        ({"files": [mine]}, 0.1),
        ({"environment": {"STANHOP_MODEL__DROPOUT": "0.2"}}, 0.2),
        ({"assignments": ["model.dropout=0.3"]}, 0.3),
        ({"flags": {"dropout": 0.4}}, 0.4),
    ):
        given |= addition
        expected.append(resolve(layers_of("ETTh1", **given)).model.dropout)
        assert expected[-1] == value


def test_later_files_and_assignments_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("model: {dropout: 0.1, num_heads: 2}\n")
    second.write_text("model: {dropout: 0.2}\n")
    config = resolve(layers_of("ETTh1", files=[first, second], assignments=["train.seed=3", "train.seed=4"]))
    assert (config.model.dropout, config.model.num_heads, config.train.seed) == (0.2, 2, 4)


def test_a_named_set_brings_its_preset_split_and_reading() -> None:
    layers = layers_of("ETTh1")
    config = resolve(layers)
    assert config.model.num_levels == 3
    assert (config.data.split.train, config.data.split.test) == (8640, 2880)
    origins = origin_of_keys(layers)
    assert origins["model.num_levels"] == "preset etth1"
    assert origins["data.split.train"] == "data set ETTh1"
    assert origins["data.source"] == "--data"
    assert resolve(layers_of("WTH")).data.date_format == "%m/%d/%Y %H:%M"


def test_the_preset_of_the_horizon_lies_over_that_of_the_set() -> None:
    assert resolve(layers_of("ETTh1", flags={"prediction_length": 96})).model.dropout == 0.05
    assert resolve(layers_of(preset="etth1-96")).model.model_dim == 8
    assert resolve(layers_of(preset="etth1", flags={"prediction_length": 96})).model.num_levels == 5
    assert resolve(layers_of("ETTh1", flags={"prediction_length": 96})).model.num_levels == 5
    assert resolve(layers_of("ETTh1", flags={"prediction_length": 48})).model.num_levels == 3
    assert resolve(layers_of("ETTh1", assignments=["model.prediction_length=96"])).model.num_levels == 5


def test_a_preset_that_is_asked_for_takes_the_place_of_the_other() -> None:
    assert resolve(layers_of("ETTh1", preset="synthetic")).model.num_levels == 4
    mine = resolve(layers_of("mine.csv", preset="etth1"))
    assert (mine.model.num_levels, mine.data.source) == (3, "mine.csv")


def test_a_preset_alone_may_name_the_data() -> None:
    config = resolve(layers_of(preset="etth1"))
    assert (config.data.source, config.data.split.train) == ("ETTh1", 8640)


def test_the_built_in_set_has_a_preset_and_no_catalogue_entry() -> None:
    config = resolve(layers_of("synthetic"))
    assert config.model.num_levels == 4
    assert config.data.split == RunConfig().data.split


@pytest.mark.parametrize("source", ["ETTh1.csv", "./ETTh1", "etth1", "data/WTH.csv"])
def test_a_file_gets_neither_preset_nor_split_whatever_its_name(source: str) -> None:
    assert resolve(layers_of(source)) == resolve([Layer("x", {"data": {"source": source}})])
    assert data_set_layers(source) == []


def test_the_source_may_stand_in_a_file_or_an_assignment(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("data: {source: ETTh1}\n")
    assert resolve(layers_of(files=[mine])).model.num_levels == 3
    assert resolve(layers_of(assignments=["data.source=ETTh1"])).data.split.train == 8640
    assert resolve(layers_of("synthetic", files=[mine])).data.source == "synthetic"


def test_what_the_user_says_about_reading_beats_the_catalogue() -> None:
    assert resolve(layers_of("WTH", assignments=["data.date_format='%Y'"])).data.date_format == "%Y"
    with pytest.raises(ConfigError, match="three fractions below 1 or three whole numbers"):
        resolve(layers_of("WTH", assignments=["data.split.train=0.5"]))


def test_topmost_tells_what_the_highest_layer_says() -> None:
    layers = [Layer("a", {"x": {"y": 1}}), Layer("b", {"x": {"y": 2}}), Layer("c", {"z": 3})]
    assert topmost("x.y", layers) == 2
    assert topmost("q", layers) is None


def test_the_preset_is_told_by_its_name_the_one_for_the_horizon_before_its_base() -> None:
    base, variation = Layer("preset etth1", {}), Layer("preset etth1-720", {})
    assert preset_of([base, variation, Layer("--set", {})]) == "etth1-720"
    assert preset_of([base]) == "etth1"
    assert preset_of([Layer("mine.yaml", {})]) is None
