"""Claims about tables as series: order, duplicates, gaps, missing values, lengths, and the notes on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.errors import Code, UserError
from stanhop.series.frame import SeriesSet

HOURS = [f"2020-01-{1 + hour // 24:02} {hour % 24:02}:00" for hour in range(53)]


def wide(values: list[str], *, skip: tuple[int, ...] = ()) -> str:
    """A row an hour, with ``values`` as the cells after the time; hours in ``skip`` are left out."""
    rows = [f"{time},{cell}" for hour, (time, cell) in enumerate(zip(HOURS, values, strict=False)) if hour not in skip]
    return "\n".join(["date,y", *rows, ""])


def numbers(series_set: SeriesSet) -> list[float]:
    found: list[float] = series_set.series[0].values[:, 0].tolist()
    return found


def test_the_first_note_says_what_was_inferred(read: Callable[..., SeriesSet]) -> None:
    assert read(wide(list("123"))).notes == ("3 rows, wide, 1 channel, time column 'date', hourly (h)",)
    long = "unique_id,ds,y,z\n" + "".join(f"{one},2020-0{month}-01,1,2\n" for one in "AB" for month in range(1, 5))
    expected = "8 rows, long, 2 series by column 'unique_id', 2 channels, time column 'ds', monthly (MS)"
    assert read(long).notes == (expected,)


# Order


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_rows_give_the_same_series_and_one_note(seed: int, read: Callable[..., SeriesSet]) -> None:
    header, *rows = wide([str(number) for number in range(31)]).splitlines()
    random.Random(seed).shuffle(rows)
    shuffled = read("\n".join([header, *rows, ""]))
    assert shuffled.fingerprint == read(wide([str(number) for number in range(31)])).fingerprint
    assert shuffled.notes[1:] == ("the rows were not in order of time: sorted",)


@given(order=st.permutations([(one, hour) for one in ("b", "B", "007") for hour in range(5)]))
def test_any_order_of_the_rows_of_a_long_table_gives_the_same_set(
    order: list[tuple[str, int]], read: Callable[..., SeriesSet]
) -> None:
    def content(pairs: list[tuple[str, int]]) -> str:
        return "unique_id,ds,y\n" + "".join(f"{one},{HOURS[hour]},{hour}.{len(one)}\n" for one, hour in pairs)

    assert read(content(order)).fingerprint == read(content(sorted(order))).fingerprint


def test_descending_rows_are_sorted(read: Callable[..., SeriesSet]) -> None:
    header, *rows = wide(list("12345")).splitlines()
    assert numbers(read("\n".join([header, *reversed(rows), ""]))) == [1, 2, 3, 4, 5]


def test_series_that_take_turns_are_in_order(read: Callable[..., SeriesSet]) -> None:
    turns = "unique_id,ds,y\n" + "".join(f"{one},{HOURS[hour]},{hour}\n" for hour in range(5) for one in "BA")
    series_set = read(turns)
    assert [one.id for one in series_set.series] == ["A", "B"]
    assert len(series_set.notes) == 1


# Duplicates


def test_a_repeated_time_is_refused_with_both_lines(refusal: Callable[..., UserError]) -> None:
    error = refusal(wide(list("12345")) + "2020-01-01 02:00,9\n")
    assert (error.code, error.line, error.column) == (Code.DUPLICATE, 7, "date")
    assert "2020-01-01 02:00:00 again, after line 4; add --duplicates first or --duplicates mean" in error.message
    assert "--id-column if a column tells series apart" in error.message


def test_a_repeated_time_of_one_series_is_refused_with_its_id(refusal: Callable[..., UserError]) -> None:
    rows = "".join(f"{one},{HOURS[hour]},1\n" for one in "AB" for hour in range(4))
    error = refusal(f"unique_id,ds,y\n{rows}B,{HOURS[1]},2\n")
    assert (error.code, error.line) == (Code.DUPLICATE, 10)
    assert "series 'B': 2020-01-01 01:00:00 again, after line 7" in error.message
    assert "--id-column" not in error.message


@pytest.mark.parametrize(
    ("policy", "expected", "note"),
    [
        ("first", [1, 2, 7], "3 rows for a time that another row has: the first of each kept"),
        ("mean", [1, 4, 8], "3 rows for a time that another row has: their mean taken"),
    ],
)
def test_policies_for_repeated_times(
    policy: str, expected: list[float], note: str, read: Callable[..., SeriesSet]
) -> None:
    cells = [(0, 1), (1, 2), (2, 7), (1, 6), (2, 9), (1, 4)]
    content = "date,y\n" + "".join(f"{HOURS[hour]},{value}\n" for hour, value in cells)
    series_set = read(content, duplicates=policy)
    assert numbers(series_set) == expected
    assert note in series_set.notes


def test_merging_the_rows_of_one_series_leaves_the_others_alone(read: Callable[..., SeriesSet]) -> None:
    rows = [("A", 0, 1), ("A", 1, 2), ("A", 1, 9), ("A", 1, 9), ("A", 2, 3), ("B", 2, 4), ("B", 3, 5), ("B", 4, 6)]
    content = "unique_id,ds,y\n" + "".join(f"{one},{HOURS[hour]},{value}\n" for one, hour, value in rows)
    series_set = read(content, duplicates="first")
    assert [one.values[:, 0].tolist() for one in series_set.series] == [[1, 2, 3], [4, 5, 6]]


def test_a_series_may_begin_when_the_one_before_it_ends(read: Callable[..., SeriesSet]) -> None:
    rows = "".join(
        f"{one},{HOURS[hour]},1\n" for one, first in (("A", 0), ("B", 3)) for hour in range(first, first + 4)
    )
    assert len(read(f"unique_id,ds,y\n{rows}").series) == 2


@pytest.mark.parametrize("values", [("1e16", "1", "-1e16"), ("1", "-1e16", "1e16")])
def test_the_mean_does_not_depend_on_the_order_of_the_rows(
    values: tuple[str, ...], read: Callable[..., SeriesSet]
) -> None:
    content = wide(list("12")) + "".join(f"{HOURS[2]},{value}\n" for value in values)
    assert numbers(read(content, duplicates="mean"))[2] == 1 / 3


def test_the_mean_is_over_the_values_that_are_there(read: Callable[..., SeriesSet]) -> None:
    content = wide(list("123")) + f"{HOURS[1]},\n{HOURS[2]},NA\n"
    assert numbers(read(content, duplicates="mean", missing="ffill")) == [1, 2, 3]


def test_the_autumn_hour_that_comes_twice_is_explained(refusal: Callable[..., UserError]) -> None:
    hours = ["00", "01", "02", "02", "03", "04"]
    content = "date,y\n" + "".join(f"2020-10-25 {hour}:00,1\n" for hour in hours)
    error = refusal(content)
    assert error.code == Code.DUPLICATE
    assert "if the clocks changed, add --tz" in error.message


# Grid


def test_a_gap_is_refused_with_the_first_time_that_is_missing(refusal: Callable[..., UserError]) -> None:
    error = refusal(wide([str(hour) for hour in range(30)], skip=(3, 4, 9)))
    assert (error.code, error.line, error.column) == (Code.FREQUENCY, 4, "date")
    assert "missing 2020-01-01 03:00:00 after line 4, the first of 3 (the grid is hourly (h))" in error.message
    assert error.fix == "add --fill-gaps --missing interpolate"


def test_the_spring_hour_that_never_was_is_explained(refusal: Callable[..., UserError]) -> None:
    content = "date,y\n" + "".join(f"2020-03-29 {hour:02}:00,1\n" for hour in (0, 1, 3, 4, 5))
    error = refusal(content)
    assert "missing 2020-03-29 02:00:00 after line 3" in error.message
    assert "if the clocks changed, add --tz" in error.message


@pytest.mark.parametrize(
    ("missing", "expected", "notes"),
    [
        ("ffill", [0, 1, 2, 2, 2, 5], ("2 rows added in gaps", "2 missing values filled (ffill)")),
        ("interpolate", [0, 1, 2, 3, 4, 5], ("2 rows added in gaps", "2 missing values filled (interpolate)")),
    ],
)
def test_gaps_are_filled_on_request(
    missing: str, expected: list[float], notes: tuple[str, ...], read: Callable[..., SeriesSet]
) -> None:
    series_set = read(wide(list("012345"), skip=(3, 4)), fill_gaps=True, missing=missing)
    assert numbers(series_set) == expected
    assert series_set.notes[1:] == notes


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("error", "a row for 2020-01-01 03:00:00 was added and has no values; say how to fill it: --missing ffill"),
        ("drop", "dropping the row of 2020-01-01 03:00:00 would leave a gap; use --missing ffill"),
    ],
)
def test_filled_gaps_need_a_policy_that_fills(missing: str, text: str, refusal: Callable[..., UserError]) -> None:
    error = refusal(wide(list("012345"), skip=(3, 4)), fill_gaps=True, missing=missing)
    assert (error.code, error.line) == (Code.MISSING, 4)
    assert text in error.message


@pytest.mark.parametrize(
    ("stamp", "line"), [("2200-01-01 00:00", 91), ("1020-01-01 00:00", 2), ("2020-01-09 00:00", 91)]
)
def test_a_mistyped_year_is_not_filled_but_pointed_at(stamp: str, line: int, refusal: Callable[..., UserError]) -> None:
    rows = [f"2020-01-{1 + hour // 24:02} {hour % 24:02}:00,1\n" for hour in range(89)]
    odd = f"{stamp},1\n"
    content = "date,y\n" + (odd + "".join(rows) if line == 2 else "".join(rows) + odd)
    error = refusal(content, fill_gaps=True, missing="ffill")
    assert (error.code, error.line) == (Code.FREQUENCY, line)
    assert "rows (limit 90); " in error.message
    assert f"{stamp.removesuffix(' 00:00')} looks wrong; correct it, or split the file at the gap" in error.message


def test_a_time_beside_the_grid_is_refused_even_if_gaps_may_be_filled(refusal: Callable[..., UserError]) -> None:
    for fill_gaps in (False, True):
        error = refusal(wide(list("01234")) + "2020-01-01 05:30,5\n", fill_gaps=fill_gaps, missing="ffill")
        assert (error.code, error.line) == (Code.FREQUENCY, 7)
        assert "2020-01-01 05:30:00 is not on a grid that is hourly (h)" in error.message


def test_few_points_need_a_frequency(read: Callable[..., SeriesSet], refusal: Callable[..., UserError]) -> None:
    error = refusal(wide(list("12")))
    assert (error.code, error.column) == (Code.FREQUENCY, "date")
    assert "fewer than 3 points, too few to see their frequency; add --freq" in error.message
    assert read(wide(list("12")), frequency="h").frequency == "h"
    assert read(wide(list("1")), frequency="15T").frequency == "15min"


@pytest.mark.parametrize(
    ("frequency", "text"),
    [
        ("foo", "--freq 'foo' is no frequency; write a pandas alias"),
        ("2h", "is not on a grid that is frequency 2h; add --freq h"),
        ("30min", "missing 2020-01-01 00:30:00 after line 2"),
        ("W", "2020-01-01 is not on a grid that is weekly (W-SUN); add --freq h"),
    ],
)
def test_a_frequency_that_is_not_the_times_own_is_refused(
    frequency: str, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(wide(list("12345")), frequency=frequency)
    assert error.code == Code.FREQUENCY
    assert text in error.message


def test_series_of_different_frequencies_are_named(refusal: Callable[..., UserError]) -> None:
    hourly = "".join(f"{one},{HOURS[hour]},1\n" for one in ("A", "B", "C", "D") for hour in range(5))
    daily = "".join(f"odd,2020-01-0{day},1\n" for day in range(1, 5))
    error = refusal(f"unique_id,ds,y\n{hourly}{daily}")
    assert (error.code, error.line) == (Code.FREQUENCY, 22)
    assert "the series differ in frequency: D: 'odd'; h: 'A', 'B', 'C' and 1 more" in error.message


def test_series_may_begin_and_end_at_different_times(read: Callable[..., SeriesSet]) -> None:
    rows = "".join(
        f"{one},{HOURS[hour]},1\n" for one, first in (("A", 0), ("B", 7), ("C", 30)) for hour in range(first, first + 4)
    )
    assert [str(one.times[0]) for one in read(f"unique_id,ds,y\n{rows}").series] == [
        "2020-01-01 00:00:00",
        "2020-01-01 07:00:00",
        "2020-01-02 06:00:00",
    ]


def test_a_gap_names_its_series(refusal: Callable[..., UserError]) -> None:
    rows = "".join(f"{one},{HOURS[hour]},1\n" for one in "AB" for hour in range(9) if (one, hour) != ("B", 4))
    error = refusal(f"unique_id,ds,y\n{rows}")
    assert error.line == 14
    assert "series 'B': missing 2020-01-01 04:00:00 after line 14" in error.message


# Missing values


@pytest.mark.parametrize(
    ("cells", "missing", "expected"),
    [
        (["1", "", "NA", "4", "nan"], "ffill", [1, 1, 1, 4, 4]),
        (["1", "", "NA", "4", "5"], "interpolate", [1, 2, 3, 4, 5]),
        (["", "NA", "3", "4", ""], "drop", [3, 4]),
    ],
)
def test_policies_for_missing_values(
    cells: list[str], missing: str, expected: list[float], read: Callable[..., SeriesSet]
) -> None:
    series_set = read(wide(cells), missing=missing)
    assert numbers(series_set) == expected
    assert len(series_set.notes) == 2
    assert series_set.series[0].frequency == "h"


def test_interpolation_follows_the_time_not_the_rows(read: Callable[..., SeriesSet]) -> None:
    months = ["01-01,0", "02-01,", "03-01,60", "04-01,3"]
    values = numbers(read("ds,y\n" + "".join(f"2020-{month}\n" for month in months), missing="interpolate"))
    assert values == [0, 31, 60, 3]


def test_known_values_stay_bit_for_bit(read: Callable[..., SeriesSet]) -> None:
    cells = ["0.1", "", "0.30000000000000004", "-0.0", "1e-300"]
    values = numbers(read(wide(cells), missing="interpolate"))
    assert list(map(repr, [values[0], *values[2:]])) == [cells[0], *cells[2:]]


def test_dropping_tells_how_many_rows(read: Callable[..., SeriesSet]) -> None:
    series_set = read(wide(["", "", "3", "4", "5", ""]), missing="drop")
    assert series_set.notes[1] == "3 rows with missing values dropped"
    assert str(series_set.series[0].times[0]) == "2020-01-01 02:00:00"


@pytest.mark.parametrize(
    ("cells", "missing", "line", "text"),
    [
        (["", "2", "3"], "ffill", 2, "the first value is missing and ffill finds none before it; use --missing drop"),
        (["", "2", "3"], "interpolate", 2, "the first value is missing and interpolate finds none before it"),
        (
            ["1", "2", ""],
            "interpolate",
            4,
            "the last value is missing and interpolate finds none after it; use --missing",
        ),
        (["1", "", "3"], "drop", 3, "dropping the row of 2020-01-01 01:00:00 would leave a gap; use --missing ffill"),
    ],
)
def test_missing_values_at_the_ends_are_refused_where_a_policy_cannot_fill(
    cells: list[str], missing: str, line: int, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(wide(cells), missing=missing)
    assert (error.code, error.line) == (Code.MISSING, line)
    assert text in error.message


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("ffill", "column 'y': series 'B': every value is missing; remove the series"),
        ("drop", "series 'B': no row is complete; use --missing ffill"),
    ],
)
def test_a_series_without_values_is_named(missing: str, text: str, refusal: Callable[..., UserError]) -> None:
    rows = "".join(f"{one},{HOURS[hour]},{'1' if one == 'A' else ''}\n" for one in "AB" for hour in range(4))
    error = refusal(f"unique_id,ds,y\n{rows}", missing=missing)
    assert (error.code, error.line) == (Code.MISSING, 6)
    assert text in error.message


# Length and size


@pytest.mark.parametrize("length", [6, 7, 8])
def test_a_series_needs_the_points_that_are_asked_of_it(
    length: int, read: Callable[..., SeriesSet], refusal: Callable[..., UserError]
) -> None:
    content = wide([str(hour) for hour in range(7)])
    if length <= 7:
        assert len(read(content, minimum_length=length).series[0]) == 7
    else:
        error = refusal(content, minimum_length=length)
        assert (error.code, error.line) == (Code.LENGTH, 8)
        assert "needs 8 points, has 7; give a longer history" in error.message


def test_a_short_series_among_others_is_named(refusal: Callable[..., UserError]) -> None:
    rows = "".join(f"{one},{HOURS[hour]},1\n" for one, steps in (("A", 9), ("B", 5)) for hour in range(steps))
    assert "series 'B': needs 9 points, has 5" in refusal(f"unique_id,ds,y\n{rows}", minimum_length=9).message


def test_channels_are_columns_of_the_values(read: Callable[..., SeriesSet]) -> None:
    content = "date,a,b,c\n" + "".join(f"{HOURS[step]},{step},{step}.5,-{step}\n" for step in range(5))
    values = read(content).series[0].values
    steps = np.arange(5.0)
    assert np.array_equal(values, np.stack([steps, steps + 0.5, -steps], axis=-1))


def test_options_do_not_leak_from_one_reading_to_the_next(read: Callable[..., SeriesSet]) -> None:
    content = wide(list("1234"))
    options: dict[str, Any] = {"missing": "ffill", "fill_gaps": True, "duplicates": "first", "frequency": "h"}
    assert read(content, **options).fingerprint == read(content).fingerprint
