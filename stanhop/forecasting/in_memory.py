"""Forecasts of a table in memory, as those of a file: the same reading, the same numbers, the same columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stanhop.errors import Code, DataError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.tables import forecast_frame, time_texts
from stanhop.series.assemble import assemble
from stanhop.series.layout import infer_layout
from stanhop.series.table import Column, Table

STEPS = "prediction_length"
REQUEST = Path("request")
"""What errors call the table."""


def forecast_table(forecaster: Forecaster, frame: pd.DataFrame, *, steps: int | None = None) -> pd.DataFrame:
    """The forecast of every series in ``frame``, its first ``steps`` or all.

    Raises:
        DataError: the table, or the number of steps, is not what the model can use.
    """
    bundle = forecaster.bundle
    longest = bundle.config.model.prediction_length
    steps = longest if steps is None else steps
    if not 1 <= steps <= longest:
        problem = f"{STEPS} is {steps}, the model forecasts {longest} steps"
        raise DataError(Code.LENGTH, problem, fix=f"ask for 1 to {longest}")
    data = bundle.config.data.model_copy(
        update={"time_column": bundle.layout.time_column, "id_column": bundle.layout.id_column}
    )
    table = _table(frame, bundle)
    layout, notes = infer_layout(table, data)
    needed = bundle.config.model.context_length
    series_set = assemble(table, layout, data, minimum_length=needed, notes=notes)
    wide = layout.kind == "wide"
    made = [forecaster.forecast(series_set.series[0])] if wide else forecaster.forecast_all(series_set.series)
    cut = [dataclasses.replace(each, times=each.times[:steps], values=each.values[:steps]) for each in made]
    forecast = forecast_frame(cut, layout)
    forecast[layout.time_column] = [text for each in cut for text in time_texts(each.times)]
    return forecast


def _table(frame: pd.DataFrame, bundle: Bundle) -> Table:
    """``frame`` as our reader would hand it over: times and ids as text, channels as numbers."""
    keys = (bundle.layout.id_column, bundle.layout.time_column)
    columns: Mapping[str, Column] = {
        str(name): frame[name].astype(str).tolist() if name in keys else np.asarray(frame[name], dtype=np.float64)
        for name in frame.columns
        if name in keys or name in bundle.channels
    }
    if frame.empty or not columns:
        raise DataError(Code.LENGTH, "the table has no rows", fix="send the history of each series")
    return Table(REQUEST, tuple(columns), tuple(columns.values()), lines=None)
