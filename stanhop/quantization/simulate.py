"""Simulated quantisation at any bit width: a float network whose weights and activations lie on integer grids.

The protocol is that of the OutEffHop paper: weights symmetric per tensor from their largest magnitude, activations
asymmetric per tensor with static ranges, running min-max of momentum 0.9 over 16 batches. (There the ranges came from
the evaluation windows; here they come from the training rows.)

What is rounded in a ``STanHopNet``, in the order it is met:

- weights: of every linear map, the learned memories and values, the positions of patches;
- activations: the standardised context, and what the joint path and its queries map; the embedded patches; the
  output of every linear map, GELU and LayerNorm; the scores, the weights, the read-out and the gated read-out of every
  retrieval; every residual sum, and the sum of the two retrievals across channels.

In a published network, likewise: weights of every linear map, the learned memories and both positions; the context; the
output of every linear map and LayerNorm, both GELUs; the scores, the weights and the read-out of every retrieval; every
sum that a norm reads or, where the variant has none there, that would be normed. Not the decoder layers' shares of the
forecast.

What is not: biases, affine parts of norms, learned alphas and the scales of closed steps, which are few and cost no
product; the statistics of instance normalisation; the outputs of the direct map, the joint one and the read-outs, whose
sum is the forecast (their weights and inputs are rounded).

Source: Hu et al. 2024, arXiv:2404.03828; Bondarenko et al. 2023, arXiv:2306.12929.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stanhop.errors import Code, ConfigError, quoted
from stanhop.hopfield.layers import HopfieldLayer
from stanhop.model.block import AcrossChannels, Residual
from stanhop.model.joint_path import JointMemories
from stanhop.model.network import STanHopNet
from stanhop.model.patching import PatchEmbedding
from stanhop.model.published import PublishedSTanHopNet
from stanhop.model.published_layers import PublishedTandemBlock
from stanhop.quantization.rounding import (
    ActivationRanges,
    Range,
    RangeEstimator,
    WeightRanges,
    rounded_activation,
    rounded_weight,
    weight_scale,
)
from stanhop.quantization.smoothing import smooth
from stanhop.quantization.stepped import hopfields_in, stepped

ROUNDED_OUTPUTS = (nn.Linear, nn.LayerNorm, nn.GELU, PatchEmbedding, Residual, AcrossChannels)
"""Modules whose outputs are rounded."""
PUBLISHED_ROUNDED_OUTPUTS = (nn.Linear, nn.LayerNorm, nn.GELU)
"""The same of a published network."""
PUBLISHED_NORM, PUBLISHED_AFTER_GELU, PUBLISHED_HEAD = "norm", "hidden_output_proj", "forecast_proj"
"""How the names end of what reads a sum, of what reads the decoder's GELU, which is no module, and of what gives a
share of the forecast."""
INPUT = "input"


@dataclass(frozen=True)
class Protocol:
    """How to quantise; the defaults are the paper's.

    Args:
        weight_bits: Bits of weights.
        activation_bits: Bits of activations.
        per_channel: Whether each output of a linear map has its own weight scale.
        weight_ranges: See ``weight_scale``.
        activation_ranges: See ``RangeEstimator``.
        percentile: See ``RangeEstimator``.
        momentum: See ``RangeEstimator``.
        smoothing: Strength of SmoothQuant; None leaves it out.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = False
    weight_ranges: WeightRanges = "minmax"
    activation_ranges: ActivationRanges = "minmax"
    percentile: float = 99.999
    momentum: float = 0.9
    smoothing: float | None = None

    @classmethod
    def of(cls, scheme: str, **options: Any) -> Protocol:  # the fields above, each of its own type
        """The protocol of a scheme such as ``w8a8`` or ``w4a8``.

        Raises:
            ConfigError: it is none, or has fewer than 2 or more than 16 bits.
        """
        found = re.fullmatch(r"w(\d+)a(\d+)", scheme.lower())
        if found is None or not all(2 <= int(bits) <= 16 for bits in found.groups()):
            fix = "write it as w8a8: bits of weights, then of activations, each from 2 to 16"
            raise ConfigError(Code.CONFIG, f"{quoted(scheme)} is no quantisation scheme", fix=fix)
        return cls(weight_bits=int(found[1]), activation_bits=int(found[2]), **options)


class SimulatedNetwork(nn.Module):
    """A float network on integer grids, and the range of every activation that it rounds.

    Args:
        network: The changed copy.
        ranges: By the dotted name of the module, and within a retrieval of the step: ``encoder.0.0.0.change.scores``.
    """

    def __init__(self, network: nn.Module, ranges: dict[str, Range]) -> None:
        super().__init__()
        self.network = network
        self.ranges = ranges

    def forward(self, context: Tensor) -> Tensor:
        """As that of the network."""
        forecast: Tensor = self.network(context)
        return forecast


