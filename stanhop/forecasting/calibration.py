r"""Calibrating prediction intervals: how far off a model is on rows whose outcome is known.

Windows of the validation rows, which the model has not learned from, say how large its errors are. They may be few: of
one window each quantile is that window's own error, and an interval has no width. So windows of the training rows say
as well how errors are spread over steps, channels and time. The model errs less on these; their errors are magnified to
the size of those of the validation windows, by

    :math:`\max(1, \sqrt{E[e^2] / E[e_l^2]})`

with errors of the forecast :math:`e` on validation and :math:`e_l` on training windows in units of the scale, over all
steps and channels.

Validation rows have chosen the best epoch, which makes their errors a little smaller than those to come; the test rows
are not looked at. ``benchmarks/few_windows.py`` compares that with the validation windows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Self

import numpy as np

from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import DEFAULT_BATCH_SIZE, Device, Forecaster
from stanhop.forecasting.intervals import (
    Intervals,
    Prediction,
    Values,
    conformal_quantile,
    floor_of,
    scale_of,
    tails,
)
from stanhop.forecasting.rolling import Rolled, origins_of, roll, train_rows
from stanhop.series.frame import SeriesSet
from stanhop.series.windows import borders, origins

MOST_NUMBERS = 2**26
"""Numbers held of all windows of one kind, 512 MB: of more windows, every second, third, … counts."""
MOST_LEARNED = 2000
"""Training windows that count at most, evenly spaced: of more, neighbours say the same."""


@dataclass(frozen=True, eq=False)
class KnownErrors:
    """Windows whose outcome is known.

    Args:
        unseen: Those that the model has not learned from.
        learned: Those that it has.
        floor: What is added to a context's deviation, ``(channels,)``.
    """

    unseen: Sequence[Rolled]
    learned: Sequence[Rolled]
    floor: Values

    @classmethod
    def of(cls, unseen: Sequence[Rolled], learned: Sequence[Rolled], *, floor: Values | None = None) -> Self:
        """The errors on both, with ``floor`` or the one that the contexts give."""
        if floor is None:
            floor = floor_of(np.concatenate([batch.context.std(axis=1) for batch in (*unseen, *learned)]))
        return cls(unseen, learned, floor)

    def scores(self, bound: Callable[[Prediction], Values] = attrgetter("forecast")) -> Values:
        """How far the targets lie above ``bound``, in units of the scale, ``(windows, prediction_length, channels)``.

        Args:
            bound: Takes it from what the network says; it is ``(windows, prediction_length, channels)``.
        """
        unseen = [self._scores(batch, bound) for batch in self.unseen]
        if unseen and not self.magnification:
            return np.concatenate(unseen)
        learned = [self._scores(batch, bound, times=self.magnification or 1.0) for batch in self.learned]
        return np.concatenate([*unseen, *learned])

    @cached_property
    def magnification(self) -> float:
        """How much larger than on windows that it has learned from the errors of the model are, at least 1.

        It is 0 where it made no error on these: they say nothing of how errors are spread.
        """
        unseen, learned = (self._mean_square(part) for part in (self.unseen, self.learned))
        return max(1.0, math.sqrt(unseen / learned)) if learned else 0.0

    def _mean_square(self, rolled: Sequence[Rolled]) -> float:
        squares = [np.square(self._scores(batch, attrgetter("forecast"))) for batch in rolled]
        return float(np.concatenate(squares).mean()) if squares else 0.0

    def _scores(self, batch: Rolled, bound: Callable[[Prediction], Values], *, times: float = 1.0) -> Values:
        """Those of ``batch``, were the forecast ``times`` as far off."""
        target = batch.forecast + times * (batch.target - batch.forecast)
        scores: Values = (target - bound(batch.prediction)) / scale_of(batch.context, self.floor)
        return scores


def calibrate(
    bundle: Bundle,
    series_set: SeriesSet,
    *,
    levels: Sequence[float],
    device: Device = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    floor: Values | None = None,
) -> Intervals:
    """Offsets for ``levels`` from the windows of ``series_set`` whose target lies in its validation or training rows.

    Args:
        bundle: The model; intervals it has are not looked at.
        series_set: Its data.
        levels: Nominal coverage in percent, ascending.
        device: Where to compute.
        batch_size: Windows computed together.
        floor: What is added to a context's deviation, ``(channels,)``; from the data if not given. One that is large
            makes the scale the same for all windows.

    Raises:
        DataError: as ``evaluate``.
    """
    forecaster = Forecaster(bundle, device=device)
    windows = [origins_of(bundle, series, "validation") for series in series_set.series]
    model = bundle.config.model
    num_bounds = 2 * len(model.levels) if model.head == "quantile" else 0
    numbers_a_window = bundle.num_channels * (model.context_length + (2 + num_bounds) * model.prediction_length)
    most = max(1, MOST_NUMBERS // numbers_a_window)
    unseen = _rolled(forecaster, series_set, windows, most=most, batch_size=batch_size)
    windows = [_training_origins(bundle, len(series)) for series in series_set.series]
    learned = _rolled(forecaster, series_set, windows, most=min(most, MOST_LEARNED), batch_size=batch_size)
    errors = KnownErrors.of(unseen, learned, floor=floor)

    def offsets(side: int) -> Values:
        return np.stack(
            [conformal_quantile(errors.scores(_bound(level, side)), tails(level)[side]) for level in levels]
        )

    return Intervals(tuple(levels), offsets(0), offsets(1), errors.floor, num_windows=sum(map(len, unseen)))


def _training_origins(bundle: Bundle, series_length: int) -> range:
    """The origins of all training windows; other than for those to be measured, there may be none."""
    model = bundle.config.model
    rows = borders(series_length, bundle.config.data.split).train
    return origins(rows, context_length=model.context_length, prediction_length=model.prediction_length, is_first=True)


def _rolled(
    forecaster: Forecaster, series_set: SeriesSet, windows: Sequence[range], *, most: int, batch_size: int
) -> list[Rolled]:
    """The forecasts from ``windows``, origins in each series: from all, or from every n-th where that are ``most``."""
    stride = max(1, math.ceil(sum(map(len, windows)) / most))
    return [
        batch
        for series, asked in zip(series_set.series, windows, strict=True)
        for batch in roll(
            forecaster,
            series,
            asked[::stride],
            scaler=forecaster.scaler_of(series, rows=train_rows(forecaster.bundle, series)),
            batch_size=batch_size,
        )
    ]


def _bound(level: float, side: int) -> Callable[[Prediction], Values]:
    """What takes the network's own lower (side 0) or upper bound (1) of ``level``."""
    return lambda prediction: prediction.bounds_of(level)[side]
