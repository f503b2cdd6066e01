"""The forecaster of sktime: as its own tests want it, and in what people build of forecasters there."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.forecasting.base import ForecastingHorizon

from stanhop.errors import ConfigError
from stanhop.interop.sktime import STanHopForecaster

TINY = STanHopForecaster.get_test_params()[0]
FH = [1, 2, 3]
IGNORED = "ignore:The default of config ``remember_data``:FutureWarning"
"""sktime's own compositors still warn of it when they are made."""


def table(steps: int = 60, *, index: pd.Index | None = None, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    times = np.arange(steps)[:, None]
    values = (
        np.sin(2 * np.pi * times / 12 + np.arange(2)) * [1, 30] + [5, 400] + random.normal(size=(steps, 2)) * [0.1, 3]
    )
    index = pd.period_range("2001-01", periods=steps, freq="M") if index is None else index
    return pd.DataFrame(values, index=index, columns=["load", "oil"])


def panel(num_series: int = 3, steps: int = 40) -> pd.DataFrame:
    tables = {f"s{number}": table(steps, seed=number) for number in range(num_series)}
    return pd.concat(tables, names=["series", "time"])


def made(**parameters: Any) -> STanHopForecaster:
    return STanHopForecaster(**{**TINY, **parameters})


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2020-01-01", periods=60, freq="h"),
        pd.date_range("2020-01-01", periods=60, freq="MS"),
        pd.date_range("2020-03-20", periods=60, freq="h", tz="Europe/Berlin"),
        pd.period_range("2020-01", periods=60, freq="Q"),
        pd.RangeIndex(7, 67),
    ],
    ids=["hourly", "months", "time zone", "quarters", "range"],
)
def test_the_forecast_goes_on_with_the_index(index: pd.Index) -> None:
    y = table(index=index)
    forecast = made().fit(y[:57], fh=FH).predict()
    assert forecast.index.equals(y.index[57:])
    assert list(forecast.columns) == ["load", "oil"]
    assert np.isfinite(forecast.to_numpy()).all()


def test_horizons_with_gaps_absolute_ones_and_relative_ones_give_one_forecast() -> None:
    y = table()
    whole = made().fit(y[:50], fh=[1, 2, 3, 4, 5]).predict()
    gaps = made().fit(y[:50], fh=[2, 5]).predict()
    absolute = made().fit(y[:50], fh=ForecastingHorizon(y.index[[51, 54]], is_relative=False)).predict()
    pd.testing.assert_frame_equal(gaps, whole.iloc[[1, 4]])
    pd.testing.assert_frame_equal(absolute, gaps)


def test_times_without_a_regular_step_are_explained() -> None:
    times = pd.DatetimeIndex([*pd.date_range("2020-01-01", periods=30), *pd.date_range("2021-01-01", periods=30)])
    with pytest.raises(ValueError, match=r"no regular step.*asfreq"):
        made().fit(table(index=times), fh=FH)


@pytest.mark.slow
def test_it_learns_a_season_that_the_last_value_does_not_know() -> None:
    y = table(240)
    forecaster = STanHopForecaster(
        context_length=36, patch_length=12, model_dim=16, max_epochs=15, validation=0.2, random_state=1, device="cpu"
    )
    forecast = forecaster.fit(y[:-12], fh=range(1, 13)).predict()
    error = (forecast - y[-12:]).abs().mean()
    naive = (y.iloc[-13] - y[-12:]).abs().mean()
    assert (error < 0.4 * naive).all()


def test_few_rows_leave_intervals_a_width_that_grows_with_the_errors_on_the_last_of_them() -> None:
    y = table()
    disturbed = y.copy()
    disturbed.iloc[-12:-6] += np.array([[3.0, 90.0]]) * np.array([1, -1, 1, -1, 1, -1])[:, None]
    unheard = {"settings": {**TINY["settings"], "train.stacking": False, "train.start": "random"}}

    def widths(rows: pd.DataFrame, coverage: float, validation: float) -> pd.Series:
        forecaster = made(validation=validation, **unheard).fit(rows, fh=FH)
        interval = forecaster.predict_interval(coverage=coverage)
        return pd.Series(
            {name: (interval[name, coverage, "upper"] - interval[name, coverage, "lower"]).mean() for name in y}
        )

    assert (widths(y, 0.95, 0.1) > 1.1 * widths(y, 0.8, 0.1)).all(), "of four windows alone both would be one"
    assert (widths(disturbed, 0.8, 0.2) > widths(y, 0.8, 0.2)).all(), "though weights and context are the same"


