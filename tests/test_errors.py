"""Errors: the one line they become, and what it must not show."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop import errors
from stanhop.errors import Code, DataError, UserError, masked, quoted, render, render_json


def test_a_line_names_file_line_column_problem_and_fix() -> None:
    error = DataError(Code.VALUE, "'1,5' is not a number", fix="add --decimal ,", file="a.csv", line=7, column="y")
    assert render(error) == "stanhop: error[E105]: a.csv:7: column 'y': '1,5' is not a number; add --decimal ,"


def test_parts_that_are_not_known_leave_no_trace() -> None:
    assert render(DataError(Code.FILE, "file is empty", file="a.csv")) == "stanhop: error[E101]: a.csv: file is empty"
    assert render(DataError(Code.FILE, "file is empty")) == "stanhop: error[E101]: file is empty"


def test_json_holds_the_parts_apart() -> None:
    error = DataError(Code.VALUE, "bad", fix="mend it", file="a.csv", line=7, column="y")
    assert json.loads(render_json(error))["error"] == {
        "code": "E105",
        "problem": "bad",
        "file": "a.csv",
        "line": 7,
        "column": "y",
        "hint": "mend it",
        "exit_code": 2,
    }


@given(st.text(), st.text(), st.text())
def test_any_text_makes_one_printable_line(problem: str, file: str, column: str) -> None:
    error = UserError(Code.VALUE, problem, file=file, column=column)
    assert render(error).isprintable()
    assert "\n" not in render_json(error)


@given(st.text())
def test_a_quoted_value_is_at_most_40_printable_characters(value: str) -> None:
    assert len(quoted(value)) <= 40
    assert quoted(value).isprintable()


def test_quoting_shows_what_the_eye_cannot_see() -> None:
    assert quoted("1\xa0000") == r"'1\xa0000'"
    assert quoted(1.5) == "'1.5'"


@pytest.mark.parametrize(
    "address", ["postgresql://me:secret@host/db", "https://secret@host", "https://me:sec@secret@host:80/x"]
)
def test_credentials_never_reach_the_screen(address: str) -> None:
    error = UserError(Code.TRACKING, f"cannot reach {address}", file=address)
    for line in (masked(address), render(error), render_json(error)):
        assert "secret" not in line
        assert "host" in line


def test_an_address_without_credentials_is_shown_whole() -> None:
    assert masked("https://host/team@home") == "https://host/team@home"
    assert masked("models:/stanhop@champion") == "models:/stanhop@champion"


def test_codes_are_distinct_and_exit_codes_are_those_of_the_contract() -> None:
    assert len({str(code) for code in Code}) == len(Code)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UserError)]
    assert {kind.__name__: kind.exit_code for kind in kinds if kind.exit_code != 2} == {
        "PartialBatchError": 3,
        "MachineError": 4,
        "DivergedError": 5,
        "InternalError": 1,
    }


def test_bad_data_and_bad_configuration_are_value_errors_too() -> None:
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ModelError, ValueError)
