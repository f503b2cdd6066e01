"""How fast `stanhop runs` answers over a store of 2,000 runs with 2,857 test windows each, as ETTh1's 96-step test has.

Prints the seconds of each command with start-up, and what MLflow's own search of the same runs takes in this process.

    python benchmarks/runs.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stanhop.benchmarks.machine import processor
from stanhop.benchmarks.many_runs import EXPERIMENT, fill_store
from stanhop.config import TrackingConfig
from stanhop.tracking.store import open_store

COMMANDS = (("list",), ("list", "--sort", "test/mse_scaled", "--limit", "0"), ("compare",), ("best",))
REPEATS = 3


def main() -> None:
    """Make the store in a temporary folder, run each command in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--windows", type=int, default=2857)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began_s = time.monotonic()
        fill_store(folder, num_runs=options.runs, num_windows=options.windows)
        print(f"{processor()}\nmade {options.runs} runs in {time.monotonic() - began_s:.1f} s")
        for words in COMMANDS:
            times_s = sorted(_seconds(folder, words) for _ in range(REPEATS))
            listed = ", ".join(f"{seconds:.2f}" for seconds in times_s)
            print(f"stanhop runs {' '.join(words)}: {listed} s")
        print(f"MLflow's search of all runs: {_search_s(folder):.2f} s")


def _seconds(folder: Path, words: tuple[str, ...]) -> float:
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-m", "stanhop", "runs", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_s


def _search_s(folder: Path) -> float:
    store = open_store(TrackingConfig(experiment=EXPERIMENT), folder=folder)
    assert store is not None
    began_s, token = time.monotonic(), None
    while True:
        page = store.client.search_runs([store.experiment_id], max_results=1000, page_token=token)
        token = page.token
        if not token:
            return time.monotonic() - began_s


if __name__ == "__main__":
    main()
