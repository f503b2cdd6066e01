"""The scripts of benchmarks/: each can still be imported, so that what it takes from the program is still there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_all_that_it_imports(path: Path) -> None:
    names = runpy.run_path(str(path), run_name="imported")
    assert callable(names["main"])
