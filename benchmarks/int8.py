"""Times int8 networks on a CPU side by side with float ones, and takes their memory, size and error.

    python benchmarks/int8.py                       # a 256-wide network with random weights
    python benchmarks/int8.py --model runs/ETTh1-1/model

Ways: float32 as it is (eager), compiled by torch, and by ONNX Runtime; int8 dynamic and static as they are, static
compiled, and by ONNX Runtime (`pip install 'stanhop[onnx]'`); torchao's dynamic int8, eager and compiled
(`pip install 'stanhop[benchmarks]'`). What is not installed or fails is left out, and the result says so.

All take turns in one process on one thread, each round in an order of its own, after a warm-up (compiling takes a
minute each; for each batch size anew, as a forecast has one size): median and 95th percentile of the calls, and ratios
to float32 eager and compiled, round by round, with their quartiles. Peak memory is that of a process that loads one
model and forecasts one batch of 64, above the same process with nothing loaded; of the compiled ways it includes
compiling. Errors are relative to the output of float32 eager. The result in ``benchmarks/results/int8.json`` grows as
it goes; past ``--minutes`` memory is not taken any more.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stanhop import storage
from stanhop.benchmarks.timing import in_turns
from stanhop.config import ModelConfig, RunConfig
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.forecaster import compiled
from stanhop.model.int8 import Quantization
from stanhop.model.network import build_network
from stanhop.model.onnx import OnnxNetwork
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.onnx import export_onnx, onnx_bundle
from stanhop.series.frame import Layout
from stanhop.series.scaling import Scaler

WIDE = ModelConfig(context_length=504, model_dim=256, feedforward_dim=512)
"""A long context of ETTh1, four times the default width, the default ratio of feed-forward to width."""
NUM_CHANNELS = 7
BATCHES = {1: 60, 64: 15}
"""Rounds for each batch size."""
WARM_UP = 2
RESULTS = Path(__file__).parent / "results"
FLOAT, DYNAMIC, STATIC, ONNX, FLOAT_ONNX = "float32", "int8-dynamic", "int8-static", "int8-onnx", "float32.onnx"
"""Model directories of the ways, and a bare file."""
REFERENCE = "float32 eager"
RIVALS = (REFERENCE, "float32 compiled")
Network = Callable[[torch.Tensor], torch.Tensor]


def random_bundle() -> Bundle:
    """A model of the wide network; every parameter matters, also those that start at 0."""
    torch.manual_seed(0)
    network = build_network(WIDE, NUM_CHANNELS)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    channels = tuple(f"c{number}" for number in range(NUM_CHANNELS))
    return Bundle(
        config=RunConfig(model=WIDE),
        num_channels=NUM_CHANNELS,
        channels=channels,
        frequency="h",
        layout=Layout("wide", "ds", None, channels),
        scalers={"": Scaler.fit(np.random.default_rng(0).normal(size=(50, NUM_CHANNELS)))},
        network=network.eval().requires_grad_(False),
        fingerprint="0" * 64,
    )


def contexts(bundle: Bundle, size: int) -> torch.Tensor:
    """A batch of random contexts."""
    shape = (size, bundle.config.model.context_length, bundle.num_columns)
    return torch.randn(shape, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


def write_models(bundle: Bundle, folder: Path) -> dict[str, str]:
    """Write what the ways load, and return what could not be written, and why."""
    calibration = [contexts(bundle, 64)]
    static = quantize_bundle(bundle, Quantization("w8a8", "static"), calibration=calibration)
    writers = {
        FLOAT: lambda: save_bundle(folder / FLOAT, bundle),
        DYNAMIC: lambda: save_bundle(folder / DYNAMIC, quantize_bundle(bundle, Quantization("w8a8", "dynamic"))),
        STATIC: lambda: save_bundle(folder / STATIC, static),
        ONNX: lambda: save_bundle(folder / ONNX, onnx_bundle(static)),
        FLOAT_ONNX: lambda: storage.write_bytes(folder / FLOAT_ONNX, export_onnx(bundle)),
    }
    failed = {}
    for name, write in writers.items():
        try:
            write()
        except Exception as error:  # a way that this machine lacks must not end the others
            failed[name] = described(error)
    return failed


def float_by_onnx_runtime(folder: Path) -> Network:
    """The float network in ONNX Runtime."""
    bundle = load_bundle(folder / FLOAT)
    model = bundle.config.model
    return OnnxNetwork(
        (folder / FLOAT_ONNX).read_bytes(),
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        num_channels=bundle.num_channels,
        file=folder / FLOAT_ONNX,
    )


def by_torchao(folder: Path) -> nn.Module:
    """The float network with torchao's dynamic int8 in all linear maps."""
    logging.getLogger("torchao").setLevel(logging.ERROR)
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    network = load_bundle(folder / FLOAT).network
    quantize_(network, Int8DynamicActivationInt8WeightConfig())
    return network


WAYS: dict[str, tuple[str | None, Callable[[Path], Network]]] = {
    REFERENCE: (FLOAT, lambda folder: load_bundle(folder / FLOAT).network),
    "float32 compiled": (FLOAT, lambda folder: compiled(load_bundle(folder / FLOAT).network)),
    "float32 ONNX Runtime": (FLOAT_ONNX, float_by_onnx_runtime),
    "int8 dynamic eager": (DYNAMIC, lambda folder: load_bundle(folder / DYNAMIC).network),
    "int8 static eager": (STATIC, lambda folder: load_bundle(folder / STATIC).network),
    "int8 static compiled": (STATIC, lambda folder: compiled(load_bundle(folder / STATIC).network)),
    "int8 ONNX Runtime": (ONNX, lambda folder: load_bundle(folder / ONNX).network),
    "torchao dynamic eager": (None, by_torchao),
    "torchao dynamic compiled": (None, lambda folder: compiled(by_torchao(folder))),
}
"""What each loads, whose size is its size, and how it becomes a network."""


