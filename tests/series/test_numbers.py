"""Claims about cells of numbers: notation, exactness, and what to do about everything else."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, UserError
from stanhop.series.frame import SeriesSet
from stanhop.series.numbers import is_number, parse_numbers
from stanhop.series.table import Table


def parsed(cells: list[str], **options: object) -> np.ndarray:
    table = Table(Path("a.csv"), ("y",), (cells,), range(2, len(cells) + 2))
    return parse_numbers(table, "y", DataConfig(**options))  # type: ignore[arg-type]  # options are of many types


def table_with(cell: str, *, before: str = "2") -> str:
    quoted = cell.replace('"', '""')
    return f'ds,y\n2020-01-01,1\n2020-01-02,{before}\n2020-01-03,"{quoted}"\n2020-01-04,4\n'


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("abc", "'abc' is not a number; correct it, or leave the cell empty"),
        ("1,5", "'1,5' is not a number; decimal commas? add --decimal ,"),
        ("1,234", "decimal commas? add --decimal , or marks between thousands? add --thousands ,"),
        ("1,234.5", "'1,234.5' is not a number; marks between thousands? add --thousands ,"),
        ("1.234,5", "decimal commas and marks between thousands? add --decimal , --thousands ."),
        ("1 234.5", "marks between thousands? add --thousands ' '"),
        ("1\xa0234", r"'1\xa0234' is not a number; marks between thousands? add --thousands ' '"),
        ("1'234", """marks between thousands? add --thousands "'\""""),
        ("5%", "'5%' is not a number"),
        ("$3", "'$3' is not a number"),
        ("1_000", "'1_000' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("1e", "'1e' is not a number"),
        ("+-1", "'+-1' is not a number"),
        ("1 2", "'1 2' is not a number"),
        ("\u22125", "write the minus sign as '-'"),
        ("\u0661\u0662", "write it with the digits 0 to 9"),
        ("\uff11", "write it with the digits 0 to 9"),
        ("True", "'True' is not a number; write 1 and 0"),
        ("inf", "'inf' is not finite; correct it"),
        ("-Infinity", "'-Infinity' is not finite"),
        ("1e400", "'1e400' is not finite"),
        ("-1e31", "'-1e31' is outside ±1e+30"),
        ("x" * 90, f"'{'x' * 37}…' is not a number"),
    ],
)
def test_a_cell_that_is_no_number_is_refused_with_its_line_and_what_to_do(
    cell: str, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(table_with(cell))
    assert (error.code, error.line, error.column) == (Code.VALUE, 4, "y")
    assert text in error.message


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "#N/A", "NaN", "null", "None"])
def test_words_for_a_missing_value_are_missing_values(cell: str, refusal: Callable[..., UserError]) -> None:
    error = refusal(table_with(cell))
    assert (error.code, error.line, error.column) == (Code.MISSING, 4, "y")
    assert "the value is missing; add --missing ffill, --missing interpolate or --missing drop" in error.message


def test_missing_values_are_counted(refusal: Callable[..., UserError]) -> None:
    error = refusal(table_with("", before=""))
    assert error.line == 3
    assert "the first of 2; add --missing ffill" in error.message


def test_a_column_without_any_value_is_refused_whatever_the_policy(refusal: Callable[..., UserError]) -> None:
    for missing in ("error", "ffill", "drop"):
        error = refusal("ds,x,y\n2020-01-01,1,\n2020-01-02,2,NA\n2020-01-03,3,\n", missing=missing)
        assert (error.code, error.column) == (Code.MISSING, "y")
        assert "holds no value at all; leave it out" in error.message


def test_a_column_of_words_may_be_meant_for_something_else(refusal: Callable[..., UserError]) -> None:
    error = refusal("ds,city,y\n2020-01-01,Rome,1\n2020-01-02,Oslo,2\n2020-01-03,Bonn,3\n")
    assert (error.column, error.line) == ("city", 2)
    assert "naming the columns to forecast with --target-columns, or is it --id-column?" in error.message


@pytest.mark.parametrize(
    ("plain", "written", "options"),
    [
        (["1.5", "-2e3", ".25"], ["1,5", "-2e3", ",25"], {"decimal": ","}),
        (["1.5", "", "3"], ["1,5", "NA", "3"], {"decimal": ","}),
        (["1234.5", "1234567", "12"], ["1,234.5", "1,234,567", "12"], {"thousands": ","}),
        (["1234.5", "-1234567", "1234"], ["1.234,5", "-1.234.567", "1234"], {"decimal": ",", "thousands": "."}),
        (["1234", "1234.5", "12345678"], ["1 234", "1\xa0234.5", "12\u202f345\u202f678"], {"thousands": " "}),
        (["1234.5", "1", "2"], ["1'234.5", "1", "2"], {"thousands": "'"}),
        (["1", "2", "3"], [" 1", "2\t", "+3"], {}),
    ],
)
def test_other_notations_equal_the_plain_one(plain: list[str], written: list[str], options: dict[str, str]) -> None:
    assert np.array_equal(parsed(plain), parsed(written, **options), equal_nan=True)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("1.5", {"decimal": ","}),
        ("1,2,3", {"decimal": ","}),
        ("12,34", {"thousands": ","}),
        ("1234,567", {"thousands": ","}),
        (",123", {"thousands": ","}),
        ("1 234\xa05", {"thousands": " "}),
    ],
)
def test_marks_in_the_wrong_place_make_no_number(cell: str, options: dict[str, str]) -> None:
    with pytest.raises(DataError, match="is not a number") as caught:
        parsed(["1", cell], **options)
    assert caught.value.line == 3