def test_quantiles_are_bounds_of_intervals_and_these_nest() -> None:
    y = table(300)
    forecaster = made(max_epochs=3, validation=0.3).fit(y[:-3], fh=FH)
    interval = forecaster.predict_interval(coverage=[0.5, 0.9])
    quantiles = forecaster.predict_quantiles(alpha=[0.05, 0.25, 0.75, 0.95])
    for name in y.columns:
        lower, upper = interval[name, 0.9, "lower"], interval[name, 0.9, "upper"]
        np.testing.assert_array_equal(lower, quantiles[name, 0.05])
        np.testing.assert_array_equal(upper, quantiles[name, 0.95])
        assert (lower < interval[name, 0.5, "lower"]).all()
        assert (interval[name, 0.5, "upper"] < upper).all()


@pytest.mark.slow
def test_its_intervals_hold_what_they_promise_on_data_like_those_they_were_calibrated_on() -> None:
    y = table(900)
    forecaster = made(max_epochs=3, validation=0.3).fit(y[:600], fh=FH)
    hits = []
    for cutoff in range(600, 890, 5):
        interval = forecaster.predict_interval(coverage=0.8)
        truth = y.iloc[cutoff : cutoff + 3]
        hits += [(truth[name].between(interval[name, 0.8, "lower"], interval[name, 0.8, "upper"])).mean() for name in y]
        forecaster.update(y.iloc[cutoff : cutoff + 5], update_params=False)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.06)


