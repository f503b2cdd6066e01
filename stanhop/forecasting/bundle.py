"""The model directory: everything that forecasting needs, in files that hold plain data and no code.

``manifest.json`` lists the other files with size and SHA-256, ``config.json`` holds the resolved configuration,
``model.safetensors`` the weights, ``scaler.json`` the scales of every series, and ``intervals.json``, if there is one,
the offsets of prediction intervals.  (A network that ONNX Runtime computes is ``model.onnx`` instead of weights: see
``stanhop.model.onnx``.)  Loading opens no pickle, imports no name found in a file and opens no socket; it never follows
a symlink and never opens a file that the manifest does not list.  Checksums find damage; safety from hostile files
rests on there being no way to run anything.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stanhop import __version__
from stanhop.config import MOST_LEVELS, RunConfig, Section
from stanhop.errors import Code, ModelError, OutputError, masked, quoted
from stanhop.forecasting.intervals import Intervals
from stanhop.forecasting.strangers import warn_of_strangers
from stanhop.model.int8 import Activations, Quantization, Runtime, with_int8_linears
from stanhop.model.network import build_network
from stanhop.model.onnx import OnnxNetwork
from stanhop.series.frame import Layout
from stanhop.series.grid import parse_frequency
from stanhop.series.scaling import Scaler
from stanhop.storage import sha256_of, write_directory

FLOAT_FORMAT, INT8_FORMAT, INTERVALS_FORMAT, ONNX_FORMAT = 1, 2, 3, 4
"""Of directories with floats, with int8, with intervals and either, and with an ONNX file, with intervals or without:
a program that cannot read one says so."""
MANIFEST, CONFIG, SCALERS, INTERVALS = "manifest.json", "config.json", "scaler.json", "intervals.json"
WEIGHTS, ONNX = "model.safetensors", "model.onnx"
LARGEST_FILES = {CONFIG: 2**24, WEIGHTS: 2**34, ONNX: 2**31 - 1, SCALERS: 2**30, INTERVALS: 2**30}
"""The files of a model directory, which has one of ``WEIGHTS`` and ``ONNX``, and the most bytes each may have."""
LARGEST_MANIFEST = 2**20
LARGEST_NUM_CHANNELS = 10_000
"""As many as the reader of tables takes."""
RESTORE = "restore the model directory from a copy, or train again"
ROOM = 1_000_000
"""Elements that any network may have, whatever its weights: 4 MB."""
SomeSection = TypeVar("SomeSection", bound=Section)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network with all that turns a raw history into a forecast in original units.

    Args:
        config: The resolved configuration of the run that made it.
        num_channels: Variates of one series.
        channels: Their names, in the order the network takes them.
        frequency: Step of time, as a pandas alias.
        layout: Layout of the training table.
        scalers: One scaler per series id.
        network: Maps scaled contexts ``(batch, context_length, channels)`` to scaled forecasts
            ``(batch, prediction_length, channels)``.
        fingerprint: SHA-256 of the training data.
        versions: Of the program and libraries that wrote the directory; empty before it is saved.
        quantization: How the linear maps of ``network`` were quantised; None if they are floats.
        intervals: Calibrated prediction intervals; None if there are none.
    """

    config: RunConfig
    num_channels: int
    channels: tuple[str, ...]
    frequency: str
    layout: Layout
    scalers: Mapping[str, Scaler]
    network: nn.Module
    fingerprint: str
    versions: Mapping[str, str] = field(default_factory=dict)
    quantization: Quantization | None = None
    intervals: Intervals | None = None


class FileEntry(Section):
    """What the manifest says about one file."""

    size: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Section):
    """``manifest.json`` of format version 1 (floats), 2 (int8), 3 (with intervals) or 4 (an ONNX file)."""

    format_version: Literal[1, 2, 3, 4]
    files: dict[str, FileEntry]
    versions: dict[str, str]
    fingerprint: str
    checksum: str

    @model_validator(mode="after")
    def _lists_the_files_of_this_format(self) -> Self:
        asked = {CONFIG, ONNX if self.format_version == ONNX_FORMAT else WEIGHTS, SCALERS}
        asked |= {INTERVALS} if self.format_version == INTERVALS_FORMAT else set()
        allowed = asked | ({INTERVALS} if self.format_version == ONNX_FORMAT else set())
        if not asked <= set(self.files) <= allowed:
            raise ValueError(f"lists {sorted(self.files)}, not {sorted(asked)}")
        for name, entry in self.files.items():
            if entry.size > LARGEST_FILES[name]:
                raise ValueError(f"{name} claims {entry.size:,} bytes, more than the {LARGEST_FILES[name]:,} allowed")
        return self


