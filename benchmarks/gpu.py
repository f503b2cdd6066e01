"""Everything that only a GPU can show: correctness, times of the kernels against every peer, training.

    python benchmarks/gpu.py                       # all parts, one after the other
    python benchmarks/gpu.py correctness kernels   # some of them
    python benchmarks/gpu.py --rehearse            # every part on a CPU, tiny, kernels in Triton's interpreter
    python benchmarks/gpu.py table                 # goals and sizes once more, from what is kept; on any machine
    python benchmarks/gpu.py --workers 12          # the gates by 12 processes, for compiling takes longest
    python benchmarks/gpu.py compile kernels --workers 12     # our kernels compiled so, then gates and times by one

Each part ends within 8 minutes and keeps what it has found in ``benchmarks/results/gpu``: called again, it goes on
where it stopped. Parts:

- ``correctness``: every way of ours and every peer against the definition in float64; nothing is timed if one of ours
  is out of tolerance.
- ``kernels``: each case's gate once more, then all ways in turns: on the device with its cache warm and cold, and with
  the host's share; peak memory against eager.
- ``training``: the published network's step against bisection, the default network's step with and without a CUDA
  graph in three precisions, an epoch, memory.

- ``full_size``, which is left out unless it is asked for: the OutEffHop paper's networks at full size, four methods and
  three seeds, trained by as many processes at once as there are workers; outliers and W8A8 of each checkpoint.
  It takes longer than 8 minutes.
- ``sizes``, which is left out as well: the default network's presets wider and deeper, trained in the same way.
  These two need all that ``stanhop train`` needs but MLflow and sktime. Called again, on another machine as well, they
  leave out what ``full_size.json`` and ``sizes.json`` have.

The first two need torch, triton and numpy, and nothing else, beside this checkout; ``training`` builds networks from
the configuration and needs pydantic and pyyaml as well. Peers are measured as far as they are installed: entmax,
adasplash, liger-kernel, flash-attention-softmax-n, transformer-engine. The table of goals comes last.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout need not be installed

PARTS = ("correctness", "kernels", "training")
FULL_SIZE, SIZES = "full_size", "sizes"
COMPILE, TABLE = "compile", "table"
MINUTES = 7.5
"""No case begins after these; one more takes seconds."""
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
REHEARSAL = ROOT / "benchmarks" / "results" / "gpu-rehearsal"
PUBLISHED_LEVELS = (2, 3)
MEMORY_CASE = "medium/512, outeffhop, bfloat16"


def main() -> int:
    """Run the parts that were asked for, print the table of goals, and return how the process should end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of one part, after which no case begins")
    parser.add_argument("--output", type=Path, help="where results are kept")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, tiny, in Triton's interpreter")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cases of correctness")
    parser.add_argument("--share", type=int, help="do this share of them; what the workers are called with")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one phase of a case of kernels")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change what full_size and sizes train"
    )
    parser.add_argument("--groups", nargs="+", metavar="NAME", help="shapes of correctness and kernels; default all")
    parser.add_argument("--dtypes", nargs="+", metavar="DTYPE", help="precisions of these; default each group's own")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases, or trainings, whose name has one of these")
    parser.add_argument("--without", nargs="+", default=[], metavar="PEER", help="peers to leave out")
    parser.add_argument("--caches", nargs="+", choices=("cold", "warm", "host"), help="which of them; default all")
    given = parser.parse_args()
    unknown = set(given.parts) - {*PARTS, FULL_SIZE, SIZES, COMPILE, TABLE}
    if unknown:
        parser.error(f"no part is called {sorted(unknown)}; choose of {', '.join(PARTS)}")
    if given.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch

    from stanhop.benchmarks.kernels.summary import summarise

    if given.parts == [TABLE]:
        folder = given.output or RESULTS
        print(*filter(None, (table_of_sizes(folder), summarise(folder))), sep="\n\n")
        return 0
    if not given.rehearse and not torch.cuda.is_available():
        print("there is no CUDA device here; --rehearse runs every part on a CPU", file=sys.stderr)
        return 4
    visit = Visit(given)
    if given.share is not None:
        getattr(visit, f"{given.parts[0]}_share")(given.share)
        return 0
    is_sound = True
    for part in given.parts or PARTS:
        print(f"== {part}", flush=True)
        is_sound = getattr(visit, part)() and is_sound
        if part == "correctness" and not is_sound:
            print("ours is out of tolerance: nothing is timed", file=sys.stderr)
            return 1
    print(summarise(visit.folder))
    return 0 if is_sound else 1


