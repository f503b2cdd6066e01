"""Reading a model directory: nothing is taken from it that was not checked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stanhop.errors import Code, ModelError, quoted
from stanhop.forecasting.bundle.bundle import Bundle
from stanhop.forecasting.bundle.files import (
    CONFIG,
    INTERVALS,
    MANIFEST,
    RESTORE,
    SCALERS,
    BundleConfig,
    IntervalsFile,
    Offsets,
    ScalerFile,
    validated,
)
from stanhop.forecasting.bundle.manifest import (
    LARGEST_MANIFEST,
    FileEntry,
    Manifest,
    format_version,
    network_file_name,
    parse_manifest,
)
from stanhop.forecasting.bundle.network import read_network
from stanhop.forecasting.intervals import Intervals
from stanhop.forecasting.strangers import warn_of_strangers
from stanhop.model.int8 import Quantization
from stanhop.series.frame import Layout
from stanhop.series.scaling import Scaler
from stanhop.storage import sha256_of


def load_bundle(path: Path | str) -> Bundle:
    """Read the model directory ``path``; the network comes back on the CPU, in evaluation mode.

    Checked in this order: the manifest; sizes and SHA-256 of the files; the configuration (a closed schema with a cap
    on every number); that its network is not larger than the weights are; their names, shapes and types; and that
    every one is finite.

    Raises:
        ModelError: it is not a local model directory, is of another format version, or is damaged.
    """
    directory = _local_directory(path)
    content = _read(directory / MANIFEST, largest=LARGEST_MANIFEST)
    manifest = parse_manifest(content, file=directory / MANIFEST)
    contents = {name: _read_listed(directory / name, entry) for name, entry in manifest.files.items()}
    warn_of_strangers(directory, (MANIFEST, *contents))
    return assemble(manifest, contents, directory=directory)


def assemble(manifest: Manifest, contents: Mapping[str, bytes], *, directory: Path) -> Bundle:
    """A bundle of files whose checksums are right; ``directory`` names them in errors."""
    config = validated(BundleConfig, contents[CONFIG], file=directory / CONFIG)
    scalers = _parse_scalers(contents[SCALERS], config, file=directory / SCALERS)
    version = format_version(config.quantization, scalers, has_intervals=INTERVALS in contents)
    if version != manifest.format_version or network_file_name(config.quantization) not in contents:
        problem = f"format version {manifest.format_version} does not go with the other files"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=directory / MANIFEST)
    intervals = _parse_intervals(contents[INTERVALS], config, directory / INTERVALS) if INTERVALS in contents else None
    return Bundle(
        config=config.run,
        num_channels=config.num_channels,
        channels=config.channels,
        frequency=config.frequency,
        layout=Layout(**config.layout.model_dump()),
        scalers=scalers,
        network=read_network(config, contents, directory=directory),
        fingerprint=manifest.fingerprint,
        versions=manifest.versions,
        quantization=None if config.quantization is None else Quantization(**config.quantization.model_dump()),
        intervals=intervals,
    )


def _parse_intervals(content: bytes, config: BundleConfig, file: Path) -> Intervals:
    found = validated(IntervalsFile, content, file=file)
    expected = (len(found.levels), config.run.model.prediction_length, config.num_channels)
    arrays = [_array(offsets) for offsets in (found.lower, found.upper)]
    if any(array is None or array.shape != expected for array in arrays) or len(found.floor) != config.num_channels:
        problem = f"intervals are not those of {expected[0]} levels, {expected[1]} steps and {expected[2]} channels"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    lower, upper = (array for array in arrays if array is not None)
    return Intervals(found.levels, lower, upper, np.array(found.floor), num_windows=found.num_windows)


def _array(offsets: Offsets) -> NDArray[np.float64] | None:
    """``offsets`` as an array; None if they are not rectangular."""
    try:
        return np.array(offsets, dtype=np.float64)
    except ValueError:
        return None


def _parse_scalers(content: bytes, config: BundleConfig, *, file: Path) -> dict[str, Scaler]:
    scalers = validated(ScalerFile, content, file=file).scalers
    for series_id, entry in scalers.items():
        if len(entry.mean) != config.num_channels or len(entry.deviation) != config.num_channels:
            problem = f"the scaler of series {quoted(series_id)} is not one of {config.num_channels} channels"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    return {
        series_id: Scaler.from_plain(entry.model_dump(mode="json", exclude_none=True))
        for series_id, entry in scalers.items()
    }


def _local_directory(path: Path | str) -> Path:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        fix = "download the model directory and give the path of the copy"
        raise ModelError(Code.MODEL, "is an address; models are loaded from local paths only", fix=fix, file=path)
    directory = Path(path)
    if not os.path.lexists(directory):
        raise ModelError(Code.MODEL, "no such model directory", fix="give the folder that train wrote", file=path)
    if not directory.is_dir():
        fix = "give the folder that holds manifest.json; checkpoints only resume a training"
        raise ModelError(Code.MODEL, "is not a stanhop model: a model is a folder", fix=fix, file=path)
    if not os.path.lexists(directory / MANIFEST):
        fix = "give the folder that train wrote"
        raise ModelError(Code.MODEL, f"is not a stanhop model: it holds no {MANIFEST}", fix=fix, file=path)
    return directory


def _read(file: Path, *, largest: int) -> bytes:
    """The bytes of a regular file, at most ``largest``; a symlink is refused, a pipe does not block."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelError(Code.MODEL_DAMAGED, "is not a regular file", fix=RESTORE, file=file)
            content = opened.read(largest + 1)
    except OSError as error:
        problem = "is a symlink" if file.is_symlink() else f"cannot read: {error.strerror or quoted(error)}"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file) from None
    if len(content) > largest:
        raise ModelError(Code.MODEL_DAMAGED, f"has more than {largest:,} bytes", fix=RESTORE, file=file)
    return content


def _read_listed(file: Path, entry: FileEntry) -> bytes:
    content = _read(file, largest=entry.size)
    if len(content) < entry.size:
        problem = f"is cut short: {len(content):,} of {entry.size:,} bytes"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file)
    if sha256_of(content) != entry.sha256:
        problem = "is damaged: its SHA-256 is not the one in the manifest"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file)
    return content
