"""Int8 linear maps: kernels equal the definition, rows are on their own, copies and compilation change nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from stanhop.model import int8
from stanhop.model.int8 import Int8Linear, has_kernels, with_int8_linears

SHAPES = [(5, 7), (64, 64), (37, 1), (129, 24), (1, 3)]


def filled(in_features: int, out_features: int, activations: int8.Activations) -> Int8Linear:
    generator = torch.Generator().manual_seed(in_features)
    linear = Int8Linear(in_features, out_features, activations=activations)
    linear.weight.copy_(torch.randint(-127, 128, linear.weight.shape, generator=generator))
    linear.weight_scale.copy_(torch.rand(out_features, generator=generator) / 100 + 1e-3)
    linear.bias.copy_(torch.randn(out_features, generator=generator))
    if activations == "static":
        linear.input_scale.fill_(0.031)
        linear.input_zero_point.fill_(97)
    return linear


def inputs_of(linear: Int8Linear) -> torch.Tensor:
    return 2 * torch.randn(3, 11, linear.in_features, generator=torch.Generator().manual_seed(1))


def float_weight(linear: Int8Linear) -> torch.Tensor:
    return linear.weight * linear.weight_scale[:, None]


def handed_on(activations: int8.Activations, inputs: torch.Tensor) -> torch.Tensor:
    """What each input becomes, times its scale: the output of a linear map that hands each on by itself."""
    linear = Int8Linear(inputs.shape[-1], inputs.shape[-1], activations=activations)
    linear.weight.copy_(torch.eye(inputs.shape[-1]))
    if activations == "static":
        linear.input_scale.fill_(0.02)
        linear.input_zero_point.fill_(97)
    return linear.by_definition(inputs)


def test_dynamic_activations_are_rounded_to_the_nearest_127th_of_their_row_s_largest() -> None:
    inputs = torch.tensor([[1.27, -0.644, 0.006, 0.004, 0.0], [0.0, 0.0254, -0.01004, 0.0, 0.01]])
    expected = torch.tensor([[1.27, -0.64, 0.01, 0.0, 0.0], [0.0, 0.0254, -0.01, 0.0, 0.01]])
    torch.testing.assert_close(handed_on("dynamic", inputs), expected, rtol=0, atol=1e-6)


def test_static_activations_are_rounded_to_the_nearest_step_and_cut_off_at_the_ends() -> None:
    inputs = torch.tensor([0.051, 0.049, -0.031, -0.029, 0.0, 10.0, -10.0])
    expected = 0.02 * torch.tensor([3.0, 2.0, -2.0, -1.0, 0.0, 255 - 97, -97])
    torch.testing.assert_close(handed_on("static", inputs), expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(not has_kernels(), reason="this machine has no int8 kernels, so the definition is what runs")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_the_kernel_equals_the_definition(shape, activations, monkeypatch) -> None:
    linear = filled(*shape, activations)
    inputs = inputs_of(linear)
    expected = linear.by_definition(inputs)
    monkeypatch.setattr(Int8Linear, "by_definition", None)
    torch.testing.assert_close(linear(inputs), expected, rtol=1e-5, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_without_kernels_the_definition_runs(activations, monkeypatch) -> None:
    linear = filled(5, 7, activations)
    monkeypatch.setattr(int8, "has_kernels", lambda: False)
    assert linear(inputs_of(linear)).equal(linear.by_definition(inputs_of(linear)))


def test_without_kernels_a_compiled_layer_is_the_definition_and_leaves_saturating_products_alone(monkeypatch) -> None:
    linear = filled(5, 7, "static")
    monkeypatch.setattr(int8, "has_kernels", lambda: False)
    monkeypatch.setattr(Int8Linear, "_by_pattern", None)
    linear.settle()
    compiled = torch.compile(linear, backend="eager")
    assert compiled(inputs_of(linear)).equal(linear.by_definition(inputs_of(linear)))


@pytest.mark.parametrize("activations", ["dynamic", "static", "bfloat16", "float32"])
def test_the_output_is_close_to_that_of_float_activations(activations) -> None:
    linear = filled(64, 64, activations)
    inputs = inputs_of(linear).clamp(-3, 4)
    expected = torch.nn.functional.linear(inputs, float_weight(linear), linear.bias)
    error = (linear(inputs) - expected).norm() / expected.norm()
    assert error < {"dynamic": 0.01, "static": 0.01, "bfloat16": 0.005, "float32": 1e-6}[activations]
    assert linear(inputs).dtype == torch.float32


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_a_row_does_not_depend_on_the_others(activations) -> None:
    linear = filled(37, 5, activations)
    rows = inputs_of(linear)[0]
    together = torch.cat([rows, 1000 * rows])
    torch.testing.assert_close(linear(together)[:11], linear(rows), rtol=1e-6, atol=1e-6)


def test_rows_of_one_sign_and_of_zeros_are_quantised_well() -> None:
    linear = filled(37, 5, "dynamic")
    rows = torch.stack([torch.full((37,), 3.0), torch.full((37,), -0.5), torch.zeros(37)])
    expected = torch.nn.functional.linear(rows, float_weight(linear), linear.bias)
    torch.testing.assert_close(linear(rows), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_a_copy_computes_the_same_bits(activations) -> None:
    linear = filled(37, 5, activations)
    before = linear(inputs_of(linear))
    assert copy.deepcopy(linear)(inputs_of(linear)).equal(before)
    empty = Int8Linear(37, 5, activations=activations)
    empty.load_state_dict(linear.state_dict())
    assert empty(inputs_of(linear)).equal(before)


def test_every_linear_map_of_a_network_is_replaced() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(5, 2)))
    changed = with_int8_linears(network, "static")
    assert not any(isinstance(module, torch.nn.Linear) for module in changed.modules())
    assert changed(torch.randn(7, 3)).shape == (7, 2)
