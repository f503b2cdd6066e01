r"""How far the level of a context returns to the mean of the training rows, judged on windows not learned from.

Scaled series have their training rows' mean at 0. With :math:`m` the mean of a context and :math:`r_l` what the linear
map of the context without its mean leaves of step :math:`l`, the share is the regression

    :math:`s_l = -E[m\,r_l] / E[m^2]`, at least 0 and at most 1,

over windows and channels, times one factor for all steps. A short record makes levels seem to return faster than they
do (its own mean is what they return to; Kendall 1954, Biometrika 41), so the factor is the one with the least error on
windows that had no part in the regression: the validation windows, and each quarter of the training windows by those
that share no row with it. It may be 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stanhop.model.normalization import InstanceStatistics
from stanhop.series.datamodule import Batch, SeriesDataModule

FACTORS = tuple(step / 10 for step in range(11))
"""Of the shares, to choose from."""
NUM_BLOCKS, NUM_FOLDS = 32, 4
"""Blocks of training windows that moments are kept of, and folds of blocks that are forecast by the others."""


@dataclass(frozen=True)
class LevelMoments:
    """Sums over windows, in float64, by channel.

    Args:
        count: Windows.
        level: Of the level, ``(channels,)``.
        square: Of its square, ``(channels,)``.
        left: Of what is left to forecast, ``(channels, prediction_length)``.
        product: Of that times the level, ``(channels, prediction_length)``.
        farthest: The largest magnitude of a level, a scalar and no sum.
    """

    count: int
    level: Tensor
    square: Tensor
    left: Tensor
    product: Tensor
    farthest: Tensor

    @classmethod
    def of(cls, level: Tensor, left: Tensor) -> Self:
        """Those of levels ``(windows, channels)`` and what is left, ``(windows, channels, prediction_length)``."""
        product = (level[..., None] * left).sum(0)
        return cls(len(level), level.sum(0), level.square().sum(0), left.sum(0), product, level.abs().amax())

    def __add__(self, other: LevelMoments) -> LevelMoments:
        return LevelMoments(
            self.count + other.count,
            self.level + other.level,
            self.square + other.square,
            self.left + other.left,
            self.product + other.product,
            torch.maximum(self.farthest, other.farthest),
        )

    @property
    def mean(self) -> Tensor:
        """Of the level, ``(channels,)``."""
        return self.level / self.count

    def shares(self, mean: Tensor | float = 0.0) -> Tensor:
        """The regression, ``(prediction_length,)``, if levels return to ``mean`` ``(channels,)``."""
        square, product = self._about(mean)
        return (-product / square).clamp(0, 1) if square > 0 else torch.zeros_like(product)

    def gain(self, shares: Tensor, mean: Tensor | float = 0.0) -> float:
        """By how much ``shares`` make the sum of squared errors smaller, if levels return to ``mean``."""
        square, product = self._about(mean)
        return -float((shares.square() * square + 2 * shares * product).sum())

    def _about(self, mean: Tensor | float) -> tuple[Tensor, Tensor]:
        """Sums of the level's square and of its products with what is left, both with ``mean`` taken from the level."""
        mean = torch.as_tensor(mean, dtype=self.level.dtype).expand_as(self.level)
        square = self.square - 2 * mean * self.level + self.count * mean.square()
        return square.sum().clamp(min=0), (self.product - mean[:, None] * self.left).sum(0)


def estimated(datamodule: SeriesDataModule, direct: Tensor) -> tuple[Tensor, Tensor]:
    """What a ``MeanReversion`` for windows of ``datamodule`` begins as, and stays.

    Args:
        datamodule: Where the windows are.
        direct: The linear map of a context without its mean, ``(prediction_length, context_length)``.

    Returns:
        Shares, ``(prediction_length,)``, 0 where returning makes no forecast better; and the largest magnitude of a
        level in the training windows, a scalar. Both are float64.
    """
    windows, spacing = datamodule.ordered_train_windows()
    blocks = list(_blocks(windows, len(windows), direct))
    whole = _sum(blocks)
    steps = sum(direct.shape)
    gap = math.ceil(steps / spacing / (whole.count / len(blocks)))
    trials = list(folds(blocks, gap=gap))
    if datamodule.num_windows("validation"):
        trials.append((whole.shares(), torch.zeros(()), _sum(_moments(datamodule.val_dataloader(), direct))))
    best = max(FACTORS, key=lambda factor: sum(held.gain(factor * shares, mean) for shares, mean, held in trials))
    return best * whole.shares(), whole.farthest


def folds(blocks: Sequence[LevelMoments], *, gap: int) -> Iterator[tuple[Tensor, Tensor, LevelMoments]]:
    """Shares and mean of the blocks that are ``gap`` away from a fold, and the fold; without those that leave none."""
    for fold in range(NUM_FOLDS):
        first, last = (len(blocks) * border // NUM_FOLDS for border in (fold, fold + 1))
        others = [*blocks[: max(0, first - gap)], *blocks[last + gap :]]
        if others and first < last:
            learned = _sum(others)
            yield learned.shares(learned.mean), learned.mean, _sum(blocks[first:last])


def _blocks(windows: Iterable[Batch], num_batches: int, direct: Tensor) -> Iterator[LevelMoments]:
    """Moments of as many consecutive batches as make ``NUM_BLOCKS`` of all."""
    moments = _moments(windows, direct)
    for chunk in _in_chunks(moments, math.ceil(num_batches / NUM_BLOCKS)):
        yield _sum(chunk)


def _in_chunks(moments: Iterator[LevelMoments], size: int) -> Iterator[list[LevelMoments]]:
    while chunk := list(itertools.islice(moments, size)):
        yield chunk


def _moments(windows: Iterable[Batch], direct: Tensor) -> Iterator[LevelMoments]:
    """Of each batch."""
    for batch in windows:
        context, target = (part.double() for part in batch)
        statistics = InstanceStatistics.of(context)
        centred, ahead = context - statistics.mean, target - statistics.mean
        left = ahead.transpose(1, 2) - centred.transpose(1, 2) @ direct.double().T
        yield LevelMoments.of(statistics.moving_level.squeeze(1), left)


def _sum(moments: Iterable[LevelMoments]) -> LevelMoments:
    first, *others = moments
    return sum(others, first)
