"""Rolling origins: from which rows forecasts are made, and how far back each was trained. Integers only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stanhop.config import SplitConfig
from stanhop.errors import Code, DataError


@dataclass(frozen=True)
class Fold:
    """Windows that are forecast by one training.

    Args:
        number: From 1.
        origins: First row of each target, in order of time.
        num_validation: Rows just before the first origin that choose the best epoch; all before them train.
        stop: The row after the last target.
    """

    number: int
    origins: range
    num_validation: int
    stop: int

    @property
    def split(self) -> SplitConfig:
        """Rows before the first origin as train and validation, those of the targets as test."""
        first = self.origins.start
        return SplitConfig(
            train=float(first - self.num_validation),
            validation=float(self.num_validation),
            test=float(self.stop - first),
        )


def plan_folds(
    series_length: int,
    split: SplitConfig,
    *,
    context_length: int,
    prediction_length: int,
    num_windows: int,
    step: int,
    refit_every: int | None = None,
) -> list[Fold]:
    """The last ``num_windows`` windows of a series, ``step`` rows apart; the last target ends with the series.

    Args:
        series_length: Rows.
        split: Its parts for train and validation say how the rows before an origin are shared.
        context_length: Rows that a window needs before its origin.
        prediction_length: Rows of a target.
        num_windows: Windows to forecast.
        step: Rows from one origin to the next.
        refit_every: Windows after which a new training begins; None trains once, before the first.

    Raises:
        DataError: the rows before the first origin do not suffice for a window to train and one to validate on.
    """
    first = series_length - prediction_length - (num_windows - 1) * step
    share = split.validation / (split.train + split.validation)
    num_validation = max(prediction_length, math.ceil(share * first))
    needed = context_length + 2 * prediction_length
    if first < needed or first - num_validation < context_length + prediction_length:
        problem = (
            f"the series has {series_length} rows, of which {max(0, first)} come before the first of {num_windows} "
            f"windows; training needs {needed} and more ({context_length} context, two horizons of {prediction_length})"
        )
        fix = "lower --windows or --step, shorten --context-length or --prediction-length, or give more rows"
        raise DataError(Code.LENGTH, problem, fix=fix)
    size = num_windows if refit_every is None else min(refit_every, num_windows)
    folds = []
    for number, begin in enumerate(range(0, num_windows, size), 1):
        end = min(begin + size, num_windows)
        origins = range(first + begin * step, first + (end - 1) * step + 1, step)
        num_validation = max(prediction_length, math.ceil(share * origins.start))
        folds.append(Fold(number, origins, num_validation, stop=origins[-1] + prediction_length))
    return folds
