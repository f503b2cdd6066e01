"""MLflow's model of a model directory: what ``stanhop forecast`` writes, from a table in memory and from a server."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stanhop.cli.app import main
from stanhop.errors import DataError
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.in_memory import forecast_table

STEPS, CONTEXT = 5, 23
SMALL = (
    *("--prediction-length", f"{STEPS}", "--context-length", f"{CONTEXT}", "--set", "model.patch_length=7"),
    *("--set", "model.model_dim=4", "--set", "model.num_heads=2", "--set", "model.feedforward_dim=3"),
    *("--epochs", "1", "--batch-size", "17", "--device", "cpu", "--format", "quiet"),
)
WAIT_S = 240


def wide_text(num_rows: int = 211) -> str:
    rows = ["date,load,wind"]
    for step in range(num_rows):
        load, wind = (10 * math.sin(2 * math.pi * (step + 3 * place) / 24) + step * 7919 % 101 / 50 for place in (0, 1))
        rows.append(f"2021-03-{1 + step // 24:02d} {step % 24:02d}:00:00,{load:.3f},{wind:.3f}")
    return "\n".join(rows) + "\n"


def long_text() -> str:
    rows = ["unique_id,ds,y"]
    for number in (7, 12):
        rows += [f"{number}," + line.replace(",", ",", 1).rsplit(",", 1)[0] for line in wide_text().splitlines()[1:]]
    return "\n".join(rows) + "\n"


def trained(folder: Path, text: str) -> Path:
    (folder / "sales.csv").write_text(text)
    options = ("--data", str(folder / "sales.csv"), *SMALL, "--output", str(folder / "run"), "--no-tracking")
    assert main(["train", *options]) == 0
    return folder / "run" / "model"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("wide"), wide_text())


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("long"), long_text())


def command_forecast(model: Path, folder: Path, text: str) -> pd.DataFrame:
    """What ``stanhop forecast`` writes."""
    (folder / "history.csv").write_text(text)
    arguments = ["--model", model, "--input", folder / "history.csv", "--output", folder / "forecast.csv"]
    assert main(["forecast", *map(str, arguments), "--format", "quiet"]) == 0
    return pd.read_csv(folder / "forecast.csv", dtype={"unique_id": str})


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    assert len(found) == len(expected)
    for name in expected.columns:
        if pd.api.types.is_numeric_dtype(expected[name]):
            assert np.abs(found[name].to_numpy(float) - expected[name].to_numpy()).max() < 1e-6
        else:
            assert found[name].astype(str).tolist() == expected[name].tolist()


def test_a_table_gets_what_the_command_writes(wide: Path, tmp_path: Path) -> None:
    found = forecast_table(Forecaster(load_bundle(wide)), pd.read_csv(io.StringIO(wide_text())))
    assert_same(found, command_forecast(wide, tmp_path, wide_text()))


def test_a_long_table_gets_a_forecast_for_each_id(long: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(long_text()), dtype={"unique_id": str})
    found = forecast_table(Forecaster(load_bundle(long)), frame)
    assert len(found) == 2 * STEPS
    assert_same(found, command_forecast(long, tmp_path, long_text()))


def test_fewer_steps_are_the_first_of_all(wide: Path) -> None:
    forecaster, frame = Forecaster(load_bundle(wide)), pd.read_csv(io.StringIO(wide_text()))
    assert forecast_table(forecaster, frame, steps=2).equals(forecast_table(forecaster, frame).iloc[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.iloc[:10], "needs 23 points, has 10"),
        (lambda frame: frame.iloc[:0], "the table has no rows"),
        (lambda frame: frame.drop(columns="date"), "column 'date' not found"),
        (lambda frame: frame.drop(columns="wind"), "wind"),
        (lambda frame: frame.assign(date="soon"), "soon"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(wide: Path, change: Any, message: str) -> None:
    frame = change(pd.read_csv(io.StringIO(wide_text())))
    with pytest.raises(DataError, match=message):
        forecast_table(Forecaster(load_bundle(wide)), frame)


@pytest.mark.parametrize("steps", [0, STEPS + 1])
def test_steps_that_the_model_does_not_forecast_are_refused(wide: Path, steps: int) -> None:
    frame = pd.read_csv(io.StringIO(wide_text()))
    with pytest.raises(DataError, match="the model forecasts 5 steps"):
        forecast_table(Forecaster(load_bundle(wide)), frame, steps=steps)


@pytest.mark.slow
def test_time_stamps_are_text_in_the_signature(wide: Path, long: Path) -> None:
    from stanhop.interop.pyfunc import signature_of

    types = {each.name: each.type.name for each in signature_of(load_bundle(wide)).inputs.inputs}
    assert types == {"date": "string", "load": "double", "wind": "double"}
    types = {each.name: each.type.name for each in signature_of(load_bundle(long)).inputs.inputs}
    assert types == {"unique_id": "string", "ds": "string", "y": "double"}
    (parameter,) = signature_of(load_bundle(wide)).params.params
    assert (parameter.name, parameter.default) == ("prediction_length", STEPS)


@pytest.fixture
def environment(tracking_folder: Path) -> dict[str, str]:
    """That of MLflow's own command line, with the store of this folder."""
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tracking_folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


@contextmanager
def served(model: str, environment: dict[str, str], log: Path) -> Iterator[str]:
    """The address of ``mlflow models serve``, once it answers."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "--env-manager", "local", "-m", model, "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield wait_for(f"http://127.0.0.1:{port}", server, log)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return address
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-2000:])


def asked(address: str, body: bytes, kind: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{address}/invocations", data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_mlflow_serves_and_predicts_what_the_command_writes(
    wide: Path, tracking_folder: Path, environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = command_forecast(wide, tmp_path, wide_text())
    capsys.readouterr()
    arguments = ["export", "mlflow", "--model", str(wide), "--alias", "champion", "--format", "json"]
    assert main([*arguments, "--tracking", "--output", str(tmp_path / "made")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["served"], document["version"]) == ("models:/stanhop-sales-served@champion", "1")
    with served(document["served"], environment, tmp_path / "log") as address:
        status, answer = asked(address, wide_text().encode(), "text/csv")
        assert status == 200
        assert_same(pd.DataFrame(answer["predictions"]), expected)
        frame = pd.read_csv(io.StringIO(wide_text()))
        body = {"dataframe_split": frame.to_dict("split", index=False), "params": {"prediction_length": 2}}
        status, answer = asked(address, json.dumps(body).encode(), "application/json")
        assert status == 200
        assert_same(pd.DataFrame(answer["predictions"]), expected.iloc[:2])
        status, answer = asked(address, "\n".join(wide_text().splitlines()[:9]).encode(), "text/csv")
        assert status == 400
        assert "needs 23 points, has 8" in answer["message"]
    made = tmp_path / "made"
    command = ["mlflow", "models", "predict", "--env-manager", "local", "-m", str(made), "-t", "csv"]
    files = ["-i", str(tmp_path / "history.csv"), "-o", str(tmp_path / "out.json")]
    subprocess.run([sys.executable, "-m", *command, *files], env=environment, check=True, capture_output=True)
    assert_same(pd.DataFrame(json.loads((tmp_path / "out.json").read_text())["predictions"]), expected)


def test_an_export_that_goes_nowhere_is_refused(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "mlflow", "--model", str(wide), "--no-tracking"]) == 2
    assert "--no-tracking registers nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_that_is_there_is_kept(wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "mlflow", "--model", str(wide), "--no-tracking", "--output", str(tmp_path / "made")]
    assert main(arguments) == 0
    assert not list((tmp_path / "made").rglob("*.pkl"))
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
