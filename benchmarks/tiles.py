"""Times the kernels with many tiles each: what the tables in ``stanhop/kernels/plan.py`` rest on.

    python benchmarks/tiles.py [--workers 14] [--only forward] [--output tiles.json]

A trial is one problem (shape, kind, precision), one role (forward pass; backward pass, or its part by queries; its part
by memories) and one choice of tiles. Kernels are compiled by ``--workers`` processes first, for that takes longest, and
then timed one after the other as CUDA graphs, cache warm. Needs torch and triton alone. The table of the fastest comes
last, beside the tiles that are shipped; all trials are in ``benchmarks/results/gpu/tiles.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout need not be installed

from stanhop.benchmarks.machine import machine  # noqa: E402
from stanhop.benchmarks.timing import DeviceClock, timing  # noqa: E402
from stanhop.kernels import launch  # noqa: E402
from stanhop.kernels.launch import Rule, Tensors  # noqa: E402
from stanhop.kernels.plan import Plan, Shape, backward_plan, block, forward_plan, memories_plan, plan_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "gpu" / "tiles.json"
NUM_SAMPLES = 7
SHIPPED: dict[str, Callable[[Shape], Plan]] = {
    "forward": forward_plan,
    "backward": backward_plan,
    "memories": memories_plan,
}
"""By role: what chooses the tiles."""
KERNELS = (
    "resident_forward", "looped_forward", "resident_backward", "looped_backward_queries", "looped_backward_memories",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One shape under one kind of separation, with no-op memory.

    Args:
        batch: Sequences.
        heads: Heads.
        queries: Queries of a sequence.
        memories: Memories of a sequence.
        head_dim: Features of a head.
        kind: ``softmax``, ``entmax15``, or ``entmax`` with a learned alpha.
        dtype: Precision.
    """

    batch: int
    heads: int
    queries: int
    memories: int
    head_dim: int
    kind: str
    dtype: str

    @property
    def name(self) -> str:
        """Sizes, kind and precision."""
        return f"{self.batch}x{self.heads}x{self.queries}x{self.memories}x{self.head_dim} {self.kind} {self.dtype}"

    @property
    def shape(self) -> Shape:
        """What tiles are chosen by."""
        itemsize = getattr(torch, self.dtype).itemsize
        return Shape(
            self.queries, self.memories, self.head_dim, self.head_dim, itemsize, is_softmax=self.kind == "softmax"
        )

    def tensors(self) -> Tensors:
        """Standard normal patterns on the device, heads side by side."""
        generator = torch.Generator("cuda").manual_seed(0)

        def normal(length: int) -> Tensor:
            sizes = (self.batch, length, self.heads, self.head_dim)
            return torch.randn(sizes, generator=generator, device="cuda").to(getattr(torch, self.dtype)).transpose(1, 2)

        alpha = torch.linspace(1.2, 1.8, self.heads, device="cuda") if self.kind == "entmax" else None
        return Tensors(normal(self.queries), normal(self.memories), normal(self.memories), alpha, None, None, None)

    @property
    def rule(self) -> Rule:
        """How to retrieve."""
        return Rule(kind=self.kind, no_op=True, beta=self.head_dim**-0.5, clip=None, dropout=0.0)


@dataclass(frozen=True)
class Trial:
    """One choice of tiles for one role."""

    problem: Problem
    role: str
    plan: Plan

    @property
    def tiles(self) -> list[Any]:
        """The plan, as results have it: form, queries, memories, warps, stages."""
        plan = self.plan
        form = "resident" if plan.is_resident else "looped"
        return [form, plan.query_block, plan.memory_block, plan.num_warps, plan.num_stages]


