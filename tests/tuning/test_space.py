"""Spaces as people write them, and what must not be searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanhop.errors import ConfigError
from stanhop.tuning.space import DEFAULT_SPACE, Dimension, read_space


def space_of(text: str, folder: Path) -> tuple[Dimension, ...]:
    (folder / "space.yaml").write_text(text)
    return read_space(folder / "space.yaml")


def test_a_space_is_written_in_sections_or_with_dots(tmp_path: Path) -> None:
    nested = space_of("train: {learning_rate: {low: 1e-4, high: 1e-2, log: true}}\n", tmp_path)
    dotted = space_of("train.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", tmp_path)
    assert nested == dotted == (Dimension("train.learning_rate", low=1e-4, high=1e-2, is_log=True),)


def test_choices_and_steps_are_read(tmp_path: Path) -> None:
    text = "model:\n  separation: {choices: [gsh, softmax]}\n  dropout: {low: 0.0, high: 0.3, step: 0.1}\n"
    assert space_of(text, tmp_path) == (
        Dimension("model.separation", choices=("gsh", "softmax")),
        Dimension("model.dropout", low=0.0, high=0.3, step=0.1),
    )


def test_the_space_that_comes_with_the_program_can_be_read() -> None:
    assert {"train.learning_rate", "model.dropout"} <= {dimension.key for dimension in read_space(DEFAULT_SPACE)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "declares no key"),
        ("model: {dropuot: {low: 0, high: 1}}", "unknown key model.dropuot"),
        ("train.seed: {low: 1, high: 9}", "train.seed must not vary: chance"),
        ("train.loss: {choices: [mae, mse]}", "train.loss must not vary"),
        ("model.prediction_length: {low: 1, high: 9}", "must not vary: losses of different horizons"),
        ("data.frequency: {choices: [h, D]}", "data.frequency must not vary"),
        ("model.dropout: 0.1", "describes no dimension"),
        ("model.dropout: {low: 0.1}", "low must be a number below high"),
        ("model.dropout: {low: 0.3, high: 0.1}", "low must be a number below high"),
        ("model.dropout: {low: 0.0, high: 0.1, log: true}", "log needs low above 0"),
        ("model.dropout: {low: 0.0, high: 0.1, step: 0.2}", "step must be above 0"),
        ("model.dropout: {low: 0.0, high: 0.1, steps: 3}", "unknown word 'steps'"),
        ("model.dropout: {choices: [0.1]}", "two or more plain values"),
        ("model.dropout: {choices: [0.1, 0.2], low: 0}", "stand alone"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        space_of(text + "\n", tmp_path)
    assert caught.value.file == str(tmp_path / "space.yaml")


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        (Dimension("x", low=0.0, high=0.3, step=0.1), 0.3, True),
        (Dimension("x", low=0.0, high=0.3, step=0.1), 0.25, False),
        (Dimension("x", low=0.0, high=0.3), 0.25, True),
        (Dimension("x", low=0.1, high=0.3), 0.0, False),
        (Dimension("x", choices=("a", "b")), "b", True),
        (Dimension("x", choices=("a", "b")), "c", False),
    ],
)
def test_a_dimension_knows_what_lies_in_it(dimension: Dimension, value: object, expected: bool) -> None:
    assert dimension.holds(value) is expected
