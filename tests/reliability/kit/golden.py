"""Model directories as a release wrote them, and what it forecast: later ones must read them and forecast the same.

    python -m tests.reliability.kit.golden

writes those of the version at hand to ``tests/reliability/golden/<version>``, once for each release; a folder that is
there is never written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import stanhop
from stanhop.forecasting.batch import forecast_files
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.intervals import Intervals
from stanhop.model.int8 import Quantization
from stanhop.model.network import STanHopNet
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.onnx import onnx_bundle
from stanhop.series.seasonality import DAILY, LEVEL, YEARLY, SeasonalProfile
from tests.reliability.kit import samples

FOLDER = Path(__file__).parents[1] / "golden"
INPUT, MODEL, FORECAST = "history.csv", "model", "forecast.csv"
LEVELS = (80.0, 95.0)
HARMONICS = (LEVEL, *DAILY, *YEARLY)


def bundles(folder: Path) -> Iterator[tuple[str, Bundle]]:
    """One of each format of model directories; ``folder`` is for what is made on the way."""
    samples.save_model(folder / "made")
    plain = load_bundle(folder / "made")
    offsets = np.random.default_rng(3).uniform(0.5, 1.5, size=(2, 2, samples.STEPS, 2)).cumsum(axis=1)
    intervals = Intervals(LEVELS, -offsets[0], offsets[1], np.array([0.5, 0.6]), num_windows=44)
    contexts = [torch.randn(13, samples.CONTEXT, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)]
    static = quantize_bundle(plain, Quantization("w8a8", "static"), calibration=contexts)
    yield "dated", dated(plain)
    yield "float", plain
    yield "int8", quantize_bundle(plain, Quantization("w8a8", "dynamic"))
    yield "intervals", dataclasses.replace(plain, intervals=intervals)
    yield "onnx", onnx_bundle(static)
    yield "remembering", remembering(plain)
    yield "reverting", reverting(plain)
    waves = np.linspace(-1, 1, 2 * 2 * len(HARMONICS)).reshape(-1, 2)
    scaler = dataclasses.replace(plain.scalers[""], profile=SeasonalProfile(HARMONICS, waves))
    yield "seasonal", dataclasses.replace(plain, scalers={"": scaler})


def dated(plain: Bundle) -> Bundle:
    """``plain``, but that it is told the time."""
    return joint(plain, {"time_features": ("day", "year")})


def remembering(plain: Bundle) -> Bundle:
    """``plain``, but that it is told the time and has memories."""
    return joint(plain, {"time_features": ("day",), "joint_memories": 3})


def joint(plain: Bundle, changes: dict[str, object]) -> Bundle:
    """``plain`` with a joint path that ``changes`` describe."""
    model = plain.config.model.model_copy(update={"joint_rank": 3, **changes})
    torch.manual_seed(7)
    network = STanHopNet(model, plain.num_channels)
    network.load_state_dict(plain.network.state_dict(), strict=False)
    assert network.joint is not None
    torch.nn.init.normal_(network.joint.up.weight, std=0.1)
    config = plain.config.model_copy(update={"model": model})
    return dataclasses.replace(plain, config=config, network=network.eval().requires_grad_(False))


def reverting(plain: Bundle) -> Bundle:
    """``plain``, but that levels return."""
    model = plain.config.model.model_copy(update={"mean_reversion": True})
    network = STanHopNet(model, plain.num_channels)
    network.load_state_dict(plain.network.state_dict(), strict=False)
    assert network.reversion is not None
    network.reversion.begin_as(torch.linspace(0.1, 0.9, samples.STEPS), torch.tensor(0.5))
    config = plain.config.model_copy(update={"model": model})
    return dataclasses.replace(plain, config=config, network=network.eval().requires_grad_(False))


def write(root: Path) -> None:
    """Each model directory with a history and its forecast."""
    with TemporaryDirectory() as scratch:
        for name, bundle in bundles(Path(scratch)):
            folder, output = root / name, Path(scratch) / name / FORECAST
            samples.write_csv(folder / INPUT, samples.rows(seed=11))
            save_bundle(folder / MODEL, bundle)
            forecast_files(folder / MODEL, [folder / INPUT], output, levels=levels_of(bundle))
            (folder / FORECAST).write_bytes(output.read_bytes())


def levels_of(bundle: Bundle) -> tuple[float, ...]:
    """The prediction intervals that ``bundle`` has."""
    return () if bundle.intervals is None else bundle.intervals.levels


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = FOLDER / stanhop.__version__
    place.mkdir(parents=True)
    write(place)
