"""Layers lie in order, key by key, and one error names all problems of what they make."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.config import Layer, RunConfig, flatten, merge, nest, origin_of_keys, resolve
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
