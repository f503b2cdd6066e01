"""Times one epoch of loading: windows gathered from one tensor, against the usual one window a call.

    python benchmarks/windows.py

The array is shaped like ETTh1: 8,640 training rows, 7 channels, windows of 168 -> 24 steps (8,449 of them), batches of
128, shuffled.  All ways run in one process on one thread, in turn, and the best of the tries counts.  The time is that
of the processor, which other programs on the machine do not lengthen; on an idle machine it is the time on the clock.
The result goes to ``benchmarks/results/windows.json``.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stanhop import storage
from stanhop.series.datamodule import ShuffledWindowLoader, Windows
from stanhop.series.windows import Shard, num_windows

NUM_ROWS, NUM_CHANNELS = 8640, 7
CONTEXT_LENGTH, PREDICTION_LENGTH = 168, 24
BATCH_SIZE = 128
NUM_TRIES = 20
RESULT = Path(__file__).parent / "results" / "windows.json"

Batch = tuple[Tensor, Tensor]


class OneByOne(Dataset[Batch]):
    """The usual way: a data set that makes one window a call, collated by a DataLoader."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return num_windows(len(self.values), context_length=CONTEXT_LENGTH, prediction_length=PREDICTION_LENGTH)

    def __getitem__(self, start: int) -> Batch:
        origin = start + CONTEXT_LENGTH
        return self.values[start:origin], self.values[origin : origin + PREDICTION_LENGTH]


class IndexGather:
    """Half-way: a batch is picked row by row with a table of indices."""

    def __init__(self, values: Tensor, count: int) -> None:
        self.values, self.count = values, count

    def __iter__(self) -> Iterator[Batch]:
        steps = torch.arange(CONTEXT_LENGTH + PREDICTION_LENGTH)
        for starts in torch.randperm(self.count).split(BATCH_SIZE):
            rows = self.values[starts[:, None] + steps]  # (batch, context_length + prediction_length, channels)
            yield rows[:, :CONTEXT_LENGTH], rows[:, CONTEXT_LENGTH:]


def seconds(loader: Iterable[Batch]) -> float:
    """Processor time of one pass."""
    started = time.process_time()
    for _context, _target in loader:
        pass
    return time.process_time() - started


def main() -> None:
    """Measure, print and store."""
    torch.set_num_threads(1)
    values = torch.randn(NUM_ROWS, NUM_CHANNELS, generator=torch.Generator().manual_seed(1))
    usual = OneByOne(values)
    windows = Windows(values, context_length=CONTEXT_LENGTH, prediction_length=PREDICTION_LENGTH)
    ways: dict[str, Iterable[Batch]] = {
        "one_window_a_call": DataLoader(usual, batch_size=BATCH_SIZE, shuffle=True),
        "index_gather": IndexGather(values, len(usual)),
        "strided_view": ShuffledWindowLoader(windows, torch.arange(len(usual)), Shard(len(usual), BATCH_SIZE), seed=1),
    }
    tries = [{name: seconds(loader) for name, loader in ways.items()} for _ in range(NUM_TRIES)]
    best = {name: min(one[name] for one in tries) for name in ways}
    ratios = {name: best[name] / best["strided_view"] for name in ways}
    for name in ways:
        print(f"{name:>18}: {1e3 * best[name]:7.2f} ms an epoch, {ratios[name]:5.1f} times the strided view's")
    result = {
        "num_windows": len(usual),
        "batch_size": BATCH_SIZE,
        "processor_milliseconds": {name: round(1e3 * best[name], 3) for name in ways},
        "ratio": {name: round(ratios[name], 2) for name in ways},
        "num_tries": NUM_TRIES,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, 1 thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    storage.write_text(RESULT, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
