"""Records of outputs: what is still sound, and what has to be made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.forecasting.records import Record, Records
from stanhop.storage import sha256_of


def record_of(name: str) -> Record:
    return Record(name=name, made_from={"input": "abc"}, outputs={name: "0" * 64}, batch_size=3)


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_a_record_of_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    records = Records(tmp_path_factory.mktemp("records"))
    records.write(record_of(name))
    assert records.read(name) == record_of(name)
    assert records.read(name + "x") is None
    (path,) = records.folder.iterdir()
    assert len(path.name) <= 100


def test_names_with_undecodable_bytes_are_no_defect(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(record_of("a\udcff.csv"))
    assert records.read("a\udcff.csv") in (None, record_of("a\udcff.csv"))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'{"name": "b.csv"}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    records = Records(tmp_path)
    records.write(record_of("a.csv"))
    (path,) = records.folder.iterdir()
    path.write_bytes(content)
    assert records.read("a.csv") is None
    path.unlink()
    assert records.read("a.csv") is None


def test_a_record_of_another_name_is_none(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(record_of("a.csv"))
    (path,) = records.folder.iterdir()
    path.write_text(record_of("b.csv").model_dump_json())
    assert records.read("a.csv") is None


def test_an_output_is_sound_while_it_is_as_it_was_written(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"content")
    assert records.is_sound("a.csv", sha256_of(b"content"))
    assert not records.is_sound("a.csv", sha256_of(b"other"))
    assert not records.is_sound("none.csv", sha256_of(b"content"))
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    assert not records.is_sound("link.csv", sha256_of(b"content"))


def test_tables_of_an_earlier_batch_are_known_as_outputs(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(record_of("sub/a.csv"))
    assert records.is_output(tmp_path / "sub" / "a.csv")
    assert records.is_output(tmp_path / "sub" / ".." / "sub" / "a.csv")
    assert not records.is_output(tmp_path / "a.csv")
    assert not records.is_output(tmp_path.parent / "a.csv")
