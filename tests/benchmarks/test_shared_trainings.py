"""Trainings shared by processes: each is done once, whoever comes late, and what is kept is of the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from stanhop.benchmarks.shared_trainings import SharedTrainings


@dataclass(frozen=True)
class Named:
    name: str


@dataclass
class Counted:
    """Trainings that only say that they were done."""

    done: list[str] = field(default_factory=list)

    def cells(self, *, is_tiny: bool = False, assignments: Sequence[str] = ()) -> Iterator[Named]:
        yield from map(Named, "abcd")

    def measured(self, cell: Named, folder: Path) -> dict[str, Any]:
        self.done.append(cell.name)
        return {"mse": ord(cell.name)}


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def train(trainings: SharedTrainings, share: int, num_shares: int, *, wanted: str = "abcd", over: bool = False) -> None:
    trainings.train(
        share,
        num_shares,
        is_wanted=lambda name: name in wanted,
        is_over=lambda: over,
        machine={},
        report=lambda _: None,
    )


def test_shares_cover_all_of_it_once_though_one_comes_when_the_other_has_finished(tmp_path) -> None:
    kind = Counted()
    trainings = SharedTrainings("some", kind, tmp_path)
    train(trainings, 0, 2)
    train(trainings, 1, 2)
    assert sorted(kind.done) == list("abcd")
    assert {name: each["mse"] for name, each in trainings.gathered().items()} == {each: ord(each) for each in "abcd"}


def test_what_is_gathered_or_has_a_file_is_not_trained_again(tmp_path) -> None:
    kind = Counted()
    trainings = SharedTrainings("some", kind, tmp_path)
    train(trainings, 0, 1, wanted="a")
    (tmp_path / "some.json").write_text(json.dumps({"found": trainings.gathered()}))
    trainings.forget()
    train(trainings, 0, 1, wanted="b")
    train(trainings, 0, 1)
    assert kind.done == list("abcd")
    assert [path.name for path in tmp_path.glob("*.json")].count("some-a.json") == 0


def test_trainings_with_other_settings_are_left_alone(tmp_path) -> None:
    kind = Counted()
    before = SharedTrainings("some", kind, tmp_path, ("train.seed=1",))
    train(before, 0, 1, wanted="a")
    (tmp_path / "some.json").write_text(json.dumps({"found": before.gathered()}))
    before.forget()
    train(before, 0, 1, wanted="b")
    now = SharedTrainings("some", kind, tmp_path, ("train.seed=2",))
    assert now.gathered() == {}
    train(now, 0, 1, wanted="ab")
    assert kind.done == list("abab")


def test_when_time_is_up_nothing_begins(tmp_path) -> None:
    kind = Counted()
    train(SharedTrainings("some", kind, tmp_path), 0, 1, over=True)
    assert not kind.done
