"""The network as an ONNX file with int8 products, for serving with ONNX Runtime: no torch and no compiler there.

The file holds the network alone: it maps scaled contexts ``context`` (batch, context_length, channels) in float32 to
scaled forecasts ``forecast`` (batch, prediction_length, channels), for any batch. Scales of the series and their
calendar stay with the model directory.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from stanhop.errors import Code, ConfigError, MachineError
from stanhop.forecasting.bundle import Bundle
from stanhop.quantization.int8 import refuse_quantized
from stanhop.quantization.stepped import SteppedHopfield, hopfields_in
from stanhop.storage import temporary_folder, write_bytes

NEEDED = ("onnx", "onnxruntime", "onnxscript")
EXTRA = "pip install 'stanhop[onnx]'"
LARGEST_BATCH = 65_536


def export_onnx(bundle: Bundle, path: Path, *, is_int8: bool = True) -> None:
    """Write the network of ``bundle`` as the ONNX file ``path``.

    Retrievals are written out as plain steps, their weights by the definition. Of int8 the weights have one scale a
    map (ONNX Runtime's dynamic kernel refuses one an output for some shapes), and activations one range a tensor:
    with them, what else is in a batch changes the rounding of a forecast.

    Args:
        bundle: A float model.
        path: The file; one that is there is replaced.
        is_int8: Whether weights become int8 and activations are quantised as they come; otherwise all is float32.

    Raises:
        MachineError: packages of the extra ``onnx`` are not installed.
        ModelError: the model is quantised already.
        ConfigError: its separation has an alpha other than 1.
    """
    refuse_quantized(bundle)
    require_onnx()
    network = copy.deepcopy(bundle.network)
    if any(hopfield.separation.alpha != 1 for _, hopfield in hopfields_in(network)):
        problem = (
            f"{bundle.config.model.separation} cannot be written as ONNX: its weights take dozens of steps to find"
        )
        raise ConfigError(Code.CONFIG, problem, fix="leave --onnx out, or train with softmax or outeffhop")
    for name, hopfield in hopfields_in(network):
        network.set_submodule(name, SteppedHopfield(hopfield, by_definition=True))
    shape = (2, bundle.config.model.context_length, bundle.num_channels)
    with temporary_folder() as folder, _quiet():
        exported = torch.onnx.export(
            network,
            (torch.zeros(shape),),
            dynamo=True,
            input_names=["context"],
            output_names=["forecast"],
            dynamic_shapes={"context": {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}},
            verbose=False,
        )
        assert exported is not None
        exported.save(str(folder / "float.onnx"), external_data=False)
        file = folder / "float.onnx"
        if is_int8:
            file = _quantized(file, folder)
        write_bytes(path, file.read_bytes())


def require_onnx() -> None:
    """Raise ``MachineError`` if a package of the extra is missing, naming what brings it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        problem = f"ONNX files need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise MachineError(Code.ENVIRONMENT, problem, fix=EXTRA)


def _quantized(file: Path, folder: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(str(prepared), str(quantized), weight_type=QuantType.QInt8, per_channel=False)
    return quantized


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    root_is_disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(root_is_disabled)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
