"""A backtest: every forecaster on the same windows, by what was known then; each thing done once."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from stanhop.benchmarks import backtest as backtest_module
from stanhop.benchmarks import baselines
from stanhop.benchmarks.backtest import Backtest, BacktestTask, backtest
from stanhop.benchmarks.backtest_scores import error_plot, forecasts_csv, scores_csv, scores_of, to_markdown
from stanhop.benchmarks.baselines import find_baseline
from stanhop.config import TrackingConfig
from stanhop.errors import DataError, OutputError
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.series.frame import Series
from tests.benchmarks.conftest import config_in

WINDOWS, STEPS = 5, 3


@pytest.fixture(scope="module")
def task(series: Series, tmp_path_factory: pytest.TempPathFactory) -> BacktestTask:
    """Five windows, three trainings, two baselines."""
    folder = tmp_path_factory.mktemp("backtest")
    return BacktestTask(
        config=config_in(folder, series),
        baselines=[find_baseline("seasonal_naive"), find_baseline("dlinear")],
        num_windows=WINDOWS,
        step=7,
        refit_every=2,
        folder=folder / "runs",
    )


@pytest.fixture(scope="module")
def found(task: BacktestTask) -> Backtest:
    """The outcome of ``task``; nobody changes it or its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "LINEAR_CONTEXT", 31)
        patch.setattr(baselines, "LINEAR_TRAINING", {"num_epochs": 1, "batch_size": 32, "lr": 1e-2})
        return backtest(task, progress=False)


