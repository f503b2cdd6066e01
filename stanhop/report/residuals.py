"""Whether what a model gets wrong still holds a pattern: mean, autocorrelation and distribution of its residuals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
MOST_LAGS = 72
NUM_QUANTILES = 99


@dataclass(frozen=True, eq=False)
class ResidualChecks:
    """Residuals (truth minus forecast, in scaled units) of neighbouring windows.

    Args:
        num_windows: How many.
        mean_by_step: ``(prediction_length,)``, over windows and channels: a bias where it is off 0.
        sd_by_step: ``(prediction_length,)``.
        autocorrelation: Of the residuals one step ahead, lags from 1 on, mean over channels, ``(lags,)``.
        band: What 95 % of the autocorrelations of white noise stay below.
        normal_quantiles: ``(quantiles,)``.
        quantiles: Of the residuals, each channel standardised, ``(quantiles,)``.
    """

    num_windows: int
    mean_by_step: Values
    sd_by_step: Values
    autocorrelation: Values
    band: float
    normal_quantiles: Values
    quantiles: Values


def check_residuals(residuals: Values) -> ResidualChecks:
    """Check ``residuals`` ``(windows, prediction_length, channels)`` of windows whose origins follow one another."""
    num_windows = len(residuals)
    deviation = residuals.std(axis=(0, 1))
    standardized = (residuals - residuals.mean(axis=(0, 1))) / np.where(deviation > 0, deviation, 1)
    shares = np.arange(1, NUM_QUANTILES + 1) / (NUM_QUANTILES + 1)
    normal = NormalDist()
    return ResidualChecks(
        num_windows=num_windows,
        mean_by_step=residuals.mean(axis=(0, 2)),
        sd_by_step=residuals.std(axis=(0, 2)),
        autocorrelation=autocorrelation(residuals[:, 0], num_lags=min(MOST_LAGS, num_windows // 4)),
        band=1.96 / np.sqrt(num_windows),
        normal_quantiles=np.array([normal.inv_cdf(share) for share in shares]),
        quantiles=np.quantile(standardized, shares),
    )


def autocorrelation(series: Values, *, num_lags: int) -> Values:
    r"""Autocorrelation at lags 1 to ``num_lags``, mean over channels.

    :math:`r_k = \sum_t (x_t - \bar x)(x_{t+k} - \bar x) / \sum_t (x_t - \bar x)^2` of each channel of ``series``
    ``(steps, channels)``; a constant channel counts as 0.
    """
    centred = series - series.mean(axis=0)
    power = np.square(centred).sum(axis=0)
    power = np.where(power > 0, power, 1)
    found: Values = np.array(
        [((centred[lag:] * centred[:-lag]).sum(axis=0) / power).mean() for lag in range(1, num_lags + 1)]
    )
    return found
