"""Where layers of a configuration are written: presets, files, the environment, assignments; and how one is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stanhop.config.layers import Layer, did_you_mean, nest
from stanhop.config.sections import RunConfig
from stanhop.config.strict_yaml import dump_yaml, parse_yaml
from stanhop.errors import Code, ConfigError, quoted
from stanhop.resources import preset_paths

ENVIRONMENT_PREFIX = "STANHOP_"


def find_preset(name: str) -> Path:
    """The file of the preset called ``name``.

    Raises:
        ConfigError: no preset has that name.
    """
    presets = preset_paths()
    if name not in presets:
        fix = f"known presets: {', '.join(presets)}"
        raise ConfigError(Code.CONFIG, f"no preset is called {quoted(name)}{did_you_mean(name, presets)}", fix=fix)
    return presets[name]


def preset_layers(name: str) -> list[Layer]:
    """The preset called ``name``; one for a horizon, such as ``etth1-720``, lies over that of its data set, ``etth1``.

    Raises:
        ConfigError: no preset has that name, or its file cannot be read.
    """
    base, _, horizon = name.rpartition("-")
    below = preset_layers(base) if horizon.isdecimal() and base in preset_paths() else []
    return [*below, Layer(f"preset {name}", file_layer(find_preset(name)).values)]


def preset_or_file_layers(name: str) -> list[Layer]:
    """The preset called ``name`` or, where it looks like a path, the file there."""
    is_path = name.endswith((".yaml", ".yml")) or os.sep in name
    return [file_layer(Path(name))] if is_path else preset_layers(name)


def file_layer(path: Path) -> Layer:
    """The YAML file at ``path``.

    Raises:
        ConfigError: it cannot be read, is not YAML, repeats a key, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(Code.CONFIG, f"cannot read: {error.strerror}", fix="check the path", file=path) from None
    except UnicodeDecodeError:
        raise ConfigError(Code.CONFIG, "is not UTF-8 text", fix="save it as UTF-8", file=path) from None
    values = parse_yaml(text, file=path)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        fix = "write sections of keys; `stanhop config copy` gives a file to start from"
        raise ConfigError(Code.CONFIG, f"holds {quoted(values)}, not sections of keys", fix=fix, file=path)
    return Layer(str(path), values)


def environment_layers(environment: Mapping[str, str]) -> list[Layer]:
    """A layer for each variable such as ``STANHOP_MODEL__DROPOUT=0.1``."""
    layers = []
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            layers.append(Layer(name, nest({key: parse_yaml(text, file=name)})))
    return layers


def assignment_layer(assignment: str) -> Layer:
    """The layer of ``section.key=value``, the value written as in YAML.

    Raises:
        ConfigError: there is no ``=`` or no dotted key.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z_]+)+", key.strip()):
        fix = "write --set section.key=value, for example --set model.dropout=0.1"
        raise ConfigError(Code.CONFIG, f"--set {quoted(assignment)} is not an assignment", fix=fix)
    return Layer(f"--set {key.strip()}", nest({key.strip(): parse_yaml(text, file=f"--set {key.strip()}")}))


def to_yaml(config: RunConfig) -> str:
    """The resolved ``config`` as a file that ``file_layer`` reads back."""
    return dump_yaml(config.model_dump(mode="json"))
