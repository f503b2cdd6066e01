"""Forecast multivariate time series with STanHop-Net on outlier-efficient Hopfield layers.

From Python, the main things are here: ``stanhop.fit(stanhop.RunConfig(), run_path=Path("run"))`` trains,
``stanhop.Forecaster(stanhop.load_bundle(path)).forecast(series)`` forecasts. Each is imported when it is first used.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

PUBLIC = {
    "RunConfig": "stanhop.config.sections",
    "UserError": "stanhop.errors",
    "load_series": "stanhop.series.load",
    "retrieve": "stanhop.hopfield.retrieval",
    "Hopfield": "stanhop.hopfield.layers",
    "HopfieldLayer": "stanhop.hopfield.layers",
    "HopfieldPooling": "stanhop.hopfield.layers",
    "STanHopNet": "stanhop.model.network",
    "from_published": "stanhop.model.published",
    "load_bundle": "stanhop.forecasting.bundle.load",
    "Forecaster": "stanhop.forecasting.forecaster",
    "forecast_files": "stanhop.forecasting.batch",
    "evaluate": "stanhop.forecasting.evaluation",
    "fit": "stanhop.training.fit",
}
"""Where each public name is defined."""

__all__ = ["PUBLIC", "__version__", *PUBLIC]


def __getattr__(name: str) -> object:
    """The public thing called ``name``, imported now."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'stanhop' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names, for those who look what there is."""
    return sorted(__all__)
