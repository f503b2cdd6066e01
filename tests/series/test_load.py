"""Claims about the way in: names and paths, a second reader that must agree, damage, and speed."""

from __future__ import annotations

import contextlib
import csv
import io
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, UserError
from stanhop.series import catalog, load
from stanhop.series.frame import SeriesSet
from stanhop.series.load import is_path, load_series, read_series_file

HOURLY = "date,y\n01/02/2020 00:00,1\n01/02/2020 01:00,2\n01/02/2020 02:00,3\n"


# Names and paths


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ETTh1", False),
        ("synthetic", False),
        ("nowhere", False),
        ("a.csv", True),
        ("A.CSV", True),
        ("a.parquet", True),
        ("folder/nowhere", True),
        ("./ETTh1", True),
    ],
)
def test_a_path_has_a_separator_or_a_suffix(source: str, expected: bool) -> None:
    assert is_path(source) is expected


def test_what_exists_is_a_path_unless_it_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sales", "ETTh1"):
        Path(name).write_text("x", encoding="utf-8")
    assert is_path("sales")
    assert not is_path("ETTh1")


def test_the_built_in_set_is_there_without_a_file() -> None:
    series_set = load_series(DataConfig())
    assert series_set.frequency == "h"
    names = series_set.channels[3], series_set.channels[0]
    chosen = load_series(DataConfig(target_columns=names))
    assert chosen.channels == chosen.layout.target_columns == names
    assert np.array_equal(chosen.series[0].values, series_set.series[0].values[:, [3, 0]])


@pytest.mark.parametrize(("names", "text"), [(("OT",), "column 'OT' not found"), (("price", "price"), "named twice")])
def test_channels_that_the_built_in_set_lacks_are_refused(names: tuple[str, ...], text: str) -> None:
    with pytest.raises(DataError, match=f"{text} in the data set synthetic; choose --target-columns from"):
        load_series(DataConfig(target_columns=names))


def test_a_path_is_read_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,y\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n", encoding="utf-8")
    series_set = load_series(DataConfig(source=str(path)))
    assert series_set.fingerprint == read_series_file(path, DataConfig(source="ETTh1")).fingerprint


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match="no data set is called 'ETTh11'; did you mean ETTh1") as caught:
        load_series(DataConfig(source="ETTh11"))
    assert caught.value.code == Code.DATASET


def test_a_missing_file_is_no_unknown_name() -> None:
    with pytest.raises(DataError, match="no such file; check the path") as caught:
        load_series(DataConfig(source="nowhere/ETTh1.csv"))
    assert caught.value.code == Code.FILE


def test_a_named_set_is_fetched_and_read_as_the_catalogue_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.csv"
    path.write_text(HOURLY, encoding="utf-8")
    data_set = catalog.find("ETTh1").model_copy(update={"read": {"date_format": "%m/%d/%Y %H:%M"}})
    monkeypatch.setattr(catalog, "find", {"toy": data_set}.__getitem__)
    monkeypatch.setattr(catalog, "fetch", lambda _: path)
    assert str(load_series(DataConfig(source="toy")).series[0].times[0]) == "2020-01-02 00:00:00"
    own = load_series(DataConfig(source="toy", date_format="%d/%m/%Y %H:%M"))
    assert str(own.series[0].times[0]) == "2020-02-01 00:00:00"


def test_a_set_that_cannot_be_fetched_is_the_catalogues_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: catalog.DataSet) -> Path:
        raise MachineError(Code.DOWNLOAD, "no network")

    monkeypatch.setattr(catalog, "fetch", refuse)
    with pytest.raises(MachineError, match="no network"):
        load_series(DataConfig(source="ETTh1"))


def test_every_suffix_of_parquet_is_a_path() -> None:
    assert all(is_path(f"a{suffix}") for suffix in load.FILE_SUFFIXES)


# A second, slow reader


def oracle(content: bytes, series_set: SeriesSet) -> dict[tuple[str, datetime], list[float]]:
    """Values by id and time, read by other means; it knows the layout, and takes no policy and no format."""
    text = content.decode("utf-8-sig")
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    names = [name.strip() for name in header]
    layout = series_set.layout
    found = {}
    for row in rows:
        assert len(row) == len(names)
        cells = dict(zip(names, row, strict=True))
        stamp = datetime.fromisoformat(with_day(cells[layout.time_column].strip(" \t")))
        one = "" if layout.id_column is None else cells[layout.id_column]
        key = (one, stamp)
        assert key not in found
        found[key] = [strict_float(cells[name]) for name in layout.target_columns]
    return found


def with_day(stamp: str) -> str:
    return f"{stamp}-01" if len(stamp) == len("2020-01") else stamp


def strict_float(cell: str) -> float:
    assert set(cell) <= set("0123456789+-.eE \t"), cell
    return float(cell)


def as_found(series_set: SeriesSet) -> Iterator[tuple[tuple[str, datetime], list[float]]]:
    for one in series_set.series:
        assert one.times.freq is not None
        for stamp, row in zip(one.times.to_pydatetime().tolist(), one.values.tolist(), strict=True):
            yield (one.id, stamp), row


def check_against_oracle(content: bytes, read: Callable[..., SeriesSet]) -> bool:
    """Whether ``content`` was accepted; if so, every cell is what the other reader found, and none is lost."""
    try:
        series_set = read(content)
    except UserError as error:
        refused = error
    else:
        return check_values(content, series_set)
    assert refused.exit_code == 2
    assert refused.file is not None
    assert refused.fix
    assert "\n" not in refused.message
    return False


