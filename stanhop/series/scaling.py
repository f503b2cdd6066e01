"""Standardises each channel of a series by the mean and deviation of its training rows, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stanhop.errors import Code, DataError, ModelError


@dataclass(frozen=True, eq=False)
class Scaler:
    """The affine map ``(value - mean) / deviation`` of each channel.

    Args:
        mean: Mean of each channel, ``(channels,)``.
        deviation: Population standard deviation of each channel, ``(channels,)``; 1 where a channel is constant,
            so that it maps to 0 and comes back exactly.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

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

    def to_plain(self) -> dict[str, list[float]]:
        """Plain numbers for JSON or a checkpoint; ``from_plain`` gives the same scaler back, bit for bit."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """The scaler that ``to_plain`` wrote.

        Raises:
            ModelError: it is not two lists of as many finite numbers, deviations above 0.
        """
        if not isinstance(plain, dict) or set(plain) != {"mean", "deviation"}:
            raise ModelError(Code.MODEL_DAMAGED, "a scaler must hold 'mean' and 'deviation' and nothing else")
        mean, deviation = (_numbers(plain[key], key=key) for key in ("mean", "deviation"))
        if len(mean) != len(deviation):
            problem = f"a scaler has {len(mean)} means but {len(deviation)} deviations"
            raise ModelError(Code.MODEL_DAMAGED, problem)
        if (deviation <= 0).any():
            raise ModelError(Code.MODEL_DAMAGED, f"a scaler has the deviation {deviation.min()}, which is not above 0")
        return cls(mean=mean, deviation=deviation)

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
