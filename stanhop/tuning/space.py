"""The space of a search: which configuration keys vary, and between what; a YAML file like a preset's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanhop.config import RunConfig, file_layer, flatten
from stanhop.errors import Code, ConfigError, quoted

DEFAULT_SPACE = Path(__file__).with_name("space.yaml")
WORDS = {"low", "high", "log", "step", "choices"}
"""What a dimension is described with."""
FIXED_SECTIONS = ("data", "tracking")
FIXED = {
    "train.seed": "chance is not to be searched",
    "train.loss": "losses of different kinds cannot be compared",
    "train.device": "it changes no loss",
    "train.devices": "it changes no loss",
    "train.strategy": "it changes no loss",
    "train.compile": "it changes no loss",
    "model.prediction_length": "losses of different horizons cannot be compared",
}
"""Keys that a search must not vary, and why."""
EXAMPLE = "write {low: 0.0, high: 0.3} or {choices: [32, 64]}"


@dataclass(frozen=True)
class Dimension:
    """One key that varies: between two bounds, or among choices.

    Args:
        key: The configuration key, dotted.
        low: Smallest value; None with ``choices``.
        high: Largest value.
        is_log: Whether it is searched by its logarithm.
        step: Distance of neighbouring values; None for any.
        choices: The values there are; empty with bounds.
    """

    key: str
    low: int | float | None = None
    high: int | float | None = None
    is_log: bool = False
    step: float | None = None
    choices: tuple[str | int | float | bool, ...] = ()

    def suggest(self, trial: Any) -> Any:  # an Optuna trial; a plain value
        """The value that ``trial`` takes."""
        if self.choices:
            return trial.suggest_categorical(self.key, list(self.choices))
        low, high = self.low, self.high
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(self.key, low, high, step=self.step or 1, log=self.is_log)
        return trial.suggest_float(self.key, low, high, step=self.step, log=self.is_log)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` lies in it."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def to_plain(self) -> dict[str, Any]:
        """As the file has it."""
        if self.choices:
            return {"choices": list(self.choices)}
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.is_log, **step}


def read_space(path: Path) -> tuple[Dimension, ...]:
    """The dimensions that the file at ``path`` declares.

    Raises:
        ConfigError: it cannot be read, names a key that there is not or that must not vary, or describes a dimension
            in a way that cannot be searched.
    """
    found = dict(_dimensions(file_layer(path).values))
    if not found:
        raise ConfigError(Code.CONFIG, "declares no key to search", fix=f"{EXAMPLE} behind a key", file=path)
    try:
        return tuple(_dimension(key, words) for key, words in found.items())
    except ConfigError as error:
        raise ConfigError(error.code, error.problem, fix=error.fix, file=path) from None


def _dimensions(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key and description of each dimension; sections may be nested or written with dots."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not set(value) & WORDS:
            found += _dimensions(value, f"{key}.")
        else:
            found.append((key, value))
    return found


def _dimension(key: str, words: Any) -> Dimension:
    known = flatten(RunConfig().model_dump(mode="json"))
    if key not in known:
        raise ConfigError(Code.CONFIG, f"unknown key {key}", fix="`stanhop config show` lists them")
    why = "the data stay as they are" if key.split(".")[0] in FIXED_SECTIONS else FIXED.get(key)
    if why is not None:
        raise ConfigError(Code.CONFIG, f"{key} must not vary: {why}", fix="leave it out, and set it with --set")
    if not isinstance(words, Mapping):
        raise ConfigError(Code.CONFIG, f"{key}: {quoted(words)} describes no dimension", fix=EXAMPLE)
    unknown = sorted(set(map(str, words)) - WORDS)
    if unknown:
        raise ConfigError(Code.CONFIG, f"{key}: unknown word {quoted(unknown[0])}", fix=EXAMPLE)
    return _with_choices(key, words) if "choices" in words else _with_bounds(key, words)


def _with_choices(key: str, words: Mapping[str, Any]) -> Dimension:
    choices = words["choices"]
    is_plain = isinstance(choices, list) and all(isinstance(each, str | int | float | bool) for each in choices)
    if len(words) > 1 or not is_plain or len(set(choices)) < 2:
        raise ConfigError(Code.CONFIG, f"{key}: choices must be two or more plain values, and stand alone", fix=EXAMPLE)
    return Dimension(key, choices=tuple(choices))


def _with_bounds(key: str, words: Mapping[str, Any]) -> Dimension:
    low, high, step, is_log = words.get("low"), words.get("high"), words.get("step"), words.get("log", False)
    numbers = [each for each in (low, high, step) if each is not None]
    is_numeric = all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers)
    if low is None or high is None or not is_numeric or not isinstance(is_log, bool) or not low < high:
        raise ConfigError(Code.CONFIG, f"{key}: low must be a number below high", fix=EXAMPLE)
    if is_log and (low <= 0 or step is not None):
        raise ConfigError(Code.CONFIG, f"{key}: log needs low above 0 and no step", fix=EXAMPLE)
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(Code.CONFIG, f"{key}: step must be above 0 and fit between low and high", fix=EXAMPLE)
    return Dimension(key, low=low, high=high, is_log=is_log, step=step)
