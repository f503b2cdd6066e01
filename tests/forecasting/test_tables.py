"""Forecasts as tables: columns, time stamps, text that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.config import DataConfig
from stanhop.errors import DataError
from stanhop.forecasting.forecaster import Forecast
from stanhop.forecasting.tables import (
    TableFormat,
    csv_bytes,
    escape_formula,
    forecast_frame,
    table_bytes,
    time_texts,
    unescape_formula,
)
from stanhop.series.frame import Layout
from stanhop.series.load import read_series_file

WIDE = Layout("wide", "date", None, ("b", "a"))
LONG = Layout("long", "when", "item", ("b", "a"))


def forecast_of(series_id: str = "", *, channels: tuple[str, ...] = ("b", "a"), steps: int = 3) -> Forecast:
    times = pd.date_range("2021-03-04 05:00", periods=steps, freq="h", unit="us")
    values = np.random.default_rng(len(series_id)).normal(size=(steps, len(channels)))
    return Forecast(id=series_id, times=times, values=values, channels=channels)


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def test_a_wide_table_has_the_columns_of_its_input() -> None:
    forecast = forecast_of()
    header, *rows = rows_of(table_bytes([forecast], WIDE, table_format="csv"))
    assert header == ["date", "b", "a"]
    assert [row[0] for row in rows] == ["2021-03-04 05:00:00", "2021-03-04 06:00:00", "2021-03-04 07:00:00"]
    assert [[float(cell) for cell in row[1:]] for row in rows] == forecast.values.tolist()


def test_a_long_table_keeps_the_names_of_id_and_time() -> None:
    forecasts = [forecast_of("x"), forecast_of("yy")]
    header, *rows = rows_of(table_bytes(forecasts, LONG, table_format="csv"))
    assert header == ["item", "when", "b", "a"]
    assert [row[0] for row in rows] == ["x"] * 3 + ["yy"] * 3


def test_the_one_channel_of_a_long_table_stands_in_the_column_of_the_model() -> None:
    forecast = forecast_of("x", channels=("y",))
    assert rows_of(table_bytes([forecast], LONG, table_format="csv"))[0] == ["item", "when", "stanhop"]
    taken = Layout("long", "when", "stanhop", ("y",))
    assert rows_of(table_bytes([forecast], taken, table_format="csv"))[0] == ["stanhop", "when", "y"]
    assert rows_of(table_bytes([forecast], WIDE, table_format="csv"))[0] == ["date", "y"]


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_numbers_are_read_back_exactly(values: list[float]) -> None:
    assert [float(row[0]) for row in rows_of(csv_bytes([[value] for value in values]))] == values


@given(text=st.text())
def test_escaping_is_reversible_and_leaves_no_formula(text: str) -> None:
    escaped = escape_formula(text)
    assert unescape_formula(escaped) == text
    assert not escaped.startswith(("=", "+", "-", "@", "\t", "\r", "\0"))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\ta", "\ra", "\0a", "'a", "plain", "", "a=1"])
def test_text_that_starts_like_a_formula_gets_a_quote(text: str) -> None:
    is_formula = text[:1] in {"=", "+", "-", "@", "\t", "\r", "\0", "'"} and text != ""
    assert escape_formula(text) == ("'" + text if is_formula else text)


def test_ids_and_names_are_escaped_and_numbers_are_not() -> None:
    forecast = forecast_of("=cmd()", channels=("-a", "b"))
    forecast.values[:] = -1.5
    header, row, *_ = rows_of(table_bytes([forecast], LONG, table_format="csv"))
    assert header == ["item", "when", "'-a", "b"]
    assert row == ["'=cmd()", "2021-03-04 05:00:00", "-1.5", "-1.5"]
    header, row, *_ = rows_of(table_bytes([forecast], LONG, table_format="csv", raw_ids=True))
    assert header[2] == "-a"
    assert row[0] == "=cmd()"


@given(ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5, unique=True))
def test_ids_of_any_text_come_back(ids: list[str]) -> None:
    content = table_bytes([forecast_of(series_id, steps=1) for series_id in ids], LONG, table_format="csv")
    assert [unescape_formula(row[0]) for row in rows_of(content)[1:]] == ids


def test_lone_surrogates_do_not_stop_a_table() -> None:
    assert b"\xed\xa0\x80" in table_bytes([forecast_of("\ud800")], LONG, table_format="csv")


@pytest.mark.parametrize(
    ("start", "frequency", "zone", "expected"),
    [
        ("2021-01-31", "ME", None, ["2021-01-31", "2021-02-28"]),
        ("2021-01-31", "D", None, ["2021-01-31", "2021-02-01"]),
        ("2021-01-31 06:00", "D", None, ["2021-01-31 06:00:00", "2021-02-01 06:00:00"]),
        ("2021-01-31", "h", None, ["2021-01-31 00:00:00", "2021-01-31 01:00:00"]),
        ("2021-01-31", "250ms", None, ["2021-01-31 00:00:00", "2021-01-31 00:00:00.250000"]),
        ("2021-01-31", "D", "Europe/Berlin", ["2021-01-31 00:00:00+01:00", "2021-02-01 00:00:00+01:00"]),
        ("0900-01-31", "D", None, ["0900-01-31", "0900-02-01"]),
    ],
)
def test_times_are_written_in_iso_8601(start: str, frequency: str, zone: str | None, expected: list[str]) -> None:
    times = pd.date_range(pd.Timestamp(start).as_unit("us"), periods=2, freq=frequency, tz=zone, unit="us")
    assert time_texts(times) == expected


@pytest.mark.parametrize("layout", [WIDE, LONG], ids=["wide", "long"])
@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_our_own_reader_reads_a_table_back(layout: Layout, table_format: str, tmp_path: Path) -> None:
    forecasts = [forecast_of(series_id, steps=5) for series_id in (["x", "yy"] if layout.id_column else [""])]
    path = tmp_path / f"table.{table_format}"
    path.write_bytes(table_bytes(forecasts, layout, table_format=table_format))
    data = DataConfig(time_column=layout.time_column, id_column=layout.id_column)
    for forecast, series in zip(forecasts, read_series_file(path, data).series, strict=True):
        assert series.id == forecast.id
        assert series.channels == forecast.channels
        assert series.times.equals(forecast.times)
        assert np.array_equal(series.values, forecast.values)


def test_a_parquet_table_keeps_ids_and_times_typed(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(table_bytes([forecast_of("=x"), forecast_of("007")], LONG, table_format="parquet"))
    frame = pd.read_parquet(path)
    assert frame["item"].tolist() == ["=x"] * 3 + ["007"] * 3
    assert str(frame["when"].dtype) == "datetime64[us]"
    pd.testing.assert_frame_equal(frame, forecast_frame([forecast_of("=x"), forecast_of("007")], LONG))


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_the_same_forecasts_give_the_same_bytes(table_format: str) -> None:
    one, two = (table_bytes([forecast_of("x")], LONG, table_format=table_format) for _ in range(2))
    assert one == two


def with_bounds(forecast: Forecast, *levels: float) -> Forecast:
    margins = np.array(levels)[:, None, None]
    return replace(forecast, levels=levels, lower=forecast.values - margins, upper=forecast.values + margins)


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_bounds_stand_beside_their_channel_level_by_level(table_format: TableFormat) -> None:
    forecast = with_bounds(forecast_of(), 80.0, 97.5)
    content = table_bytes([forecast], WIDE, table_format=table_format)
    read = pd.read_csv if table_format == "csv" else pd.read_parquet
    frame = read(io.BytesIO(content))
    bounds = ("-lo-80", "-hi-80", "-lo-97.5", "-hi-97.5")
    assert list(frame.columns) == ["date", "b", *(f"b{end}" for end in bounds), "a", *(f"a{end}" for end in bounds)]
    np.testing.assert_array_equal(frame["a-lo-97.5"], forecast.values[:, 1] - 97.5)
    np.testing.assert_array_equal(frame["b-hi-80"], forecast.values[:, 0] + 80)


def test_bounds_of_a_long_table_with_one_channel_are_called_as_its_forecast() -> None:
    layout = Layout("long", "ds", "unique_id", ("y",))
    frame = forecast_frame([with_bounds(forecast_of("s", channels=("y",)), 80.0)], layout)
    assert list(frame.columns) == ["unique_id", "ds", "stanhop", "stanhop-lo-80", "stanhop-hi-80"]


def test_a_channel_that_is_called_as_a_bound_is_refused() -> None:
    forecast = with_bounds(forecast_of(channels=("a", "a-lo-80")), 80.0)
    with pytest.raises(DataError, match=r"two columns of the forecast would be called 'a-lo-80'; rename"):
        table_bytes([forecast], WIDE, table_format="csv")
