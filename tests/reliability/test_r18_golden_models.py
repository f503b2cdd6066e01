"""R18: a model directory that a release wrote is read ever after, and forecasts what it did."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stanhop.forecasting.batch import forecast_files
from stanhop.forecasting.bundle import load_bundle
from tests.reliability.kit import golden

MODELS = sorted(golden.FOLDER.glob("*/*"))
LARGEST_DIFFERENCE = 1e-6


def test_models_of_earlier_releases_forecast_what_they_did(tmp_path: Path, record: Callable[..., None]) -> None:
    read = [folder for folder in MODELS if folder.name != "onnx" or find_spec("onnxruntime")]
    formats = {"dated", "float", "int8", "intervals", "remembering", "reverting", "seasonal"}
    assert {folder.name for folder in read} >= formats
    largest = 0.0
    for number, folder in enumerate(read):
        levels = golden.levels_of(load_bundle(folder / golden.MODEL))
        output = tmp_path / f"{number}.csv"
        forecast_files(folder / golden.MODEL, [folder / golden.INPUT], output, levels=levels)
        found, expected = pd.read_csv(output), pd.read_csv(folder / golden.FORECAST)
        assert list(found.columns) == list(expected.columns)
        assert found["date"].tolist() == expected["date"].tolist()
        values, known = (frame.drop(columns="date").to_numpy() for frame in (found, expected))
        largest = max(largest, float(np.abs(values - known).max() / np.abs(known).max()))
    assert largest <= LARGEST_DIFFERENCE
    names = ", ".join(f"{folder.parent.name} {folder.name}" for folder in read)
    record("R18", "models of earlier releases", f"{len(read)} ({names}): forecasts differ by {largest:.0e} at most")


@pytest.mark.slow
def test_models_of_this_release_can_be_kept(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    golden.write(tmp_path)
    assert {folder.name for folder in MODELS} <= {path.name for path in tmp_path.iterdir()}
