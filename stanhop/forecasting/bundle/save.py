"""Writing a model directory, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from stanhop.errors import Code, OutputError, masked
from stanhop.forecasting.bundle.bundle import Bundle
from stanhop.forecasting.bundle.files import CONFIG, INTERVALS, LARGEST_FILES, MANIFEST, SCALERS, json_bytes
from stanhop.forecasting.bundle.load import assemble, load_bundle
from stanhop.forecasting.bundle.manifest import manifest_bytes, parse_manifest
from stanhop.forecasting.bundle.network import network_file
from stanhop.forecasting.intervals import Intervals
from stanhop.model.int8 import Quantization
from stanhop.storage import sha256_of, write_directory


def save_bundle(path: Path, bundle: Bundle, *, overwrite: bool = False) -> None:
    """Write ``bundle`` as the directory ``path``, whole or not at all, and prove that it loads.

    Args:
        path: The model directory.
        bundle: What to write; its tensors may live on any device.
        overwrite: Replace a model directory that is there (and nothing else).

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is off, or it is no model directory.
        ModelError: the bundle does not hold together, for example a weight is not finite; nothing is written then.
        MachineError: the disk is full or the folder is not writable.
    """
    if overwrite:
        _refuse_to_replace_other_things(path)
    contents = _contents(bundle)
    manifest = manifest_bytes(contents, bundle)
    assemble(parse_manifest(manifest, file=path / MANIFEST), contents, directory=path)
    write_directory(path, {**contents, MANIFEST: manifest}, overwrite=overwrite)
    load_bundle(path)


def bundle_digest(bundle: Bundle) -> str:
    """SHA-256 over everything in ``bundle`` that decides its forecasts: configuration, weights and scalers."""
    contents = _contents(bundle)
    return sha256_of("".join(sha256_of(contents[name]) for name in sorted(contents)).encode())


def bundle_bytes(bundle: Bundle) -> int:
    """Bytes of the directory that ``save_bundle`` would write."""
    contents = _contents(bundle)
    return sum(map(len, contents.values())) + len(manifest_bytes(contents, bundle))


def _refuse_to_replace_other_things(path: Path) -> None:
    """Overwriting deletes what was there, so it must be a model directory that holds nothing else."""
    if not os.path.lexists(path):
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {str(path)}
    is_model = MANIFEST in names and names <= {MANIFEST, *LARGEST_FILES}
    if names and not is_model:
        problem = "is not a model directory, or holds other files, so it is not replaced"
        raise OutputError(Code.OUTPUT, problem, fix="choose another name", file=path)


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """Every file but the manifest, by name."""
    tracking_uri = bundle.config.tracking.uri
    tracking = bundle.config.tracking.model_copy(update={"uri": tracking_uri and masked(tracking_uri)})
    config = {
        "run": bundle.config.model_copy(update={"tracking": tracking}).model_dump(mode="json"),
        "num_channels": bundle.num_channels,
        "channels": list(bundle.channels),
        "frequency": bundle.frequency,
        "layout": asdict(bundle.layout),
        **({} if bundle.quantization is None else {"quantization": _without_default(bundle.quantization)}),
    }
    scalers = {"scalers": {series_id: scaler.to_plain() for series_id, scaler in bundle.scalers.items()}}
    contents = {CONFIG: json_bytes(config), **network_file(bundle.network), SCALERS: json_bytes(scalers)}
    return contents if bundle.intervals is None else {**contents, INTERVALS: _intervals_bytes(bundle.intervals)}


def _intervals_bytes(intervals: Intervals) -> bytes:
    plain = {
        "levels": list(intervals.levels),
        "lower": intervals.lower.tolist(),
        "upper": intervals.upper.tolist(),
        "floor": intervals.floor.tolist(),
        "num_windows": intervals.num_windows,
    }
    return (json.dumps(plain) + "\n").encode("ascii")  # a line a number would double the file


def _without_default(quantization: Quantization) -> dict[str, str]:
    """As plain data; the runtime of all directories before there were two of them is left out."""
    return {key: value for key, value in asdict(quantization).items() if (key, value) != ("runtime", "torch")}
