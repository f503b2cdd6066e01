"""R1: every mistake is answered by one line with its place and the way out, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stanhop.cli.app import main
from tests.reliability.kit import bad_commands, bad_tables
from tests.reliability.kit.mistakes import Case
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import IS_SOAK

GROUPS = [list(group()) for group in (*bad_tables.GROUPS, *bad_commands.GROUPS)]
CASES = [case for group in GROUPS for case in group]
FEWEST = 250
EACH, EACH_OF_PROCESSES = 5, 1 if IS_SOAK else 8
"""Every so many of the cases is run by default; and of each group, from the first on, as a process of its own."""


def problems_of(case: Case, code: int, out: str, err: str) -> list[str]:
    """What is wrong with the answer to ``case``."""
    lines = [line for line in err.splitlines() if line.startswith('{"error"')]
    if len(lines) != 1:
        return [f"{len(lines)} errors: {err[-400:]}"]
    error = json.loads(lines[0])["error"]
    text = f"{error['file']} {error['column']} {error['problem']} {error['hint']}"
    checks = {
        f"exit code {code}, not {case.code}": code == case.code == error["exit_code"],
        "a traceback": "Traceback" not in err,
        "no fix": bool(error["hint"]),
        "something on standard output": not out,
        f"line {error['line']}, not {case.line}": case.line in (None, error["line"]),
        f"column {error['column']}, not {case.column}": case.column in (None, error["column"]),
        f"does not name {case.names}": case.names in text,
        **{f"does not say {words}": words in text for words in case.says},
    }
    return [f"{what}: {err[-400:]}" for what, holds in checks.items() if not holds]


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("each", [EACH, pytest.param(1, marks=pytest.mark.slow)])
def test_every_mistake_is_answered_with_its_place_and_the_way_out(
    each: int,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    record: Callable[..., None],
) -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= FEWEST
    wrong = {}
    for number, case in enumerate(CASES[::each]):
        folder = tmp_path / str(number)
        folder.mkdir()
        case.prepare(folder, model)
        before = there(folder)
        monkeypatch.chdir(folder)
        code = main([*case.arguments, "--format", "json"])
        captured = capsys.readouterr()
        problems = problems_of(case, code, captured.out, captured.err)
        if there(folder) != before:
            problems.append(f"left something behind: {there(folder) ^ before}")
        if problems:
            wrong[case.name] = problems
    monkeypatch.chdir(tmp_path)
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)
    record(
        "R1", "bad inputs", f"{len(CASES[::each])} mistakes: 0 tracebacks, 0 wrong exit codes, all with place and fix"
    )


@pytest.mark.slow
def test_as_a_process_of_its_own_it_is_the_same(
    nursery: Nursery, model: Path, tmp_path: Path, record: Callable[..., None]
) -> None:
    chosen = [case for group in GROUPS for case in group[::EACH_OF_PROCESSES]]
    wrong = {}
    for number, case in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        case.prepare(folder, model)
        ended = nursery.run("command", *case.arguments, cwd=folder)
        if ended.code != case.code or ended.err.count("error[") != 1 or "Traceback" in ended.err or ended.out:
            wrong[case.name] = ended
    assert not wrong
    record("R1", "bad inputs, as processes", f"{len(chosen)} of them as processes: the same, for people")


def test_variables_of_the_environment_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("STANHOP_MODEL__DROPOUT", "much"),
        ("STANHOP_MODEL__DROPOT", "0.1"),
        ("STANHOP_TRAIN__SEED", "-1"),
    ):
        monkeypatch.setitem(os.environ, name, value)
        assert main(["config", "show"]) == 2
        assert name in capsys.readouterr().err
        monkeypatch.delenv(name)
