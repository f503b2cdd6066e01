"""Claims about calendars: a common step is inferred from its times, has one name, and shows where times leave it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.series.grid import Misfit, canonical, describe, infer, lay, parse_frequency

ALIASES = [
    "h", "2h", "15min", "5min", "7s", "250ms", "3us", "D", "2D", "W-SUN", "W-WED", "2W-MON", "B", "MS", "ME", "2MS",
    "QS-JAN", "QS-FEB", "QS-MAR", "QE-OCT", "QE-NOV", "QE-DEC", "2QS-JAN", "YS-JAN", "YS-JUL", "YE-DEC", "YE-MAR",
    "2YS-JAN", "BMS", "BME", "BQS-FEB", "BQE-DEC", "BYE-DEC", "BYS-MAY",
]  # fmt: skip


def times_of(alias: str, periods: int = 29, start: str = "2016-07-04") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=periods, freq=alias, unit="us")


def inferred(*series: pd.DatetimeIndex) -> str | None:
    starts = np.cumsum([0, *map(len, series)])
    offset = infer(pd.DatetimeIndex(np.concatenate([one.asi8 for one in series]).view("M8[us]")), starts)
    return None if offset is None else str(offset.freqstr)


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("start", ["2016-07-04", "2015-11-30 16:30"])
def test_every_step_is_inferred_from_its_times(alias: str, start: str) -> None:
    times = times_of(alias, start=start)
    assert inferred(times) == alias
    offset = parse_frequency(alias)
    assert offset is not None
    laid = lay(times, offset)
    assert isinstance(laid, pd.DatetimeIndex)
    assert laid.freqstr == alias
    assert laid.equals(times)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_few_gaps_do_not_change_what_is_inferred(alias: str) -> None:
    times = times_of(alias)
    gappy = times.delete([7, 8, 19])
    assert inferred(gappy) == alias
    misfit = lay(gappy, times.freq)
    assert isinstance(misfit, Misfit)
    assert (misfit.row, misfit.is_gap, misfit.expected, misfit.num_missing) == (7, True, times[7], 3)
    assert misfit.grid is not None
    assert misfit.grid.equals(times)


def test_month_ends_are_not_every_thirty_days() -> None:
    ends = pd.DatetimeIndex(["2019-12-31", "2020-01-31", "2020-02-29", "2020-03-31"]).as_unit("us")
    assert inferred(ends) == "ME"
    assert inferred(pd.DatetimeIndex(["2020-07-01", "2020-08-01", "2020-09-01"]).as_unit("us")) == "MS"


def test_days_of_the_week_alone_are_business_days_only_if_a_weekend_passes() -> None:
    assert inferred(times_of("D", periods=5)) == "D"
    assert inferred(times_of("B", periods=6)) == "B"
    assert inferred(times_of("D", periods=7)) == "D"


def test_what_one_series_shows_counts_for_all() -> None:
    assert inferred(times_of("B", periods=3), times_of("B", periods=11)) == "B"
    assert inferred(times_of("h", periods=1), times_of("h", periods=3)) == "h"
    assert inferred(times_of("B", periods=5), times_of("B", periods=5, start="2016-07-11")) == "D"
    weeks = times_of("W-MON"), times_of("W-TUE")
    assert inferred(*weeks) == "7D"
    assert inferred(times_of("W-MON"), times_of("W-MON", start="2018-01-01")) == "W-MON"
    assert inferred(times_of("QS-JAN"), times_of("QS-FEB")) == "3MS"
    assert inferred(times_of("D"), times_of("D", start="2016-07-04 12:00")) == "D"


def test_fewer_than_three_points_show_no_step() -> None:
    assert inferred(times_of("h", periods=2), times_of("h", periods=2)) is None
    assert inferred(times_of("h", periods=1)) is None


def test_days_of_a_zone_may_have_23_hours() -> None:
    days = pd.date_range("2020-03-27", periods=5, freq="D", unit="us", tz="Europe/Berlin")
    hours = pd.date_range("2020-03-27", periods=90, freq="h", unit="us", tz="Europe/Berlin")
    for times, alias in ((days, "D"), (hours, "h")):
        offset = infer(pd.DatetimeIndex(times, freq=None), np.array([0, len(times)]))
        assert offset is not None
        assert offset.freqstr == alias
        assert isinstance(lay(times, offset), pd.DatetimeIndex)
    day_long = parse_frequency("24h")
    assert day_long is not None
    assert canonical(day_long, days[:1]).freqstr == "24h"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("60min", "h"), ("24h", "D"), ("90min", "90min"), ("120s", "2min"), ("1000ms", "s"), ("7D", "W-MON"),
        ("14D", "2W-MON"), ("W", "W-SUN"), ("3MS", "QS-JAN"), ("12MS", "YS-JUL"), ("QS", "QS-JAN"),
        ("QS-OCT", "QS-JAN"),
        ("QE-MAR", "QE-DEC"), ("2QS-APR", "2QS-JAN"), ("H", "h"), ("15T", "15min"), ("S", "s"), ("M", "ME"),
        ("Q", "QE-DEC"),
        ("Y", "YE-DEC"), ("A-MAR", "YE-MAR"), ("BM", "BME"), ("SM", "SME-15"), (" D ", "D"), ("1D12h", "36h"),
    ],
)  # fmt: skip
def test_a_step_has_one_name_however_it_is_written(written: str, name: str) -> None:
    offset = parse_frequency(written)
    assert offset is not None
    assert canonical(offset, pd.DatetimeIndex(["2016-07-04"])).freqstr == name


@pytest.mark.parametrize("alias", ["", "foo", "0h", "-1h", "-1D", "ns", "1500ns", "bh", "C", "h1", "D;"])
def test_what_is_no_step_is_none(alias: str) -> None:
    assert parse_frequency(alias) is None


def test_a_time_beside_the_grid_is_found() -> None:
    times = times_of("h", periods=9)
    for row, moved in itertools.product((1, 5, 8), (pd.Timedelta(1, "s"), pd.Timedelta(-1, "us"))):
        odd = times.delete(row).insert(row, times[row] + moved)
        misfit = lay(odd, times.freq)
        assert isinstance(misfit, Misfit)
        assert (misfit.row, misfit.is_gap, misfit.grid) == (row, False, None)
    misfit = lay(times_of("D", periods=4), parse_frequency("W-SUN"))  # type: ignore[arg-type]  # it is one
    assert isinstance(misfit, Misfit)
    assert (misfit.row, misfit.is_gap) == (0, False)


@pytest.mark.parametrize("alias", ["us", "h", "D", "B", "MS"])
def test_a_time_centuries_away_does_not_build_a_grid_of_centuries(alias: str) -> None:
    times = times_of(alias, periods=9).append(pd.DatetimeIndex(["9999-12-31"]).as_unit("us"))
    offset = parse_frequency(alias)
    assert offset is not None
    misfit = lay(times, offset)
    assert isinstance(misfit, Misfit)
    if alias == "us" or misfit.grid is None:
        assert misfit.num_missing > 1_000
    else:
        assert len(misfit.grid) < 100_000


@given(
    alias=st.sampled_from(ALIASES),
    start=st.datetimes(pd.Timestamp("1700-01-01").to_pydatetime(), pd.Timestamp("2300-01-01").to_pydatetime()),
    periods=st.integers(4, 40),
)
def test_what_is_inferred_lays_the_times_it_was_inferred_from(alias: str, start: pd.Timestamp, periods: int) -> None:
    times = pd.date_range(start, periods=periods, freq=alias, unit="us")
    offset = infer(pd.DatetimeIndex(times, freq=None), np.array([0, periods]))
    assert offset is not None
    laid = lay(times, offset)
    assert isinstance(laid, pd.DatetimeIndex)
    assert laid.equals(times)


def test_steps_are_described_in_words() -> None:
    cases = {
        "h": "hourly (h)",
        "15min": "frequency 15min",
        "W-SUN": "weekly (W-SUN)",
        "QE-DEC": "quarter ends (QE-DEC)",
    }
    for alias, words in cases.items():
        assert describe(times_of(alias, periods=1).freq) == words
