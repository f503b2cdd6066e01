"""Time features: where times lie in the day, the week and the year."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stanhop.series.time_features import columns_of, known_periods, time_features, with_time_features


def test_they_are_cosines_and_then_sines_of_how_far_each_period_has_gone() -> None:
    times = pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 06:00", "2021-01-04 12:00", "2023-07-02 12:00"])
    found = time_features(times, ("day", "year"))
    days = np.array([0, 0.25, 0.5, 0.5])
    years = np.array([0, 0.25 / 366, 3.5 / 365, 182.5 / 365])
    angles = 2 * np.pi * np.stack([days, years])
    expected = [*np.cos(angles), *np.sin(angles)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-12)
    week = time_features(times[:3], ("week",))  # a Monday, six hours later, and Monday noon
    np.testing.assert_allclose(np.arctan2(week[:, 1], week[:, 0]) / (2 * np.pi), [0, 0.25 / 7, 0.5 / 7], atol=1e-12)


def test_a_time_of_a_zone_is_the_local_one() -> None:
    here = pd.date_range("2024-03-01", periods=30, freq="h", tz="Asia/Tokyo")
    np.testing.assert_array_equal(time_features(here, ("day",)), time_features(here.tz_localize(None), ("day",)))


@pytest.mark.parametrize(
    ("frequency", "num_rows", "known"),
    [
        ("h", 47, ()),
        ("h", 48, ("day",)),
        ("h", 24 * 14, ("day", "week")),
        ("h", 24 * 731, ("day", "week", "year")),
        ("12h", 24, ("day",)),
        ("D", 365, ("week",)),
        ("D", 731, ("week", "year")),
        ("MS", 24, ("year",)),
        ("YS", 50, ()),
        ("D", 1, ()),
    ],
)
def test_periods_are_known_that_rows_cover_twice_in_steps_that_see_them(
    frequency: str, num_rows: int, known: tuple[str, ...]
) -> None:
    assert known_periods(pd.date_range("2021-01-01", periods=num_rows, freq=frequency)) == known


def test_they_stand_behind_the_channels() -> None:
    times = pd.date_range("2021-01-01", periods=5, freq="7h")
    rows = np.arange(10.0).reshape(5, 2)
    seen = with_time_features(rows, times, ("week", "day"))
    np.testing.assert_array_equal(seen[:, :2], rows)
    np.testing.assert_array_equal(seen[:, 2:], time_features(times, ("week", "day")))
    assert with_time_features(rows, times, ()) is rows


def test_columns_of_some_periods_are_found_among_those_of_more() -> None:
    times = pd.date_range("2021-01-01", periods=40, freq="17h")
    every = time_features(times, ("day", "week", "year"))
    for some in (("day", "year"), ("week",), (), ("day", "week", "year")):
        places = columns_of(some, ("day", "week", "year"))
        np.testing.assert_array_equal(every[:, places], time_features(times, some) if some else every[:, :0])
