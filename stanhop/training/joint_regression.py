"""The regression that a joint path begins as: of what the direct path leaves, by the last patch of all channels.

Its penalty is the best of ``PENALTIES`` on the validation windows, or its map is 0 where none makes forecasts better.
That, and which periods it is told, is a choice among many, and looks better on the windows that it was made on than it
is. What a regression is worth is therefore told by the choices of each half of the validation windows, judged on the
other half.

Source: cross-validation, Stone 1974, Journal of the Royal Statistical Society B 36.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stanhop.config import Period
from stanhop.model.joint_path import JointMemories, joint_inputs
from stanhop.series.datamodule import Batch, SeriesDataModule
from stanhop.series.time_features import columns_of
from stanhop.training.least_squares import PENALTIES, PENALTY_UNSEEN, Moments, centred, ridge_maps

Row = tuple[Tensor, Tensor]
"""Of each window of a batch its ``joint_inputs``, ``(batch, inputs)``, and what the direct path leaves of its target,
``(batch, channels * prediction_length)``, both float64."""


@dataclass(frozen=True)
class Regression:
    """A map from inputs of ``Row`` to what the direct path leaves.

    Args:
        weight: ``(channels * prediction_length, inputs)``, float64.
        moments: What it was learned from.
        places: Of its inputs in those of a ``Row``, ``(inputs,)``.
        time_features: Periods that it is told.
    """

    weight: Tensor
    moments: Moments
    places: Tensor
    time_features: tuple[Period, ...]

    def of(self, inputs: Tensor) -> Tensor:
        """What it makes of inputs of a ``Row``, ``(batch, channels * prediction_length)``."""
        return inputs[:, self.places] @ self.weight.T


@dataclass(frozen=True)
class Trial:
    """A regression, and what it is worth.

    Args:
        regression: The best on the validation windows.
        errors: Mean squared error of each of them with the choice of their other half, or, if there is no regression,
            with the direct path alone, ``(windows,)``.
    """

    regression: Regression | None
    errors: Tensor


@dataclass(frozen=True)
class JointTask:
    """What a joint path is to forecast, and by what.

    Args:
        datamodule: Where the windows are; what it tells of the time may not change.
        direct: The direct path, ``(prediction_length, context_length)``.
        memories: Of the joint path, if it has any, in float64.
    """

    datamodule: SeriesDataModule
    direct: Tensor
    memories: JointMemories | None = None

    def rows(self, batches: Iterable[Batch]) -> Iterator[Row]:
        """One for each batch."""
        model = self.datamodule.config.model
        for batch in batches:
            ((context, target),) = centred([batch], instance_norm=model.instance_norm)
            contexts, targets = context.transpose(1, 2), target.transpose(1, 2)
            time = batch[0][:, -1, target.shape[-1] :].double()
            left = targets - contexts @ self.direct.double().T
            with torch.no_grad():  # not around the yield: who asks for rows may want gradients
                inputs = joint_inputs(contexts[..., -model.patch_length :], time, self.memories)
            yield inputs, left.flatten(1)

    @cached_property
    def train(self) -> Moments:
        """Those of the training windows."""
        return Moments.of(self.rows(self.datamodule.ordered_train_windows()[0]))

    @cached_property
    def halves(self) -> tuple[Moments, ...]:
        """Those of the validation windows' earlier and later half; none where there are not two windows."""
        if self.datamodule.num_windows("validation") < 2:
            return ()
        return tuple(Moments.of(self.rows(self._half(half))) for half in (0, 1))

    def regression(self, candidates: Sequence[tuple[Period, ...]]) -> Regression:
        """The one that is told those of ``candidates`` that are best, or the first, where nothing tells which are."""
        if self.halves:
            return self._regressions(candidates, [_mean(self.halves)])[0]
        places = self._places(candidates[0])
        own = self.train.of_inputs(places)
        (weight,) = ridge_maps(own, torch.zeros_like(own.products.T), [PENALTY_UNSEEN])
        return Regression(weight, own, places, candidates[0])

    def trial(self, candidates: Sequence[tuple[Period, ...]]) -> Trial:
        """That regression with its worth; there must be two validation windows."""
        judges = [_mean(self.halves), *reversed(self.halves)]
        whole, *chosen_by_other = self._regressions(candidates, judges)
        errors = [
            (left - found.of(inputs)).square().mean(dim=1)
            for half, found in enumerate(chosen_by_other)
            for inputs, left in self.rows(self._half(half))
        ]
        return Trial(whole, torch.cat(errors))

    def trial_of_nothing(self) -> Trial:
        """What the direct path is worth alone."""
        rows = self.rows(self.datamodule.val_dataloader())
        return Trial(None, torch.cat([left.square().mean(dim=1) for _, left in rows]))

    def _half(self, half: int) -> Iterator[Batch]:
        """The validation windows' earlier (0) or later (1) half."""
        border, first = self.datamodule.num_windows("validation") // 2, 0
        for context, target in self.datamodule.val_dataloader():
            cut = min(max(border - first, 0), len(target))
            own = slice(cut) if half == 0 else slice(cut, None)
            if len(target[own]):
                yield context[own], target[own]
            first += len(target)

    def _regressions(self, candidates: Sequence[tuple[Period, ...]], judges: Sequence[Moments]) -> list[Regression]:
        """For each of ``judges`` the regression with the least error there."""
        found: list[Regression | None] = [None] * len(judges)
        least = [float("inf")] * len(judges)
        for periods in candidates:
            places = self._places(periods)
            own = self.train.of_inputs(places)
            best = _best_penalties(own, [each.of_inputs(places) for each in judges])
            for judge, (weight, error) in enumerate(best):
                if error < least[judge]:
                    found[judge], least[judge] = Regression(weight, own, places, periods), error
        return [each for each in found if each is not None]

    def _places(self, periods: Sequence[Period]) -> Tensor:
        """Where inputs that are told ``periods`` are among those that are told all that contexts tell."""
        num_channels, told = self.datamodule.num_channels, self.datamodule.time_features
        patch = num_channels * self.datamodule.config.model.patch_length
        features, num_levels = columns_of(periods, told), 2 * num_channels
        by_time = patch + 2 * len(told)
        products = (by_time + feature * num_levels + level for feature in features for level in range(num_levels))
        first = by_time + 2 * len(told) * num_levels
        retrieved = range(first, first + (0 if self.memories is None else self.memories.num_shares))
        return torch.tensor([*range(patch), *(patch + feature for feature in features), *products, *retrieved])


def _mean(halves: Sequence[Moments]) -> Moments:
    """Moments of both; that one may have a window more is no matter."""
    first, second = halves
    return Moments(
        (first.contexts + second.contexts) / 2,
        (first.products + second.products) / 2,
        (first.targets + second.targets) / 2,
    )


def _best_penalties(train: Moments, judges: Sequence[Moments]) -> list[tuple[Tensor, float]]:
    """For each of ``judges`` the map with the best penalty, or a map of 0, and its error."""
    nothing = torch.zeros_like(train.products.T)
    found = [(nothing, each.error(nothing)) for each in judges]
    for penalty in PENALTIES:
        (weight,) = ridge_maps(train, nothing, [penalty])  # one at a time: they may be large
        for place, judge in enumerate(judges):
            error = judge.error(weight)
            if error < found[place][1]:
                found[place] = (weight, error)
    return found
