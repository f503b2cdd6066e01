"""Time zones: offsets become one zone, a repeated hour is told apart, a skipped one is neither a gap nor a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from stanhop.errors import UserError
from stanhop.forecasting.calendar import future_times
from stanhop.forecasting.tables import time_texts
from stanhop.series.frame import SeriesSet

Read = Callable[..., SeriesSet]
Refusal = Callable[..., UserError]
BERLIN = "Europe/Berlin"
AUTUMN, SPRING = datetime(2020, 10, 24, 22, tzinfo=UTC), datetime(2020, 3, 28, 22, tzinfo=UTC)
"""Local midnight of the days on which the clocks change in Berlin, less an hour or two."""


def local(start: datetime, steps: int, *, minutes: int = 60, zone: str = BERLIN) -> list[str]:
    """Stamps as local clocks show them, without their offset."""
    times = [start + timedelta(minutes=minutes * step) for step in range(steps)]
    return [f"{time.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}" for time in times]


def table(stamps: Sequence[str], *, ids: Sequence[str] | None = None) -> str:
    """A table whose values count the rows."""
    if ids is None:
        return "ds,y\n" + "".join(f"{stamp},{row}\n" for row, stamp in enumerate(stamps))
    return "unique_id,ds,y\n" + "".join(f"{i},{s},{row}\n" for row, (i, s) in enumerate(zip(ids, stamps, strict=True)))


@pytest.mark.parametrize("minutes", [15, 30, 60])
@pytest.mark.parametrize("start", [AUTUMN, SPRING])
def test_local_times_over_a_change_of_clocks_are_even_steps(read: Read, start: datetime, minutes: int) -> None:
    (one,) = read(table(local(start, 40, minutes=minutes)), time_zone=BERLIN).series
    assert one.times[0] == pd.Timestamp(start)
    assert set(np.diff(one.times.asi8)) == {minutes * 60_000_000}
    assert one.values.ravel().tolist() == list(range(40))
    assert str(one.times.tz) == BERLIN


def test_descending_rows_are_told_apart_as_well(read: Read) -> None:
    (one,) = read(table(local(AUTUMN, 12)[::-1]), time_zone=BERLIN).series
    assert one.values.ravel().tolist() == list(range(12))[::-1]


def test_each_series_of_a_long_table_has_its_own_repeated_hour(read: Read) -> None:
    stamps = [stamp for stamp in local(AUTUMN, 12) for _ in range(3)]
    first, second, third = read(table(stamps, ids=("a", "b", "c") * 12), time_zone=BERLIN).series
    for number, one in enumerate((first, second, third)):
        assert one.times[0] == pd.Timestamp(AUTUMN)
        assert one.values.ravel().tolist() == list(range(number, 36, 3))


def test_without_a_zone_both_changes_are_refused_with_the_way_out(refusal: Refusal) -> None:
    for start, text in ((AUTUMN, "2020-10-25 02:00:00 again"), (SPRING, "missing 2020-03-29 02:00:00")):
        error = refusal(table(local(start, 12)))
        assert text in error.message
        assert "add --tz with the zone of the times, such as --tz Europe/Berlin" in error.message


@pytest.mark.parametrize(
    ("stamps", "line", "text"),
    [
        (["2020-10-25 01:00", "2020-10-25 02:00", "2020-10-25 03:00"], 3, "where the clocks went back, and once in"),
        (["2020-10-25 02:00"] * 3, 2, "and more often in this table"),
        (
            ["2020-03-29 01:30", "2020-03-29 02:30", "2020-03-29 03:30"],
            3,
            "does not exist in Europe/Berlin: the clocks",
        ),
        (
            ["2020-10-25 04:00", "2020-10-25 02:00", "2020-10-25 02:00", "2020-10-25 01:00", "2020-10-25 05:00"],
            3,
            "only the order of rows would tell, which is not by time",
        ),
        (["0001-01-01", "0001-01-02", "0001-01-03"], 2, "within a day of the end of the calendar"),
    ],
)
def test_local_times_that_do_not_exist_or_could_be_two_are_refused(
    refusal: Refusal, stamps: list[str], line: int, text: str
) -> None:
    error = refusal(table(stamps), time_zone=BERLIN)
    assert (error.line, error.column) == (line, "ds")
    assert text in error.message


def test_different_offsets_are_refused_without_a_zone_and_converted_with_one(read: Read, refusal: Refusal) -> None:
    stamps = ["2020-10-25 02:00+02:00", "2020-10-25 02:00+01:00", "2020-10-25 03:00+01:00"]
    error = refusal(table(stamps))
    assert (error.line, error.fix) == (3, "add --tz UTC, or --tz with the zone they are of")
    for zone in ("UTC", BERLIN):
        (one,) = read(table(stamps), time_zone=zone).series
        assert [time.hour for time in one.times.tz_convert("UTC")] == [0, 1, 2]
        assert str(one.times.tz) == zone
    (formatted,) = read(table(stamps), time_zone="UTC", date_format="%Y-%m-%d %H:%M%z").series
    assert formatted.times.equals(read(table(stamps), time_zone="UTC").series[0].times)
    assert "no offset" in refusal(table([*stamps, "2020-10-25 04:00"]), time_zone=BERLIN).message


def test_an_epoch_becomes_local_time(read: Read) -> None:
    stamps = [str(int(AUTUMN.timestamp()) + 3_600 * step) for step in range(6)]
    (one,) = read(table(stamps), time_zone=BERLIN, date_format="epoch_s").series
    assert time_texts(one.times)[2:4] == ["2020-10-25 02:00:00+02:00", "2020-10-25 02:00:00+01:00"]


@pytest.mark.parametrize("start", [AUTUMN, SPRING])
def test_a_forecast_over_a_change_of_clocks_has_even_steps_and_the_right_offsets(read: Read, start: datetime) -> None:
    (one,) = read(table(local(start - timedelta(hours=20), 20)), time_zone=BERLIN).series
    times = future_times(one, steps=9)
    expected = [(start + timedelta(hours=step)).astimezone(ZoneInfo(BERLIN)) for step in range(9)]
    assert time_texts(times) == [time.isoformat(sep=" ") for time in expected]
    assert len(set(time_texts(times))) == 9


def test_days_are_days_of_the_zone(read: Read) -> None:
    stamps = [f"2020-10-{day}" for day in range(22, 29)]
    (one,) = read(table(stamps), time_zone=BERLIN).series
    assert one.frequency == "D"
    assert [time.hour for time in one.times] == [0] * 7
    assert one.times[4] - one.times[3] == pd.Timedelta(hours=25)


@pytest.mark.parametrize("name", ["Europe/Berln", "CEST+1", "../../etc/passwd", "/etc/localtime", "", "Europe"])
def test_what_is_no_zone_is_refused(refusal: Refusal, name: str) -> None:
    error = refusal(table(local(AUTUMN, 5)), time_zone=name)
    assert "is no time zone" in error.message
    if name == "Europe/Berln":
        assert error.fix == "did you mean Europe/Berlin?"
