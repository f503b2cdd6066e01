"""The arguments of the published STanHop-Net networks: their words, ours, and what the published code cannot run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from stanhop.config import LARGEST_SIZE, ModelConfig, Section
from stanhop.errors import Code, ConfigError, quoted
from stanhop.hopfield.separation import SEPARATIONS, Separation

Variant = Literal["stanhop", "outeffhop"]
"""Whose network: the STanHop repository's, or the copy of it in the OutEffHop repository."""

PUBLISHED_WORDS = {
    "data_dim": "num_channels",
    "in_len": "context_length",
    "out_len": "prediction_length",
    "seg_len": "patch_length",
    "win_size": "merge_size",
    "factor": "num_memories",
    "d_model": "model_dim",
    "d_ff": "feedforward_dim",
    "n_heads": "num_heads",
    "e_layers": "num_levels",
    "dropout": "dropout",
    "baseline": "baseline",
    "mode": "mode",
    "eta": "eta",
    "gamma": "gamma",
}
"""Our word for each argument of the published constructors."""

OUTEFFHOP_WORDS = ("mode", "eta", "gamma")
"""Arguments that only the OutEffHop repository's constructor has."""

UNUSED_WORD = "device"
"""An argument that the published code hardly uses and ours does without: a network is where its parameters are."""

SEPARATION_OF_MODE = {
    "entmax": SEPARATIONS["gsh"],
    "softmax": SEPARATIONS["softmax"],
    "softmax1": SEPARATIONS["outeffhop"],
    "sparsemax": SEPARATIONS["sparsemax"],
    "clip": SEPARATIONS["softmax"],
    "clip_softmax1": SEPARATIONS["outeffhop"],
}
"""Separation of each published ``mode``, before its clipping."""

MODE_OF_SEPARATION: dict[str, Literal["entmax", "softmax", "softmax1", "sparsemax", "clip", "clip_softmax1"]] = {
    "gsh": "entmax",
    "softmax": "softmax",
    "outeffhop": "softmax1",
    "sparsemax": "sparsemax",
    "clipped_softmax": "clip",
    "clipped_outeffhop": "clip_softmax1",
}
"""The published ``mode`` of each separation that a run's configuration can name, clipped with the published ends."""