class LayoutEntry(Section):
    """``Layout`` as plain data."""

    kind: Literal["wide", "long"]
    time_column: str
    id_column: str | None
    target_columns: tuple[str, ...]


class QuantizationEntry(Section):
    """``Quantization`` as plain data."""

    scheme: Literal["w8a8", "w8a16", "w8a32"]
    activations: Activations
    runtime: Runtime = "torch"


class BundleConfig(Section):
    """``config.json``: the run's configuration, and what the data added to it."""

    run: RunConfig
    num_channels: PositiveInt = Field(le=LARGEST_NUM_CHANNELS)
    channels: tuple[str, ...]
    frequency: str = Field(max_length=32)
    layout: LayoutEntry
    quantization: QuantizationEntry | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.channels)) != self.num_channels or len(self.channels) != self.num_channels:
            raise ValueError(f"channels must be {self.num_channels} different names, got {len(self.channels)}")
        if parse_frequency(self.frequency) is None:
            raise ValueError(f"frequency {quoted(self.frequency)} is none")
        return self


class ScalerEntry(Section):
    """One ``Scaler`` as plain data."""

    mean: tuple[float, ...]
    deviation: tuple[PositiveFloat, ...]


class ScalerFile(Section):
    """``scaler.json``: the scaler of every series, by its id."""

    scalers: Annotated[dict[str, ScalerEntry], Field(min_length=1)]


Offsets = tuple[tuple[tuple[float, ...], ...], ...]
"""By level, step and channel."""


