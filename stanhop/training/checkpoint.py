"""Checkpoints to resume from, never to deploy: written whole or not at all, listed in a manifest, checked on reading.

A checkpoint holds tensors and plain values only, and is only ever read with ``weights_only=True``.  The manifest names
the current and the previous one; a file is deleted after the manifest that no longer needs it is safely on the disk.
"""

from __future__ import annotations

import io
import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins import CheckpointIO
from pydantic import Field

import stanhop
from stanhop.config import RunConfig, Section, flatten
from stanhop.errors import Code, ModelError, quoted
from stanhop.forecasting.forecaster import is_out_of_memory
from stanhop.storage import remove_file, sha256_of, sha256_of_file, write_bytes, write_text

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
START_AGAIN = "start a new run in another --output folder"
NAME_PATTERN = r"^step-\d{8,}\.ckpt$"


class Identity(Section):
    """What a run must have in common with its checkpoints to go on from them."""

    config: dict[str, Any]
    """Every key but those of tracking, by its dotted name."""
    data_sha256: str
    num_threads: int
    versions: dict[str, str]

    @classmethod
    def of(cls, config: RunConfig, *, data_sha256: str) -> Identity:
        """That of a run of ``config`` on these data, by this process."""
        values = flatten(config.model_dump(mode="json"))
        return cls(
            config={key: value for key, value in values.items() if not key.startswith("tracking.")},
            data_sha256=data_sha256,
            num_threads=torch.get_num_threads(),
            versions={
                "stanhop": stanhop.__version__,
                "torch": str(torch.__version__),
                "pytorch_lightning": version("pytorch_lightning"),
                "python": platform.python_version(),
            },
        )

    def check_resumes(self, started: Identity, *, file: Path, is_strict: bool = False) -> None:
        """Refuse to go on from a run that ``started`` otherwise; where only the last bits may differ, warn.

        Raises:
            ModelError: keys of the configuration or the data differ; if ``is_strict``, also threads and versions.
        """
        keys = sorted({*self.config, *started.config})
        differences = [
            f"{key} was {started.config.get(key)!r} and is now {self.config.get(key)!r}"
            for key in keys
            if self.config.get(key) != started.config.get(key)
        ]
        if self.data_sha256 != started.data_sha256:
            differences.append(f"the data had sha256 {started.data_sha256[:12]}… and have now {self.data_sha256[:12]}…")
        if differences:
            problem = f"the run was started otherwise: {'; '.join(differences)}"
            raise ModelError(
                Code.CHECKPOINT, problem, fix=f"give what it was started with, or {START_AGAIN}", file=file
            )
        for name, then, now in (
            ("number of threads", started.num_threads, self.num_threads),
            ("versions", started.versions, self.versions),
        ):
            if then == now:
                continue
            problem = f"{name} differ from the start of the run ({then}, now {now}): last bits may differ"
            if is_strict:
                fix = "resume with what it was started with, or leave --strict-resume out"
                raise ModelError(Code.CHECKPOINT, problem, fix=fix, file=file)
            logger.warning("%s", problem)


