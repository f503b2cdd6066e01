"""What a series is: finite values on a regular grid of times, alone or as one of a set with the same channels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Layout:
    """How a table holds series: one in a wide table, one an id in a long one."""

    kind: Literal["wide", "long"]
    time_column: str
    id_column: str | None
    """Column that tells series apart; None in a wide table."""
    target_columns: tuple[str, ...]
    """Columns that hold the channels, in the order of the channels."""


@dataclass(frozen=True, eq=False)  # arrays have no truth value; compare fingerprints instead
class Series:
    """One multivariate series on a regular grid of times.

    Raises:
        ValueError: the parts do not fit together; a defect of the caller, not of a user's file.
    """

    id: str
    """What tells it apart in a long table; empty in a wide one."""
    times: pd.DatetimeIndex
    """Time of each step, ``(steps,)``: microseconds, ``freq`` set, with a time zone if the input had one."""
    values: np.ndarray
    """``(steps, channels)``, float64, finite."""
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.channels)) or self.values.dtype != np.float64:
            raise ValueError(
                f"values {self.values.dtype}{self.values.shape} do not fit {len(self.times)} times "
                f"and {len(self.channels)} channels in float64"
            )
        if self.times.freq is None or self.times.unit != "us":
            raise ValueError(f"times need a freq and microseconds, have {self.times.freq} and {self.times.unit!r}")
        if not np.isfinite(self.values).all():
            raise ValueError("values must be finite")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def frequency(self) -> str:
        """Step of time as a pandas alias, for example ``h`` or ``W-SUN``."""
        return str(self.times.freqstr)


@dataclass(frozen=True, eq=False)
class SeriesSet:
    """Series with the same channels and frequency, and what was inferred or changed on the way to them."""

    series: tuple[Series, ...]
    """At least one, in the order of their ids."""
    layout: Layout
    fingerprint: str
    """SHA-256 of the content; see ``fingerprint_of``."""
    notes: tuple[str, ...] = ()
    """One line each, for standard error."""

    @classmethod
    def of(cls, series: Sequence[Series], layout: Layout, notes: Iterable[str] = ()) -> Self:
        """The set of ``series``, with its fingerprint."""
        return cls(tuple(series), layout, fingerprint_of(series), tuple(notes))

    def __post_init__(self) -> None:
        if not self.series:
            raise ValueError("a set needs at least one series")
        if len({(one.channels, one.frequency) for one in self.series}) > 1:
            raise ValueError("all series of a set need the same channels and frequency")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of every series."""
        return self.series[0].channels

    @property
    def num_channels(self) -> int:
        """Number of channels of every series."""
        return len(self.channels)

    @property
    def frequency(self) -> str:
        """Step of time of every series, as a pandas alias."""
        return self.series[0].frequency


def fingerprint_of(series: Iterable[Series]) -> str:
    """SHA-256 (hexadecimal) over ids, channel names, time zones, times and values.

    It tells content apart, not files: a table and its shuffled rows, or a CSV file and the Parquet
    file of the same numbers, have the same one.
    """
    digest = hashlib.sha256()
    for one in series:
        zone = "" if one.times.tz is None else str(one.times.tz)
        for text in (one.id, zone, *one.channels):
            encoded = text.encode("utf-8", errors="surrogatepass")
            digest.update(b"%d:%b," % (len(encoded), encoded))  # its length first: ("ab", "c") is not ("a", "bc")
        digest.update(b"%d,%d;" % one.values.shape)
        digest.update(one.times.asi8.astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(one.values, dtype="<f8").tobytes())
    return digest.hexdigest()
