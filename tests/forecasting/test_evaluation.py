"""Errors over a whole split: every window counts once, and no split sees another's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stanhop.config import SplitConfig
from stanhop.errors import Code, DataError
from stanhop.forecasting import metrics
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.evaluation import Evaluation, evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.scaling import Scaler

CONTEXT, STEPS = 37, 11
ROWS = 211
TRAIN, TEST = range(105), range(159, ROWS)  # shares of 0.5 and 0.25, rounded down; the rest is for validation
CLOSE = {"rtol": 1e-9}


def set_of(*series: Series) -> SeriesSet:
    return SeriesSet.of(series, Layout("long", "ds", "unique_id", series[0].channels))


@pytest.fixture
def series_set(make_series: Callable[..., Series]) -> SeriesSet:
    return set_of(make_series(ROWS))


def slow_errors(bundle: Bundle, series: Series, rows: range) -> dict[str, float]:
    """One window at a time through ``forecast``, then the formulas over all of them."""
    forecaster = Forecaster(bundle)
    scaler = bundle.scalers.get(series.id) or Scaler.fit(series.values[: TRAIN.stop])
    pinned = replace(bundle, scalers={series.id: scaler})
    forecasts, targets, naives = [], [], []
    for origin in range(rows.start, rows.stop - STEPS + 1):
        history = Series(series.id, series.times[:origin], series.values[:origin], series.channels)
        forecasts.append(Forecaster(pinned).forecast(history).values)
        targets.append(series.values[origin : origin + STEPS])
        naives.append(np.stack([series.values[origin - 24 + step % 24] for step in range(STEPS)]))
    forecast, target, naive = np.stack(forecasts), np.stack(targets), np.stack(naives)
    scaled, scaled_target = scaler.transform(forecast), scaler.transform(target)
    del forecaster
    return {
        "mse_scaled": metrics.mse(scaled, scaled_target),
        "mae_scaled": metrics.mae(scaled, scaled_target),
        "mse": metrics.mse(forecast, target),
        "mae": metrics.mae(forecast, target),
        "rmse": metrics.rmse(forecast, target),
        "smape_200": metrics.smape_200(forecast, target),
        "mase": metrics.mase(forecast, target, history=series.values[: TRAIN.stop], season=24),
        "skill_vs_snaive": 1 - metrics.mae(scaled, scaled_target) / metrics.mae(scaler.transform(naive), scaled_target),
        "num_windows": len(forecast),
    }


def assert_same(found: dict[str, float], expected: dict[str, float], *, rtol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


def test_an_evaluation_equals_forecasting_every_window_alone(bundle: Bundle, series_set: SeriesSet) -> None:
    evaluation = evaluate(bundle, series_set, batch_size=17)
    assert evaluation.num_windows == len(TEST) - STEPS + 1
    assert_same(evaluation.metrics, slow_errors(bundle, series_set.series[0], TEST), rtol=1e-6)


def test_so_it_does_where_channels_have_seasonal_profiles(seasonal_bundle: Bundle, series_set: SeriesSet) -> None:
    evaluation = evaluate(seasonal_bundle, series_set, batch_size=17)
    assert_same(evaluation.metrics, slow_errors(seasonal_bundle, series_set.series[0], TEST), rtol=1e-6)


def test_no_window_is_dropped_whatever_the_batch_size(bundle: Bundle, series_set: SeriesSet) -> None:
    whole = evaluate(bundle, series_set, batch_size=1_000)
    for batch_size in (1, 7, whole.num_windows - 1):
        assert_same(evaluate(bundle, series_set, batch_size=batch_size).metrics, whole.metrics, rtol=1e-5)


def test_windows_of_training_keep_their_context_in_the_training_rows(bundle: Bundle, series_set: SeriesSet) -> None:
    assert evaluate(bundle, series_set, split="train").num_windows == len(TRAIN) - CONTEXT - STEPS + 1
    assert evaluate(bundle, series_set, split="validation").num_windows == TEST.start - TRAIN.stop - STEPS + 1


class LastValue(nn.Module):
    def forward(self, context: Tensor) -> Tensor:
        return context[:, -1:].expand(-1, STEPS, -1)


def test_the_naive_forecast_itself_has_no_skill(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    yearly = make_series(ROWS, frequency="YS-JAN", start="1801-01-01")  # a season of one step
    naive = replace(bundle, network=LastValue(), frequency="YS-JAN")
    evaluation = evaluate(naive, set_of(yearly))
    np.testing.assert_allclose(evaluation.metrics["skill_vs_snaive"], 0, atol=1e-12)


class LastButOne(nn.Module):
    def forward(self, context: Tensor) -> Tensor:
        return torch.cat([context[:, -2:]] * STEPS, dim=1)[:, :STEPS]


def test_a_perfect_forecast_has_no_error_but_no_skill_where_the_naive_one_is_perfect_as_well(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(ROWS)
    series.values[:] = 5.0 + np.arange(3)
    series.values[::2] += 1e-3
    evaluation = evaluate(replace(bundle, network=LastButOne()), set_of(series))
    np.testing.assert_allclose(evaluation.metrics["mae"], 0, atol=1e-9)
    assert np.isnan(evaluation.metrics["skill_vs_snaive"])


def test_errors_of_channels_and_steps_average_to_those_of_all(bundle: Bundle, series_set: SeriesSet) -> None:
    evaluation = evaluate(bundle, series_set)
    assert tuple(evaluation.per_channel) == bundle.channels
    for name in ("mse_scaled", "mae_scaled", "mse", "mae", "smape_200", "mase"):
        by_channel = [errors[name] for errors in evaluation.per_channel.values()]
        np.testing.assert_allclose(np.mean(by_channel), evaluation.metrics[name], **CLOSE)
    for name in ("mse_scaled", "mae_scaled", "mse", "mae", "smape_200"):
        assert len(evaluation.per_step[name]) == STEPS
        np.testing.assert_allclose(np.mean(evaluation.per_step[name]), evaluation.metrics[name], **CLOSE)


def test_relabelled_channels_have_the_same_errors(bundle: Bundle, series_set: SeriesSet) -> None:
    (series,) = series_set.series
    moved = Series("", series.times, series.values[:, [2, 0, 1]], tuple(series.channels[index] for index in (2, 0, 1)))
    expected = evaluate(bundle, series_set)
    found = evaluate(bundle, set_of(moved))
    assert found.metrics == expected.metrics
    assert found.per_channel == expected.per_channel


def test_series_are_weighted_by_their_windows_and_equally_in_mase(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series]
) -> None:
    bundle = make_bundle(ids=("a",))
    series = (make_series(ROWS, series_id="a", seed=1), make_series(ROWS + 100, series_id="b", seed=2))
    alone = [evaluate(bundle, set_of(one)) for one in series]
    both = evaluate(bundle, set_of(*series))
    weights = [evaluation.num_windows for evaluation in alone]
    assert both.num_windows == sum(weights)
    expected = np.average([evaluation.metrics["mse"] for evaluation in alone], weights=weights)
    np.testing.assert_allclose(both.metrics["mse"], expected, rtol=1e-6)
    expected = np.mean([evaluation.metrics["mase"] for evaluation in alone])
    np.testing.assert_allclose(both.metrics["mase"], expected, rtol=1e-6)


def test_an_unknown_series_is_scaled_by_its_training_rows(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(ROWS, series_id="new")
    expected = slow_errors(bundle, series, TEST)
    assert_same(evaluate(bundle, set_of(series)).metrics, expected, rtol=1e-6)


def test_progress_counts_every_window(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    seen: list[tuple[int, int]] = []
    both = set_of(make_series(ROWS, series_id="a"), make_series(ROWS, series_id="b"))
    evaluation = evaluate(bundle, both, batch_size=23, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (evaluation.num_windows, evaluation.num_windows)
    assert [done for done, _ in seen] == [23, 42, 65, 84]


def test_data_that_does_not_fit_the_model_is_refused(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    with pytest.raises(DataError, match="lacks 'rain'") as caught:
        evaluate(bundle, set_of(make_series(ROWS, channels=("flow", "level"))))
    assert caught.value.code == Code.CHANNELS
    with pytest.raises(DataError, match="has frequency D, the model was trained on h") as caught:
        evaluate(bundle, set_of(make_series(ROWS, frequency="D")))
    assert caught.value.code == Code.FREQUENCY


def test_a_split_too_short_for_a_window_is_refused_with_the_numbers(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    with pytest.raises(DataError, match="test split of series 'a' has 10 of 43 rows, one window needs 11") as caught:
        evaluate(bundle, set_of(make_series(43, series_id="a")))
    assert caught.value.code == Code.LENGTH


def test_the_split_is_the_one_of_the_model(bundle: Bundle, series_set: SeriesSet) -> None:
    data = bundle.config.data.model_copy(update={"split": SplitConfig(train=100, validation=50, test=29)})
    other = replace(bundle, config=bundle.config.model_copy(update={"data": data}))
    evaluation: Evaluation = evaluate(other, series_set)
    assert evaluation.num_windows == 29 - STEPS + 1
    assert evaluation.split == "test"


def test_coverage_width_and_score_are_counted_over_every_window(
    interval_bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(ROWS)
    found = evaluate(interval_bundle, set_of(series), levels=(80.0, 95.0))
    forecaster, scaler = Forecaster(interval_bundle, levels=(80.0, 95.0)), interval_bundle.scalers[""]
    for place, level in enumerate((80.0, 95.0)):
        hits, widths, scores = [], [], []
        for origin in range(TEST.start, TEST.stop - STEPS + 1):
            history = Series("", series.times[:origin], series.values[:origin], series.channels)
            forecast = forecaster.forecast(history)
            target = series.values[origin : origin + STEPS]
            lower, upper = forecast.lower[place], forecast.upper[place]
            hits.append((lower <= target) & (target <= upper))
            widths.append(upper - lower)
            outside = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
            scores.append((upper - lower + 2 / (1 - level / 100) * outside) / scaler.deviation)
        assert found.metrics[f"coverage_{level:g}"] == pytest.approx(np.mean(hits))
        assert found.metrics[f"width_{level:g}"] == pytest.approx(np.mean(widths), rel=1e-5)
        assert found.metrics[f"winkler_{level:g}_scaled"] == pytest.approx(np.mean(scores), rel=1e-5)
        assert found.per_channel["rain"][f"coverage_{level:g}"] == pytest.approx(np.stack(hits)[..., 2].mean())
        assert len(found.per_step[f"coverage_{level:g}"]) == STEPS
    assert not any(name.startswith("adaptive") for name in found.metrics)


def test_intervals_that_the_model_lacks_are_calibrated_on_the_validation_rows(
    bundle: Bundle, interval_bundle: Bundle, series_set: SeriesSet
) -> None:
    expected = replace(bundle, intervals=calibrate(bundle, series_set, levels=(90.0,)))
    for model in (bundle, interval_bundle):
        found = evaluate(model, series_set, levels=(90.0,)).metrics["coverage_90"]
        assert found == evaluate(expected, series_set, levels=(90.0,)).metrics["coverage_90"]


def test_adaptive_intervals_are_measured_beside_the_others(interval_bundle: Bundle, series_set: SeriesSet) -> None:
    plain = evaluate(interval_bundle, series_set, levels=(80.0,))
    both = evaluate(interval_bundle, series_set, levels=(80.0,), is_adaptive=True, batch_size=7)
    assert both.metrics["coverage_80"] == plain.metrics["coverage_80"]
    assert both.metrics["adaptive_width_80"] != both.metrics["width_80"]
    assert 0 <= both.metrics["adaptive_coverage_80"] <= 1
