r"""How far the level of a context returns to the mean of the training rows, judged on windows not learned from.

Scaled series have their training rows' mean at 0. With :math:`m` the mean of a context and :math:`r_l` what the linear
map of the context without its mean leaves of step :math:`l`, the share is the regression

    :math:`s_l = -E[m\,r_l] / E[m^2]`, at least 0 and at most 1,

over windows and channels, times one factor for all steps. A short record makes levels seem to return faster than they
do (its own mean is what they return to; Kendall 1954, Biometrika 41), so the factor is judged by windows that had no
part in the regression: the validation windows, and each quarter of the training windows by those that share no row with
it. These are few and differ much, so of all factors it is the smallest that is not worse than the best by more than one
standard error of that difference (Breiman et al. 1984, Classification and Regression Trees, 3.4.3). It may be 0.
``benchmarks/mean_reversion.py`` compares that with taking the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stanhop.model.network import STanHopNet
from stanhop.model.normalization import InstanceStatistics
from stanhop.series.datamodule import Batch, SeriesDataModule
from stanhop.training.least_squares import channels_of

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


def begin_reversion(networks: Iterable[STanHopNet], datamodule: SeriesDataModule, direct: Tensor) -> None:
    """Have the levels of ``networks``, all of which revert, return as far as is ``estimated``."""
    share, farthest = estimated(datamodule, direct)
    for network in networks:
        assert network.reversion is not None
        network.reversion.begin_as(share, farthest)


def estimated(datamodule: SeriesDataModule, direct: Tensor) -> tuple[Tensor, Tensor]:
    """What a ``MeanReversion`` for windows of ``datamodule`` begins as, and stays.

    Args:
        datamodule: Where the windows are.
        direct: The linear map of a context without its mean, ``(prediction_length, context_length)``.

    Returns:
        Shares, ``(prediction_length,)``, 0 where returning makes no forecast better; and the largest magnitude of a
        level in the training windows, a scalar. Both are float64.
    """
    whole, gains = tried(datamodule, direct)
    return factor(gains) * whole.shares(), whole.farthest


def tried(datamodule: SeriesDataModule, direct: Tensor) -> tuple[LevelMoments, Tensor]:
    """Moments of the training windows, and what each of ``FACTORS`` gains where windows are held out.

    Args:
        datamodule: Where the windows are.
        direct: The linear map of a context without its mean, ``(prediction_length, context_length)``.

    Returns:
        The moments, and by how much the squared error of a window gets smaller, ``(trials, factors)``.
    """
    windows, spacing = datamodule.ordered_train_windows()
    blocks = list(_blocks(windows, len(windows), direct))
    whole = _sum(blocks)
    gap = math.ceil(sum(direct.shape) / spacing / (whole.count / len(blocks)))
    trials = list(folds(blocks, gap=gap))
    if datamodule.num_windows("validation"):
        trials.append((whole.shares(), torch.zeros(()), _sum(moments(datamodule.val_dataloader(), direct))))
    gains = [[held.gain(each * shares, mean) / held.count for each in FACTORS] for shares, mean, held in trials]
    return whole, torch.tensor(gains).view(-1, len(FACTORS))


def factor(gains: Tensor) -> float:
    """The smallest of ``FACTORS`` that is the best of them but for one standard error; 0 if nothing was tried.

    Args:
        gains: What each makes the squared error of a window smaller by, ``(trials, factors)``.
    """
    if not len(gains):
        return 0.0
    behind = gains[:, gains.mean(0).argmax(), None] - gains
    error = behind.std(0) / math.sqrt(len(gains)) if len(gains) > 1 else torch.zeros(len(FACTORS))
    return FACTORS[int((behind.mean(0) <= error).int().argmax())]


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
    batches = moments(windows, direct)
    for chunk in _in_chunks(batches, math.ceil(num_batches / NUM_BLOCKS)):
        yield _sum(chunk)


def _in_chunks(batches: Iterator[LevelMoments], size: int) -> Iterator[list[LevelMoments]]:
    while chunk := list(itertools.islice(batches, size)):
        yield chunk


def moments(windows: Iterable[Batch], direct: Tensor) -> Iterator[LevelMoments]:
    """Those of each batch of ``windows``; ``direct`` as in ``tried``."""
    for batch in windows:
        context, target = channels_of(batch)
        statistics = InstanceStatistics.of(context)
        centred, ahead = context - statistics.mean, target - statistics.mean
        left = ahead.transpose(1, 2) - centred.transpose(1, 2) @ direct.double().T
        yield LevelMoments.of(statistics.moving_level.squeeze(1), left)


def _sum(moments: Iterable[LevelMoments]) -> LevelMoments:
    first, *others = moments
    return sum(others, first)
