"""The page: what is collected about a run, that nothing is left out in silence, and that it stands alone."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from stanhop.config import SplitConfig, TrackingConfig
from stanhop.forecasting.bundle import load_bundle, save_bundle
from stanhop.forecasting.window_errors import WindowErrors
from stanhop.report import figures
from stanhop.report.contents import RunContents, collect
from stanhop.report.page import render
from stanhop.tracking.compare import Settings, compare_runs
from stanhop.tracking.search import RunRecord


@pytest.fixture(scope="module")
def contents(record: RunRecord) -> RunContents:
    return collect(record, TrackingConfig(), folder=Path())


def page(*contents: RunContents) -> str:
    comparisons = compare_runs([each.run for each in contents], Settings(), load_errors=lambda run: None)
    return render(contents, comparisons, made_at="2021-01-01", title="Title <i>")


@pytest.fixture(scope="module")
def text(contents: RunContents) -> str:
    """The page of two groups; drawing takes a second or two."""
    params = {**contents.run.params, "model.separation": "softmax"}
    other = dataclasses.replace(contents.run, id="b2" * 16, name="other", params=params)
    return page(contents, dataclasses.replace(contents, run=other))


def bare(contents: RunContents) -> RunContents:
    """Without what takes long to draw."""
    return dataclasses.replace(
        contents, epochs=(), per_channel={}, per_step={}, worst=(), residuals=None, outliers=None, alphas={}
    )


def test_all_of_a_run_is_collected(contents: RunContents) -> None:
    assert contents.problems == ()
    assert len(contents.epochs) == 2
    assert set(contents.per_channel) == set(contents.channels)
    assert len(contents.per_step["mse_scaled"]) == 5
    assert len(contents.forecasts) == 3
    assert contents.alphas
    assert all(1 < alpha < 2 for each in contents.alphas.values() for alpha in each)
    assert contents.outliers is not None
    assert contents.residuals is not None
    assert contents.card is not None


def test_forecasts_stand_beside_what_came_true(contents: RunContents) -> None:
    for each in contents.forecasts:
        assert each.truth.shape == (3 * 5, 3)
        assert each.forecast.shape == (5, 3)
        assert len(each.times) == 15
    first, *_, last = contents.forecasts
    assert first.origin_time < last.origin_time
    assert last.times[-1] == np.datetime64("2021-03-13T18:00")


def test_worst_windows_are_the_worst_and_do_not_overlap(contents: RunContents, record: RunRecord) -> None:
    path = Path(urlparse(record.artifact_uri.replace("%3C", "<").replace("%3E", ">")).path) / "window_errors.npy"
    rows = WindowErrors.from_bytes(path.read_bytes(), file="x").rows
    worst = [each.error for each in contents.worst]
    assert worst[0] == pytest.approx(rows["mse_scaled"].max())
    assert worst == sorted(worst, reverse=True)  # type: ignore[type-var]  # all are known
    times = sorted(each.origin_time for each in contents.worst)
    assert all((later - earlier).total_seconds() >= 5 * 3600 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("lacking", "problem"),
    [
        ("metrics.json", "keeps no metrics.json"),
        ("model", "keeps no model directory"),
        ("window_errors.npy", "worst windows are unknown"),
    ],
)
def test_what_is_not_there_is_said(record: RunRecord, tmp_path: Path, lacking: str, problem: str) -> None:
    assert record.artifact_path is not None
    shutil.copytree(record.artifact_path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", lacking))
    there = dataclasses.replace(record, artifact_uri=(tmp_path / "run").as_uri())
    contents = collect(there, TrackingConfig(), folder=tmp_path)
    assert any(problem in each for each in contents.problems)
    assert problem in page(dataclasses.replace(bare(contents), forecasts=()))


def test_a_run_without_rows_for_the_test_says_so(record: RunRecord, tmp_path: Path) -> None:
    assert record.artifact_path is not None
    shutil.copytree(record.artifact_path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    bundle = load_bundle(tmp_path / "run" / "model")
    data = bundle.config.data.model_copy(update={"split": SplitConfig(train=0.9, validation=0.1, test=0.0)})
    config = bundle.config.model_copy(update={"data": data})
    save_bundle(tmp_path / "run" / "model", dataclasses.replace(bundle, config=config), overwrite=True)
    there = dataclasses.replace(record, artifact_uri=(tmp_path / "run").as_uri())
    contents = collect(there, TrackingConfig(), folder=tmp_path)
    assert contents.problems == ("no rows were kept for the test, so there is nothing to forecast again",)
    assert contents.card is not None


def test_data_that_moved_are_said_and_can_be_named(record: RunRecord, tmp_path: Path) -> None:
    assert record.artifact_path is not None
    table = record.artifact_path.parent / "sales.csv"
    shutil.move(table, tmp_path / "moved.csv")
    try:
        lost = collect(record, TrackingConfig(), folder=tmp_path)
        found = collect(record, TrackingConfig(), folder=tmp_path, source=str(tmp_path / "moved.csv"))
    finally:
        shutil.move(tmp_path / "moved.csv", table)
    assert any("the data cannot be used" in each for each in lost.problems)
    assert lost.alphas, "what needs no data is there"
    assert (found.problems, len(found.forecasts)) == ((), 3)


def test_data_that_changed_are_said(record: RunRecord, tmp_path: Path) -> None:
    assert record.artifact_path is not None
    changed = (record.artifact_path.parent / "sales.csv").read_text().replace(",1", ",2")
    (tmp_path / "changed.csv").write_text(changed)
    contents = collect(record, TrackingConfig(), folder=tmp_path, source=str(tmp_path / "changed.csv"))
    assert any("it has changed" in each for each in contents.problems)


def test_the_page_has_every_section(text: str) -> None:
    for section in ("configuration", "metrics", "errors", "forecasts", "training", "alphas", "data"):
        assert f'<section id="{section}">' in text
    for heading in ("Worst windows", "Residuals", "Outliers by layer"):
        assert f"<h3>{heading}</h3>" in text


def test_names_are_text_on_the_page_never_markup(text: str) -> None:
    assert "<i>" not in text
    assert "<run>" not in text
    assert "wind <b>" not in text
    assert "wind &lt;b&gt;$5" in text


def test_the_page_names_no_other_place(text: str) -> None:
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.search(r"https?:|@import|<script|<iframe|<object", text)
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', text)) <= {"data:,"}
    assert "default-src 'none'" in text


def test_colours_follow_the_page(text: str) -> None:
    assert not [stand_in for stand_in in figures.VARIABLES if stand_in in text]
    assert "var(--series-1)" in text
    assert "prefers-color-scheme: dark" in text


def test_names_inside_figures_are_used_once(text: str) -> None:
    names = re.findall(r' id="([^"]*)"', text)
    assert len(names) > 50
    assert len(names) == len(set(names))


def test_intervals_are_drawn_where_a_forecast_has_them(contents: RunContents) -> None:
    first = dataclasses.replace(contents.forecasts[0], bounds={})
    bounds = {80.0: (first.forecast - 1, first.forecast + 1), 95.0: (first.forecast - 2, first.forecast + 2)}
    without, with_them = (
        page(dataclasses.replace(bare(contents), forecasts=(each,)))
        for each in (first, dataclasses.replace(first, bounds=bounds))
    )
    assert "intervals of 80 %, 95 %" in with_them
    assert "intervals of" not in without
    assert with_them.count("<path") > without.count("<path")


def test_groups_are_compared_on_the_page(text: str) -> None:
    assert "separation=softmax" in text
    assert "2 groups" in text
    assert "no errors by window, so no interval" in text
