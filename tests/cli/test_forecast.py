"""``stanhop forecast``: inputs in, tables out, and what is said about each."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stanhop

WATCHED = """
import os
import sys

FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "pickle.find_class"}


def watch(event, arguments):
    if event in FORBIDDEN:
        print(event, arguments, file=sys.stderr, flush=True)
        os._exit(1)


sys.addaudithook(watch)
from stanhop.cli.app import main

code = main(sys.argv[1:])
print([name for name in ("mlflow", "pytorch_lightning", "sktime") if name in sys.modules])
sys.exit(code)
"""
"""Runs a command that ends at once if it opens a connection, starts a process or reads a pickle."""


def test_a_folder_becomes_a_folder_of_tables(trained: Path, run: Any, table: Any, elsewhere: Path) -> None:
    inputs = [table("a.csv"), table("deep/b.csv", num_rows=97)]
    answer = run("forecast", "--model", trained / "model", "--input", inputs[0].parent, "--output", "out")
    assert answer.code == 0, answer.err
    assert answer.out.split() == ["out/a.csv", "out/deep/b.csv"]
    rows = list(csv.reader((elsewhere / "out" / "a.csv").read_text().splitlines()))
    assert rows[0] == ["date", "load", "wind", "price"]
    assert [row[0] for row in rows[1:]] == [f"2021-03-09 {hour:02}:00:00" for hour in range(19, 24)]
    again = run("forecast", "--model", trained / "model", "--input", inputs[0].parent, "--output", "out")
    assert again.out.count("(was there already)") == 2


def test_what_a_shell_makes_of_a_pattern_is_taken_as_well(trained: Path, run: Any, table: Any) -> None:
    first, second = table("a.csv"), table("b.csv")
    answer = run(
        "forecast", "--model", trained / "model", "--input", first, second, "--output", "out", "--format", "json"
    )
    assert answer.document["written"] == ["out/a.csv", "out/b.csv"]
    by_pattern = run(
        *("forecast", "--model", trained / "model", "--input", first.parent / "*.csv", "--output", "two"),
        *("--format", "json"),
    )
    assert by_pattern.document["written"] == ["two/a.csv", "two/b.csv"]


def test_one_file_becomes_one_file_in_the_format_of_its_name(
    trained: Path, run: Any, table: Any, elsewhere: Path
) -> None:
    answer = run("forecast", "--model", trained / "model", "--input", table(), "--output", "next.parquet", "--plot")
    assert answer.code == 0, answer.err
    assert (elsewhere / "next.parquet").read_bytes()[:4] == b"PAR1"
    assert (elsewhere / "next.png").read_bytes()[:4] == b"\x89PNG"


def test_refused_inputs_are_exit_code_3_and_all_others_are_written(trained: Path, run: Any, table: Any) -> None:
    good = table("good.csv")
    bad = good.parent / "bad.csv"
    bad.write_text(good.read_text().replace("2021-03-01 06:00:00,", "2021-03-01 06:00:00,x", 1))
    command = ("forecast", "--model", trained / "model", "--input", good.parent, "--output", "out", "--format", "json")
    answer = run(*command)
    assert answer.code == 3
    assert answer.document["written"] == ["out/good.csv"]
    (refused,) = answer.document["refused"]
    assert (refused["file"], refused["line"], refused["column"]) == (str(bad), 8, "load")
    assert answer.error["code"] == "E601"
    assert Path("out/errors.csv").is_file()


def test_nothing_forecast_is_exit_code_2(trained: Path, run: Any, table: Any, elsewhere: Path) -> None:
    path = table(num_rows=7)
    answer = run("forecast", "--model", trained / "model", "--input", path, "--output", "out")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert "error[E110]" in answer.err
    assert list(elsewhere.iterdir()) == []


def test_read_options_are_the_model_s_unless_given(trained: Path, run: Any, table: Any) -> None:
    path = table("semicolons.csv", separator=";")
    command = ("forecast", "--model", trained / "model", "--input", path, "--output", "out")
    assert run(*command).code == 2
    assert run(*command, "--sep", ";").code == 0


def test_what_is_no_model_is_refused(run: Any, table: Any, tmp_path: Path) -> None:
    answer = run("forecast", "--model", tmp_path / "nothing", "--input", table(), "--output", "out")
    assert answer.code == 2
    assert "error[E301]" in answer.err
    assert run("forecast", "--model", "https://host/model", "--input", table(), "--output", "out").code == 2


def test_no_input_at_all_is_a_usage_error(trained: Path, run: Any) -> None:
    answer = run("forecast", "--model", trained / "model", "--output", "out")
    assert answer.code == 2
    assert "error[E001]" in answer.err
    assert "no input" in answer.err


@pytest.mark.slow
def test_several_jobs_write_what_one_writes(trained: Path, run: Any, table: Any, elsewhere: Path) -> None:
    inputs = [table("a.csv"), table("b.csv", num_rows=97), table("c.csv", num_rows=7)]
    command = ("forecast", "--model", trained / "model", "--input", inputs[0].parent, "--format", "json")
    alone = run(*command, "--output", "one")
    together = run(*command, "--output", "two", "--jobs", "2")
    assert (alone.code, together.code) == (3, 3), together.err
    assert len(together.document["written"]) == 2
    for name in ("a.csv", "b.csv", "errors.csv"):
        assert (elsewhere / "two" / name).read_bytes() == (elsewhere / "one" / name).read_bytes()


def test_one_input_s_reading_is_told_on_stderr(trained: Path, run: Any, table: Any) -> None:
    answer = run("forecast", "--model", trained / "model", "--input", table(), "--output", "out.csv")
    assert "211 rows, wide, 3 channels" in answer.err
    assert answer.out == "out.csv\n"


@pytest.mark.slow
def test_forecasting_opens_no_socket_and_no_pickle_and_starts_without_what_it_does_not_need(
    trained: Path, table: Any, elsewhere: Path
) -> None:
    arguments = ["forecast", "--model", trained / "model", "--input", table(), "--output", "out.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(stanhop.__file__).parent.parent)}
    command = [sys.executable, "-c", WATCHED, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.csv\n[]\n"


def test_bounds_stand_beside_each_forecast(trained: Path, run: Any, table: Any, elsewhere: Path) -> None:
    arguments = ("forecast", "--model", trained / "model", "--input", table("a.csv"), "--output", "out.csv", "--plot")
    assert run(*arguments, "--levels", "80,95").code == 0
    header = (elsewhere / "out.csv").read_text().splitlines()[0].split(",")
    assert header[:6] == ["date", "load", "load-lo-80", "load-hi-80", "load-lo-95", "load-hi-95"]
    answer = run(*arguments, "--levels", "90")
    assert answer.code == 2
    assert "no interval of 90 %, only of 80, 95; choose from these, or train with --levels" in answer.err
