"""The options that several commands share, most of them named flags for keys of the configuration.

A flag takes its type, its choices and its help text from the key it sets, so that each stands in
``stanhop/config/`` only.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from stanhop.cli.output import Format, Output
from stanhop.config import Layer, RunConfig, nest
from stanhop.errors import Code, UsageError, quoted

FlagTable = dict[str, tuple[str, ...]]
"""The spellings of the flag that sets a key, by the key."""

READ_FLAGS: FlagTable = {
    "data.time_column": ("--time-column",),
    "data.id_column": ("--id-column",),
    "data.target_columns": ("--target-columns",),
    "data.separator": ("--sep",),
    "data.decimal": ("--decimal",),
    "data.thousands": ("--thousands",),
    "data.encoding": ("--encoding",),
    "data.header": ("--header/--no-header",),
    "data.date_format": ("--date-format",),
    "data.time_zone": ("--tz",),
    "data.frequency": ("--freq",),
    "data.missing": ("--missing",),
    "data.duplicates": ("--duplicates",),
    "data.fill_gaps": ("--fill-gaps/--no-fill-gaps",),
    "data.strict": ("--strict/--no-strict",),
    "data.nonnegative": ("--nonnegative/--no-nonnegative",),
}
TRACKING_FLAGS: FlagTable = {
    "tracking.enabled": ("--tracking/--no-tracking",),
    "tracking.uri": ("--tracking-uri",),
    "tracking.experiment": ("--experiment",),
}
TRAIN_FLAGS: FlagTable = {
    "model.prediction_length": ("--prediction-length", "--horizon"),
    "model.context_length": ("--context-length",),
    "model.levels": ("--levels",),
    "train.max_epochs": ("--epochs",),
    "train.batch_size": ("--batch-size",),
    "train.seed": ("--seed",),
    "train.device": ("--device",),
    "train.devices": ("--devices",),
    "train.strategy": ("--strategy",),
    "train.precision": ("--precision",),
    **TRACKING_FLAGS,
}
LEVELS_METAVAR = "PERCENT[,PERCENT]..."
PANELS = {"data": "How to read the data", "model": "Model", "train": "Training", "tracking": "Tracking"}
METAVARS = {"model.levels": LEVELS_METAVAR, "data.target_columns": "NAME[,NAME]...", "data.separator": "CHARACTER"}
NO_LEVELS = "none"
NUMBER = re.compile(r"\d+(\.\d+)?")
ESCAPED_TAB = ("\\t", "tab")

Files = Annotated[
    list[Path] | None,
    typer.Option("-c", "--config", metavar="FILE", help="A YAML file of configuration keys; repeatable."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as model.dropout=0.1; repeatable."),
]
Model = Annotated[Path, typer.Option("--model", metavar="DIR", help="A model directory that `stanhop train` wrote.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to compute.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Windows computed at once.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]

Levels = Annotated[
    str | None,
    typer.Option("--levels", metavar=LEVELS_METAVAR, help="Prediction intervals, in percent, such as 80,95."),
]

FORMAT_OPTION = typer.Option("--format", help="How to print the result; json: one document on stdout.")
DEBUG_OPTION = typer.Option("--debug", help="Show the traceback of an error.")


class Flags(tuple[Layer, ...]):
    """The layers of configuration that named flags make: one for each flag that was given."""

    __slots__ = ()


def command(
    app: typer.Typer, *, name: str | None = None, flags: FlagTable | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of ``app`` that also has ``flags``, ``--format`` and ``--debug``.

    The function takes the flags that were given as ``flags: Flags`` (if it has any) and the way to answer as
    ``output: Output``, both by keyword.
    """
    table = flags or {}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def call(**given: Any) -> None:
            output = Output(format=given.pop("format"), debug=given.pop("debug"))
            layers = Flags(_given_layers(table, given))
            own = {key: value for key, value in given.items() if key not in map(_argument, table)}
            function(**own, **({"flags": layers} if table else {}), output=output)

        parameters = _parameters(function, table)
        # typer reads both; the types are real ones, since the text of an annotation means nothing here
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take attributes
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(call)
        return function

    return register


def _parameters(function: Callable[..., None], table: FlagTable) -> list[inspect.Parameter]:
    """The function's own parameters, then one a flag, then those of ``Output``."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
        if hints[name] not in (Flags, Output)
    ]
    flags = [_keyword(_argument(key), _flag_type(key, names), None) for key, names in table.items()]
    return [
        *own,
        *flags,
        _keyword("format", Annotated[Format, FORMAT_OPTION], Format.HUMAN),
        _keyword("debug", Annotated[bool, DEBUG_OPTION], False),
    ]


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:  # a type, as typing builds them
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _argument(key: str) -> str:
    return key.replace(".", "__")


def _given_layers(table: FlagTable, given: Mapping[str, Any]) -> list[Layer]:
    layers = []
    for key, names in table.items():
        value = given[_argument(key)]
        if value is not None:
            spelling = names[0].split("/")[-1 if value is False else 0]
            layers.append(Layer(spelling, nest({key: _as_config(key, value)})))
    return layers


def _as_config(key: str, value: Any) -> Any:  # what typer made of the text
    if key == "data.target_columns":
        return [column for text in value for column in text.split(",")]
    if key == "model.levels":
        return list(numbers_in(value[0])) if value != [NO_LEVELS] else []
    if key == "data.separator" and value in ESCAPED_TAB:
        return "\t"
    return value


def parse_levels(text: str | None) -> tuple[float, ...]:
    """The percentages in ``text``, ascending; none where no text is given.

    Raises:
        UsageError: one is not between 0 and 100, or stands twice.
    """
    if text is None:
        return ()
    levels = numbers_in(text)
    if not all(isinstance(level, float) and 0 < level < 100 for level in levels) or len(set(levels)) < len(levels):
        problem = f"--levels {quoted(text)} is not percentages between 0 and 100, each once"
        raise UsageError(Code.USAGE, problem, fix="write --levels 80,95")
    return tuple(sorted(float(level) for level in levels))


def numbers_in(text: str) -> list[float | str]:
    """The numbers in ``text`` between its commas; what is none stays text."""
    return [float(word) if NUMBER.fullmatch(word.strip()) else word for word in text.split(",")]


def _flag_type(key: str, names: Sequence[str]) -> Any:  # a type, as typing builds them
    """The annotation of the option that sets ``key``: its type without None, its first sentence as help."""
    field = _field(key)
    annotation = _without_none(field.annotation)
    if get_origin(annotation) is tuple:
        annotation = list[str]
    if key == "data.separator":  # a tab is typed as \t, which is none of the choices
        annotation = str
    help_text = (field.description or "").split("`stanhop")[0]
    panel = PANELS[key.split(".")[0]]
    option = typer.Option(*names, help=help_text, metavar=METAVARS.get(key), rich_help_panel=panel, show_default=False)
    return Annotated[annotation | None, option]


def _field(key: str) -> FieldInfo:
    section, name = key.split(".")
    model: Any = RunConfig.model_fields[section].annotation
    field: FieldInfo = model.model_fields[name]
    return field


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (kind for kind in get_args(annotation) if kind is not type(None))
        return inner
    return annotation
