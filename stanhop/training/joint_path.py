"""The joint path: whether a network has one, of what it is told the time, and what it begins with.

It forecasts by the last patch of all channels what the direct path, which looks at one channel at a time, leaves. As a
regression it is the best of its rank (``reduced``), with the penalty that is best on the validation windows.

Where channels say much about one another, as those of the weather, it lowers the error; where they do not, it learns by
heart what does not hold later. So unless ``model.joint_rank`` says, a network has one where the validation windows are
clearly for the regression (``evidence.py``). Unless ``model.time_features`` says, it is told how far those periods have
gone by which the regression forecasts the validation windows best, if it is clearly better than without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stanhop.config import Period, RunConfig
from stanhop.model.joint_path import joint_inputs, num_joint_inputs
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import Batch, SeriesDataModule
from stanhop.series.time_features import columns_of
from stanhop.training.evidence import is_clear
from stanhop.training.least_squares import (
    LONGEST_CONTEXT,
    PENALTIES,
    PENALTY_UNSEEN,
    Moments,
    best_ridge,
    centred,
    reduced,
    ridge_maps,
)
from stanhop.training.lightning_module import ForecastingModule

RANK = 64
"""Of a joint path that nobody asked for."""
LARGEST_MAP = 2**23
"""Entries of a regression up to which it is tried unasked: some 400 MB and half a minute."""


@dataclass(frozen=True)
class Regression:
    """A map from ``joint_rows`` to what the direct path leaves.

    Args:
        weight: ``(channels * prediction_length, inputs)``, float64.
        moments: What it was learned from.
        places: Of its inputs in those of the rows, ``(inputs,)``.
        time_features: Periods that it is told.
    """

    weight: Tensor
    moments: Moments
    places: Tensor
    time_features: tuple[Period, ...]

    def of(self, rows: Tensor) -> Tensor:
        """What it makes of ``joint_rows``, ``(rows, channels * prediction_length)``."""
        return rows[:, self.places] @ self.weight.T


def with_joint_path(config: RunConfig, datamodule: SeriesDataModule) -> RunConfig:
    """``config`` with ``model.joint_rank`` and ``model.time_features`` decided, as far as they are not given.

    Contexts of ``datamodule`` have no other time features afterwards. The same data and configuration give the same,
    whatever was trained before.
    """
    model = config.model
    if model.network != "stanhop" or None not in (model.joint_rank, model.time_features):
        return config
    rank, periods = _decided(datamodule)
    datamodule.tell_time(periods)
    decided = model.model_copy(update={"joint_rank": rank, "time_features": periods})
    return config.model_copy(update={"model": decided})


def begin_joint_path(module: ForecastingModule, datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the joint paths of ``module``, if they are not too large, begin as the regression of what ``direct`` leaves.

    Where no penalty makes it better than nothing on the validation windows, that is what they begin as.
    """
    joint_paths = [own.joint for own in (module.network, module.trained_network) if isinstance(own, STanHopNet)]
    if not all(joint is not None and joint.down.in_features <= LONGEST_CONTEXT for joint in joint_paths):
        return
    found = regression(datamodule, moments_of(datamodule, direct), [datamodule.time_features])
    if not found.weight.any():
        return
    for joint in joint_paths:
        assert joint is not None
        joint.begin_as(*reduced(found.weight, found.moments, joint.down.out_features))


