"""Claims about which column is what: by name, by kind, as told, and when that is not clear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stanhop.errors import Code, UserError
from stanhop.series.frame import Layout, SeriesSet

DAYS = ("2020-01-01", "2020-01-02", "2020-01-03")


def table(header: str, cells: str) -> str:
    """Three rows of ``cells``, in which ``D`` is the day and ``N`` the number of the row."""
    rows = [cells.replace("D", day).replace("N", str(number)) for number, day in enumerate(DAYS)]
    return "\n".join([header, *rows, ""])


def wide(time_column: str, *targets: str) -> Layout:
    return Layout(kind="wide", time_column=time_column, id_column=None, target_columns=targets)


def long(id_column: str, time_column: str, *targets: str) -> Layout:
    return Layout(kind="long", time_column=time_column, id_column=id_column, target_columns=targets)


@pytest.mark.parametrize(
    ("content", "options", "layout"),
    [
        (table("date,HUFL,OT", "D,N,1"), {}, wide("date", "HUFL", "OT")),
        (table("OT,Date", "N,D"), {}, wide("Date", "OT")),
        (table("y,DATE_TIME", "N,D"), {}, wide("DATE_TIME", "y")),
        (table("when,y", "D,N"), {}, wide("when", "y")),
        (table("date,0,1", "D,N,1"), {}, wide("date", "0", "1")),
        (table("unique_id,ds,y", "A,D,N"), {}, long("unique_id", "ds", "y")),
        (table("item_id,timestamp,target", "A,D,N"), {}, long("item_id", "timestamp", "target")),
        (table("unique_id,ds,y,temperature", "A,D,N,1"), {}, long("unique_id", "ds", "y", "temperature")),
        (table("y,shop,day", "N,A,D"), {"id_column": "shop"}, long("shop", "day", "y")),
        (table("date,end,y", "D,D,N"), {"target_columns": ("y",)}, wide("date", "y")),
        (table("date,a,b,c", "D,N,1,x"), {"target_columns": ("b", "a")}, wide("date", "b", "a")),
        (table("a,b,y", "D,D,N"), {"time_column": "b", "target_columns": ("y",)}, wide("b", "y")),
        (table(",y", "D,N"), {"time_column": ""}, wide("", "y")),
    ],
)
def test_layouts_are_recognised(
    content: str, options: dict[str, Any], layout: Layout, read: Callable[..., SeriesSet]
) -> None:
    series_set = read(content, **options)
    assert series_set.layout == layout
    assert series_set.channels == layout.target_columns


def test_the_ids_of_a_wide_table_is_empty_and_of_a_long_one_text(read: Callable[..., SeriesSet]) -> None:
    assert [one.id for one in read(table("date,y", "D,N")).series] == [""]
    content = "unique_id,ds,y\n" + "".join(
        f"{one},{day},1\n" for day in DAYS for one in ("null", "NA", "007", "7", " a")
    )
    assert [one.id for one in read(content).series] == [" a", "007", "7", "NA", "null"]


@pytest.mark.parametrize(
    "content", [table(",date,y", "N,D,N"), table("Unnamed: 0,date,y", "N,D,N"), table("date,y,", "D,N,")]
)
def test_a_column_without_a_name_is_left_out_with_a_note(content: str, read: Callable[..., SeriesSet]) -> None:
    series_set = read(content)
    assert series_set.channels == ("y",)
    place = content.split("\n")[0].split(",").index("") + 1 if "Unnamed" not in content else 1
    assert f"left out: column {place}, which has no name" in series_set.notes


@pytest.mark.parametrize(
    ("header", "cells", "options", "text"),
    [
        ("2019-12-31,1", "D,N", {}, "no time column found; the first line looks like data; add --no-header"),
        ("2019-12-31,1", "D,N", {"time_column": "ds"}, "column 'ds' not found; the first line looks like data"),
        ("5,1", "D,N", {}, "the first line looks like data"),
        ("ds,y", "D,N", {"time_column": "DS"}, "column 'DS' not found; columns are 'ds', 'y'; did you mean 'ds'?"),
        ("ds,y", "D,N", {"time_column": "DS"}, "correct --time-column"),
        (
            "ds,y",
            "D,N",
            {"target_columns": ("z",)},
            "column 'z' not found; columns are 'ds', 'y'; correct --target-columns",
        ),
        ("ds,y", "D,N", {"id_column": "item"}, "column 'item' not found"),
        ("a,b", "1,N", {}, "no time column found; columns are 'a', 'b'; name it with --time-column"),
        ("a,b", "D,D", {}, "'a' and 'b' could each hold the times; choose with --time-column a or --time-column b"),
        ("date,time,y", "D,D,N", {}, "'date' and 'time' could each hold the times"),
        ("my date,day two,y", "D,D,N", {}, "choose with --time-column 'my date' or --time-column 'day two'"),
        ("unique_id,item_id,ds,y", "A,A,D,N", {}, "'unique_id' and 'item_id' could each tell series apart"),
        (",y", "D,N", {}, "column 1 holds the times but has no name; name it in the first line"),
        ("ds,", "D,N", {}, "no column of values beside 'ds'; add a column of values"),
        ("unique_id,ds", "A,D", {}, "no column of values beside 'unique_id' and 'ds'"),
        ("ds,y", "D,N", {"id_column": "ds", "time_column": "ds"}, "cannot hold both ids and times"),
        ("ds,y", "D,N", {"target_columns": ("y", "ds")}, "holds the times, it cannot be forecast"),
        ("unique_id,ds,y", "A,D,N", {"target_columns": ("unique_id",)}, "holds the ids, it cannot be forecast"),
        ("ds,y", "D,N", {"target_columns": ("y", "y")}, "named twice in --target-columns; name it once"),
        (",".join(f"c{number}" for number in range(15)), ",".join("N" * 15), {}, "'c11', 3 more; name it"),
    ],
)
def test_an_unclear_layout_is_refused_with_the_flag_that_settles_it(
    header: str, cells: str, options: dict[str, Any], text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(table(header, cells), **options)
    assert error.code == Code.COLUMN
    assert text in error.message


def test_an_empty_id_is_refused_at_its_line(refusal: Callable[..., UserError]) -> None:
    error = refusal("unique_id,ds,y\nA,2020-01-01,1\n ,2020-01-02,2\n")
    assert (error.code, error.line, error.column) == (Code.COLUMN, 3, "unique_id")
    assert "the id is empty; name the series or remove the row" in error.message
