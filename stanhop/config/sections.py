"""Every key of a configuration, section by section, with its default (here and nowhere else) and its checks."""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

LARGEST_SIZE = 1_000_000
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
    test: NonNegativeFloat = 0.2
    """Rows that nothing is chosen by; with 0 there are none, and nothing tells how good the model is."""

    @property
    def has_test(self) -> bool:
        """Whether any rows are kept for the test."""
        return self.test > 0

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        parts = (self.train, self.validation, self.test)
        if all(part < 1 for part in parts):
            if sum(parts) > 1 + 1e-9:
                raise ValueError(f"the fractions {parts} sum to more than 1")
        elif any(part != int(part) for part in parts) or min(self.train, self.validation) < 1:
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
    time_zone: str | None = Field(default=None, max_length=64)
    """Zone of the time stamps, such as Europe/Berlin: local times are of it, those with an offset are converted."""
    frequency: str | None = None
    """Step of time as a pandas alias (`h`, `15min`, `D`, `W-SUN`, `MS`); inferred if not given."""
    missing: Literal["error", "ffill", "interpolate", "drop"] = "error"
    """What to do about missing values."""
    duplicates: Literal["error", "first", "mean"] = "error"
    """What to do about rows for the same time."""
    fill_gaps: bool = False
    """Whether to add the rows that are missing from the grid of times (`missing` then fills them)."""
    strict: bool = False
    """Whether to refuse whole numbers that float64 cannot hold exactly, above 2^53, rather than round them."""
    nonnegative: bool = False
    """Whether to refuse values below 0."""
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.decimal == self.thousands:  # the separator may be either: fields that hold it stand in quotes
            raise ValueError(f"decimal ({self.decimal!r}) must differ from thousands")
        return self


Period = Literal["day", "week", "year"]

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
    joint_rank: int | None = Field(default=None, ge=0, le=16_384)
    """Rank of a linear map from the last patch of all channels to the forecast of all, beside each channel's own; 0 has
    none. If not given, 64 where the validation windows are clearly for it, as they are where channels say much about
    one another, and 0 elsewhere."""
    time_features: tuple[Period, ...] | None = None
    """Periods of which that map is told how far they have gone, since the same weather means something else at night or
    in winter. If not given, those by which the validation windows are clearly forecast better, of the ones that the
    training rows cover twice; without the map none."""
    joint_memories: int | None = Field(default=None, ge=0, le=1_024)
    """Learned memories of each of 64 heads, by which that map is told what the patch resembles, and need not be linear;
    0 has none. If not given, 8 where the validation windows are clearly forecast better by them; without the map
    none."""
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
    mean_reversion: bool = False
    """Whether the level that was taken away by that returns to the mean of the training rows, by a share for each step
    that is estimated on training and validation windows: 0 where levels did not return. For series that keep to one
    level: after a shift for good it costs accuracy. Without instance_norm there is nothing to return, and this has no
    say."""
    seasonal_profile: bool = True
    """Whether what a channel usually is at that time of the day, week and year is taken away first and added to the
    forecast, where the training rows cover the period twice and forecast each other better by it."""
    levels: tuple[float, ...] = Field(default=(80.0, 95.0), max_length=MOST_LEVELS)
    """Prediction intervals, in percent, ascending: those that are calibrated, and the quantile head's own."""
    head: Literal["point", "quantile"] = "point"
    """Whether the network forecasts the bounds of each level as well, with the pinball loss beside train.loss."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.patch_length > self.context_length:
            raise ValueError(
                f"patch_length ({self.patch_length}) must not exceed context_length ({self.context_length}): "
                f"--set model.patch_length={self.context_length}, or less, lowers it"
            )
        if self.model_dim % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide model_dim ({self.model_dim})")
        return self

    @property
    def num_time_features(self) -> int:
        """Columns behind the channels that tell the network the time: a cosine and a sine for each period."""
        return 2 * len(self.time_features or ())

    @model_validator(mode="after")
    def _what_the_joint_path_reads_has_one(self) -> Self:
        periods = self.time_features or ()
        if len(set(periods)) < len(periods):
            raise ValueError(f"time_features {list(periods)} must name each period once")
        if periods and self.joint_rank == 0:
            raise ValueError("time_features are for the joint path: raise joint_rank above 0, or set them to []")
        if self.joint_memories and self.joint_rank == 0:
            raise ValueError("joint_memories are for the joint path: raise joint_rank above 0, or set them to 0")
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
            ("joint_rank", 0),
            ("time_features", ()),
            ("joint_memories", 0),
            ("num_updates", 1),
            ("head", "point"),
        ):
            if getattr(self, key) not in (only, None):
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
    """What training minimises, in scaled units. mae forecasts medians, mse means, huber something between: where values
    are skewed, as counts with many zeros are, medians do not add up to totals, and means do."""
    patience: NonNegativeInt = 3
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    gradient_clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and kept in their place; 0 keeps none."""
    start: Literal["ridge", "mean", "random"] = "ridge"
    """What the network begins as: the ridge regression of the training windows, chosen on the validation windows (up to
    a context of 2,048 steps); the mean of the context; or that and what untrained read-outs add."""
    stacking: bool = True
    """Whether the trained network is combined with the ridge regression in the proportion that forecasts the validation
    windows best (up to a context of 2,048 steps)."""
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
