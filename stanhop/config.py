"""The configuration of one run: its keys, its defaults (here and nowhere else) and how layers of it merge.

Layers, lowest first: defaults < preset of the data set < configuration files < ``STANHOP_SECTION__KEY``
in the environment < ``--set section.key=value`` < named flags.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from stanhop.errors import Code, ConfigError, quoted
from stanhop.resources import preset_paths

ENVIRONMENT_PREFIX = "STANHOP_"
LARGEST_SIZE = 1_000_000
SEE_ALL_KEYS = "`stanhop config show` lists every key with its value"
WRITE_PLAIN_YAML = "write plain YAML: each key once, special characters in quotes, no tags and no aliases"
MOST_LEVELS = 20


class Section(BaseModel):
    """Base of every section: closed, immutable, no silent conversions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class SplitConfig(Section):
    """Chronological split, as fractions of the rows (all below 1) or as numbers of rows."""

    train: PositiveFloat = 0.7
    """Rows to learn from: a fraction below 1, or a number of rows."""
    validation: PositiveFloat = 0.1
    """Rows that choose the best epoch."""
    test: PositiveFloat = 0.2
    """Rows that nothing is chosen by."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        parts = (self.train, self.validation, self.test)
        if all(part < 1 for part in parts):
            if sum(parts) > 1 + 1e-9:
                raise ValueError(f"the fractions {parts} sum to more than 1")
        elif any(part < 1 or part != int(part) for part in parts):
            raise ValueError(f"{parts} must be three fractions below 1 or three whole numbers of rows")
        return self


class DataConfig(Section):
    """Which series to use, and how to read them."""

    source: str = "synthetic"
    """A named data set (see `stanhop data list`), or a CSV or Parquet file."""
    time_column: str | None = None
    """Column of time stamps; found by its name or kind if not given."""
    id_column: str | None = None
    """Column that tells series apart in a long table."""
    target_columns: tuple[str, ...] | None = None
    """Columns to forecast; all numeric columns if not given."""
    encoding: str = "utf-8"
    """Text encoding of CSV files."""
    separator: Literal[",", ";", "\t", "|"] = ","
    """Field separator of CSV files."""
    decimal: Literal[".", ","] = "."
    """Decimal mark of CSV files."""
    thousands: Literal[",", ".", " ", "'"] | None = None
    """Mark between thousands in CSV files."""
    header: bool = True
    """Whether the first line of a CSV file names the columns."""
    date_format: str | None = None
    """Format of the time stamps, as in `strptime`, or `epoch_s` or `epoch_ms`; ISO 8601 if not given."""
    frequency: str | None = None
    """Step of time as a pandas alias (`h`, `15min`, `D`, `W-SUN`, `MS`); inferred if not given."""
    missing: Literal["error", "ffill", "interpolate", "drop"] = "error"
    """What to do about missing values."""
    duplicates: Literal["error", "first", "mean"] = "error"
    """What to do about rows for the same time."""
    fill_gaps: bool = False
    """Whether to add the rows that are missing from the grid of times (`missing` then fills them)."""
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.decimal == self.thousands:  # the separator may be either: fields that hold it stand in quotes
            raise ValueError(f"decimal ({self.decimal!r}) must differ from thousands")
        return self


PUBLISHED_SEPARATIONS = {
    "published_stanhop": ("gsh",),
    "published_outeffhop": ("outeffhop", "softmax", "gsh", "sparsemax", "clipped_softmax", "clipped_outeffhop"),
}
"""What the published networks can be built with."""


class ModelConfig(Section):
    """Shape of a STanHop-Net."""

    network: Literal["stanhop", "published_stanhop", "published_outeffhop"] = "stanhop"
    """Ours, or that of the STanHop or the OutEffHop repository as its code computes it."""
    context_length: PositiveInt = Field(default=336, le=LARGEST_SIZE)
    """Steps of history the model sees."""
    prediction_length: PositiveInt = Field(default=24, le=LARGEST_SIZE)
    """Steps it forecasts (the horizon)."""
    patch_length: PositiveInt = Field(default=24, le=LARGEST_SIZE)
    """Steps per patch."""
    model_dim: PositiveInt = Field(default=64, le=16_384)
    """Features per patch."""
    num_heads: PositiveInt = Field(default=4, le=1_024)
    """Parallel retrievals per Hopfield layer; must divide model_dim."""
    feedforward_dim: PositiveInt = Field(default=128, le=65_536)
    """Hidden features of the feed-forward parts."""
    num_levels: PositiveInt = Field(default=2, le=64)
    """Encoder levels; each but the first merges patches."""
    merge_size: PositiveInt = Field(default=2, le=1_024)
    """Adjacent patches merged per level (coarse-graining); 1 merges none."""
    num_memories: PositiveInt = Field(default=10, le=65_536)
    """Learned memories of the layer across channels."""
    separation: Literal[
        "outeffhop", "sparse_outeffhop", "softmax", "gsh", "sparsemax", "clipped_softmax", "clipped_outeffhop"
    ] = "outeffhop"
    """How scores become weights: alpha-entmax with or without a no-op memory."""
    gate: bool = False
    """Whether each head's output is multiplied by a learned sigmoid of its input."""
    num_updates: PositiveInt = Field(default=1, le=1_000)
    """How often the retrieval dynamics is applied."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of activations dropped in training."""
    channel_embedding: bool = True
    """Whether each channel has a learned vector in all its patches, so that the network knows which one it reads."""
    instance_norm: bool = True
    """Whether each context is standardised by its own mean and deviation, undone on the forecast."""
    levels: tuple[float, ...] = Field(default=(80.0, 95.0), max_length=MOST_LEVELS)
    """Prediction intervals, in percent, ascending: calibrated on the validation rows, and the quantile head's own."""
    head: Literal["point", "quantile"] = "point"
    """Whether the network forecasts the bounds of each level as well, with the pinball loss beside train.loss."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.patch_length > self.context_length:
            raise ValueError(
                f"patch_length ({self.patch_length}) must not exceed context_length ({self.context_length})"
            )
        if self.model_dim % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide model_dim ({self.model_dim})")
        return self

    @model_validator(mode="after")
    def _levels_are_percentages(self) -> Self:
        if not all(0 < level < 100 for level in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels {list(self.levels)} must be between 0 and 100, ascending, each once")
        if self.head == "quantile" and not self.levels:
            raise ValueError("head quantile needs model.levels, such as [80, 95]")
        return self

    @model_validator(mode="after")
    def _published_network_has_it(self) -> Self:
        if self.network == "stanhop":
            return self
        separations = PUBLISHED_SEPARATIONS[self.network]
        if self.separation not in separations:
            raise ValueError(f"network {self.network} has separation {' '.join(separations)}, not {self.separation}")
        for key, only in (
            ("gate", False),
            ("channel_embedding", False),
            ("instance_norm", False),
            ("num_updates", 1),
            ("head", "point"),
        ):
            if getattr(self, key) != only:
                raise ValueError(f"network {self.network} has no {key}: set model.{key} to {json.dumps(only)}")
        return self


class TrainConfig(Section):
    """How the network is fitted."""

    max_epochs: PositiveInt = Field(default=5, le=LARGEST_SIZE)
    """Epochs at most; the cosine of the learning rate ends with them."""
    windows_per_epoch: PositiveInt = Field(default=10_000, le=10**9)
    """Training windows in one epoch at most, drawn anew for each: what bounds an epoch's time on long series."""
    batch_size: PositiveInt = Field(default=64, le=LARGEST_SIZE)
    """Windows per step."""
    learning_rate: PositiveFloat = 2e-3
    """Highest step size of AdamW."""
    schedule: Literal["cosine", "halving"] = "cosine"
    """How the learning rate falls: a short rise, then half a cosine; or halved after epochs 2, 4, 6, 8 and 10."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay of AdamW; with 0 it is Adam."""
    loss: Literal["mae", "mse", "huber"] = "mae"
    """What training minimises, in scaled units."""
    patience: NonNegativeInt = 3
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    gradient_clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    seed: NonNegativeInt = Field(default=1, le=2**32 - 1)
    """Seed of weights, order of windows and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    devices: PositiveInt = Field(default=1, le=1_024)
    """Processes that share the work."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices share the work."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Numeric precision of training."""
    compile: bool = False
    """Whether to compile the network (torch.compile; CUDA graphs on a GPU): slow to start, faster steps after it. On a
    CPU it needs a C++ compiler."""


class TrackingConfig(Section):
    """Where runs are recorded."""

    enabled: bool = True
    """Whether to record the run in MLflow."""
    uri: str | None = None
    """MLflow tracking store; `sqlite:///mlflow.db` in the current folder if not given."""
    experiment: str = "stanhop"
    """MLflow experiment."""


class RunConfig(Section):
    """Everything that decides the outcome of one run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()


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


