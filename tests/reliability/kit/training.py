"""The end of a training, in a form that two of them can be compared bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.reliability.kit.samples import TRAINING


def options(data: Path, run_path: Path) -> tuple[str, ...]:
    """The command line of a training."""
    return ("train", "--data", str(data), *TRAINING, "--no-tracking", "--output", str(run_path))


def resuming(data: Path, run_path: Path) -> tuple[str, ...]:
    """The command line that goes on with a training, or begins it if it was killed before its first checkpoint."""
    has_begun = (run_path / "checkpoints" / "manifest.json").exists()
    return (*options(data, run_path), *(["--resume"] if has_begun else []))


def end_of(run_path: Path) -> dict[str, Any]:
    """Everything that must not depend on how often a training was interrupted.

    Weights, the states of the optimiser and of all random generators, metrics, the journal and every file of the
    model; not the seconds that things took.
    """
    manifest = json.loads((run_path / "checkpoints" / "manifest.json").read_bytes())
    last = torch.load(run_path / "checkpoints" / manifest["current"], weights_only=True)
    outcome = json.loads((run_path / "metrics.json").read_bytes())
    parts = {
        "checkpoint": last,
        "metrics": {name: value for name, value in outcome["metrics"].items() if not name.startswith("time/")},
        "epochs": outcome["epochs"],
        "model": {path.name: path.read_bytes() for path in sorted((run_path / "model").iterdir())},
    }
    return dict(_leaves(parts, ""))


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in _leaves(inner, f"{key}/{name}")]
    if isinstance(value, list | tuple):
        return [leaf for place, inner in enumerate(value) for leaf in _leaves(inner, f"{key}/{place}")]
    if isinstance(value, torch.Tensor):
        return [(key, (str(value.dtype), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().tobytes()))]
    return [] if key.endswith("/seconds") else [(key, value)]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys by which two ends differ."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
