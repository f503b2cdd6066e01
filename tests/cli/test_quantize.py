"""``stanhop quantize``: what it writes, when it refuses, and what MLflow can compare afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stanhop.config import TrackingConfig
from stanhop.forecasting.bundle import load_bundle, save_bundle
from stanhop.tracking.store import open_store


@pytest.mark.parametrize("backend", ["dynamic", "static", pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_new_directory_is_taken_by_evaluate_and_forecast(
    trained: Path, run: Any, tmp_path: Path, backend: str
) -> None:
    target = tmp_path / "int8"
    answer = run(
        *("quantize", "--model", trained / "model", "--output", target, "--backend", backend),
        *("--max-degradation", "5%", "--format", "json"),
    )
    assert answer.code == 0, answer.err
    document = answer.document
    evaluated = run("evaluate", "--model", target, "--split", "validation", "--format", "json").document
    assert evaluated["validation"]["mse_scaled"] == pytest.approx(document["after"]["mse_scaled"], rel=1e-6)
    assert document["degradation"] == pytest.approx(
        document["after"]["mse_scaled"] / document["before"]["mse_scaled"] - 1
    )
    assert document["model"] == str(target)
    assert document["after"].keys() == document["before"].keys()
    assert all(value > 0 for value in document["after"].values())
    table = trained.parent / "sales.csv"
    assert run("forecast", "--model", target, "--input", table, "--output", tmp_path / "out").code == 0
    again = run("quantize", "--model", target, "--output", tmp_path / "twice")
    assert (again.code, "is quantised already" in again.err) == (2, True)


def test_people_get_a_table_of_before_and_after(trained: Path, run: Any, tmp_path: Path) -> None:
    answer = run("quantize", "--model", trained / "model", "--output", tmp_path / "int8", "--max-degradation", "5%")
    assert answer.code == 0, answer.err
    assert answer.out.split("\n")[0].split() == ["before", "after", "change"]
    for label in ("MSE", "MAE", "directory", "latency", "kurtosis", "inf-norm"):
        assert label in answer.out
    assert "timing batches of 64" in answer.err


@pytest.mark.slow
def test_ranges_and_errors_are_those_of_the_data_that_calibration_names(
    trained: Path, run: Any, tmp_path: Path
) -> None:
    own = trained.parent / "sales.csv"
    spiky = tmp_path / "spiky.csv"
    rows = [line.split(",") for line in own.read_text().splitlines()]
    spikes = [[row[0], *("100" if number % 20 == 0 else "0" for _ in row[1:])] for number, row in enumerate(rows[1:])]
    spiky.write_text("".join(",".join(row) + "\n" for row in [rows[0], *spikes]))
    scales, errors = [], []
    for name, data in {"own": (), "same": ("--calibration", own), "other": ("--calibration", spiky)}.items():
        arguments = ("--backend", "static", "--output", tmp_path / name, "--max-degradation", "1e9", *data)
        answer = run("quantize", "--model", trained / "model", *arguments, "--format", "json")
        assert answer.code == 0, answer.err
        network: Any = load_bundle(tmp_path / name).network
        scales.append(float(network.direct.input_scale))
        errors.append(answer.document["before"]["mse_scaled"])
    assert scales[1] == scales[0]
    assert scales[2] > 1.2 * scales[0], "a context with one spike has a far larger range"
    assert errors[1] == errors[0] != errors[2]


def test_a_model_that_loses_too_much_is_not_written(
    trained: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stanhop.quantization.compare import Comparison

    monkeypatch.setattr(Comparison, "degradation", 0.0312)
    arguments = ("quantize", "--model", trained / "model", "--output", tmp_path / "int8", "--max-degradation", "3%")
    refused = run(*arguments)
    assert refused.code == 2
    assert "error[E304]: the squared error grew by 3.12 %, more than 3%; nothing was written" in refused.err
    assert not (tmp_path / "int8").exists()
    dry = run(*arguments, "--dry-run")
    assert dry.code == 0
    assert "would be refused" in dry.err
    assert run(*arguments[:-1], "0.04").code == 0
    assert (tmp_path / "int8").is_dir()


@pytest.fixture
def fragile(trained: Path, tmp_path: Path) -> Path:
    """A model that int8 ruins: of two large terms that cancel, one shares its scale with an idle, far larger weight."""
    bundle = load_bundle(trained / "model")
    network: Any = bundle.network
    norm, *_, linear = network.read_outs[0]
    norm.weight[:2] = 0.0
    norm.bias[:2] = torch.tensor([0.0, 1.0])  # features that are always 0, always 1
    linear.weight[:, 0] = 1e6
    linear.weight[:, 1] = 100.0
    network.direct.bias -= 100.0
    save_bundle(tmp_path / "fragile", bundle)
    return tmp_path / "fragile"


@pytest.mark.slow
def test_a_model_that_int8_really_ruins_is_refused_and_one_that_it_does_not_is_written(
    fragile: Path, run: Any, tmp_path: Path
) -> None:
    refused = run("quantize", "--model", fragile, "--output", tmp_path / "int8")
    assert refused.code == 2
    assert "error[E304]: the squared error grew by" in refused.err
    assert "more than 1%; nothing was written" in refused.err
    assert not (tmp_path / "int8").exists()
    dry = run("quantize", "--model", fragile, "--dry-run", "--format", "json")
    assert dry.code == 0
    assert dry.document["degradation"] > 100
    allowed = f"{2 * dry.document['degradation']:.0f}"
    assert run("quantize", "--model", fragile, "--output", tmp_path / "int8", "--max-degradation", allowed).code == 0
    assert (tmp_path / "int8").is_dir()


def test_a_refusal_leaves_nothing_behind_not_even_a_store(
    fragile: Path, run: Any, tmp_path: Path, elsewhere: Path
) -> None:
    beside = sorted(tmp_path.iterdir())
    refused = run("quantize", "--model", fragile, "--output", tmp_path / "int8", "--tracking")
    assert refused.code == 2
    assert "nothing was written" in refused.err
    assert sorted(tmp_path.iterdir()) == beside
    assert not list(elsewhere.iterdir())


def test_an_address_of_no_store_is_refused_before_anything_is_computed(
    trained: Path, run: Any, tmp_path: Path, elsewhere: Path
) -> None:
    arguments = ("--output", tmp_path / "int8", "--tracking", "--tracking-uri", "runs")
    refused = run("quantize", "--model", trained / "model", *arguments)
    assert refused.code == 2
    assert "tracking.uri is 'runs', which is no database and no server" in refused.err
    assert "measuring" not in refused.err
    assert not (tmp_path / "int8").exists()
    assert not list(elsewhere.iterdir())


def test_a_backend_whose_extra_is_missing_is_refused_before_anything_is_computed(
    trained: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stanhop.model.onnx.find_spec", lambda name: None if name == "onnxscript" else object())
    answer = run("quantize", "--model", trained / "model", "--backend", "onnx", "--output", tmp_path / "int8")
    assert answer.code == 4
    assert "writing ONNX needs onnxscript, which is not installed; pip install 'stanhop[onnx]'" in answer.err
    assert "measuring" not in answer.err
    assert not (tmp_path / "int8").exists()


def test_a_dry_run_writes_and_records_nothing(trained: Path, run: Any, tmp_path: Path, tracking_folder: Path) -> None:
    before = sorted(tracking_folder.iterdir())
    answer = run("quantize", "--model", trained / "model", "--dry-run", "--tracking", "--format", "json")
    assert answer.code == 0, answer.err
    assert (answer.document["model"], answer.document["run_id"]) == (None, None)
    assert sorted(tracking_folder.iterdir()) == before
    assert sorted(path.name for path in trained.iterdir()).count("model-w8a8") == 0


def test_one_run_holds_both_models_so_that_mlflow_ranks_them(
    trained: Path, run: Any, tmp_path: Path, tracking_folder: Path
) -> None:
    answer = run(
        *("quantize", "--model", trained / "model", "--output", tmp_path / "int8", "--tracking"),
        *("--max-degradation", "5%", "--format", "json"),
    )
    assert answer.code == 0, answer.err
    store = open_store(TrackingConfig(), folder=tracking_folder)
    assert store is not None
    found = store.client.search_logged_models(
        [store.experiment_id], order_by=[{"field_name": "metrics.validation/mse_scaled", "ascending": True}]
    )
    figures = {
        model.name: {metric.key: metric.value for metric in model.metrics}["validation/mse_scaled"] for model in found
    }
    document = answer.document
    assert figures == {
        "float32": pytest.approx(document["before"]["mse_scaled"]),
        "w8a8-dynamic": pytest.approx(document["after"]["mse_scaled"]),
    }
    assert {model.source_run_id for model in found} == {document["run_id"]}
    assert {str(model.status) for model in found} == {"READY"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--max-degradation", "much"), "--max-degradation: 'much' is no share; write 1% or 0.01"),
        (("--max-degradation", "-1%"), "is no share"),
        (("--scheme", "w8a16", "--backend", "static"), "--backend static is about 8-bit activations"),
        (("--scheme", "w8a32", "--backend", "onnx"), "--backend onnx is about 8-bit activations"),
    ],
)
def test_options_that_make_no_sense_are_refused(trained: Path, run: Any, arguments: Any, problem: str) -> None:
    answer = run("quantize", "--model", trained / "model", *arguments)
    assert answer.code == 2
    assert problem in answer.err


def test_what_is_there_is_not_overwritten_unasked(trained: Path, run: Any, tmp_path: Path) -> None:
    (tmp_path / "int8").mkdir()
    answer = run("quantize", "--model", trained / "model", "--output", tmp_path / "int8")
    assert answer.code == 2
    assert "exists already" in answer.err
