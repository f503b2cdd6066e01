"""What was measured as one document: written after every case, taken up again, and told as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stanhop.benchmarks.kernels.cases import Case
from stanhop.benchmarks.kernels.measure import PHASES, Record, Settings, measure
from stanhop.errors import Code, OutputError
from stanhop.storage import write_text

Document = dict[str, Any]

WHAT = (
    "seconds a call (quantiles 20, 50, 80 %) of each way, in turns on equal tensors in one process; times_ours is how "
    "many times as long it takes as ours, round by round; a way that is not accurate, or computes something else "
    "(`computes`), counts for no win"
)


def run(
    cases: Sequence[Case],
    settings: Settings,
    *,
    path: Path,
    machine: Mapping[str, Any],
    command: str,
    resume: bool = False,
    report: Callable[[str], None] = lambda line: None,
    deadline: Callable[[], bool] = lambda: False,
) -> Document:
    """Measure ``cases`` and keep the document at ``path``, which is written after each of them.

    Args:
        cases: What to measure.
        settings: How.
        path: The document's file.
        machine: What it runs on; figures of another machine are never taken up.
        command: What someone types to have it again.
        resume: Whether cases that stand in the file already, measured with the same settings here, stay as they are,
            whether they are asked for now or not.
        report: Told before each case.
        deadline: Asked before each case: whether to stop here; the rest is left for another time.

    Returns:
        The document; ``is_complete`` says whether every case is in it.
    """
    head = {"what": WHAT, "machine": dict(machine), "settings": _plain(vars(settings))}
    done = _done(path, head) if resume else {}
    missing = [case for case in cases if case.name not in done]
    document: Document = {**head, "is_complete": not missing, "records": list(done.values())}
    for number, case in enumerate(missing, start=1):
        if deadline():
            break
        report(f"{number} of {len(missing)}: {case.name}")
        document["records"].append({"command": command, **_plain(measure(case, settings))})
        document["is_complete"] = number == len(missing)
        write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def _done(path: Path, head: Mapping[str, Any]) -> dict[str, Record]:
    """Records in the file by name, if machine and settings are those of ``head``."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        is_same = all(found[key] == head[key] for key in ("machine", "settings"))
        return {record["case"]: record for record in found["records"]} if is_same else {}
    except (ValueError, KeyError, TypeError):
        problem = "is not a document of this command"
        raise OutputError(Code.OUTPUT, problem, fix="delete it, or leave out --resume", file=path) from None


def rows_of(document: Document) -> Iterator[dict[str, Any]]:
    """One row a case, cache and peer that was timed: medians in milliseconds and ratios by phase."""
    for record in document["records"]:
        for cache in document["settings"]["caches"]:
            for name, entry in record["peers"].items():
                times = entry.get("times", {}).get(cache, {})
                measured = {phase: times[phase] for phase in PHASES if "seconds" in times.get(phase, {})}
                if measured:
                    yield {
                        "case": record["case"],
                        "cache": cache,
                        "peer": name,
                        "is_ours": entry["is_ours"],
                        "is_accurate": entry["is_accurate"],
                        "computes": entry["computes"],
                        "rule": record["rule"]["name"],
                        "milliseconds": {phase: 1e3 * one["seconds"]["median"] for phase, one in measured.items()},
                        "times_ours": {phase: one.get("times_ours") for phase, one in measured.items()},
                    }


def to_text(document: Document) -> str:
    """The table for people: a block a case, milliseconds and how many times ours; then who was not there."""
    blocks: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows_of(document):
        cells = [row["peer"], *(_cell(row, phase) for phase in PHASES), _remark(row)]
        blocks.setdefault((row["case"], row["cache"]), []).append(cells)
    lines: list[str] = []
    for (case, cache), rows in blocks.items():
        lines += [f"{case}, cache {cache}", *_aligned([["", *PHASES, ""], *rows]), ""]
    refused = _inaccurate(document)
    lines += ["out of tolerance:", *refused, ""] if refused else []
    absent = sorted(_absent(document))
    lines += ["not installed:", *(f"  {line}" for line in absent)] if absent else []
    return "\n".join(lines).rstrip()


def _cell(row: Mapping[str, Any], phase: str) -> str:
    if phase not in row["milliseconds"]:
        return "n/a"
    ratio = row["times_ours"][phase]
    spread = "" if ratio is None else f"  {ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{row['milliseconds'][phase]:.3f} ms{spread}"


def _remark(row: Mapping[str, Any]) -> str:
    remarks = [] if row["computes"] == row["rule"] else [f"computes {row['computes']}"]
    return ", ".join(remarks if row["is_accurate"] else [*remarks, "out of tolerance"])


def _inaccurate(document: Document) -> list[str]:
    return [
        f"  {record['case']}: {name}: {entry['verdict']}"
        for record in document["records"]
        for name, entry in record["peers"].items()
        if not entry.get("is_accurate", True)
    ]


def _absent(document: Document) -> set[str]:
    return {
        f"{name} ({entry['reason']})"
        for record in document["records"]
        for name, entry in record["peers"].items()
        if entry["status"] == "not installed"
    }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _plain(value: Any) -> Any:  # anything a record holds
    """``value`` as JSON gives it back, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
