"""The files of a model directory: their names, how large they may be, and what they may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from stanhop.config import MOST_LEVELS, RunConfig, Section
from stanhop.errors import Code, ModelError, quoted
from stanhop.model.int8 import Activations, Runtime
from stanhop.series.grid import parse_frequency

MANIFEST, CONFIG, SCALERS, INTERVALS = "manifest.json", "config.json", "scaler.json", "intervals.json"
WEIGHTS, ONNX = "model.safetensors", "model.onnx"
LARGEST_FILES = {CONFIG: 2**24, WEIGHTS: 2**34, ONNX: 2**31 - 1, SCALERS: 2**30, INTERVALS: 2**30}
"""The files of a model directory, which has one of ``WEIGHTS`` and ``ONNX``, and the most bytes each may have."""
MOST_HARMONICS = 1_000
LARGEST_NUM_CHANNELS = 10_000
"""As many as the reader of tables takes."""
RESTORE = "restore the model directory from a copy, or train again"
SomeSection = TypeVar("SomeSection", bound=Section)


class LayoutEntry(Section):
    """``Layout`` as plain data."""

    kind: Literal["wide", "long"]
    time_column: str
    id_column: str | None
    target_columns: tuple[str, ...]


class QuantizationEntry(Section):
    """``Quantization`` as plain data."""

    scheme: Literal["w8a8", "w8a16", "w8a32"]
    activations: Activations
    runtime: Runtime = "torch"


class BundleConfig(Section):
    """``config.json``: the run's configuration, and what the data added to it."""

    run: RunConfig
    num_channels: PositiveInt = Field(le=LARGEST_NUM_CHANNELS)
    channels: tuple[str, ...]
    frequency: str = Field(max_length=32)
    layout: LayoutEntry
    quantization: QuantizationEntry | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.channels)) != self.num_channels or len(self.channels) != self.num_channels:
            raise ValueError(f"channels must be {self.num_channels} different names, got {len(self.channels)}")
        if parse_frequency(self.frequency) is None:
            raise ValueError(f"frequency {quoted(self.frequency)} is none")
        return self


class ProfileEntry(Section):
    """One ``SeasonalProfile`` as plain data."""

    harmonics: Annotated[tuple[tuple[int, int, int], ...], Field(min_length=1, max_length=MOST_HARMONICS)]
    coefficients: tuple[tuple[float, ...], ...]


class ScalerEntry(Section):
    """One ``Scaler`` as plain data."""

    mean: tuple[float, ...]
    deviation: tuple[PositiveFloat, ...]
    profile: ProfileEntry | None = None


class ScalerFile(Section):
    """``scaler.json``: the scaler of every series, by its id."""

    scalers: Annotated[dict[str, ScalerEntry], Field(min_length=1)]


Offsets = tuple[tuple[tuple[float, ...], ...], ...]
"""By level, step and channel."""


class IntervalsFile(Section):
    """``intervals.json``: ``Intervals`` as plain numbers."""

    levels: Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_LEVELS)]
    lower: Offsets
    upper: Offsets
    floor: tuple[PositiveFloat, ...]
    num_windows: PositiveInt

    @model_validator(mode="after")
    def _levels_ascend(self) -> Self:
        if not all(0 < level < 100 for level in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must be between 0 and 100, ascending, each once")
        return self


def json_bytes(values: Any) -> bytes:  # plain data of any shape
    """``values`` as a file: the same bytes for the same values, so that a checksum can be taken of them."""
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode("ascii")


def validated(schema: type[SomeSection], content: bytes, *, file: Path) -> SomeSection:
    """``content`` as ``schema``; the first key that does not fit is named."""
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"][:1].lower() + first["msg"][1:]
        value = "" if isinstance(first["input"], dict | list) else f", got {quoted(first['input'])}"
        problem = f"{quoted(key)}: {what}{value}" if key else what
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file) from None
