"""Which layers of configuration a command line means, and in which order they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stanhop.config import (
    Layer,
    RunConfig,
    assignment_layer,
    environment_layers,
    file_layer,
    flatten,
    preset_layers,
    preset_or_file_layers,
    resolve,
)
from stanhop.errors import Code, UsageError
from stanhop.resources import preset_paths

SYNTHETIC = "synthetic"
"""The data set that is built in, so that it has no entry in the catalogue."""


def run_layers(
    *,
    data: str | None,
    preset: str | None,
    files: Sequence[Path],
    assignments: Sequence[str],
    flags: Sequence[Layer],
    environment: Mapping[str, str],
) -> list[Layer]:
    """Every layer above the defaults, lowest first.

    The preset (the one asked for, or the one made for the data set; each with what its variation for the horizon
    changes, if there is one) < how the named data set is read and split < ``files`` < ``environment``
    < ``assignments`` < ``flags``.

    Raises:
        ConfigError: a preset, file, variable or assignment that cannot be read.
    """
    above = [
        *map(file_layer, files),
        *environment_layers(environment),
        *map(assignment_layer, assignments),
        *flags,
        *([] if data is None else [Layer("--data", {"data": {"source": data}})]),
    ]
    horizon = topmost("model.prediction_length", above)
    asked_for = [] if preset is None else preset_or_file_layers(_for_horizon(preset, horizon))
    source = topmost("data.source", [*asked_for, *above])
    if source is None:
        return [*asked_for, *above]
    presets = asked_for or _preset_for(source, horizon=horizon)
    return [*presets, *data_set_layers(source), *above]


def require_data(layers: Sequence[Layer]) -> None:
    """Refuse layers that name no data.

    Raises:
        UsageError: they do not.
    """
    if topmost("data.source", layers) is None:
        fix = "add --data NAME or --data FILE; `stanhop data list` shows the names"
        raise UsageError(Code.USAGE, "no data set or file is given", fix=fix)


def topmost(key: str, layers: Sequence[Layer]) -> Any:  # a value of any shape, or None
    """What the highest of ``layers`` that sets the dotted ``key`` sets it to; None where none does."""
    values = [flat[key] for layer in layers if key in (flat := flatten(layer.values))]
    return values[-1] if values else None


def preset_of(layers: Sequence[Layer]) -> str | None:
    """The name of the preset among ``layers``, such as ``etth1-720``; None where there is none."""
    names = [layer.origin.removeprefix("preset ") for layer in layers if layer.origin.startswith("preset ")]
    return names[-1] if names else None


def data_set_layers(source: object) -> list[Layer]:
    """How the catalogue says that the data set ``source`` is read and split; nothing for a file."""
    from stanhop.series.catalog import data_sets

    data_set = data_sets().get(str(source))
    return [] if data_set is None else [data_set.layer()]


def config_for_data(trained: RunConfig, data: str | None, flags: Sequence[Layer]) -> RunConfig:
    """The configuration of a model with the section ``data`` for what it is to be measured on.

    Args:
        trained: The model's own.
        data: A named data set or a file; the model's own data if None. They are read as those were, unless the
            catalogue or ``flags`` say otherwise.
        flags: Go above all else.

    Raises:
        ConfigError: the result does not hold together.
    """
    whole = trained.model_dump(mode="json")
    own = whole.pop("data")
    source = own["source"] if data is None else data
    catalogued = data_set_layers(source) if source != own["source"] else []
    # The reading of another named set stands in the catalogue; which channels the model knows does not.
    section: dict[str, Any] = {"target_columns": own["target_columns"]} if catalogued else own
    asked = [] if data is None else [Layer("--data", {"data": {"source": data}})]
    return resolve([Layer("model", {**whole, "data": section}), *catalogued, *flags, *asked])


def _preset_for(source: object, *, horizon: object) -> list[Layer]:
    """The preset made for the data set, and what the one for this horizon changes in it; nothing for a file."""
    from stanhop.series.catalog import data_sets

    name = str(source)
    if name != SYNTHETIC and name not in data_sets():
        return []
    preset = name.lower()
    return preset_layers(_for_horizon(preset, horizon)) if preset in preset_paths() else []


def _for_horizon(preset: str, horizon: object) -> str:
    """The variation of ``preset`` for the horizon if there is one, such as ``etth1-720``; else ``preset`` itself."""
    variation = f"{preset}-{horizon}"
    return variation if variation in preset_paths() else preset
