"""How layers of a configuration merge into one that is checked, and where each key of it comes from."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stanhop.config.sections import RunConfig
from stanhop.errors import Code, ConfigError, quoted

SEE_ALL_KEYS = "`stanhop config show` lists every key with its value"


@dataclass(frozen=True)
class Layer:
    """Some keys of a configuration (nested), and where they were written."""

    origin: str
    values: Mapping[str, Any]


def resolve(layers: Sequence[Layer]) -> RunConfig:
    """Merge ``layers``, lowest first, and validate the result; one error names every problem in it.

    Raises:
        ConfigError: keys that do not exist (with the nearest that does), values that do not fit.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    try:  # by way of JSON: as strict as Section asks, yet a list may become a tuple
        return RunConfig.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        origins = origin_of_keys(layers)
        problems = [_explain(problem, origins) for problem in error.errors()]
        raise ConfigError(Code.CONFIG, "; ".join(problems), fix=SEE_ALL_KEYS) from None
    except TypeError as error:
        raise ConfigError(Code.CONFIG, f"a value is not plain data: {error}", fix=SEE_ALL_KEYS) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with the keys of ``above`` put over it, section by section; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(under, value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested ``values`` by dotted key: ``{"model": {"dropout": 0.1}}`` gives ``{"model.dropout": 0.1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        nested = merge(nested, _wrapped(sections, {last: value}))
    return nested


def origin_of_keys(layers: Sequence[Layer]) -> dict[str, str]:
    """Where each resolved key (dotted) was last set; ``default`` where nobody did."""
    origins = dict.fromkeys(flatten(RunConfig().model_dump()), "default")
    for layer in layers:
        origins |= dict.fromkeys(flatten(layer.values), layer.origin)
    return origins


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the one of ``known`` that is most like ``name``; empty where none is."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _wrapped(sections: Iterable[str], values: dict[str, Any]) -> dict[str, Any]:
    for section in reversed(list(sections)):
        values = {section: values}
    return values


def _explain(problem: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One problem of pydantic's in the user's words: dotted key, value, origin, nearest known key."""
    key = ".".join(str(part) for part in problem["loc"]) or "configuration"
    origin = origins.get(key)
    where = f" (from {origin})" if origin not in (None, "default") else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}{where}{did_you_mean(key, _known_keys())}"
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}"
    text = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{key}: {text}, got {quoted(problem['input'])}{where}"


def _known_keys() -> list[str]:
    defaults = RunConfig().model_dump()
    return [*defaults, *flatten(defaults), "data.split"]
