"""Times separation and retrieval on a CPU, forward and backward, against the entmax package and against plain steps.

    python benchmarks/separation.py

1. alpha-entmax with a learned alpha a head: ``fast_separate`` against ``entmax.entmax_bisect`` with 50 steps (what the
   published STanHop code runs), on scores of ETTh1's size, 128 windows x 7 channels and 14 patches, and on 120
   memories. Both compute the gradients of scores and alpha. Fixed alpha 1.5 and 2 also meet the package's exact sorts.
2. Softmax_1 retrieval of one layer, by number of memories: fused attention and separate steps with the fast separation
   against plain torch operations under autograd; forward and backward, and forward alone. It tells from where fused
   attention pays.

All run in one process on one thread, in turn, after two rounds to warm up; the median of the rounds counts. The time is
that of the processor, which other programs on the machine lengthen little. The result goes to
``benchmarks/results/separation.json``.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import entmax
import torch
from torch import Tensor

from stanhop import storage
from stanhop.hopfield.attention import attend
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve

SCORES_SHAPES = [(896, 4, 14, 14), (32, 4, 120, 120)]
LEARNED_ALPHAS = [1.1, 1.4, 1.9]
NUM_MEMORIES = [14, 30, 60, 90, 120, 321, 862]
HEADS, HEAD_DIM = 4, 16
NUM_ROUNDS = 15
RESULT = Path(__file__).parent / "results" / "separation.json"


def milliseconds(ways: dict[str, Callable[[], Tensor]], *, with_backward: bool = True) -> dict[str, float]:
    """Median time by way, the ways taking turns."""
    tries: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(NUM_ROUNDS + 2):
        for name, way in ways.items():
            started = time.process_time()
            with torch.set_grad_enabled(with_backward):
                output = way()
            if with_backward:
                output.backward(torch.ones_like(output))
            if number >= 2:
                tries[name].append(1e3 * (time.process_time() - started))
    return {name: round(statistics.median(times), 2) for name, times in tries.items()}


def separations(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Part 1 for scores of one shape."""
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    rows = []
    for alpha in LEARNED_ALPHAS:
        alphas = torch.full((shape[1], 1, 1), alpha, requires_grad=True)
        ways = {
            "package": lambda alphas=alphas: entmax.entmax_bisect(scores, alpha=alphas, n_iter=50),
            "ours": lambda alphas=alphas: fast_separate(scores, alpha=alphas, no_op=False),
            "ours_with_no_op": lambda alphas=alphas: fast_separate(scores, alpha=alphas, no_op=True),
        }
        rows.append({"shape": shape, "alpha": alpha, "is_learned": True, "milliseconds": milliseconds(ways)})
    for alpha, exact in ((1.5, entmax.entmax15), (2.0, entmax.sparsemax)):
        ways = {
            "package": lambda alpha=alpha: entmax.entmax_bisect(scores, alpha=alpha, n_iter=50),
            "package_exact": lambda exact=exact: exact(scores, dim=-1),
            "ours": lambda alpha=alpha: fast_separate(scores, alpha=alpha, no_op=False),
            "ours_with_no_op": lambda alpha=alpha: fast_separate(scores, alpha=alpha, no_op=True),
        }
        rows.append({"shape": shape, "alpha": alpha, "is_learned": False, "milliseconds": milliseconds(ways)})
    for row in rows:
        row["package_over_ours"] = round(row["milliseconds"]["package"] / row["milliseconds"]["ours"], 1)
    return rows


def retrievals(num_memories: int) -> dict[str, Any]:
    """Part 2 for one number of memories, which are the queries as well."""
    batch = max(1, 2**20 // (HEADS * num_memories * num_memories))
    generator = torch.Generator().manual_seed(1)
    query, memory, values = (
        torch.randn(batch, num_memories, HEADS, HEAD_DIM, generator=generator).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )
    beta = HEAD_DIM**-0.5
    ways = {
        "plain": lambda: plain_softmax_1((query * beta) @ memory.transpose(-1, -2)) @ values,
        "separate_steps": lambda: retrieve(query, memory, values, alpha=1.0, no_op=True, method="fast"),
        "fused_attention": lambda: attend(query, memory, values, no_op=True, beta=beta),
    }
    return {
        "batch": batch,
        "num_memories": num_memories,
        "milliseconds": milliseconds(ways),
        "milliseconds_forward": milliseconds(ways, with_backward=False),
    }


def plain_softmax_1(scores: Tensor) -> Tensor:
    """Softmax_1 as one writes it."""
    pivot = scores.amax(dim=-1, keepdim=True).clamp(min=0).detach()
    unnormalised = (scores - pivot).exp()
    return unnormalised / (unnormalised.sum(dim=-1, keepdim=True) + (-pivot).exp())


def main() -> None:
    """Measure, print and store."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "what": "processor milliseconds, forward and backward unless said, float32, one thread, median of the rounds",
        "num_rounds": NUM_ROUNDS,
        "machine": {"processor": platform.machine(), "python": platform.python_version(), "torch": torch.__version__},
        "separation": [],
        "softmax_1_retrieval": [],
    }
    for shape in SCORES_SHAPES:
        for row in separations(shape):
            print(row["shape"], f"alpha {row['alpha']}:", row["milliseconds"], f"{row['package_over_ours']}x")
            result["separation"].append(row)
    for num_memories in NUM_MEMORIES:
        row = retrievals(num_memories)
        print(f"{num_memories} memories:", row["milliseconds"], "forward:", row["milliseconds_forward"])
        result["softmax_1_retrieval"].append(row)
    storage.write_text(RESULT, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
