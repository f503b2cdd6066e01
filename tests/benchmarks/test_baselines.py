"""The baselines forecast the windows that networks are measured on, and what their names say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stanhop.benchmarks.baselines import (
    BASELINES,
    baseline_settings,
    find_baseline,
    measure_baseline,
    season_note,
    season_of,
)
from stanhop.benchmarks.measurement import Measurement
from stanhop.config import DataConfig
from stanhop.errors import ConfigError
from stanhop.series.frame import Series
from stanhop.series.windows import borders

STEPS = 5


def measured(name: str, series: Series, *, stride: int = 1, seed: int | None = None) -> Measurement:
    data = DataConfig(source="tables/waves.csv")
    baseline = find_baseline(name)
    settings = baseline_settings(baseline, series, data, prediction_length=STEPS, fingerprint="f" * 64, stride=stride)
    return measure_baseline(
        baseline, series, data, prediction_length=STEPS, seed=seed, stride=stride, settings=settings
    )


def errors_of(series: Series, shift: Any, *, stride: int = 1) -> tuple[float, float]:
    """MSE and MAE of the forecast ``values[shift(origin)]``, window by window."""
    split = borders(len(series), DataConfig().split)
    training = series.values[: split.train.stop]
    values = (series.values - training.mean(axis=0)) / training.std(axis=0)
    differences = [
        values[origin : origin + STEPS] - values[shift(origin)]
        for origin in range(split.test.start, split.test.stop - STEPS + 1, stride)
    ]
    return float(np.mean(np.square(differences))), float(np.mean(np.abs(differences)))


def test_a_file_is_named_without_its_folder_as_trainings_name_it(series: Series) -> None:
    assert measured("naive", series).data == "waves.csv"


def test_naive_repeats_the_last_value(series: Series) -> None:
    measurement = measured("naive", series)
    expected = errors_of(series, lambda origin: [origin - 1] * STEPS)
    assert (measurement.mse, measurement.mae) == pytest.approx(expected, rel=1e-12)


def test_seasonal_naive_repeats_the_day_before_at_each_nth_window(series: Series) -> None:
    stride = 7
    measurement = measured("seasonal_naive", series, stride=stride)
    expected = errors_of(series, lambda origin: slice(origin - 24, origin - 24 + STEPS), stride=stride)
    assert (measurement.mse, measurement.mae) == pytest.approx(expected, rel=1e-12)
    num_windows = len(borders(len(series), DataConfig().split).test) - STEPS + 1
    assert measurement.num_windows == -(-num_windows // stride)
    assert measurement.stride == stride


def test_theta_takes_the_season_out_and_beats_repeating_the_last_value(series: Series) -> None:
    assert measured("theta", series, stride=17).mse < measured("naive", series, stride=17).mse


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dlinear", "nlinear"])
def test_the_linear_ones_measure_every_window_and_depend_on_the_seed_alone(series: Series, name: str) -> None:
    first, again, other = (measured(name, series, stride=17, seed=seed) for seed in (1, 1, 2))
    assert (first.stride, first.num_windows) == (1, measured("naive", series).num_windows)
    assert (first.mse, first.mae) == (again.mse, again.mae)
    assert first.mse != other.mse
    maps = 2 if name == "dlinear" else 1
    assert first.num_parameters == maps * (31 + 1) * STEPS


def test_the_linear_ones_take_a_shorter_context_where_rows_are_few(series: Series) -> None:
    few = replace(series, times=series.times[:60], values=series.values[:60])
    num_train_rows = len(borders(len(few), DataConfig().split).train)
    measurement = measured("nlinear", few, seed=1)
    assert measurement.settings["context_length"] == (num_train_rows - STEPS) // 2 < 31
    assert measurement.num_windows == measured("naive", few).num_windows


def every_minute(series: Series, *, num_rows: int) -> Series:
    """The first rows of ``series`` as if one came each minute, so that a season, a day, takes 1,440."""
    times = pd.date_range("2024-01-01", periods=num_rows, freq="min")
    return replace(series, times=times, values=series.values[:num_rows])


def test_where_rows_are_too_few_for_a_season_none_is_looked_for(series: Series) -> None:
    few = every_minute(series, num_rows=150)
    naive, seasonal_naive, theta = (measured(name, few, stride=7) for name in ("naive", "seasonal_naive", "theta"))
    assert (seasonal_naive.mse, seasonal_naive.mae) == (naive.mse, naive.mae)
    assert theta.mse > 0
    assert (seasonal_naive.settings["season"], theta.settings["season"]) == (1, 1)


@pytest.mark.parametrize(("name", "num_seasons"), [("seasonal_naive", 1), ("theta", 2)])
def test_a_season_is_looked_for_from_as_many_of_them_on_as_it_takes(name: str, num_seasons: int) -> None:
    baseline, rows = find_baseline(name), 24 * num_seasons
    assert [season_of(baseline, "h", num_rows=each) for each in (rows - 1, rows)] == [1, 24]
    assert [season_note(season, "h") for season in (1, 24)] == [
        ", without a season, since rows are too few for one of 24 steps",
        "",
    ]


def test_an_unknown_baseline_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no baseline is called 'prophet'; choose from naive, seasonal_naive, theta"):
        find_baseline("prophet")
    assert list(BASELINES) == ["naive", "seasonal_naive", "theta", "dlinear", "nlinear"]
