r"""The built-in data set ``synthetic``: an hourly toy energy market, drawn from a seed, for trials without a download.

With hour of the day ``h``, standard normal noises ``e`` of each channel, ``day(p) = sin(2 pi (h - p) / 24)``, and
``x[t - k]`` the value ``k`` hours before (the first value where there is none):

    weather[t]     = 0.99 weather[t-1] + 0.14 e            slow, variance about 1; the same for ``gusts``
    temperature    = 12 + 5 day(9) + 5 weather + 0.5 e
    sunshine       = 100 max(0, day(6)) / (1 + exp(weather - gusts)) + e
    wind           = max(0, 25 exp(0.5 gusts) + e + spike)
    demand         = 60 + 8 day(8) + 4 day(2)^2 - 7 is_weekend + 0.6 |temperature[t-3] - 16| + level + e
    generation     = 0.3 sunshine[t-1] + 0.9 wind[t-2] + e
    price          = 40 + 0.9 (demand[t-2] - 60) - 0.5 generation[t-1] + 1.5 e + spike
    flow           = 0.5 (generation[t-4] - demand[t-4]) + 0.2 price[t-6] + e

``level`` moves by a normal step of deviation 5 about once in 700 hours and stays there.  A ``spike`` is 12 times a
Student t with 2 degrees of freedom (infinite variance) in 1 of 250 hours, otherwise 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stanhop.series.frame import Layout, Series, SeriesSet

CHANNELS = ("temperature", "sunshine", "wind", "demand", "generation", "price", "flow")
FIRST_HOUR = "2020-01-01 00:00"
HOURS_BETWEEN_LEVEL_SHIFTS = 700
HOURS_BETWEEN_SPIKES = 250

Array = NDArray[np.float64]


def generate(*, num_steps: int = 6_000, seed: int = 1) -> SeriesSet:
    """The synthetic set: one series of ``num_steps`` hours and 7 channels.

    The same seed gives the same values, and a shorter series is the beginning of a longer one.
    """
    times = pd.date_range(FIRST_HOUR, periods=num_steps, freq="h", unit="us")
    series = Series(id="", times=times, values=_channels(times, seed), channels=CHANNELS)
    layout = Layout(kind="wide", time_column="date", id_column=None, target_columns=CHANNELS)
    return SeriesSet.of((series,), layout, (f"synthetic: {num_steps} hours drawn from seed {seed}",))


def _channels(times: pd.DatetimeIndex, seed: int) -> Array:
    """The formulas of this module's docstring, ``(steps, channels)``."""
    # One generator for each purpose: then the first values do not depend on how many are drawn.
    purposes = np.random.default_rng(seed).spawn(6)
    noise = purposes[0].standard_normal((len(times), len(CHANNELS))).T
    weather, gusts = (_slow(random, len(times)) for random in purposes[1:3])
    level = _level(purposes[3], len(times))
    wind_spike, price_spike = (_spikes(random, len(times)) for random in purposes[4:6])
    hour = np.asarray(times.hour, dtype=np.float64)
    is_weekend = np.asarray(times.dayofweek >= 5)

    temperature = 12 + 5 * _day(hour, 9) + 5 * weather + 0.5 * noise[0]
    sunshine = 100 * np.maximum(0, _day(hour, 6)) / (1 + np.exp(weather - gusts)) + noise[1]
    wind = np.maximum(0, 25 * np.exp(0.5 * gusts) + noise[2] + wind_spike)
    daily = 8 * _day(hour, 8) + 4 * _day(hour, 2) ** 2
    heating = 0.6 * np.abs(_before(temperature, 3) - 16)
    demand = 60 + daily - 7 * is_weekend + heating + level + noise[3]
    generation = 0.3 * _before(sunshine, 1) + 0.9 * _before(wind, 2) + noise[4]
    price = 40 + 0.9 * (_before(demand, 2) - 60) - 0.5 * _before(generation, 1) + 1.5 * noise[5] + price_spike
    flow = 0.5 * (_before(generation, 4) - _before(demand, 4)) + 0.2 * _before(price, 6) + noise[6]
    return np.stack((temperature, sunshine, wind, demand, generation, price, flow), axis=-1)


def _day(hour: Array, phase: int) -> Array:
    return np.sin(2 * np.pi * (hour - phase) / 24)


def _before(channel: Array, hours: int) -> Array:
    """``channel[t - hours]``; the first value where there is none."""
    return channel[np.maximum(np.arange(len(channel)) - hours, 0)]


def _slow(random: np.random.Generator, num_steps: int) -> Array:
    state, states = 0.0, np.empty(num_steps)
    for step, shock in enumerate(random.standard_normal(num_steps)):
        state = 0.99 * state + 0.14 * shock
        states[step] = state
    return states


def _level(random: np.random.Generator, num_steps: int) -> Array:
    shifts, draws = random.spawn(2)
    moves = shifts.random(num_steps) < 1 / HOURS_BETWEEN_LEVEL_SHIFTS
    return np.cumsum(moves * 5 * draws.standard_normal(num_steps))


def _spikes(random: np.random.Generator, num_steps: int) -> Array:
    hours, draws = random.spawn(2)
    is_spike = hours.random(num_steps) < 1 / HOURS_BETWEEN_SPIKES
    return is_spike * 12 * draws.standard_t(2, num_steps)
