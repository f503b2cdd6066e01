"""Claims about series, sets of them, and their fingerprint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from stanhop.series.frame import Layout, Series, SeriesSet, fingerprint_of

LAYOUT = Layout(kind="long", time_column="ds", id_column="unique_id", target_columns=("x", "y"))


def series(**changes: object) -> Series:
    times = pd.date_range("2020-01-01", periods=5, freq="h", unit="us")
    values = np.arange(10.0).reshape(5, 2)
    parts = {"id": "A", "times": times, "values": values, "channels": ("x", "y")} | changes
    return Series(**parts)  # type: ignore[arg-type]  # one of the parts may be wrong on purpose


def test_a_series_knows_its_length_and_frequency() -> None:
    assert len(series()) == 5
    assert series().frequency == "h"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"values": np.zeros((4, 2))}, "do not fit 5 times"),
        ({"values": np.zeros((5, 3))}, "and 2 channels"),
        ({"values": np.zeros((5, 2), dtype=np.float32)}, "float32"),
        ({"values": np.full((5, 2), np.nan)}, "must be finite"),
        ({"times": pd.DatetimeIndex(series().times, freq=None)}, "need a freq"),
        ({"times": series().times.as_unit("ns")}, "microseconds"),
    ],
)
def test_parts_that_do_not_fit_make_no_series(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        series(**changes)


def test_a_set_has_the_channels_and_frequency_of_its_series() -> None:
    one = SeriesSet.of([series(), series(id="B")], LAYOUT, ["a note"])
    assert (one.channels, one.num_channels, one.frequency, one.notes) == (("x", "y"), 2, "h", ("a note",))


def test_series_of_different_channels_or_frequencies_make_no_set() -> None:
    other = series(times=pd.date_range("2020-01-01", periods=5, freq="D", unit="us"))
    for odd in (series(channels=("x", "z")), other):
        with pytest.raises(ValueError, match="same channels and frequency"):
            SeriesSet.of([series(), odd], LAYOUT)
    with pytest.raises(ValueError, match="at least one"):
        SeriesSet.of([], LAYOUT)


def test_the_fingerprint_changes_with_every_part_of_the_content() -> None:
    values = series().values.copy()
    values[-1, -1] = np.nextafter(values[-1, -1], np.inf)
    variants = [
        series(),
        series(id="B"),
        series(channels=("x", "z")),
        series(channels=("y", "x")),
        series(id="Ax", channels=("", "y")),
        series(values=values),
        series(times=pd.date_range("2020-01-02", periods=5, freq="h", unit="us")),
        series(times=pd.date_range("2020-01-01", periods=5, freq="h", unit="us", tz="UTC")),
    ]
    prints = {fingerprint_of([one]) for one in variants}
    assert len(prints) == len(variants)
    assert fingerprint_of([series(), series(id="B")]) not in prints


def test_the_fingerprint_does_not_depend_on_layout_or_memory_order() -> None:
    fortran = series(values=np.asfortranarray(series().values))
    other = dataclasses.replace(LAYOUT, time_column="date")
    assert SeriesSet.of([fortran], other).fingerprint == SeriesSet.of([series()], LAYOUT).fingerprint