def test_a_comma_table_may_hold_decimal_commas_in_quotes(read: Callable[..., SeriesSet]) -> None:
    plain = "ds,y\n2020-01-01,1.5\n2020-01-02,2.5\n2020-01-03,-3.5\n"
    commas = 'ds,y\n2020-01-01,"1,5"\n2020-01-02,"2,5"\n2020-01-03,"-3,5"\n'
    semicolons = "ds;y\n2020-01-01;1,5\n2020-01-02;2,5\n2020-01-03;-3,5\n"
    assert read(commas, decimal=",").fingerprint == read(plain).fingerprint
    assert read(semicolons, decimal=",", separator=";").fingerprint == read(plain).fingerprint


@given(values=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50))
@example(values=[0.0, -0.0, 5e-324, 2.2250738585072011e-308, 1e30, -1e30, 0.1, 9007199254740993.0])
def test_floats_written_in_full_are_read_back_bit_for_bit(values: list[float]) -> None:
    cells = list(map(repr, values))
    bits = [struct.pack("<d", value) for value in values]
    assert [struct.pack("<d", value) for value in parsed(cells)] == bits
    with_missing = parsed([*cells, "NA"])  # the way that looks at each cell
    assert [struct.pack("<d", value) for value in with_missing[:-1]] == bits


def test_a_hundred_thousand_floats_are_read_back_bit_for_bit() -> None:
    random = np.random.default_rng(7)
    bits = random.integers(0, 2**64, size=150_000, dtype=np.uint64).view(np.float64)
    values = bits[np.isfinite(bits) & (np.abs(bits) <= 1e30)]
    values = np.concatenate([values, random.standard_normal(100_000 - len(values))])
    cells = list(map(repr, values.tolist()))
    assert np.array_equal(parsed(cells).view(np.uint64), values.view(np.uint64))


NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")


@given(cells=st.lists(st.text("0019.eE+- \t,_naif\xa0\u0661", max_size=6), min_size=1, max_size=4))
@example(cells=["1 2"])
@example(cells=["1", "1_0"])
def test_a_cell_is_a_number_exactly_if_the_grammar_says_so(cells: list[str]) -> None:
    is_missing = [cell.strip(" \t").lower() in ("", "na", "nan") for cell in cells]
    if all(missing or NUMBER.fullmatch(cell) for cell, missing in zip(cells, is_missing, strict=True)):
        expected = [math.nan if missing else float(cell) for cell, missing in zip(cells, is_missing, strict=True)]
        if all(math.isnan(value) or abs(value) <= 1e30 for value in expected):
            assert np.array_equal(parsed(cells), expected, equal_nan=True)
            return
    with pytest.raises(DataError):
        parsed(cells)


def test_whole_numbers_beyond_the_53rd_bit_are_rounded_as_python_does() -> None:
    assert parsed(["9007199254740993"])[0] == float(9007199254740993) == 9007199254740992.0


def test_strictly_a_whole_number_that_would_be_rounded_is_refused(refusal: Callable[..., UserError]) -> None:
    exact = ["9007199254740992", "9007199254740994", "-9007199254740993.0", "1e23", "12", "0.1"]
    assert np.array_equal(parsed(exact, strict=True), parsed(exact))
    error = refusal(table_with("9007199254740993"), strict=True)
    assert (error.line, error.column) == (4, "y")
    assert "'9007199254740993' would be rounded to 9007199254740992; round it, or leave --strict out" in error.message
    with pytest.raises(DataError, match="would be rounded"):
        parsed(["9.007.199.254.740.993", ""], strict=True, decimal=",", thousands=".")


def test_values_below_zero_are_refused_if_none_may_be(refusal: Callable[..., UserError]) -> None:
    assert parsed(["0", "-0.0", "3", ""], nonnegative=True).tolist()[:3] == [0.0, 0.0, 3.0]
    error = refusal(table_with("-1e-9"), nonnegative=True)
    assert (error.line, error.column, error.code) == (4, "y", Code.VALUE)
    assert "'-1e-9' is below 0; correct it, or leave --nonnegative out" in error.message


def test_is_number_knows_the_plain_notation_only() -> None:
    assert all(map(is_number, ["1", " -1.5e3\t", ".5", "5."]))
    assert not any(map(is_number, ["", "1,5", "nan", "1_0", "\u0661", "."]))
