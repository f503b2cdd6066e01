"""Simulated quantisation of the published networks: their steps, what lies on a grid, and that bits tell."""

from __future__ import annotations

import copy

import pytest
import torch

from stanhop.errors import ConfigError
from stanhop.model.published import PublishedSTanHopNet
from stanhop.model.published_config import PublishedConfig
from stanhop.quantization.rounding import Range
from stanhop.quantization.simulate import Protocol, simulate
from stanhop.quantization.stepped import hopfields_in, stepped

SIZES = {"num_channels": 3, "context_length": 37, "prediction_length": 11, "patch_length": 5, "model_dim": 8}
SMALL = {"feedforward_dim": 7, "num_heads": 2, "num_levels": 2, "num_memories": 3, "merge_size": 2}
NETWORKS = [
    ("stanhop", "entmax"),
    *(("outeffhop", mode) for mode in ("entmax", "softmax", "softmax1", "sparsemax", "clip", "clip_softmax1")),
]


def published(variant: str, mode: str) -> PublishedSTanHopNet:
    """A small network with random weights."""
    torch.manual_seed(0)
    network = PublishedSTanHopNet(PublishedConfig(variant=variant, mode=mode, **SIZES, **SMALL))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval().requires_grad_(False)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(("variant", "mode"), NETWORKS)
def test_a_stepped_layer_is_the_layer(contexts, variant, mode) -> None:
    network = published(variant, mode)
    taken_apart = copy.deepcopy(network)
    for name, hopfield in hopfields_in(taken_apart):
        taken_apart.set_submodule(name, stepped(hopfield))
    assert not any(hopfields_in(taken_apart)), "every layer is replaced"
    assert relative(taken_apart(contexts[0]), network(contexts[0])) < 1e-5


@pytest.mark.parametrize(("variant", "mode"), NETWORKS)
def test_every_mode_can_be_simulated_and_more_bits_err_less(contexts, variant, mode) -> None:
    network = published(variant, mode)
    expected = network(contexts[0])
    errors = {
        scheme: relative(simulate(network, contexts[:1], Protocol.of(scheme))(contexts[0]), expected)
        for scheme in ("w4a4", "w8a8", "w16a16")
    }
    assert errors["w16a16"] < 2e-3 < errors["w8a8"] < errors["w4a4"]


def test_what_is_rounded_lies_on_its_grid_and_each_sum_is_among_it(contexts) -> None:
    simulated = simulate(published("outeffhop", "softmax1"), contexts[:1], Protocol.of("w8a4"))
    block = "encoder.0.context_block"
    named = {
        *("input", "patch_embedding", "embedding_norm.input", "embedding_norm", "decoder.1.hidden_output_proj.input"),
        *(f"{block}.across_time.{step}" for step in ("scores", "weights", "retrieved", "query_proj")),
        *(f"{block}.{norm}.input" for norm in ("time_norm", "time_feedforward_norm", "channels_norm")),
        *("decoder.0.layer_norm.input", "decoder.0.from_context_norm", "encoder.1.coarse_graining.merged_proj"),
    }
    assert named <= simulated.ranges.keys()
    assert not any("forecast_proj" in name for name in simulated.ranges), "shares of the forecast stay exact"
    seen: dict[str, torch.Tensor] = {}
    norm = simulated.network.get_submodule(f"{block}.time_norm")
    norm.register_forward_hook(lambda _module, inputs, _output: seen.update(sum=inputs[0]))
    simulated(contexts[0])
    assert_on_grid(seen["sum"], simulated.ranges[f"{block}.time_norm.input"], bits=4)


def assert_on_grid(values: torch.Tensor, own: Range, *, bits: int) -> None:
    assert len(values.unique()) <= 2**bits
    assert values.min() >= own.low - 1e-5
    assert values.max() <= own.high + 1e-5


def test_weights_memories_and_positions_are_rounded(contexts) -> None:
    network = published("stanhop", "entmax")
    changed = simulate(network, contexts[:1], Protocol.of("w3a16")).network
    for name in ("context_positions", "forecast_positions", "encoder.1.context_block.learned_memories"):
        assert len(changed.get_parameter(name).unique()) <= 2**3, name
        assert len(network.get_parameter(name).unique()) > 2**3, name
    assert len(changed.get_parameter("decoder.0.forecast_proj.weight").unique()) <= 2**3
    assert len(changed.get_parameter("decoder.0.forecast_proj.bias").unique()) > 2**2, "biases stay"


def test_smoothing_is_refused(contexts) -> None:
    with pytest.raises(ConfigError, match="smoothing is for a STanHopNet"):
        simulate(published("stanhop", "entmax"), contexts[:1], Protocol(smoothing=0.5))