def check_values(content: bytes, series_set: SeriesSet) -> bool:
    found, expected = dict(as_found(series_set)), oracle(content, series_set)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in found)
    return True


WIDE = b"\n".join(
    [b"date,HUFL,OT", *(f"2020-02-28 {hour:02}:00:00,{hour / 7},{-hour}e-3".encode() for hour in range(9)), b""]
)
LONG = b"\n".join(
    [
        b'unique_id,"ds",y',
        *(f'{one},2020-02-{day},"{day}.5"'.encode() for one in ("A", "007", "NA") for day in range(26, 30)),
        b"",
    ]
)
ODD_BYTES = b"\0\r\n\t \"',;.-+eE_:TZ0123456789\xff\xfe\xef\xbb\xbf\xc3\xa9"


def mutated(content: bytes, source: random.Random) -> bytes:
    """``content`` after one to three small accidents."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        place = source.randrange(len(changed))
        match source.randrange(6):
            case 0:
                changed[place] ^= 1 << source.randrange(8)
            case 1:
                changed[place] = source.choice(ODD_BYTES)
            case 2:
                changed.insert(place, source.choice(ODD_BYTES))
            case 3:
                del changed[place]
            case 4:
                del changed[place : place + source.randrange(40)]
            case _:
                changed[place:place] = changed[place : place + source.randrange(40)]
        if not changed:
            return b""
    return bytes(changed)


def check_mutations(count: int, read: Callable[..., SeriesSet], seed: int) -> None:
    source = random.Random(seed)
    accepted = sum(check_against_oracle(mutated((WIDE, LONG)[turn % 2], source), read) for turn in range(count))
    assert 0.05 * count < accepted < 0.95 * count  # both outcomes are tried


def test_damaged_tables_are_refused_or_read_as_another_reader_does(read: Callable[..., SeriesSet]) -> None:
    assert check_against_oracle(WIDE, read)
    assert check_against_oracle(LONG, read)
    check_mutations(3_000, read, seed=5)


@pytest.mark.slow
def test_very_many_damaged_tables_are_refused_or_read_as_another_reader_does(read: Callable[..., SeriesSet]) -> None:
    check_mutations(50_000, read, seed=6)


def test_damaged_parquet_is_refused_or_read(read: Callable[..., SeriesSet]) -> None:
    days = pd.date_range("2020-02-26", periods=5, freq="D")
    table = pa.table({"unique_id": ["A"] * 5 + ["B"] * 5, "ds": [*days, *days], "y": np.arange(10.0)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    source = random.Random(7)
    for _ in range(300):
        changed = bytearray(sink.getvalue())
        changed[source.randrange(len(changed))] = source.randrange(256)
        with contextlib.suppress(UserError):
            found = read(bytes(changed), name="a.parquet")
            assert all(np.isfinite(series.values).all() for series in found.series)


CELLS = st.one_of(
    st.floats(-1e30, 1e30).map(repr),
    st.sampled_from(["", "NA", "1,5", "inf", "1_0", "x", '"1"', "2020-01-01", " 3 ", "1e400", "\u0661"]),
    st.integers(-9, 9).map(str),
)
NAMES = st.sampled_from(["date", "ds", "y", "x", "unique_id", "", "Unnamed: 0", " y ", "time", "1", "\ufeffx"])
STEPS = st.sampled_from(["h", "D", "MS", "W-SUN", "15min", "B"])


@settings(max_examples=300)
@given(
    names=st.lists(NAMES, min_size=1, max_size=4),
    alias=STEPS,
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=6),
    separator=st.sampled_from([",", ",", ";"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_made_up_tables_are_refused_or_read_as_another_reader_does(
    names: list[str],
    alias: str,
    rows: list[list[str]],
    separator: str,
    end: str,
    read: Callable[..., SeriesSet],
) -> None:
    stamps = pd.date_range("2020-01-01", periods=len(rows), freq=alias)
    lines = [["date", *names], *([str(stamp), *row] for stamp, row in zip(stamps, rows, strict=True))]
    check_against_oracle("".join(separator.join(line) + end for line in lines).encode(), read)


@given(
    values=st.lists(st.tuples(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30)), min_size=3, max_size=9),
    alias=STEPS,
    start=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
)
def test_sound_tables_are_read_whole_and_exactly(
    values: list[tuple[float, float]], alias: str, start: datetime, read: Callable[..., SeriesSet]
) -> None:
    times = pd.date_range(start, periods=len(values), freq=alias, unit="us")
    rows = [f"{stamp.isoformat()},{a!r},{b!r}" for stamp, (a, b) in zip(times, values, strict=True)]
    content = "\n".join(["date,a,b", *rows, ""]).encode()
    assert check_against_oracle(content, read)
    assert read(content).series[0].values.tolist() == [list(row) for row in values]


# Speed


def shortest(call: Callable[[], object], tries: int) -> float:
    """Seconds of processor time of the fastest of some calls: the others suffered from other work on the machine."""
    durations = []
    for _ in range(tries):
        start = time.process_time()
        call()
        durations.append(time.process_time() - start)
    return min(durations)


@pytest.mark.parametrize(("num_rows", "limit_s"), [(1_000, 0.04), (17_420, 0.5)])
def test_tables_are_read_quickly(num_rows: int, limit_s: float, tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((num_rows, 7))
    times = pd.date_range("2016-07-01", periods=num_rows, freq="h")
    rows = [f"{stamp},{','.join(map(repr, row))}" for stamp, row in zip(times, values.tolist(), strict=True)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["date,a,b,c,d,e,f,g", *rows, ""]), encoding="utf-8")
    assert shortest(lambda: read_series_file(path, DataConfig()), tries=5) < limit_s
