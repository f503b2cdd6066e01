"""Times a training step of the published STanHop network (GSH), our retrieval against bisection, side by side.

    python benchmarks/published_step.py --threads 2

The network is that of github.com/MAGICS-LAB/STanHop, 64 wide, on 168 -> 24 steps of 7 channels, batches of 128: shaped
like ETTh1, made up. Both ways start from the same weights, see the same batches, and must show the same losses. What
one step of each takes is then measured in turns. The result goes to ``benchmarks/results/published_step.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from stanhop import storage
from stanhop.benchmarks.machine import machine
from stanhop.benchmarks.training_step import compare, published_config

RESULT = Path(__file__).parent / "results" / "published_step.json"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="training steps whose losses are compared")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each way, at most")
    parser.add_argument("--seconds", type=float, default=45.0, help="time after which no further round begins")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; its own choice if not given")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    device = torch.device("cpu")
    result = compare(
        published_config(),
        device=device,
        batch_size=given.batch_size,
        num_steps=given.steps,
        num_rounds=given.rounds,
        limit=given.seconds,
        report=lambda line: print(line, flush=True),
    )
    what = "seconds a training step on the wall clock (quantiles 20, 50, 80 %), ours and 50 halvings, in turns"
    storage.write_text(given.output, json.dumps({"what": what, "machine": machine(device), **result}, indent=2) + "\n")
    ratio = result["bisection_over_ours"]
    for way, seconds in result["seconds"].items():
        print(f"{way:>10}: {1e3 * seconds['median']:8.1f} ms a step, last loss {result['losses'][way][-1]:.6f}")
    print(f"bisection takes {ratio['median']:.2f} times as long [{ratio['low']:.2f}, {ratio['high']:.2f}]")
    print(f"losses differ by {result['largest_difference']:.1e} at most, relative, over {given.steps} steps")


if __name__ == "__main__":
    main()
