"""What the kernels have to reach on a GPU, and whether a document of measurements shows it.

Every goal is judged by its worst case. What is out of tolerance, or was not measured, reaches nothing. Only bisection
counts in bfloat16 although its derivative by alpha is out of tolerance there: it is what the published code calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stanhop.benchmarks.kernels.document import Document
from stanhop.benchmarks.kernels.peers import OURS

Record = Mapping[str, Any]
Figure = Callable[[Record], float | None]

KERNELS, FIXED = "ours, kernels", "ours, kernels, alpha fixed"
WITH_LSE = ("SDPA flash + LSE", "SDPA efficient + LSE", "SDPA cuDNN + LSE")
PLAIN = ("SDPA softmax", "SDPA flash softmax", "SDPA efficient softmax", "SDPA cuDNN softmax")
_BISECT = ("entmax_bisect(50)",)
SORTED = ("Liger sparsemax", "entmax, sort")
ETTH1 = ("etth1-time", "etth1-pooling", "etth1-variates")
SHORT_AND_LONG = (*ETTH1, "medium", "long")


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals.

    Args:
        name: ``G1`` and so on.
        what: What is compared, where.
        must: The figure that has to be reached.
        ambitious: The one that would be good.
        value: What was measured, in the worst case; None if it was not.
        case: Which case that is.
        is_most: Whether the figure must not be larger, rather than not smaller.
    """

    name: str
    what: str
    must: float
    ambitious: float
    value: float | None = None
    case: str = ""
    is_most: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the worst case reaches what it must; None if nothing was measured."""
        if self.value is None:
            return None
        return self.value <= self.must if self.is_most else self.value >= self.must


@dataclass(frozen=True)
class _Rule:
    """How a goal is read off the records of kernels: which of them, and which figure of each."""

    name: str
    what: str
    must: float
    ambitious: float
    groups: tuple[str, ...]
    rule: str
    figure: Figure
    lengths: tuple[int, int] = (1, 10**9)
    is_most: bool = False

    def goal(self, document: Document) -> Goal:
        figures = [(value, record["case"]) for record in self._records(document) if (value := self.figure(record))]
        head = (self.name, self.what, self.must, self.ambitious)
        if not figures:
            return Goal(*head, is_most=self.is_most)
        value, case = max(figures) if self.is_most else min(figures)
        return Goal(*head, value, case, self.is_most)

    def _records(self, document: Document) -> Iterator[Record]:
        least, most = self.lengths
        for record in document["records"]:
            is_length = least <= record["shape"]["queries"] <= most
            is_dtype = record["dtype"] == "bfloat16" or record["shape"]["head_dim"] == 0
            if record["group"] in self.groups and record["rule"]["name"] == self.rule and is_length and is_dtype:
                yield record


def seconds(record: Record, peer: str, phase: str) -> float | None:
    """Median of ``peer``, cold if that was measured; None if it was not timed or may not be out of tolerance and is."""
    entry = record["peers"].get(peer, {})
    times = entry.get("times", {})
    found = times.get("cold", times.get("warm", {})).get(phase, {}).get("seconds")
    is_admitted = found and (entry["is_accurate"] or peer in _BISECT)
    return float(found["median"]) if is_admitted else None


def against(peers: Sequence[str], phase: str, *, ours: str = OURS) -> Figure:
    """How many times as long as ours the fastest of ``peers`` takes."""

    def figure(record: Record) -> float | None:
        own = seconds(record, ours, phase)
        others = [value for peer in peers if (value := seconds(record, peer, phase)) is not None]
        return min(others) / own if own and others else None

    return figure


_RULES = (
    _Rule("G1", "Softmax_1 forward, eager over ours, L 7-32", 5, 8, (*ETTH1, "medium"), "outeffhop",
          against(("eager Softmax_1",), "forward"), (7, 32)),
    _Rule("G2", "Softmax_1 both, best SDPA + LSE over kernels, L 7-64", 1.3, 2, (*ETTH1, "medium"), "outeffhop",
          against(WITH_LSE, "both", ours=KERNELS), (7, 64)),
    _Rule("G3", "the same, L 96-512", 1.0, 1.2, ("medium",), "outeffhop", against(WITH_LSE, "both", ours=KERNELS),
          (96, 512)),
    _Rule("G4", "Softmax_1 forward, SDPA flash over kernels, L 4096", 0.95, 1.1, ("long",), "outeffhop",
          against(("SDPA flash softmax",), "forward", ours=KERNELS), (4096, 4096)),
    _Rule("G4b", "the same, backward", 0.9, 1.1, ("long",), "outeffhop",
          against(("SDPA flash softmax",), "backward", ours=KERNELS), (4096, 4096)),
    _Rule("G5", "Softmax_1 both, best plain SDPA over dispatched, L 7-8192", 0.95, 0.97, SHORT_AND_LONG, "outeffhop",
          against(PLAIN, "both")),
    _Rule("G6", "entmax forward, bisection over ours, ETTh1", 50, 150, ETTH1, "gsh", against(_BISECT, "forward")),
    _Rule("G7", "entmax both with d_alpha, bisection over ours, ETTh1", 20, 60, ETTH1, "gsh", against(_BISECT, "both")),
    _Rule("G7b", "the same, L 120", 20, 80, ("medium",), "gsh", against(_BISECT, "both"), (120, 120)),
    _Rule("G8", "entmax 1.4 both, AdaSplash-1 over ours, L 64-512", 3, 6, ("medium",), "entmax 1.4",
          against(("AdaSplash-1",), "both"), (64, 512)),
    _Rule("G9", "entmax 1.5 both, AdaSplash-1 over ours, L 4096", 1, 1.5, ("long",), "entmax 1.5",
          against(("AdaSplash-1",), "both"), (4096, 4096)),
    _Rule("G9b", "the same, AdaSplash-2 (causal)", 0.7, 1, ("long",), "entmax 1.5",
          against(("AdaSplash-2 (causal)",), "both"), (4096, 4096)),
    _Rule("G11", "backward with over without d_alpha, L <= 128", 1.15, 1.05, (*ETTH1, "medium"), "gsh",
          lambda record: _inverse(against((FIXED,), "backward", ours=KERNELS)(record)), (1, 128), is_most=True),
    _Rule("G12", "sparsemax rows both, best sort over ours", 2, 4, ("rows-long",), "sparsemax",
          against(SORTED, "both")),
)  # fmt: skip


def kernel_goals(document: Document) -> list[Goal]:
    """G1 to G12 as the document of the kernels shows them."""
    goals = [rule.goal(document) for rule in _RULES]
    goals.insert(
        -2, _over_softmax_1("G10", "learned-alpha entmax over Softmax_1, both, L <= 32", 1.6, 1.3, 32, document)
    )
    goals.insert(-2, _over_softmax_1("G10b", "the same, L <= 120", 5, 3, 120, document))
    return goals


def training_goals(training: Mapping[str, Any]) -> list[Goal]:
    """G13 to G15 as the part ``training`` shows them."""
    step, step_case = _slowest(training.get("published", {}), "bisection_over_ours")
    captured, captured_case = _slowest(training.get("published", {}), "bisection_over_graph")
    graph, epoch = training.get("eager_over_graph"), training.get("epoch_seconds")
    return [
        Goal("G13", "published training step, bisection over our CUDA graph, float32", 10, 30, captured, captured_case),
        Goal("G13b", "the same, launched step by step", 10, 30, step, step_case),
        Goal("G14", "default training step, eager over CUDA graph", 2, 4, graph, "default network"),
        Goal("G15", "seconds an epoch of 8,449 windows, batch 128", 0.5, 0.15, epoch, "default network", is_most=True),
        Goal("G16", "windows/s, over the fastest of four other networks", 1, 2),
    ]


def _slowest(published: Mapping[str, Any], ratio: str) -> tuple[float | None, str]:
    """The smallest of a ratio's medians, and whose it is."""
    found = [(each[ratio]["median"], name) for name, each in published.items() if ratio in each]
    return min(found) if found else (None, "")


