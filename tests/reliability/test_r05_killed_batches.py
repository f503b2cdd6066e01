"""R5: a batch that is killed again and again ends with the bytes of one that was not, and does nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kit import processes, samples
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import sizes, soaked

MOST_SECONDS_TO_END = 30.0
MOST_TIME_OF_A_RERUN = 0.2
"""Of the time of the first run: what a finished batch may take to find out that it is finished."""


@pytest.mark.parametrize("count", sizes(full=1_000, soak=10_000))
def test_a_batch_killed_in_live_work_ends_with_the_same_bytes(
    count: int, nursery: Nursery, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    num_kills = soaked(full=10, soak=100)
    source, whole, killed = fast_folder / "in", fast_folder / "whole", fast_folder / "killed"
    samples.write_tables(source, count)
    (source / "bad.csv").write_text("date,load,wind\n2021-03-01,1,x\n")
    began_s = time.monotonic()
    assert nursery.run("batch", model, source, whole).code == 3
    first_s = time.monotonic() - began_s
    moments, num_written = random.Random(count), 0
    for kill in range(1, num_kills + 1):
        child = nursery.start("batch", model, source, killed)
        while child.out.count("written") < count // (num_kills + 2):
            assert child.speaks()
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.01))
        child.send(signal.SIGKILL)
        ended = child.end()
        assert ended.code == -signal.SIGKILL, f"kill {kill} met nobody at work"
        num_written += ended.out.count("written")
    ended = nursery.run("batch", model, source, killed)
    assert ended.code == 3, ended.err
    num_written += ended.out.count("written")
    assert samples.files_in(killed) == samples.files_in(whole)
    # A file that was written when the kill came may be not said yet, never said and not written.
    assert count - num_kills <= num_written <= count
    began_s = time.monotonic()
    again = nursery.run("batch", model, source, killed)
    again_s = time.monotonic() - began_s
    assert "written" not in again.out.split()
    assert again_s <= MOST_TIME_OF_A_RERUN * first_s + 1
    record(
        "R5",
        "SIGKILL in a batch",
        f"{count:,} files, {num_kills} kills in live work: the same bytes, 0 lost, 0 made twice, 0 leftovers;"
        f" a finished batch infers nothing and takes {100 * again_s / first_s:.0f} % of the time",
    )


@pytest.mark.parametrize("count", sizes(full=300, soak=10_000))
def test_several_processes_may_be_killed_and_so_may_their_batch(
    count: int, nursery: Nursery, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    num_kills = soaked(full=3, soak=20)
    source, whole, killed = fast_folder / "in", fast_folder / "whole", fast_folder / "killed"
    samples.write_tables(source, count)
    (source / "bad.csv").write_text("date,load,wind\n2021-03-01,1,x\n")
    assert nursery.run("batch", model, source, whole, 1).code == 3
    moments, orphans = random.Random(count), list[int]()
    for _ in range(num_kills):
        child = nursery.start("batch", model, source, killed, 2)
        child.wait_until(lambda: child.out.count("written") >= count // (2 * num_kills + 2))  # noqa: B023 - it is over then
        orphans += processes.workers_of(child.process)
        time.sleep(moments.uniform(0, 0.01))
        child.send(signal.SIGKILL)
        assert child.end().code == -signal.SIGKILL
    end_s = time.monotonic() + MOST_SECONDS_TO_END
    while any(map(processes.is_there, orphans)):
        assert time.monotonic() < end_s, "a process outlives its batch"
        time.sleep(0.05)
    child = nursery.start("batch", model, source, killed, 2)
    for kill in range(1, num_kills + 1):
        child.wait_until(lambda: child.out.count("written") >= kill * count // (8 * num_kills))  # noqa: B023 - as above
        os.kill(moments.choice(processes.workers_of(child.process)), signal.SIGKILL)
    ended = child.end()
    assert ended.code == 3, ended.err
    assert samples.files_in(killed) == samples.files_in(whole)
    record(
        "R5",
        "SIGKILL in several processes",
        f"{count:,} files, 2 jobs, {num_kills} kills of the batch and {num_kills} of a process of it: the bytes of"
        " 1 job, 0 lost, 0 leftovers, 0 processes left",
    )