class PublishedConfig(Section):
    """Shape of a published STanHop-Net, in our words; the defaults are the published classes'."""

    variant: Variant
    """`stanhop`: four LayerNorms a tandem block, alpha in (1, 2). `outeffhop`: one, alpha in (1, 3), and the modes."""
    num_channels: PositiveInt = Field(le=LARGEST_SIZE)
    """Variates of a series; the learned positions are one set per channel."""
    context_length: PositiveInt = Field(le=LARGEST_SIZE)
    """Steps of history the network sees."""
    prediction_length: PositiveInt = Field(le=LARGEST_SIZE)
    """Steps it forecasts."""
    patch_length: PositiveInt = Field(le=LARGEST_SIZE)
    """Steps per patch; need not divide the two lengths."""
    merge_size: PositiveInt = Field(default=4, le=1_024)
    """Adjacent patches merged per level; 1 merges none."""
    num_memories: PositiveInt = Field(default=10, le=65_536)
    """Learned memories of each tandem block."""
    model_dim: PositiveInt = Field(default=512, le=16_384)
    """Features per patch."""
    feedforward_dim: PositiveInt = Field(default=1024, le=65_536)
    """Hidden features of the tandem blocks' feed-forward parts (the decoder's own have `model_dim`)."""
    num_heads: PositiveInt = Field(default=8, le=1_024)
    """Parallel retrievals; the features of a head are `model_dim // num_heads`, what is left over is not used."""
    num_levels: PositiveInt = Field(default=3, le=64)
    """Encoder levels; the decoder has one layer more."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations dropped in training."""
    baseline: bool = False
    """Whether the mean of the context is added to the forecast."""
    mode: Literal["entmax", "softmax", "softmax1", "sparsemax", "clip", "clip_softmax1"] = "entmax"
    """How scores become weights. The published code cannot build `clip_softmax1`; here it is what the paper meant."""
    eta: float = 1.1
    """Upper end to which the modes `clip` and `clip_softmax1` stretch the weights."""
    gamma: float = -0.1
    """Lower end to which they stretch them, whatever the number of memories."""

    @property
    def head_dim(self) -> int:
        """Features of one head."""
        return self.model_dim // self.num_heads

    @property
    def num_context_patches(self) -> int:
        """Patches that hold the context, the first filled up on the left."""
        return -(-self.context_length // self.patch_length)

    @property
    def num_forecast_patches(self) -> int:
        """Patches that hold the forecast, the last cut on the right."""
        return -(-self.prediction_length // self.patch_length)

    @property
    def separation(self) -> Separation:
        """How scores become weights, before clipping."""
        return SEPARATION_OF_MODE[self.mode]

    @property
    def is_clipped(self) -> bool:
        """Whether weights are stretched to [gamma, eta] and clipped to [0, 1]."""
        return self.mode.startswith("clip")

    @property
    def largest_alpha(self) -> float:
        """The learned alpha lies between 1 and this."""
        return 2.0 if self.variant == "stanhop" else 3.0

    @model_validator(mode="after")
    def _variant_has_mode(self) -> Self:
        if self.variant == "stanhop" and self.mode != "entmax":
            raise ValueError(f"mode must be 'entmax' in variant 'stanhop', which has no other, got {self.mode!r}")
        return self

    @model_validator(mode="after")
    def _heads_have_features(self) -> Self:
        if self.num_heads > self.model_dim:
            raise ValueError(f"num_heads ({self.num_heads}) must not exceed model_dim ({self.model_dim})")
        return self

    @model_validator(mode="after")
    def _patches_can_be_merged(self) -> Self:
        patches = self.num_context_patches
        for level in range(2, self.num_levels + 1):
            repeated = -patches % self.merge_size
            if repeated > patches:
                raise ValueError(
                    f"encoder level {level} merges {patches} patches by merge_size ({self.merge_size}), for which the "
                    f"published network repeats the last {repeated}, but there are only {patches}; choose fewer "
                    "levels, a smaller merge_size or a smaller patch_length"
                )
            patches = (patches + repeated) // self.merge_size
        return self


def published_config(config: ModelConfig, num_channels: int) -> PublishedConfig:
    """The published network that a run's configuration asks for by ``model.network``.

    Raises:
        ConfigError: it cannot be built with these sizes.
    """
    shared = config.model_dump(include=set(PUBLISHED_WORDS.values()) - {"num_channels", "mode", "baseline"})
    variant: Variant = "stanhop" if config.network == "published_stanhop" else "outeffhop"
    mode = MODE_OF_SEPARATION[config.separation]
    try:
        return PublishedConfig(variant=variant, num_channels=num_channels, mode=mode, **shared)
    except ValidationError as error:
        raise ConfigError(Code.CONFIG, "; ".join(_explain(problem) for problem in error.errors())) from None


def read_published_config(config: Mapping[str, Any], variant: Variant) -> PublishedConfig:
    """The arguments ``config`` of a published constructor, by its own words, as ours.

    Raises:
        ConfigError: a word that this constructor does not have, one that it needs and does not get, or values that it
            cannot run with.
    """
    known = [word for word in PUBLISHED_WORDS if variant != "stanhop" or word not in OUTEFFHOP_WORDS]
    unknown = [_unknown_word(word, known) for word in config if word not in (*known, UNUSED_WORD)]
    if unknown:
        fix = f"the constructor of variant {quoted(variant)} takes {', '.join(known)}"
        raise ConfigError(Code.CONFIG, "; ".join(unknown), fix=fix)
    values = {PUBLISHED_WORDS[word]: value for word, value in config.items() if word != UNUSED_WORD}
    try:
        return PublishedConfig.model_validate({"variant": variant, **values})
    except ValidationError as error:
        raise ConfigError(Code.CONFIG, "; ".join(_explain(problem) for problem in error.errors())) from None


def _unknown_word(word: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(str(word), known, n=1)
    return f"unknown argument {quoted(word)}" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _explain(problem: Mapping[str, Any]) -> str:
    """One problem of pydantic's, in the published words."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    published_words = {ours: word for word, ours in PUBLISHED_WORDS.items()}
    ours = ".".join(str(part) for part in problem["loc"])
    word = published_words.get(ours, ours)
    if problem["type"] == "missing":
        return f"argument {word} ({ours}) is missing"
    return f"{word}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, got {quoted(problem['input'])}"
