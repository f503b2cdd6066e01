"""The joint path: whether a network has one, of what it is told the time, whether it has memories, what it begins as.

It forecasts by the last patch of all channels what the direct path, which looks at one channel at a time, leaves. It
begins as the best map of its rank (``reduced``) of a regression (``joint_regression.py``).

Where channels say much about one another, as those of the weather, it lowers the error; where they do not, it learns by
heart what does not hold later. So unless ``model.joint_rank`` says, a network has one where the validation windows are
clearly for the regression (``evidence.py``). Unless ``model.time_features`` says, it is told how far those periods have
gone by which the regression forecasts the validation windows best, if it is clearly better than without. Unless
``model.joint_memories`` says, it has memories if it is clearly better with them. These are asked along the directions
that the forecast of the regression without them moves along.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from stanhop.config import Period, RunConfig
from stanhop.model.joint_path import NUM_DIRECTIONS, JointMemories, num_joint_inputs
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.evidence import is_clear
from stanhop.training.joint_regression import JointTask, Regression, Trial
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge, reduced

RANK, NUM_MEMORIES = 64, 8
"""Of a joint path that nobody asked for, and of each of its heads."""
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


def begin_joint_path(networks: Iterable[STanHopNet], datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the joint paths of ``networks`` that are not too large begin as the regression of what ``direct`` leaves.

    Where no penalty makes it better than nothing on the validation windows, that is what they begin as.
    """
    joint_paths = [network.joint for network in networks if network.joint is not None]
    if not joint_paths or joint_paths[0].down.in_features > LONGEST_CONTEXT:
        return
    periods = datamodule.time_features
    task = JointTask(datamodule, direct)
    found = task.regression([periods])
    remembering = [joint.memories for joint in joint_paths if joint.memories is not None]
    if remembering:
        memories = memories_of(task, found, remembering[0].memory.shape[1])
        for each in remembering:
            each.load_state_dict(memories.state_dict())
        found = JointTask(datamodule, direct, memories).regression([periods])
    if not found.weight.any():
        return
    for joint in joint_paths:
        joint.begin_as(*reduced(found.weight, found.moments, joint.down.out_features))


def memories_of(task: JointTask, found: Regression, count: int) -> JointMemories:
    """Memories for a joint path that begins as ``found`` without any, in float64.

    Args:
        task: Of a path that is told the time as that regression is.
        found: Along whose directions, those that its forecast moves along, memories are asked.
        count: Of each head.
    """
    model = task.datamodule.config.model
    model = model.model_copy(update={"time_features": found.time_features, "joint_memories": count})
    memories = JointMemories(model, task.datamodule.num_channels).double().eval()
    directions, _ = reduced(found.weight, found.moments, min(NUM_DIRECTIONS, found.weight.shape[1]))
    memories.ask(directions)
    windows, _ = task.datamodule.ordered_train_windows()
    memories.expect(inputs for inputs, _ in task.rows(windows))
    return memories


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
    task = JointTask(datamodule, best_ridge(datamodule))
    without = _told_what_helps(task, model.time_features)
    nothing = task.trial_of_nothing()
    best, num_memories = _with_memories_that_help(task, without)
    if rank is None and not _is_clearly_better(best, nothing, datamodule):
        return Decided()
    assert best.regression is not None
    return Decided(rank or RANK, best.regression.time_features, num_memories)


def _has_room(datamodule: SeriesDataModule, periods: Sequence[Period], num_memories: int = 0) -> bool:
    """Whether the regressions are small enough to be tried, the joint one told ``periods``."""
    model, num_channels = datamodule.config.model, datamodule.num_channels
    num_inputs = num_joint_inputs(num_channels, model.patch_length, 2 * len(periods), num_memories)
    is_small = model.joint_rank is not None or num_inputs * num_channels * model.prediction_length <= LARGEST_MAP
    return is_small and max(num_inputs, model.context_length) <= LONGEST_CONTEXT


def _told_what_helps(task: JointTask, given: tuple[Period, ...] | None) -> Trial:
    """The regression that is told the periods given, or those by which it is clearly better; maybe none."""
    if given is not None:
        return task.trial([given])
    told = task.datamodule.time_features
    choices = [each for size in range(len(told) + 1) for each in itertools.combinations(told, size)]
    untold, best = task.trial([()]), task.trial(choices)
    return best if _is_clearly_better(best, untold, task.datamodule) else untold


def _with_memories_that_help(task: JointTask, without: Trial) -> tuple[Trial, int]:
    """The regression with as many memories as are given, or with some if it is clearly better by them; how many."""
    datamodule, found = task.datamodule, without.regression
    assert found is not None
    given = datamodule.config.model.joint_memories
    count = NUM_MEMORIES if given is None else given
    if not count or (given is None and not _has_room(datamodule, found.time_features, count)):
        return without, 0
    datamodule.tell_time(found.time_features)  # what memories read is laid out by it; ``task`` is over
    memories = memories_of(JointTask(datamodule, task.direct), found, count)
    trial = JointTask(datamodule, task.direct, memories).trial([found.time_features])
    is_wanted = given is not None or _is_clearly_better(trial, without, datamodule)
    return (trial, count) if is_wanted else (without, 0)


def _is_clearly_better(found: Trial, other: Trial, datamodule: SeriesDataModule) -> bool:
    """Whether the validation windows are clearly for ``found`` against ``other``."""
    return is_clear(other.errors - found.errors, shortest=datamodule.config.model.prediction_length)
