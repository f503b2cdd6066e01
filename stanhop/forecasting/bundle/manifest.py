"""``manifest.json``: which files a model directory has, with size and SHA-256, and in which format they are."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from stanhop import __version__
from stanhop.config import Section
from stanhop.errors import Code, ModelError
from stanhop.forecasting.bundle.bundle import Bundle
from stanhop.forecasting.bundle.files import (
    CONFIG,
    INTERVALS,
    LARGEST_FILES,
    ONNX,
    RESTORE,
    SCALERS,
    WEIGHTS,
    QuantizationEntry,
    json_bytes,
    validated,
)
from stanhop.model.int8 import Quantization
from stanhop.series.scaling import Scaler
from stanhop.storage import sha256_of

FLOAT_FORMAT, INT8_FORMAT, INTERVALS_FORMAT, ONNX_FORMAT, SEASONAL_FORMAT = 1, 2, 3, 4, 5
"""Of directories with floats, with int8, with intervals and either, with an ONNX file, with intervals or without, and
with a seasonal profile and any of these: a program that cannot read one says so."""
LARGEST_MANIFEST = 2**20


class FileEntry(Section):
    """What the manifest says about one file."""

    size: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Section):
    """``manifest.json``; the format versions are those named above."""

    format_version: Literal[1, 2, 3, 4, 5]
    files: dict[str, FileEntry]
    versions: dict[str, str]
    fingerprint: str
    checksum: str

    @model_validator(mode="after")
    def _lists_the_files_of_this_format(self) -> Self:
        is_onnx = self.format_version == ONNX_FORMAT or (self.format_version == SEASONAL_FORMAT and ONNX in self.files)
        asked = {CONFIG, ONNX if is_onnx else WEIGHTS, SCALERS}
        asked |= {INTERVALS} if self.format_version == INTERVALS_FORMAT else set()
        allowed = asked | ({INTERVALS} if self.format_version >= ONNX_FORMAT else set())
        if not asked <= set(self.files) <= allowed:
            raise ValueError(f"lists {sorted(self.files)}, not {sorted(asked)}")
        for name, entry in self.files.items():
            if entry.size > LARGEST_FILES[name]:
                raise ValueError(f"{name} claims {entry.size:,} bytes, more than the {LARGEST_FILES[name]:,} allowed")
        return self


def network_file_name(quantization: Quantization | QuantizationEntry | None) -> str:
    """The file that holds the network."""
    return ONNX if quantization is not None and quantization.runtime == "onnxruntime" else WEIGHTS


def format_version(
    quantization: Quantization | QuantizationEntry | None, scalers: Mapping[str, Scaler], *, has_intervals: bool
) -> int:
    """The format of a directory, by what is in it."""
    if any(scaler.profile is not None for scaler in scalers.values()):
        return SEASONAL_FORMAT
    if network_file_name(quantization) == ONNX:
        return ONNX_FORMAT
    if has_intervals:
        return INTERVALS_FORMAT
    return FLOAT_FORMAT if quantization is None else INT8_FORMAT


def manifest_bytes(contents: Mapping[str, bytes], bundle: Bundle) -> bytes:
    """The manifest of ``contents``, every other file of ``bundle`` by name."""
    manifest = {
        "format_version": format_version(bundle.quantization, bundle.scalers, has_intervals=INTERVALS in contents),
        "files": {name: {"size": len(content), "sha256": sha256_of(content)} for name, content in contents.items()},
        "versions": program_versions(),
        "fingerprint": bundle.fingerprint,
    }
    return json_bytes({**manifest, "checksum": sha256_of(json_bytes(manifest))})


def parse_manifest(content: bytes, *, file: Path) -> Manifest:
    """The manifest, after its version and its own checksum.

    The checksum covers the plain values without itself, and the bytes must be exactly those that the values give:
    so no bit of the file can change unnoticed, blanks included.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or "format_version" not in values:
        raise ModelError(Code.MODEL, "is not the manifest of a stanhop model", fix=RESTORE, file=file)
    found = values["format_version"]
    if isinstance(found, int) and found > SEASONAL_FORMAT:
        problem = f"has format version {found}; this program reads up to {SEASONAL_FORMAT}"
        raise ModelError(Code.MODEL, problem, fix="upgrade stanhop", file=file)
    covered = {key: value for key, value in values.items() if key != "checksum"}
    if json_bytes(values) != content or values.get("checksum") != sha256_of(json_bytes(covered)):
        raise ModelError(Code.MODEL_DAMAGED, "is damaged: it does not match its own checksum", fix=RESTORE, file=file)
    return validated(Manifest, content, file=file)


def program_versions() -> dict[str, str]:
    """Versions of this program, of Python, and of the libraries that decide the bits of a forecast."""
    libraries = {name: version(name) for name in ("numpy", "pandas", "safetensors")}
    return {"stanhop": __version__, "python": platform.python_version(), "torch": str(torch.__version__), **libraries}
