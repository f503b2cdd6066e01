"""Forecast multivariate time series with STanHop-Net on outlier-efficient Hopfield layers."""

__version__ = "0.1.0"
