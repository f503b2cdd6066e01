r"""Ridge regressions of all training windows, in closed form: what the linear paths begin with.

A context without its mean is :math:`x`, its target without that mean :math:`y` (without instance normalisation, both
as they are). Of all linear maps the ridge regression has the least

    mean :math:`\lVert y - W x \rVert^2 + \lambda \lVert W - W_0 \rVert^2`,
    which is :math:`W = (E[y x^\top] + \lambda W_0) (E[x x^\top] + \lambda I)^{-1}`,

over windows and channels, :math:`W_0` being the mean of the context or, where the validation windows are clearly for
it, another simple forecast (``priors.py``). That a context is divided by its deviation as well changes nothing, since
the map is linear and errors count in scaled units. The penalty :math:`\lambda` is the one with the least error on the
validation windows.

Source: Hoerl & Kennard 1970; closed forms of linear forecasters, Toner & Darlow 2024, arXiv:2403.14587; reduced rank,
Izenman 1975, Journal of Multivariate Analysis 5(2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Self

import torch
from torch import Tensor

from stanhop.forecasting.calendar import season_length
from stanhop.model.normalization import InstanceStatistics
from stanhop.series.datamodule import Batch, SeriesDataModule
from stanhop.training.priors import Prior, priors

PENALTIES = tuple(10.0**exponent for exponent in range(-5, 3))
"""Those to choose from, relative to the mean square of the contexts."""
PENALTY_UNSEEN = 0.01
"""The one where there are no validation windows; it pulls to the mean then."""
RANKS = (8, 12, 16, 24, 32, 64)
"""Those to choose from beside the whole one; whichever is fixed, of some series it is far too low."""
RANK_MARGIN = 0.002
"""By so much a lower rank has to be better on the validation windows: ``benchmarks/ranks.py``."""
LONGEST_CONTEXT = 2048
"""Steps up to which the regression takes seconds; it takes their cube in time and their square in memory. The last
patch of all channels counts likewise."""
SMALLEST_SPREAD = 1e-7
"""Of inputs along an axis, relative to the largest, that is more than rounding."""


@dataclass(frozen=True)
class Moments:
    r"""Means over rows, in float64: a row is a window of one channel or, for the joint path, of all.

    Args:
        contexts: :math:`E[x x^\top]`, ``(context_length, context_length)``.
        products: :math:`E[x y^\top]`, ``(context_length, prediction_length)``.
        targets: :math:`E \lVert y \rVert^2`, a scalar.
    """

    contexts: Tensor
    products: Tensor
    targets: Tensor

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances along axes by which the contexts' entries do not go together, and these axes, one a column."""
        variances, axes = torch.linalg.eigh(self.contexts)
        return variances, axes

    @classmethod
    def of(cls, rows: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """Those of all ``rows``: inputs ``(rows, context_length)``, targets ``(rows, prediction_length)``, float64."""
        sums: list[Tensor | float] = [0.0, 0.0, 0.0]
        count = 0
        for x, y in rows:
            sums = [one + more for one, more in zip(sums, (x.T @ x, x.T @ y, y.square().sum()), strict=True)]
            count += len(x)
        return cls(*(torch.as_tensor(one / count) for one in sums))

    def of_inputs(self, places: Tensor) -> Self:
        """Those of the same rows with the inputs at ``places`` alone."""
        return type(self)(self.contexts[places][:, places], self.products[places], self.targets)

    def error(self, weight: Tensor) -> float:
        """Mean squared error over rows and steps of the map ``(prediction_length, context_length)``."""
        explained = (weight @ self.contexts * weight).sum() - 2 * (weight.T * self.products).sum()
        return float((self.targets + explained) / len(weight))


def ridge_maps(moments: Moments, prior: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """The regression with each of ``penalties``.

    Args:
        moments: Of the windows to learn from.
        prior: The map that an infinite penalty gives, ``(prediction_length, context_length)``.
        penalties: Relative to the mean square of the contexts, above 0.

    Returns:
        Maps of the shape of ``prior``, in float64.
    """
    variances, axes = moments.spectrum
    unit = variances.mean()
    if not unit > 0:  # contexts that never move say nothing
        return [prior.double()] * len(penalties)
    products, start = axes.T @ moments.products, axes.T @ prior.double().T
    maps = []
    for penalty in penalties:
        along_axes = (products + penalty * unit * start) / (variances.clamp(min=0) + penalty * unit)[:, None]
        maps.append((axes @ along_axes).T)
    return maps


def reduced(weight: Tensor, moments: Moments, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors of the map of at most ``rank`` that forecasts most like ``weight``.

    Args:
        weight: ``(outputs, inputs)``.
        moments: Of the inputs.
        rank: At most ``inputs``.

    Returns:
        ``down`` ``(rank, inputs)`` and ``up`` ``(outputs, rank)``; the map is ``up @ down``.
    """
    variances, axes = moments.spectrum
    spreads = variances.clamp(min=0).sqrt()
    along_axes = weight @ axes * spreads  # what each axis does to the forecast, per unit of its spread
    _, directions = torch.linalg.eigh(along_axes.T @ along_axes)
    kept = directions[:, -rank:]
    inverse = torch.where(spreads > spreads.max() * SMALLEST_SPREAD, 1 / spreads, 0.0)
    return (kept.T * inverse) @ axes.T, along_axes @ kept


def best_ridge(datamodule: SeriesDataModule) -> Tensor:
    """The regression with the penalty that is best on the validation windows, in float32.

    It is pulled to the mean of the context, or to another of ``priors`` where that is clearly better there, and of low
    rank where that is better.
    """
    model = datamodule.config.model
    windows, _ = datamodule.ordered_train_windows()
    train = Moments.of(own_rows(windows, instance_norm=model.instance_norm))
    season = season_length(datamodule.frequency)
    candidates = list(priors(model.context_length, model.prediction_length, season=season))
    if not datamodule.num_windows("validation"):
        (best,) = ridge_maps(train, candidates[0].weight, [PENALTY_UNSEEN])
        return best.float()
    validation = Moments.of(own_rows(datamodule.val_dataloader(), instance_norm=model.instance_norm))

    prior, maps = best_pulled(candidates, train, validation)
    return of_best_rank(maps, prior.weight.double(), train, validation).float()


def best_pulled(candidates: Iterable[Prior], train: Moments, validation: Moments) -> tuple[Prior, list[Tensor]]:
    """The prior to pull to, by the best map of each on the validation windows, and the maps of all ``PENALTIES``."""

    def judged(prior: Prior) -> tuple[float, Prior, list[Tensor]]:
        maps = ridge_maps(train, prior.weight, PENALTIES)
        return min(map(validation.error, maps)) / (1 - prior.margin), prior, maps

    _, prior, maps = min(map(judged, candidates), key=itemgetter(0))
    return prior, maps


def of_best_rank(
    maps: Sequence[Tensor], prior: Tensor, train: Moments, validation: Moments, *, margin: float = RANK_MARGIN
) -> Tensor:
    """The best of ``maps`` on the validation windows or, where it is better by ``margin``, one of a lower rank.

    What a map adds to its prior are forecasts of many steps which all move along few directions, such as the level and
    the waves of a day. The others are mostly noise of the training windows, where horizons are long.

    Args:
        maps: Regressions with several penalties, ``(prediction_length, context_length)``, float64.
        prior: What they are pulled to.
        train: Windows that they were learned from.
        validation: Windows to choose by.
        margin: By which share the error has to be lower than that of the best of ``maps``.
    """
    whole = min(maps, key=validation.error)
    ranks = [rank for rank in RANKS if rank < min(prior.shape)]
    if not ranks:
        return whole
    narrow = min((_narrowed(each, prior, train, validation, ranks) for each in maps), key=validation.error)
    return narrow if validation.error(narrow) < (1 - margin) * validation.error(whole) else whole


def _narrowed(weight: Tensor, prior: Tensor, train: Moments, validation: Moments, ranks: Sequence[int]) -> Tensor:
    """Of the maps of ``ranks`` that forecast most like ``weight`` the best on the validation windows.

    A map of rank k projects what is forecast onto its first k principal components, and each of these takes a part of
    its own off the error.
    """
    variances, axes = train.spectrum
    change = weight - prior
    components: Tensor = torch.linalg.svd(change @ axes * variances.clamp(min=0).sqrt(), full_matrices=False)[0]
    along = components.T @ change
    unexplained = components.T @ (validation.products.T - prior @ validation.contexts)
    gains = (along * (2 * unexplained - along @ validation.contexts)).sum(dim=1).cumsum(dim=0)
    best = max(ranks, key=lambda rank: float(gains[rank - 1]))
    return prior + components[:, :best] @ along[:best]


def own_rows(batches: Iterable[Batch], *, instance_norm: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch, a row for each channel of each window: its context, and its target."""
    for context, target in centred(batches, instance_norm=instance_norm):
        yield context.transpose(1, 2).flatten(0, 1), target.transpose(1, 2).flatten(0, 1)


def channels_of(batch: Batch) -> Batch:
    """Context and target in float64; what a context has beside the target's channels is left out."""
    context, target = (part.double() for part in batch)
    return context[..., : target.shape[-1]], target


def centred(batches: Iterable[Batch], *, instance_norm: bool) -> Iterator[Batch]:
    """The channels of each batch in float64 (a mean taken away in float32 is not quite gone), without their mean."""
    for batch in batches:
        context, target = channels_of(batch)
        level = InstanceStatistics.of(context).mean if instance_norm else 0.0
        yield context - level, target - level
