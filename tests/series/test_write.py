"""A written CSV file: the same series for the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stanhop.config import DataConfig
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.load import read_series_file
from stanhop.series.synthetic import generate
from stanhop.series.write import csv_bytes


def long_set(zone: str | None = None) -> SeriesSet:
    random = np.random.default_rng(3)
    series = [
        Series(
            id=name,
            times=pd.date_range("2021-01-01", periods=steps, freq="h", unit="us", tz=zone),
            values=random.standard_normal((steps, 2)) * 1e-7,
            channels=("a", "b, c"),
        )
        for name, steps in (("007", 11), ("é", 13))
    ]
    return SeriesSet.of(series, Layout("long", "ds", "unique_id", ("a", "b, c")))


@pytest.mark.parametrize(
    "series_set", [generate(num_steps=53), long_set(), long_set("UTC")], ids=["wide", "long", "utc"]
)
def test_what_is_written_reads_back_the_same(series_set: SeriesSet, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes(series_set))
    again = read_series_file(path, DataConfig())
    assert again.layout == series_set.layout
    assert again.fingerprint == series_set.fingerprint


def test_first_and_last_count_the_rows_of_each_series() -> None:
    lines = csv_bytes(long_set(), first=7, last=3).decode().splitlines()
    assert len(lines) == 1 + 2 * 3
    assert [line.split(",")[1] for line in lines[1:4]] == [f"2021-01-01 0{hour}:00:00" for hour in (4, 5, 6)]
