"""From a float model to an int8 one: weights become integers and scales, activations get their ranges."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stanhop.errors import Code, ConfigError, ModelError
from stanhop.forecasting.bundle import Bundle
from stanhop.model.int8 import LEVELS, Int8Linear, Quantization, with_int8_linears
from stanhop.model.network import with_head
from stanhop.quantization.rounding import Range, RangeEstimator, weight_integers, weight_scale
from stanhop.quantization.smoothing import smoothed

BITS = 8


def quantize_bundle(
    bundle: Bundle,
    quantization: Quantization,
    *,
    calibration: Sequence[Tensor] = (),
    smoothing: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Bundle:
    """``bundle`` with int8 weights in every linear map; learned memories, positions and norms stay floats.

    Args:
        bundle: The float model; it is not changed.
        quantization: Scheme and kind of activations.
        calibration: Scaled contexts ``(batch, context_length, columns)`` of training rows; static activations and
            smoothing need them, the others do not look at them.
        smoothing: Strength of SmoothQuant; None leaves it out.
        progress: Called with the number of calibration batches done.

    Raises:
        ModelError: the model is quantised already.
        ConfigError: calibration windows are needed and not given.
    """
    refuse_quantized(bundle)
    needs_windows = quantization.activations == "static" or smoothing is not None
    if needs_windows and not calibration:
        problem = "static activations and smoothing need calibration windows"
        raise ConfigError(Code.CONFIG, problem, fix="name data with --calibration")
    network = bundle.network if smoothing is None else smoothed(bundle.network, calibration, strength=smoothing)
    ranges = _input_ranges(network, calibration, progress) if quantization.activations == "static" else {}
    quantized = with_int8_linears(copy.deepcopy(network), quantization.activations)
    for name, linear in network.named_modules():
        if isinstance(linear, nn.Linear):
            _fill(_int8_linear(quantized, name), linear, ranges.get(name))
    return dataclasses.replace(bundle, network=quantized.eval(), quantization=quantization, versions={})


def refuse_quantized(bundle: Bundle) -> None:
    """Raise ``ModelError`` if ``bundle`` is quantised: its errors would add up, and hide behind one another."""
    if bundle.quantization is not None:
        problem = f"the model is quantised already ({bundle.quantization.scheme}, {bundle.quantization.activations})"
        raise ModelError(Code.MODEL, problem, fix="give the model that it was made from")


def _input_ranges(
    network: nn.Module, calibration: Sequence[Tensor], progress: Callable[[int], None] | None
) -> dict[str, Range]:
    """The range of the input of each linear map, by running min-max as in the paper's protocol."""
    estimators: dict[str, RangeEstimator] = {}

    def observe(name: str, activation: Tensor) -> None:
        estimators.setdefault(name, RangeEstimator("minmax", bits=BITS)).observe(activation)

    handles = [
        module.register_forward_pre_hook(lambda _module, inputs, name=name: observe(name, inputs[0]))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    call = with_head(network)
    with torch.inference_mode():
        for number, batch in enumerate(calibration):
            call(batch)
            if progress is not None:
                progress(number + 1)
    for handle in handles:
        handle.remove()
    return {name: estimator.range for name, estimator in estimators.items()}


def _int8_linear(network: nn.Module, name: str) -> Int8Linear:
    module = network.get_submodule(name)
    assert isinstance(module, Int8Linear)
    return module


def _fill(target: Int8Linear, linear: nn.Linear, covered: Range | None) -> None:
    """Put the integers, scales and bias of ``linear`` into ``target``."""
    weight = linear.weight.detach()
    scale = weight_scale(weight, bits=BITS, per_channel=True)
    target.weight.copy_(weight_integers(weight, scale, bits=BITS))
    target.weight_scale.copy_(scale.flatten())
    target.bias.copy_(linear.bias.detach())
    if covered is not None:
        step, zero = covered.grid(BITS)
        assert 0 <= zero <= LEVELS
        target.input_scale.fill_(step)
        target.input_zero_point.fill_(zero)
