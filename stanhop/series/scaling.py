"""Standardises each channel of a series by the mean and deviation of its training rows, and back.

What the network sees and forecasts are *anomalies*: scaled values without the seasonal profile, where there is one.
Errors of anomalies are errors of scaled values.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stanhop.errors import Code, DataError, ModelError
from stanhop.series.seasonality import Harmonic, SeasonalProfile, choose_profile

MOST_CYCLES = 1_000
"""Of a harmonic in a file."""


@dataclass(frozen=True, eq=False)
class Scaler:
    """The affine map ``(value - mean) / deviation`` of each channel.

    Args:
        mean: Mean of each channel, ``(channels,)``.
        deviation: Population standard deviation of each channel, ``(channels,)``; 1 where a channel is constant,
            so that it maps to 0 and comes back exactly.
        profile: What each channel usually is, in scaled units; None for 0 at all times.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    profile: SeasonalProfile | None = None

    @classmethod
    def fit(cls, values: ArrayLike) -> Self:
        """The scaler of ``values``, ``(steps, channels)``, finite, at least one step.

        Raises:
            DataError: there is no step.
        """
        table = np.asarray(values, dtype=np.float64)
        if len(table) == 0:
            raise DataError(Code.LENGTH, "a scaler needs at least one row of values, got none")
        # Each channel is brought near 1 by a power of two, which loses nothing, so that no square over- or underflows;
        # deviations are taken from the first row, so that a large offset does not drown a small variation.
        exponents = np.frexp(np.abs(table).max(axis=0))[1]
        first = table[0]
        shifted = np.ldexp(table, -exponents) - np.ldexp(first, -exponents)
        centre = shifted.mean(axis=0)
        spread = np.sqrt(np.square(shifted - centre).mean(axis=0))
        mean = np.ldexp(np.ldexp(first, -exponents) + centre, exponents)
        deviation = np.ldexp(spread, exponents)  # 0 exactly where a channel is constant
        return cls(mean=mean, deviation=np.where(deviation == 0, 1.0, deviation))

    @classmethod
    def with_profile(
        cls, values: ArrayLike, times: pd.DatetimeIndex, *, context_length: int, prediction_length: int
    ) -> Self:
        """As ``fit``, with the seasonal profile of ``values`` at ``times``; windows as in ``choose_profile``."""
        scaler = cls.fit(values)
        lengths = {"context_length": context_length, "prediction_length": prediction_length}
        return dataclasses.replace(scaler, profile=choose_profile(scaler.transform(values), times, **lengths))

    @property
    def num_channels(self) -> int:
        """Channels it was fitted on."""
        return len(self.mean)

    def transform(self, values: ArrayLike) -> NDArray[np.float64]:
        """Scaled ``values``; both are ``(..., channels)``."""
        return (self._checked(values) - self.mean) / self.deviation

    def inverse(self, scaled: ArrayLike) -> NDArray[np.float64]:
        """Values in original units; ``scaled`` and they are ``(..., channels)``."""
        return self._checked(scaled) * self.deviation + self.mean

    def usual(self, times: pd.DatetimeIndex) -> NDArray[np.float64]:
        """The seasonal profile at ``times``, in scaled units, ``(steps, channels)``."""
        return np.zeros((len(times), self.num_channels)) if self.profile is None else self.profile.at(times)

    def anomalies(self, values: ArrayLike, times: pd.DatetimeIndex) -> NDArray[np.float64]:
        """Scaled ``values`` without what is usual at ``times``; values are ``(..., steps, channels)``."""
        scaled = self.transform(values)
        return scaled if self.profile is None else scaled - self.profile.at(times)

    def restored(self, anomalies: ArrayLike, times: pd.DatetimeIndex) -> NDArray[np.float64]:
        """Values in original units of ``anomalies`` at ``times``; both are ``(..., steps, channels)``."""
        return self.inverse(anomalies if self.profile is None else np.asarray(anomalies) + self.profile.at(times))

    def to_plain(self) -> dict[str, Any]:
        """Plain numbers for JSON; ``from_plain`` gives the same scaler back, bit for bit."""
        plain = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return plain if self.profile is None else {**plain, "profile": _plain_profile(self.profile)}

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """The scaler that ``to_plain`` wrote.

        Raises:
            ModelError: it is not two lists of as many finite numbers, deviations above 0, and the profile of as many
                channels, if there is one.
        """
        if not isinstance(plain, dict) or set(plain) - {"profile"} != {"mean", "deviation"}:
            problem = "a scaler must hold 'mean' and 'deviation', may hold 'profile', and nothing else"
            raise ModelError(Code.MODEL_DAMAGED, problem)
        mean, deviation = (_numbers(plain[key], key=key) for key in ("mean", "deviation"))
        if len(mean) != len(deviation):
            problem = f"a scaler has {len(mean)} means but {len(deviation)} deviations"
            raise ModelError(Code.MODEL_DAMAGED, problem)
        if (deviation <= 0).any():
            raise ModelError(Code.MODEL_DAMAGED, f"a scaler has the deviation {deviation.min()}, which is not above 0")
        profile = _parse_profile(plain["profile"], num_channels=len(mean)) if "profile" in plain else None
        return cls(mean=mean, deviation=deviation, profile=profile)

    def _checked(self, values: ArrayLike) -> NDArray[np.float64]:
        table = np.asarray(values, dtype=np.float64)
        if table.shape[-1:] != self.mean.shape:
            got = table.shape[-1] if table.ndim else "a single number"
            problem = f"expected {self.num_channels} channels, got {got}"
            raise DataError(Code.CHANNELS, problem, fix="give the channels the model was trained on")
        return table


def _numbers(numbers: object, *, key: str) -> NDArray[np.float64]:
    is_plain = isinstance(numbers, list) and all(isinstance(number, float) for number in numbers)
    if not is_plain or not numbers or not np.isfinite(np.array(numbers)).all():
        raise ModelError(Code.MODEL_DAMAGED, f"a scaler's {key} is not a list of finite floating-point numbers")
    return np.array(numbers, dtype=np.float64)


def _plain_profile(profile: SeasonalProfile) -> dict[str, Any]:
    return {"harmonics": [list(one) for one in profile.harmonics], "coefficients": profile.coefficients.tolist()}


def _parse_profile(plain: Any, *, num_channels: int) -> SeasonalProfile:
    """The profile that ``_plain_profile`` wrote."""
    problem = f"a scaler's profile is not one of {num_channels} channels"
    is_whole = isinstance(plain, dict) and set(plain) == {"harmonics", "coefficients"}
    if not is_whole or not all(isinstance(part, list) for part in plain.values()):
        raise ModelError(Code.MODEL_DAMAGED, problem)
    harmonics = tuple(_parse_harmonic(one) for one in plain["harmonics"])
    rows = [_numbers(row, key="profile") for row in plain["coefficients"]]
    if len(rows) != 2 * len(harmonics) or not rows or any(len(row) != num_channels for row in rows):
        raise ModelError(Code.MODEL_DAMAGED, problem)
    return SeasonalProfile(harmonics, np.stack(rows))


def _parse_harmonic(plain: Any) -> Harmonic:
    is_plain = isinstance(plain, list) and all(type(cycles) is int for cycles in plain)
    if not is_plain or len(plain) != 3 or max(map(abs, plain)) > MOST_CYCLES:
        problem = "a harmonic of a scaler's profile is not three whole numbers: cycles a day, a week and a year"
        raise ModelError(Code.MODEL_DAMAGED, problem)
    day, week, year = plain
    return day, week, year
