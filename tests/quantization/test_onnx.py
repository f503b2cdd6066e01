"""Models in ONNX files: the static int8 network in ONNX Runtime, kept whole or refused, like any other directory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx as onnx_package
import pytest
import torch
from onnx import TensorProto, helper

from stanhop.errors import ConfigError, MachineError, ModelError, UsageError
from stanhop.forecasting.bundle import Bundle, bundle_bytes, load_bundle, save_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.model import onnx as model_onnx
from stanhop.model.int8 import Int8Linear, Quantization
from stanhop.model.onnx import OnnxNetwork
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.onnx import onnx_bundle, onnx_network, require_exportable
from stanhop.quantization.outliers import measure_outliers

STATIC = Quantization("w8a8", "static")
FORECAST = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
np.save(sys.argv[3], Forecaster(load_bundle(sys.argv[1]), device="cpu").predict(np.load(sys.argv[2])))
assert "onnxscript" not in sys.modules
assert not any(name.startswith("stanhop.quantization") for name in sys.modules)
"""


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module")
def static(make_bundle: Callable[..., Bundle], contexts: list[torch.Tensor]) -> Bundle:
    return quantize_bundle(make_bundle(), STATIC, calibration=contexts)


@pytest.fixture(scope="module")
def onnx(static: Bundle) -> Bundle:
    return onnx_bundle(static)


@pytest.fixture
def directory(onnx: Bundle, tmp_path: Path) -> Path:
    save_bundle(tmp_path / "onnx", onnx)
    return tmp_path / "onnx"


def test_it_computes_what_the_static_network_does_for_any_batch(make_bundle, static, onnx, contexts) -> None:
    for batch in (contexts[0][:1], contexts[0], torch.cat(contexts)):
        forecast, twin = onnx.network(batch), static.network(batch)
        assert (forecast.shape, forecast.dtype) == (twin.shape, torch.float64)
        assert relative(forecast, twin) < 0.2 * relative(twin, make_bundle().network(batch))


def test_each_output_of_a_linear_map_has_its_own_weight_scale(static, onnx) -> None:
    model = onnx_package.load_model_from_string(onnx.network.content)
    stored = {each.name: onnx_package.numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    linears = [module for module in static.network.modules() if isinstance(module, Int8Linear)]
    learned = 2 * 2  # memories and values of each block are constants in the file
    assert len(products) == len(linears) - learned
    for node in products:
        assert stored[node.input[1]].dtype == np.int8
        assert stored[node.input[3]].shape == (stored[node.input[1]].shape[1],)


def test_inputs_lie_on_the_grids_of_the_static_network(static, onnx) -> None:
    model = onnx_package.load_model_from_string(onnx.network.content)
    stored = {each.name: onnx_package.numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    by_weight = {stored[node.input[1]].T.tobytes(): node for node in products}
    learned = ("learned_memories.hopfield.memory_proj", "learned_memories.hopfield.values_proj")
    for name, linear in static.network.named_modules():
        if isinstance(linear, Int8Linear) and not name.endswith(learned):
            node = by_weight.pop(np.ascontiguousarray(linear.weight.numpy()).tobytes())
            _, _, scale, weight_scale, zero, *_ = node.input
            assert stored[scale] == linear.input_scale.numpy(), name
            assert stored[zero] == int(linear.input_zero_point), name
            assert np.array_equal(stored[weight_scale], linear.weight_scale.numpy()), name
    assert not by_weight


def test_a_directory_gives_the_same_bits_in_a_fresh_process(onnx, directory, contexts, tmp_path: Path) -> None:
    before = Forecaster(onnx, device="cpu").predict(contexts[0].numpy())
    np.save(tmp_path / "contexts.npy", contexts[0].numpy())
    arguments = [directory, tmp_path / "contexts.npy", tmp_path / "forecasts.npy"]
    subprocess.run([sys.executable, "-c", FORECAST, *map(str, arguments)], check=True)
    assert np.array_equal(np.load(tmp_path / "forecasts.npy"), before)
    assert load_bundle(directory).quantization == Quantization("w8a8", "static", runtime="onnxruntime")


def test_it_is_evaluated_like_any_other(static, directory, series_set) -> None:
    onnx, torch_ = (evaluate(each, series_set, device="cpu").metrics for each in (load_bundle(directory), static))
    assert onnx["mse_scaled"] == pytest.approx(torch_["mse_scaled"], rel=0.01)


def test_what_else_is_in_a_batch_does_not_change_a_forecast(onnx, contexts) -> None:
    alone = onnx.network(contexts[0][:1])
    beside = onnx.network(torch.cat([contexts[0][:1], 1000 * contexts[1][:6]]))[:1]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)


def test_the_directory_holds_the_file_itself_and_nothing_about_who_wrote_it(onnx, directory) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [
        *("config.json", "manifest.json", "model.onnx", "scaler.json"),
    ]
    assert (directory / "model.onnx").read_bytes() == onnx.network.content
    assert sum(path.stat().st_size for path in directory.iterdir()) == bundle_bytes(onnx)
    assert str(Path(model_onnx.__file__).parent.parent).encode() not in onnx.network.content
    assert b"stack_trace" not in onnx.network.content


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "scaler.json", "manifest.json"])
def test_a_damaged_directory_is_refused_with_the_file_named(directory, name: str) -> None:
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ModelError) as refusal:
        load_bundle(directory)
    assert refusal.value.file == str(directory / name)
    assert refusal.value.code in ("E301", "E302")


