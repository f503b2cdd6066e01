"""A grid: each cell and baseline once, all of them under one parent, going on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from stanhop.benchmarks import accuracy
from stanhop.benchmarks.accuracy import SO_FAR, Cell, run_grid
from stanhop.benchmarks.baselines import find_baseline
from stanhop.benchmarks.literature import Published
from stanhop.benchmarks.measurement import Measurement, kept
from stanhop.config import RunConfig, SplitConfig, TrackingConfig
from stanhop.errors import ConfigError, DataError, MachineError, ModelError, OutputError
from stanhop.forecasting.bundle import load_bundle
from stanhop.quantization.outliers import measure_outliers
from stanhop.quantization.windows import split_contexts
from stanhop.series.load import load_series

Grid = Callable[..., list[Measurement]]


@pytest.fixture
def cells(config: RunConfig) -> list[Cell]:
    """Two seeds."""
    return [
        Cell("outeffhop", config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}))
        for seed in (5, 6)
    ]


@pytest.fixture
def grid(cells: list[Cell], tmp_path: Path) -> Grid:
    """Run the two cells, naive and nlinear, into one folder."""

    def call(**changes: Any) -> list[Measurement]:
        options: dict[str, Any] = {
            "cells": cells,
            "baselines": [find_baseline("naive"), find_baseline("nlinear")],
            "folder": tmp_path / "grid",
            "stride": 7,
            "tracking": TrackingConfig(enabled=False),
            "progress": False,
        }
        options |= changes
        return run_grid(options.pop("cells"), options.pop("baselines"), **options)

    return call


def test_a_grid_measures_each_cell_and_each_baseline_with_each_seed_it_needs(grid: Grid) -> None:
    measured = [(one.model, one.seed) for one in grid()]
    ours, nlinear = "STanHop-Net (outeffhop)", "nlinear (sktime)"
    assert measured == [(ours, 5), (ours, 6), ("naive (sktime)", None), (nlinear, 5), (nlinear, 6)]


@pytest.mark.slow
def test_a_grid_without_networks_measures_its_baselines_alone_as_it_does_beside_them(
    grid: Grid, tmp_path: Path
) -> None:
    alone = grid(trains_networks=False)
    assert not list(tmp_path.glob("grid/*/config.yaml"))
    assert [one.model for one in alone] == ["naive (sktime)", "nlinear (sktime)", "nlinear (sktime)"]
    assert grid()[2:] == alone


@pytest.mark.slow
def test_what_is_done_is_not_done_again(grid: Grid) -> None:
    reports: list[str] = []
    first = grid(report=reports.append)
    assert [report.partition(": ")[::2] for report in reports] == [
        ("waves-3-outeffhop-5", "training"),
        ("waves-3-outeffhop-5", "outliers"),
        ("waves-3-outeffhop-6", "training"),
        ("waves-3-outeffhop-6", "outliers"),
        ("waves-3", "time of a step"),
        ("waves-3-naive", "measuring"),
        ("waves-3-nlinear-5", "measuring"),
        ("waves-3-nlinear-6", "measuring"),
    ]
    reports.clear()
    assert grid(report=reports.append) == first
    assert not reports


def test_a_grid_that_was_stopped_goes_on_and_leaves_the_table_of_what_is_done(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise MachineError("E402", "power cut", fix="none")  # type: ignore[arg-type]  # any error does

    with monkeypatch.context() as patch:
        patch.setattr(accuracy, "measure_baseline", stop)
        with pytest.raises(MachineError, match="power cut"):
            grid()
    assert rows_so_far(tmp_path) == ["STanHop-Net (outeffhop)"]
    assert "| 5, 6 |" in (tmp_path / "grid" / SO_FAR).read_text()
    reports: list[str] = []
    grid(report=reports.append)
    assert rows_so_far(tmp_path) == ["STanHop-Net (outeffhop)", "naive (sktime)", "nlinear (sktime)"]
    assert reports == [f"waves-3-{name}: measuring" for name in ("naive", "nlinear-5", "nlinear-6")]


def rows_so_far(tmp_path: Path) -> list[str]:
    """The models in the table of a grid that is not done."""
    _, _, *rows = (tmp_path / "grid" / SO_FAR).read_text().splitlines()[2:]
    return sorted(row.split("|")[1].strip() for row in rows)


def test_a_cell_that_was_started_otherwise_is_refused(grid: Grid, cells: list[Cell]) -> None:
    grid(baselines=[])
    model = cells[0].config.model.model_copy(update={"dropout": 0.3})
    changed = Cell("outeffhop", cells[0].config.model_copy(update={"model": model}))
    with pytest.raises(ModelError, match=r"model\.dropout was 0\.1 and is now 0\.3") as caught:
        grid(cells=[changed], baselines=[])
    assert "--resume" not in caught.value.message, "which this command does not have"


@pytest.mark.slow
def test_outliers_are_those_of_the_model_on_every_test_window(grid: Grid, cells: list[Cell], tmp_path: Path) -> None:
    first, second = grid(baselines=[])
    bundle, series_set = load_bundle(tmp_path / "grid" / cells[1].name / "model"), load_series(cells[1].config.data)
    report = measure_outliers(bundle.network, split_contexts(bundle, series_set, "test"))
    assert report.num_windows == second.num_windows
    assert second.outliers == pytest.approx(report.metrics())
    assert first.outliers != second.outliers


def test_errors_over_whole_batches_are_those_of_the_windows_that_published_figures_are_of(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert grid()[0].in_whole_batches == ()
    figures = [Published("Other", 0.1, None, "a paper", batch_size) for batch_size in (16, None, 7, 16, 10**6)]
    monkeypatch.setattr(accuracy, "published", lambda data, steps: figures)
    first = grid()[0]
    (path,) = tmp_path.glob("grid/*outeffhop-5/window_errors.npy")
    rows = np.load(path)
    assert len(rows) == first.num_windows
    assert [each.batch_size for each in first.in_whole_batches] == [7, 16]
    for each in first.in_whole_batches:
        assert each.num_windows == len(rows) - len(rows) % each.batch_size < len(rows)
        assert each.mse == pytest.approx(rows["mse_scaled"][: each.num_windows].mean(), rel=1e-5)
        assert each.mae == pytest.approx(rows["mae_scaled"][: each.num_windows].mean(), rel=1e-5)
    path.unlink()
    with pytest.raises(OutputError, match="is missing") as refused:
        grid()
    assert refused.value.file == str(path)


@pytest.mark.slow
def test_steps_are_timed_in_turns_and_anew_when_a_network_joins(
    grid: Grid, cells: list[Cell], config: RunConfig
) -> None:
    (alone,) = grid(cells=cells[:1], baselines=[])
    softmax = config.model.model_copy(update={"separation": "softmax"})
    joined = [cells[0], cells[1], Cell("softmax", config.model_copy(update={"model": softmax}))]
    reports: list[str] = []
    ours, same, other = grid(cells=joined, baselines=[], report=reports.append)
    assert reports[-1] == "waves-3: time of a step"
    assert ours.step_ms == same.step_ms, "a network, whatever the seed"
    assert len({alone.step_ms, ours.step_ms, other.step_ms}) == 3
    assert all(one.step_ms > 0 for one in (alone, ours, other))  # type: ignore[operator]  # each has it


def test_a_grid_that_keeps_no_rows_for_the_test_is_refused_before_anything_is_written(
    grid: Grid, cells: list[Cell], tmp_path: Path
) -> None:
    data = cells[0].config.data.model_copy(update={"split": SplitConfig(train=0.9, validation=0.1, test=0.0)})
    whole = [Cell(each.model, each.config.model_copy(update={"data": data}), "waves-3") for each in cells]
    with pytest.raises(ConfigError, match=r"no rows are kept for the test \(data.split.test is 0\)"):
        grid(cells=whole)
    assert not (tmp_path / "grid").exists()


def test_a_horizon_that_the_rows_are_too_few_for_is_refused_before_the_first_training(
    grid: Grid, cells: list[Cell], tmp_path: Path
) -> None:
    config = cells[1].config
    model = config.model.model_copy(update={"prediction_length": 10_000})
    far = Cell("outeffhop", config.model_copy(update={"model": model}))
    with pytest.raises(
        DataError, match=r"^.*\.csv: the train split of the series has .* one window needs 100"
    ) as caught:
        grid(cells=[cells[0], far])
    assert caught.value.file == config.data.source
    assert not (tmp_path / "grid" / cells[0].name).exists()


def test_several_series_are_refused_before_the_first_training_if_there_are_baselines(
    grid: Grid, cells: list[Cell], tmp_path: Path
) -> None:
    config = cells[0].config
    table = pd.read_csv(config.data.source)
    path = tmp_path / "several.csv"
    pd.concat([table.assign(shop=shop) for shop in "ab"]).to_csv(path, index=False)
    data = config.data.model_copy(update={"source": str(path), "id_column": "shop"})
    several = Cell("outeffhop", config.model_copy(update={"data": data}))
    with pytest.raises(DataError, match=r"several.csv: holds 2 series; the baselines take one; leave them out with"):
        grid(cells=[several])
    assert not (tmp_path / "grid" / several.name).exists()
    assert len(grid(cells=[several], baselines=[])) == 1


@pytest.mark.slow
def test_a_baseline_of_another_stride_is_measured_anew(grid: Grid) -> None:
    naive = [find_baseline("naive")]
    counts = [grid(baselines=naive, stride=stride)[2].num_windows for stride in (7, 11, 11)]
    assert counts[0] > counts[1] == counts[2]


@pytest.mark.slow
def test_all_runs_are_parts_of_one_run_that_is_gone_on_with(cells: list[Cell], tmp_path: Path) -> None:
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    tracked = [Cell(cell.model, cell.config.model_copy(update={"tracking": tracking}), "waves-3") for cell in cells]
    naive = [find_baseline("naive")]
    for some in (tracked[:1], tracked):  # the second call goes on with the first
        run_grid(some, naive, folder=tmp_path / "grid", stride=7, tracking=tracking, progress=False)
    mlflow.set_tracking_uri(tracking.uri)
    runs = mlflow.search_runs(experiment_names=["stanhop"])
    names = runs.set_index("tags.mlflow.runName")
    (parent,) = names[names["tags.mlflow.parentRunId"].isna()].index
    assert parent == "grid"
    children = names.drop("grid")
    assert sorted(children.index) == ["waves-3-naive", "waves-3-outeffhop-5", "waves-3-outeffhop-6"]
    assert set(children["tags.mlflow.parentRunId"]) == {names.loc["grid", "run_id"]}
    assert (runs["status"] == "FINISHED").all()
    assert children["metrics.test/mse_scaled"].notna().all()
    ours = children.drop("waves-3-naive")
    assert ours["metrics.outliers/all/max_inf_norm"].notna().all()
    assert set(ours["tags.stanhop.preset"]) == {"waves-3"}


def test_a_damaged_measurement_is_refused_by_name(grid: Grid, tmp_path: Path) -> None:
    grid(cells=[], baselines=[])
    path = tmp_path / "grid" / "naive.json"
    path.write_text("{}")
    with pytest.raises(OutputError, match=r"naive\.json: is damaged: .*; delete it to have it measured again"):
        kept(path, Measurement)
