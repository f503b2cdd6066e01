"""Simulated quantisation: the steps are the layer's, what is rounded lies on its grid, and bits tell."""

from __future__ import annotations

import copy

import pytest
import torch

from stanhop.config import ModelConfig
from stanhop.errors import ConfigError
from stanhop.hopfield.layers import HopfieldLayer
from stanhop.hopfield.separation import SEPARATIONS
from stanhop.model.joint_path import JointMemories
from stanhop.model.network import STanHopNet
from stanhop.quantization.rounding import Range
from stanhop.quantization.simulate import Protocol, simulate
from stanhop.quantization.smoothing import norms_and_readers, smoothed
from stanhop.quantization.stepped import SteppedHopfield, hopfields_in

METHODS = [(separation, gate) for separation in SEPARATIONS for gate in (False, True)]


# Calibrated on the windows that are forecast, nothing is cut off and only the rounding is left.


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(("separation", "gate"), METHODS)
def test_a_stepped_layer_is_the_layer(make_network, contexts, separation, gate) -> None:
    network = make_network(separation=separation, gate=gate, num_updates=2)
    stepped = copy.deepcopy(network)
    for name, hopfield in hopfields_in(stepped):
        stepped.set_submodule(name, SteppedHopfield(hopfield))
    assert not any(hopfields_in(stepped)), "every layer is replaced"
    assert relative(stepped(contexts[0]), network(contexts[0])) < 1e-5


@pytest.mark.parametrize(("separation", "gate"), METHODS)
def test_every_method_can_be_simulated_and_more_bits_err_less(make_network, contexts, separation, gate) -> None:
    network = make_network(separation=separation, gate=gate, num_updates=2)
    expected = network(contexts[0])
    errors = {
        scheme: relative(simulate(network, contexts[:1], Protocol.of(scheme))(contexts[0]), expected)
        for scheme in ("w4a4", "w4a8", "w8a8", "w16a16")
    }
    assert errors["w16a16"] < 1e-3 < errors["w8a8"] < errors["w4a8"]
    assert errors["w8a8"] < errors["w4a4"]


def test_the_network_that_is_simulated_is_not_changed(make_network, contexts) -> None:
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    simulate(network, contexts, Protocol.of("w4a4", smoothing=0.5))
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert len(list(hopfields_in(network))) == 6
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    "changes",
    [{}, {"joint_rank": 3}, {"joint_rank": 3, "instance_norm": False}, {"joint_rank": 3, "joint_memories": 2}],
)
def test_weights_and_activations_lie_on_their_grids(make_network, contexts, changes) -> None:
    simulated = simulate(make_network(**changes), contexts, Protocol.of("w4a3"))
    seen: dict[str, torch.Tensor] = {}
    for name, module in simulated.network.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert len(module.weight.unique()) <= 15, name
            module.register_forward_pre_hook(lambda _m, inputs, name=name: seen.__setitem__(name, inputs[0]))
        elif isinstance(module, HopfieldLayer | JointMemories):
            assert len(module.memory.unique()) <= 15
    simulated(contexts[0])
    of_memories = {name for name in seen if name.endswith(("memory_proj", "values_proj")) and "learned" in name}
    assert len(of_memories) == 4
    for name in set(seen) - of_memories:  # what every product reads
        assert len(seen[name].unique()) <= 8, name


def test_scores_weights_read_outs_and_gates_have_ranges_of_their_own(make_network, contexts) -> None:
    ranges = simulate(make_network(gate=True), contexts, Protocol()).ranges
    for step in ("scores", "weights", "retrieved", "gated"):
        assert f"encoder.0.0.0.change.{step}" in ranges
    assert 0 < ranges["encoder.0.0.0.change.weights"].high <= 1
    assert "input" in ranges
    assert not any(name.startswith("direct") or name == "read_outs.0.3" for name in ranges), "their sum is the forecast"
    of_joint = {"joint.input", "joint.down"}
    of_memories = {"joint.memories.input", "joint.memories.query_proj"}
    for num_memories, expected in ((0, of_joint), (2, of_joint | of_memories)):
        network = make_network(joint_rank=3, joint_memories=num_memories)
        assert {name for name in simulate(network, contexts, Protocol()).ranges if "joint" in name} == expected


