"""The network as an ONNX file, float or int8: what ``--backend onnx`` puts into a model directory.

The int8 file is the static network in other words: the same integers, scales and zero points, each product one
``MatMulIntegerToFloat`` of ONNX Runtime with one scale an output. (Its own ``quantize_dynamic`` takes one range for the
whole batch, by which what else is in a batch would change a forecast.) Retrievals are written out as plain steps that
copy little: channels retrieve from one another without being brought side by side, and learned memories, which are
constants, are one matrix for all heads.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from stanhop.errors import Code, ConfigError
from stanhop.forecasting.bundle import ONNX, Bundle
from stanhop.hopfield.layers import Hopfield, HopfieldLayer
from stanhop.hopfield.separation import SEPARATIONS, Separation
from stanhop.model.block import AcrossChannels
from stanhop.model.int8 import Int8Linear
from stanhop.model.network import STanHopNet
from stanhop.model.onnx import INPUT, OUTPUT, TO_RUN, OnnxNetwork, require_packages

if TYPE_CHECKING:
    from onnx import ModelProto

TO_WRITE = (*TO_RUN, "onnxscript")
LARGEST_BATCH = 65_536
TIME, CHANNELS = (0, 1, 3, 2, 4), (0, 2, 3, 1, 4)
"""Where the axes (batch, channels, patches, heads, head_dim) go, so that memories are the last but one."""


def onnx_bundle(static: Bundle) -> Bundle:
    """``static`` with its network in an ONNX file.

    Args:
        static: A model quantised with static activations.

    Raises:
        MachineError: packages of the extra ``onnx`` are not installed.
        ConfigError: as ``require_exportable``.
    """
    assert static.quantization is not None
    quantization = dataclasses.replace(static.quantization, runtime="onnxruntime")
    return dataclasses.replace(static, network=onnx_network(static), quantization=quantization, versions={})


def onnx_network(bundle: Bundle) -> OnnxNetwork:
    """The network of ``bundle``, whose linear maps are floats or int8 with static activations, in an ONNX file."""
    model = bundle.config.model
    return OnnxNetwork(
        export_onnx(bundle),
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        num_columns=bundle.num_columns,
        num_channels=bundle.num_channels,
        file=Path(ONNX),
    )


def export_onnx(bundle: Bundle) -> bytes:
    """The ONNX file of ``onnx_network``.

    Raises:
        MachineError: packages of the extra ``onnx`` are not installed.
        ConfigError: as ``require_exportable``.
    """
    require_exportable(bundle)
    network = _as_plain_steps(bundle.network)
    shape = (2, bundle.config.model.context_length, bundle.num_columns)
    with _quiet():
        exported = torch.onnx.export(
            network,
            (torch.zeros(shape, dtype=torch.float64),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}},
            verbose=False,
        )
        assert exported is not None
        content: bytes = _stripped(exported.model_proto).SerializeToString(deterministic=True)
    return content


def require_exportable(bundle: Bundle) -> None:
    """Raise what ``export_onnx`` would, before anything is computed.

    Raises:
        MachineError: packages of the extra ``onnx`` are not installed.
        ConfigError: the network is a published one, has an alpha other than 1, or activations that are not static.
    """
    require_packages(TO_WRITE, what="writing ONNX")
    fix = "use another --backend, or train with softmax or outeffhop"
    if not isinstance(bundle.network, STanHopNet):
        raise ConfigError(Code.CONFIG, f"network {bundle.config.model.network} cannot be written as ONNX", fix=fix)
    separation = bundle.config.model.separation
    if SEPARATIONS[separation].alpha != 1:
        problem = f"{separation} cannot be written as ONNX: its weights take dozens of steps to find"
        raise ConfigError(Code.CONFIG, problem, fix=fix)
    if bundle.quantization is not None and bundle.quantization.activations != "static":
        problem = f"{bundle.quantization.activations} activations cannot be written as ONNX, only static ones"
        raise ConfigError(Code.CONFIG, problem, fix="quantise with --backend onnx")


def _as_plain_steps(network: nn.Module) -> nn.Module:
    """A copy of ``network`` that consists of operations an ONNX file can hold."""
    network = copy.deepcopy(network)
    replacements: list[tuple[type[nn.Module], Callable[..., nn.Module]]] = [
        (HopfieldLayer, _LearnedMemories),  # first, while its projections can be computed
        (Int8Linear, _Product),
        (AcrossChannels, _AcrossChannels),
        (Hopfield, _Retrieval),
    ]
    for kind, replacement in replacements:
        for name, module in list(network.named_modules()):
            if isinstance(module, kind):
                network.set_submodule(name, replacement(module))
    return network


def _stripped(model: ModelProto) -> ModelProto:
    """``model`` without what the exporter notes about each node: sizes, and the source lines of this machine."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        del part.metadata_props[:]
        part.doc_string = ""
    for output in model.graph.output:
        del output.metadata_props[:]
    return model