class IntervalsFile(Section):
    """``intervals.json``: ``Intervals`` as plain numbers."""

    levels: Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_LEVELS)]
    lower: Offsets
    upper: Offsets
    floor: tuple[PositiveFloat, ...]
    num_windows: PositiveInt

    @model_validator(mode="after")
    def _levels_ascend(self) -> Self:
        if not all(0 < level < 100 for level in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must be between 0 and 100, ascending, each once")
        return self


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
    manifest = _manifest_bytes(contents, bundle)
    _assemble(_parse_manifest(manifest, file=path / MANIFEST), contents, directory=path)
    write_directory(path, {**contents, MANIFEST: manifest}, overwrite=overwrite)
    load_bundle(path)


def load_bundle(path: Path | str) -> Bundle:
    """Read the model directory ``path``; the network comes back on the CPU, in evaluation mode.

    Checked in this order: the manifest; sizes and SHA-256 of the files; the configuration (a closed schema with a cap
    on every number); that its network is not larger than the weights are; their names, shapes and types; and that
    every one is finite.

    Raises:
        ModelError: it is not a local model directory, is of another format version, or is damaged.
    """
    directory = _local_directory(path)
    manifest_bytes = _read(directory / MANIFEST, largest=LARGEST_MANIFEST)
    manifest = _parse_manifest(manifest_bytes, file=directory / MANIFEST)
    contents = {name: _read_listed(directory / name, entry) for name, entry in manifest.files.items()}
    warn_of_strangers(directory, (MANIFEST, *contents))
    return _assemble(manifest, contents, directory=directory)


def bundle_digest(bundle: Bundle) -> str:
    """SHA-256 over everything in ``bundle`` that decides its forecasts: configuration, weights and scalers."""
    contents = _contents(bundle)
    return sha256_of("".join(sha256_of(contents[name]) for name in sorted(contents)).encode())


def bundle_bytes(bundle: Bundle) -> int:
    """Bytes of the directory that ``save_bundle`` would write."""
    contents = _contents(bundle)
    return sum(map(len, contents.values())) + len(_manifest_bytes(contents, bundle))


def program_versions() -> dict[str, str]:
    """Versions of this program, of Python, and of the libraries that decide the bits of a forecast."""
    libraries = {name: version(name) for name in ("numpy", "pandas", "safetensors")}
    return {"stanhop": __version__, "python": platform.python_version(), "torch": str(torch.__version__), **libraries}


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
    contents = {CONFIG: _to_json(config), **_network_file(bundle.network), SCALERS: _to_json(scalers)}
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


def _network_file(network: nn.Module) -> dict[str, bytes]:
    if isinstance(network, OnnxNetwork):
        return {ONNX: network.content}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {WEIGHTS: safetensors.torch.save(weights)}


def _without_default(quantization: Quantization) -> dict[str, str]:
    """As plain data; the runtime of all directories before there were two of them is left out."""
    return {key: value for key, value in asdict(quantization).items() if (key, value) != ("runtime", "torch")}


def _format_version(quantization: Quantization | QuantizationEntry | None, *, has_intervals: bool) -> int:
    if quantization is not None and quantization.runtime == "onnxruntime":
        return ONNX_FORMAT
    if has_intervals:
        return INTERVALS_FORMAT
    return FLOAT_FORMAT if quantization is None else INT8_FORMAT


def _manifest_bytes(contents: Mapping[str, bytes], bundle: Bundle) -> bytes:
    manifest = {
        "format_version": _format_version(bundle.quantization, has_intervals=INTERVALS in contents),
        "files": {name: {"size": len(content), "sha256": sha256_of(content)} for name, content in contents.items()},
        "versions": program_versions(),
        "fingerprint": bundle.fingerprint,
    }
    return _to_json({**manifest, "checksum": sha256_of(_to_json(manifest))})


def _to_json(values: Any) -> bytes:  # plain data of any shape
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode("ascii")


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


def _parse_manifest(content: bytes, *, file: Path) -> Manifest:
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
    if isinstance(found, int) and found > ONNX_FORMAT:
        problem = f"has format version {found}; this program reads up to {ONNX_FORMAT}"
        raise ModelError(Code.MODEL, problem, fix="upgrade stanhop", file=file)
    covered = {key: value for key, value in values.items() if key != "checksum"}
    if _to_json(values) != content or values.get("checksum") != sha256_of(_to_json(covered)):
        raise ModelError(Code.MODEL_DAMAGED, "is damaged: it does not match its own checksum", fix=RESTORE, file=file)
    return _validated(Manifest, content, file=file)


def _validated(schema: type[SomeSection], content: bytes, *, file: Path) -> SomeSection:
    """``content`` as ``schema``; the first key that does not fit is named."""
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"][:1].lower() + first["msg"][1:]
        value = "" if isinstance(first["input"], dict | list) else f", got {quoted(first['input'])}"
        problem = f"{quoted(key)}: {what}{value}" if key else what
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file) from None


def _assemble(manifest: Manifest, contents: Mapping[str, bytes], *, directory: Path) -> Bundle:
    """A bundle of files whose checksums are right; ``directory`` names them in errors."""
    config = _validated(BundleConfig, contents[CONFIG], file=directory / CONFIG)
    if _format_version(config.quantization, has_intervals=INTERVALS in contents) != manifest.format_version:
        problem = f"format version {manifest.format_version} does not go with {CONFIG}"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=directory / MANIFEST)
    scalers = _parse_scalers(contents[SCALERS], config, file=directory / SCALERS)
    intervals = _parse_intervals(contents[INTERVALS], config, directory / INTERVALS) if INTERVALS in contents else None
    return Bundle(
        config=config.run,
        num_channels=config.num_channels,
        channels=config.channels,
        frequency=config.frequency,
        layout=Layout(**config.layout.model_dump()),
        scalers=scalers,
        network=_network(config, contents, directory=directory),
        fingerprint=manifest.fingerprint,
        versions=manifest.versions,
        quantization=None if config.quantization is None else Quantization(**config.quantization.model_dump()),
        intervals=intervals,
    )


def _parse_intervals(content: bytes, config: BundleConfig, file: Path) -> Intervals:
    found = _validated(IntervalsFile, content, file=file)
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


