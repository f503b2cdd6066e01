"""Checkpoints on the disk: whole or not there, never more of them than needed, and never taken for another run's."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stanhop import storage
from stanhop.config import RunConfig, TrackingConfig
from stanhop.errors import Code, MachineError, ModelError
from stanhop.storage import sha256_of
from stanhop.training.checkpoint import AtomicCheckpointIO, CheckpointFolder, Identity, read_manifest

DATA = "ab" * 32


CONFIG = RunConfig.model_validate({"train": {"learning_rate": 0.125}, "model": {"dropout": 0.25}})


def identity_of(config: RunConfig = CONFIG, *, data_sha256: str = DATA) -> Identity:
    return Identity.of(config, data_sha256=data_sha256)


def folder_of(path: Path, identity: Identity | None = None) -> CheckpointFolder:
    return CheckpointFolder(path, identity=identity or identity_of())


def save(folder: CheckpointFolder, step: int, *, is_best: bool = False) -> Path:
    """Add a checkpoint whose one weight is ``step``."""
    writer, path = AtomicCheckpointIO(), folder.path_of(step)
    writer.save_checkpoint({"state_dict": {"weight": torch.tensor([float(step)])}}, path)
    folder.add(path, step=step, is_best=is_best, sha256=writer.sha256)
    return path


def names(folder: CheckpointFolder) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.path.glob("*.ckpt"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    checkpoint = {"weights": torch.arange(3.0), "numbers": [1, 2.5, None, True, "x"], "nested": {"a": (1, 2)}}
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(checkpoint, tmp_path / "a.ckpt")
    loaded = writer.load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(loaded.pop("weights"), checkpoint["weights"])  # type: ignore[arg-type]  # it is a tensor
    assert loaded == {key: value for key, value in checkpoint.items() if key != "weights"}
    assert writer.sha256 == sha256_of((tmp_path / "a.ckpt").read_bytes())


@dataclass
class SomethingElse:
    """Neither a tensor nor a plain value."""


@pytest.mark.parametrize("value", [SomethingElse(), Path("a"), np.float64(1)], ids=["object", "path", "numpy"])
def test_what_could_not_be_loaded_is_refused_when_it_is_saved(value: object, tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().save_checkpoint({"value": value}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o777)


@pytest.mark.parametrize("weights_only", [True, False, None])
def test_no_code_in_a_checkpoint_runs_whatever_is_asked_for(
    weights_only: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"value": Canary(tmp_path / "canary")}, tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match="no checkpoint of tensors and plain values"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=weights_only)
    assert not (tmp_path / "canary").exists()


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, tmp_path / "a.ckpt")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(MachineError, match="No space left on device") as caught:
        writer.save_checkpoint({"step": 2}, tmp_path / "a.ckpt")
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert writer.load_checkpoint(tmp_path / "a.ckpt") == {"step": 1}


def test_only_the_current_the_previous_and_their_best_are_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    best_steps = {10, 20, 50}
    kept = []
    for step in range(10, 80, 10):
        save(folder, step, is_best=step in best_steps)
        kept.append(names(folder))
    assert kept == [[10], [10, 20], [20, 30], [20, 30, 40], [20, 40, 50], [50, 60], [50, 60, 70]]
    assert folder.best_weights()["weight"].tolist() == [50.0]


def test_before_the_first_epoch_there_is_no_best(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(folder, 3)
    assert read_manifest(tmp_path).files["step-00000003.ckpt"].best is None


def test_a_new_process_goes_on_from_the_newest(tmp_path: Path) -> None:
    first = folder_of(tmp_path)
    first.run_id = "abc"
    save(first, 10, is_best=True)
    save(first, 20)
    second = folder_of(tmp_path)
    assert second.resume() == second.path_of(20)
    assert second.run_id == "abc"
    save(second, 30)
    assert names(second) == [10, 20, 30]
    assert second.best_weights()["weight"].tolist() == [10.0]


def test_a_checkpoint_that_the_manifest_does_not_know_is_not_used(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(folder, 10)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, folder.path_of(20))  # killed before the manifest
    again = folder_of(tmp_path)
    assert again.resume() == again.path_of(10)
    save(again, 30)
    assert names(again) == [10, 30]


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(tmp_path)
    save(folder, 10, is_best=True)
    damage(save(folder, 20, is_best=True))
    again = folder_of(tmp_path)
    assert again.resume() == again.path_of(10)
    assert "step-00000020.ckpt is missing or damaged; going on from step-00000010.ckpt" in caplog.text
    assert again.best_weights()["weight"].tolist() == [10.0], "the best of then, not the one of the damaged future"
    save(again, 20, is_best=True)
    assert again.best_weights()["weight"].tolist() == [20.0]


def test_a_checkpoint_whose_best_is_damaged_is_passed_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(folder, 10, is_best=True)
    best = save(folder, 20, is_best=True)
    save(folder, 30)
    flip_a_bit(best)
    with pytest.raises(ModelError, match="all checkpoints are missing or damaged"):
        folder_of(tmp_path).resume()


def test_when_all_are_damaged_that_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for step in (10, 20):
        flip_a_bit(save(folder, step))
    with pytest.raises(ModelError, match="all checkpoints are missing or damaged; start a new run") as caught:
        folder_of(tmp_path).resume()
    assert (caught.value.code, caught.value.exit_code, caught.value.file) == (Code.CHECKPOINT, 2, str(tmp_path))


def test_no_checkpoint_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint to go on from"):
        folder_of(tmp_path).resume()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-40],
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
        lambda text: text.replace("step-00000010.ckpt", "../../secrets.ckpt"),
        lambda text: text.replace('"run_id"', '"other": 1, "run_id"'),
        lambda text: "",
    ],
    ids=["cut", "version", "path", "unknown key", "empty"],
)
def test_a_manifest_that_is_not_ours_is_refused(change: Callable[[str], str], tmp_path: Path) -> None:
    save(folder_of(tmp_path), 10)
    path = tmp_path / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ModelError, match="is damaged") as caught:
        folder_of(tmp_path).resume()
    assert caught.value.file == str(path)


def test_a_file_that_changed_on_its_way_to_the_disk_is_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder.path_of(10)
    AtomicCheckpointIO().save_checkpoint({}, path)
    with pytest.raises(ModelError, match="is not what was written"):
        folder.add(path, step=10, is_best=False, sha256="00" * 32)


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    save(folder_of(tmp_path), 10)
    other = RunConfig.model_validate({"train": {"learning_rate": 0.5}, "model": {"dropout": 0.0}})
    with pytest.raises(ModelError) as caught:
        folder_of(tmp_path, identity_of(other)).resume()
    assert caught.value.exit_code == 2
    assert "model.dropout was 0.25 and is now 0.0" in caught.value.message
    assert "train.learning_rate was 0.125 and is now 0.5" in caught.value.message
    assert "data" not in caught.value.message.partition(": ")[2]


def test_other_data_are_refused(tmp_path: Path) -> None:
    save(folder_of(tmp_path), 10)
    with pytest.raises(ModelError, match=r"the data had sha256 abababababab… and have now cdcdcdcdcdcd…"):
        folder_of(tmp_path, identity_of(data_sha256="cd" * 32)).resume()


def test_how_a_run_is_recorded_may_change(tmp_path: Path) -> None:
    save(folder_of(tmp_path), 10)
    other = CONFIG.model_copy(update={"tracking": TrackingConfig(enabled=False, uri="http://ada:secret@there")})
    assert folder_of(tmp_path, identity_of(other)).resume() == tmp_path / "step-00000010.ckpt"
    assert "secret" not in (tmp_path / "manifest.json").read_text()


def test_other_threads_and_versions_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = identity_of()
    save(folder_of(tmp_path, started.model_copy(update={"num_threads": 77})), 10)
    folder_of(tmp_path).resume()
    assert f"number of threads differ from the start of the run (77, now {torch.get_num_threads()})" in caplog.text
    caplog.clear()
    save(folder_of(tmp_path, started.model_copy(update={"versions": {"torch": "1.0"}})), 10)
    folder_of(tmp_path).resume()
    assert "versions differ" in caplog.text


def test_strictly_other_threads_are_refused(tmp_path: Path) -> None:
    save(folder_of(tmp_path), 10)
    identity = folder_of(tmp_path)._identity.model_copy(update={"num_threads": 77})
    with pytest.raises(ModelError, match=r"number of threads differ.*leave --strict-resume out"):
        CheckpointFolder(tmp_path, identity=identity, is_strict=True).resume()


def test_clearing_leaves_other_files_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(folder, 10)
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_manifest_is_safe_before_a_file_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    events: list[str] = []
    replace, unlink = Path.replace, Path.unlink
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append(f"put {to.name}"), replace(path, to))[1])
    monkeypatch.setattr(
        Path, "unlink", lambda path, **options: (events.append(f"delete {path.name}"), unlink(path, **options))[1]
    )
    for step in (1, 2, 3):
        save(folder, step)
    assert events[-3:] == ["put step-00000003.ckpt", "put manifest.json", "delete step-00000001.ckpt"]


def test_the_manifest_names_what_it_needs(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(folder, 10, is_best=True)
    path = save(folder, 20)
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert (document["current"], document["previous"]) == ("step-00000020.ckpt", "step-00000010.ckpt")
    assert document["files"]["step-00000020.ckpt"] == {
        "sha256": sha256_of(path.read_bytes()),
        "step": 20,
        "best": "step-00000010.ckpt",
    }
    assert document["identity"]["data_sha256"] == DATA
    assert document["identity"]["config"]["model.dropout"] == 0.25
    assert torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
