"""Where layers come from: files, environment, assignments, presets; and a configuration that is written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop.config import (
    DataConfig,
    RunConfig,
    TrainConfig,
    assignment_layer,
    environment_layers,
    file_layer,
    preset_layers,
    preset_or_file_layers,
    resolve,
    sources,
    to_yaml,
)
from stanhop.errors import ConfigError


def run_configs() -> st.SearchStrategy[RunConfig]:
    odd_words = st.sampled_from(["1e-4", "no", "2016-07-01", "null", "~", "1e5", "010", "1:30", "=", "<<", "a: b", "#"])
    words = (st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | odd_words).filter(str.strip)
    data = st.builds(
        DataConfig,
        source=words,
        time_column=st.none() | words,
        target_columns=st.none() | st.lists(words, max_size=3).map(tuple),
        date_format=st.none() | words,
        missing=st.sampled_from(get_args(DataConfig.model_fields["missing"].annotation)),
    )
    rates = st.floats(min_value=1e-300, max_value=1e300)
    train = st.builds(TrainConfig, learning_rate=rates, seed=st.integers(0, 2**32 - 1))
    return st.builds(RunConfig, data=data, train=train)


def run_config(**data: Any) -> RunConfig:
    return RunConfig(data=DataConfig(**data))


@given(run_configs())
@example(run_config(target_columns=("0\x85", "a\u2028b", "\t", "1e-4", "no")))
def test_a_written_configuration_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, written: RunConfig) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(to_yaml(written), encoding="utf-8")
    assert resolve([file_layer(path)]) == written


def test_a_file_that_cannot_be_a_configuration_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot read: No such file or directory"):
        file_layer(path)
    path.write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is not UTF-8 text"):
        file_layer(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="not sections of keys"):
        file_layer(path)
    path.write_text("# nothing but this\n")
    assert file_layer(path).values == {}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel:\n  dropout: 0.5\n")
    assert file_layer(path).values == {"model": {"dropout": 0.5}}


def test_the_environment_sets_keys_and_is_named_in_errors() -> None:
    environment = {"STANHOP_MODEL__DROPOUT": "0.25", "STANHOP_DATA_DIR": "/data", "PATH": "/bin"}
    (layer,) = environment_layers(environment)
    assert resolve([layer]).model.dropout == 0.25
    assert layer.origin == "STANHOP_MODEL__DROPOUT"
    with pytest.raises(ConfigError, match=r"model\.dropout: .* got 'much' \(from STANHOP_MODEL__DROPOUT\)"):
        resolve(environment_layers({"STANHOP_MODEL__DROPOUT": "much"}))


def test_an_assignment_sets_one_key() -> None:
    layer = assignment_layer("data.split.train=0.5")
    assert layer.values == {"data": {"split": {"train": 0.5}}}
    assert layer.origin == "--set data.split.train"
    assert assignment_layer("data.source=a=b").values == {"data": {"source": "a=b"}}


@pytest.mark.parametrize("text", ["model.dropout", "dropout=1", "=1", "model.=1", "a b.c=1", ""])
def test_what_is_no_assignment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"for example --set model\.dropout=0\.1"):
        assignment_layer(text)


def test_an_unknown_preset_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "preset_paths", lambda: {"etth1": tmp_path / "etth1.yaml"})
    with pytest.raises(ConfigError, match=r"no preset is called 'eth1'; did you mean etth1\?; known presets: etth1"):
        preset_or_file_layers("eth1")


def test_a_preset_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {seed: 5}\n")
    assert [layer.values for layer in preset_or_file_layers(str(path))] == [{"train": {"seed": 5}}]


def test_a_preset_for_a_horizon_lies_over_that_of_its_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {name: tmp_path / f"{name}.yaml" for name in ("etth1", "etth1-720", "lonely-7", "published-etth1")}
    for name, path in paths.items():
        path.write_text(f"tracking: {{experiment: {name}}}\n")
    monkeypatch.setattr(sources, "preset_paths", lambda: paths)
    assert [layer.origin for layer in preset_layers("etth1-720")] == ["preset etth1", "preset etth1-720"]
    assert resolve(preset_layers("etth1-720")).tracking.experiment == "etth1-720"
    for alone in ("etth1", "lonely-7", "published-etth1"):
        assert [layer.origin for layer in preset_layers(alone)] == [f"preset {alone}"]
