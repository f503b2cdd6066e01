"""The figures of a run with two workers come together in one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.kit.figures import FILE_VARIABLE
from tests.reliability.kit.nursery import ROOT

TESTS = """
import os
import pytest
from tests.reliability.kit import figures

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    figures.record("R1", f"part {number}", os.environ["PYTEST_XDIST_WORKER"])
"""


@pytest.mark.slow
def test_figures_of_all_workers_are_kept_beside_those_of_earlier_runs(tmp_path: Path) -> None:
    kept, file = tmp_path / "figures.json", tmp_path / "test_it.py"
    earlier = {"goal": "R2", "part": "earlier", "sentence": "stays"}
    kept.write_text(json.dumps({"figures": [earlier]}))
    file.write_text(TESTS)
    options = [
        "-n",
        "2",
        "--dist",
        "load",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), *options, str(file)],
        cwd=ROOT,
        env={**os.environ, FILE_VARIABLE: str(kept), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    figures = json.loads(kept.read_text())["figures"]
    assert [each["part"] for each in figures] == [*(f"part {number}" for number in range(6)), "earlier"]
    assert {each["sentence"] for each in figures} == {"gw0", "gw1", "stays"}, "neither worker's are lost"
    assert "part 5: gw" in done.stdout