def test_every_forecast_is_made_of_what_was_known_then(found: Backtest, task: BacktestTask, series: Series) -> None:
    network, seasonal, _ = found.forecasts
    assert found.origins == [276, 283, 290, 297, 304]
    for window, origin in enumerate(found.origins):
        np.testing.assert_array_equal(found.targets[0, window], series.values[origin : origin + STEPS])
        expected = series.values[origin - 24 : origin - 24 + STEPS]
        np.testing.assert_allclose(seasonal.values[0, window], expected, rtol=1e-9)
        bundle = load_bundle(task.folder / f"stanhop-{window // 2 + 1}" / "model")
        history = Series("", series.times[:origin], series.values[:origin], series.channels)
        forecast = Forecaster(bundle, levels=(80.0, 95.0)).forecast(history)
        np.testing.assert_allclose(network.values[0, window], forecast.values, rtol=1e-4)
        np.testing.assert_allclose(network.lower[80.0][0, window], forecast.lower[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(network.upper[95.0][0, window], forecast.upper[1], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_what_comes_later_changes_no_forecast(
    found: Backtest, task: BacktestTask, tmp_path: Path, series: Series
) -> None:
    config = config_in(tmp_path, series)
    path = Path(config.data.source)
    lines = path.read_text().splitlines()
    for row in range(found.origins[2], len(series)):
        lines[1 + row] = ",".join([lines[1 + row].split(",")[0], "99.0", "-99.0", "99.0"])
    path.write_text("\n".join(lines) + "\n")
    changed = backtest(dataclasses.replace(task, config=config, folder=tmp_path / "changed"), progress=False)
    for before, after in zip(found.forecasts, changed.forecasts, strict=True):
        np.testing.assert_allclose(after.values[:, :3], before.values[:, :3], rtol=1e-6, err_msg=before.name)
        is_changed = not np.allclose(after.values[:, 3:], before.values[:, 3:])
        assert is_changed == (before.name != "seasonal_naive"), "a season back it is still as it was"


def test_scores_are_means_over_all_windows_in_units_of_the_rows_before_the_first(
    found: Backtest, series: Series
) -> None:
    scores = {each.forecaster: each for each in scores_of(found)}
    deviation = series.values[: found.origins[0]].std(axis=0)
    for one in found.forecasts:
        errors = np.abs(found.targets - one.values) / deviation
        score = scores[one.name]
        assert score.metrics["mae_scaled"] == pytest.approx(errors.mean())
        assert score.metrics["mse_scaled"] == pytest.approx(np.square(errors).mean())
        np.testing.assert_allclose(score.mae_by_window, errors.mean(axis=(0, 2, 3)))
    ratio = scores["dlinear"].metrics["mae_scaled"] / scores["seasonal_naive"].metrics["mae_scaled"]
    assert scores["dlinear"].metrics["skill_vs_snaive"] == pytest.approx(1 - ratio)
    assert sum(each.metrics["wins"] for each in scores.values()) == pytest.approx(1)
    network = found.forecasts[0]
    hits = (network.lower[80.0] <= found.targets) & (found.targets <= network.upper[80.0])
    assert scores["stanhop"].metrics["coverage_80"] == hits.mean()
    errors = [each.metrics["mae_scaled"] for each in scores.values()]
    assert errors == sorted(errors), "the best comes first"


def test_what_is_done_is_not_done_again(found: Backtest, task: BacktestTask, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(backtest_module, "prepared", None)
    again = backtest(task, progress=False, report=lines.append)
    assert not lines
    for before, after in zip(found.forecasts, again.forecasts, strict=True):
        np.testing.assert_array_equal(after.values, before.values)


@pytest.mark.slow
def test_a_backtest_that_was_stopped_goes_on(
    task: BacktestTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = dataclasses.replace(task, folder=tmp_path / "stopped")
    fit_once = backtest_module.fit_once
    calls: list[Path] = []

    def stopping(*arguments: object, **options: object) -> object:
        calls.append(options["run_path"])  # type: ignore[arg-type]
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_once(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(backtest_module, "fit_once", stopping)
    with pytest.raises(KeyboardInterrupt):
        backtest(task, progress=False)
    lines: list[str] = []
    backtest(task, progress=False, report=lines.append)
    assert [line.split(":")[0] for line in lines] == [
        "stanhop, training 2 of 3 (290 rows known)",
        "stanhop, training 3 of 3 (304 rows known)",
        "seasonal_naive",
        "dlinear",
    ]


def test_a_folder_of_another_backtest_is_refused(found: Backtest, task: BacktestTask) -> None:
    with pytest.raises(OutputError, match=r"another backtest: windows was 5 and is now 2; name another folder with"):
        backtest(dataclasses.replace(task, num_windows=2), progress=False)
    train = task.config.train.model_copy(update={"seed": 9})
    with pytest.raises(OutputError, match=r"another backtest: train\.seed was 5 and is now 9"):
        backtest(dataclasses.replace(task, config=task.config.model_copy(update={"train": train})), progress=False)


def test_damaged_forecasts_are_refused_by_name(found: Backtest, task: BacktestTask) -> None:
    path = task.folder / "baselines" / "seasonal_naive.json"
    before = path.read_bytes()
    path.write_bytes(before[:-9])
    with pytest.raises(OutputError, match=r"is damaged.*delete it to have it made again"):
        backtest(task, progress=False)
    path.write_bytes(before)


@pytest.mark.slow
def test_all_runs_are_parts_of_one(task: BacktestTask, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracked = task.config.model_copy(update={"tracking": TrackingConfig(uri=uri)})
    task = dataclasses.replace(
        task,
        config=tracked,
        refit_every=None,
        baselines=task.baselines[:1],
        folder=tmp_path / "tracked",
        preset="etth1",
    )
    scores = {each.forecaster: each for each in scores_of(backtest(task, progress=False))}
    backtest(task, progress=False)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("stanhop").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["stanhop.benchmark"] == "backtest"
    told = [run.data.tags.get("stanhop.preset") for run in runs if "stanhop.forecaster" not in run.data.tags]
    assert told == ["etth1"] * 2, "the whole and its training"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for name, each in scores.items():
        assert parent.data.metrics[f"{name}/mae_scaled"] == pytest.approx(each.metrics["mae_scaled"])
    seasonal = next(run for run in runs if run.data.tags.get("stanhop.forecaster") == "seasonal_naive")
    history = client.get_metric_history(seasonal.info.run_id, "window/mae_scaled")
    assert [entry.value for entry in history] == pytest.approx(list(scores["seasonal_naive"].mae_by_window))


def test_tables_say_what_was_forecast_and_how_well(found: Backtest) -> None:
    scores = scores_of(found)
    rows = list(csv.DictReader(io.StringIO(forecasts_csv(found).decode())))
    assert len(rows) == WINDOWS * STEPS * 3
    assert list(rows[0]) == [
        *("unique_id", "channel", "ds", "cutoff", "y", "stanhop", "seasonal_naive", "dlinear"),
        *("stanhop-lo-80", "stanhop-hi-80", "stanhop-lo-95", "stanhop-hi-95"),
    ]
    assert all(row["cutoff"] < row["ds"] for row in rows)
    error = np.mean([abs(float(row["y"]) - float(row["dlinear"])) for row in rows])
    table = {row["forecaster"]: row for row in csv.DictReader(io.StringIO(scores_csv(scores).decode()))}
    assert float(table["dlinear"]["mae"]) == pytest.approx(error)
    assert table["dlinear"]["coverage_80"] == ""
    lines = to_markdown(scores).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [each.forecaster for each in scores]
    assert error_plot(found, scores).startswith(b"\x89PNG")


@pytest.mark.slow
def test_series_of_a_long_table_count_alike_whatever_their_units(task: BacktestTask, tmp_path: Path) -> None:
    header, *rows = Path(task.config.data.source).read_text().splitlines()
    path = tmp_path / "long.csv"
    small = [f"small,{row}" for row in rows]
    large = [f"large,{row.split(',')[0]}," + ",".join(f"{cell}e3" for cell in row.split(",")[1:]) for row in rows]
    path.write_text("\n".join([f"unique_id,{header}", *large, *small]) + "\n")
    data = task.config.data.model_copy(update={"source": str(path)})
    config = task.config.model_copy(update={"data": data})
    found = backtest(
        dataclasses.replace(task, config=config, refit_every=None, folder=tmp_path / "long"), progress=False
    )
    assert found.targets.shape == (2, WINDOWS, STEPS, 3)
    for one in found.forecasts:
        np.testing.assert_allclose(one.values[0], 1000 * one.values[1], rtol=1e-3, err_msg=one.name)
    errors = {each.forecaster: each.metrics for each in scores_of(found)}
    assert errors["stanhop"]["mase"] < 3
    path.write_text("\n".join([f"unique_id,{header}", *large[:-1], *small]) + "\n")
    with pytest.raises(DataError, match="between 306 and 307 rows; a backtest needs them equally long"):
        backtest(dataclasses.replace(task, config=config, folder=tmp_path / "other"), progress=False)


def test_rows_too_few_for_a_season_are_said_and_leave_a_forecast(tmp_path: Path, series: Series) -> None:
    times = pd.date_range("2024-01-01", periods=120, freq="min")
    few = dataclasses.replace(series, times=times, values=series.values[:120])
    names = ("naive", "seasonal_naive", "theta")
    task = BacktestTask(
        config=config_in(tmp_path, few),
        baselines=[find_baseline(name) for name in names],
        num_windows=2,
        step=None,
        refit_every=None,
        folder=tmp_path / "runs",
    )
    said: list[str] = []
    _, naive, seasonal_naive, theta = backtest(task, progress=False, report=said.append).forecasts
    np.testing.assert_array_equal(seasonal_naive.values, naive.values)
    assert np.isfinite(theta.values).all()
    assert "theta: forecasting 2 windows, without a season, since rows are too few for one of 1,440 steps" in said
    assert "naive: forecasting 2 windows" in said
