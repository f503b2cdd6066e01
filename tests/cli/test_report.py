"""``stanhop report`` from training to a page that a browser opens without a complaint, in light and in dark."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
SCHEMES = {"light": "preferredColorScheme=1", "dark": "preferredColorScheme=0"}

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def open_in_browser(page: Path, folder: Path, *, scheme: str = "light") -> tuple[list[str], Path]:
    """What the browser's console says, and a picture of the page."""
    assert BROWSER is not None
    picture = folder / f"{scheme}.png"
    options = [*OPTIONS, f"--user-data-dir={folder / scheme}", f"--blink-settings={SCHEMES[scheme]}"]
    command = [BROWSER, *options, "--window-size=1100,1400", f"--screenshot={picture}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return re.findall(r"CONSOLE[^\n]*", shown.stderr), picture


@pytest.fixture
def report(tracking_folder: Path, run: Any, table: Callable[..., Path], small: tuple[str, ...]) -> Path:
    """A report of two small trainings."""
    for separation in ("gsh", "softmax"):
        options = (*small, "--set", f"model.separation={separation}", "--output", f"runs/{separation}", "--no-progress")
        assert run("train", "--data", table(), *options).code == 0
    answer = run("report", "gsh", "runs/softmax", "--title", "Two separations")
    assert answer.code == 0, answer.err
    return tracking_folder / "report.html"


@pytest.mark.slow
@needs_browser
def test_a_browser_opens_it_without_a_complaint_in_light_and_dark(
    report: Path, tracking_folder: Path, run: Any, tmp_path: Path
) -> None:
    brightness = {}
    for scheme in SCHEMES:
        complaints, picture = open_in_browser(report, tmp_path, scheme=scheme)
        assert not complaints
        brightness[scheme] = float(np.median(image.imread(picture)[..., :3]))
    assert brightness["dark"] < 0.3 < 0.8 < brightness["light"]
    kept = list(tracking_folder.glob("mlruns/*/artifacts/report.html"))
    assert [path.read_bytes() for path in kept] == [report.read_bytes()] * 2
    refused = run("report", "gsh")
    assert (refused.code, "exists already" in refused.err) == (2, True)


@pytest.mark.slow
@needs_browser
def test_a_request_to_another_place_would_be_noticed(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">'))
    complaints, _ = open_in_browser(page, tmp_path)
    assert any("Content Security Policy" in line for line in complaints)


def test_too_many_runs_for_a_page_are_refused(
    tracking_folder: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stanhop.benchmarks.many_runs import fill_store

    fill_store(tracking_folder, num_runs=30, num_windows=50)
    answer = run("report", "--data", "synthetic")
    assert answer.code == 2
    assert "30 runs are too many for one page (at most 24)" in answer.err
    assert not (tracking_folder / "report.html").exists()