def simulate(network: nn.Module, calibration: Sequence[Tensor], protocol: Protocol) -> SimulatedNetwork:
    """A copy of ``network`` that computes as ``protocol`` would have it.

    Ranges are those of the network whose weights are rounded and whose activations are not yet.

    Args:
        network: A ``STanHopNet`` or a published one, in evaluation mode; it is not changed.
        calibration: Scaled contexts ``(batch, context_length, columns)`` of training rows.
        protocol: How to quantise.

    Raises:
        ConfigError: it is another network, or a published one is to be smoothed.
    """
    if not isinstance(network, STanHopNet | PublishedSTanHopNet):
        raise ConfigError(Code.CONFIG, f"only a STanHopNet can be simulated, this is a {type(network).__name__}")
    copied = copy.deepcopy(network)
    if protocol.smoothing is not None:
        smooth(copied, calibration, strength=protocol.smoothing)
    _round_weights(copied, protocol)
    sites = _Sites(protocol)
    _place_sites(copied, sites)
    with torch.inference_mode():
        for batch in calibration:
            copied(batch)
    sites.freeze()
    return SimulatedNetwork(copied, sites.ranges)


def _round_weights(network: nn.Module, protocol: Protocol) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                _round_in_place(module.weight, protocol, per_channel=protocol.per_channel)
            elif isinstance(module, HopfieldLayer):
                _round_in_place(module.memory, protocol)
                _round_in_place(module.values, protocol)
            elif isinstance(module, JointMemories):
                _round_in_place(module.memory, protocol)
            elif isinstance(module, PatchEmbedding | PublishedSTanHopNet | PublishedTandemBlock):
                for own in module.parameters(recurse=False):  # positions, memories, what else is added to a patch
                    _round_in_place(own, protocol)


def _round_in_place(weight: Tensor, protocol: Protocol, *, per_channel: bool = False) -> None:
    bits = protocol.weight_bits
    scale = weight_scale(weight, bits=bits, per_channel=per_channel, ranges=protocol.weight_ranges)
    weight.copy_(rounded_weight(weight, scale, bits=bits))


class _Sites:
    """Every place where activations are rounded: first each estimates its range, then it is frozen and rounds."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._estimators: dict[str, RangeEstimator] = {}
        self.ranges: dict[str, Range] = {}

    def pass_through(self, name: str, activation: Tensor) -> Tensor:
        """What goes on instead of ``activation`` at the site ``name``."""
        if name in self.ranges:
            return self.rounded(name, activation)
        if name not in self._estimators:
            self._estimators[name] = RangeEstimator(
                self._protocol.activation_ranges,
                bits=self._protocol.activation_bits,
                momentum=self._protocol.momentum,
                percentile=self._protocol.percentile,
            )
        self._estimators[name].observe(activation)
        return activation

    def rounded(self, name: str, activation: Tensor) -> Tensor:
        """``activation`` on the grid of the site ``name``; as it is while that estimates its range."""
        if name not in self.ranges:
            return activation
        return rounded_activation(activation, self.ranges[name], bits=self._protocol.activation_bits)

    def freeze(self) -> None:
        """Ranges are what they are now."""
        self.ranges |= {name: estimator.range for name, estimator in self._estimators.items()}


def _place_sites(network: STanHopNet | PublishedSTanHopNet, sites: _Sites) -> None:
    for name, hopfield in hopfields_in(network):
        network.set_submodule(name, stepped(hopfield, on_step=_named_steps(sites, name)))
    if isinstance(network, PublishedSTanHopNet):
        _place_published_sites(network, sites)
    else:
        _place_own_sites(network, sites)


def _place_own_sites(network: STanHopNet, sites: _Sites) -> None:
    joint = network.joint
    heads = {id(network.direct), id(joint and joint.up), *(id(read_out[-1]) for read_out in network.read_outs)}  # type: ignore[index]  # sequences
    for name, module in network.named_modules():
        if isinstance(module, ROUNDED_OUTPUTS) and id(module) not in heads:
            _round_output(module, sites, name)
    # One tensor, two readers: it is looked at once, or its running range would move twice a batch.
    _round_input(network.embedding, sites, INPUT)
    network.direct.register_forward_pre_hook(lambda _module, inputs: (sites.rounded(INPUT, inputs[0]),))
    if joint is not None:
        _round_input(joint.down, sites, f"joint.{INPUT}")
        if joint.memories is not None:
            _round_input(joint.memories.query_proj, sites, f"joint.memories.{INPUT}")


def _place_published_sites(network: PublishedSTanHopNet, sites: _Sites) -> None:
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, PUBLISHED_ROUNDED_OUTPUTS) and last != PUBLISHED_HEAD:
            _round_output(module, sites, name)
        if last.endswith(PUBLISHED_NORM) or last == PUBLISHED_AFTER_GELU:
            _round_input(module, sites, f"{name}.{INPUT}")
    _round_input(network.patch_embedding, sites, INPUT)


def _round_output(module: nn.Module, sites: _Sites, name: str) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: sites.pass_through(name, output))


def _round_input(module: nn.Module, sites: _Sites, name: str) -> None:
    module.register_forward_pre_hook(lambda _module, inputs: (sites.pass_through(name, inputs[0]),))


def _named_steps(sites: _Sites, name: str) -> Callable[[str, Tensor], Tensor]:
    return lambda step, tensor: sites.pass_through(f"{name}.{step}", tensor)
