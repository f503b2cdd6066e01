"""How wrong a forecast is: the formulas, on arrays of forecasts and what came true.

Every name carries its space: ``mse_scaled`` and ``mae_scaled`` are in units of the scaler (to compare with papers),
``mse``, ``mae`` and ``rmse`` in the data's own, ``mase``, ``smape_200`` and ``skill_vs_snaive`` have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def mse(forecast: Values, target: Values) -> float:
    """Mean squared error, ``mean (y - f)^2``, over arrays of one shape."""
    return float(np.mean(np.square(target - forecast)))


def mae(forecast: Values, target: Values) -> float:
    """Mean absolute error, ``mean |y - f|``."""
    return float(np.mean(np.abs(target - forecast)))


def rmse(forecast: Values, target: Values) -> float:
    """Root of the mean squared error, ``sqrt(mean (y - f)^2)``."""
    return float(np.sqrt(mse(forecast, target)))


def smape_200(forecast: Values, target: Values) -> float:
    """Symmetric mean absolute percentage error from 0 to 200, ``mean 200 |y - f| / (|y| + |f|)``; 0 / 0 counts as 0.

    Source: Makridakis 1993, with the absolute values of Chen & Yang 2004.
    """
    return float(np.mean(symmetric_percentages(forecast, target)))


def symmetric_percentages(forecast: Values, target: Values) -> Values:
    """The terms of ``smape_200``, one for each value."""
    size = np.abs(target) + np.abs(forecast)
    error = 200 * np.abs(target - forecast)
    percentages: Values = np.divide(error, size, out=np.zeros_like(error), where=size > 0)
    return percentages


def seasonal_difference(history: Values, season: int) -> Values:
    """Mean absolute change over one season, ``mean |y_t - y_{t-season}|`` of each channel: the unit of ``mase``.

    Args:
        history: Training rows, ``(steps, channels)``.
        season: Steps in a season.

    Returns:
        ``(channels,)``; NaN where the history is not longer than a season.
    """
    if len(history) <= season:
        return np.full(history.shape[1], np.nan)
    difference: Values = np.mean(np.abs(history[season:] - history[:-season]), axis=0)
    return difference


def mase(forecast: Values, target: Values, *, history: Values, season: int) -> float:
    """Mean absolute scaled error: each channel's ``mae`` over its ``seasonal_difference``, then the mean over channels.

    Args:
        forecast: ``(..., channels)``.
        target: Of the same shape.
        history: Training rows, ``(steps, channels)``.
        season: Steps in a season.

    Returns:
        The mean over channels whose seasonal difference is above 0; NaN if there is none.

    Source: Hyndman & Koehler 2006, with the seasonal naive forecast as the unit.
    """
    errors: Values = np.mean(np.abs(target - forecast), axis=tuple(range(target.ndim - 1)))
    return mean_of_ratios(errors, seasonal_difference(history, season))


def mean_of_ratios(errors: Values, units: Values) -> float:
    """The mean of ``errors / units`` over the places where the unit is above 0; NaN if there is none."""
    is_defined = units > 0  # neither 0, as of a constant channel, nor NaN
    return float(np.mean(errors[is_defined] / units[is_defined])) if is_defined.any() else float("nan")


def seasonal_naive(context: Values, *, season: int, steps: int) -> Values:
    """The forecast that repeats the last season of ``context``: step ``h`` is the value ``season`` steps before it.

    Args:
        context: ``(..., context_length, channels)``.
        season: Steps in a season; a context shorter than that gives its last value at every step.
        steps: Steps to forecast.

    Returns:
        ``(..., steps, channels)``.
    """
    length = context.shape[-2]
    known = season if season <= length else 1
    repeated: Values = context[..., length - known + np.arange(steps) % known, :]
    return repeated


def interval_scores(lower: Values, upper: Values, target: Values, *, level: float) -> Values:
    """The interval score of each value: its width, and ``2 / (1 - level)`` times how far the target lies outside.

    Args:
        lower: Lower bounds.
        upper: Upper bounds, of the same shape.
        target: What came true, of the same shape.
        level: Nominal coverage in percent.

    Source: Winkler 1972; Gneiting & Raftery 2007, equation 43.
    """
    outside = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
    scores: Values = (upper - lower) + 200 / (100 - level) * outside
    return scores


def skill(error: float, naive_error: float) -> float:
    """Share of the naive forecast's error that is gone, ``1 - error / naive_error``; NaN where the naive one has none.

    ``skill_vs_snaive`` is this with the ``mae`` of both in scaled units: 0 is as good as the seasonal naive
    forecast, 1 perfect, below 0 worse.
    """
    return 1 - error / naive_error if naive_error > 0 else float("nan")
