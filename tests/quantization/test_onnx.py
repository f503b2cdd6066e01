"""ONNX files: what ONNX Runtime computes from them, and what is said where the extra is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stanhop.errors import ConfigError, MachineError, ModelError
from stanhop.model.int8 import Quantization
from stanhop.quantization import onnx
from stanhop.quantization.int8 import quantize_bundle
from stanhop.quantization.onnx import export_onnx


@pytest.mark.slow
@pytest.mark.parametrize("method", [("outeffhop", True), ("clipped_softmax", False)])
@pytest.mark.parametrize(("is_int8", "most"), [(False, 1e-4), (True, 0.1)])
def test_onnx_runtime_forecasts_any_batch_as_torch_does(
    make_bundle, contexts, tmp_path: Path, method: tuple[str, bool], is_int8: bool, most: float
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    bundle = make_bundle(separation=method[0], gate=method[1])
    export_onnx(bundle, tmp_path / "model.onnx", is_int8=is_int8)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 13):
        batch = contexts[0][:size].float()
        expected = bundle.network(batch).numpy()
        (forecast,) = session.run(["forecast"], {"context": batch.numpy()})
        assert np.linalg.norm(forecast - expected) < most * np.linalg.norm(expected)


def test_a_missing_package_is_named_with_what_brings_it(
    make_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(MachineError, match=r"need onnxruntime, which is not installed; pip install 'stanhop\[onnx\]'"):
        export_onnx(make_bundle(), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_a_quantised_model_is_not_exported(make_bundle, tmp_path: Path) -> None:
    quantized = quantize_bundle(make_bundle(), Quantization("w8a8", "dynamic"))
    with pytest.raises(ModelError, match="is quantised already"):
        export_onnx(quantized, tmp_path / "model.onnx")


def test_a_learned_alpha_is_refused(make_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda _name: object())
    with pytest.raises(ConfigError, match="gsh cannot be written as ONNX"):
        export_onnx(make_bundle(separation="gsh"), tmp_path / "model.onnx")
