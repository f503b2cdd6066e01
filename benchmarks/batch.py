"""Times `stanhop forecast` over 200 CSV files of 1,000 rows x 7 channels, then over the same again.

    python benchmarks/batch.py

The files are cut from the built-in synthetic set; the model has the sizes of the preset etth1 and fresh weights, for
weights do not change the time. Each call is a process of its own, start-up included, timed by the clock on the wall.
The result goes to ``benchmarks/results/batch.json``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stanhop import storage
from stanhop.config import Layer, preset_layers, resolve
from stanhop.forecasting.bundle import Bundle, save_bundle
from stanhop.model.network import build_network
from stanhop.series.frame import SeriesSet
from stanhop.series.scaling import Scaler
from stanhop.series.synthetic import generate
from stanhop.series.write import csv_bytes

NUM_FILES, NUM_ROWS = 200, 1000
RESULT = Path(__file__).parent / "results" / "batch.json"


def save_fresh_model(path: Path, series_set: SeriesSet) -> None:
    """Write a model directory with the sizes of the preset etth1 and fresh weights."""
    config = resolve([*preset_layers("etth1"), Layer("batch", {"data": {"source": "synthetic"}})])
    torch.manual_seed(0)
    bundle = Bundle(
        config=config,
        num_channels=series_set.num_channels,
        channels=series_set.channels,
        frequency=series_set.frequency,
        layout=series_set.layout,
        scalers={series_set.series[0].id: Scaler.fit(series_set.series[0].values)},
        network=build_network(config.model, series_set.num_channels).eval(),
        fingerprint=series_set.fingerprint,
    )
    save_bundle(path, bundle)


def seconds_of_forecast(folder: Path) -> float:
    """Wall-clock seconds of one call."""
    began = time.monotonic()
    command = [sys.executable, "-m", "stanhop", "forecast", "--model", "model", "--input", "in", "--output", "out"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    """Make the files, time both calls, print and write the result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series_set = generate(num_steps=NUM_ROWS + 20 * NUM_FILES)
        save_fresh_model(folder / "model", series_set)
        for index in range(NUM_FILES):
            content = csv_bytes(series_set, first=20 * index + NUM_ROWS, last=NUM_ROWS)
            storage.write_bytes(folder / "in" / f"{index:03d}.csv", content, durable=False)
        seconds = {"first call": seconds_of_forecast(folder), "again, nothing to do": seconds_of_forecast(folder)}
    result = {
        "num_files": NUM_FILES,
        "rows x channels": [NUM_ROWS, series_set.num_channels],
        "seconds": {call: round(value, 2) for call, value in seconds.items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    storage.write_text(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["seconds"], indent=2))


if __name__ == "__main__":
    main()
