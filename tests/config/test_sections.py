"""The keys: closed, strict, each with a word on what it is."""

from __future__ import annotations

from typing import Any

import pytest

from stanhop.config import Layer, RunConfig, resolve
from stanhop.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"model": {"patch_length": 200, "context_length": 96}},
            "patch_length (200) must not exceed context_length (96): --set model.patch_length=96, or less, lowers it",
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
        ({"data": {"split": {"train": 100, "validation": 20, "test": 0.5}}}, "three whole numbers of rows"),
        ({"data": {"split": {"train": 100, "validation": 0.5, "test": 0}}}, "three whole numbers of rows"),
        ({"data": {"split": {"train": 0.9, "validation": 0, "test": 0.1}}}, "greater than 0"),
        ({"data": {"decimal": ",", "thousands": ","}}, "decimal (',') must differ from thousands"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_dotted_key(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("here", values)])
    assert text in caught.value.problem


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
