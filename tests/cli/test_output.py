"""Results and notes: what goes where in which format."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from stanhop.cli.output import Format, Output, aligned, metric_lines


def test_a_result_is_text_json_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, expected in ((Format.HUMAN, "text\n"), (Format.JSON, '{"a": 1}\n'), (Format.QUIET, "")):
        Output(kind).result({"a": 1}, human="text")
        assert capsys.readouterr() == (expected, "")


def test_json_holds_only_what_json_knows(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"path": Path("a/b"), "nan": math.nan, "infinite": math.inf, "tuple": (1, [2.5]), 3: "Ö", "none": None}
    Output(Format.JSON).result(document, human="")
    parsed = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert parsed == {"path": "a/b", "nan": None, "infinite": None, "tuple": [1, [2.5]], "3": "Ö", "none": None}


def test_notes_go_to_stderr_without_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    Output().notes(["at https://me:secret@host"])
    assert capsys.readouterr() == ("", "stanhop: at https://***@host\n")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("a", 10, "x"), ("long", 2, "")]) == "a     10  x\nlong  2"


def test_counts_are_whole_numbers_and_errors_have_four_digits() -> None:
    assert metric_lines({"mse": 0.123456, "num_windows": 2857.0}) == "mse          0.1235\nnum_windows  2,857"


def test_a_terminal_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        Output().result({}, human="größe")
    assert (tmp_path / "out").read_text() == "gr\\xf6\\xdfe\n"