def _network(config: BundleConfig, contents: Mapping[str, bytes], *, directory: Path) -> nn.Module:
    if ONNX not in contents:
        return _build(config, _parse_weights(contents[WEIGHTS], file=directory / WEIGHTS), file=directory / WEIGHTS)
    model = config.run.model
    network = OnnxNetwork(
        contents[ONNX],
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        num_channels=config.num_channels,
        file=directory / ONNX,
    )
    return network.eval()


def _parse_scalers(content: bytes, config: BundleConfig, *, file: Path) -> dict[str, Scaler]:
    scalers = _validated(ScalerFile, content, file=file).scalers
    for series_id, entry in scalers.items():
        if len(entry.mean) != config.num_channels or len(entry.deviation) != config.num_channels:
            problem = f"the scaler of series {quoted(series_id)} is not one of {config.num_channels} channels"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    return {
        series_id: Scaler.from_plain({"mean": list(entry.mean), "deviation": list(entry.deviation)})
        for series_id, entry in scalers.items()
    }


def _parse_weights(content: bytes, *, file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        problem = f"is not a table of tensors: {quoted(error)}"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file) from None


class _Allowance(TorchFunctionMode):
    """While it is entered, torch makes no tensors with more than ``num_elements`` elements in all.

    (The meta device would plan a network without memory, but its first use imports 900 modules in two seconds.)
    """

    FACTORIES = (torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)

    class ExceededError(Exception):
        """The network asks for more."""

    def __init__(self, num_elements: int) -> None:
        super().__init__()
        self.left = num_elements

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # torch's protocol: any function of torch, with its arguments
        kwargs = kwargs or {}
        if func in self.FACTORIES:
            size = kwargs.get("size", args)
            self.left -= math.prod(size if isinstance(size[0], int) else size[0])
            if self.left < 0:
                raise self.ExceededError
        return func(*args, **kwargs)


def _build(config: BundleConfig, weights: dict[str, Tensor], *, file: Path) -> nn.Module:
    """The network that ``config`` describes, holding ``weights``, in evaluation mode."""
    # Every number of a configuration has a cap, but together they can ask for more than any machine has.  A network
    # that fits its weights needs about as many elements as they have; twice as many leave room for how it is built.
    num_elements = sum(tensor.numel() for tensor in weights.values())
    # Building draws random numbers, which no caller of ours must notice.
    with torch.random.fork_rng(devices=[]):
        try:
            with _Allowance(2 * num_elements + ROOM):
                network = build_network(config.run.model, config.num_channels)
                if config.quantization is not None:
                    network = with_int8_linears(network, config.quantization.activations)
        except _Allowance.ExceededError:
            problem = f"weights have {num_elements:,} numbers, {CONFIG} asks for a network with far more"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file) from None
    _compare(network.state_dict(), weights, file=file)
    network.load_state_dict(weights, strict=True)
    return network.eval().requires_grad_(False)


def _compare(asked: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, file: Path) -> None:
    """Refuse ``weights`` that are not finite or whose names, shapes or types are not those of ``asked``."""
    differences = {"missing": sorted(set(asked) - set(weights)), "unexpected": sorted(set(weights) - set(asked))}
    problems = [
        f"{len(names)} {kind} ({', '.join(map(quoted, names[:3]))})" for kind, names in differences.items() if names
    ]
    if problems:
        problem = f"weights do not fit {CONFIG}: {' and '.join(problems)}"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    for name, tensor in asked.items():
        if _described(weights[name]) != _described(tensor):
            problem = f"weights hold {quoted(name)} as {_described(weights[name])}, {CONFIG} asks for"
            raise ModelError(Code.MODEL, f"{problem} {_described(tensor)}", fix=RESTORE, file=file)
        if not bool(torch.isfinite(weights[name]).all()):
            problem = f"weights hold NaN or infinite values in {quoted(name)}"
            raise ModelError(Code.MODEL, problem, fix="train again", file=file)


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _refuse_to_replace_other_things(path: Path) -> None:
    """Overwriting deletes what was there, so it must be a model directory that holds nothing else."""
    if not os.path.lexists(path):
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {str(path)}
    is_model = MANIFEST in names and names <= {MANIFEST, *LARGEST_FILES}
    if names and not is_model:
        problem = "is not a model directory, or holds other files, so it is not replaced"
        raise OutputError(Code.OUTPUT, problem, fix="choose another name", file=path)
