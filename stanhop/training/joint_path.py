"""The joint path: whether a network has one, of what it is told the time, and what it begins with.

It forecasts by the last patch of all channels what the direct path, which looks at one channel at a time, leaves. It
begins as the best map of its rank (``reduced``) of a regression (``joint_regression.py``).

Where channels say much about one another, as those of the weather, it lowers the error; where they do not, it learns by
heart what does not hold later. So unless ``model.joint_rank`` says, a network has one where the validation windows are
clearly for the regression (``evidence.py``). Unless ``model.time_features`` says, it is told how far those periods have
gone by which the regression forecasts the validation windows best, if it is clearly better than without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from torch import Tensor

from stanhop.config import Period, RunConfig
from stanhop.model.joint_path import num_joint_inputs
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.evidence import is_clear
from stanhop.training.joint_regression import JointTask, Trial
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge, reduced

RANK = 64
"""Of a joint path that nobody asked for."""
LARGEST_MAP = 2**23
"""Entries of a regression up to which it is tried unasked: some 400 MB and half a minute."""


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


def begin_joint_path(networks: Iterable[STanHopNet], datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the joint paths of ``networks`` that are not too large begin as the regression of what ``direct`` leaves.

    Where no penalty makes it better than nothing on the validation windows, that is what they begin as.
    """
    joint_paths = [network.joint for network in networks if network.joint is not None]
    if not joint_paths or joint_paths[0].down.in_features > LONGEST_CONTEXT:
        return
    found = JointTask(datamodule, direct).regression([datamodule.time_features])
    if not found.weight.any():
        return
    for joint in joint_paths:
        joint.begin_as(*reduced(found.weight, found.moments, joint.down.out_features))


def _decided(datamodule: SeriesDataModule) -> tuple[int, tuple[Period, ...]]:
    """Rank of the joint path, 0 for none, and the periods that it is told."""
    rank, given = datamodule.config.model.joint_rank, datamodule.config.model.time_features
    if rank == 0 or (rank is None and datamodule.num_channels == 1):
        return 0, ()
    if given is None:
        known = datamodule.known_periods()
        datamodule.tell_time(known if _has_room(datamodule, known) else ())
    if not _has_room(datamodule, datamodule.time_features) or datamodule.num_windows("validation") < 2:
        return (0, ()) if rank is None else (rank, given or ())
    task = JointTask(datamodule, best_ridge(datamodule))
    periods, trial = _told_what_helps(task, given)
    if rank is None and not _is_clearly_better(trial, task.trial_of_nothing(), datamodule):
        return 0, ()
    return rank or RANK, periods


def _has_room(datamodule: SeriesDataModule, periods: Sequence[Period]) -> bool:
    """Whether the regressions are small enough to be tried, the joint one told ``periods``."""
    model, num_channels = datamodule.config.model, datamodule.num_channels
    num_inputs = num_joint_inputs(num_channels, model.patch_length, 2 * len(periods))
    is_small = model.joint_rank is not None or num_inputs * num_channels * model.prediction_length <= LARGEST_MAP
    return is_small and max(num_inputs, model.context_length) <= LONGEST_CONTEXT


def _told_what_helps(task: JointTask, given: tuple[Period, ...] | None) -> tuple[tuple[Period, ...], Trial]:
    """The periods that are given, or those that make the regression clearly better; maybe none. What it is worth."""
    if given is not None:
        return given, task.trial([given])
    told = task.datamodule.time_features
    choices = [each for size in range(len(told) + 1) for each in itertools.combinations(told, size)]
    untold, best = task.trial([()]), task.trial(choices)
    chosen = best if _is_clearly_better(best, untold, task.datamodule) else untold
    assert chosen.regression is not None
    return chosen.regression.time_features, chosen


def _is_clearly_better(found: Trial, other: Trial, datamodule: SeriesDataModule) -> bool:
    """Whether the validation windows are clearly for ``found`` against ``other``."""
    return is_clear(other.errors - found.errors, shortest=datamodule.config.model.prediction_length)
