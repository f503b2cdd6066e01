"""``stanhop doctor``: what this machine has, how retrieval is computed on it, and whether that is right."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import typer

from stanhop.cli.options import command
from stanhop.cli.output import Output, aligned
from stanhop.errors import Code, MachineError

if TYPE_CHECKING:
    from stanhop.hopfield.selfcheck import Check

app = typer.Typer()

REINSTALL = "reinstall torch and triton as constraints.txt has them, or work on another device"


@command(app)
def doctor(*, output: Output) -> None:
    """Say what computes retrievals here and why, and compare it with the slow definition, gradients included.

    Exits with 4 if something computes wrongly.

    Example: stanhop doctor
    """
    import torch

    from stanhop.hopfield.selfcheck import check

    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    machine = _machine()
    checks = [_described(str(device), each) for device in devices for each in check(device)]
    output.result({"machine": machine, "checks": checks}, human=_text(machine, checks))
    wrong = [each for each in checks if not each["is_sound"]]
    if wrong:
        raise MachineError(Code.ENVIRONMENT, _problem(wrong, num_checks=len(checks)), fix=REINSTALL)


def _machine() -> dict[str, Any]:
    """Versions and sizes that decide what runs, and how fast."""
    import torch

    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = None
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton,
        "cuda": [torch.cuda.get_device_name(index) for index in devices],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "compiler": compiler,
    }


def _described(device: str, check: Check) -> dict[str, Any]:
    return {
        "device": device,
        "separation": check.separation,
        "num_memories": check.num_memories,
        "dtype": str(check.dtype).removeprefix("torch."),
        "way": check.choice.way,
        "reason": check.choice.reason,
        "error": check.error,
        "is_sound": check.is_sound,
    }


def _problem(wrong: list[dict[str, Any]], *, num_checks: int) -> str:
    first = wrong[0]
    what = f"{first['separation']}, {first['num_memories']} memories, {first['dtype']}, by {first['way']}"
    error = f"relative error {first['error']:.1e}"
    return f"{len(wrong)} of {num_checks} retrievals are wrong, the first on {first['device']}: {what}: {error}"


def _text(machine: dict[str, Any], checks: list[dict[str, Any]]) -> str:
    absent = {"triton": "not installed", "cuda": "no device", "compiler": "none (torch.compile needs one on a CPU)"}
    facts = aligned([(name, _joined(value) or absent.get(name, "unknown")) for name, value in machine.items()])
    if machine["threads"] > machine["cores"]:
        facts += f"\n{machine['threads']} threads on {machine['cores']} cores slow each other: set OMP_NUM_THREADS"
    heads = ["device", "separation", "memories", "dtype", "computed by", "error", "verdict"]
    rows = [
        [
            each["device"], each["separation"], each["num_memories"], each["dtype"], each["way"],
            f"{each['error']:.1e}", "right" if each["is_sound"] else "WRONG",
        ]
        for each in checks
    ]  # fmt: skip
    reasons = {(each["device"], each["way"]): each["reason"] for each in checks}
    why = "\n".join(f"{way} on {device}: {reason}" for (device, way), reason in reasons.items())
    return f"{facts}\n\n{aligned([heads, *rows])}\n\n{why}"


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
