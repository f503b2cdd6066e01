"""Times int8 networks on a CPU side by side with float ones, and takes their memory and size.

    python benchmarks/int8.py                       # a 256-wide network with random weights
    python benchmarks/int8.py --model runs/ETTh1-1/model

Ways: float32 as it is (eager) and compiled by torch; int8 dynamic and static as they are; int8 static compiled. They
take turns in one process on one thread, after a warm-up (compiling takes minutes); the median and the 95th percentile
of the calls, and ratios to float32 eager and compiled, round by round, with their quartiles. Peak memory is that of a
process that loads one model and forecasts one batch, above the same process with nothing loaded. The result goes to
``benchmarks/results/int8.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stanhop import storage
from stanhop.config import ModelConfig, RunConfig
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.forecaster import compiled
from stanhop.model.int8 import Quantization
from stanhop.model.network import build_network
from stanhop.quantization.int8 import quantize_bundle
from stanhop.series.frame import Layout
from stanhop.series.scaling import Scaler

WIDE = ModelConfig(context_length=504, model_dim=256, feedforward_dim=512)
"""ETTh1's context, four times the default width, the default ratio of feed-forward to width."""
NUM_CHANNELS = 7
BATCHES = {1: 60, 64: 15}
RESULT = Path(__file__).parent / "results" / "int8.json"


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
    shape = (size, bundle.config.model.context_length, bundle.num_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


def timed(networks: dict[str, Any], batch: torch.Tensor, *, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios by way, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.no_grad():
        for number in range(rounds + 2):
            for name, network in networks.items():
                began = time.perf_counter()
                network(batch)
                if number >= 2:
                    times[name].append(1e3 * (time.perf_counter() - began))
    rows = {}
    for name, own in times.items():
        row: dict[str, Any] = {"median_ms": np.median(own), "p95_ms": np.percentile(own, 95)}
        for rival in ("float32 eager", "float32 compiled"):
            if rival in times:
                ratios = np.array(times[rival]) / np.array(own)
                quartiles = np.percentile(ratios, [50, 25, 75])
                row[f"times as fast as {rival}"] = dict(zip(("median", "q1", "q3"), quartiles.round(2), strict=True))
        rows[name] = {key: value if isinstance(value, dict) else round(float(value), 2) for key, value in row.items()}
    return rows


def peak_memory_mib(path: Path | None) -> float:
    """Peak resident memory of a process that forecasts one batch of 64 from the model at ``path``."""
    command = [sys.executable, __file__, "--memory-of", str(path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.splitlines()[-1])


def forecast_and_print_memory(path: str) -> None:
    """What the process of ``peak_memory_mib`` does."""
    torch.set_num_threads(1)
    if path != "None":
        bundle = load_bundle(path)
        with torch.inference_mode():
            bundle.network(contexts(bundle, 64))
    # not getrusage: that counts what the parent had when it forked
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def processor() -> str:
    """The machine's name for itself, and what its int8 kernels can use."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    flags = [flag for flag in ("avx512_vnni", "avx_vnni", "amx_int8") if flag in text]
    return f"{name} ({', '.join(flags)})"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a float model directory instead of the random wide network")
    parser.add_argument("--no-compile", action="store_true", help="leave out what has to be compiled")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        forecast_and_print_memory(options.memory_of)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    bundle = load_bundle(options.model) if options.model else random_bundle()
    calibration = [contexts(bundle, 64)]
    models = {"float32": bundle}
    for kind in ("dynamic", "static"):
        models[f"int8 {kind}"] = quantize_bundle(bundle, Quantization("w8a8", kind), calibration=calibration)
    ways: dict[str, Any] = {f"{name} eager": model.network for name, model in models.items()}
    if not options.no_compile:
        for name in ("float32", "int8 static"):
            ways[f"{name} compiled"] = compiled(models[name].network)
    result: dict[str, Any] = {
        "what": "one process, one thread, ways taking turns; ratios of each round's times, median and quartiles",
        "machine": {
            "processor": processor(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "network": bundle.config.model.model_dump(mode="json"),
        "num_parameters": sum(parameter.numel() for parameter in bundle.network.parameters()),
        "batch": {},
        "model": {},
    }
    reference = None
    for size, rounds in BATCHES.items():
        result["batch"][size] = timed(ways, contexts(bundle, size), rounds=rounds)
        for name, row in result["batch"][size].items():
            print(f"batch {size}: {name}: {row}", flush=True)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        nothing = peak_memory_mib(None)
        for name, model in models.items():
            path = Path(folder) / name.replace(" ", "-")
            save_bundle(path, model)
            output = model.network(contexts(bundle, 64))
            reference = output if reference is None else reference
            result["model"][name] = {
                "bytes": sum(file.stat().st_size for file in path.iterdir()),
                "peak_memory_mib": round(peak_memory_mib(path) - nothing, 1),
                "relative_error": round(float((output - reference).norm() / reference.norm()), 5),
            }
            print(f"{name}: {result['model'][name]}", flush=True)
    storage.write_text(RESULT, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