def memory_goal(share: float | None) -> Goal:
    """G17: peak memory of a retrieval's forward and backward pass, as a share of eager's."""
    return Goal("G17", "peak memory over eager's, L 512", 0.25, 0.25, share, "medium/512, outeffhop", is_most=True)


def goals_text(goals: Sequence[Goal]) -> str:
    """The table for people."""
    rows = [("", "what, in its worst case", "measured", "must", "ambitious", "met", "case"), *map(_row, goals)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def roofline_text(document: Document) -> str:
    """Share of the memory's bandwidth, or of the matrix units where these bind, that ours reaches forward, by case."""
    bandwidth, flops = document["machine"].get("bandwidth"), document["machine"].get("half_flops")
    if not bandwidth or not flops:
        return "no limits are known of this machine: no shares"
    lines = []
    for record in document["records"]:
        for phase in ("forward", "both"):
            own = seconds(record, OURS, phase)
            if own is not None:
                by_bytes, by_flops = record["bytes"][phase] / bandwidth, record["flops"][phase] / flops
                limit = "bandwidth" if by_bytes >= by_flops else "matrix units"
                share = max(by_bytes, by_flops) / own
                lines.append(f"{record['case']}, {phase}: {1e6 * own:.1f} us, {share:.0%} of {limit}")
    return "\n".join(lines)


def _over_softmax_1(name: str, what: str, must: float, ambitious: float, most: int, document: Document) -> Goal:
    """Our time with learned alpha over our time with Softmax_1, on the same shape."""
    times: dict[tuple[str, str], dict[str, float]] = {}
    for record in document["records"]:
        own = seconds(record, OURS, "both")
        shape = record["shape"]
        is_asked = record["dtype"] == "bfloat16" and shape["head_dim"] and shape["queries"] <= most
        if own is not None and is_asked:
            times.setdefault((record["group"], shape["name"]), {})[record["rule"]["name"]] = own
    figures = [
        (by_rule["gsh"] / by_rule["outeffhop"], "/".join(place))
        for place, by_rule in times.items()
        if {"gsh", "outeffhop"} <= by_rule.keys()
    ]
    value, case = max(figures) if figures else (None, "")
    return Goal(name, what, must, ambitious, value, case, is_most=True)


def _row(goal: Goal) -> tuple[str, ...]:
    sign = "<=" if goal.is_most else ">="
    met = {None: "not measured", True: "yes", False: "NO"}[goal.is_met]
    value = "" if goal.value is None else f"{goal.value:.3g}"
    return goal.name, goal.what, value, f"{sign} {goal.must:g}", f"{sign} {goal.ambitious:g}", met, goal.case


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 / value
