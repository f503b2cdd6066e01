"""``stanhop data``: what is there, what a file is read as, and a plain copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stanhop.config import DataConfig
from stanhop.series import catalog
from stanhop.series.load import load_series


def test_the_list_names_every_set_and_whether_it_is_here(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "electricity.csv").write_text("date,a\n")  # its checksum is not known
    (folder / "ETTh1.csv").write_text("other\n")
    monkeypatch.setenv("STANHOP_DATA_DIR", str(folder))
    sets = {entry["name"]: entry for entry in run("data", "list", "--format", "json").document["data_sets"]}
    assert list(sets) == ["synthetic", *catalog.data_sets()]
    assert (sets["ECL"]["state"], sets["ECL"]["path"]) == ("yes", str(folder / "electricity.csv"))
    assert sets["ETTh1"]["state"] == "damaged"
    assert sets["WTH"]["state"] == "no"
    assert sets["synthetic"]["state"] == "built in"
    human = run("data", "list").out
    assert all(name in human for name in sets)


def test_an_unknown_set_is_not_fetched(run: Any) -> None:
    answer = run("data", "fetch", "ETTh3")
    assert answer.code == 2
    assert "error[E112]" in answer.err
    assert "did you mean ETTh" in answer.err


def test_the_built_in_set_needs_no_fetching(run: Any) -> None:
    assert run("data", "fetch", "synthetic").code == 0


def test_a_set_that_is_here_is_named_by_its_path(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANHOP_DATA_DIR", str(tmp_path))
    (tmp_path / "electricity.csv").write_text("x")
    assert run("data", "fetch", "ECL").out == f"{tmp_path / 'electricity.csv'}\n"


def test_inspect_says_how_a_file_is_read(run: Any, table: Any) -> None:
    answer = run("data", "inspect", table(), "--format", "json")
    document = answer.document
    assert (document["layout"], document["time_column"], document["frequency"]) == ("wide", "date", "h")
    assert document["channels"] == ["load", "wind", "price"]
    (series,) = document["series"]
    assert (series["num_rows"], series["first"]) == (211, "2021-03-01 00:00:00")
    lowest, highest = series["ranges"]["load"]
    assert -10 <= lowest < -9
    assert 10 < highest <= 11
    assert "211 rows" in answer.err


def test_inspect_shows_ids_only_where_there_are_some(run: Any, table: Any, tmp_path: Path) -> None:
    assert "id column" not in run("data", "inspect", table()).out
    long = tmp_path / "long.csv"
    rows = [f"{name},2021-01-0{day},{day}" for name in "ab" for day in range(1, 6)]
    long.write_text("\n".join(["unique_id,ds,y", *rows, ""]))
    human = run("data", "inspect", long).out
    assert "id column    unique_id" in human


def test_inspect_takes_read_options(run: Any, table: Any) -> None:
    path = table("semicolons.csv", separator=";")
    refused = run("data", "inspect", path)
    assert refused.code == 2
    assert "--sep ';'" in refused.err
    assert run("data", "inspect", path, "--sep", ";").code == 0


def test_inspect_refuses_a_bad_file_with_file_and_line(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("date,y\n2021-01-01,1\n2021-01-02,abc\n")
    error = run("data", "inspect", path, "--format", "json").error
    assert (error["file"], error["line"], error["column"], error["exit_code"]) == (str(path), 3, "y", 2)


def test_an_export_reads_back_the_same(run: Any, elsewhere: Path) -> None:
    assert run("data", "export", "synthetic", "out/all.csv").code == 0
    ours = load_series(DataConfig())
    copy = load_series(DataConfig(source=str(elsewhere / "out" / "all.csv")))
    np.testing.assert_array_equal(copy.series[0].values, ours.series[0].values)
    assert copy.fingerprint == ours.fingerprint


def test_an_export_may_be_cut_and_is_not_written_over(run: Any, elsewhere: Path) -> None:
    assert run("data", "export", "synthetic", "part.csv", "--first", "101", "--last", "7").code == 0
    lines = (elsewhere / "part.csv").read_text().splitlines()
    assert len(lines) == 8
    assert lines[-1].startswith("2020-01-05 04:00:00,")
    refused = run("data", "export", "synthetic", "part.csv")
    assert refused.code == 2
    assert "exists already" in refused.err
    assert run("data", "export", "synthetic", "part.csv", "--overwrite").code == 0
