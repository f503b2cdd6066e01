"""The page about the promises shows the figures that the tests last wrote down, and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.reliability.kit.nursery import ROOT

RENDER = ROOT / "docs" / "render_reliability.py"


@pytest.mark.skipif(not RENDER.exists(), reason="an installed package has no pages beside it")
def test_the_page_is_made_of_the_figures() -> None:
    done = subprocess.run([sys.executable, str(RENDER), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"python docs/render_reliability.py was not run: {done.stderr}"
