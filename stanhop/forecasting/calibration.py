"""Calibrating prediction intervals: how far off a model is on the validation rows, which it has not learned from.

Validation rows have chosen the best epoch, which makes their errors a little smaller than those to come; the test rows
are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import DEFAULT_BATCH_SIZE, Device, Forecaster
from stanhop.forecasting.intervals import Intervals, Values, conformal_quantile, floor_of, scale_of, tails
from stanhop.forecasting.rolling import Rolled, origins_of, roll, train_rows
from stanhop.series.frame import SeriesSet

MOST_NUMBERS = 2**26
"""Numbers held of all windows, 512 MB: of more windows, every second, third, … counts."""


def calibrate(
    bundle: Bundle,
    series_set: SeriesSet,
    *,
    levels: Sequence[float],
    device: Device = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    floor: Values | None = None,
) -> Intervals:
    """Offsets for ``levels`` from every window whose target lies in the validation rows of ``series_set``.

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
    stride = -(-sum(map(len, windows)) * numbers_a_window // MOST_NUMBERS)
    rolled = [
        batch
        for series, origins in zip(series_set.series, windows, strict=True)
        for batch in roll(
            forecaster,
            series,
            origins[::stride],
            scaler=forecaster.scaler_of(series, rows=train_rows(bundle, series)),
            batch_size=batch_size,
        )
    ]
    deviations = np.concatenate([batch.context.std(axis=1) for batch in rolled])  # (windows, channels)
    floor = floor_of(deviations) if floor is None else floor
    lower, upper = (
        np.stack([conformal_quantile(_scores(rolled, floor, level, side=side), tails(level)[side]) for level in levels])
        for side in (0, 1)
    )
    return Intervals(tuple(levels), lower, upper, floor, num_windows=len(deviations))


def _scores(rolled: Sequence[Rolled], floor: Values, level: float, *, side: int) -> Values:
    """How far the targets lie above a lower (side 0) or upper bound (1) of the network's, in units of the scale.

    Returns:
        ``(windows, prediction_length, channels)``.
    """
    return np.concatenate(
        [(batch.target - batch.prediction.bounds_of(level)[side]) / scale_of(batch.context, floor) for batch in rolled]
    )