def test_it_is_not_quantised_again(onnx) -> None:
    with pytest.raises(ModelError, match="is quantised already"):
        quantize_bundle(onnx, Quantization("w8a8", "dynamic"))


def test_loading_where_the_extra_is_missing_says_which(directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_onnx, "find_spec", lambda name: None if name == "onnxruntime" else object())
    message = r"model\.onnx: this model needs onnxruntime, which is not installed; pip install 'stanhop\[onnx\]'"
    with pytest.raises(MachineError, match=message):
        load_bundle(directory)


def test_writing_where_the_extra_is_missing_says_which(static, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MachineError, match=r"writing ONNX needs onnxscript, .* pip install 'stanhop\[onnx\]'"):
        onnx_bundle(static)


def test_it_is_not_compiled_and_shows_no_outliers(onnx, contexts) -> None:
    with pytest.raises(UsageError, match="--compile: the model is computed by ONNX Runtime"):
        Forecaster(onnx, device="cpu", is_compiled=True)
    with pytest.raises(ModelError, match="inner outputs cannot be seen; give the model that it was made from"):
        measure_outliers(onnx.network, contexts)


@pytest.mark.parametrize(
    ("changes", "problem"), [({"separation": "gsh"}, "gsh cannot be written as ONNX"), ({}, "dynamic activations")]
)
def test_what_cannot_be_written_is_refused(make_bundle, changes, problem: str) -> None:
    bundle = quantize_bundle(make_bundle(**changes), Quantization("w8a8", "dynamic"))
    with pytest.raises(ConfigError, match=problem):
        require_exportable(bundle)


def network_of(model: onnx_package.ModelProto | bytes, **lengths: int) -> OnnxNetwork:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    sizes = {"context_length": 37, "prediction_length": 11, "num_columns": 3, "num_channels": 3, **lengths}
    return OnnxNetwork(content, **sizes, file=Path("model.onnx"))


def with_outside_data(model: onnx_package.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def with_foreign_code(model: onnx_package.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def with_a_branch(model: onnx_package.ModelProto) -> None:
    empty = helper.make_graph([], "then", [], [])
    model.graph.node.add().CopyFrom(helper.make_node("If", [], [], then_branch=empty, else_branch=empty))


def with_nan(model: onnx_package.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(helper.make_tensor("bad", TensorProto.FLOAT, [1], [float("nan")]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (with_outside_data, "asks for data outside of the file"),
        (with_foreign_code, "asks for code or branches"),
        (with_a_branch, "asks for code or branches that it should not need: 'If'"),
        (with_nan, "holds NaN or infinite values in 'bad'"),
    ],
)
def test_a_file_that_could_do_more_than_compute_is_refused(onnx, change, problem: str) -> None:
    model = onnx_package.load_model_from_string(onnx.network.content)
    change(model)
    with pytest.raises(ModelError, match=problem):
        network_of(model)


def test_a_file_of_other_shapes_or_none_is_refused(onnx) -> None:
    with pytest.raises(ModelError, match="not what the configuration asks for"):
        network_of(onnx.network.content, context_length=36)
    with pytest.raises(ModelError, match=r"model\.onnx: is not an ONNX file"):
        network_of(b"no protobuf at all")
    with pytest.raises(ModelError, match=r"model\.onnx: ONNX Runtime cannot open it"):
        network_of(onnx_package.ModelProto())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"gate": True, "num_updates": 2, "joint_rank": 4},
        {"separation": "softmax", "instance_norm": False, "channel_embedding": False, "joint_rank": 2},
        {"separation": "clipped_softmax", "gate": True, "mean_reversion": True},
        {"separation": "clipped_outeffhop", "num_updates": 3, "merge_size": 3, "num_levels": 3},
        {"joint_rank": 4, "time_features": ("day", "year")},
        {"joint_rank": 4, "time_features": ("day",), "joint_memories": 3},
    ],
)
def test_the_plain_steps_are_the_network(make_bundle, contexts, changes) -> None:
    bundle = make_bundle(**changes)
    features = torch.randn(13, 37, bundle.config.model.num_time_features, generator=torch.Generator().manual_seed(8))
    contexts = [torch.cat([each, features.double()], dim=2) for each in contexts]
    assert relative(onnx_network(bundle)(contexts[0]), bundle.network(contexts[0])) < 1e-5
    static = quantize_bundle(bundle, STATIC, calibration=contexts)
    rounding = relative(static.network(contexts[0]), bundle.network(contexts[0]))
    assert relative(onnx_bundle(static).network(contexts[0]), static.network(contexts[0])) < 0.5 * rounding


def test_the_runtime_of_older_directories_is_torch(static, tmp_path: Path) -> None:
    save_bundle(tmp_path / "static", static)
    assert "runtime" not in (tmp_path / "static" / "config.json").read_text()
    assert dataclasses.asdict(load_bundle(tmp_path / "static").quantization)["runtime"] == "torch"