def problems() -> Iterator[Problem]:
    """What the networks have, and what the goals name."""
    for kind in ("softmax", "entmax"):
        yield Problem(1792, 4, 7, 7, 64, kind, "bfloat16")
        yield Problem(896, 4, 14, 14, 64, kind, "bfloat16")
        yield Problem(1, 4, 12544, 10, 64, kind, "bfloat16")
        yield Problem(896, 4, 14, 14, 16, kind, "float32")
        yield Problem(896, 4, 28, 28, 16, kind, "float32")
        yield Problem(896, 4, 14, 14, 64, kind, "float32")
        yield Problem(1024, 4, 32, 32, 64, kind, "bfloat16")
        yield Problem(512, 4, 64, 64, 64, kind, "bfloat16")
        yield Problem(341, 4, 96, 96, 64, kind, "bfloat16")
        yield Problem(256, 4, 120, 120, 32, kind, "bfloat16")
        yield Problem(128, 4, 256, 256, 64, kind, "bfloat16")
        yield Problem(64, 4, 512, 512, 64, kind, "bfloat16")
    yield Problem(448, 4, 321, 321, 64, "softmax", "bfloat16")
    yield Problem(4, 32, 4096, 4096, 64, "softmax", "bfloat16")
    yield Problem(4, 32, 4096, 4096, 64, "entmax15", "bfloat16")


def trials(problem: Problem) -> Iterator[Trial]:
    """Tiles that may pay: what is shipped, and what lies around it."""
    shape, seen = problem.shape, set()
    for role, shipped in SHIPPED.items():
        is_softmax = problem.kind == "softmax"
        candidates = [shipped(shape)]
        if role != "memories":
            candidates += _resident(shape, is_forward=role == "forward", is_softmax=is_softmax)
        if problem.memories > 64:
            candidates += _looped(shape, role, is_softmax=is_softmax)
        elif role == "memories":
            continue
        for plan in candidates:
            if (role, plan) not in seen:
                seen.add((role, plan))
                yield Trial(problem, role, plan)


def _resident(shape: Shape, *, is_forward: bool, is_softmax: bool) -> Iterator[Plan]:
    memories = block(shape.num_memories)
    most = {True: 2048, False: 1024}[is_softmax] * (2 if is_forward else 1)  # scores of a warp
    for queries, warps in itertools.product((16, 32, 64, 128), (1, 2, 4, 8)):
        scores = queries * memories // warps
        if memories <= 512 and queries <= block(shape.num_queries) and 64 <= scores <= most:
            yield plan_of(shape, True, queries, memories, warps)


def _looped(shape: Shape, role: str, *, is_softmax: bool) -> Iterator[Plan]:
    if not is_softmax:
        choices = itertools.product((32, 64, 128), (32, 64), (4, 8), (2,))
    elif role == "forward":
        choices = itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3))
    elif role == "backward":
        choices = itertools.product((64, 128), (32, 64), (4, 8), (2, 3))
    else:
        choices = itertools.product((32, 64), (64, 128), (4, 8), (2, 3))
    is_odd = shape.num_memories % 16 != 0  # compiled anew: fewer
    for queries, memories, warps, stages in choices:
        if is_odd and (stages > 2 or memories > 64):
            continue
        if 256 <= queries * memories // warps <= (4096 if role == "forward" else 2048):
            yield plan_of(shape, False, queries, memories, warps, stages)


class Watched:
    """A kernel that keeps what the compiler says of it."""

    def __init__(self, kernel: Any, told: dict[str, Any]) -> None:
        self.kernel, self.told = kernel, told

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*arguments: Any, **constants: Any) -> Any:
            binary = self.kernel[grid](*arguments, **constants)
            self.told[self.kernel.__name__] = {
                "registers": binary.n_regs, "spilled": binary.n_spills, "shared": binary.metadata.shared,
            }  # fmt: skip
            return binary

        return run


def prepared(trial: Trial, tensors: Tensors) -> tuple[Callable[[], object], dict[str, Any]]:
    """The launch of the trial, and what the compiler says once it has run; shipped tiles serve the other roles."""
    told: dict[str, Any] = {}
    rule = trial.problem.rule
    chosen = {f"{role}_plan": plan for role, plan in SHIPPED.items()} | {f"{trial.role}_plan": lambda _: trial.plan}
    if trial.role == "memories":  # what is by memories exists beside a looped part by queries
        looped = plan_of(trial.problem.shape, False, 64, 32, 4, 2)
        chosen["backward_plan"] = lambda _: looped
    patches = chosen | {name: Watched(getattr(launch, name), told) for name in KERNELS}
    retrieved, statistics = launch.launch_forward(tensors, rule)
    gradient = torch.randn_like(retrieved)
    learns_alpha = trial.problem.kind == "entmax"

    def forward() -> object:
        with mock.patch.multiple(launch, **patches):
            return launch.launch_forward(tensors, rule)

    def backward() -> object:
        with mock.patch.multiple(launch, **patches):
            return launch.launch_backward(tensors, rule, retrieved, gradient, statistics, learns_alpha=learns_alpha)

    return (forward if trial.role == "forward" else backward), told


