"""From the bytes of a file to text in a known encoding; every refusal knows its line."""

from __future__ import annotations

import codecs
from pathlib import Path

from stanhop.errors import Code, DataError, quoted

BYTE_ORDER_MARK = "\ufeff"
PARQUET_MAGIC = b"PAR1"
STORE_AS = "store the table as CSV or Parquet"
MAGIC = (
    (PARQUET_MAGIC, "a Parquet file", "give it the suffix .parquet"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip file", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR file", "unpack it first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save it as CSV (UTF-8)"),
    (b"%PDF", "a PDF file", STORE_AS),
    (b"\x89HDF", "an HDF5 file", STORE_AS),
    (b"ARROW1", "an Arrow (Feather) file", STORE_AS),
    (b"SQLite format 3\x00", "an SQLite file", STORE_AS),
    (b"\x89PNG", "a PNG image", STORE_AS),
)
"""First bytes of what is often given for a CSV file, what it is, and what to do."""
ZIP_MAGIC = b"PK\x03\x04"
UTF_8_MARK = codecs.BOM_UTF8
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark starts with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_LENGTH = 4_096
LEAST_SHARE_OF_NULS = 0.3
"""Share of every second byte that is NUL in ASCII text stored as UTF-16; real text has some characters more."""


def decode(raw: bytes, *, encoding: str, path: Path) -> str:
    """The text of ``raw``, without its byte-order mark.

    Raises:
        DataError: it is another kind of file or in another encoding, or holds a NUL.
    """
    _refuse_other_formats(raw, path)
    codec = _codec_name(encoding, path)
    if not codec.startswith(("utf-16", "utf-32")):
        _refuse_wide_characters(raw, path)
    if raw.startswith(UTF_8_MARK) and codec not in ("utf-8", "utf-8-sig"):
        problem = f"starts with the byte-order mark of UTF-8, but the encoding is {quoted(encoding)}"
        raise DataError(Code.FORMAT, problem, fix="add --encoding utf-8", file=path)
    text = _decoded(raw, "utf-8" if codec == "utf-8-sig" else codec, path)
    text = text.removeprefix(BYTE_ORDER_MARK)
    if text.startswith(BYTE_ORDER_MARK):
        fix = "remove the bytes EF BB BF" if codec.startswith("utf-8") else "remove one"
        raise DataError(Code.FORMAT, "starts with two byte-order marks", fix=fix, file=path, line=1)
    nul = text.find("\x00")
    if nul >= 0:
        line = _line_after(text[:nul])
        raise DataError(Code.FORMAT, "holds a NUL byte", fix="damaged? export it anew", file=path, line=line)
    return text


def split_lines(text: str) -> list[str]:
    r"""Lines of ``text``, ended by ``\n``, ``\r\n`` or ``\r`` and by nothing else; a last empty one is dropped.

    ``str.splitlines`` would also split at form feeds and the like, inside of fields.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _refuse_other_formats(raw: bytes, path: Path) -> None:
    for magic, what, fix in MAGIC:
        if raw.startswith(magic):
            raise DataError(Code.FORMAT, f"this is {what}, not CSV text", fix=fix, file=path)
    if raw.startswith(ZIP_MAGIC):
        is_workbook = b"xl/" in raw
        what = "an Excel workbook" if is_workbook else "a zip file"
        fix = "save it as CSV (UTF-8)" if is_workbook else "unpack it first"
        raise DataError(Code.FORMAT, f"this is {what}, not CSV text", fix=fix, file=path)
    if raw[:SAMPLE_LENGTH].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        fix = "download the file itself, not the page that shows it"
        raise DataError(Code.FORMAT, "this is an HTML page, not CSV text", fix=fix, file=path)


def _refuse_wide_characters(raw: bytes, path: Path) -> None:
    sample = raw[:SAMPLE_LENGTH]
    guess = next((encoding for mark, encoding in WIDE_MARKS if sample.startswith(mark)), None)
    if guess is None:
        half = len(sample) // 2
        for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            nuls, others = sample[offset::2].count(0), sample[1 - offset :: 2].count(0)
            if half and nuls > LEAST_SHARE_OF_NULS * half and not others:
                guess = encoding
    if guess is not None:
        name = guess[:6].upper()
        raise DataError(Code.FORMAT, f"looks like {name}", fix=f"add --encoding {guess}", file=path)


def _codec_name(encoding: str, path: Path) -> str:
    try:
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        fix = "use --encoding utf-8, utf-16, cp1252 or another name that Python knows"
        raise DataError(Code.FORMAT, f"unknown encoding {quoted(encoding)}", fix=fix, file=path) from None


def _decoded(raw: bytes, codec: str, path: Path) -> str:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as error:
        line = _line_after(raw[: error.start].decode(codec, errors="replace"))
        if error.end == len(raw) and error.reason in ("unexpected end of data", "truncated data"):
            problem, fix = "the file ends within a character", "truncated? export or copy it anew"
            fix += "" if codec == "utf-8" else ", or choose another --encoding"
        else:
            byte = raw[error.start]
            problem = f"byte 0x{byte:02x} is not {codec.upper()}"
            fix = "add --encoding cp1252 if it comes from Windows" if codec == "utf-8" else "choose another --encoding"
        raise DataError(Code.FORMAT, problem, fix=fix, file=path, line=line) from None
    except (UnicodeError, LookupError):  # a codec that is not of text, or that fails without a place
        fix = "add --encoding utf-8"
        raise DataError(Code.FORMAT, f"cannot be decoded as {quoted(codec)}", fix=fix, file=path) from None


def _line_after(text: str) -> int:
    """Physical line on which the character after ``text`` stands."""
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
