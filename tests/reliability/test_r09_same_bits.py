"""R9: the same seed and threads give the same bits, whatever else is different."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kit import samples, training
from tests.reliability.kit.nursery import Nursery

HASH_SEEDS = ("1", "2", "3", "4", "5")
FEW_FILES = 64
DIFFERENCES: dict[str, dict[str, str]] = {
    "nothing": {},
    "another folder for temporary files": {"TMPDIR": "/dev/shm"},
    "another language": {"LANG": "C", "LC_ALL": "C"},
    "another time zone": {"TZ": "Asia/Kathmandu"},
    "no home": {"HOME": "/nonexistent"},
    "no folder for temporary files": {"TMPDIR": "/nonexistent"},
}


@pytest.mark.slow
@pytest.mark.parametrize("count", [len(DIFFERENCES)])
def test_the_same_seed_gives_the_same_bits(
    count: int, nursery: Nursery, tmp_path: Path, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    assert nursery.run("command", *training.options(data, tmp_path / "first")).code == 0
    expected = training.end_of(tmp_path / "first")
    for number, (name, environment) in enumerate(list(DIFFERENCES.items())[:count]):
        run_path = tmp_path / str(number)
        ended = nursery.run("command", *training.options(data, run_path), environment=environment)
        assert ended.code == 0, (name, ended.err)
        assert not training.differences(training.end_of(run_path), expected), name
    ended = nursery.run("with_few_files", FEW_FILES, *training.options(data, tmp_path / "few"))
    assert ended.code == 0, ended.err
    assert not training.differences(training.end_of(tmp_path / "few"), expected)
    record(
        "R9",
        "same seed",
        f"{count + 2} trainings, {count - 1} of them in another environment, one with {FEW_FILES} open files at most:"
        " 0 bits differ",
    )


@pytest.mark.slow
def test_neither_the_order_of_sets_nor_a_clock_that_jumps_changes_a_bit(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]
) -> None:
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(samples.TRAINING_ROWS))
    assert nursery.run("command", *training.options(data, tmp_path / "first")).code == 0
    expected = training.end_of(tmp_path / "first")
    ended = nursery.run("clock_jumping", *training.options(data, tmp_path / "jumping"))
    assert ended.code == 0, ended.err
    assert "jumped" in ended.out
    assert not training.differences(training.end_of(tmp_path / "jumping"), expected)
    for seed in HASH_SEEDS:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        (tmp_path / seed).mkdir()
        with Nursery(tmp_path / seed) as other:
            ended = other.run("command", *training.options(data, tmp_path / seed / "run"))
        assert ended.code == 0, ended.err
        assert not training.differences(training.end_of(tmp_path / seed / "run"), expected), seed
    record("R9", "hash seeds and clocks", f"{len(HASH_SEEDS)} hash seeds and a clock that jumps back: 0 bits differ")


@pytest.mark.slow
def test_the_order_of_rows_does_not_matter(nursery: Nursery, tmp_path: Path, record: Callable[..., None]) -> None:
    table = samples.rows(samples.TRAINING_ROWS)
    sorted_data = samples.write_csv(tmp_path / "sorted" / "sales.csv", table)
    body = table[1:]
    random.Random(1).shuffle(body)
    shuffled_data = samples.write_csv(tmp_path / "shuffled" / "sales.csv", [table[0], *body])
    ends = []
    for data in (sorted_data, shuffled_data):
        assert nursery.run("command", *training.options(data, data.parent / "run")).code == 0
        ends.append((data.parent / "run" / "model" / "model.safetensors").read_bytes())
    assert ends[0] == ends[1]
    record("R9", "order of rows", "a shuffled table gives the same weights")
