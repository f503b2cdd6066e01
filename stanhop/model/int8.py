r"""Linear maps with int8 weights: the plain definition of their arithmetic, and oneDNN's kernels where they equal it.

Weights have one scale an output, activations one a row (``dynamic``) or one for all (``static``), with a zero point:

    weights     w = weight_scale * q                q in -127..127
    dynamic     x = scale * q                       q in -127..127, scale = max|x| / 127 over the row
    static      x = scale * (q - zero_point)        q in 0..255
    output      scale * weight_scale * sum((q_x - zero_point) q_w) + bias, the sum in integers

A row's own scale keeps a window's forecast from depending on the others in its batch; one range for the whole tensor,
which torch's own dynamic kernel takes, would not. The static scale and zero point lie in the model directory; they were
measured on training windows. ``bfloat16`` and ``float32`` activations leave int8 to the weights alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

logger = logging.getLogger(__name__)

Activations = Literal["dynamic", "static", "bfloat16", "float32"]
Runtime = Literal["torch", "onnxruntime"]
LARGEST = 127
CENTRE = 128
"""Zero point of dynamic activations: oneDNN is fast with unsigned ones, hundreds of times slower with signed ones."""
LEVELS = 255
SMALLEST_SCALE = 1e-12
"""Of an activation; a row of nothing but zeros has it."""


@dataclass(frozen=True)
class Quantization:
    """How a network was quantised.

    Args:
        scheme: Bits of weights and activations, such as ``w8a8``.
        activations: How activations come to their integers.
        runtime: What computes the network: torch, or ONNX Runtime from a file.
    """

    scheme: Literal["w8a8", "w8a16", "w8a32"]
    activations: Activations
    runtime: Runtime = "torch"


class Int8Linear(nn.Module):
    """``nn.Linear`` whose weights are int8.

    Args:
        in_features: Features of the input.
        out_features: Features of the output.
        activations: How the input is quantised.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, in_features: int, out_features: int, *, activations: Activations) -> None:
        super().__init__()
        self.in_features, self.out_features, self.activations = in_features, out_features, activations
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features))
        if activations == "static":
            self.register_buffer("input_scale", torch.ones(()))
            self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int32))
        self._packed: tuple[Any, ...] | None = None
        self._static_grid = (1.0, 0)
        self._outside_graph: Callable[[Tensor], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; the kernel's layout of the weights is made anew, so is what is bound to this layer."""
        return {**self.__dict__, "_packed": None, "_outside_graph": None}

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if self.activations == "bfloat16":
            product = functional.linear(inputs.bfloat16(), self.weight.bfloat16())  # an int8 is exact in bfloat16
            return product.float() * self.weight_scale + self.bias
        if self.activations == "float32":
            return functional.linear(inputs, self.weight * self.weight_scale[:, None], self.bias)
        if torch.compiler.is_compiling():
            return (self._outside_graph or self._by_pattern)(inputs)
        if inputs.device.type == "cpu" and has_kernels():
            return self._by_kernel(inputs)
        return self.by_definition(inputs)

    def by_definition(self, inputs: Tensor) -> Tensor:
        """``forward`` for 8-bit activations in plain steps: the integer sums are exact in float64."""
        integers, scale = self._integers(inputs)
        zero = self.input_zero_point if self.activations == "static" else CENTRE
        sums = (integers.double() - zero) @ self.weight.double().T
        return (sums * self.weight_scale * scale + self.bias).float()

    def _integers(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``inputs`` in uint8, shifted by zero point or ``CENTRE``, and their scale: one number, or ``(..., 1)``."""
        if self.activations == "static":  # cutting off what is 0.5 more rounds
            shifted = torch.add(self.input_zero_point + 0.5, inputs * (1 / self.input_scale))
            return _cut(shifted.clamp_(0, LEVELS)), self.input_scale
        scale = inputs.abs().amax(dim=-1, keepdim=True).div_(LARGEST).clamp_(min=SMALLEST_SCALE)
        return _cut((inputs / scale).add_(CENTRE + 0.5)), scale

    def _by_kernel(self, inputs: Tensor) -> Tensor:
        """``forward`` by oneDNN's int8 product."""
        integers, scale = self._integers(inputs.reshape(-1, self.in_features))
        packed, zeros, static_scale, static_zero = self._pack()
        if self.activations == "static":
            product = _product(integers, static_scale, static_zero, packed, self.weight_scale, zeros, self.bias)
        else:
            product = _product(integers, 1.0, CENTRE, packed, self.weight_scale, zeros, None)
            product = torch.addcmul(self.bias, product, scale)
        return product.view(*inputs.shape[:-1], self.out_features)

    def _pack(self) -> tuple[Any, ...]:
        """The weights in the kernel's layout and the constants beside them, made once."""
        if self._packed is None:
            self.settle()
            zeros = torch.zeros(self.out_features, dtype=torch.int32)
            self._packed = (torch.ops.onednn.qlinear_prepack(self.weight, None), zeros, *self._static_grid)
        return self._packed

    def settle(self) -> None:
        """Take scale and zero point for final, as plain numbers, which is what torch's compiler looks for.

        It makes the pattern oneDNN's product on every CPU, also where that one's sums of two saturate. There the plain
        steps run, outside the graph: fused with what is around, they move by int8 steps.
        """
        if self.activations == "static":
            self._static_grid = (float(self.input_scale), int(self.input_zero_point))
            if self.weight.device.type == "cpu" and not has_kernels():  # the compiler, seconds to import, is asked for
                self._outside_graph = torch.compiler.disable(self.by_definition)

    def _by_pattern(self, inputs: Tensor) -> Tensor:
        """``forward`` as the operations that torch's compiler turns into int8 kernels, fused with what is around."""
        if self.activations != "static":
            integers, scale = self._integers(inputs)
            sums = functional.linear(integers.to(inputs.dtype) - CENTRE, self.weight.to(inputs.dtype))
            return sums * (scale * self.weight_scale) + self.bias
        operations = torch.ops.quantized_decomposed
        quantised = operations.quantize_per_tensor(inputs, *self._static_grid, 0, LEVELS, torch.uint8)
        activations = operations.dequantize_per_tensor(quantised, *self._static_grid, 0, LEVELS, torch.uint8)
        zeros = torch.zeros_like(self.weight_scale, dtype=torch.int64)
        weight = operations.dequantize_per_channel(self.weight, self.weight_scale, zeros, 0, -128, 127, torch.int8)
        return functional.linear(activations, weight, self.bias)


def with_int8_linears(network: nn.Module, activations: Activations) -> nn.Module:
    """``network`` with an empty ``Int8Linear`` in the place of every linear map, ready for a state to be loaded."""
    for name, linear in list(network.named_modules()):
        if isinstance(linear, nn.Linear):
            empty = Int8Linear(linear.in_features, linear.out_features, activations=activations)
            network.set_submodule(name, empty)
    return network


@functools.cache
def has_kernels() -> bool:
    """Whether this machine multiplies int8 without saturating (VNNI) and torch has oneDNN's kernels for it."""
    is_there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")
    if not (is_there and torch.cpu._is_vnni_supported()):
        logger.warning("this machine has no int8 kernels (oneDNN with VNNI): int8 products are exact, but slow")
        return False
    return True


def _cut(shifted: Tensor) -> Tensor:
    """``shifted``, of 0 to 255.5, without what is behind the point, in uint8."""
    # What torch's compiler makes of the conversion alone rounds where it works on several numbers at once.
    return (shifted.floor() if torch.compiler.is_compiling() else shifted).to(torch.uint8)


def _product(
    quantised: Tensor, scale: float, zero: int, packed: Any, weight_scale: Tensor, zeros: Tensor, bias: Tensor | None
) -> Tensor:
    """``scale * weight_scale * sum((quantised - zero) weight) + bias`` in float32, ``(rows, out_features)``."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        quantised, scale, zero, packed, weight_scale, zeros, bias, 1.0, 0, torch.float32, "none", [], ""
    )
    return product
