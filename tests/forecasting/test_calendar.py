"""The time stamps of a forecast: they go on where the history ends, in every calendar."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from stanhop.errors import Code, DataError
from stanhop.forecasting.calendar import future_times, is_same_step, season_length
from stanhop.series.frame import Series


def series_at(start: str, *, frequency: str, steps: int = 5, zone: str | None = None) -> Series:
    times = pd.date_range(start, periods=steps, freq=frequency, tz=zone, unit="us")
    return Series(id="a", times=times, values=np.zeros((steps, 1)), channels=("y",))


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("h", 24),
        ("60min", 24),
        ("15min", 96),
        ("6h", 4),
        ("5h", 1),
        ("30s", 120),
        ("250ms", 1),
        ("D", 7),
        ("24h", 7),
        ("B", 5),
        ("W-SUN", 52),
        ("7D", 52),
        ("2W", 26),
        ("MS", 12),
        ("ME", 12),
        ("3MS", 4),
        ("QS-OCT", 4),
        ("QE-DEC", 4),
        ("YS-JAN", 1),
        ("SMS-15", 24),
        ("no alias", 1),
    ],
)
def test_the_season_of_a_frequency(frequency: str, season: int) -> None:
    assert season_length(frequency) == season


@pytest.mark.parametrize(
    ("one", "other"), [("60min", "h"), ("W-SUN", "W-MON"), ("7D", "W-TUE"), ("3MS", "QS-JAN"), ("12ME", "YE-DEC")]
)
def test_two_names_of_one_step_are_the_same(one: str, other: str) -> None:
    assert is_same_step(one, other)


@pytest.mark.parametrize(("one", "other"), [("h", "15min"), ("MS", "ME"), ("MS", "QS-JAN"), ("D", "B"), ("W", "D")])
def test_different_steps_are_told_apart(one: str, other: str) -> None:
    assert not is_same_step(one, other)


@pytest.mark.parametrize("month", range(1, 13))
def test_month_ends_are_followed_by_month_ends(month: int) -> None:
    series = series_at(f"2019-{month:02}-01", frequency="ME")
    times = future_times(series, steps=24)
    assert len(times) == 24
    assert times.is_month_end.all()
    assert times[0].to_period("M") == series.times[-1].to_period("M") + 1


@pytest.mark.parametrize("frequency", ["15min", "h", "D", "B", "W-WED", "MS", "QE-DEC", "YS-JAN"])
def test_the_future_goes_on_where_the_history_ends(frequency: str) -> None:
    whole = series_at("2020-02-20", frequency=frequency, steps=20)
    known = Series(id="", times=whole.times[:13], values=whole.values[:13], channels=("y",))
    assert future_times(known, steps=7).equals(whole.times[13:])
    assert future_times(known, steps=7).unit == "us"


def test_hours_across_a_clock_change_are_even_in_utc() -> None:
    series = series_at("2020-03-28 20:00", frequency="h", zone="Europe/Berlin")
    times = future_times(series, steps=7)
    assert (np.diff(times.asi8) == 3_600_000_000).all()
    assert [str(time.strftime("%H%z")) for time in times[:3]] == ["01+0100", "03+0200", "04+0200"]


def test_days_across_a_clock_change_keep_their_hour() -> None:
    series = series_at("2020-10-20", frequency="D", zone="Europe/Berlin")
    assert set(future_times(series, steps=7).hour) == {0}


def test_a_future_that_the_clock_skips_is_refused() -> None:
    series = series_at("2020-03-24 02:30", frequency="D", zone="Europe/Berlin")
    with pytest.raises(
        DataError, match=r"the times after 2020-03-28 .* of series 'a' do not exist.*--tz UTC"
    ) as caught:
        future_times(series, steps=3)
    assert caught.value.code == Code.TIME


def test_a_future_beyond_the_year_9999_is_refused(make_series: Callable[..., Series]) -> None:
    series = series_at("9999-12-20", frequency="D")
    assert future_times(series, steps=7)[-1] == pd.Timestamp("9999-12-31")
    with pytest.raises(DataError, match="beyond the year 9999"):
        future_times(series, steps=8)
