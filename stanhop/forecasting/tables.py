"""Forecasts as tables: the columns, the CSV text and the Parquet bytes of one output file.

A wide input gives a wide output with the input's column names.  A long input gives a long output that keeps the
names of its id and time columns; with one channel the forecast stands in the column ``stanhop``, as forecasting tools
expect of a model's name, with several each stands in the column of its channel.  Bounds of prediction intervals stand
beside their forecast, in columns such as ``HUFL-lo-80`` and ``HUFL-hi-80``.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.tseries.offsets import Tick

from stanhop.errors import Code, DataError, quoted
from stanhop.forecasting.forecaster import Forecast
from stanhop.forecasting.intervals import named
from stanhop.series.frame import Layout

TableFormat = Literal["csv", "parquet"]
SUFFIXES: dict[str, TableFormat] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
FORECAST_COLUMN = "stanhop"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\0", "'")
"""A text cell that starts so may be run as a formula by a spreadsheet (CWE-1236), or looks like one made safe."""

NEEDS_QUOTES = re.compile('[,"\r\n]')


def table_bytes(
    forecasts: Sequence[Forecast], layout: Layout, *, table_format: TableFormat, raw_ids: bool = False
) -> bytes:
    """One file with all ``forecasts``; the same forecasts give the same bytes.

    Args:
        forecasts: At least one, all with the same channels.
        layout: Layout of the table they were made from.
        table_format: What to write.
        raw_ids: Leave text of CSV files as it is, also where a spreadsheet may take it for a formula.
    """
    if table_format == "parquet":
        return _parquet_bytes(forecast_frame(forecasts, layout))
    return csv_bytes(_rows(forecasts, layout, raw_ids=raw_ids))


def forecast_frame(forecasts: Sequence[Forecast], layout: Layout) -> pd.DataFrame:
    """All ``forecasts`` as one frame: id (in a long table), time, then a column for each channel."""
    columns: dict[str, Any] = {}
    steps = [len(forecast.times) for forecast in forecasts]
    if layout.id_column is not None:
        columns[layout.id_column] = np.repeat(np.array([each.id for each in forecasts], dtype=object), steps)
    times = forecasts[0].times.append([forecast.times for forecast in forecasts[1:]])
    columns[layout.time_column] = times
    values = np.concatenate([_values(forecast) for forecast in forecasts])
    names = value_columns(forecasts[0].channels, layout, levels=forecasts[0].levels)
    columns |= dict(zip(names, values.T, strict=True))
    return pd.DataFrame(columns)


def value_columns(channels: tuple[str, ...], layout: Layout, *, levels: Sequence[float] = ()) -> tuple[str, ...]:
    """The columns that the values of a forecast stand in: each channel, then its bounds, level by level.

    Raises:
        DataError: a channel is called as the bound of another is.
    """
    is_free = FORECAST_COLUMN not in (layout.id_column, layout.time_column)
    is_single = layout.kind == "long" and len(channels) == 1 and is_free
    channels = (FORECAST_COLUMN,) if is_single else channels
    bounds = [f"{side}-{named(level)}" for level in levels for side in ("lo", "hi")]
    columns = [name for channel in channels for name in (channel, *(f"{channel}-{bound}" for bound in bounds))]
    taken = next((name for name, count in Counter(columns).items() if count > 1), None)
    if taken is not None:
        problem = f"two columns of the forecast would be called {quoted(taken)}"
        raise DataError(Code.COLUMN, problem, fix="rename the channel, or leave --levels out")
    return tuple(columns)


def _values(forecast: Forecast) -> np.ndarray:
    """The values of ``forecast`` in the order of ``value_columns``, ``(steps, columns)``."""
    bounds = [
        bound for place in range(len(forecast.levels)) for bound in (forecast.lower[place], forecast.upper[place])
    ]
    stacked = np.stack([forecast.values, *bounds], axis=-1)  # (steps, channels, 1 + 2 levels)
    return stacked.reshape(len(stacked), -1)


def escape_formula(text: str) -> str:
    """``text`` with ``'`` before it where a spreadsheet might run it; ``unescape_formula`` undoes it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def unescape_formula(text: str) -> str:
    """The text that ``escape_formula`` made ``text`` of."""
    return text.removeprefix("'")


def csv_bytes(rows: Iterable[Sequence[str | float]]) -> bytes:
    """``rows`` of cells as CSV: UTF-8, comma, LF; every number is written so that it reads back the same."""
    lines = [",".join(map(_cell, row)) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="surrogatepass")


def _cell(value: str | float) -> str:
    """One cell, in quotes if it needs them; ``csv.writer`` would leave a lone carriage return without."""
    if not isinstance(value, str):
        return repr(value)
    return '"{}"'.format(value.replace('"', '""')) if NEEDS_QUOTES.search(value) else value


def _rows(forecasts: Sequence[Forecast], layout: Layout, *, raw_ids: bool) -> Iterator[list[str | float]]:
    """The header, then one row for each series and time."""
    first = forecasts[0]
    header = [*_key_columns(layout), *value_columns(first.channels, layout, levels=first.levels)]
    yield [name if raw_ids else escape_formula(name) for name in header]
    for forecast in forecasts:
        series_id = forecast.id if raw_ids else escape_formula(forecast.id)
        keys = [] if layout.id_column is None else [series_id]
        for time, values in zip(time_texts(forecast.times), _values(forecast).tolist(), strict=True):
            yield [*keys, time, *values]


def _key_columns(layout: Layout) -> list[str]:
    return [layout.time_column] if layout.id_column is None else [layout.id_column, layout.time_column]


def time_texts(times: pd.DatetimeIndex) -> list[str]:
    """``times`` in ISO 8601: a date alone where the step is a day or more and no stamp says more than its date."""
    is_sub_daily = isinstance(times.freq, Tick)
    if times.tz is None and not is_sub_daily and (times == times.normalize()).all():
        return [time.date().isoformat() for time in times]
    return [time.isoformat(sep=" ") for time in times]


def _parquet_bytes(frame: pd.DataFrame) -> bytes:
    import pyarrow  # half a second that CSV files need not wait for
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame, preserve_index=False), sink)
    return sink.getvalue()