def test_ranges_come_from_the_calibration_windows_alone(make_network, contexts) -> None:
    network = make_network(instance_norm=False)
    ranges = simulate(network, contexts[:1], Protocol()).ranges
    batch = contexts[0].float()
    assert ranges["input"] == Range(pytest.approx(float(batch.min())), pytest.approx(float(batch.max())))
    simulated = simulate(network, contexts[:1], Protocol())
    simulated(1000 * contexts[1])
    assert simulated.ranges == ranges


@pytest.mark.parametrize(("protocol", "momentum"), [(Protocol(), 0.9), (Protocol(momentum=0.25), 0.25)])
def test_a_later_batch_moves_every_range_by_one_less_the_momentum(make_network, contexts, protocol, momentum) -> None:
    network = make_network(instance_norm=False)
    batches = [contexts[0], 10 * contexts[1]]
    (first, second), both = (
        [simulate(network, [batch], protocol).ranges for batch in batches],
        simulate(network, batches, protocol).ranges,
    )
    # A range holds 0: where an end had to be moved there, it says nothing about the momentum.
    clear = [site for site in both if all(min(-each[site].low, each[site].high) > 1e-6 for each in (first, second))]
    assert {"input", "embedding"} < set(clear)
    for site in clear:
        low, high = (
            momentum * getattr(first[site], end) + (1 - momentum) * getattr(second[site], end)
            for end in ("low", "high")
        )
        assert (both[site].low, both[site].high) == pytest.approx((low, high)), site


def test_per_channel_weights_err_less_where_rows_differ_in_scale(make_network, contexts) -> None:
    network = make_network()
    with torch.no_grad():
        network.embedding.linear.weight[0] *= 30
    exact = network.embedding.linear.weight[1:]
    errors = [
        relative(simulate(network, [], Protocol(per_channel=each)).network.embedding.linear.weight[1:], exact)
        for each in (False, True)
    ]
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize(("separation", "gate"), METHODS)
def test_smoothing_changes_no_output(make_network, contexts, separation, gate) -> None:
    network = make_network(separation=separation, gate=gate)
    changed = smoothed(network, contexts)
    assert relative(changed(contexts[1]), network(contexts[1])) < 1e-5
    norms = list(zip(norms_and_readers(network), norms_and_readers(changed), strict=True))
    assert len(norms) == 2 * 4 + 1 + 2, "four in each block, one of coarse-graining, one in each read-out"
    assert all(not before.weight.equal(after.weight) for (before, _), (after, _) in norms)


def test_smoothing_helps_where_features_differ_in_scale(make_network, contexts) -> None:
    network = make_network()
    with torch.no_grad():
        for norm, readers in norms_and_readers(network):
            norm.weight[1] *= 100
            norm.bias[1] *= 100
            for reader in readers:
                reader.weight.view(reader.out_features, -1, len(norm.bias))[..., 1] /= 100
    expected = network(contexts[0])
    errors = [
        relative(simulate(network, contexts[:1], Protocol(smoothing=each))(contexts[0]), expected)
        for each in (None, 0.5)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("scheme", ["w8", "8a8", "w1a8", "w8a17", "int8"])
def test_what_is_no_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match="is no quantisation scheme; write it as w8a8"):
        Protocol.of(scheme)


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="only a STanHopNet"):
        simulate(torch.nn.Linear(2, 2), [], Protocol())


def test_a_simulated_network_stays_the_same_when_it_is_copied(make_network, contexts) -> None:
    simulated = simulate(make_network(), contexts, Protocol())
    assert isinstance(simulated.network, STanHopNet)
    assert isinstance(simulated.network.config, ModelConfig)
    assert copy.deepcopy(simulated)(contexts[0]).equal(simulated(contexts[0]))
