"""Claims about time stamps: which are read, which need a format, which are wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.errors import Code, DataError, UserError
from stanhop.series.frame import SeriesSet
from stanhop.series.stamps import is_stamp
from stanhop.series.table import Table
from stanhop.series.times import parse_times


def parsed(*cells: str, date_format: str | None = None) -> pd.DatetimeIndex:
    table = Table(Path("a.csv"), ("ds",), (cells,), range(2, len(cells) + 2))
    return parse_times(table, "ds", date_format=date_format)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2020-02-29", "2020-02-29T00:00:00"),
        ("2020-02", "2020-02-01T00:00:00"),
        (" 2020-02-29 13:05\t", "2020-02-29T13:05:00"),
        ("2020-02-29T13:05:59", "2020-02-29T13:05:59"),
        ("2020-02-29 13:05:59.123456", "2020-02-29T13:05:59.123456"),
        ("2020-02-29 13:05:59.5", "2020-02-29T13:05:59.500000"),
        ("2020-02-29 13:05:59.123456000", "2020-02-29T13:05:59.123456"),
        ("2020-02-29T13", "2020-02-29T13:00:00"),
        ("2020-02-29 00+01", "2020-02-29T00:00:00+01:00"),
        ("2020-02-29T13:05Z", "2020-02-29T13:05:00+00:00"),
        ("2020-02-29 13:05+02:00", "2020-02-29T13:05:00+02:00"),
        ("2020-02-29 13:05:59.25-0330", "2020-02-29T13:05:59.250000-03:30"),
        ("2020-02-29 13:05+02", "2020-02-29T13:05:00+02:00"),
        ("0001-01-01", "0001-01-01T00:00:00"),
        ("1500-06-30", "1500-06-30T00:00:00"),
        ("9999-12-31 23:59:59.999999", "9999-12-31T23:59:59.999999"),
    ],
)
def test_iso_8601_with_separators_is_read_exactly(cell: str, expected: str) -> None:
    times = parsed(cell)
    assert times.unit == "us"
    assert times[0].isoformat() == expected


def test_days_and_times_of_day_may_mix() -> None:
    assert parsed("2020-01-01", "2020-01-02 00:00", "2020-01").equals(
        pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-01"]).as_unit("us")
    )


@pytest.mark.parametrize(
    ("cells", "line", "text"),
    [
        (["01/02/2020", "02/02/2020"], 2, "'01/02/2020' is ambiguous; day first? add --date-format %d/%m/%Y; "),
        (["01/02/2020", "02/02/2020"], 2, "%d/%m/%Y; month first? add --date-format %m/%d/%Y"),
        (["01/02/2020", "13/02/2020"], 2, "is not ISO 8601; day first? add --date-format %d/%m/%Y"),
        (["1/31/2010 0:00", "2/1/2010 1:00"], 2, "month first? add --date-format '%m/%d/%Y %H:%M'"),
        (["1.2.20 13:00:01.5"], 2, "day first? add --date-format '%d.%m.%y %H:%M:%S.%f'"),
        (["01-02-2020 01:00 PM"], 2, "add --date-format '%d-%m-%Y %I:%M %p'"),
        (["01/02/2020 10:00 +0100"], 2, "add --date-format '%d/%m/%Y %H:%M %z'"),
        (["01/02/2020 soon"], 2, "'01/02/2020 soon' is not a time stamp; write ISO 8601"),
        (["2020/01/31"], 2, "add --date-format %Y/%m/%d"),
        (["2020.01.31 10:00"], 2, "add --date-format '%Y.%m.%d %H:%M'"),
        (["2020-1-1"], 2, "add --date-format %Y-%m-%d"),
        (["2020-01-01", "20200102"], 3, "'20200102' has no separators; looks like YYYYMMDD; add --date-format %Y%m%d"),
        (["20200102131415"], 2, "looks like YYYYMMDDHHMMSS; add --date-format %Y%m%d%H%M%S"),
        (["2020010213"], 2, "looks like YYYYMMDDHH; add --date-format %Y%m%d%H or --date-format epoch_s"),
        (["202001"], 2, "looks like YYYYMM; add --date-format %Y%m"),
        (["2020"], 2, "looks like YYYY; add --date-format %Y"),
        (["1577836800"], 2, "looks like seconds since 1970; add --date-format epoch_s"),
        (["1577836800000"], 2, "looks like milliseconds since 1970; add --date-format epoch_ms"),
        (["43831"], 2, "'43831' has no separators; looks like a date of Excel's; format the column as text"),
        (["43831.25"], 2, "looks like a date of Excel's"),
        (["0"], 2, "'0' is a number, not a time stamp; write ISO 8601"),
        (["0"], 2, "do the rows only count? read them as seconds, with --date-format epoch_s"),
        (["2020-01-01", "2020-02-30"], 3, "'2020-02-30' does not exist; correct it"),
        (["2021-02-29 10:00"], 2, "'2021-02-29 10:00' does not exist"),
        (["2020-13-01"], 2, "does not exist"),
        (["2020-01-01 24:00"], 2, "does not exist"),
        (["2020-01-01 12:00:60"], 2, "does not exist"),
        (["2020-01-01 99h"], 2, "is no time of day that exists"),
        (["2020-01-01T24"], 2, "'2020-01-01T24' is no time of day that exists"),
        (["2020-W01-1"], 2, "'2020-W01-1' is an ISO week, not a day"),
        (["99999-01-01"], 2, "is outside the years 1 to 9999"),
        (["0000-01-01"], 2, "does not exist"),
        (["2020-01-01 00:00:00.1234567"], 2, "is finer than a microsecond; round it"),
        (["2020-01-01", ""], 3, "the time stamp is missing; fill it in or remove the row"),
        (["2020-01-01", "NaT"], 3, "the time stamp is missing"),
        (["now"], 2, "'now' is not a time stamp"),
        (["today"], 2, "'today' is not a time stamp"),
        (["2020-01-01+02:00"], 2, "is not a time stamp"),
        (["\u0662\u0660\u0662\u0660-01-01"], 2, "is not a time stamp"),
        (["2020-01-01", "2020-01-02 00:00Z"], 3, "offset +0000 here, no offset in line 2; give all of them"),
        (["2020-01-01 00:00+01:00", "2020-01-02 00:00+0200"], 3, "offset +0200 here, offset +0100 in line 2"),
    ],
)  # fmt: skip
def test_other_stamps_are_refused_at_their_line_with_the_format_that_would_read_them(
    cells: list[str], line: int, text: str
) -> None:
    with pytest.raises(DataError) as caught:
        parsed(*cells)
    error = caught.value
    assert (error.code, error.line, error.column) == (Code.TIME, line, "ds")
    assert text in error.message
    assert error.fix


def test_equal_offsets_may_be_written_differently() -> None:
    assert str(parsed("2020-01-01 00:00Z", "2020-01-01 01:00+00", "2020-01-01 02:00-00:00").tz) == "UTC"


FORMATS = {
    "%d/%m/%Y": "01/02/2020",
    "%m/%d/%Y %H:%M": "1/2/2010 3:04",
    "%d.%m.%y %H:%M:%S": "31.12.99 23:59:58",
    "%Y%m%d": "20200102",
    "%Y%m%d%H%M%S": "20200102030405",
    "%Y": "2020",
    "%Y-%m-%d": "2020-1-2",
    "%Y %b %d": "2020 Feb 29",
    "%d/%m/%Y %I:%M %p": "01/02/2020 01:00 PM",
    "%Y-%m-%d %H:%M:%S.%f": "2020-01-02 03:04:05.6",
    "%d/%m/%Y %H:%M %z": "01/02/2020 10:00 +0130",
    "%Y年%m月": "2020年03月",
}


@pytest.mark.parametrize("date_format", FORMATS)
def test_a_given_format_is_read_as_strptime_reads_it(date_format: str) -> None:
    cell = FORMATS[date_format]
    times = parsed(cell, date_format=date_format)
    assert times.unit == "us"
    assert times[0].isoformat() == datetime.strptime(cell, date_format).isoformat()


@given(
    start=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda time: time.replace(microsecond=0)),
    date_format=st.sampled_from(["%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S"]),
)
def test_stamps_in_a_given_format_come_back(start: datetime, date_format: str) -> None:
    expected = [start, start + timedelta(hours=7, seconds=11)]
    cells = [time.strftime(date_format.replace("%Y", f"{time.year:04}")) for time in expected]
    assert parsed(*cells, date_format=date_format).to_pydatetime().tolist() == expected


@pytest.mark.parametrize(
    ("cells", "date_format", "line", "text"),
    [
        (["01/02/2020", "13/02/2020"], "%m/%d/%Y", 3, "'13/02/2020' does not fit --date-format '%m/%d/%Y'; correct it"),
        (["2020-01-01"], "%d/%m/%Y", 2, "does not fit --date-format '%d/%m/%Y'"),
        (["2020-02-30"], "%Y-%m-%d", 2, "does not fit"),
        (["20200101", "2020102"], "%Y%m%d", 3, "'2020102' does not fit --date-format '%Y%m%d'"),
        (["\u0661/2/2020"], "%d/%m/%Y", 2, "does not fit"),
        (["2020", "now"], "%Y", 3, "'now' does not fit"),
        (["2020", "nan"], "%Y", 3, "the time stamp is missing"),
        (["0000"], "%Y", 2, "'0000' is outside the years 1 to 9999"),
        (["1.0000001"], "%S.%f", None, "--date-format '%S.%f' holds no year"),
        (["2020 1.0000001"], "%Y %S.%f", 2, "is finer than a microsecond"),
        (["1/2"], "%d/%m", None, "holds no year; an example is --date-format '%d.%m.%Y %H:%M'"),
        (["2020"], "%Q", None, "--date-format '%Q' is no format of strptime"),
        (["2020"], "%Y %", None, "is no format of strptime"),
        (["2020"], "ISO8601", None, "'ISO8601' holds no year; an example is"),
        (["2020 CET"], "%Y %Z", None, "has %Z, and names of zones are ambiguous"),
        (["2020 +0100", "2021 +0200"], "%Y %z", 3, "2:00:00 here, offset 1:00:00 in line 2; add --tz UTC"),
        (["1577836800", "x"], "epoch_s", 3, "'x' is not a whole number, as --date-format epoch_s needs"),
        (["1577836800000"], "epoch_s", 2, "'1577836800000' is outside the years 1 to 9999; another unit?"),
        (["1" * 90], "epoch_ms", 2, "is outside the years 1 to 9999"),
    ],
)
def test_a_stamp_that_does_not_fit_the_format_is_refused_at_its_line(
    cells: list[str], date_format: str, line: int | None, text: str
) -> None:
    with pytest.raises(DataError) as caught:
        parsed(*cells, date_format=date_format)
    assert (caught.value.code, caught.value.line) == (Code.TIME, line)
    assert text in caught.value.message


def test_counts_since_1970_are_times_in_utc() -> None:
    seconds, milliseconds = parsed("1577836800", date_format="epoch_s"), parsed("1577836800000", date_format="epoch_ms")
    assert seconds[0].isoformat() == milliseconds[0].isoformat() == "2020-01-01T00:00:00+00:00"
    assert parsed("-1", date_format="epoch_ms")[0].isoformat() == "1969-12-31T23:59:59.999000+00:00"


def test_rows_that_only_count_may_be_read_as_seconds(read: Callable[..., SeriesSet]) -> None:
    series_set = read("ds,y\n" + "".join(f"{row},{row}.5\n" for row in range(9)), date_format="epoch_s")
    assert series_set.frequency == "s"
    assert series_set.series[0].values.ravel().tolist() == [row + 0.5 for row in range(9)]


def test_a_format_makes_other_tables_equal_to_the_iso_one(read: Callable[..., SeriesSet]) -> None:
    iso = "ds,y\n2020-01-31,1\n2020-02-01,2\n2020-02-02,3\n"
    month_first = "ds,y\n1/31/2020,1\n2/1/2020,2\n2/2/2020,3\n"
    assert read(month_first, date_format="%m/%d/%Y").fingerprint == read(iso).fingerprint


def test_ambiguous_dates_are_refused_by_the_reader(refusal: Callable[..., UserError]) -> None:
    error = refusal("ds,y\n01/02/2020,1\n02/02/2020,2\n03/02/2020,3\n")
    assert (error.code, error.line, error.column) == (Code.TIME, 2, "ds")


def test_shapes_of_stamps_are_not_shapes_of_numbers() -> None:
    assert all(map(is_stamp, ["2020-01-01", "1/2/2020", "01.02.20 10:00", "2020/1/2", "2020-01-01T00:00Z"]))
    assert not any(map(is_stamp, ["", "1.5", "20200101", "1-2", "abc", "10:00", "-1.5e-3", "1.2.3.4"]))
