"""Tables that cannot be read as they are: cells, stamps, rows, bytes, paths, grids of times, lengths."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.reliability.kit import samples
from tests.reliability.kit.mistakes import Case, Prepare, cells, nothing, raw, text, with_cell

INSPECT = ("data", "inspect", "table.csv")
NO_NUMBERS = (
    *("abc", "5%", "$3", "€ 4", "1_000", "0x10", "0b1", "\u22123", "\u0661\u0662", "inf", "-inf", "+Infinity", "1e400"),
    *(
        "-1e400",
        "True",
        "false",
        "1'000",
        "--5",
        "+-3",
        "1e",
        "e5",
        ".",
        "-",
        "+",
        "1.2.3",
        "12:30",
        "\xa05",
        "5\u202f",
    ),
    *("1e31", "-9.9e30", "1/2", "#REF!", "#DIV/0!", "½", "²", "1d5", "(5)", "5-", "1e5.5", "~", "?", "nan%", "1..2"),
    *('"1,5"', '"1,234.5"', '"1.234,5"', "1 000", "0.5f", "0,", "yes", "NaN NaN", "\u0967", "\uff15", "\u200b7", "١٫٥"),
    *("1e+", "1E--3", "[3]", "=3", "'3", "3;", "3\x0b", "\x1f3", "null?", "infinite", "2021-03-01", "1j", "1L", "٪5"),
)


def numbers() -> Iterator[Case]:
    """Cells that are no numbers: the refusal names line and column."""
    for cell in NO_NUMBERS:
        column = None if cell == "0," else "wind"  # a field too many
        yield Case(f"number {cell!r}", with_cell(3, 2, cell), INSPECT, line=4, column=column)
    yield Case("decimal comma names its option", with_cell(3, 2, '"1,5"'), INSPECT, line=4, says=("--decimal ,",))
    yield Case("thousands name their option", with_cell(3, 2, '"1,234.5"'), INSPECT, line=4, says=("--thousands",))
    for cell in ("", "NA", "nan", "NULL", "n/a", "None", "#N/A"):
        yield Case(f"missing {cell!r}", with_cell(3, 1, cell), INSPECT, line=4, column="load", says=("--missing",))
    everything = cells(lambda table: [[*line[:2], "" if number else line[2]] for number, line in enumerate(table)])
    yield Case("a column without a value", everything, INSPECT, column="wind", says=("--target-columns",))
    for policy in ("ffill", "interpolate"):
        yield Case(
            f"first value missing, {policy}", with_cell(1, 1, ""), (*INSPECT, "--missing", policy), column="load"
        )
    yield Case(
        "last value missing, interpolate", with_cell(40, 1, ""), (*INSPECT, "--missing", "interpolate"), column="load"
    )
    large = with_cell(3, 2, "9007199254740993")
    yield Case("a rounded number", large, (*INSPECT, "--strict"), line=4, column="wind", says=("--strict",))
    below = with_cell(3, 2, "-0.5")
    yield Case("below zero", below, (*INSPECT, "--nonnegative"), line=4, column="wind", says=("--nonnegative",))
    yield Case("a hole is dropped", with_cell(9, 1, ""), (*INSPECT, "--missing", "drop"), says=("gap", "--missing"))


NO_STAMPS = (
    *("01/02/2021", "13/02/2021", "01.02.2021", "2021-02-30", "2021-02-29", "2021-13-01", "2021-00-10", "2021-03-32"),
    *("20210301", "1614556800", "1614556800000", "43831", "2021-W09-1", "2021-03-01 24:00", "2021-03-01 23:59:60"),
    *(
        "March 1",
        "Mon",
        "tomorrow",
        "now",
        "today",
        "0000-01-01",
        "10000-01-01",
        "-2021-03-01",
        "2021",
        "12",
        "2021-3-1",
    ),
    *("2021-03-01 5pm", "\u0662\u0660\u0662\u0661-03-01", "2021-03-01T00:00+25:00", "2021-03-01 00:00:00.0000001"),
    *("2021-03-01T", "2021/03/01", "2021-03-01 99:00", "2021-03-01 00:61", "", "NaT", "null", "2021-060", "0.5", "1e3"),
    *(
        "2021-03-01 02:00+01:00",
        "2021-03-01 02:00Z",
        "99999-01-01",
        "2021-03-01  02:00",
        "2021-03-01_02:00",
        "'2021-03-01",
    ),
)


def stamps() -> Iterator[Case]:
    """Cells that are no time stamps, or could be two."""
    for cell in NO_STAMPS:
        yield Case(f"stamp {cell!r}", with_cell(3, 0, cell), INSPECT, line=4, column="date")

    def all_as(form: Callable[[str], str]) -> Prepare:
        return cells(
            lambda table: [[form(line[0]) if number else "date", *line[1:]] for number, line in enumerate(table)]
        )

    month_first = all_as(lambda stamp: f"{stamp[5:7]}/{stamp[8:10]}/{stamp[:4]} {stamp[11:]}")
    yield Case("month or day first", month_first, INSPECT, line=2, column="date", says=("--date-format",))
    digits = all_as(lambda stamp: stamp[:10].replace("-", ""))
    yield Case("YYYYMMDD", digits, INSPECT, line=2, column="date", says=("--date-format", "%Y%m%d"))
    yield Case("a format that does not fit", cells(lambda _: None), (*INSPECT, "--date-format", "%d.%m.%Y"), line=2)
    yield Case("a format without a year", cells(lambda _: None), (*INSPECT, "--date-format", "%d.%m."), says=("year",))
    yield Case("a format of nobody", cells(lambda _: None), (*INSPECT, "--date-format", "%Q"), says=("--date-format",))
    yield Case(
        "an offset appears", with_cell(5, 0, "2021-03-01 04:00+01:00"), INSPECT, line=6, column="date", says=("UTC",)
    )
    again = cells(lambda table: [*table[:5], table[4], *table[5:]])
    yield Case("a time twice", again, INSPECT, line=6, column="date", says=("--duplicates",))


def zones() -> Iterator[Case]:
    """Local times that do not exist or could be two, and zones that there are not."""

    def hours(*stamps: str) -> Prepare:
        return text("date,load\n" + "".join(f"{stamp},{number}\n" for number, stamp in enumerate(stamps)))

    berlin = (*INSPECT, "--tz", "Europe/Berlin")
    autumn = [f"2020-10-25 {hour:02}:00" for hour in (0, 1, 2, 3, 4)]
    yield Case(
        "a repeated hour once", hours(*autumn), berlin, line=4, column="date", says=("2020-10-25 02:00", "offset")
    )
    twice = hours(*autumn[:3], autumn[2], *autumn[3:])
    yield Case("a repeated hour without a zone", twice, INSPECT, line=5, column="date", says=("--tz",))
    thrice = hours(*autumn[:3], autumn[2], autumn[2])
    yield Case("a repeated hour three times", thrice, berlin, line=4, column="date", says=("offset",))
    shuffled = hours(autumn[3], autumn[2], autumn[2], autumn[0], autumn[4])
    yield Case("a repeated hour in no order", shuffled, berlin, line=3, column="date", says=("sort",))
    spring = [f"2020-03-29 {hour:02}:00" for hour in (0, 1, 3, 4, 5)]
    yield Case("a skipped hour without a zone", hours(*spring), INSPECT, line=3, column="date", says=("--tz",))
    skipped = hours(*spring[:2], "2020-03-29 02:00", *spring[2:])
    yield Case("a skipped hour", skipped, berlin, line=4, column="date", says=("does not exist in Europe/Berlin",))
    offsets = hours("2020-10-25 02:00+02:00", "2020-10-25 02:00+01:00", "2020-10-25 03:00+01:00")
    yield Case("two offsets", offsets, INSPECT, line=3, column="date", says=("--tz",))
    some = hours("2020-10-25 02:00+02:00", "2020-10-25 02:00")
    yield Case("an offset for some", some, berlin, line=3, column="date", says=("no offset",))
    yield Case("a zone misspelt", hours(*autumn), (*INSPECT, "--tz", "Europe/Berln"), says=("Europe/Berlin",))
    for zone in ("CEST", "../../etc/passwd", "/etc/localtime"):
        yield Case(f"zone {zone}", hours(*autumn), (*INSPECT, "--tz", zone), says=("--tz",))


def structure() -> Iterator[Case]:
    """Rows, quotes, separators and names."""

    def row(change: Callable[[list[str]], list[str]], number: int = 3) -> Prepare:
        return cells(lambda table: [change(line) if place == number else line for place, line in enumerate(table)])

    yield Case("an extra field", row(lambda line: [*line, "7"]), INSPECT, line=4, says=("4 fields", "header has 3"))
    yield Case("a field is missing", row(lambda line: line[:2]), INSPECT, line=4, says=("2 fields",))
    yield Case("one field only", row(lambda line: line[:1]), INSPECT, line=4)
    yield Case("only separators", row(lambda line: ["", "", "", ""]), INSPECT, line=4)
    trailing = cells(lambda table: [[*line, ""] if place else line for place, line in enumerate(table)])
    yield Case("a comma ends every row", trailing, INSPECT, line=2, says=("separator",))
    commas = cells(
        lambda table: [
            [line[0], *f"{line[1]}".split("."), line[2]] if place else line for place, line in enumerate(table)
        ]
    )
    yield Case("decimal commas without quotes", commas, INSPECT, line=2, says=("--decimal ,",))
    yield Case("a quote opens", row(lambda line: [line[0], f'"{line[1]}', line[2]]), INSPECT, line=4, says=("quote",))
    yield Case("text after a quote", row(lambda line: [line[0], '"3"x', line[2]]), INSPECT, line=4, says=("quote",))
    two = cells(
        lambda table: [
            [line[0], f'"{line[1]}' if place in (3, 6) else line[1], line[2]] for place, line in enumerate(table)
        ]
    )
    yield Case("two stray quotes swallow rows", two, INSPECT, line=4, says=("quote",))
    for mark, option in ((";", "';'"), ("\t", "\\t"), ("|", "|")):
        lines = "\n".join(mark.join(line) for line in samples.rows()) + "\n"
        yield Case(f"separator {mark!r}", text(lines), INSPECT, line=1, says=("found 1 column", option))
    yield Case("a wrong --sep", cells(lambda _: None), (*INSPECT, "--sep", ";"), line=1, says=("--sep ,",))
    yield Case("header only", cells(lambda table: table[:1]), INSPECT, line=1, says=("no data rows",))
    yield Case("no header", cells(lambda table: table[1:]), INSPECT, line=None, says=("--no-header",))
    yield Case("one column", cells(lambda table: [line[:1] for line in table]), INSPECT, line=1)
    yield Case("only times and ids", text("unique_id,date\na,2021-01-01\na,2021-01-02\n"), INSPECT, says=("value",))
    twice = cells(lambda table: [["date", "load", "load"], *table[1:]])
    yield Case("a name twice", twice, INSPECT, line=1, column="load")
    yield Case(
        "two time columns", cells(lambda table: [["date", "ds", "wind"], *table[1:]]), INSPECT, says=("--time-column",)
    )
    yield Case(
        "no time column", cells(lambda table: [["a", "b", "c"], *[["1", *line[1:]] for line in table[1:]]]), INSPECT
    )
    yield Case("a nameless time column", cells(lambda table: [["", "b", "c"], *table[1:]]), INSPECT, says=("name",))
    yield Case(
        "ids are empty", text("unique_id,ds,y\na,2021-01-01,1\n,2021-01-02,2\na,2021-01-03,3\n"), INSPECT, line=3
    )
    yield Case(
        "a wrong --time-column",
        cells(lambda _: None),
        (*INSPECT, "--time-column", "dat"),
        says=("did you mean", "date"),
    )
    yield Case("a wrong --id-column", cells(lambda _: None), (*INSPECT, "--id-column", "shop"), says=("shop", "load"))
    yield Case("a wrong target", cells(lambda _: None), (*INSPECT, "--target-columns", "winds"), says=("did you mean",))
    yield Case("a target twice", cells(lambda _: None), (*INSPECT, "--target-columns", "wind,wind"), column="wind")
    yield Case("the time as target", cells(lambda _: None), (*INSPECT, "--target-columns", "date"), column="date")
    yield Case(
        "ids are the times",
        cells(lambda _: None),
        (*INSPECT, "--id-column", "date", "--time-column", "date"),
        column="date",
    )
    yield Case(
        "the last row is cut",
        text("date,load\n2021-01-01,1\n2021-01-02,2\n2021-01-0"),
        INSPECT,
        line=4,
        says=("truncated",),
    )
    yield Case("a long line", text("date,load\n2021-01-01," + "1" * 1_000_001 + "\n"), INSPECT, line=2)
    yield Case("many columns", text(",".join(f"c{n}" for n in range(10_001)) + "\n1\n"), INSPECT, line=1)
    yield Case(
        "a mark in a name", raw("date,\ufeffload\n2021-01-01,1\n".encode()), INSPECT, line=1, says=("byte-order",)
    )


def bytes_of_files() -> Iterator[Case]:
    """Other formats and encodings than the name promises."""
    plain = "".join(f"{','.join(line)}\n" for line in samples.rows())
    yield Case("empty", raw(b""), INSPECT, says=("empty",))
    yield Case("blank lines", raw(b"\n \n\r\n"), INSPECT, says=("blank",))
    yield Case("spaces", raw(b"    "), INSPECT)
    for encoding in ("utf-16-le", "utf-16-be", "utf-16", "utf-32"):
        yield Case(f"encoded as {encoding}", raw(plain.encode(encoding)), INSPECT, says=("--encoding utf-",))
    yield Case(
        "a double mark", raw(b"\xef\xbb\xbf\xef\xbb\xbf" + plain.encode()), INSPECT, line=1, says=("byte-order",)
    )
    latin = plain.replace("load", "Größe").encode("latin-1")
    yield Case("Latin-1", raw(latin), INSPECT, line=1, says=("--encoding cp1252",))
    yield Case("a cut character", raw(plain.encode() + b"2021-03-09,1,2\xc3"), INSPECT, line=42, says=("truncated",))
    yield Case("a NUL", raw(plain.replace("21.", "2\x001.", 1).encode()), INSPECT, says=("NUL",))
    yield Case("a stray byte", raw(plain.encode()[:200] + b"\xff" + plain.encode()[200:]), INSPECT, says=("0xff",))
    yield Case("an encoding of nobody", text(plain), (*INSPECT, "--encoding", "utf-99"), says=("utf-99", "--encoding"))
    yield Case("a codec that is no text", text(plain), (*INSPECT, "--encoding", "hex"), says=("--encoding",))
    yield Case("read as UTF-16", text(plain + "x"), (*INSPECT, "--encoding", "utf-16"), says=("--encoding",))
    yield Case("gzip", raw(gzip.compress(plain.encode())), INSPECT, says=("gzip", "unpack"))
    yield Case("xz", raw(lzma.compress(plain.encode())), INSPECT, says=("xz",))
    yield Case("zip", raw(_zipped({"a.csv": plain})), INSPECT, says=("zip",))
    yield Case("workbook", raw(_zipped({"xl/workbook.xml": ""})), INSPECT, says=("Excel",))
    for magic, what in (
        (b"%PDF-1.7", "PDF"),
        (b"PAR1", "Parquet"),
        (b"\x89HDF", "HDF5"),
        (b"ARROW1", "Arrow"),
        (b"BZh9", "bzip2"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"\x89PNG\r\n", "PNG"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
        (b"<!DOCTYPE html>", "HTML"),
    ):
        yield Case(f"a file of {what}", raw(magic + b"\x01\x02\x03"), INSPECT, says=(what,))
    for suffix in ("parquet", "pq"):
        name = f"table.{suffix}"
        yield Case(f"text as {suffix}", text(plain, name), ("data", "inspect", name), names=name, says=("Parquet",))
        cut = raw(b"PAR1" + b"\x00" * 20 + b"PAR1", name)
        yield Case(f"a cut {suffix}", cut, ("data", "inspect", name), names=name, says=("Parquet",))


def _zipped(files: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return sink.getvalue()


def files() -> Iterator[Case]:
    """Paths that are no files of tables."""

    def folder_there(folder: Path, model: Path) -> None:
        (folder / "table.csv").mkdir()

    def dangling(folder: Path, model: Path) -> None:
        (folder / "table.csv").symlink_to("nowhere")

    def pipe(folder: Path, model: Path) -> None:
        os.mkfifo(folder / "table.csv")

    def device(folder: Path, model: Path) -> None:
        (folder / "table.csv").symlink_to("/dev/zero")

    yield Case("no such file", nothing, INSPECT, says=("no such file",))
    yield Case("a folder", folder_there, INSPECT, says=("folder",))
    yield Case("a link to nothing", dangling, INSPECT, says=("link",))
    yield Case("a pipe", pipe, INSPECT, says=("regular",))
    yield Case("a device", device, INSPECT, says=("regular",))
    for name in ("ETTh9", "etth1", "sales"):
        yield Case(f"no such data set {name}", nothing, ("train", "--data", name), names=name)
    for name in ("no.csv", "no.parquet", "./no"):
        yield Case(f"train on {name}", nothing, ("train", "--data", name), names=name.removeprefix("./"))


def grids() -> Iterator[Case]:
    """Times that keep no step."""
    yield Case(
        "a gap", cells(lambda table: [*table[:9], *table[10:]]), INSPECT, line=9, column="date", says=("--fill-gaps",)
    )
    yield Case("off the grid", with_cell(7, 0, "2021-03-01 06:30:00"), INSPECT, line=8, column="date")
    yield Case(
        "a far typo",
        with_cell(40, 0, "2201-03-01 00:00:00"),
        (*INSPECT, "--fill-gaps", "--missing", "ffill"),
        says=("looks wrong",),
    )
    yield Case("two rows", cells(lambda table: table[:3]), INSPECT, column="date", says=("--freq",))
    yield Case("one row", cells(lambda table: table[:2]), INSPECT, column="date", says=("--freq",))
    for alias in ("hourly", "5", "", "-1h", "0h", "h h", "1.5x", "FORTNIGHT", "ns"):
        yield Case(f"frequency {alias!r}", cells(lambda _: None), (*INSPECT, f"--freq={alias}"), says=("--freq",))
    for alias in ("D", "15min", "MS", "B", "2h"):
        yield Case(f"not of frequency {alias}", cells(lambda _: None), (*INSPECT, "--freq", alias), column="date")
    mixed = "unique_id,ds,y\n" + "".join(
        f"{name},2021-01-{1 + step * (1 + (name == 'b')):02},{step}\n" for name in "ab" for step in range(6)
    )
    yield Case("series of two frequencies", text(mixed), INSPECT, says=("frequency", "b"))


def lengths() -> Iterator[Case]:
    """Series too short for what is asked of them."""
    small = ("--set", "model.patch_length=4", "--no-tracking", "--device", "cpu")
    for num_rows in (3, 10, 20):
        command = ("train", "--data", "table.csv", "--context-length", "24", "--prediction-length", "6", *small)
        yield Case(f"{num_rows} rows to train on", cells(lambda table, n=num_rows: table[: n + 1]), command, names="")  # type: ignore[misc]

    def short(folder: Path, model: Path) -> None:
        samples.write_csv(folder / "table.csv", samples.rows(samples.CONTEXT - 1))
        shutil.copytree(model, folder / "model")

    yield Case(
        "a history too short",
        short,
        ("forecast", "--model", "model", "--input", "table.csv", "--output", "out"),
        says=("24 points", "23"),
    )


GROUPS = (numbers, stamps, zones, structure, bytes_of_files, files, grids, lengths)
