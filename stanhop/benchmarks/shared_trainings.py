"""Trainings that several processes share: what each gave in a file of its own, gathered in one document at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stanhop.storage import remove_file, write_text


class Cell(Protocol):
    """One training."""

    @property
    def name(self) -> str:
        """Unique among its kind."""


class Kind(Protocol):
    """What is trained: a module such as ``full_size`` or ``sizes``."""

    def cells(self, *, is_tiny: bool = ..., assignments: Sequence[str] = ...) -> Iterator[Any]:
        """Every training."""

    def measured(self, cell: Any, folder: Path) -> dict[str, Any]:
        """What one gave, as plain data."""


@dataclass(frozen=True)
class SharedTrainings:
    """The trainings of one kind in one folder.

    Args:
        name: Of the document, without its ending.
        kind: What is trained.
        folder: Where the document, what is not gathered yet, and the runs lie.
        assignments: ``key=value`` that change every preset; trainings with others are left alone.
        is_tiny: Whether to cut each to what says nothing and takes seconds.
    """

    name: str
    kind: Kind
    folder: Path
    assignments: tuple[str, ...] = ()
    is_tiny: bool = False

    def gathered(self) -> dict[str, Any]:
        """By name all that is done, on whatever machine."""
        own = {path.stem.removeprefix(f"{self.name}-"): _read(path) for path in self._own_files()}
        return self._with_our_settings(self._kept() | own)

    def forget(self) -> None:
        """Delete the files of single trainings, whose content stands in the document by now."""
        for path in self._own_files():
            remove_file(path)

    def train(
        self, share: int, num_shares: int, *, is_wanted: Callable[[str], bool], is_over: Callable[[], bool],
        machine: Mapping[str, Any], report: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Train and measure every so manieth of those wanted that are not in the document, as far as time allows."""
        torch.set_float32_matmul_precision("high")  # products in TF32
        # Files of their own come while others train: shares must not depend on them.
        kept = self._with_our_settings(self._kept())
        every = self.kind.cells(is_tiny=self.is_tiny, assignments=self.assignments)
        missing = [cell for cell in every if cell.name not in kept and is_wanted(cell.name)]
        for cell in missing[share::num_shares]:
            if cell.name in self.gathered():
                continue
            if is_over():
                report("time is up: call again to go on")
                break
            report(f"training {cell.name}")
            found = self.kind.measured(cell, self.folder / "runs")
            found |= {"machine": dict(machine), "set": list(self.assignments)}
            write_text(self.folder / f"{self.name}-{cell.name}.json", json.dumps(found, indent=1) + "\n")

    def _kept(self) -> dict[str, Any]:
        document = self.folder / f"{self.name}.json"
        found: dict[str, Any] = _read(document)["found"] if document.exists() else {}
        return found

    def _with_our_settings(self, found: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in found.items() if tuple(each["set"]) == self.assignments}

    def _own_files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.name}-*.json"))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
