"""A network that lies in an ONNX file and is computed by ONNX Runtime, on the CPU and without a compiler.

The file maps ``context`` (batch, context_length, columns) to ``forecast`` (batch, prediction_length, channels), both
scaled and in float64, for any batch. It must be closed: no data outside of it, no code of others, and no branches, so
that opening a foreign one can do nothing but compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from stanhop.errors import Code, MachineError, ModelError, quoted

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

INPUT, OUTPUT = "context", "forecast"
TO_RUN = ("onnx", "onnxruntime")
"""Packages that a network in a file needs; they come with the extra ``onnx``."""
EXTRA = "pip install 'stanhop[onnx]'"
DOMAINS = {"", "ai.onnx", "com.microsoft"}
"""Where operations may come from: the standard, and what ONNX Runtime itself adds."""
RESTORE = "restore the model directory from a copy, or quantise again"
OPTIONS = {"session.x64quantprecision": "1"}
"""Where the processor's int8 products could saturate (AVX2 without VNNI), slower ones are taken that cannot."""


class OnnxNetwork(nn.Module):
    """An ONNX file as a network; it has no parameters, and copies share it.

    Args:
        content: The bytes of the file.
        context_length: Steps of the context it must take.
        prediction_length: Steps of the forecast it must give.
        num_columns: Columns of the context.
        num_channels: Columns of the forecast.
        file: Names the file in errors.

    Raises:
        MachineError: a package of the extra ``onnx`` is not installed.
        ModelError: it is no ONNX file, not a closed one, holds NaN, or maps other shapes.
    """

    def __init__(
        self,
        content: bytes,
        *,
        context_length: int,
        prediction_length: int,
        num_columns: int,
        num_channels: int,
        file: Path,
    ) -> None:
        super().__init__()
        require_packages(TO_RUN, what=f"{file}: this model")
        self.content = content
        _check_is_closed(content, file=file)
        self._session = _session(content, file=file)
        asked = [(INPUT, (context_length, num_columns)), (OUTPUT, (prediction_length, num_channels))]
        found = [_shape(each) for each in (*self._session.get_inputs(), *self._session.get_outputs())]
        if found != [(name, "tensor(double)", shape) for name, shape in asked]:
            problem = f"maps {found[:1]} to {found[1:]}, which is not what the configuration asks for"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Itself: nothing in it changes."""
        return self

    def forward(self, context: Tensor) -> Tensor:
        """Map scaled contexts to scaled forecasts, in the dtype and on the device of ``context``."""
        values = context.detach().double().cpu().contiguous().numpy()
        try:
            (forecast,) = self._session.run([OUTPUT], {INPUT: values})
        except Exception as error:  # ONNX Runtime has classes of its own
            if "allocat" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return torch.from_numpy(forecast).to(context.device, context.dtype)


def require_packages(names: Sequence[str], *, what: str) -> None:
    """Raise ``MachineError`` if one of the packages ``names`` is missing, naming ``what`` needs it and the extra."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        problem = f"{what} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise MachineError(Code.ENVIRONMENT, problem, fix=EXTRA)


def _check_is_closed(content: bytes, *, file: Path) -> None:
    """Refuse what is no ONNX file, or one with anything but operations on finite numbers of its own."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has classes of its own
        problem = f"is not an ONNX file: {quoted(error)}"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file) from None
    problems = {node.op_type for node in model.graph.node if node.domain not in DOMAINS or _has_graphs(node)}
    problems |= {function.name for function in model.functions}
    if problems:
        problem = f"asks for code or branches that it should not need: {', '.join(map(quoted, sorted(problems)))}"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            problem = f"asks for data outside of the file ({quoted(tensor.name)})"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
        values = onnx.numpy_helper.to_array(tensor)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            problem = f"holds NaN or infinite values in {quoted(tensor.name)}"
            raise ModelError(Code.MODEL, problem, fix="train again", file=file)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
    for sparse in (*model.graph.sparse_initializer,):
        yield from (sparse.values, sparse.indices)


def _has_graphs(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _session(content: bytes, *, file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    for key, value in OPTIONS.items():
        options.add_session_config_entry(key, value)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has classes of its own
        problem = f"ONNX Runtime cannot open it: {quoted(str(error).strip().splitlines()[0][:200])}"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file) from None


def _shape(described: Any) -> tuple[str, str, tuple[int, ...]]:
    """Name, type and all but the batch axis of an input or output."""
    return described.name, described.type, tuple(described.shape[1:])
