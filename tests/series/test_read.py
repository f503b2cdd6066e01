"""Claims about the strict reader: what is no table, and where; line ends and separators; Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, UserError
from stanhop.series import read as reader
from stanhop.series.frame import SeriesSet
from stanhop.series.read import read_table

HEAD = "ds,y\n2020-01-01,1\n2020-01-02,2\n"
TABLE = HEAD + "2020-01-03,3\n"


@pytest.mark.parametrize(
    ("content", "code", "line", "text"),
    [
        ("", Code.FILE, None, "file is empty"),
        ("\ufeff", Code.STRUCTURE, None, "holds only blank lines"),
        ("\n \r\n\t\n", Code.STRUCTURE, None, "holds only blank lines"),
        ("\nds,y\n", Code.STRUCTURE, 2, "no data rows, only a header"),
        (
            "ds,y\n2020-01-01,1,5\n2020-01-02,2,5\n",
            Code.STRUCTURE,
            2,
            "line 2 has 3 fields, header has 2; decimal commas?",
        ),
        ("ds,y\n2020-01-01,1,\n2020-01-02,2,\n", Code.STRUCTURE, 2, "header has 2; every row ends with a separator"),
        (TABLE + "2020-01-04,4,5\n", Code.STRUCTURE, 5, "line 5 has 3 fields, header has 2; correct the line"),
        (TABLE + "2020-01-04\n2020-01-05,1\n", Code.STRUCTURE, 5, "line 5 has 1 field, header has 2; correct the line"),
        (TABLE + "2020-01-04", Code.STRUCTURE, 5, "line 5 has 1 field, header has 2; truncated?"),
        (TABLE + "  \n", Code.STRUCTURE, 5, "line 5 has 1 field, header has 2; take the line out"),
        (HEAD + '2020-01-03,"3\n2020-01-04,4\n', Code.STRUCTURE, 4, "a quote opens here and never closes"),
        (HEAD + '2020-01-03,"3\n2020-01-04,4"\n', Code.STRUCTURE, 4, "a quoted field runs over the end of the line"),
        (HEAD + '2020-01-03,"3"3\n', Code.STRUCTURE, 4, "text after a closing quote; a quote inside a quoted field"),
        ('"ds\n",y\n2020-01-01,1\n', Code.STRUCTURE, 1, "a quoted field runs over the end of the line"),
        (TABLE + f"2020-01-04,{'1' * 200_000}\n", Code.STRUCTURE, 5, "a field is longer than 131,072 characters"),
        (TABLE + f"2020-01-04,{'1,' * 600_000}\n", Code.STRUCTURE, 5, "1,200,011 characters, more than 1,000,000"),
        ("," * 10_000 + "\n" + "," * 10_000, Code.STRUCTURE, 1, "10,001 columns, more than 10,000"),
        ("ds\n2020-01-01\n", Code.STRUCTURE, 1, "found 1 column; a table needs a time column and one of values"),
        (TABLE.replace(",", ";"), Code.STRUCTURE, 1, "found 1 column; is the separator ';'? add --sep ';'"),
        (TABLE.replace(",", "\t"), Code.STRUCTURE, 1, r"is the separator '\t'? add --sep '\t'"),
        (TABLE.replace(",", "|"), Code.STRUCTURE, 1, "is the separator '|'? add --sep '|'"),
        ("ds;y\n2020-01-01;1,5\n", Code.STRUCTURE, 1, "add --sep ';'"),
    ],
)
def test_what_is_no_table_is_refused_at_its_line(
    content: str, code: Code, line: int | None, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(content)
    assert (error.code, error.line) == (code, line)
    assert text in error.message


def test_a_repeated_name_is_refused_as_a_column(refusal: Callable[..., UserError]) -> None:
    error = refusal("ds,y, y\n2020-01-01,1,2\n")
    assert (error.code, error.line, error.column) == (Code.COLUMN, 1, "y")
    assert "column 2 and column 3" in error.message


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\r\r\n"),
        "\n" + HEAD + "\r\n\n\r2020-01-03,3\n\n",
        TABLE.replace("ds,y", ' "ds" , y ').replace('"', ""),
        TABLE.replace("1\n", '"1"\n'),
        TABLE.replace(",1", ", 1\t"),
    ],
)
def test_line_ends_blank_lines_quotes_and_blanks_change_nothing(content: str, read: Callable[..., SeriesSet]) -> None:
    assert read(content).fingerprint == read(TABLE).fingerprint


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_changes_nothing(separator: str, read: Callable[..., SeriesSet]) -> None:
    assert read(TABLE.replace(",", separator), separator=separator).fingerprint == read(TABLE).fingerprint


def test_the_line_of_an_error_counts_blank_lines(refusal: Callable[..., UserError]) -> None:
    assert refusal("\n\nds,y\n\n2020-01-01,1\r\n\r\n2020-01-02,x\n").line == 7


def test_without_a_header_columns_are_called_by_their_place(read: Callable[..., SeriesSet]) -> None:
    headless = read(TABLE.split("\n", 1)[1], header=False)
    assert (headless.layout.time_column, headless.channels) == ("1", ("2",))
    assert np.array_equal(headless.series[0].values, read(TABLE).series[0].values)


def test_a_cut_at_any_byte_of_the_last_rows_is_refused_or_noted(read: Callable[..., SeriesSet]) -> None:
    whole = "ds,y\n2020-01-01,1.25\n2020-01-02,2.25\n2020-01-03,3.25\n2020-01-04,4.25\n2020-01-05,5.25\n"
    values = read(whole).series[0].values
    for cut in range(1, 32):
        try:
            series_set = read(whole[:-cut])
        except UserError:
            continue
        found = series_set.series[0].values
        is_whole_rows = cut == 16
        assert is_whole_rows or any("no line end" in note for note in series_set.notes), cut
        assert np.array_equal(found[:-1], values[: len(found) - 1])


@pytest.mark.timeout(5)
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nothing")
    cases = [
        (tmp_path, "is a folder"),
        (pipe, "is not a regular file"),
        (Path("/dev/null"), "is not a regular file"),
        (link, "is a link to nothing"),
        (tmp_path / "no.csv", "no such file"),
        (tmp_path / "n\0.csv", "is no path"),
    ]
    for path, text in cases:
        with pytest.raises(DataError, match=text) as caught:
            read_table(path, DataConfig())
        assert caught.value.code == Code.FILE


def test_a_file_that_cannot_be_read_is_the_machines_problem(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be read"):
        read_table(tmp_path / ("x" * 300), DataConfig())


@pytest.mark.parametrize("place", [0, 44])
def test_a_file_that_changes_while_it_is_read_is_refused(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TABLE, encoding="utf-8")
    plain_fstat = os.fstat

    def fstat_then_append(descriptor: int) -> os.stat_result:
        status = plain_fstat(descriptor)
        with path.open("r+", encoding="utf-8") as file:
            file.seek(place)
            file.write("DS,Y")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))  # clocks of file systems are coarse
        return status

    monkeypatch.setattr(reader.os, "fstat", fstat_then_append)
    with pytest.raises(DataError, match="changed while it was read"):
        read_table(path, DataConfig())


def test_a_file_beyond_the_limit_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., UserError]
) -> None:
    monkeypatch.setattr(reader, "LARGEST_FILE", 30)
    assert "has 44 bytes, more than 30" in refusal(TABLE).message


def parquet(**columns: Any) -> bytes:
    content = BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


DAYS = pd.date_range("2020-01-01", periods=3, freq="D", unit="us")


@pytest.mark.parametrize(
    "times",
    [
        DAYS,
        DAYS.as_unit("s"),
        DAYS.as_unit("ns"),
        pa.array(DAYS.date),
        pa.array(DAYS.date, type=pa.date64()),
        ["2020-01-01", "2020-01-02 00:00", "2020-01-03"],
        pa.array(["2020-01-01", "2020-01-02", "2020-01-03"]).dictionary_encode(),
    ],
)
@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0],
        pa.array([1, 2, 3], type=pa.int8()),
        pa.array([1, 2, 3], type=pa.uint64()),
        pa.array([1, 2, 3], type=pa.float32()),
        pa.array([Decimal(1), Decimal(2), Decimal(3)]),
        ["1", "2.0", "3e0"],
    ],
)
def test_parquet_of_any_sensible_type_equals_csv(times: Any, values: Any, read: Callable[..., SeriesSet]) -> None:
    found = read(parquet(ds=times, y=values), name="a.parquet")
    assert found.fingerprint == read(TABLE).fingerprint


def test_parquet_keeps_zones_and_ids(read: Callable[..., SeriesSet]) -> None:
    hours = pd.date_range("2020-03-28 22:00", periods=6, freq="h", unit="us", tz="Europe/Berlin")
    zoned = read(parquet(ds=hours, y=np.arange(6.0)), name="a.parquet").series[0]
    assert str(zoned.times.tz) == "Europe/Berlin"
    assert zoned.times.equals(hours)
    days = pd.date_range("2020-03-28", periods=4, freq="D", unit="us", tz="Europe/Berlin")
    assert read(parquet(ds=days, y=np.arange(4.0)), name="a.parquet").frequency == "D"
    ids = read(parquet(item_id=[7, 7, 7], timestamp=DAYS, target=[1, 2, 3]), name="a.parquet")
    assert ids.series[0].id == "7"


@pytest.mark.parametrize(
    ("columns", "code", "column", "text"),
    [
        ({"ds": DAYS, "y": [True, False, True]}, Code.VALUE, "y", "row 1: 'True' is not a number; write 1 and 0"),
        ({"ds": DAYS, "y": [[1.0], [2.0], [3.0]]}, Code.VALUE, "y", "row 1: '[1.0]' is not a number"),
        ({"ds": DAYS, "y": [1.0, 2.0, np.inf]}, Code.VALUE, "y", "row 3: 'inf' is not finite"),
        ({"ds": DAYS, "y": [1.0, None, 3.0]}, Code.MISSING, "y", "row 2: the value is missing"),
        ({"ds": DAYS, "y": pa.nulls(3)}, Code.MISSING, "y", "holds no value at all"),
        ({"ds": DAYS, "y": DAYS}, Code.COLUMN, "y", "holds times, not numbers"),
        ({"ds": [*DAYS[:2], None], "y": [1, 2, 3]}, Code.TIME, "ds", "row 3: the time stamp is missing"),
        (
            {"ds": [20200101, 20200102, 20200103], "y": [1, 2, 3]},
            Code.TIME,
            "ds",
            "row 1: '20200101' has no separators",
        ),
        ({"ds": pa.array([1, 2, 10**18], pa.timestamp("us")), "y": [1, 2, 3]}, Code.TIME, "ds", "outside the years"),
        ({"ds": pa.array([1, 2, 3], pa.timestamp("ns")), "y": [1, 2, 3]}, Code.TIME, "ds", "finer than a microsecond"),
        ({"unique_id": [0.5, 1, 2], "ds": DAYS, "y": [1, 2, 3]}, Code.COLUMN, "unique_id", "holds fractions, not ids"),
        (
            {"unique_id": ["A", None, "A"], "ds": DAYS, "y": [1, 2, 3]},
            Code.COLUMN,
            "unique_id",
            "row 2: the id is empty",
        ),
        ({"unique_id": DAYS, "ds": DAYS, "y": [1, 2, 3]}, Code.COLUMN, "unique_id", "holds times, not ids"),
        ({"ds": DAYS}, Code.STRUCTURE, None, "found 1 column"),
        ({"ds": DAYS[:0], "y": []}, Code.STRUCTURE, None, "no data rows"),
    ],
)
def test_parquet_that_does_not_fit_is_refused_by_column_and_row(
    columns: dict[str, Any], code: Code, column: str | None, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(parquet(**columns), name="a.parquet")
    assert (error.code, error.column, error.line) == (code, column, None)
    assert text in error.message


def test_whole_numbers_of_parquet_that_float64_would_round_stay_exact(
    read: Callable[..., SeriesSet], refusal: Callable[..., UserError]
) -> None:
    large = [2**53 + 1, 2**53 + 1, None]
    ids = read(parquet(unique_id=[2**53 + 1] * 3, ds=DAYS, y=[1, 2, 3]), name="a.parquet")
    assert [one.id for one in ids.series] == ["9007199254740993"]
    rounded = read(parquet(ds=DAYS, y=large), name="a.parquet", missing="ffill")
    assert rounded.series[0].values.ravel().tolist() == [float(2**53)] * 3
    error = refusal(parquet(ds=DAYS, y=large), name="a.parquet", strict=True, missing="ffill")
    assert "row 1: '9007199254740993' would be rounded to 9007199254740992" in error.message
    negative = refusal(parquet(ds=DAYS, y=[0, -1, 2]), name="a.parquet", nonnegative=True)
    assert "row 2: '-1.0' is below 0" in negative.message


def test_damaged_parquet_is_refused(refusal: Callable[..., UserError]) -> None:
    content = parquet(ds=DAYS, y=[1.0, 2.0, 3.0])
    for damaged in (TABLE.encode(), content[:-9], content[: len(content) // 2], b"PAR1" * 3):
        assert refusal(damaged, name="a.parquet").code == Code.FORMAT


def test_parquet_that_claims_too_many_cells_is_refused(
    monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., UserError]
) -> None:
    monkeypatch.setattr(reader, "MOST_PARQUET_CELLS", 5)
    assert "3 rows of 2 columns are too many" in refusal(parquet(ds=DAYS, y=[1, 2, 3]), name="a.PQ").message
