"""The README: every command stands in it, and every command line in it can be parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import stanhop
from stanhop.cli.app import app

README = Path(stanhop.__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if re.match(r"([A-Z_]+=\S+ )*stanhop ", line)]

pytestmark = pytest.mark.skipif(not README.exists(), reason="an installed package has no README beside it")


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {path: command}
    return {words: leaf for name, child in inner.items() for words, leaf in leaves(child, (*path, name)).items()}


COMMANDS = leaves(typer.main.get_command(app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_stands_in_the_readme(words: tuple[str, ...]) -> None:
    assert f"stanhop {' '.join(words)}" in TEXT


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_in_the_readme_can_be_parsed(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)][1:]
    path = next(path for path in COMMANDS if tuple(words[: len(path)]) == path)
    context = COMMANDS[path].make_context(" ".join(path), words[len(path) :])
    assert not context.args, "every word is taken"


def test_there_are_command_lines_in_the_readme() -> None:
    assert len(LINES) >= 5
