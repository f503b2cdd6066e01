"""The joint path: whether a network has one, of what it is told the time, what it remembers, what it begins as.

It forecasts by the last patch of all channels what the direct path, which looks at one channel at a time, leaves. It
begins as the best map of its rank (``reduced``) of a regression (``joint_regression.py``).

Where channels say much about one another, as those of the weather, it lowers the error; where they do not, it learns by
heart what does not hold later. So unless ``model.joint_rank`` says, a network has one where the validation windows are
clearly for the regression (``evidence.py``). Unless ``model.time_features`` says, it is told how far those periods have
gone by which the regression forecasts the validation windows best, if it is clearly better than without. Unless
``model.joint_memories`` says, it remembers moments of the training rows, if it is clearly better with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from stanhop.config import Period, RunConfig
from stanhop.model.joint_path import JointMemories, JointPath, moment_of, num_joint_inputs
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.evidence import is_clear
from stanhop.training.joint_regression import JointTask, Trial, without_level
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge, reduced

RANK, NUM_MEMORIES = 64, 16
"""Of a joint path that nobody asked for."""
SEED = 0
"""By which the moments are drawn that are remembered: which ones must not depend on the seed of a training."""
LARGEST_MAP = 2**23
"""Entries of a regression up to which it is tried unasked: some 400 MB and half a minute."""


@dataclass(frozen=True)
class Decided:
    """What the keys of ``model`` of the same names become: no joint path, if nothing is said."""

    joint_rank: int = 0
    time_features: tuple[Period, ...] = ()
    joint_memories: int = 0


def with_joint_path(config: RunConfig, datamodule: SeriesDataModule) -> RunConfig:
    """``config`` with ``model.joint_rank``, ``time_features`` and ``joint_memories`` decided, as far as not given.

    Contexts of ``datamodule`` have no other time features afterwards. The same data and configuration give the same,
    whatever was trained before.
    """
    model = config.model
    if model.network != "stanhop" or None not in (model.joint_rank, model.time_features, model.joint_memories):
        return config
    decided = _decided(datamodule)
    datamodule.tell_time(decided.time_features)
    return config.model_copy(update={"model": model.model_copy(update=asdict(decided))})


def remember(networks: Iterable[STanHopNet], datamodule: SeriesDataModule) -> None:
    """Have the joint paths of ``networks``, if they have memories, remember moments of the training rows."""
    for joint in _joint_paths(networks):
        if joint.memories is not None:
            joint.memories.remember(_moments(datamodule, len(joint.memories.patterns)))


def memories_of(datamodule: SeriesDataModule, count: int) -> JointMemories:
    """``count`` moments of the training rows, told the time as contexts of ``datamodule`` are."""
    memories = JointMemories(count, datamodule.num_channels, 2 * len(datamodule.time_features))
    memories.remember(_moments(datamodule, count))
    return memories


def begin_joint_path(networks: Iterable[STanHopNet], datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the joint paths of ``networks`` that are not too large begin as the regression of what ``direct`` leaves.

    Where no penalty makes it better than nothing on the validation windows, that is what they begin as. What they
    remember they have been told.
    """
    joint_paths = [joint for joint in _joint_paths(networks) if joint.down.in_features <= LONGEST_CONTEXT]
    if not joint_paths:
        return
    found = JointTask(datamodule, direct, joint_paths[0].memories).regression([datamodule.time_features])
    if not found.weight.any():
        return
    for joint in joint_paths:
        joint.begin_as(*reduced(found.weight, found.moments, joint.down.out_features))


def _joint_paths(networks: Iterable[STanHopNet]) -> list[JointPath]:
    return [network.joint for network in networks if network.joint is not None]


def _moments(datamodule: SeriesDataModule, count: int) -> Tensor:
    """``count`` moments of the training windows, drawn at random and always the same, ``(count, size)``, float64."""
    model = datamodule.config.model
    windows, _ = datamodule.ordered_train_windows()
    parts = without_level(windows, instance_norm=model.instance_norm)
    every = torch.cat([moment_of(contexts[..., -model.patch_length :], time) for contexts, _, time in parts])
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(SEED))
    return every[order[torch.arange(count) % len(every)]]


def _decided(datamodule: SeriesDataModule) -> Decided:
    model = datamodule.config.model
    rank, asked = model.joint_rank, Decided(model.joint_rank or 0, model.time_features or (), model.joint_memories or 0)
    if rank == 0 or (rank is None and datamodule.num_channels == 1):
        return Decided()
    if model.time_features is None:
        known = datamodule.known_periods()
        datamodule.tell_time(known if _has_room(datamodule, known) else ())
    if not _has_room(datamodule, datamodule.time_features) or datamodule.num_windows("validation") < 2:
        return Decided() if rank is None else asked
    direct = best_ridge(datamodule)
    if model.time_features is None:
        datamodule.tell_time(_periods_that_help(datamodule, direct))
    plain = JointTask(datamodule, direct)
    best, num_memories = _with_memories_that_help(plain)
    if rank is None and not _is_clearly_better(best, plain.trial_of_nothing(), datamodule):
        return Decided()
    return Decided(rank or RANK, datamodule.time_features, asked.joint_memories or num_memories)


def _has_room(datamodule: SeriesDataModule, periods: Sequence[Period], num_memories: int = 0) -> bool:
    """Whether the regressions are small enough to be tried, the joint one told ``periods``."""
    model, num_channels = datamodule.config.model, datamodule.num_channels
    num_inputs = num_joint_inputs(num_channels, model.patch_length, 2 * len(periods), num_memories)
    is_small = model.joint_rank is not None or num_inputs * num_channels * model.prediction_length <= LARGEST_MAP
    return is_small and max(num_inputs, model.context_length) <= LONGEST_CONTEXT


def _periods_that_help(datamodule: SeriesDataModule, direct: Tensor) -> tuple[Period, ...]:
    """Those that make the regression clearly better, of the ones that contexts tell; maybe none."""
    task, told = JointTask(datamodule, direct), datamodule.time_features
    choices = [each for size in range(len(told) + 1) for each in itertools.combinations(told, size)]
    best = task.trial(choices)
    assert best.regression is not None
    return best.regression.time_features if _is_clearly_better(best, task.trial([()]), datamodule) else ()


def _with_memories_that_help(plain: JointTask) -> tuple[Trial, int]:
    """The regression with as many memories as are given, or with some if it is clearly better by them; how many."""
    datamodule = plain.datamodule
    given, periods = datamodule.config.model.joint_memories, datamodule.time_features
    without, count = plain.trial([periods]), NUM_MEMORIES if given is None else given
    if not count or not _has_room(datamodule, periods, count):
        return without, 0
    found = JointTask(datamodule, plain.direct, memories_of(datamodule, count)).trial([periods])
    is_wanted = given is not None or _is_clearly_better(found, without, datamodule)
    return (found, count) if is_wanted else (without, 0)


def _is_clearly_better(found: Trial, other: Trial, datamodule: SeriesDataModule) -> bool:
    """Whether the validation windows are clearly for ``found`` against ``other``."""
    return is_clear(other.errors - found.errors, shortest=datamodule.config.model.prediction_length)
