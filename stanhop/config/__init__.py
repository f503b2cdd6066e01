"""The configuration of one run.

Layers, lowest first: defaults < preset of the data set < configuration files < ``STANHOP_SECTION__KEY``
in the environment < ``--set section.key=value`` < named flags. What is in them (``sections``), how they merge
(``layers``), where they are written (``sources``), and the YAML they are written in (``strict_yaml``) is imported from
here.
"""

from __future__ import annotations

from stanhop.config.layers import Layer, flatten, merge, nest, origin_of_keys, resolve
from stanhop.config.sections import (
    LARGEST_SIZE,
    MOST_LEVELS,
    PUBLISHED_SEPARATIONS,
    DataConfig,
    ModelConfig,
    Period,
    RunConfig,
    Section,
    SplitConfig,
    TrackingConfig,
    TrainConfig,
)
from stanhop.config.sources import (
    assignment_layer,
    environment_layers,
    file_layer,
    find_preset,
    preset_layers,
    preset_or_file_layers,
    to_yaml,
)
from stanhop.config.strict_yaml import dump_yaml, parse_yaml

__all__ = [
    "LARGEST_SIZE",
    "MOST_LEVELS",
    "PUBLISHED_SEPARATIONS",
    "DataConfig",
    "Layer",
    "ModelConfig",
    "Period",
    "RunConfig",
    "Section",
    "SplitConfig",
    "TrackingConfig",
    "TrainConfig",
    "assignment_layer",
    "dump_yaml",
    "environment_layers",
    "file_layer",
    "find_preset",
    "flatten",
    "merge",
    "nest",
    "origin_of_keys",
    "parse_yaml",
    "preset_layers",
    "preset_or_file_layers",
    "resolve",
    "to_yaml",
]