def test_a_seed_gives_the_same_forecast_and_leaves_the_callers_generators_alone() -> None:
    y = table()
    drawn = {"settings": {**TINY["settings"], "train.stacking": False}}  # a regression alone draws nothing
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = (made(random_state=11, **drawn).fit(y, fh=FH).predict() for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(made(random_state=12, **drawn).fit(y, fh=FH).predict())


def test_update_moves_the_context_and_with_params_the_weights() -> None:
    y = table(80)
    forecaster = made().fit(y[:60], fh=FH)
    weights = {name: weight.clone() for name, weight in forecaster.bundle_.network.state_dict().items()}
    forecaster.update(y[60:70], update_params=False)
    assert forecaster.cutoff[0] == y.index[69]
    assert forecaster.predict().index[0] == y.index[70]
    assert all(torch.equal(forecaster.bundle_.network.state_dict()[name], weights[name]) for name in weights)
    forecaster.update(y[70:80])
    assert forecaster.predict().index[0] == pd.Period("2007-09", "M")
    assert not all(torch.equal(forecaster.bundle_.network.state_dict()[name], weights[name]) for name in weights)


def test_a_pretrained_network_forecasts_a_series_it_has_not_seen() -> None:
    forecaster = made(update_epochs=0).pretrain(panel(), fh=FH)
    weights = forecaster.pretrained_bundle_.network.state_dict()
    forecaster.fit(table(30, seed=9), fh=FH)
    assert all(torch.equal(forecaster.bundle_.network.state_dict()[name], weights[name]) for name in weights)
    assert np.isfinite(forecaster.predict_interval(coverage=0.8).to_numpy()).all()
    tuned = made(update_epochs=1).pretrain(panel(), fh=FH).fit(table(30, seed=9), fh=FH)
    assert not all(torch.equal(tuned.bundle_.network.state_dict()[name], weights[name]) for name in weights)


def test_a_pretrained_network_refuses_what_it_cannot_forecast() -> None:
    forecaster = made().pretrain(panel(), fh=FH)
    with pytest.raises(ValueError, match=r"fh reaches 4 steps, the pretrained network 3"):
        forecaster.clone().fit(table(), fh=[4])
    with pytest.raises(ValueError, match=r"y has 1 columns, the pretrained network 2"):
        forecaster.clone().fit(table()[["oil"]], fh=FH)
    with pytest.raises(ValueError, match="needs a relative horizon"):
        made().pretrain(panel())


def test_a_panel_is_forecast_series_by_series() -> None:
    y = panel()
    forecast = made().fit(y, fh=FH).predict()
    alone = made().fit(y.loc["s1"], fh=FH).predict()
    np.testing.assert_allclose(forecast.loc["s1"].to_numpy(), alone.to_numpy())


@pytest.mark.filterwarnings(IGNORED)
def test_evaluate_measures_it_with_point_and_interval_metrics() -> None:
    from sktime.forecasting.model_evaluation import evaluate
    from sktime.performance_metrics.forecasting import MeanAbsoluteScaledError
    from sktime.performance_metrics.forecasting.probabilistic import PinballLoss
    from sktime.split import ExpandingWindowSplitter

    cv = ExpandingWindowSplitter(fh=FH, initial_window=40, step_length=10)
    scores = evaluate(
        made(), cv, table(), scoring=[MeanAbsoluteScaledError(), PinballLoss()], strategy="refit", error_score="raise"
    )
    assert len(scores) == 2
    assert np.isfinite(scores[["test_MeanAbsoluteScaledError", "test_PinballLoss"]].to_numpy(dtype=float)).all()


@pytest.mark.slow
@pytest.mark.filterwarnings(IGNORED)
def test_a_grid_search_chooses_the_setting_that_learns() -> None:
    from sktime.forecasting.model_selection import ForecastingGridSearchCV
    from sktime.split import ExpandingWindowSplitter

    cv = ExpandingWindowSplitter(fh=FH, initial_window=120, step_length=12)
    rates = [1e-7, 1e-2]
    # a regression at the start, in a joint path or at the end would be good without having learned
    begun_as_a_mean = {"model.gate": True, "model.joint_rank": 0, "train.start": "mean", "train.stacking": False}
    search = ForecastingGridSearchCV(made(max_epochs=8), cv, {"learning_rate": rates, "settings": [begun_as_a_mean]})
    search.fit(table(156), fh=FH)
    assert search.best_params_["learning_rate"] == 1e-2
    assert np.isfinite(search.predict().to_numpy()).all()


@pytest.mark.filterwarnings(IGNORED)
def test_it_stands_in_a_pipeline() -> None:
    from sktime.forecasting.compose import TransformedTargetForecaster
    from sktime.transformations.difference import Differencer

    y = table()
    pipeline = TransformedTargetForecaster([("difference", Differencer(lags=12)), ("forecast", made())])
    assert pipeline.fit(y[:57], fh=FH).predict().index.equals(y.index[57:])


def test_a_context_the_series_is_too_short_for_is_shortened_with_one_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecaster = made(context_length=500, patch_length=24).fit(table(), fh=FH)
        forecaster.predict_interval()
    assert [str(each.message) for each in caught] == [
        "context_length 500 is shortened to 34: the series has no more rows to learn from"
    ]
    assert forecaster.bundle_.config.model.context_length == 34
    assert forecaster.bundle_.config.model.patch_length == 24


def test_without_a_context_length_it_takes_what_the_series_allows_and_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecaster = made(context_length=None).fit(table(), fh=FH)
    assert forecaster.bundle_.config.model.context_length == 34


def test_a_parameter_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"num_heads \(3\) must divide model_dim \(4\)"):
        made(num_heads=3).fit(table(), fh=FH)
    with pytest.raises(ConfigError, match=r"unknown key model\.gates.*did you mean model\.gate"):
        made(settings={"model.gates": True}).fit(table(), fh=FH)


def test_a_series_too_short_for_any_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no series has 1 \+ 9 rows to learn from"):
        made(context_length=None).fit(table(9), fh=[9])


def test_it_writes_nothing_prints_nothing_and_survives_pickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    forecaster = made().fit(table(), fh=FH)
    again = pickle.loads(pickle.dumps(forecaster))  # noqa: S301 - its own
    pd.testing.assert_frame_equal(again.predict(), forecaster.predict())
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_epochs_are_shown_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    made(verbose=True).fit(table(), fh=FH)
    assert "epoch 1/1" in capfd.readouterr().err
