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

CASES = [case for group in (*bad_tables.GROUPS, *bad_commands.GROUPS) for case in group()]
FEWEST = 250
EACH = 5
"""Every so many of the cases is run by default."""
GROUP_ALONE = "stanhop data"
"""People who name no verb get the help of the group in place of a line; programs get the line."""


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
    wrong = {}
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        case.prepare(folder, model)
        ended = nursery.run("command", *case.arguments, cwd=folder)
        is_one_line = ended.err.count("error[") == 1 and not ended.out
        is_help = case.name == GROUP_ALONE and "Usage: stanhop data" in ended.out and not ended.err
        if ended.code != case.code or "Traceback" in ended.err or not (is_one_line or is_help):
            wrong[case.name] = ended
    assert not wrong
    record(
        "R1",
        "bad inputs, as processes",
        f"{len(CASES)} as processes: the same for people, but for a group without a verb, which shows its help",
    )


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
