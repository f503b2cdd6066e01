"""What a ridge regression is pulled to where the rows say little: simple forecasts, each a linear map of the context.

Rows that are few tell a map of many weights from noise only as far as the simple forecast leaves room. The best one to
pull to is another on each series: levels that return, random walks, months that repeat those of the year before.

Source: the mean, naive and seasonal naive methods, Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd
edition, 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stanhop.model.network import mean_of_context

LAST_VALUE_MARGIN = 0.01
"""One stretch of rows tells no smaller difference for the next."""
SEASON_MARGIN = 0.1
"""Where rows are many the regression finds the season by itself, and validation windows are for these priors or against
them by chance; where rows are few, they are by much more (``benchmarks/priors.py``)."""


@dataclass(frozen=True)
class Prior:
    """A map to pull to.

    Args:
        name: What it forecasts.
        weight: ``(prediction_length, context_length)``, of a context without its mean to a target without that mean.
        margin: By which share the error on the validation windows has to be lower than with the mean of the context.
    """

    name: str
    weight: Tensor
    margin: float


def priors(context_length: int, prediction_length: int, *, season: int) -> Iterator[Prior]:
    """All of them, first the mean of the context, from which the validation windows have to call away.

    Args:
        context_length: Steps of a context.
        prediction_length: Steps of a target.
        season: Steps of a season, 1 if there is none.
    """
    yield Prior("the mean of the context", mean_of_context(context_length, prediction_length), 0.0)
    yield Prior("the last value", last_of_context(context_length, prediction_length), LAST_VALUE_MARGIN)
    if 1 < season <= context_length:
        weight = season_before(context_length, prediction_length, season=season)
        yield Prior("the season before", weight, SEASON_MARGIN)
        if 2 * season <= context_length:
            moved = weight + rise_by_season(context_length, prediction_length, season=season)
            yield Prior("the season before and its rise", moved, SEASON_MARGIN)


def last_of_context(context_length: int, prediction_length: int) -> Tensor:
    """The map by which every step is the last value of the context."""
    return season_before(context_length, prediction_length, season=1)


def season_before(context_length: int, prediction_length: int, *, season: int) -> Tensor:
    """The map by which every step is the last value that the context has of that place in the season."""
    steps = torch.arange(prediction_length)
    weight = torch.zeros(prediction_length, context_length)
    weight[steps, context_length - season + steps % season] = 1.0
    return weight


def rise_by_season(context_length: int, prediction_length: int, *, season: int) -> Tensor:
    """The map of what the last season lies above the one before it, once for each season that a step is ahead."""
    seasons_ahead = 1 + torch.arange(prediction_length) // season
    weight = torch.zeros(prediction_length, context_length)
    weight[:, -season:] = seasons_ahead[:, None] / season
    weight[:, -2 * season : -season] = -seasons_ahead[:, None] / season
    return weight
