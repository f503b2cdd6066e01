"""The paper's quantisation table for our network: each method trained, then quantised in several ways, paired.

Float and quantised error of a row come from the same checkpoint. (In Table 1 of Hu et al. 2024 the float column is
three trainings and the W8A8 column one of them with three calibration seeds, so that quantising seems to help.)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stanhop.benchmarks.measurement import keep, kept
from stanhop.benchmarks.network_figures import StepTime, StepTimes, time_steps
from stanhop.config import RunConfig, file_layer, resolve
from stanhop.errors import Code, ConfigError, OutputError, quoted
from stanhop.forecasting.bundle import Bundle, bundle_digest, load_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.forecasting.forecaster import choose_device
from stanhop.hopfield.separation import SEPARATIONS
from stanhop.model.int8 import Quantization
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.onnx import onnx_bundle
from stanhop.quantization.outliers import measure_outliers
from stanhop.quantization.simulate import Protocol, simulate
from stanhop.quantization.windows import calibration_contexts, split_contexts
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import write_text
from stanhop.training.once import fit_once
from stanhop.training.outcome import CONFIG, METRICS, MODEL, read_outcome

GATED = "gated_"
"""Prefix of a method whose heads are gated: ``gated_softmax`` is the paper's gated attention."""
BACKENDS = ("dynamic", "static", "onnx")
"""Real int8: those of ``stanhop quantize``."""
INT8 = "int8-"
"""Prefix of a backend's name where it stands beside simulated schemes."""
FORMAT = 3
STEP_TIMES = "step_times.json"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One training, and how its network is measured.

    Args:
        method: A separation, with ``gated_`` in front if it has a gate.
        config: The whole configuration, method and seed included.
        schemes: Widths to simulate, such as ``w8a8``.
        backends: Ways of real int8, out of ``BACKENDS``.
    """

    method: str
    config: RunConfig
    schemes: tuple[str, ...]
    backends: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.method}-{self.config.train.seed}"

    @property
    def ways(self) -> tuple[str, ...]:
        """What its network is measured as beside float32: schemes, then backends."""
        return (*self.schemes, *(f"{INT8}{backend}" for backend in self.backends))


@dataclass(frozen=True)
class Errors:
    """Of a network on the test windows, in scaled units."""

    mse: float
    mae: float


@dataclass(frozen=True)
class Measured:
    """What one checkpoint gave on the test windows.

    Args:
        method: See ``Cell``.
        seed: Of the training.
        training_seconds: What the training took, validation included.
        float32: Errors of the float network.
        quantized: Of the same checkpoint, by scheme or backend; None where a backend cannot hold the method.
        outliers: Average kurtosis and maximum inf-norm by selection of outputs.
    """

    method: str
    seed: int
    training_seconds: float
    float32: Errors
    quantized: dict[str, Errors | None]
    outliers: dict[str, dict[str, float]]

    @property
    def name(self) -> str:
        """Name of its cell."""
        return f"{self.method}-{self.seed}"

    def loss(self, way: str) -> float:
        """By which share the squared error grows at ``way``, which can hold the method."""
        errors = self.quantized[way]
        assert errors is not None
        return errors.mse / self.float32.mse - 1


def method_settings(method: str) -> dict[str, Any]:
    """The keys of ``model`` that ``method`` sets.

    Raises:
        ConfigError: there is no such method.
    """
    separation = method.removeprefix(GATED)
    if separation not in SEPARATIONS:
        fix = f"choose from {', '.join(SEPARATIONS)}, each also with {GATED} in front"
        raise ConfigError(Code.CONFIG, f"{quoted(method)} is no method", fix=fix)
    return {"separation": separation, "gate": method.startswith(GATED)}


def run_cells(
    cells: Sequence[Cell], *, folder: Path, progress: bool = True, report: Report = lambda _line: None
) -> list[Measured]:
    """Train and measure every cell; what is done in ``folder`` is not done again, what was begun goes on.

    Raises:
        OutputError: a folder holds a training of another configuration.
        UserError: as ``fit``.
    """
    data = {cell.config.data.source: cell.config.data for cell in cells}
    series_sets = {source: load_series(config) for source, config in data.items()}
    measured = []
    for cell in cells:
        series_set = series_sets[cell.config.data.source]
        bundle = _trained(cell, series_set, folder / cell.name, progress=progress, report=report)
        measured.append(_measured(cell, bundle, series_set, folder / cell.name, report=report))
    return measured


def step_times(cells: Sequence[Cell], *, folder: Path, report: Report = lambda _line: None) -> Mapping[str, StepTime]:
    """Seconds of a training step of each cell by its name, all in turns; what ``folder`` holds of them stays.

    Args:
        cells: Trainings on one data set.
        folder: As in ``run_cells``.
        report: Told what begins.
    """
    configs = {cell.name: cell.config for cell in cells}
    path = folder / STEP_TIMES
    times = kept(path, StepTimes)
    if times is None or not times.are_of(configs):
        report("timing training steps, all networks in turns")
        times = time_steps(configs, load_series(cells[0].config.data))
        keep(path, times)
    return times.seconds


def _trained(cell: Cell, series_set: SeriesSet, path: Path, *, progress: bool, report: Report) -> Bundle:
    if not (path / METRICS).exists():
        report(f"training {cell.name}")
        fit_once(cell.config, run_path=path, progress=progress, series_set=series_set)
    began_with = resolve([file_layer(path / CONFIG)])  # the model's own has what the data decided
    found, asked = (each.model_dump(exclude={"tracking"}) for each in (began_with, cell.config))
    if found != asked:
        problem = "holds a training of another configuration"
        raise OutputError(Code.OUTPUT, problem, fix="choose another --output folder", file=path)
    return load_bundle(path / MODEL)


def _measured(cell: Cell, bundle: Bundle, series_set: SeriesSet, path: Path, *, report: Report) -> Measured:
    """The measurement of ``cell``, from its file if that is about this checkpoint and has every way."""
    file = path / "quantization.json"
    key = {"format": FORMAT, "model": bundle_digest(bundle)}
    known = _read(file, key)
    if known is None:
        report(f"measuring {cell.name}")
        known = _measured_as_float(cell, bundle, series_set, path)
    missing = [way for way in cell.ways if way not in known.quantized]
    calibration = calibration_contexts(bundle, series_set) if missing else []
    for way in missing:
        report(f"quantising {cell.name}: {way}")
        # int8 for real is computed on a CPU
        device = torch.device("cpu") if way.startswith(INT8) else choose_device(cell.config.train.device)
        bundle.network.to(device)
        quantized = _quantized(bundle, way, [batch.to(device) for batch in calibration])
        known.quantized[way] = None if quantized is None else _errors(quantized, series_set, device)
        write_text(file, json.dumps({**key, "measured": asdict(known)}, indent=2) + "\n")
    return dataclasses.replace(known, quantized={way: known.quantized[way] for way in cell.ways})


def _measured_as_float(cell: Cell, bundle: Bundle, series_set: SeriesSet, path: Path) -> Measured:
    outcome = read_outcome(path, run_id=None)
    assert outcome is not None
    device = choose_device(cell.config.train.device)
    contexts = split_contexts(bundle, series_set, "test", batch_size=32)
    outliers = measure_outliers(bundle.network.to(device), (batch.to(device) for batch in contexts))
    return Measured(
        method=cell.method,
        seed=cell.config.train.seed,
        training_seconds=outcome.metrics["time/train_s"],
        float32=_errors(bundle, series_set, device),
        quantized={},
        outliers={counted: asdict(outliers.summary(counted)) for counted in outliers.selections},
    )


def _quantized(bundle: Bundle, way: str, calibration: Sequence[Tensor]) -> Bundle | None:
    """``bundle`` simulated at a scheme or turned into int8 by a backend; None if that backend cannot hold it."""
    if not way.startswith(INT8):
        return dataclasses.replace(bundle, network=simulate(bundle.network, calibration, Protocol.of(way)))
    backend = way.removeprefix(INT8)
    quantization = Quantization("w8a8", "dynamic" if backend == "dynamic" else "static")
    quantized = quantize_bundle(bundle, quantization, calibration=calibration)
    try:
        return onnx_bundle(quantized) if backend == "onnx" else quantized
    except ConfigError:  # a learned alpha
        return None


def _read(file: Path, key: dict[str, Any]) -> Measured | None:
    if not file.exists():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    if {name: document.get(name) for name in key} != key:
        return None
    plain = document["measured"]
    errors = {way: errors and Errors(**errors) for way, errors in plain["quantized"].items()}
    return Measured(**{**plain, "float32": Errors(**plain["float32"]), "quantized": errors})


def _errors(bundle: Bundle, series_set: SeriesSet, device: torch.device) -> Errors:
    metrics = evaluate(bundle, series_set, device="cuda" if device.type == "cuda" else "cpu").metrics
    return Errors(metrics["mse_scaled"], metrics["mae_scaled"])
