"""Calibration: offsets from the validation and training rows, by the plain definition, and from no other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stanhop.config import SplitConfig
from stanhop.forecasting import calibration
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calibration import KnownErrors, calibrate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import Prediction
from stanhop.forecasting.rolling import Rolled, roll
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
    series.values[VALIDATION.start : VALIDATION.stop] *= 1.5
    found = calibrate(bundle, set_of(series), levels=(80.0,), batch_size=7)
    scaled = bundle.scalers[""].transform(series.values)
    forecaster = Forecaster(bundle)
    unseen = range(VALIDATION.start, VALIDATION.stop - STEPS + 1)
    learned = range(CONTEXT, VALIDATION.start - STEPS + 1)
    contexts = np.stack([scaled[origin - CONTEXT : origin] for origin in (*unseen, *learned)])
    targets = np.stack([scaled[origin : origin + STEPS] for origin in (*unseen, *learned)])
    deviations = contexts.std(axis=1)
    scores = (targets - forecaster.predict(contexts)) / (deviations + 0.5 * deviations.mean(axis=0))[:, None]
    size = np.sqrt([np.mean(part**2) for part in np.split(scores, [len(unseen)])])
    assert size[0] > size[1], "what is learned is magnified"
    scores[len(unseen) :] *= size[0] / size[1]
    ascending = np.sort(scores, axis=0)  # 44 + 58 windows: ranks floor(10.3) and ceil(92.7)
    assert (found.num_windows, len(scores)) == (len(unseen), 102) == (44, 102)
    np.testing.assert_allclose(found.lower[0], ascending[9], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.upper[0], ascending[92], rtol=1e-5, atol=1e-6)


def rolled(errors: list[float]) -> list[Rolled]:
    """A batch of one step and channel with these errors; contexts have a deviation of 1."""
    error = np.array(errors)[:, None, None]
    nothing = np.zeros_like(error)
    contexts = np.tile(np.array([-1.0, 1.0])[:, None], (len(errors), 1, 1))
    return [Rolled(contexts, Prediction(nothing), target=error, truth=error, usual=nothing)]


@pytest.mark.parametrize(
    ("unseen", "learned", "magnification", "scores"),
    [
        ([2.0, -2.0], [1.0, -0.5, -1.0, 0.5], 1.6**0.5 * 2, None),
        ([0.5], [1.0, -1.0], 1.0, [0.5, 1.0, -1.0]),
        ([0.5], [], 0.0, [0.5]),
        ([0.5], [0.0, 0.0], 0.0, [0.5]),
        ([], [1.0, -3.0], 1.0, [1.0, -3.0]),
        ([], [0.0], 0.0, [0.0]),
        ([0.0], [1.0], 1.0, [0.0, 1.0]),
    ],
)
def test_scores_of_what_was_learned_are_magnified_to_the_size_of_the_others(
    unseen: list[float], learned: list[float], magnification: float, scores: list[float] | None
) -> None:
    floor = np.array([1.0])  # so that the scale is 2
    errors = KnownErrors.of(rolled(unseen) if unseen else [], rolled(learned) if learned else [], floor=floor)
    assert errors.magnification == pytest.approx(magnification)
    expected = [*unseen, *(magnification * error for error in learned)] if scores is None else scores
    np.testing.assert_allclose(errors.scores()[:, 0, 0], np.array(expected) / 2)


def test_it_is_the_errors_of_the_forecast_that_are_magnified_whatever_bound_is_asked_for() -> None:
    errors = KnownErrors.of(rolled([2.0]), rolled([1.0, -1.0]), floor=np.array([0.0]))
    assert errors.magnification == 2
    lower = errors.scores(lambda prediction: prediction.forecast - 0.25)
    np.testing.assert_allclose(lower[:, 0, 0], [2.25, 2.25, -1.75])


def test_one_validation_window_leaves_intervals_with_a_width(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    num_rows = 110  # 11 to validate
    data = bundle.config.data.model_copy(update={"split": SplitConfig(train=0.7, validation=0.1, test=0.2)})
    few = replace(bundle, config=bundle.config.model_copy(update={"data": data}))
    found = calibrate(few, set_of(make_series(num_rows)), levels=(80.0, 95.0))
    assert found.num_windows == 1
    assert (found.upper - found.lower > 0.05).all()
    assert (found.upper[1] - found.lower[1] > found.upper[0] - found.lower[0]).any()


def test_data_without_a_training_window_are_calibrated_on_their_validation_windows(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    num_rows = 80  # 40 to train, fewer than a context and a horizon
    found = calibrate(bundle, set_of(make_series(num_rows)), levels=(80.0,))
    assert found.num_windows == 10


def test_no_row_of_the_test_split_is_looked_at(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(ROWS)
    first, second, third = (
        calibrate(bundle, changed(series, rows), levels=(80.0, 95.0)) for rows in (range(0), TEST, VALIDATION)
    )
    np.testing.assert_array_equal(first.lower, second.lower)
    np.testing.assert_array_equal(first.upper, second.upper)
    assert not np.array_equal(first.upper, third.upper)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The origins that are forecast from, as calibration asks for them."""
    origins: list[range] = []

    def rolled_from(forecaster: Forecaster, series: Series, asked: range, **options: Any) -> Iterator[Rolled]:
        origins.append(asked)
        return roll(forecaster, series, asked, **options)

    monkeypatch.setattr(calibration, "roll", rolled_from)
    return origins


def test_where_there_are_more_windows_than_memory_holds_every_nth_counts(
    bundle: Bundle, make_series: Callable[..., Series], monkeypatch: pytest.MonkeyPatch, taken: list[range]
) -> None:
    monkeypatch.setattr(calibration, "MOST_NUMBERS", 44 * 3 * (CONTEXT + 2 * STEPS) // 4)
    assert calibrate(bundle, set_of(make_series(ROWS)), levels=(80.0,)).num_windows == 11
    assert taken == [range(105, 149, 4), range(CONTEXT, 95, 6)]


def test_of_many_training_windows_every_nth_counts(
    bundle: Bundle, make_series: Callable[..., Series], monkeypatch: pytest.MonkeyPatch, taken: list[range]
) -> None:
    monkeypatch.setattr(calibration, "MOST_LEARNED", 20)
    calibrate(bundle, set_of(make_series(ROWS)), levels=(80.0,))
    assert taken == [range(105, 149), range(CONTEXT, 95, 3)]
