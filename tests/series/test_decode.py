"""Claims about bytes: which are text, and which line spoils it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from stanhop.errors import Code, DataError, UserError
from stanhop.series.decode import decode, split_lines
from stanhop.series.frame import SeriesSet

TABLE = "ds,ø\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n"


def zipped(name: str) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x1f\x8b\x08\x00rest", "this is a gzip file, not CSV text; unpack it first"),
        (zipped("a.csv"), "this is a zip file"),
        (zipped("xl/workbook.xml"), "this is an Excel workbook, not CSV text; save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "this is an old Excel workbook"),
        (b"PAR1rest", "this is a Parquet file, not CSV text; give it the suffix .parquet"),
        (b"%PDF-1.7", "this is a PDF file"),
        (b"\n <!DOCTYPE html><html>", "this is an HTML page, not CSV text; download the file itself"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(
    content: bytes, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(content)
    assert error.code == Code.FORMAT
    assert text in error.message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_recognised_and_read_when_named(
    encoding: str, read: Callable[..., SeriesSet], refusal: Callable[..., UserError]
) -> None:
    content = TABLE.encode(encoding)
    error = refusal(content)
    assert error.code == Code.FORMAT
    assert f"looks like {encoding[:6].upper()}; add --encoding {encoding}" in error.message
    assert read(content, encoding=encoding).fingerprint == read(TABLE).fingerprint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "UTF8"])
def test_a_byte_order_mark_changes_nothing(encoding: str, read: Callable[..., SeriesSet]) -> None:
    assert read(b"\xef\xbb\xbf" + TABLE.encode(), encoding=encoding).fingerprint == read(TABLE).fingerprint


@pytest.mark.parametrize(
    ("content", "encoding", "line", "text"),
    [
        (b"\xef\xbb\xbf" * 2 + TABLE.encode(), "utf-8", 1, "two byte-order marks; remove the bytes EF BB BF"),
        (b"\xef\xbb\xbf" * 2 + TABLE.encode(), "utf-8-sig", 1, "two byte-order marks"),
        (b"\xef\xbb\xbf" + TABLE.encode(), "cp1252", None, "byte-order mark of UTF-8, but the encoding is 'cp1252'"),
        (TABLE.replace("ds,", "ds,\ufeff").encode(), "utf-8", 1, r"a byte-order mark inside the name '\ufeff"),
        (TABLE.encode("cp1252"), "utf-8", 1, "byte 0xf8 is not UTF-8; add --encoding cp1252"),
        (b"ds,y\r2020-01-01,1\r\n2020-01-02,\xe9\n", "utf-8", 3, "byte 0xe9 is not UTF-8"),
        (b"ds,y\n2020-01-01,\x81\n", "cp1252", 2, "byte 0x81 is not CP1252; choose another --encoding"),
        (TABLE.encode() + b"2020-01-04,\xc3", "utf-8", 5, "ends within a character; truncated?"),
        (TABLE.encode("utf-16")[:-1], "utf-16", 4, "ends within a character; truncated?"),
        (TABLE.replace("2\n", "2\0\n").encode(), "utf-8", 3, "holds a NUL byte; damaged?"),
        (TABLE.encode(), "utf-9", None, "unknown encoding 'utf-9'; use --encoding utf-8"),
        (TABLE.encode(), "u\0", None, r"unknown encoding 'u\x00'"),
        (TABLE.encode(), "hex", None, "cannot be decoded as 'hex'"),
        (TABLE.encode(), "undefined", None, "cannot be decoded as 'undefined'"),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_line(
    content: bytes, encoding: str, line: int | None, text: str, refusal: Callable[..., UserError]
) -> None:
    error = refusal(content, encoding=encoding)
    assert (error.code, error.line) == (Code.FORMAT, line)
    assert text in error.message


def test_text_with_few_nuls_is_not_taken_for_utf_16() -> None:
    with pytest.raises(DataError, match="NUL byte"):
        decode(b"ds,y\n2020-01-01,1\n" + b"2020-01-02\0,2\n", encoding="utf-8", path=Path("a.csv"))


def test_lines_end_at_line_ends_only() -> None:
    assert split_lines("a\nb\r\nc\rd\x0b\x0c\u2028e\n\n") == ["a", "b", "c", "d\x0b\x0c\u2028e", ""]
    assert split_lines("a") == ["a"]