def joint_rows(
    batches: Iterable[Batch], *, direct: Tensor, num_steps: int, instance_norm: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch, a row for each window: ``joint_inputs`` of the last ``num_steps``, and what ``direct`` leaves."""
    for batch in batches:
        ((context, target),) = centred([batch], instance_norm=instance_norm)
        time = batch[0][:, -1, target.shape[-1] :].double()
        contexts, targets = context.transpose(1, 2), target.transpose(1, 2)
        left = targets - contexts @ direct.double().T
        yield joint_inputs(contexts[..., -num_steps:], time), left.flatten(1)


def _decided(datamodule: SeriesDataModule) -> tuple[int, tuple[Period, ...]]:
    """Rank of the joint path, 0 for none, and the periods that it is told."""
    rank = datamodule.config.model.joint_rank
    if rank == 0 or (rank is None and datamodule.num_channels == 1):
        return 0, ()
    if datamodule.config.model.time_features is None:
        known = datamodule.known_periods()
        datamodule.tell_time(known if _has_room(datamodule, known) else ())
    if not _has_room(datamodule, datamodule.time_features) or not datamodule.num_windows("validation"):
        return (0, ()) if rank is None else (rank, datamodule.config.model.time_features or ())
    direct = best_ridge(datamodule)
    found = _told_what_helps(datamodule, direct)
    if rank is None and not _is_clearly_better(found, None, datamodule, direct):
        return 0, ()
    return rank or RANK, found.time_features


def _has_room(datamodule: SeriesDataModule, periods: Sequence[Period]) -> bool:
    """Whether the regressions are small enough to be tried, the joint one told ``periods``."""
    model, num_channels = datamodule.config.model, datamodule.num_channels
    num_inputs = num_joint_inputs(num_channels, model.patch_length, 2 * len(periods))
    is_small = model.joint_rank is not None or num_inputs * num_channels * model.prediction_length <= LARGEST_MAP
    return is_small and max(num_inputs, model.context_length) <= LONGEST_CONTEXT


def _told_what_helps(datamodule: SeriesDataModule, direct: Tensor) -> Regression:
    """The regression that is told the periods that are given, or those that make it clearly better; maybe none."""
    moments, periods = moments_of(datamodule, direct), datamodule.time_features
    if datamodule.config.model.time_features is not None:
        return regression(datamodule, moments, [periods])
    choices = [each for size in range(len(periods) + 1) for each in itertools.combinations(periods, size)]
    untold, best = (regression(datamodule, moments, each) for each in ([()], choices))
    return best if _is_clearly_better(best, untold, datamodule, direct) else untold


def _is_clearly_better(
    found: Regression, other: Regression | None, datamodule: SeriesDataModule, direct: Tensor
) -> bool:
    """Whether the validation windows are clearly for ``found`` against ``other``, or against the direct path alone."""
    before, after = (window_errors(each, datamodule, direct) for each in (other, found))
    return is_clear(before - after, shortest=datamodule.config.model.prediction_length)


def window_errors(found: Regression | None, datamodule: SeriesDataModule, direct: Tensor) -> Tensor:
    """Mean squared error of each validation window, ``(windows,)``, with ``found`` beside the direct path, or alone."""
    rows = _rows_of(datamodule, direct)(datamodule.val_dataloader())
    return torch.cat([(left if found is None else left - found.of(x)).square().mean(dim=1) for x, left in rows])


def moments_of(datamodule: SeriesDataModule, direct: Tensor) -> tuple[Moments, Moments | None]:
    """Those of the training and, if there are any, of the validation windows' ``joint_rows``."""
    rows = _rows_of(datamodule, direct)
    train = Moments.of(rows(datamodule.train_dataloader()))
    return train, Moments.of(rows(datamodule.val_dataloader())) if datamodule.num_windows("validation") else None


def regression(
    datamodule: SeriesDataModule,
    moments: tuple[Moments, Moments | None],
    candidates: Sequence[tuple[Period, ...]],
) -> Regression:
    """The map from ``joint_rows`` to what the direct path leaves, told those of ``candidates`` that are best.

    It is 0 where every one and every penalty makes it worse than that on the validation windows. Where there are none,
    the first candidate is taken.
    """
    train, validation = moments
    best, least = None, float("inf")
    for periods in candidates:
        places = _places(periods, datamodule)
        own = train.of_inputs(places)
        nothing = torch.zeros_like(own.products.T)
        if validation is None:
            return Regression(ridge_maps(own, nothing, [PENALTY_UNSEEN])[0], own, places, periods)
        judge = validation.of_inputs(places)
        maps = (ridge_maps(own, nothing, [penalty])[0] for penalty in PENALTIES)  # one at a time: they may be large
        for weight in itertools.chain([nothing], maps):
            error = judge.error(weight)
            if error < least:
                best, least = Regression(weight, own, places, periods), error
    assert best is not None
    return best


def _places(periods: Sequence[Period], datamodule: SeriesDataModule) -> Tensor:
    """Where the ``joint_inputs`` that are told ``periods`` are among those that are told all that contexts tell."""
    num_channels, told = datamodule.num_channels, datamodule.time_features
    patch = num_channels * datamodule.config.model.patch_length
    features, num_levels = columns_of(periods, told), 2 * num_channels
    by_time = patch + 2 * len(told)
    products = (by_time + feature * num_levels + level for feature in features for level in range(num_levels))
    return torch.tensor([*range(patch), *(patch + feature for feature in features), *products])


def _rows_of(datamodule: SeriesDataModule, direct: Tensor) -> partial[Iterator[tuple[Tensor, Tensor]]]:
    model = datamodule.config.model
    return partial(joint_rows, direct=direct, num_steps=model.patch_length, instance_norm=model.instance_norm)
