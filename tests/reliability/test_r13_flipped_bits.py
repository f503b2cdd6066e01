"""R13: a model directory or checkpoint in which a bit has changed, or that is cut short, is never accepted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stanhop.errors import ModelError
from stanhop.forecasting.bundle import load_bundle
from stanhop.training.checkpoint import CheckpointFolder, read_manifest
from tests.reliability.kit import samples, training
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import sizes


def accepted(file: Path, loads: Callable[[], object], *, num_flips: int, num_cuts: int) -> list[str]:
    """Damage ``file`` again and again; which damages ``loads`` let pass."""
    moment, whole, passed = random.Random(file.name), file.read_bytes(), []
    for number in range(num_flips + num_cuts):
        place = moment.randrange(len(whole))
        if number < num_flips:
            damaged = whole[:place] + bytes([whole[place] ^ (1 << moment.randrange(8))]) + whole[place + 1 :]
        else:
            damaged = whole[:place]
        file.write_bytes(damaged)
        with suppress(ModelError):
            loads()
            passed.append(f"{file.name}: {'bit' if number < num_flips else 'cut'} at {place}")
    file.write_bytes(whole)
    loads()
    return passed


@pytest.mark.parametrize("count", sizes(default=40, full=700, soak=7_000))
def test_no_damage_to_a_model_is_accepted(
    count: int, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    copy = Path(shutil.copytree(model, fast_folder / "model"))
    num_flips, passed = count * 5 // 7, []
    for file in sorted(copy.iterdir()):
        passed += accepted(file, lambda: load_bundle(copy), num_flips=num_flips, num_cuts=count - num_flips)
    assert not passed
    record("R13", "model", f"{num_flips} flipped bits and {count - num_flips} cuts of each of its 4 files: 0 accepted")


@pytest.mark.parametrize("count", sizes(full=700, soak=7_000))
def test_no_damage_to_a_checkpoint_is_accepted(
    count: int, nursery: Nursery, fast_folder: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(fast_folder / "sales.csv", samples.rows(100))
    run_path = fast_folder / "run"
    assert nursery.run("command", *training.options(data, run_path), "--epochs", "1").code == 0
    folder = run_path / "checkpoints"
    manifest = read_manifest(folder)
    assert manifest.previous is None, "nothing to fall back on"

    def loads() -> None:
        CheckpointFolder(folder, identity=manifest.identity).resume()

    num_flips, passed = count * 5 // 7, []
    for name in (manifest.current, "manifest.json"):
        passed += accepted(folder / name, loads, num_flips=num_flips, num_cuts=count - num_flips)
    assert not passed
    record("R13", "checkpoint", f"{num_flips} flipped bits and {count - num_flips} cuts of file and manifest: 0 loaded")
