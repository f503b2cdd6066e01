"""Claims about seasonal profiles: what they find, what they leave alone, and what they must not see."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from stanhop.errors import ModelError
from stanhop.series import seasonality
from stanhop.series.scaling import Scaler
from stanhop.series.seasonality import DAILY, LEVEL, RUNGS, SeasonalProfile, choose_profile, known_harmonics

LENGTHS = {"context_length": 48, "prediction_length": 24}
NOISE = 0.3


def hours(days: float, start: str = "2019-11-05 07:00", tz: str | None = None) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=int(24 * days), freq="h", unit="us", tz=tz)


def seasons(times: pd.DatetimeIndex) -> np.ndarray:
    """A day that is deeper in summer, a year, and nothing, ``(steps, 3)``."""
    day = 2 * np.pi * times.hour.to_numpy() / 24
    year = 2 * np.pi * ((times.dayofyear - 1) * 24 + times.hour).to_numpy() / (24 * (365 + times.is_leap_year))
    return np.stack([np.sin(day) * (2 - np.cos(year)), 3 * np.cos(year) + 0.5, 0 * day], axis=1)


def test_what_a_channel_usually_is_is_found_behind_noise_and_a_trend() -> None:
    times = hours(3 * 365)
    random = np.random.default_rng(5)
    trend = np.linspace(-1, 1, len(times))[:, None] * np.array([1.0, 0.0, 2.0])
    noisy = seasons(times) + trend + NOISE * random.normal(size=(len(times), 3))
    profile = choose_profile(noisy, times, **LENGTHS)
    assert profile is not None
    later = times + pd.Timedelta(days=400)
    error = profile.at(later) - seasons(later)
    assert np.sqrt(np.square(error).mean(axis=0)).max() < 0.1 * NOISE


def test_fitting_equals_least_squares() -> None:
    times, random = hours(31), np.random.default_rng(2)
    values = random.normal(size=(len(times), 2))
    found = choose_profile(values + seasons(times)[:, :1], times, **LENGTHS)
    assert found is not None
    harmonics = known_harmonics(times)[-1]
    columns = [np.cos(0 * times.hour), np.linspace(-1, 1, len(times))]
    for day, week, _ in harmonics:
        angle = 2 * np.pi * (day * times.hour / 24 + week * (times.dayofweek + times.hour / 24) / 7)
        columns += [np.cos(angle), np.sin(angle)]
    table = np.stack(columns, axis=1)
    part = seasonality._Normal.of(values, times, range(len(times)), harmonics).profile()
    ridge = np.sqrt(seasonality.WEIGHT_OF_NOTHING)
    waves = np.delete(table, [0, 1, 3], axis=1)  # the constant twice, and its sine
    regressors = np.column_stack([waves, table[:, 1]])
    padded = np.concatenate([regressors, ridge * np.eye(regressors.shape[1])])
    solution = np.linalg.lstsq(padded, np.concatenate([values, np.zeros((regressors.shape[1], 2))]), rcond=None)[0]
    np.testing.assert_allclose(part.at(times), waves @ solution[:-1], atol=1e-9)


def test_noise_has_no_profile_and_a_constant_comes_back_exactly() -> None:
    times = hours(90)
    noise = np.random.default_rng(8).normal(size=(len(times), 1))
    values = np.concatenate([noise, np.full_like(noise, 0.1), noise + seasons(times)[:, :1]], axis=1)
    scaler = Scaler.with_profile(values, times, **LENGTHS)
    assert scaler.profile is not None
    usual = scaler.usual(times)
    assert np.abs(usual[:, 0]).max() < 0.1
    assert (usual[:, 1] == 0).all()
    assert (scaler.restored(scaler.anomalies(values, times), times)[:, 1] == 0.1).all()
    assert np.abs(usual[:, 2]).max() > 0.5


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (hours(1.9), ()),
        (hours(2), DAILY),
        (hours(20), RUNGS[0] + RUNGS[1]),
        (hours(720), RUNGS[0] + RUNGS[1]),
        (hours(731), RUNGS[0] + RUNGS[1] + RUNGS[2]),
        (pd.date_range("2020-01-01", periods=500, freq="8h"), ((1, 0, 0), *RUNGS[1])),
        (pd.date_range("2020-01-01", periods=800, freq="D"), (*RUNGS[1], (0, 0, 1), (0, 0, 2))),
        (pd.date_range("2020-01-01", periods=24, freq="MS"), ((0, 0, 1), (0, 0, 2))),
        (pd.date_range("2020-01-01", periods=23, freq="MS"), ()),
        (pd.date_range("2020-01-01", periods=24, freq="QS"), ((0, 0, 1), (0, 0, 2))),
        (pd.date_range("2020-01-01", periods=40, freq="YS"), ()),
        (pd.date_range("2020-01-01", periods=1, freq="h"), ()),
        (pd.date_range("2020-01-01", periods=90_000, freq="s"), ()),
    ],
)
def test_a_period_must_be_covered_twice_and_its_waves_be_seen(
    times: pd.DatetimeIndex, expected: tuple[seasonality.Harmonic, ...]
) -> None:
    assert known_harmonics(times)[-1] == (LEVEL, *expected)


def test_the_year_is_left_out_where_it_forecasts_no_better() -> None:
    """A step in the middle of three years looks like a season of them, and none of them repeats it."""
    times = pd.date_range("2018-01-01", periods=3 * 365, freq="D")
    walk = np.random.default_rng(17).normal(size=(len(times), 1)).cumsum(axis=0)
    week = np.cos(2 * np.pi * times.dayofweek.to_numpy() / 7)[:, None] * 4
    profile = choose_profile(walk + week, times, context_length=96, prediction_length=24)
    assert profile is not None
    used = {one for one, row in zip(profile.harmonics, profile.coefficients, strict=False) if row.any()}
    assert (0, 1, 0) in used
    assert not any(year for _, _, year in used)


def test_local_time_counts_and_blocks_of_rows_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    times = hours(200, tz="Europe/Berlin")  # across a change of the clocks
    values = seasons(times)[:, :1]
    profile = choose_profile(values, times, **LENGTHS)
    assert profile is not None
    np.testing.assert_allclose(profile.at(times)[times.hour == 3].std(), 0, atol=0.2)
    monkeypatch.setattr(seasonality, "ROWS_AT_ONCE", 100)
    again = choose_profile(values, times, **LENGTHS)
    assert again is not None
    np.testing.assert_allclose(again.at(times), profile.at(times), atol=1e-9)


def test_a_zone_that_skips_a_midnight_has_profiles_as_well() -> None:
    times = hours(30, start="2018-10-20 00:00", tz="America/Sao_Paulo")
    profile = choose_profile(seasons(times)[:, :1], times, **LENGTHS)
    assert profile is not None
    np.testing.assert_allclose(profile.at(times), seasons(times)[:, :1], atol=0.3)


@pytest.mark.parametrize(("year", "days"), [(2020, 366), (2021, 365)])
def test_a_year_is_over_when_the_next_one_begins(year: int, days: int) -> None:
    yearly = SeasonalProfile(((0, 0, 1),), np.array([[0.0], [1.0]]))  # a sine
    times = pd.DatetimeIndex([f"{year}-01-01", f"{year}-12-31 12:00", f"{year + 1}-01-01"])
    np.testing.assert_allclose(yearly.at(times)[:, 0], [0, -np.sin(np.pi / days), 0], atol=1e-12)


def test_a_scaler_with_a_profile_comes_back_from_json_bit_for_bit() -> None:
    times = hours(40)
    scaler = Scaler.with_profile(7 + 5 * seasons(times), times, **LENGTHS)
    assert scaler.profile is not None
    again = Scaler.from_plain(json.loads(json.dumps(scaler.to_plain())))
    assert (again.usual(times) == scaler.usual(times)).all()
    assert again.to_plain() == scaler.to_plain()


PROFILE = {"harmonics": [[1, 0, 0]], "coefficients": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize(
    "damaged",
    [
        [],
        {"harmonics": [[1, 0, 0]]},
        {**PROFILE, "more": 1},
        {**PROFILE, "harmonics": []},
        {**PROFILE, "harmonics": [[1, 0]]},
        {**PROFILE, "harmonics": [[1, 0, True]]},
        {**PROFILE, "harmonics": [[1, 0, 10**9]]},
        {**PROFILE, "harmonics": [[1, 0, 0], [2, 0, 0]]},
        {**PROFILE, "coefficients": [[1.0, 2.0]]},
        {**PROFILE, "coefficients": [[1.0], [2.0]]},
        {**PROFILE, "coefficients": [[1.0, float("inf")], [3.0, 4.0]]},
        {**PROFILE, "coefficients": 3},
    ],
)
def test_a_damaged_profile_is_refused(damaged: object) -> None:
    plain = {"mean": [0.0, 0.0], "deviation": [1.0, 1.0]}
    assert Scaler.from_plain({**plain, "profile": PROFILE}).profile is not None
    with pytest.raises(ModelError, match=r"profile"):
        Scaler.from_plain({**plain, "profile": damaged})


def test_a_profile_says_the_same_of_one_row_and_of_all() -> None:
    times = hours(30)
    profile = SeasonalProfile((LEVEL, *DAILY), np.random.default_rng(1).normal(size=(8, 3)))
    np.testing.assert_allclose(profile.at(times[17:18]), profile.at(times)[17:18], rtol=1e-12, atol=1e-12)
