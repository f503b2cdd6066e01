"""Claims about the built-in data set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stanhop.series.synthetic import CHANNELS, generate


def test_the_same_seed_gives_the_same_set_and_another_seed_another() -> None:
    assert generate(num_steps=211).fingerprint == generate(num_steps=211).fingerprint
    assert generate(num_steps=211, seed=2).fingerprint != generate(num_steps=211).fingerprint


def test_a_shorter_series_is_the_beginning_of_a_longer_one() -> None:
    short, long = (generate(num_steps=steps, seed=5).series[0] for steps in (307, 1009))
    assert np.array_equal(short.values, long.values[:307])
    assert short.times.equals(long.times[:307])


def test_it_is_hourly_wide_and_named_by_meaning() -> None:
    series_set = generate()
    (series,) = series_set.series
    assert series.values.shape == (6000, 7)
    assert series_set.channels == series_set.layout.target_columns == CHANNELS
    assert series_set.frequency == "h"
    assert series.times[0] == pd.Timestamp("2020-01-01 00:00")
    assert np.isfinite(series.values).all()


def test_no_global_random_state_is_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what this is about
    generate(num_steps=50)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002 - as above


def test_days_repeat_weekends_differ_and_effects_are_delayed() -> None:
    (series,) = generate().series
    table = pd.DataFrame(series.values, index=series.times, columns=CHANNELS)
    assert table["temperature"].autocorr(24) > 0.5
    is_weekend = table.index.dayofweek >= 5
    assert table["demand"][~is_weekend].mean() - table["demand"][is_weekend].mean() > 4
    delayed = [table["generation"].corr(table["wind"].shift(hours)) for hours in range(5)]
    assert int(np.argmax(delayed)) == 2


def test_levels_shift_and_some_hours_are_far_out() -> None:
    (series,) = generate().series
    table = pd.DataFrame(series.values, index=series.times, columns=CHANNELS)
    monthly = table["demand"].resample("30D").median()
    assert monthly.max() - monthly.min() > 5
    assert table["price"].diff().kurt() > 5
    assert table["temperature"].diff().kurt() < 3
