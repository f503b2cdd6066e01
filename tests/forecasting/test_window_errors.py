"""Errors by window: their mean is the metric, and their file holds numbers only."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

from stanhop.errors import ModelError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.forecasting.window_errors import ROW, WINDOW_METRICS, WindowErrors
from stanhop.series.frame import Layout, Series, SeriesSet


@pytest.fixture
def series_set(make_series: Callable[..., Series]) -> SeriesSet:
    one, other = (make_series(rows, series_id=name) for name, rows in (("a", 211), ("b", 307)))
    return SeriesSet.of((one, other), Layout("long", "ds", "unique_id", one.channels))


def test_their_mean_is_the_metric(bundle: Bundle, series_set: SeriesSet) -> None:
    evaluation = evaluate(bundle, series_set, batch_size=17)
    rows = evaluation.windows.rows
    assert len(rows) == evaluation.num_windows
    for name in WINDOW_METRICS:
        assert rows[name].mean() == pytest.approx(evaluation.metrics[name], rel=1e-5)


def test_each_window_is_named_by_its_series_and_origin(bundle: Bundle, series_set: SeriesSet) -> None:
    rows = evaluate(bundle, series_set, batch_size=17).windows.rows
    for number, series in enumerate(series_set.series):
        origins = rows["origin"][rows["series"] == number]
        assert origins[-1] + bundle.config.model.prediction_length == len(series)
        assert np.array_equal(np.diff(origins), np.ones(len(origins) - 1))


def test_they_are_the_same_whatever_the_batch(bundle: Bundle, series_set: SeriesSet) -> None:
    one, other = (evaluate(bundle, series_set, batch_size=size).windows.rows for size in (1000, 7))
    assert np.array_equal(one["origin"], other["origin"])
    assert one["mse"] == pytest.approx(other["mse"], rel=1e-4)


def test_their_file_reads_back(bundle: Bundle, series_set: SeriesSet) -> None:
    windows = evaluate(bundle, series_set).windows
    content = windows.to_bytes()
    assert np.array_equal(WindowErrors.from_bytes(content, file="x").rows, windows.rows)
    assert len(content) < 200 + 40 * len(windows.rows)


def test_a_file_cut_short_is_refused() -> None:
    content = WindowErrors(np.zeros(5, ROW)).to_bytes()
    assert len(WindowErrors.from_bytes(content, file="x").rows) == 5
    for length in (9, 60, len(content) - 1):
        with pytest.raises(ModelError, match=r"errors\.npy: holds no errors by window"):
            WindowErrors.from_bytes(content[:length], file="errors.npy")


def test_another_version_is_named() -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(5, ROW), version=(2, 0))
    with pytest.raises(ModelError, match=r"version \(2, 0\)"):
        WindowErrors.from_bytes(file.getvalue(), file="errors.npy")


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros((2, 2), ROW), np.array(["a"], dtype=object)])
def test_other_numbers_are_refused(other: np.ndarray) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, other)
    with pytest.raises(ModelError) as caught:
        WindowErrors.from_bytes(file.getvalue(), file="errors.npy")
    assert caught.value.message.count("errors by window") == 1


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00" + bytes(4)]
)
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"errors\.npy: holds no errors by window"):
        WindowErrors.from_bytes(content, file="errors.npy")
