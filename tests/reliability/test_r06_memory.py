"""R6: a batch takes no more memory for ten thousand series than for a thousand, and does not slow down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.reliability.kit import samples
from tests.reliability.kit.nursery import ROOT, Nursery
from tests.reliability.kit.sizes import sizes

MOST_MB, MOST_GROWTH_MB = 600, 50
MOST_SLOWER = 1.3
"""The last thousand against the first; 1.1 on a machine that nobody shares."""
NUM_SERIES, MEMORY_MB = 4_000, (10, 25, 40, 55, 70, 85, 100, 150)
LARGE_ROWS, MOST_TIMES_ITS_SIZE = 500_000, 25
"""So many times of the largest file that is read, 1 GiB, is what a machine must have."""
PROGRAM = """
import os, sys, time
from pathlib import Path
from stanhop.forecasting.batch import forecast_files
from tests.reliability.kit.processes import most_mb, workers_of
def tell(event):
    if event.done % (1_000 // num_jobs) == 0:
        memory = max(map(most_mb, (os.getpid(), *workers_of(os.getpid()))))
        print(event.done, time.process_time(), memory, flush=True)
if __name__ == "__main__":
    num_jobs = int(sys.argv[4])
    print(0, time.process_time(), 0.0, flush=True)
    forecast_files(*sys.argv[1:2], sys.argv[2:3], Path(sys.argv[3]), num_jobs=num_jobs, progress=tell)
    print(most_mb())
"""
"""Says after each thousand files (of each process) how long it took and the most memory of a process."""


def said(model: Path, source: Path, output: Path, *, num_jobs: int = 1) -> list[str]:
    """What the program says when it is run by a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(model), str(source), str(output), str(num_jobs)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def measured(model: Path, source: Path, output: Path, *, num_jobs: int = 1) -> list[tuple[int, float, float]]:
    """Files done, seconds of computing, most memory in MB, at each thousandth file, of a fresh process."""
    rows = [line.split() for line in said(model, source, output, num_jobs=num_jobs)[:-1]]
    return [(int(count), float(seconds), float(megabytes)) for count, seconds, megabytes in rows]


@pytest.mark.parametrize("count", sizes(full=10_000, soak=100_000))
def test_memory_does_not_grow_with_the_number_of_files(
    count: int, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    samples.write_tables(fast_folder / "in", count)
    rows = measured(model, fast_folder / "in", fast_folder / "out")
    first_mb, last_mb = rows[1][2], rows[-1][2]
    first_s, last_s = rows[1][1] - rows[0][1], rows[-1][1] - rows[-2][1]
    assert last_mb <= MOST_MB
    assert last_mb - first_mb <= MOST_GROWTH_MB
    assert last_s <= MOST_SLOWER * first_s
    record(
        "R6",
        "memory of a batch",
        f"{count:,} files: {last_mb:.0f} MB at most, {last_mb - first_mb:.0f} MB more than 1,000 files take;"
        f" the last thousand takes {last_s / first_s:.2f} times as long as the first",
    )


@pytest.mark.slow
def test_ten_thousand_series_of_one_table_fit_as_well(
    model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    table = samples.rows(samples.CONTEXT)
    with (fast_folder / "long.csv").open("w") as file:
        file.write(f"unique_id,{','.join(table[0])}\n")
        for number in range(10_000):
            file.writelines(f"{number},{','.join(line)}\n" for line in table[1:])
    megabytes = float(said(model, fast_folder / "long.csv", fast_folder / "out.csv")[-1])
    assert (fast_folder / "out.csv").read_text().count("\n") == 10_000 * samples.STEPS + 1
    assert megabytes <= MOST_MB
    record("R6", "memory of one long table", f"10,000 series in one file: {megabytes:.0f} MB at most")


@pytest.mark.slow
def test_where_memory_does_not_suffice_that_is_said(
    nursery: Nursery, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    table = samples.rows(samples.CONTEXT)
    with (fast_folder / "long.csv").open("w") as file:
        file.write(f"unique_id,{','.join(table[0])}\n")
        for number in range(NUM_SERIES):
            file.writelines(f"{number},{','.join(line)}\n" for line in table[1:])
    command = ("forecast", "--model", model, "--input", fast_folder / "long.csv", "--no-progress", "--output")
    assert nursery.run("command", *command, fast_folder / "whole.csv").code == 0
    expected = pd.read_csv(fast_folder / "whole.csv")
    num_refused = 0
    for megabytes in MEMORY_MB:
        output = fast_folder / f"{megabytes}.csv"
        ended = nursery.run("with_little_memory", megabytes, *command, output, "--batch-size", NUM_SERIES)
        assert "Traceback" not in ended.err
        if ended.code:
            num_refused += 1
            assert (ended.code, ended.err.count("error[E402]"), output.exists()) == (4, 1, False), ended.err
        else:
            pd.testing.assert_frame_equal(pd.read_csv(output), expected, rtol=1e-5)
    assert 0 < num_refused < len(MEMORY_MB)
    record(
        "R6",
        "little memory",
        f"{len(MEMORY_MB)} limits from {MEMORY_MB[0]} to {MEMORY_MB[-1]} MB above what the program itself takes:"
        f" {num_refused} exit with 4 and one line, {len(MEMORY_MB) - num_refused} with the forecast",
    )


@pytest.mark.slow
def test_a_table_takes_a_known_multiple_of_its_size(
    nursery: Nursery, fast_folder: Path, record: Callable[..., None]
) -> None:
    small, large = (fast_folder / f"{name}.csv" for name in ("small", "large"))
    samples.write_csv(small, samples.rows(100))
    samples.write_csv(large, samples.rows(LARGE_ROWS))
    program_mb, most = (float(nursery.run("inspecting", path).out.split()[-1]) for path in (small, large))
    file_mb = large.stat().st_size / 2**20
    assert (most - program_mb) / file_mb <= MOST_TIMES_ITS_SIZE
    record(
        "R6",
        "memory of one large table",
        f"{file_mb:.0f} MB of CSV take {most - program_mb:.0f} MB to read: {(most - program_mb) / file_mb:.1f} times",
    )


@pytest.mark.parametrize("count", sizes(full=3_000, soak=50_000))
def test_nor_does_that_of_several_processes(
    count: int, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    samples.write_tables(fast_folder / "in", count)
    rows = measured(model, fast_folder / "in", fast_folder / "out", num_jobs=2)
    first_mb, last_mb = rows[1][2], rows[-1][2]
    assert last_mb <= MOST_MB
    assert last_mb - first_mb <= MOST_GROWTH_MB
    record(
        "R6",
        "memory of several processes",
        f"{count:,} files, 2 jobs: {last_mb:.0f} MB at most in a process, {last_mb - first_mb:.0f} MB more than"
        " its first 500 files take",
    )
