"""Int8 model directories: what they cost in accuracy and size, what they refuse, and that saving keeps every bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stanhop.config import RunConfig
from stanhop.errors import ConfigError, ModelError
from stanhop.forecasting.bundle import load_bundle, save_bundle
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.evaluation import evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.model.int8 import Int8Linear, Quantization
from stanhop.model.network import build_network
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.windows import calibration_contexts

DYNAMIC = Quantization("w8a8", "dynamic")
PUBLISHED = {"network": "published_stanhop", "separation": "gsh", "channel_embedding": False, "instance_norm": False}
ALL = [DYNAMIC, Quantization("w8a8", "static"), Quantization("w8a16", "bfloat16"), Quantization("w8a32", "float32")]

FORECAST = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
contexts = np.load(sys.argv[2])
np.save(sys.argv[3], Forecaster(load_bundle(sys.argv[1]), device="cpu").predict(contexts))
assert not any(name.split(".")[0] in ("torchao", "onnxruntime", "mlflow", "pytorch_lightning") for name in sys.modules)
assert not any(name.startswith("stanhop.quantization") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return make_bundle()


@pytest.fixture(scope="module")
def calibration(bundle, series_set):
    return calibration_contexts(bundle, series_set, num_batches=4, batch_size=7)


def predicted(bundle, contexts: torch.Tensor) -> np.ndarray:
    return Forecaster(bundle, device="cpu").predict(contexts.numpy())


@pytest.mark.parametrize("quantization", ALL)
def test_forecasts_stay_close_and_the_float_model_is_not_changed(bundle, contexts, quantization) -> None:
    before = predicted(bundle, contexts[0])
    quantized = quantize_bundle(bundle, quantization, calibration=contexts)
    assert predicted(bundle, contexts[0]).tolist() == before.tolist()
    assert bundle.quantization is None
    error = np.linalg.norm(predicted(quantized, contexts[0]) - before) / np.linalg.norm(before)
    assert 0 < error < 0.05
    assert sum(isinstance(module, Int8Linear) for module in quantized.network.modules()) == 37
    assert not any(isinstance(module, torch.nn.Linear) for module in quantized.network.modules())


@pytest.mark.parametrize("quantization", [DYNAMIC, *(pytest.param(each, marks=pytest.mark.slow) for each in ALL[1:])])
def test_a_directory_gives_the_same_bits_in_a_fresh_process(
    bundle, calibration, contexts, quantization, tmp_path: Path
) -> None:
    quantized = quantize_bundle(bundle, quantization, calibration=calibration)
    before = predicted(quantized, contexts[0])
    save_bundle(tmp_path / "int8", quantized)
    np.save(tmp_path / "contexts.npy", contexts[0].numpy())
    arguments = [tmp_path / "int8", tmp_path / "contexts.npy", tmp_path / "forecasts.npy"]
    subprocess.run([sys.executable, "-c", FORECAST, *map(str, arguments)], check=True)
    assert np.array_equal(np.load(tmp_path / "forecasts.npy"), before)
    assert load_bundle(tmp_path / "int8").quantization == quantization


@pytest.mark.parametrize("quantization", ALL)
def test_each_output_of_a_linear_map_has_its_own_weight_scale(bundle, contexts, quantization) -> None:
    network = quantize_bundle(bundle, quantization, calibration=contexts).network
    for module in network.modules():
        if isinstance(module, Int8Linear):
            assert (module.weight.abs().amax(dim=1) == 127).all()


def test_it_is_evaluated_like_any_other(bundle, calibration, series_set, tmp_path: Path) -> None:
    save_bundle(tmp_path / "int8", quantize_bundle(bundle, DYNAMIC))
    floats, integers = (
        evaluate(each, series_set, device="cpu").metrics for each in (bundle, load_bundle(tmp_path / "int8"))
    )
    assert integers["num_windows"] == floats["num_windows"]
    assert integers["mse_scaled"] == pytest.approx(floats["mse_scaled"], rel=0.02)
    assert integers["mse_scaled"] != floats["mse_scaled"]


@pytest.mark.parametrize("quantization", ALL[:2])
def test_what_else_is_in_a_batch_does_not_change_a_forecast(bundle, calibration, contexts, quantization) -> None:
    quantized = quantize_bundle(bundle, quantization, calibration=calibration)
    alone = predicted(quantized, contexts[0][:1])
    beside = predicted(quantized, torch.cat([contexts[0][:1], 1000 * contexts[1][:6]]))[:1]
    np.testing.assert_allclose(beside, alone, rtol=1e-4, atol=1e-5)


def test_a_directory_of_a_million_parameters_shrinks_to_less_than_a_third(make_bundle, tmp_path: Path) -> None:
    bundle = make_bundle(model_dim=160, feedforward_dim=320, num_heads=4)
    assert sum(parameter.numel() for parameter in bundle.network.parameters()) >= 1_000_000
    save_bundle(tmp_path / "float", bundle)
    save_bundle(tmp_path / "int8", quantize_bundle(bundle, DYNAMIC))
    bytes_of = {name: sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("float", "int8")}
    assert bytes_of["int8"] <= 0.30 * bytes_of["float"]


@pytest.mark.parametrize("quantization", ALL)
def test_a_published_network_is_quantised_like_ours(make_bundle, contexts, quantization, tmp_path: Path) -> None:
    published = make_bundle().config.model.model_copy(update=PUBLISHED)
    torch.manual_seed(0)
    network = build_network(published, 3).eval().requires_grad_(False)
    floats = replace(make_bundle(), network=network, config=RunConfig(model=published))
    save_bundle(tmp_path / "int8", quantize_bundle(floats, quantization, calibration=contexts))
    expected, found = (predicted(each, contexts[0]) for each in (floats, load_bundle(tmp_path / "int8")))
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05
    with pytest.raises(ConfigError, match="smoothing is for a STanHopNet, this is a PublishedSTanHopNet"):
        quantize_bundle(floats, quantization, calibration=contexts, smoothing=0.5)


def test_a_quantised_model_is_not_quantised_again(bundle, calibration) -> None:
    quantized = quantize_bundle(bundle, DYNAMIC)
    with pytest.raises(ModelError, match="is quantised already \\(w8a8, dynamic\\); give the model that it was made"):
        quantize_bundle(quantized, DYNAMIC)


@pytest.mark.parametrize("options", [{"quantization": ALL[1]}, {"quantization": DYNAMIC, "smoothing": 0.5}])
def test_what_needs_calibration_windows_says_so(bundle, options) -> None:
    with pytest.raises(ConfigError, match="need calibration windows; name data with --calibration"):
        quantize_bundle(bundle, **options)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_a_damaged_directory_is_refused_with_the_file_named(bundle, tmp_path: Path, name: str) -> None:
    save_bundle(tmp_path / "int8", quantize_bundle(bundle, DYNAMIC))
    file = tmp_path / "int8" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError) as refusal:
        load_bundle(tmp_path / "int8")
    assert refusal.value.file == str(file)
    assert refusal.value.code in ("E301", "E302")


def test_a_float_directory_stays_of_the_first_format(bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "float", bundle)
    save_bundle(tmp_path / "int8", quantize_bundle(bundle, DYNAMIC))
    versions = {
        name: (tmp_path / name / "manifest.json").read_text().split('"format_version": ')[1][0]
        for name in ("float", "int8")
    }
    assert versions == {"float": "1", "int8": "2"}
    assert "quantization" not in (tmp_path / "float" / "config.json").read_text()


@pytest.mark.parametrize("quantization", ALL[:2])
def test_intervals_and_the_quantile_head_are_kept(
    make_bundle, calibration, series_set, quantization, tmp_path: Path
) -> None:
    floats = make_bundle(head="quantile", levels=(80.0,), mean_reversion=True)
    floats = replace(floats, intervals=calibrate(floats, series_set, levels=(80.0,)))
    save_bundle(tmp_path / "int8", quantize_bundle(floats, quantization, calibration=calibration))
    integers = load_bundle(tmp_path / "int8")
    assert (tmp_path / "int8" / "manifest.json").read_text().split('"format_version": ')[1][0] == "3"
    assert np.array_equal(integers.intervals.upper, floats.intervals.upper)
    history = series_set.series[0]
    expected, found = (Forecaster(each, levels=(80.0,)).forecast(history) for each in (floats, integers))
    width = (expected.upper - expected.lower).mean()
    assert np.abs(found.upper - expected.upper).max() < 0.2 * width
    assert not np.array_equal(found.upper, expected.upper)
