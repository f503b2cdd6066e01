"""The configuration: closed, strict, one error for all its problems; layers in order; YAML without surprises."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop import config
from stanhop.config import (
    DataConfig,
    Layer,
    RunConfig,
    assignment_layer,
    environment_layers,
    file_layer,
    flatten,
    merge,
    nest,
    origin_of_keys,
    parse_yaml,
    preset_layers,
    preset_or_file_layers,
    resolve,
    to_yaml,
)
from stanhop.errors import ConfigError

KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=4)
NESTED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS, st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3)), max_size=4
)


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("here", values)])
    return caught.value.problem


def test_no_layers_give_the_defaults() -> None:
    assert resolve([]) == RunConfig()


def test_a_higher_layer_wins_key_by_key() -> None:
    low = Layer("low", {"model": {"num_heads": 2, "num_levels": 3}, "train": {"seed": 7}})
    high = Layer("high", {"model": {"num_heads": 8}})
    resolved = resolve([low, high])
    assert (resolved.model.num_heads, resolved.model.num_levels, resolved.train.seed) == (8, 3, 7)
    assert resolve([high, low]).model.num_heads == 2


def test_each_key_tells_where_it_was_last_set() -> None:
    layers = [
        Layer("preset x", {"model": {"num_heads": 2, "dropout": 0.1}}),
        Layer("--set model.dropout", {"model": {"dropout": 0.3}}),
    ]
    origins = origin_of_keys(layers)
    assert origins["model.num_heads"] == "preset x"
    assert origins["model.dropout"] == "--set model.dropout"
    assert origins["model.num_levels"] == "default"
    assert set(origins) == set(flatten(RunConfig().model_dump()))


@given(NESTED, NESTED)
def test_merging_changes_neither_side_and_the_upper_side_survives(below: Any, above: Any) -> None:
    before = json.dumps([below, above])
    merged = merge(below, above)
    assert json.dumps([below, above]) == before
    assert merge(merged, above) == merged
    assert set(merged) == set(below) | set(above)


@given(NESTED)
def test_nesting_undoes_flattening(values: Any) -> None:
    assert nest(flatten(values)) == {key: value for key, value in values.items() if value != {}}


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    assert refusal(train={"max_epoch": 5}) == "unknown key train.max_epoch (from here); did you mean train.max_epochs?"
    assert refusal(trian={"seed": 5}).startswith("unknown key trian")
    assert "did you mean train?" in refusal(trian=5)


def test_one_error_names_every_problem() -> None:
    problem = refusal(train={"max_epoch": 5, "seed": -1}, model={"dropout": 1.0})
    for part in ("train.max_epoch", "train.seed", "model.dropout", "got '-1'"):
        assert part in problem


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"model": {"patch_length": 200, "context_length": 96}},
            r"patch_length (200) must not exceed context_length (96)",
        ),
        ({"model": {"model_dim": 10, "num_heads": 3}}, "num_heads (3) must divide model_dim (10)"),
        ({"model": {"prediction_length": 0}}, "model.prediction_length: input should be greater than 0, got '0'"),
        ({"model": {"prediction_length": -1}}, "greater than 0, got '-1'"),
        ({"model": {"prediction_length": 1.5}}, "model.prediction_length: input should be a valid integer"),
        ({"model": {"prediction_length": 10**9}}, "less than or equal to 1000000"),
        ({"model": {"prediction_length": "24"}}, "model.prediction_length: input should be a valid integer, got '24'"),
        ({"model": {"gate": 1}}, "model.gate: input should be a valid boolean"),
        ({"train": {"seed": True}}, "train.seed: input should be a valid integer"),
        ({"train": {"learning_rate": "nan"}}, "train.learning_rate: input should be a valid number"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate: input should be"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: input should be"),
        ({"model": 3}, "model: input should be"),
        ({"model": {"separation": "softmx"}}, "model.separation: input should be 'outeffhop', "),
        ({"data": {"split": {"train": 0.7, "validation": 0.2, "test": 0.2}}}, "sum to more than 1"),
        ({"data": {"split": {"train": 100, "validation": 0.2, "test": 0.2}}}, "three whole numbers of rows"),
        ({"data": {"split": {"train": 100, "validation": 20.5, "test": 20}}}, "three whole numbers of rows"),
        ({"data": {"decimal": ",", "thousands": ","}}, "decimal (',') must differ from thousands"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_dotted_key(values: dict[str, Any], text: str) -> None:
    assert text in refusal(**values)


def test_whole_rows_and_fractions_are_both_splits() -> None:
    rows = resolve([Layer("x", {"data": {"split": {"train": 8640, "validation": 2880, "test": 2880}}})]).data.split
    assert (rows.train, rows.validation, rows.test) == (8640, 2880, 2880)
    assert resolve([Layer("x", {"data": {"split": {"train": 0.6, "validation": 0.2}}})]).data.split.test == 0.2


def test_a_list_may_become_a_tuple() -> None:
    assert resolve([Layer("x", {"data": {"target_columns": ["b", "a"]}})]).data.target_columns == ("b", "a")


def test_every_key_says_what_it_is() -> None:
    for section in ("data", "model", "train", "tracking"):
        kind: Any = RunConfig.model_fields[section].annotation
        for name, field in kind.model_fields.items():
            assert field.description or name == "split", f"{section}.{name}"


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().model.num_heads = 3  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("1.", 1.0),
        ("true", True),
        ("false", False),
        ("no", "no"),
        ("on", "on"),
        ("True", "True"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2016-07-01", "2016-07-01"),
        ("[a, 2]", ["a", 2]),
        ("", None),
        ("null", None),
        ("'1'", "1"),
        ("%m/%d/%Y %H:%M", None),
    ],
)
def test_yaml_means_what_it_looks_like(text: str, value: object) -> None:
    if text.startswith("%"):
        with pytest.raises(ConfigError):  # a directive: quote it
            parse_yaml(text, file="here")
        assert parse_yaml(f"'{text}'", file="here") == text
    else:
        parsed = parse_yaml(text, file="here")
        assert parsed == value
        assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' is written twice"),
        ("train:\n  seed: 1\n  seed: 2\n", 3, "key 'seed' is written twice"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "a tag is not supported"),
        ("a: &x [1]\nb: *x\n", 1, "an alias is not supported"),
        ("a: &x {b: *x}\n", 1, "an alias is not supported"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("a: [1\n", 2, "expected"),
        ("a: \x01\n", None, "is not YAML"),
        ("[" * 3000, None, "is not YAML"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_yaml(text, file="mine.yaml")
    assert caught.value.file == "mine.yaml"
    assert caught.value.line == line


@given(st.text(max_size=60))
@example("a: &a [*a, *a]")
@example("? {}\n: 1")
@example("=")
@example("<<: 1")
@example("!!timestamp x")
@example("!!int x")
def test_any_text_is_plain_data_or_a_config_error(text: str) -> None:
    try:
        parsed = parse_yaml(text, file="here")
    except ConfigError:
        return
    assert parsed is None or isinstance(parsed, bool | int | float | str | list | dict)


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
    train = st.builds(config.TrainConfig, learning_rate=rates, seed=st.integers(0, 2**32 - 1))
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
    monkeypatch.setattr(config, "preset_paths", lambda: {"etth1": tmp_path / "etth1.yaml"})
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
    monkeypatch.setattr(config, "preset_paths", lambda: paths)
    assert [layer.origin for layer in preset_layers("etth1-720")] == ["preset etth1", "preset etth1-720"]
    assert resolve(preset_layers("etth1-720")).tracking.experiment == "etth1-720"
    for alone in ("etth1", "lonely-7", "published-etth1"):
        assert [layer.origin for layer in preset_layers(alone)] == [f"preset {alone}"]
