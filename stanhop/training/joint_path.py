"""The joint path: whether a network has one, and what it begins with.

It forecasts by the last patch of all channels what the direct path, which looks at one channel at a time, leaves. As a
regression it is the best of its rank (``reduced``), with the penalty that is best on the validation windows.

Where channels say much about one another, as those of the weather, it lowers the error; where they do not, it learns by
heart what does not hold later. So unless ``model.joint_rank`` says, a network has one where the validation windows are
clearly for the regression (``evidence.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from stanhop.config import RunConfig
from stanhop.model.network import STanHopNet
from stanhop.series.datamodule import Batch, SeriesDataModule
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


def with_joint_rank(config: RunConfig, datamodule: SeriesDataModule) -> RunConfig:
    """``config`` with ``model.joint_rank`` decided, if it is not given.

    The same data and configuration give the same, whatever was trained before.
    """
    model = config.model
    if model.joint_rank is not None or model.network != "stanhop":
        return config
    rank = RANK if _can_be_tried(datamodule) and _is_worth_it(datamodule) else 0
    return config.model_copy(update={"model": model.model_copy(update={"joint_rank": rank})})


def begin_joint_path(module: ForecastingModule, datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the joint paths of ``module``, if they are not too large, begin as the regression of what ``direct`` leaves.

    Where no penalty makes it better than nothing on the validation windows, that is what they begin as.
    """
    joint_paths = [own.joint for own in (module.network, module.trained_network) if isinstance(own, STanHopNet)]
    if not all(joint is not None and joint.down.in_features <= LONGEST_CONTEXT for joint in joint_paths):
        return
    weight, train = _regression(datamodule, direct)
    if not weight.any():
        return
    for joint in joint_paths:
        assert joint is not None
        joint.begin_as(*reduced(weight, train, joint.down.out_features))


def joint_rows(
    batches: Iterable[Batch], *, direct: Tensor, num_steps: int, instance_norm: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch, a row for each window: the last ``num_steps`` of all channels, and what ``direct`` leaves."""
    for context, target in centred(batches, instance_norm=instance_norm):
        contexts, targets = context.transpose(1, 2), target.transpose(1, 2)
        left = targets - contexts @ direct.double().T
        yield contexts[..., -num_steps:].flatten(1), left.flatten(1)


def _can_be_tried(datamodule: SeriesDataModule) -> bool:
    """Whether there are several channels, windows to judge by, and room for the regressions."""
    model, num_channels = datamodule.config.model, datamodule.num_channels
    num_inputs = num_channels * model.patch_length
    return (
        num_channels > 1
        and datamodule.num_windows("validation") > 0
        and max(num_inputs, model.context_length) <= LONGEST_CONTEXT
        and num_inputs * num_channels * model.prediction_length <= LARGEST_MAP
    )


def _is_worth_it(datamodule: SeriesDataModule) -> bool:
    """Whether the validation windows are clearly for the regression beside the direct one."""
    direct = best_ridge(datamodule)
    weight, _ = _regression(datamodule, direct)
    if not weight.any():
        return False
    rows = _rows_of(datamodule, direct)(datamodule.val_dataloader())
    gains = torch.cat([(left.square() - (left - x @ weight.T).square()).mean(dim=1) for x, left in rows])
    return is_clear(gains, shortest=datamodule.config.model.prediction_length)


def _regression(datamodule: SeriesDataModule, direct: Tensor) -> tuple[Tensor, Moments]:
    """The map from ``joint_rows`` to what ``direct`` leaves, float64, and the moments it was learned from.

    It is 0 where every penalty makes it worse than that on the validation windows.
    """
    rows = _rows_of(datamodule, direct)
    train = Moments.of(rows(datamodule.train_dataloader()))
    nothing = torch.zeros_like(train.products.T)
    if not datamodule.num_windows("validation"):
        return ridge_maps(train, nothing, [PENALTY_UNSEEN])[0], train
    validation = Moments.of(rows(datamodule.val_dataloader()))
    best, least = nothing, validation.error(nothing)
    for penalty in PENALTIES:  # one at a time: of many channels a map is large
        (weight,) = ridge_maps(train, nothing, [penalty])
        error = validation.error(weight)
        if error < least:
            best, least = weight, error
    return best, train


def _rows_of(datamodule: SeriesDataModule, direct: Tensor) -> partial[Iterator[tuple[Tensor, Tensor]]]:
    model = datamodule.config.model
    return partial(joint_rows, direct=direct, num_steps=model.patch_length, instance_norm=model.instance_norm)