class _Product(nn.Module):
    """``Int8Linear`` with static activations as two operations of ONNX Runtime."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, linear: Int8Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features
        self.register_buffer("weight", linear.weight.T.contiguous())
        self.register_buffer("weight_scale", linear.weight_scale)
        self.register_buffer("bias", linear.bias)
        self.register_buffer("scale", linear.input_scale)
        self.register_buffer("zero", linear.input_zero_point.to(torch.uint8))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        operation = torch.onnx.ops.symbolic
        integers = operation("QuantizeLinear", (inputs, self.scale, self.zero), dtype=torch.uint8, shape=inputs.shape)
        return operation(
            "com.microsoft::MatMulIntegerToFloat",
            (integers, self.weight, self.scale, self.weight_scale, self.zero, None, self.bias),
            dtype=torch.float32,
            shape=(*inputs.shape[:-1], self.out_features),
            version=1,
        )


class _Retrieval(nn.Module):
    """``Hopfield`` whose memories are the queries: other patches of a channel, or other channels at a patch."""

    def __init__(self, hopfield: Hopfield, order: tuple[int, ...] = TIME) -> None:
        super().__init__()
        self.num_heads, self.separation, self.num_updates = (
            hopfield.num_heads,
            hopfield.separation,
            hopfield.num_updates,
        )
        self.query_proj, self.memory_proj = hopfield.query_proj, hopfield.memory_proj
        self.values_proj, self.output_proj = hopfield.values_proj, hopfield.output_proj
        self.gate_proj = hopfield.gate_proj
        self._order = order
        self._back = tuple(order.index(axis) for axis in range(len(order)))

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to its shape."""
        state, memory = self._heads(self.query_proj(patches)), self._heads(self.memory_proj(patches))
        for _ in range(self.num_updates - 1):
            state = self._read_out(state, memory, memory)
        retrieved = self._read_out(state, memory, self._heads(self.values_proj(patches)))
        projected: Tensor = self.output_proj(_gated(retrieved.permute(self._back), patches, self.gate_proj).flatten(-2))
        return projected

    def _heads(self, patches: Tensor) -> Tensor:
        heads: Tensor = patches.unflatten(-1, (self.num_heads, -1)).permute(self._order)
        return heads

    def _read_out(self, state: Tensor, memory: Tensor, values: Tensor) -> Tensor:
        scores = (state * state.shape[-1] ** -0.5) @ memory.transpose(-1, -2)
        if not self.separation.no_op:
            return _weights(scores, self.separation) @ values
        return _weights(functional.pad(scores, (0, 1)), self.separation)[..., :-1] @ values


class _AcrossChannels(nn.Module):
    """``AcrossChannels`` on patches as they lie."""

    def __init__(self, across: AcrossChannels) -> None:
        super().__init__()
        self.between_channels = _Retrieval(across.between_channels, CHANNELS)
        self.learned_memories = across.learned_memories

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(batch, channels, patches, model_dim)`` to its shape."""
        retrieved: Tensor = self.between_channels(patches) + self.learned_memories(patches)
        return retrieved


class _LearnedMemories(nn.Module):
    """``HopfieldLayer``: a head's memories, and its no-op memory, are rows of one matrix that is 0 elsewhere."""

    memory: Tensor
    values: Tensor

    def __init__(self, layer: HopfieldLayer) -> None:
        super().__init__()
        hopfield = layer.hopfield
        self.num_heads, self.separation, self.num_updates = (
            hopfield.num_heads,
            hopfield.separation,
            hopfield.num_updates,
        )
        self.query_proj, self.output_proj, self.gate_proj = (
            hopfield.query_proj,
            hopfield.output_proj,
            hopfield.gate_proj,
        )
        self.beta = (layer.memory.shape[-1] // hopfield.num_heads) ** -0.5
        with torch.no_grad():
            self.register_buffer("memory", self._joined(hopfield.memory_proj(layer.memory)))
            self.register_buffer("values", self._joined(hopfield.values_proj(layer.values)))

    def _joined(self, patterns: Tensor) -> Tensor:
        """``(memories, model_dim)`` as ``(heads * memories, model_dim)``."""
        heads = patterns.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)  # (heads, memories, head_dim)
        if self.separation.no_op:
            heads = functional.pad(heads, (0, 0, 0, 1))
        joined: Tensor = torch.block_diag(*heads)
        return joined

    def forward(self, patches: Tensor) -> Tensor:
        """Map ``(..., model_dim)`` to its shape."""
        state = self.query_proj(patches)
        for _ in range(self.num_updates - 1):
            state = self._read_out(state, self.memory)
        retrieved = self._read_out(state, self.values).unflatten(-1, (self.num_heads, -1))
        projected: Tensor = self.output_proj(_gated(retrieved, patches, self.gate_proj).flatten(-2))
        return projected

    def _read_out(self, state: Tensor, values: Tensor) -> Tensor:
        scores = (state @ (self.beta * self.memory).T).unflatten(-1, (self.num_heads, -1))
        return _weights(scores, self.separation).flatten(-2) @ values


def _weights(scores: Tensor, separation: Separation) -> Tensor:
    """Weights of ``scores``, whose last one is the no-op memory's if there is one (and its weight of no account)."""
    weights = scores.softmax(dim=-1)
    if separation.clip is None:
        return weights
    zeta, eta = separation.clip
    gamma = -zeta / (scores.shape[-1] - separation.no_op)
    return ((eta - gamma) * weights + gamma).clamp(0.0, 1.0)


def _gated(retrieved: Tensor, patches: Tensor, gate_proj: nn.Module | None) -> Tensor:
    """``retrieved`` (..., heads, head_dim), each head times its gate."""
    return retrieved if gate_proj is None else retrieved * gate_proj(patches).sigmoid().unsqueeze(-1)


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
