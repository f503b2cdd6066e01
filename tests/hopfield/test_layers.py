"""Tests of the Hopfield layers: shapes, projections, gate, learned alpha and learned patterns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stanhop.errors import ConfigError
from stanhop.hopfield import SEPARATIONS, Hopfield, HopfieldLayer, HopfieldPooling, Separation, layers, retrieve

MODEL_DIM, HEADS = 15, 3
OUTEFFHOP = SEPARATIONS["outeffhop"]
LEARNED = SEPARATIONS["sparse_outeffhop"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


def patterns(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hopfield(separation: Separation = OUTEFFHOP, **options) -> Hopfield:
    return Hopfield(MODEL_DIM, HEADS, separation=separation, **options).double().eval()


def as_identity(layer: Hopfield) -> Hopfield:
    """Let every projection return its input."""
    for name, module in layer.named_children():
        if isinstance(module, nn.Linear) and name != "gate_proj":
            nn.init.eye_(module.weight)
            nn.init.zeros_(module.bias)
    return layer


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("name", SEPARATIONS)
def test_every_layer_keeps_any_number_of_batch_axes_and_every_parameter_learns(name, gate) -> None:
    options = {"separation": SEPARATIONS[name], "gate": gate, "num_updates": 2}
    for batch in ((), (2,), (2, 5)):
        x = patterns(*batch, 7, MODEL_DIM)
        for layer, length in (
            (Hopfield(MODEL_DIM, HEADS, **options), 7),
            (HopfieldPooling(MODEL_DIM, HEADS, num_queries=4, **options), 4),
            (HopfieldLayer(MODEL_DIM, HEADS, num_memories=11, **options), 7),
        ):
            output = layer.double()(x)
            assert output.shape == (*batch, length, MODEL_DIM)
            output.square().sum().backward()
            for parameter in layer.parameters():
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all()
                assert (parameter.grad != 0).any()


@pytest.mark.parametrize("name", ["outeffhop", "sparse_outeffhop"])
def test_one_product_for_all_projections_equals_three_with_every_gradient(name, monkeypatch, assert_close) -> None:
    layer, x = hopfield(SEPARATIONS[name], gate=True).train(), patterns(2, 7, MODEL_DIM).requires_grad_()
    outcomes: list[list[torch.Tensor]] = []
    products: list[nn.Module] = []
    for projection in layer.children():
        projection.register_forward_hook(lambda module, *_: products.append(module))
    for fuses in (False, True):
        monkeypatch.setattr(layers, "_pays_to_fuse", lambda _, fuses=fuses: fuses)
        products.clear()
        output = layer(x)
        outcomes.append([output, *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])])
        assert len(products) == (2 if fuses else 5)  # gate and output, and the three projections
    for got, expected in zip(outcomes[1], outcomes[0], strict=True):
        assert_close(got, expected, "patterns_grad")


def test_batch_entries_do_not_meet(assert_close) -> None:
    layer, x = hopfield(LEARNED), patterns(2, 5, 7, MODEL_DIM)
    assert_close(layer(x)[1, 3], layer(x[1, 3]), "retrieved")


def test_transposed_inputs_equal_contiguous_ones(assert_close) -> None:
    layer, x = hopfield(), patterns(2, 5, 7, MODEL_DIM)
    assert_close(layer(x.transpose(1, 2)), layer(x.transpose(1, 2).contiguous()), "retrieved")


def test_query_and_memory_may_differ_in_length(assert_close) -> None:
    layer = as_identity(hopfield())
    query, memory = patterns(2, 5, MODEL_DIM), patterns(2, 7, MODEL_DIM, seed=1)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(x.chunk(HEADS, dim=-1), dim=1)

    expected = retrieve(heads(query), heads(memory), heads(memory), alpha=1.0, no_op=True)
    assert_close(layer(query, memory), torch.cat(expected.unbind(1), dim=-1), "retrieved")


def test_values_are_projected_from_the_memory_itself(assert_close) -> None:
    layer, x = as_identity(hopfield()), patterns(2, 7, MODEL_DIM)
    expected = layer(x)
    nn.init.zeros_(layer.memory_proj.weight)  # all scores 0: every memory weighs 1/8, and its values are still there
    assert_close(layer(x), x.sum(dim=1, keepdim=True).expand(-1, 7, -1) / 8, "retrieved")
    assert not torch.allclose(layer(x), expected)


def test_a_permuted_memory_retrieves_the_same(assert_close) -> None:
    layer, query, memory = hopfield(LEARNED), patterns(2, 5, MODEL_DIM), patterns(2, 7, MODEL_DIM, seed=1)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert_close(layer(query, memory[:, order]), layer(query, memory), "retrieved")


def test_masked_memories_have_no_influence(assert_close) -> None:
    query, memory = patterns(2, 5, MODEL_DIM), patterns(2, 7, MODEL_DIM, seed=1)
    mask = (torch.arange(7) < 4).expand(2, -1)
    for layer in (hopfield(), hopfield(SEPARATIONS["gsh"])):
        assert_close(layer(query, memory, mask=mask), layer(query, memory[:, :4]), "retrieved")
    pooling = HopfieldPooling(MODEL_DIM, HEADS, num_queries=2, separation=OUTEFFHOP).double()
    assert_close(pooling(memory, mask=mask), pooling(memory[:, :4]), "retrieved")


def test_a_new_gate_is_a_quarter_open_and_closes_by_query(assert_close) -> None:
    x = patterns(2, 7, MODEL_DIM)
    layer = as_identity(hopfield(gate=True))
    ungated = as_identity(hopfield())(x)
    assert layer.gate_proj.bias.sigmoid().tolist() == pytest.approx([0.25] * HEADS)

    nn.init.zeros_(layer.gate_proj.weight)
    nn.init.zeros_(layer.gate_proj.bias)
    layer.gate_proj.weight.data[1, 0] = 1000.0  # head 1 opens where the first feature is positive, and closes elsewhere
    is_open = (x[..., :1] > 0).double()
    head_dim = MODEL_DIM // HEADS
    share = torch.cat([torch.full_like(is_open, 0.5), is_open, torch.full_like(is_open, 0.5)], dim=-1)
    assert_close(layer(x), ungated * share.repeat_interleave(head_dim, dim=-1), "retrieved")


def test_each_head_learns_its_own_alpha_between_1_and_2() -> None:
    layer = hopfield(LEARNED)
    assert layer.alpha.tolist() == [1.5] * HEADS
    layer.alpha_logit.data = torch.tensor([-math.inf, math.log(3.0), math.inf], dtype=torch.float64)
    assert layer.alpha.tolist() == [1.0, 1.75, 2.0]
    weights = layer.retrieval_weights(10 * patterns(2, 7, MODEL_DIM))
    assert (weights[:, 0] > 0).all()
    assert (weights[:, 2] == 0).any()


def test_a_fixed_alpha_is_no_parameter() -> None:
    assert hopfield().alpha == 1.0
    assert not [name for name in hopfield().state_dict() if "alpha" in name]


def test_learned_alpha_is_computed_in_float32_where_the_layer_is_in_bfloat16() -> None:
    layer = hopfield(LEARNED).bfloat16()
    layer.alpha_logit.data.fill_(-7.0)
    assert layer.alpha.dtype == torch.float32
    assert (layer.alpha > 1).all()
    assert layer(patterns(2, 7, MODEL_DIM).bfloat16()).dtype == torch.bfloat16


def test_dropout_acts_in_training_only() -> None:
    layer, x = hopfield(dropout=0.5), patterns(2, 7, MODEL_DIM)
    assert layer(x).equal(hopfield_like(layer, dropout=0.0)(x))
    layer.train()
    assert not layer(x).equal(layer(x))


def hopfield_like(layer: Hopfield, **options) -> Hopfield:
    other = hopfield(layer.separation, **options)
    other.load_state_dict(layer.state_dict())
    return other


def test_the_number_of_updates_is_that_of_the_retrieval(assert_close) -> None:
    once = as_identity(hopfield())
    twice = as_identity(hopfield(num_updates=2))
    x, memory = patterns(2, 5, MODEL_DIM), patterns(2, 7, MODEL_DIM, seed=1)
    assert_close(twice(x, memory), once(once(x, memory), memory), "retrieved")


def test_retrieval_weights_are_what_the_values_are_read_out_by(assert_close) -> None:
    layer = as_identity(hopfield(LEARNED))
    query, memory = patterns(2, 5, MODEL_DIM), patterns(2, 7, MODEL_DIM, seed=1)
    mask = (torch.arange(7) != 3).expand(2, -1)
    weights = layer.retrieval_weights(query, memory, mask=mask)
    assert weights.shape == (2, HEADS, 5, 7)
    heads = memory.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    assert_close(layer(query, memory, mask=mask), (weights @ heads).transpose(1, 2).flatten(-2), "retrieved")
    assert layer.retrieval_weights(query).shape == (2, HEADS, 5, 5)


def test_learned_patterns_start_at_the_scale_of_normalised_tokens() -> None:
    layer = HopfieldLayer(64, 4, num_memories=101, separation=OUTEFFHOP)
    pooling = HopfieldPooling(64, 4, num_queries=101, separation=OUTEFFHOP)
    for learned in (layer.memory, layer.values, pooling.query):
        assert learned.mean().item() == pytest.approx(0.0, abs=0.05)
        assert learned.std().item() == pytest.approx(1.0, abs=0.05)


def test_learned_values_are_read_out_and_learned_memories_found(assert_close) -> None:
    layer = HopfieldLayer(MODEL_DIM, 1, num_memories=5, separation=OUTEFFHOP).double()
    as_identity(layer.hopfield)
    layer.memory.data = 100 * torch.eye(5, MODEL_DIM, dtype=torch.float64)
    assert_close(layer(layer.memory.detach()), layer.values, "retrieved")
    strange = -layer.memory.detach().sum(dim=0, keepdim=True)
    assert layer(strange).abs().max() == 0


def test_parameters_have_the_names_that_weights_are_stored_by() -> None:
    projections = {
        f"{name}_proj.{part}" for name in ("query", "memory", "values", "output") for part in ("weight", "bias")
    }
    options = {"separation": LEARNED, "gate": True}
    inner = projections | {"gate_proj.weight", "gate_proj.bias", "alpha_logit"}
    assert set(hopfield().state_dict()) == projections
    assert set(Hopfield(MODEL_DIM, HEADS, **options).state_dict()) == inner
    prefixed = {f"hopfield.{name}" for name in inner}
    pooling = HopfieldPooling(MODEL_DIM, HEADS, num_queries=2, **options)
    layer = HopfieldLayer(MODEL_DIM, HEADS, num_memories=2, **options)
    assert set(pooling.state_dict()) == prefixed | {"query"}
    assert set(layer.state_dict()) == prefixed | {"memory", "values"}


def test_heads_that_do_not_divide_the_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_heads \(4\) must divide model_dim \(15\)"):
        Hopfield(15, 4, separation=OUTEFFHOP)
