"""Which windows are looked at: scaled contexts of a split, all of them or a seeded draw for calibration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from stanhop.errors import Code, DataError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.rolling import as_the_network_sees, origins_of
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Split

CALIBRATION_BATCHES = 16
"""Batches that ranges are taken from: Bondarenko et al. 2023, arXiv:2306.12929, whose code has 16 for BERT."""
CALIBRATION_BATCH_SIZE = 64


def split_contexts(bundle: Bundle, series_set: SeriesSet, split: Split, *, batch_size: int = 64) -> Iterator[Tensor]:
    """Every window's context in ``split``, scaled, in order of time.

    Args:
        bundle: The model whose windows, scalers and split count.
        series_set: Its data, or other data with the same channels and frequency.
        split: Whose windows.
        batch_size: Windows in one tensor.

    Yields:
        ``(batch, context_length, columns)`` in float64, as the network takes it.

    Raises:
        DataError: channels or frequency are not the model's, or a series is too short for a window in ``split``.
    """
    forecaster = Forecaster(bundle, device="cpu")
    for series in series_set.series:
        contexts, origins = _contexts(forecaster, series), origins_of(bundle, series, split)
        for first in range(0, len(origins), batch_size):
            batch = origins[first : first + batch_size]
            yield _taken(contexts, np.arange(batch.start, batch.stop))


def num_contexts(bundle: Bundle, series_set: SeriesSet, split: Split) -> int:
    """How many windows ``split_contexts`` goes through; raises as it does."""
    return sum(len(origins_of(bundle, series, split)) for series in series_set.series)


def calibration_contexts(
    bundle: Bundle,
    series_set: SeriesSet,
    *,
    num_batches: int = CALIBRATION_BATCHES,
    batch_size: int = CALIBRATION_BATCH_SIZE,
    seed: int = 1,
) -> list[Tensor]:
    """Batches of scaled contexts drawn from the *training* rows: nothing here sees validation or test rows.

    Windows are drawn without repetition over all series; where there are fewer than asked for, all are taken.

    Args:
        bundle: The model.
        series_set: Its data, or other data with the same channels and frequency.
        num_batches: Batches to draw.
        batch_size: Windows in each.
        seed: Of the draw.

    Returns:
        At most ``num_batches`` tensors ``(batch, context_length, columns)`` in float64.

    Raises:
        DataError: as ``split_contexts``.
    """
    forecaster = Forecaster(bundle, device="cpu")
    contexts = [_contexts(forecaster, series) for series in series_set.series]
    windows = [
        (number, origin)
        for number, series in enumerate(series_set.series)
        for origin in origins_of(bundle, series, "train")
    ]
    if not windows:
        raise DataError(Code.LENGTH, "the training rows hold no window to calibrate with", fix="give a longer series")
    order = np.random.default_rng(seed).permutation(len(windows))[: num_batches * batch_size]
    drawn = [windows[index] for index in order]
    return [
        torch.cat(
            [_taken(contexts[number], np.array([origin])) for number, origin in drawn[first : first + batch_size]]
        )
        for first in range(0, len(drawn), batch_size)
    ]


def _contexts(forecaster: Forecaster, series: Series) -> np.ndarray:
    """A view of all scaled contexts, ``(origins, columns, context_length)``, from the first origin there can be."""
    forecaster.check_fits(series)
    scaled = as_the_network_sees(forecaster, series)
    view: np.ndarray = sliding_window_view(scaled, forecaster.bundle.config.model.context_length, axis=0)
    return view


def _taken(contexts: np.ndarray, origins: np.ndarray) -> Tensor:
    length = contexts.shape[-1]
    return torch.from_numpy(np.ascontiguousarray(contexts[origins - length].swapaxes(1, 2)))
