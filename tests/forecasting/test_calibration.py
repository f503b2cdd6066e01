"""Calibration: offsets from the validation rows, by the plain definition, and from no other rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stanhop.forecasting import calibration
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.series.frame import Layout, Series, SeriesSet

CONTEXT, STEPS, ROWS = 37, 11, 211
VALIDATION, TEST = range(105, 159), range(159, ROWS)
LAYOUT = Layout("wide", "ds", None, ("flow", "level", "rain"))


def set_of(series: Series) -> SeriesSet:
    return SeriesSet.of([series], LAYOUT)


def changed(series: Series, rows: range) -> SeriesSet:
    values = series.values.copy()
    values[rows.start : rows.stop] += 1000.0
    return set_of(Series(series.id, series.times, values, series.channels))


def test_offsets_are_order_statistics_of_scaled_errors(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(ROWS)
    found = calibrate(bundle, set_of(series), levels=(80.0,), batch_size=7)
    scaled = bundle.scalers[""].transform(series.values)
    forecaster = Forecaster(bundle)
    origins = range(VALIDATION.start, VALIDATION.stop - STEPS + 1)
    contexts = np.stack([scaled[origin - CONTEXT : origin] for origin in origins])
    errors = np.stack([scaled[origin : origin + STEPS] for origin in origins]) - forecaster.predict(contexts)
    deviations = contexts.std(axis=1)
    scores = errors / (deviations + 0.5 * deviations.mean(axis=0))[:, None]
    ascending = np.sort(scores, axis=0)  # 44 windows: ranks floor(4.5) and ceil(40.5)
    assert found.num_windows == len(origins) == 44
    np.testing.assert_allclose(found.lower[0], ascending[3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.upper[0], ascending[40], rtol=1e-5, atol=1e-6)


def test_no_row_of_the_test_split_is_looked_at(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(ROWS)
    first, second, third = (
        calibrate(bundle, changed(series, rows), levels=(80.0, 95.0)) for rows in (range(0), TEST, VALIDATION)
    )
    np.testing.assert_array_equal(first.lower, second.lower)
    np.testing.assert_array_equal(first.upper, second.upper)
    assert not np.array_equal(first.upper, third.upper)


def test_where_there_are_more_windows_than_memory_holds_every_nth_counts(
    bundle: Bundle, make_series: Callable[..., Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST_NUMBERS", 44 * 3 * (CONTEXT + 2 * STEPS) // 4)
    assert calibrate(bundle, set_of(make_series(ROWS)), levels=(80.0,)).num_windows == 11
