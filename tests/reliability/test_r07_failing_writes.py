"""R7: whichever change of the disk fails, and with which error, nothing is half-written and the exit code is 4."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.reliability.kit import samples, training
from tests.reliability.kit.faults import ERRORS
from tests.reliability.kit.jobs import NO_DISK
from tests.reliability.kit.nursery import Ended, Nursery
from tests.reliability.test_r04_killed_at_every_write import SHORT, calls_of, is_ours_or_gone

TOLERANT = ("fsync", "unlink", "rmdir", "mkdir")
"""Calls that may fail without consequence: a directory's fsync, what is tidied up, a folder that is there already."""


def failing(nursery: Nursery, calls: list[str], *arguments: object) -> Iterator[tuple[str, Path, Ended]]:
    """Do a command again and again, each time with another call failing; each goes to a folder of its own."""
    *words, parent = arguments
    for number, (error, name) in enumerate(zip(cycle(ERRORS), calls, strict=False), 1):
        target = Path(str(parent)) / f"{number}"
        yield f"{os.strerror(error)} at {name}", target, nursery.run("struck", number, error, *words, target)


def is_refused_or_harmless(what: str, ended: Ended, *, good: int) -> bool:
    """Whether it ended with 4 and one line; some calls may fail without harm, and then all is there."""
    assert "Traceback" not in ended.err, (what, ended.err)
    if ended.code == good:
        assert what.split(" at ")[1].startswith(TOLERANT), (what, "was not noticed")
        return False
    assert ended.code == 4, (what, ended.code, ended.err)
    assert ended.err.count("error[E402]") == 1, (what, ended.err)
    return True


@pytest.mark.slow
def test_a_training(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    calls = calls_of(nursery, *training.options(data, tmp_path / "whole"), *SHORT)
    expected, refused = training.end_of(tmp_path / "whole"), 0
    command = (*training.options(data, tmp_path)[:-2], *SHORT, "--output", tmp_path / "runs")
    for what, run_path, ended in failing(nursery, calls, *command):
        refused += is_refused_or_harmless(what, ended, good=0)
        is_ours_or_gone(run_path)
        assert "unlink" in what or not list(run_path.rglob(".tmp-*")), what
        if ended.code:
            ended = nursery.run("command", *training.resuming(data, run_path), *SHORT)
            assert ended.code == 0, (what, ended.err)
        assert not training.differences(training.end_of(run_path), expected), what
        shutil.rmtree(run_path)
    record(
        "R7",
        "training",
        f"{len(calls)} of {len(calls)} failing calls: nothing half-written, {refused} exit with 4"
        f" ({len(calls) - refused} are harmless), all finished bit-equal afterwards",
    )


@pytest.mark.slow
def test_a_batch(nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    for name in ("a", "b/c"):
        samples.write_csv(tmp_path / "in" / f"{name}.csv", samples.rows(seed=len(name)))
    samples.write_csv(tmp_path / "in" / "bad.csv", samples.rows()[:3])
    command = ("forecast", "--model", model, "--input", tmp_path / "in", "--no-progress", "--output")
    calls, refused = calls_of(nursery, *command, tmp_path / "whole"), 0
    expected = samples.files_in(tmp_path / "whole")
    for what, output, ended in failing(nursery, calls, *command, tmp_path / "out"):
        refused += is_refused_or_harmless(what, ended, good=3)
        there = samples.files_in(output).items()
        assert {item for item in there if not ("unlink" in what and ".tmp-" in item[0])} <= expected.items(), what
        assert nursery.run("command", *command, output).code == 3
        assert samples.files_in(output) == expected, what
    record("R7", "batch", f"{len(calls)} of {len(calls)} failing calls: nothing half-written, {refused} exit with 4")


@pytest.mark.slow
def test_quantizing(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    assert nursery.run("command", *training.options(data, tmp_path / "run"), *SHORT).code == 0
    quiet = ("--no-tracking", "--no-progress", "--max-degradation", "99%")
    command = ("quantize", "--model", tmp_path / "run" / "model", *quiet, "--output")
    calls, refused = calls_of(nursery, *command, tmp_path / "whole" / "small"), 0
    expected = samples.files_in(tmp_path / "whole" / "small")
    for what, target, ended in failing(nursery, calls, *command, tmp_path / "out"):
        refused += is_refused_or_harmless(what, ended, good=0)
        assert samples.files_in(target) in ({}, expected), what
        assert bool(ended.code) != target.exists(), what
    assert nursery.run("command", *command, tmp_path / "again").code == 0
    record("R7", "quantize", f"{len(calls)} of {len(calls)} failing calls: never half a model, {refused} exit with 4")


@pytest.mark.slow
def test_a_disk_that_is_really_full(nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    """A file system of its own, on which the batch does not fit."""
    samples.write_tables(tmp_path / "in", 400)
    command = ("forecast", "--model", model, "--input", tmp_path / "in", "--no-progress", "--output", "out")
    ended = nursery.run("on_a_small_disk", "400k", *command)
    if ended.code == NO_DISK:
        pytest.skip("this machine lets nobody mount a file system in a name space of his own")
    assert (ended.code, ended.err.count("error[E402]")) == (4, 1), ended.err
    assert "No space left on device" in ended.err
    tables = [line for line in ended.out.splitlines() if line.startswith("table")]
    assert tables
    assert set(tables) == {f"table {samples.STEPS + 1}"}, "whole ones only"
    assert "left over 0" in ended.out
    record("R7", "full disk", f"a batch that outgrows its disk: exit code 4, {len(tables)} tables are there, all whole")


def test_a_folder_that_nobody_may_write_to_is_found_before_the_first_step(
    nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    ended = nursery.run("stepping", "0", *training.options(data, Path("/proc/nowhere/run")))
    assert (ended.code, ended.err.count("error[E402]")) == (4, 1), ended.err
    assert "step" not in ended.out
    record("R7", "unwritable folder", "refused with 4 before the first step")