class Entry(Section):
    """What the manifest says about one file."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    step: int = Field(ge=0)
    best: str | None = Field(pattern=NAME_PATTERN)
    """Name of the file with the lowest validation loss when this one was written."""


class Manifest(Section):
    """``checkpoints/manifest.json``."""

    format_version: Literal[1] = 1
    current: str = Field(pattern=NAME_PATTERN)
    previous: str | None = Field(pattern=NAME_PATTERN)
    files: dict[str, Entry]
    identity: Identity
    run_id: str | None
    """MLflow's id of the run."""


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        path: The folder.
        identity: What the run must have in common with them.
        is_strict: Whether to refuse to go on where the last bits may differ.
    """

    def __init__(self, path: Path, *, identity: Identity, is_strict: bool = False) -> None:
        self._is_strict = is_strict
        self.path = path
        self.run_id: str | None = None
        """MLflow's id of the run, kept so that a resumed run goes on in the same record."""
        self._identity = identity
        self._manifest: Manifest | None = None

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of ``step`` goes."""
        return self.path / f"step-{step:08d}.ckpt"

    def resume(self) -> Path:
        """The newest sound checkpoint.

        Raises:
            ModelError: there is none, all are damaged, or they are of a run that was started otherwise.
        """
        manifest = read_manifest(self.path)
        self._identity.check_resumes(manifest.identity, file=self.path / MANIFEST, is_strict=self._is_strict)
        candidates = [name for name in (manifest.current, manifest.previous) if name is not None]
        sound = [name for name in candidates if self._is_sound(manifest, name)]
        if not sound:
            raise ModelError(Code.CHECKPOINT, "all checkpoints are missing or damaged", fix=START_AGAIN, file=self.path)
        if sound[0] != manifest.current:
            logger.warning("%s is missing or damaged; going on from %s", self.path / manifest.current, sound[0])
            manifest = manifest.model_copy(update={"current": sound[0], "previous": None})
        self._manifest, self.run_id = manifest, manifest.run_id
        return self.path / manifest.current

    def add(self, path: Path, *, step: int, is_best: bool, sha256: str) -> None:
        """List the checkpoint that was just written to ``path`` as the current one, and delete what is not needed.

        Args:
            path: The file, as ``path_of`` named it.
            step: Steps done.
            is_best: Whether it has the lowest validation loss so far.
            sha256: Of what was written; the file must still have it.

        Raises:
            ModelError: the file is not what was written.
            MachineError: the manifest cannot be written.
        """
        if sha256_of_file(path) != sha256:
            fix = "check the disk, or choose another one"
            raise ModelError(Code.CHECKPOINT, "is not what was written", fix=fix, file=path)
        before = self._manifest
        files = {} if before is None else dict(before.files)
        previous = None if before is None else before.current
        best = path.name if is_best else (None if previous is None else files[previous].best)
        files[path.name] = Entry(sha256=sha256, step=step, best=best)
        needed = {path.name, best, previous, None if previous is None else files[previous].best}
        manifest = Manifest(
            current=path.name,
            previous=previous,
            files={name: entry for name, entry in files.items() if name in needed},
            identity=self._identity,
            run_id=self.run_id,
        )
        write_text(self.path / MANIFEST, _signed(manifest.model_dump(mode="json")))
        self._manifest = manifest
        for file in self.path.glob("step-*.ckpt"):
            if file.name not in manifest.files:
                remove_file(file)

    def clear(self) -> None:
        """Delete the checkpoints of a run that is to be replaced."""
        for path in (self.path / MANIFEST, *self.path.glob("step-*.ckpt")):
            remove_file(path)

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the checkpoint with the lowest validation loss.

        Raises:
            ModelError: the file is damaged.
        """
        manifest = self._manifest
        assert manifest is not None, "training ended without a checkpoint"
        best = manifest.files[manifest.current].best
        assert best is not None, "training ended without an epoch"
        if not self._is_sound(manifest, best):
            raise ModelError(Code.CHECKPOINT, "is missing or damaged", fix=START_AGAIN, file=self.path / best)
        weights: dict[str, torch.Tensor] = _read(self.path / best)["state_dict"]
        return weights

    def _is_sound(self, manifest: Manifest, name: str) -> bool:
        """Whether ``name`` and the best file it counts on are what the manifest says."""
        entry = manifest.files.get(name)
        names = {name} if entry is None or entry.best is None else {name, entry.best}
        return all(
            one in manifest.files
            and (self.path / one).is_file()
            and sha256_of_file(self.path / one) == manifest.files[one].sha256
            for one in names
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(Code.CHECKPOINT, "there is no checkpoint to go on from", fix=START_AGAIN, file=folder)
    try:
        text = path.read_text(encoding="ascii")
        values = json.loads(text)
        checksum = values.pop("checksum", None) if isinstance(values, dict) else None
        if checksum is None or text != _signed(values):
            raise ModelError(Code.CHECKPOINT, "is damaged: it does not match its checksum", fix=START_AGAIN, file=path)
        return Manifest.model_validate_json(json.dumps(values))
    except (ValueError, RecursionError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(Code.CHECKPOINT, f"is damaged: {quoted(error)}", fix=START_AGAIN, file=path) from None


def _signed(values: dict[str, Any]) -> str:
    """``values`` as the text of the manifest; its last key, the SHA-256 of the others, lets no bit change unnoticed."""
    plain = json.dumps(values, indent=2)
    return json.dumps({**values, "checksum": sha256_of(plain.encode("ascii"))}, indent=2) + "\n"


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning's checkpoints reach the disk: serialised and proven to load first, then written whole."""

    def __init__(self) -> None:
        self.sha256 = ""
        """Of the last checkpoint written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            pickle.UnpicklingError: it holds more than tensors and plain values; a defect of the caller.
            MachineError: the disk is full or the folder not writable; what was at ``path`` is still there then.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        torch.load(io.BytesIO(content), weights_only=True)
        write_bytes(Path(path), content)
        self.sha256 = sha256_of(content)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = True) -> Any:
        """Read the local file ``path``, whatever ``weights_only`` says as plain values and tensors on the CPU."""
        return _read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file at ``path``."""
        remove_file(Path(path))


def _read(path: Path) -> dict[str, Any]:
    """The checkpoint at ``path``.

    Raises:
        ModelError: it is none, or holds more than tensors and plain values; nothing of it was run.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parts raise, and a hostile file chooses which
        if is_out_of_memory(error):
            raise
        problem = f"is no checkpoint of tensors and plain values ({type(error).__name__})"
        raise ModelError(Code.CHECKPOINT, problem, fix=START_AGAIN, file=path) from error
    if not isinstance(checkpoint, dict):
        raise ModelError(Code.CHECKPOINT, "is no checkpoint of a training", fix=START_AGAIN, file=path)
    return checkpoint
