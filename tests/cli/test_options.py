"""Shared options: each named flag sets one key of the configuration and is described by it."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import typer

from stanhop.cli.options import READ_FLAGS, TRAIN_FLAGS, Flags, command
from stanhop.cli.output import Format, Output
from stanhop.config import RunConfig, flatten, resolve

ALL = TRAIN_FLAGS | READ_FLAGS


def parse(*arguments: str) -> tuple[Flags, Output]:
    """What a command that takes every flag is called with."""
    seen: list[tuple[Flags, Output]] = []
    app = typer.Typer()

    @command(app, flags=ALL)
    def probe(*, flags: Flags, output: Output) -> None:
        """Remember."""
        seen.append((flags, output))

    app(list(arguments), standalone_mode=False)
    return seen[0]


def test_every_flag_sets_a_key_that_exists() -> None:
    assert set(ALL) <= set(flatten(RunConfig().model_dump()))


def test_no_flag_has_two_meanings() -> None:
    spellings = [spelling for names in ALL.values() for name in names for spelling in name.split("/")]
    assert len(spellings) == len(set(spellings))


def test_flags_that_are_not_given_set_nothing() -> None:
    flags, output = parse()
    assert flags == ()
    assert output == Output(Format.HUMAN, debug=False)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--prediction-length", "48"], "model.prediction_length", 48),
        (["--horizon", "48"], "model.prediction_length", 48),
        (["--context-length", "7"], "model.context_length", 7),
        (["--epochs", "3"], "train.max_epochs", 3),
        (["--batch-size", "5"], "train.batch_size", 5),
        (["--seed", "0"], "train.seed", 0),
        (["--device", "cpu"], "train.device", "cpu"),
        (["--devices", "2"], "train.devices", 2),
        (["--strategy", "ddp"], "train.strategy", "ddp"),
        (["--precision", "bf16-mixed"], "train.precision", "bf16-mixed"),
        (["--no-tracking"], "tracking.enabled", False),
        (["--tracking-uri", "http://x"], "tracking.uri", "http://x"),
        (["--experiment", "mine"], "tracking.experiment", "mine"),
        (["--time-column", "when"], "data.time_column", "when"),
        (["--id-column", "who"], "data.id_column", "who"),
        (["--target-columns", "b,a"], "data.target_columns", ["b", "a"]),
        (["--target-columns", "b", "--target-columns", "a"], "data.target_columns", ["b", "a"]),
        (["--sep", ";"], "data.separator", ";"),
        (["--sep", "\\t"], "data.separator", "\t"),
        (["--sep", "tab"], "data.separator", "\t"),
        (["--decimal", ","], "data.decimal", ","),
        (["--thousands", " "], "data.thousands", " "),
        (["--encoding", "cp1252"], "data.encoding", "cp1252"),
        (["--no-header"], "data.header", False),
        (["--date-format", "%d.%m.%Y"], "data.date_format", "%d.%m.%Y"),
        (["--freq", "15min"], "data.frequency", "15min"),
        (["--missing", "ffill"], "data.missing", "ffill"),
        (["--duplicates", "mean"], "data.duplicates", "mean"),
        (["--fill-gaps"], "data.fill_gaps", True),
    ],
)
def test_a_flag_sets_its_key_and_is_named_as_its_origin(arguments: list[str], key: str, value: object) -> None:
    flags, _ = parse(*arguments)
    (layer,) = flags
    assert flatten(layer.values) == {key: value}
    assert layer.origin == (arguments[0] if arguments[0] != "--horizon" else "--prediction-length")


def test_the_values_of_flags_are_what_the_configuration_takes() -> None:
    flags, _ = parse("--sep", ";", "--decimal", ",", "--target-columns", "a,b", "--seed", "5")
    config = resolve(flags)
    assert (config.data.separator, config.data.target_columns, config.train.seed) == (";", ("a", "b"), 5)


def test_choices_and_help_are_those_of_the_configuration() -> None:
    app = typer.Typer()

    @command(app, flags=ALL)
    def probe(*, flags: Flags, output: Output) -> None:
        """Do nothing."""

    options: dict[str, Any] = {option.name: option for option in typer.main.get_command(app).params}
    field = RunConfig.model_fields["train"].annotation.model_fields["precision"]  # type: ignore[union-attr]  # a section
    assert options["train__precision"].help == field.description
    assert options["train__precision"].type_descriptor.choices == list(get_args(field.annotation)) or tuple(
        options["train__precision"].type_descriptor.choices
    ) == get_args(field.annotation)


def test_own_parameters_keep_their_defaults_beside_flags() -> None:
    seen: list[Any] = []
    app = typer.Typer()

    @command(app, flags=READ_FLAGS)
    def probe(name: str = "x", *, flags: Flags, output: Output) -> None:
        """Remember."""
        seen.append((name, len(flags), output.format))

    app(["--sep", ";", "--format", "json"], standalone_mode=False)
    app(["--name", "y"], standalone_mode=False)
    assert seen == [("x", 1, Format.JSON), ("y", 0, Format.HUMAN)]
