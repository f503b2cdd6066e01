"""What papers report, from `data/literature.yaml`, to stand beside what was measured here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from pydantic import PositiveInt, ValidationError

from stanhop.config import Section, parse_yaml
from stanhop.errors import Code, ConfigError
from stanhop.resources import resource

FILE = ("data", "literature.yaml")


class _Entry(Section):
    """One model in one source: MSE and MAE by data set and horizon; null where the source has no figure."""

    model: str
    source: str
    batch_size: PositiveInt | None = None
    figures: dict[str, dict[int, tuple[float, float | None]]]


class _File(Section):
    """The whole file."""

    entries: tuple[_Entry, ...]


@dataclass(frozen=True)
class Published:
    """One published figure, in scaled units.

    Args:
        model: The model's name.
        mse: Mean squared error over the test windows.
        mae: Mean absolute error, where the source has it.
        source: Paper and table, and what is particular about it.
        batch_size: Windows a batch, where those of a last one that is not full were left out; None where all count.
    """

    model: str
    mse: float
    mae: float | None
    source: str
    batch_size: int | None


def published(data: str, prediction_length: int) -> list[Published]:
    """Every published figure of the data set at this horizon, in the order of the file."""
    return [
        Published(entry.model, *entry.figures[data][prediction_length], entry.source, entry.batch_size)
        for entry in _entries()
        if prediction_length in entry.figures.get(data, {})
    ]


@cache
def _entries() -> tuple[_Entry, ...]:
    path = resource(*FILE)
    plain = parse_yaml(path.read_text(encoding="utf-8"), file=path)
    try:
        return _File.model_validate_json(json.dumps({"entries": plain})).entries
    except ValidationError as error:
        raise ConfigError(Code.CONFIG, str(error).replace("\n", " "), file=path) from None