def ready_ways(names: list[str], folder: Path, batch: torch.Tensor, left_out: dict[str, str]) -> dict[str, Network]:
    """Every way that works, warmed up; the others go to ``left_out``."""
    torch.compiler.reset()  # or a second size would be compiled for any size, which is slower
    ready = {}
    for name in names:
        if name in left_out:
            continue
        try:
            network = WAYS[name][1](folder)
            for _ in range(WARM_UP):
                network(batch)
            ready[name] = network
        except Exception as error:  # a way that this machine lacks must not end the others
            left_out[name] = described(error)
            print(f"left out: {name}: {left_out[name]}", flush=True)
    return ready


def timed(networks: dict[str, Network], batch: torch.Tensor, *, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios by way, the ways taking turns, each round in an order of its own."""
    samplers = {name: _clocked(network, batch) for name, network in networks.items()}
    times = in_turns(samplers, num_rounds=rounds, limit=float("inf"))
    rows = {}
    for name, own in times.items():
        row: dict[str, Any] = {
            "median_ms": round(float(np.median(own)), 2),
            "p95_ms": round(float(np.percentile(own, 95)), 2),
        }
        for rival in RIVALS:
            if rival in times:
                quartiles = np.percentile(np.array(times[rival]) / np.array(own), [50, 25, 75]).round(2)
                row[f"times as fast as {rival}"] = dict(zip(("median", "q1", "q3"), map(float, quartiles), strict=True))
        rows[name] = row
    return rows


def _clocked(network: Network, batch: torch.Tensor) -> Callable[[], float]:
    """What forecasts ``batch`` and returns the milliseconds."""

    def sample() -> float:
        began = time.perf_counter()
        network(batch)
        return 1e3 * (time.perf_counter() - began)

    return sample


def peak_memory_mib(way: str | None, folder: Path) -> float:
    """Peak resident memory of a process that forecasts one batch of 64 by ``way``."""
    command = [sys.executable, __file__, "--memory-of", way or "nothing", "--folder", str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.splitlines()[-1])


def forecast_and_print_memory(way: str, folder: Path) -> None:
    """What the process of ``peak_memory_mib`` does."""
    if way in WAYS:
        network = WAYS[way][1](folder)
        with torch.inference_mode():
            network(contexts(load_bundle(folder / FLOAT), 64))
    # not getrusage: that counts what the parent had when it forked
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def described(error: Exception) -> str:
    """Class and first line of ``error``."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def size_of(path: Path) -> int:
    """Bytes of a directory or file."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def machine() -> dict[str, Any]:
    """The processor by its own name, what its int8 kernels can use, and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    flags = [flag for flag in ("avx512_vnni", "avx_vnni", "amx_int8") if flag in text]
    versions = {}
    for package in ("torch", "onnxruntime", "torchao"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    load = round(os.getloadavg()[0], 1)
    return {
        "processor": f"{name} ({', '.join(flags)})",
        "cpus": os.cpu_count(),
        "load_at_start": load,
        "python": platform.python_version(),
        **versions,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a float model directory instead of the random wide network")
    parser.add_argument("--no-compile", action="store_true", help="leave out what has to be compiled")
    parser.add_argument("--minutes", type=float, default=10, help="after which memory is not taken any more")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the result goes")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory_of:
        forecast_and_print_memory(options.memory_of, options.folder)
        return
    began = time.monotonic()
    bundle = load_bundle(options.model) if options.model else random_bundle()
    names = [name for name in WAYS if not (options.no_compile and name.endswith("compiled"))]
    left_out: dict[str, str] = {}
    result: dict[str, Any] = {
        "what": "one process, one thread, ways taking turns; ratios of each round's times, median and quartiles",
        "machine": machine(),
        "network": bundle.config.model.model_dump(mode="json"),
        "num_parameters": sum(parameter.numel() for parameter in bundle.network.parameters()),
        "left_out": left_out,
        "batch": {},
        "way": {},
    }
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failed = write_models(bundle, folder)
        left_out |= {way: failed[WAYS[way][0]] for way in names if WAYS[way][0] in failed}
        for size, rounds in BATCHES.items():
            batch = contexts(bundle, size)
            networks = ready_ways(names, folder, batch, left_out)
            result["batch"][size] = timed(networks, batch, rounds=rounds)
            for way, row in result["batch"][size].items():
                print(f"batch {size}: {way}: {row}", flush=True)
            storage.write_text(options.results / "int8.json", json.dumps(result, indent=2) + "\n")
        reference = networks[REFERENCE](batch)
        for way, network in networks.items():
            error = float((network(batch) - reference).norm() / reference.norm())
            loads = WAYS[way][0]
            size = None if loads is None else size_of(folder / loads)
            result["way"][way] = {"relative_error": round(error, 6), "bytes": size}
        nothing = peak_memory_mib(None, folder)
        for way in sorted(networks, key=lambda way: way.endswith("compiled")):  # what takes long comes last
            is_late = time.monotonic() - began > 60 * options.minutes
            memory = None if is_late else round(peak_memory_mib(way, folder) - nothing, 1)
            result["way"][way]["peak_memory_mib"] = memory
            print(f"{way}: {result['way'][way]}", flush=True)
        result["minutes"] = round((time.monotonic() - began) / 60, 1)
        storage.write_text(options.results / "int8.json", json.dumps(result, indent=2) + "\n")
    print(f"left out: {left_out or 'nothing'}; {result['minutes']} minutes")


if __name__ == "__main__":
    main()
