"""R4: a process that dies at any one of its changes of the disk loses nothing, and its successor finishes the work."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from stanhop.forecasting.bundle import load_bundle
from stanhop.training.checkpoint import read_manifest
from tests.reliability.kit import samples, training
from tests.reliability.kit.nursery import Nursery

SHORT = ("--epochs", "2")
KINDS: set[str] = set()
"""Every kind of call at which something was killed, over all tests here."""
FEWEST_KINDS = 15


def calls_of(nursery: Nursery, *arguments: object) -> list[str]:
    """What an undisturbed command does to the disk, in order."""
    ended = nursery.run("struck", 0, "kill", *arguments)
    assert ended.code in (0, 3), ended.err
    return [line.removeprefix("call ") for line in ended.out.splitlines() if line.startswith("call ")]


def killed_at(nursery: Nursery, call: int, *arguments: object) -> None:
    ended = nursery.run("struck", call, "kill", *arguments)
    assert ended.code == -signal.SIGKILL, "the call did not come"


def is_ours_or_gone(run_path: Path) -> None:
    """Whatever checkpoint the manifest names is whole, and so is the model if there is one."""
    folder = run_path / "checkpoints"
    if (folder / "manifest.json").exists():
        manifest = read_manifest(folder)
        assert (folder / manifest.current).exists()
    if (run_path / "model").exists():
        load_bundle(run_path / "model")


@pytest.mark.slow
def test_a_training(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    calls = calls_of(nursery, *training.options(data, tmp_path / "whole"), *SHORT)
    expected = training.end_of(tmp_path / "whole")
    for call in range(1, len(calls) + 1):
        run_path = tmp_path / str(call)
        killed_at(nursery, call, *training.options(data, run_path), *SHORT)
        is_ours_or_gone(run_path)
        ended = nursery.run("command", *training.resuming(data, run_path), *SHORT)
        assert ended.code == 0, (calls[call - 1], ended.err)
        assert not training.differences(training.end_of(run_path), expected), calls[call - 1]
        assert not list(run_path.rglob(".tmp-*")), calls[call - 1]
        shutil.rmtree(run_path)
    KINDS.update(f"training: {name}" for name in calls)
    record(
        "R4", "training", f"killed at each of its {len(calls)} changes of the disk: 0 lost, 0 other bits, 0 leftovers"
    )


@pytest.mark.slow
def test_a_batch(nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    for name in ("a", "b/c"):
        samples.write_csv(tmp_path / "in" / f"{name}.csv", samples.rows(seed=len(name)))
    samples.write_csv(tmp_path / "in" / "bad.csv", samples.rows()[:3])
    command = ("forecast", "--model", model, "--input", tmp_path / "in", "--no-progress", "--output")
    calls = calls_of(nursery, *command, tmp_path / "whole")
    expected = samples.files_in(tmp_path / "whole")
    for call in range(1, len(calls) + 1):
        output = tmp_path / str(call)
        killed_at(nursery, call, *command, output)
        half = {name: content for name, content in samples.files_in(output).items() if ".tmp-" not in name}
        assert half.items() <= expected.items(), calls[call - 1]
        assert nursery.run("command", *command, output).code == 3
        assert samples.files_in(output) == expected, calls[call - 1]
    KINDS.update(f"batch: {name}" for name in calls)
    record("R4", "batch", f"killed at each of its {len(calls)} changes of the disk: 0 lost, 0 doubled, 0 leftovers")


@pytest.mark.slow
def test_a_model_directory_that_is_replaced(
    nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]
) -> None:
    old, new = samples.files_in(model), tmp_path / "new"
    samples.save_model(new)
    config = (new / "config.json").read_bytes()
    ended = nursery.run("overwriting", 0, "kill", new, shutil.copytree(model, tmp_path / "count" / "model"))
    num_calls = int(ended.out.split()[-1])
    for call in range(1, num_calls + 1):
        target = Path(shutil.copytree(model, tmp_path / str(call) / "model"))
        assert nursery.run("overwriting", call, "kill", new, target).code == -signal.SIGKILL
        if target.exists():
            load_bundle(target)
        else:  # between the two renames: the old one stands beside, whole
            (aside,) = target.parent.glob("*-was-model")
            assert samples.files_in(aside) == old
        assert nursery.run("overwriting", 0, "kill", new, target).code == 0
        assert (target / "config.json").read_bytes() == config
        assert [path.name for path in target.parent.iterdir()] == ["model"], "a leftover"
    KINDS.update(f"model: {number}" for number in range(num_calls))
    record("R4", "model directory", f"replacement killed at each of {num_calls} changes of the disk: old or new, whole")


@pytest.mark.slow
def test_quantizing(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    assert nursery.run("command", *training.options(data, tmp_path / "run"), *SHORT).code == 0
    command = (
        "quantize",
        "--model",
        tmp_path / "run" / "model",
        "--no-tracking",
        "--no-progress",
        "--max-degradation",
        "99%",
    )
    calls = calls_of(nursery, *command, "--output", tmp_path / "whole" / "small")
    expected = samples.files_in(tmp_path / "whole" / "small")
    for call in range(1, len(calls) + 1):
        target = tmp_path / str(call) / "small"
        killed_at(nursery, call, *command, "--output", target)
        if target.exists():
            load_bundle(target)
        ended = nursery.run("command", *command, "--overwrite", "--output", target)
        assert ended.code == 0, ended.err
        assert samples.files_in(target) == expected
    KINDS.update(f"quantize: {name}" for name in calls)
    record("R4", "quantize", f"killed at each of its {len(calls)} changes of the disk: never half a model")


@pytest.mark.slow
def test_enough_kinds_of_calls_were_struck(request: pytest.FixtureRequest) -> None:
    if request.session.testscollected < 4:
        pytest.skip("only meaningful after the others")
    assert len(KINDS) >= FEWEST_KINDS
