"""The table of goals, the shares of the machine's limits and the plots, from what ``benchmarks/gpu.py`` has kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stanhop.benchmarks.kernels import goals
from stanhop.benchmarks.kernels.document import Document, to_text
from stanhop.storage import write_bytes, write_text


def summarise(folder: Path) -> str:
    """What to print of the documents in ``folder``; the same, as files, and a plot a group of shapes, go there."""
    kernels = _load(folder, "kernels") or {"records": [], "machine": {}}
    training = _load(folder, "training")
    table = [
        *goals.kernel_goals(kernels),
        *goals.training_goals(_told(training.get("found", {}))),
        goals.memory_goal(_load(folder, "memory").get("found", {}).get("share")),
    ]
    lines = [{**vars(goal), "is_met": goal.is_met} for goal in table]
    write_text(folder / "goals.json", json.dumps({"goals": lines}, indent=1) + "\n")
    shares = goals.roofline_text(kernels)
    write_text(folder / "roofline.txt", shares + "\n")
    remarks = ["a rehearsal: these figures mean nothing"] if training.get("is_rehearsal") else []
    if kernels["records"]:
        write_text(folder / "kernels.txt", to_text(kernels) + "\n")
        remarks += _draw(kernels, folder)
    return "\n".join([shares, *remarks, goals.goals_text(table)])


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """What the goals ask of the part ``training``."""
    default = training.get("default, float32", {})
    return {
        "published": {name: each for name, each in training.items() if name.startswith("published")},
        "eager_over_graph": default.get("eager_over_graph", {}).get("median"),
        "epoch_seconds": default.get("epoch_seconds"),
    }


def _draw(kernels: Document, folder: Path) -> list[str]:
    """Keep the plots; without matplotlib, say how to get them."""
    try:
        from stanhop.benchmarks.kernels.plots import plots_of
    except ImportError:
        return ["no plots: pip install matplotlib, then python benchmarks/gpu.py table"]
    for name, content in plots_of(kernels).items():
        write_bytes(folder / f"{name}.png", content)
    return []


def _load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