def measured(trial: Trial, tensors: Tensors) -> dict[str, Any]:
    """Microseconds of a trial and what its kernels take, or why it failed."""
    entry: dict[str, Any] = {"problem": trial.problem.name, "role": trial.role, "tiles": trial.tiles}
    try:
        run, told = prepared(trial, tensors)
        sampler = DeviceClock().sampler([run])
        entry["microseconds"] = round(1e6 * timing([sampler() for _ in range(NUM_SAMPLES)]).median, 2)
        entry["compiled"] = told
    except Exception as problem:  # tiles that do not compile, or that no multiprocessor can hold
        entry["fails"] = f"{type(problem).__name__}: {str(problem).strip().splitlines()[:1]}"[:160]
    return entry


def compile_share(own: list[Trial]) -> None:
    """Run every trial once: compiled kernels stay in Triton's cache, on disk."""
    for trial in own:
        try:
            run, _ = prepared(trial, trial.problem.tensors())
            run()
            torch.cuda.synchronize()
        except Exception as problem:
            print(trial.problem.name, trial.role, trial.tiles, type(problem).__name__, flush=True)


def compile_all(given: argparse.Namespace) -> None:
    """Let ``--workers`` processes compile, each every so manieth trial."""
    started = time.monotonic()
    calls = [
        [sys.executable, __file__, "--share", str(share), "--workers", str(given.workers), "--only", *given.only]
        for share in range(given.workers)
    ]
    running = [subprocess.Popen(call) for call in calls]
    for process in running:
        process.wait()
    print(f"compiled in {time.monotonic() - started:.0f} s", flush=True)


def table(entries: list[dict[str, Any]]) -> str:
    """The fastest tiles of each problem and role, and how the shipped ones, which come first, compare."""
    lines = []
    for key, group in itertools.groupby(entries, key=lambda entry: (entry["problem"], entry["role"])):
        timed = list(group)
        shipped = timed[0].get("microseconds")
        best = sorted((each for each in timed if "microseconds" in each), key=lambda each: each["microseconds"])[:3]
        found = "; ".join(f"{each['tiles']} {each['microseconds']}" for each in best)
        lines.append(f"{' '.join(key)}: shipped {timed[0]['tiles']} {shipped}; best {found}")
    return "\n".join(lines)


def main() -> int:
    """Compile, time, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="processes that compile")
    parser.add_argument(
        "--only", nargs="+", default=["all"], metavar="TEXT", help="problems whose name has one of these"
    )
    parser.add_argument("--share", type=int, help="compile this share and end; what the workers are called with")
    parser.add_argument("--minutes", type=float, default=5.0, help="after which no trial begins")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device here", file=sys.stderr)
        return 4
    asked = [each for each in problems() if given.only == ["all"] or any(text in each.name for text in given.only)]
    todo = [trial for problem in asked for trial in trials(problem)]
    if given.share is not None:
        compile_share(todo[given.share :: given.workers])
        return 0
    if given.workers > 1:
        compile_all(given)
    ended, entries = time.monotonic() + 60 * given.minutes, []
    for problem, own in itertools.groupby(todo, key=lambda trial: trial.problem):
        if time.monotonic() > ended:
            print(f"time is up before {problem.name}")
            break
        tensors = problem.tensors()
        entries += [measured(trial, tensors) for trial in own]
        torch.cuda.empty_cache()
        document = {
            "machine": machine(torch.device("cuda")),
            "command": "python benchmarks/tiles.py",
            "trials": entries,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
