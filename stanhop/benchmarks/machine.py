"""The machine a figure comes from: what stands in every document of results."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "numpy", "entmax", "adasplash", "liger-kernel", "transformer-engine")
"""What the figures may depend on, if it is installed."""
NVIDIA = Path("/proc/driver/nvidia/version")
PROCESSORS = Path("/proc/cpuinfo")

BANDWIDTH = {"H200": 4.3e12, "H100": 3.35e12, "A100": 1.94e12}
"""Bytes a second that the memory moves: measured by copying on an H200, else the data sheet's."""
HALF_FLOPS = {"H200": 790e12, "H100": 790e12, "A100": 312e12}
"""Operations a second of the matrix units in half precision, what good products reach on an H200; else data sheets."""


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, versions, and on CUDA the GPU with its driver and its limits, None where unknown."""
    found: dict[str, Any] = {
        "processor": processor(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: known for name in PACKAGES if (known := _version(name)) is not None},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
            "bandwidth": limit(BANDWIDTH, properties.name),
            "half_flops": limit(HALF_FLOPS, properties.name),
        }
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    lines = PROCESSORS.read_text(encoding="utf-8").splitlines() if PROCESSORS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def limit(limits: dict[str, float], gpu: str) -> float | None:
    """The entry whose key is in the name ``gpu``."""
    return next((value for name, value in limits.items() if name in gpu), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    text = NVIDIA.read_text(encoding="utf-8") if NVIDIA.exists() else ""
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return match[0] if match else None
