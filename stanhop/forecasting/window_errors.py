"""The error of every single window of a split: what paired comparisons of two models and worst windows start from."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from stanhop.errors import Code, ModelError

WINDOW_METRICS = ("mse_scaled", "mae_scaled", "mse", "mae", "smape_200")
"""The metrics that are a mean over windows, so that each window has its own."""
ROW = np.dtype([("series", "<i4"), ("origin", "<i8"), *((name, "<f4") for name in WINDOW_METRICS)])
"""One window: which series of the set, the row of the first forecast step, and the mean over its steps and channels."""


@dataclass(frozen=True, eq=False)
class WindowErrors:
    """Errors by window.

    Args:
        rows: ``(windows,)`` of ``ROW``, in order of series and origin.
    """

    rows: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[np.ndarray]) -> Self:
        """All windows of ``batches``."""
        return cls(np.concatenate([np.empty(0, ROW), *batches]))

    def to_bytes(self) -> bytes:
        """One ``.npy`` file: plain numbers, which ``numpy.load(allow_pickle=False)`` reads."""
        content = io.BytesIO()
        np.lib.format.write_array(content, self.rows, allow_pickle=False)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, *, file: str) -> Self:
        """Read back what ``to_bytes`` wrote.

        Raises:
            ModelError: ``file`` holds something else.
        """
        try:
            shape, dtype, begin = _read_header(content[: _header_length(content)])
            rows = np.frombuffer(content, dtype, count=math.prod(shape), offset=begin)
        except ValueError as error:
            raise ModelError(Code.MODEL, f"holds no errors by window: {error}", file=file) from None
        if dtype != ROW or len(shape) != 1:
            raise ModelError(Code.MODEL, f"holds {dtype}{shape}, not errors by window", file=file)
        return cls(rows)


def _header_length(content: bytes) -> int:
    """The bytes before the numbers of a ``.npy`` file of version 1: ten, of which two say how many follow."""
    return 10 + int.from_bytes(content[8:10], "little")


@lru_cache(maxsize=16)  # runs of one task have the same header, and numpy takes longer to read it than all numbers
def _read_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """The shape and type of what a ``.npy`` file of version 1 holds, and where the numbers begin."""
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"a .npy file of version {version}, not (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype, stream.tell()


def batch_of_errors(errors: Mapping[str, np.ndarray], *, series: int, origins: range) -> np.ndarray:
    """The rows of a batch.

    Args:
        errors: Name to ``(windows, prediction_length, channels)``; must hold ``WINDOW_METRICS``.
        series: Number of the series in its set.
        origins: Origin of each window.

    Returns:
        ``(windows,)`` of ``ROW``.
    """
    rows = np.empty(len(origins), ROW)
    rows["series"], rows["origin"] = series, np.asarray(origins)
    for name in WINDOW_METRICS:
        rows[name] = errors[name].mean(axis=(1, 2))
    return rows
