"""Measure one case: gate every peer, then time those that run, in turns, on equal tensors in this process."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stanhop.benchmarks import timing
from stanhop.benchmarks.kernels.cases import Case
from stanhop.benchmarks.kernels.gate import Gate, Verdict, laid_out
from stanhop.benchmarks.kernels.peers import OURS, Peer, peers_for
from stanhop.benchmarks.kernels.ways import Unserved, Way
from stanhop.benchmarks.timing import Call, Clock, DeviceClock, Sampler, WallClock

PHASES = ("forward", "backward", "both")
"""Read-outs alone, without autograd; gradients alone; read-outs and gradients."""
CACHES = ("warm", "cold", "host")
"""Time on the device with tensors that may lie in its cache, or that do not; ``host`` is warm, on the clock on the
wall, with what the host takes to launch, which on a CPU is the same as warm."""
NOT_INSTALLED = "not installed"
SLOWEST = ("ours, definition",)
"""Ways that are there to be equal to, not to be fast: timed only if asked for."""

Record = dict[str, Any]
"""What a case found, as JSON knows it."""


@dataclass(frozen=True)
class Settings:
    """How thoroughly to measure.

    Args:
        num_rounds: Rounds at most.
        limit: Seconds after which a phase of a case begins no further round.
        caches: Of ``CACHES``.
        times_definition: Whether the slow definition is timed as well.
        phases: Of ``PHASES``.
        most_copies: Copies of the tensors that a cold cache may take; where they do not fill it twice it is not cold.
        left_out: Names of peers that are not looked at.
    """

    num_rounds: int = 50
    limit: float = 3.0
    caches: tuple[str, ...] = ("warm",)
    times_definition: bool = False
    phases: tuple[str, ...] = PHASES
    most_copies: int = timing.MOST_COPIES
    left_out: tuple[str, ...] = ()


def measure(case: Case, settings: Settings) -> Record:
    """Everything about ``case``: each peer's verdict, its times by cache and phase, and how often ours they are.

    A peer that is not installed, does not serve the case, breaks or is out of tolerance is reported as such. One that
    is out of tolerance is timed all the same, but counts for nothing: see ``is_accurate``.
    """
    gate = Gate.of(case)
    ways: dict[str, Way] = {}
    entries: dict[str, Record] = {}
    for peer in peers_for(case.device):
        if peer.name in settings.left_out:
            continue
        entries[peer.name], way = _examine(peer, case, gate)
        if way is not None and (settings.times_definition or peer.name not in SLOWEST):
            ways[peer.name] = way
    for cache in settings.caches:
        for phase in settings.phases:
            found = _time(case, ways, phase, cache, settings)
            for name, outcome in found.items():
                entries[name].setdefault("times", {}).setdefault(cache, {})[phase] = outcome
            _collect(case.device)
    return {
        "case": case.name,
        "group": case.group,
        "shape": vars(case.shape),
        "rule": {"name": case.rule.name, "alpha": case.rule.alpha, "no_op": case.rule.no_op},
        "dtype": str(case.dtype).removeprefix("torch."),
        "bytes": {phase: case.shape.num_bytes(case.dtype, phase) for phase in PHASES},
        "flops": {phase: case.shape.num_flops(phase) for phase in PHASES},
        "peers": entries,
    }


def _examine(peer: Peer, case: Case, gate: Gate) -> tuple[Record, Way | None]:
    """What is to be said of ``peer`` before its time is taken, and its way if that can be taken."""
    entry: Record = {"is_ours": peer.is_ours}
    if not peer.is_installed:
        return entry | {"status": NOT_INSTALLED, "reason": f"pip install {peer.package}"}, None
    try:
        verdict: Verdict = gate.judge(peer.make(gate.case))
        way = peer.make(case)
    except Unserved as reason:
        return entry | {"status": "n/a", "reason": str(reason)}, None
    except torch.cuda.OutOfMemoryError:
        return entry | {"status": "n/a", "reason": "out of memory"}, None
    except Exception as problem:  # whatever another's package raises is told, not hidden
        return entry | {"status": "fails", "reason": _brief(problem)}, None
    return entry | {
        "status": "measured",
        "computes": way.rule.name,
        "lacks": sorted(way.lacks),
        "is_accurate": verdict.is_accurate,
        "verdict": verdict.text,
        "errors": dict(verdict.errors),
        "tolerances": dict(verdict.tolerances),
    }, way


def _time(case: Case, ways: Mapping[str, Way], phase: str, cache: str, settings: Settings) -> dict[str, Record]:
    """Times of all ``ways`` in one phase: quantiles in seconds, and ratios to ours, round by round."""
    num_copies = _num_copies(case, settings) if cache == "cold" else 1
    samplers: dict[str, Sampler] = {}
    found: dict[str, Record] = {}
    for name, way in ways.items():
        try:
            clock = _clock(case.device, way, cache)
            calls = _calls(case, way, phase, clock, num_copies=num_copies)
            samplers[name] = clock.sampler(calls)
            found[name] = {"method": clock.method, "copies": len(calls)}
        except torch.cuda.OutOfMemoryError:
            found[name] = {"reason": "out of memory"}
            _collect(case.device)
        except Exception as problem:  # as in _examine
            found[name] = {"reason": _brief(problem)}
    samples = timing.in_turns(samplers, num_rounds=settings.num_rounds, limit=settings.limit)
    for name, values in samples.items():
        found[name]["seconds"] = vars(timing.timing(values))
        if OURS in samples:
            low, median, high = timing.ratio(values, samples[OURS])
            found[name]["times_ours"] = {"low": low, "median": median, "high": high}
    return found


def _num_copies(case: Case, settings: Settings) -> int:
    """Copies of the tensors that find the cache cold."""
    num_bytes = case.shape.num_bytes(case.dtype, "forward")
    return timing.num_copies(num_bytes, timing.cache_size(case.device), most=settings.most_copies)


def _calls(case: Case, way: Way, phase: str, clock: Clock, *, num_copies: int) -> list[Call]:
    """Equal calls, each on its own copy of the tensors."""
    with clock.stream():
        return [_call(way, laid_out(case.tensors(seed=copy), way), phase) for copy in range(num_copies)]


def _call(way: Way, given: dict[str, Tensor], phase: str) -> Call:
    """One computation of ``phase``; gradients are made afresh, not added to what is there."""
    learned = [tensor for tensor in given.values() if tensor.requires_grad]
    if phase == "forward":
        return torch.no_grad()(lambda: way.run(given))
    if phase == "backward":
        output = way.run(given)
        gradient = _gradient_of(way, given, output.detach())
        return lambda: torch.autograd.grad(output, learned, gradient, retain_graph=True)
    gradient = _gradient_of(way, given, way.run(given).detach())
    return lambda: torch.autograd.grad(way.run(given), learned, gradient)


def _gradient_of(way: Way, given: dict[str, Tensor], output: Tensor) -> Tensor:
    """A random gradient of ``output``; that of a read-out as the layer behind it, which joins the heads, gives it back.

    Heads then lie side by side; a way that takes its tensors with queries side by side gets its gradient so as well.
    """
    generator = torch.Generator(output.device).manual_seed(1)  # torch's own one may be held by a capture that failed
    gradient = torch.randn(output.shape, generator=generator, device=output.device).to(output.dtype)
    is_read_out = "query" in given
    return gradient.transpose(1, 2).contiguous().transpose(1, 2) if is_read_out and not way.is_contiguous else gradient


def _clock(device: torch.device, way: Way, cache: str) -> Clock:
    if device.type == "cpu":
        return WallClock()
    return WallClock(torch.cuda.synchronize) if cache == "host" else DeviceClock(is_capturable=way.is_capturable)


def _collect(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _brief(problem: Exception) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0] if lines else ''}"[:200]
