"""R17: a process that forecasts without end takes no more memory and no more open files than at its beginning."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stanhop.forecasting.batch import forecast_files
from stanhop.forecasting.bundle import load_bundle
from tests.reliability.kit import samples
from tests.reliability.kit.sizes import sizes

WARM_UP = 0.2
"""Share of the time after which memory and open files are looked at: caches fill before."""
MOST_MB_AN_HOUR = 1.0
LONG_ENOUGH_S = 1_800
"""To tell megabytes an hour."""
MOST_MB = 2.0
"""That a run of any length may take on the way."""


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 2**20


@pytest.mark.parametrize("seconds", sizes(full=20, soak=3_600))
def test_memory_and_open_files_stay_what_they_are(
    seconds: int, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    samples.write_csv(fast_folder / "in" / "a.csv", samples.rows())
    bundle, began_s, seen, num_batches = load_bundle(model), time.monotonic(), [], 0
    while (now_s := time.monotonic() - began_s) < seconds:
        forecast_files(bundle, [fast_folder / "in"], fast_folder / "out", raw_ids=bool(num_batches % 2))  # made anew
        num_batches += 1
        if now_s > WARM_UP * seconds:
            seen.append((now_s, resident_mb(), len(list(Path("/proc/self/fd").iterdir()))))
    times_s, memory_mb, descriptors = (np.array(column) for column in zip(*seen, strict=True))
    slope = float(np.polyfit(times_s / 3_600, memory_mb, 1)[0])
    assert descriptors.max() == descriptors.min()
    assert memory_mb[-1] - memory_mb[0] <= MOST_MB
    if seconds >= LONG_ENOUGH_S:
        assert slope <= MOST_MB_AN_HOUR
    record(
        "R17",
        "forecasting without end",
        f"{num_batches:,} batches in {seconds:,} s: {memory_mb[-1] - memory_mb[0]:.1f} MB more after the first fifth,"
        f" {descriptors.max()} files open throughout",
    )