def find_preset(name: str) -> Path:
    """The file of the preset called ``name``.

    Raises:
        ConfigError: no preset has that name.
    """
    presets = preset_paths()
    if name not in presets:
        fix = f"known presets: {', '.join(presets)}"
        raise ConfigError(Code.CONFIG, f"no preset is called {quoted(name)}{_nearest(name, presets)}", fix=fix)
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


class _StrictLoader(yaml.SafeLoader):
    """YAML without its surprises.

    ``1e-4`` is a number; ``no``, ``010``, ``1:30`` and dates stay text; a repeated key is an error, and so are tags
    (``!!python/…``) and aliases (with which a few lines unfold to gigabytes, or into themselves).
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        for name, is_there in (("an alias", event.anchor), ("a tag", getattr(event, "tag", None))):
            if is_there is not None:
                raise yaml.composer.ComposerError(None, None, f"{name} is not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {quoted(key_node.value)} is written twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that either YAML's own rules or ours would take for something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # In single quotes PyYAML writes some line separators as they are, and reads them as blanks.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_StrictDumper.add_representer(str, _represent_text)

INTEGER = re.compile(r"^[-+]?(0|[1-9]\d*)$")
FLOAT = re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+)$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$")

_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":timestamp", ":float", ":int"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
for _writer_or_reader in (_StrictLoader, _StrictDumper):
    _writer_or_reader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
    _writer_or_reader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def parse_yaml(text: str, *, file: Path | str) -> Any:  # plain data of any shape
    """Plain data of a YAML ``text``; ``file`` names it in errors.

    Raises:
        ConfigError: it is not YAML, repeats a key, or asks for an object.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - _StrictLoader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(
            Code.CONFIG, error.problem or "is not YAML", fix=WRITE_PLAIN_YAML, file=file, line=line
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(Code.CONFIG, f"is not YAML: {quoted(error)}", fix=WRITE_PLAIN_YAML, file=file) from None


def to_yaml(config: RunConfig) -> str:
    """The resolved ``config`` as a file that ``file_layer`` reads back."""
    return dump_yaml(config.model_dump(mode="json"))


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain ``values`` as YAML that ``parse_yaml`` reads back."""
    return yaml.dump(dict(values), Dumper=_StrictDumper, sort_keys=False, allow_unicode=True)


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
        return f"unknown key {key}{where}{_nearest(key, _known_keys())}"
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}"
    text = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{key}: {text}, got {quoted(problem['input'])}{where}"


def _known_keys() -> list[str]:
    defaults = RunConfig().model_dump()
    return [*defaults, *flatten(defaults), "data.split"]


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