class Visit:
    """One machine's results in one folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        from stanhop.benchmarks.machine import machine

        self.given, self.is_rehearsal, self.minutes = given, given.rehearse, given.minutes
        self.left_out: tuple[str, ...] = tuple(given.without)
        self.folder: Path = given.output or (REHEARSAL if given.rehearse else RESULTS)
        self.device = torch.device("cpu" if given.rehearse else "cuda")
        self.machine = machine(self.device)
        print(self.machine.get("gpu", self.machine["processor"]), self.machine["versions"], flush=True)

    def correctness(self) -> bool:
        """Gates alone; whether all of ours pass."""
        from stanhop.benchmarks.kernels.measure import Settings
        from stanhop.storage import write_text

        if self.given.workers > 1:
            shares = self._shared_out()
            records = [record for share in shares for record in share["records"]]
            write_text(self._path("correctness"), json.dumps({**shares[0], "records": records}, indent=1) + "\n")
        document = self._measure(
            "correctness", Settings(caches=(), left_out=self.left_out)
        )  # what the workers left, or all
        return self._report_gates(document)

    def correctness_share(self, share: int) -> None:
        """The gates of every so manieth case, in a file of their own."""
        from stanhop.benchmarks.kernels.measure import Settings

        self._measure(self._share_name(share), Settings(caches=(), left_out=self.left_out), share=share)

    def compile(self) -> bool:
        """Leave every kernel of ours in Triton's cache on disk, so that the next parts need not wait for them."""
        started = time.monotonic()
        self._by_workers(COMPILE)
        print(f"compiled in {time.monotonic() - started:.0f} s")
        return True

    def compile_share(self, share: int) -> None:
        """Run every so manieth of the cases that differ in their kernels."""
        from stanhop.benchmarks.kernels.gate import laid_out, outcome
        from stanhop.benchmarks.kernels.peers import OURS, peers_for
        from stanhop.benchmarks.kernels.ways import Unserved

        ours = [peer for peer in peers_for(self.device) if peer.name.startswith(OURS) and "kernels" in peer.name]
        cases = self._cases()
        distinct = list({_kernels_of(case): case for case in cases if not case.shape.is_rows}.values())
        for case in distinct[share :: self.given.workers]:
            for peer in ours:
                try:
                    way = peer.make(case)
                except Unserved:
                    continue
                outcome(way.run, laid_out(case.tensors(), way), way.lacks)

    def _shared_out(self) -> list[dict[str, Any]]:
        """What as many processes as there are workers find out."""
        shares = range(self.given.workers)
        self._by_workers("correctness")
        found = [self._load(self._share_name(share)) for share in shares]
        for share in shares:
            self._path(self._share_name(share)).unlink(missing_ok=True)
        return [each for each in found if each is not None]

    def full_size(self) -> bool:
        """Table 1 of the OutEffHop paper: what is missing in the folder's document is trained and measured."""
        for name, each in self._trained(FULL_SIZE).items():
            before, after = each["float32"]["mse"], each["quantized"]["w8a8"]["mse"]
            kurtosis, largest = (each["outliers"]["all"][key] for key in ("average_kurtosis", "max_inf_norm"))
            print(f"{name}: MSE {before:.4f}, W8A8 {after:.4f}, kurtosis {kurtosis:.3f}, inf-norm {largest:.3f}")
        return True

    def sizes(self) -> bool:
        """The default network wider and deeper: what is missing in the folder's document is trained and measured."""
        self._trained(SIZES)
        print(table_of_sizes(self.folder))
        return True

    def _trained(self, part: str) -> dict[str, Any]:
        """Let the workers train what is missing, and keep it all as one document."""
        self._by_workers(part)
        trainings = self._trainings(part)
        found = trainings.gathered()
        self._keep(part, found)
        trainings.forget()
        return found

    def full_size_share(self, share: int) -> None:
        """Every so manieth training of those that are missing."""
        self._train_share(FULL_SIZE, share)

    def sizes_share(self, share: int) -> None:
        """Likewise."""
        self._train_share(SIZES, share)

    def _train_share(self, part: str, share: int) -> None:
        self._trainings(part).train(
            share, self.given.workers, is_wanted=self._is_wanted, is_over=self._deadline(), machine=self.machine,
            report=lambda line: print(line, flush=True),
        )  # fmt: skip

    def _trainings(self, part: str) -> Any:
        from stanhop.benchmarks.shared_trainings import SharedTrainings

        kind = importlib.import_module(f"stanhop.benchmarks.{part}")
        return SharedTrainings(part, kind, self.folder, tuple(self.given.set), self.is_rehearsal)

    def _by_workers(self, part: str) -> None:
        """Let each worker do its share of a part."""
        same = ["--workers", str(self.given.workers), "--minutes", str(self.minutes), "--output", str(self.folder)]
        same += ["--groups", *self.given.groups] if self.given.groups else []
        same += ["--only", *self.given.only] if self.given.only else []
        same += ["--without", *self.left_out] if self.left_out else []
        same += ["--dtypes", *self.given.dtypes] if self.given.dtypes else []
        same += ["--set", *self.given.set] if self.given.set else []
        call = [sys.executable, __file__, part, *same, *(["--rehearse"] if self.is_rehearsal else [])]
        running = [subprocess.Popen([*call, "--share", str(share)]) for share in range(self.given.workers)]
        for process in running:
            process.wait()

    @staticmethod
    def _share_name(share: int) -> str:
        return f"correctness-{share}"

    def kernels(self) -> bool:
        """Gates and times."""
        from stanhop.benchmarks.kernels.measure import CACHES, Settings

        settings = Settings(
            caches=tuple(self.given.caches or CACHES), num_rounds=50, limit=self.given.seconds, left_out=self.left_out
        )
        if self.is_rehearsal:
            settings = Settings(num_rounds=1, limit=0.0, phases=("both",), most_copies=2)
        document = self._measure("kernels", settings)
        self._keep("memory", {"share": self._memory_share()})
        return self._report_gates(document)

    def training(self) -> bool:
        """The published and the default network; a figure that is there from this machine is not measured again."""
        try:
            from stanhop.benchmarks.gpu_training import DEFAULT, PRECISIONS, TINY, measure_precision
            from stanhop.benchmarks.training_step import compare, published_config
        except ModuleNotFoundError as absent:
            print(f"training needs {absent.name}: pip install pydantic pyyaml", file=sys.stderr)
            return False
        tiny = self.is_rehearsal
        rounds, limit = (1, 0.0) if tiny else (50, 2 * self.given.seconds)
        todo: dict[str, Callable[[], Any]] = {}
        for levels in PUBLISHED_LEVELS:
            todo[f"published, {levels} levels"] = lambda levels=levels: compare(
                published_config(model_dim=8 if tiny else 64, num_levels=levels), device=self.device,
                batch_size=2 if tiny else 128, num_steps=2 if tiny else 30, num_rounds=rounds, limit=limit,
            )  # fmt: skip
        for precision in PRECISIONS:
            todo[f"default, {precision}"] = lambda precision=precision: measure_precision(
                TINY if tiny else DEFAULT, self.device, precision, num_rounds=rounds, limit=limit
            )
        ended, found = self._deadline(), self._kept("training")
        for name, measure in todo.items():
            if name not in found:
                if ended():
                    print("time is up: call again to go on")
                    break
                print(name, flush=True)
                found[name] = measure()
                self._keep("training", found)
        return True

    def _measure(self, name: str, settings: Any, share: int | None = None) -> dict[str, Any]:
        """Every case of the groups for CUDA, or a worker's share of them, as far as time allows."""
        from stanhop.benchmarks.kernels.document import run

        cases = self._cases()
        if self.is_rehearsal:  # one shape a group says all that a tiny one can
            cases = list({(case.group, case.rule.name): case for case in cases}.values())
        if share is not None:
            cases = cases[share :: self.given.workers]
        document: dict[str, Any] = run(
            cases, settings, path=self._path(name), machine=self.machine, command=f"python benchmarks/gpu.py {name}",
            resume=True, report=lambda line: print(line, flush=True), deadline=self._deadline(),
        )  # fmt: skip
        if not document["is_complete"]:
            print("time is up: call again to go on")
        return document

    def _cases(self) -> list[Any]:
        """What was asked for; a peer that computes one fixed alpha has been seen to break CUDA: its cases come last."""
        import torch

        from stanhop.benchmarks.kernels.cases import ENTMAX_14, ENTMAX_15, cases_of, names_of

        dtypes = [getattr(torch, name) for name in self.given.dtypes or ()] or None
        groups = self.given.groups or names_of("cuda")
        every = cases_of(groups, self.device, meant_for="cuda", dtypes=dtypes, is_tiny=self.is_rehearsal)
        cases = [case for case in every if self._is_wanted(case.name)]
        return sorted(cases, key=lambda case: case.rule in (ENTMAX_14, ENTMAX_15))

    def _is_wanted(self, name: str) -> bool:
        """Whether a case or training of this name was asked for."""
        return not self.given.only or any(re.search(rf"\b{re.escape(text)}", name) for text in self.given.only)

    def _report_gates(self, document: dict[str, Any]) -> bool:
        """Print who fails or is out of tolerance, and say whether none of ours is among them."""
        is_sound = True
        for record in document["records"]:
            for name, entry in record["peers"].items():
                if entry["status"] == "fails" or not entry.get("is_accurate", True):
                    print(f"{record['case']}: {name}: {entry.get('reason') or entry['verdict']}")
                    is_sound = is_sound and not entry["is_ours"]
        return is_sound

    def _memory_share(self) -> float | None:
        """Peak memory of our forward and backward pass over that of eager Softmax_1, beyond what lies there before."""
        import torch

        from stanhop.benchmarks.kernels.cases import cases_of
        from stanhop.benchmarks.kernels.gate import outcome
        from stanhop.benchmarks.kernels.peers import OURS, peers_for

        if self.device.type != "cuda":
            return None
        case = next(case for case in cases_of(["medium"], self.device) if case.name == MEMORY_CASE)
        peaks = {}
        for peer in peers_for(self.device):
            if peer.name in (OURS, "eager Softmax_1"):
                way, given = peer.make(case), case.tensors()
                torch.cuda.synchronize()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                outcome(way.run, given)
                torch.cuda.synchronize()
                peaks[peer.name] = torch.cuda.max_memory_allocated() - before
        return float(peaks[OURS] / peaks["eager Softmax_1"])

    def _deadline(self) -> Callable[[], bool]:
        ended = time.monotonic() + 60 * self.minutes
        return lambda: time.monotonic() > ended

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _keep(self, name: str, found: dict[str, Any]) -> None:
        from stanhop.storage import write_text

        document = {"machine": self.machine, "is_rehearsal": self.is_rehearsal, "found": found}
        write_text(self._path(name), json.dumps(document, indent=1) + "\n")

    def _kept(self, name: str) -> dict[str, Any]:
        """What ``_keep`` kept, if it was on this machine."""
        document = self._load(name)
        is_here = document is not None and document["machine"] == self.machine
        return document["found"] if document is not None and is_here else {}


def table_of_sizes(folder: Path) -> str:
    """What the part ``sizes`` found as text, which goes to ``folder`` as well; nothing where it has not run."""
    path = folder / f"{SIZES}.json"
    found = json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else {}
    if not found:
        return ""
    from stanhop.benchmarks.sizes import to_text
    from stanhop.storage import write_text

    text = to_text(found)
    write_text(folder / f"{SIZES}.txt", text + "\n")
    return text


def _kernels_of(case: Any) -> tuple[Any, ...]:
    """What tells the kernels of one case from those of another."""
    from stanhop.kernels.plan import Shape, backward_plan, forward_plan, memories_plan

    width, size = case.shape.head_dim, case.dtype.itemsize
    shape = Shape(case.shape.queries, case.shape.memories, width, width, size, is_softmax=case.rule.alpha == 1)
    plans = tuple(choose(shape) for choose in (forward_plan, backward_plan, memories_plan))
    kind = "learned" if case.rule.is_learned else case.rule.alpha
    return case.dtype, width, kind, case.rule.no_op, case.shape.is_shared, plans


if __name__ == "__main__":
    sys.exit(main())
