"""R2: a damaged table is refused with a place, or read exactly as an independent slow reader reads it."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stanhop.config import DataConfig
from stanhop.errors import DataError
from stanhop.series.load import read_series_file
from tests.reliability.kit import oracle, samples
from tests.reliability.kit.mutations import mutated
from tests.reliability.kit.sizes import sizes

NUM_ROWS = 9
POLICIES = (DataConfig(), DataConfig(frequency="h"), DataConfig(header=False), DataConfig(time_column="date"))


def sound_table(seed: int) -> bytes:
    moment = random.Random(seed)
    table = samples.rows(NUM_ROWS, seed=seed)
    if moment.random() < 0.3:
        table = [[line[0].replace(" ", "T") if number else line[0], *line[1:]] for number, line in enumerate(table)]
    if moment.random() < 0.3:
        table = [[line[0], *(f'"{cell}"' for cell in line[1:])] for line in table]
    end = moment.choice(("\n", "\n", "\r\n"))
    return "".join(f"{','.join(line)}{end}" for line in table).encode()


def judge(path: Path, content: bytes, data: DataConfig) -> str:
    """``refused`` or ``read``; raises where the product does anything else, or reads what is not there."""
    path.write_bytes(content)
    error = None
    try:
        found = read_series_file(path, data)
    except DataError as caught:
        error = caught
    if error is not None:
        assert error.file == str(path), content
        assert error.fix, (error.message, content)
        return "refused"
    assert len(found.series) == 1 or found.layout.id_column is not None
    if found.layout.id_column is not None or not data.header:
        return "read"
    layout, one = found.layout, found.series[0]
    expected = oracle.values_of(content, time=layout.time_column, targets=layout.target_columns)
    assert one.times.asi8.tolist() == sorted(expected), content
    table = np.array([expected[time] for time in sorted(expected)])
    assert one.values.tobytes() == table.tobytes(), content
    unread = {name.strip() for name in oracle.cells_of(content)[0]} - {layout.time_column, *layout.target_columns}
    assert all(not name or name.startswith("Unnamed") for name in unread), content
    return "read"


@pytest.mark.parametrize("count", sizes(default=3_000, full=100_000, soak=1_000_000))
def test_damaged_bytes_are_refused_or_read_as_the_oracle_reads_them(
    count: int, fast_folder: Path, record: Callable[..., None]
) -> None:
    moment, path = random.Random(count), fast_folder / "table.csv"
    tables = [sound_table(seed) for seed in range(50)]
    outcomes = {"refused": 0, "read": 0}
    for _ in range(count):
        outcomes[judge(path, mutated(moment.choice(tables), moment), moment.choice(POLICIES))] += 1
    assert min(outcomes.values()) > count // 50, "the damage is too small, or too large"
    record(
        "R2",
        "damaged bytes",
        f"{count:,} damaged tables: {outcomes['refused']:,} refused with file and fix, {outcomes['read']:,} read,"
        " 0 otherwise than the independent reader, 0 other errors",
    )


@pytest.mark.parametrize("count", sizes(default=100, full=3_000, soak=100_000))
def test_every_way_to_write_a_table_down_is_read_to_the_same_numbers(
    count: int, fast_folder: Path, record: Callable[..., None]
) -> None:
    for seed in range(count):
        moment = random.Random(seed)
        steps, channels = moment.randrange(3, 12), moment.randrange(1, 4)
        numbers = [[random_number(moment) for _ in range(channels)] for _ in range(steps)]
        content, data = written(numbers, moment)
        path = fast_folder / "table.csv"
        path.write_bytes(content)
        (one,) = read_series_file(path, data).series
        assert one.values.tolist() == numbers, content
    record("R2", "ways to write", f"{count:,} tables in random notations, encodings and orders: every number exact")


def random_number(moment: random.Random) -> float:
    """Of either sign and of any magnitude that is allowed."""
    return moment.choice((1, -1)) * moment.random() * 10.0 ** moment.randrange(-29, 29)


def written(numbers: list[list[float]], moment: random.Random) -> tuple[bytes, DataConfig]:
    """A table of ``numbers``, and how it must be read."""
    decimal = moment.choice(".,")
    separator = moment.choice(list(",;\t|"))
    encoding = moment.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252"))
    stamps = np.datetime64("2021-03-01T00:00") + np.arange(len(numbers)) * np.timedelta64(1, "h")
    rows = [
        [str(stamp), *(repr(number).replace(".", decimal) for number in line)]
        for stamp, line in zip(stamps, numbers, strict=True)
    ]
    if moment.random() < 0.5:
        moment.shuffle(rows)
    sink = io.StringIO(newline="")
    quoting = moment.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    writer = csv.writer(sink, delimiter=separator, lineterminator=moment.choice(("\n", "\r\n", "\r")), quoting=quoting)
    writer.writerow(["date", *(f"Größe {number}" for number in range(len(numbers[0])))])
    writer.writerows(rows)
    data = DataConfig(decimal=decimal, separator=separator, encoding=encoding.removesuffix("-sig"), frequency="h")  # type: ignore[arg-type]  # one of the choices
    return sink.getvalue().encode(encoding), data
