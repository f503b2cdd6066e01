"""Tests of the published networks: reference outputs, plain loops, names, counts and refusals."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from stanhop.errors import ConfigError, ModelError
from stanhop.model import published_layers
from stanhop.model.published import PublishedSTanHopNet, from_published, published_name, to_published
from stanhop.model.published_config import PublishedConfig, read_published_config
from stanhop.model.published_layers import (
    PublishedCoarseGraining,
    PublishedDecoderLayer,
    PublishedHopfield,
    PublishedTandemBlock,
)

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))
TOLERANCE = 1e-9  # float64, against the reference outputs
LOOP_TOLERANCE = 1e-12  # float64, against plain loops
FLOAT32_TOLERANCE = 2e-3  # float32 against float64 after two levels of LayerNorm
MODES = ("entmax", "softmax", "softmax1", "sparsemax", "clip", "clip_softmax1")
VARIANTS = [("stanhop", "entmax"), *(("outeffhop", mode) for mode in MODES)]
SMALL = {  # padding in front, a cut at the end, and a remainder on both coarse levels: 5 -> 3 -> 2 patches
    "num_channels": 3,
    "context_length": 23,
    "prediction_length": 7,
    "patch_length": 5,
    "merge_size": 2,
    "num_memories": 4,
    "model_dim": 11,
    "feedforward_dim": 13,
    "num_heads": 2,
    "num_levels": 3,
}
WORDS = {"data_dim": 3, "in_len": 23, "out_len": 7, "seg_len": 5, "win_size": 2, "factor": 4, "d_model": 11}
WORDS |= {"d_ff": 13, "n_heads": 2, "e_layers": 3}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def small_config(variant="stanhop", mode="entmax", **changes):
    return PublishedConfig(**{"variant": variant, "mode": mode, **SMALL, **changes})


def small_network(variant="stanhop", mode="entmax", **changes):
    return PublishedSTanHopNet(small_config(variant, mode, **changes)).double().eval()


def read_golden(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config = json.loads(file.metadata()["config"])
        variant = file.metadata()["variant"]
    config.pop("batch")  # the size of `input`, not an argument of the constructor
    parameters = {name.removeprefix("param/"): value for name, value in tensors.items() if name.startswith("param/")}
    return tensors, parameters, config, variant


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_outputs_and_gradients_are_those_of_the_published_code(path):
    tensors, parameters, config, variant = read_golden(path)
    network = from_published(parameters, config, variant)
    context = tensors["input"].clone().requires_grad_()

    forecast = network(context)
    (forecast * tensors["output_weight"]).sum().backward()

    assert forecast.dtype == torch.float64
    torch.testing.assert_close(forecast, tensors["output"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(context.grad, tensors["input_grad"], rtol=0, atol=TOLERANCE)
    gradients = {published_name(name, variant): value.grad for name, value in network.named_parameters()}
    expected = {name.split("/")[1]: value for name, value in tensors.items() if name.startswith("param_grad/")}
    assert len(expected) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=TOLERANCE, msg=name)


def test_there_are_three_reference_networks():
    assert len(GOLDEN) == 3


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_names_and_values_survive_the_round_trip(path):
    _, parameters, config, variant = read_golden(path)
    back = to_published(from_published(parameters, config, variant))
    assert back.keys() == parameters.keys()
    for name, value in back.items():
        expected = torch.zeros_like(value) if name.endswith("alpha_chooser") else parameters[name]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(("variant", "mode"), VARIANTS)
def test_a_fresh_network_survives_the_round_trip_to_published_names(variant, mode):
    network = small_network(variant, mode)
    words = WORDS | ({"mode": mode} if variant == "outeffhop" else {})
    again = from_published(to_published(network), words, variant)
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    assert torch.equal(again(context), network(context))


@pytest.mark.parametrize(("variant", "mode"), VARIANTS)
def test_no_two_parameters_share_a_published_name(variant, mode):
    names = list(small_network(variant, mode).state_dict())
    assert len({published_name(name, variant) for name in names}) == len(names)


COUNTS = [  # published parameter count, variant, arguments
    (35_150_664, "outeffhop", {"mode": "softmax"}),
    (35_150_664, "outeffhop", {"mode": "softmax1"}),
    (35_150_664, "outeffhop", {"mode": "clip"}),
    (35_150_826, "outeffhop", {"mode": "entmax"}),
    (35_186_154, "stanhop", {}),
    (8_093_256, "stanhop", {"seg_len": 12, "win_size": 4, "e_layers": 2}),
    (10_888_522, "stanhop", {"e_layers": 3}),
]


@pytest.mark.parametrize(("count", "variant", "changes"), COUNTS)
def test_the_number_of_parameters_is_the_published_one(count, variant, changes):
    words = {"data_dim": 7, "in_len": 168, "out_len": 24, "seg_len": 6, "win_size": 1, "factor": 10, "d_model": 256}
    words |= {"d_ff": 512, "n_heads": 4, "e_layers": 11, "dropout": 0.5} | changes
    with torch.device("meta"):
        network = PublishedSTanHopNet(read_published_config(words, variant))
    assert sum(value.numel() for value in to_published(network).values()) == count


def slow_weights(scores, mode, alpha, *, eta=1.1, gamma=-0.1):
    """One row of weights, straight from the definitions."""
    num_memories = len(scores)
    if mode == "sparsemax":
        alpha = 2.0
    if mode in ("entmax", "sparsemax"):
        low, high = max(scores) - 1 / (alpha - 1), max(scores)
        for _ in range(200):  # bisection for the threshold at which the weights sum to 1
            middle = (low + high) / 2
            weights = [max((alpha - 1) * (score - middle), 0.0) ** (1 / (alpha - 1)) for score in scores]
            low, high = (middle, high) if sum(weights) > 1 else (low, middle)
        return weights
    others = 1.0 if mode.endswith("softmax1") else 0.0
    total = others + sum(math.exp(score) for score in scores)
    weights = [math.exp(score) / total for score in scores]
    if mode.startswith("clip"):
        weights = [min(max(weight * (eta - gamma) + gamma, 0.0), 1.0) for weight in weights]
    assert len(weights) == num_memories
    return weights


def slow_hopfield(layer, query, memory):
    """A published retrieval of one sequence by plain loops, ``(L, model_dim)`` from ``(L, ·)`` and ``(S, ·)``."""
    config = layer.config
    heads, dim = config.num_heads, config.head_dim

    def project(projection, rows):
        return rows @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()

    queries = project(layer.query_proj, query)
    keys = project(layer.memory_proj, memory)
    values = project(layer.values_proj, keys)
    alpha = None
    if layer.alpha_logit is not None:
        span = 1 if config.variant == "stanhop" else 2
        alpha = 1 + span / (1 + math.exp(-layer.alpha_logit.item()))
    length = len(queries)
    retrieved = np.zeros((heads, length, dim))
    for head, position in itertools.product(range(heads), range(length)):
        part = slice(head * dim, (head + 1) * dim)
        scores = [float(queries[position, part] @ key[part]) / math.sqrt(dim) for key in keys]
        weights = slow_weights(scores, config.mode, alpha, eta=config.eta, gamma=config.gamma)
        for weight, value in zip(weights, values, strict=True):
            retrieved[head, position] += weight * value[part]
    mixed = np.zeros((length, heads * dim))
    for row, slot in itertools.product(range(length), range(heads)):
        index = row * heads + slot
        mixed[row, slot * dim : (slot + 1) * dim] = retrieved[index // length, index % length]
    return project(layer.output_proj, mixed)


@pytest.mark.parametrize(("variant", "mode"), VARIANTS)
@pytest.mark.parametrize("model_dim", [9, 11])  # three heads of 3; three heads of 3 and 2 features left over
def test_a_retrieval_equals_plain_loops(variant, mode, model_dim):
    layer = PublishedHopfield(small_config(variant, mode, model_dim=model_dim, num_heads=3)).double().eval()
    query = 3 * torch.randn(2, 5, model_dim, dtype=torch.float64)  # five queries, seven memories
    memory = torch.randn(2, 7, model_dim, dtype=torch.float64)
    answer = layer(query, memory).detach().numpy()
    for batch in range(2):
        expected = slow_hopfield(layer, query[batch].numpy(), memory[batch].numpy())
        np.testing.assert_allclose(answer[batch], expected, rtol=0, atol=LOOP_TOLERANCE)


@pytest.mark.parametrize("alpha_logit", [-3.0, 0.0, 3.0])
def test_alpha_runs_to_three_in_outeffhop_and_to_two_in_stanhop(alpha_logit):
    share = 1 / (1 + math.exp(-alpha_logit))
    for variant, span in (("stanhop", 1), ("outeffhop", 2)):
        layer = PublishedHopfield(small_config(variant)).double().eval()
        nn.init.constant_(layer.alpha_logit, alpha_logit)
        assert layer.alpha.tolist() == pytest.approx([1 + span * share] * 2)
        query = torch.randn(1, 5, 11, dtype=torch.float64)
        expected = slow_hopfield(layer, query[0].numpy(), query[0].numpy())
        np.testing.assert_allclose(layer(query, query)[0].detach(), expected, rtol=0, atol=LOOP_TOLERANCE)


@pytest.mark.parametrize(("alpha_logit", "method"), [(-0.1, "auto"), (0.0, "auto"), (0.1, "definition")])
def test_alpha_above_two_is_left_to_the_definition(monkeypatch, alpha_logit, method):
    seen = []
    retrieve = published_layers.retrieve

    def spy(*patterns, **others):
        seen.append(others["method"])
        return retrieve(*patterns, **others)

    monkeypatch.setattr(published_layers, "retrieve", spy)
    query = torch.randn(1, 5, 11, dtype=torch.float64)
    for variant in ("stanhop", "outeffhop"):
        layer = PublishedHopfield(small_config(variant)).double()
        nn.init.constant_(layer.alpha_logit, alpha_logit)
        layer(query, query)
    assert seen == ["auto", method]


def test_the_gradient_of_alpha_is_right_above_two():
    layer = PublishedHopfield(small_config("outeffhop")).double().eval()
    query = torch.randn(1, 5, 11, dtype=torch.float64)

    def answer(alpha_logit):
        return torch.func.functional_call(layer, {"alpha_logit": alpha_logit}, (query, query))

    alpha_logit = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)  # alpha 2.4
    assert torch.autograd.gradcheck(answer, alpha_logit)


def test_patches_and_channels_change_places_by_index_in_the_mixing():
    layer = PublishedHopfield(small_config()).double().eval()
    query = torch.randn(1, 3, 11, dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    answer = layer(query, query)
    assert not torch.allclose(layer(query[:, order], query[:, order]), answer[:, order])


def layer_norm(rows, norm):
    if isinstance(norm, nn.Identity):
        return rows
    centred = rows - rows.mean(-1, keepdims=True)
    standard = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return standard * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def slow_feedforward(rows, first, second):
    hidden = rows @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()


def slow_tandem_block(block, patches):
    """A published tandem block on one window, ``(channels, patches, model_dim)``, sequence by sequence."""
    across_time = np.zeros_like(patches)
    for channel, sequence in enumerate(patches):
        rows = layer_norm(sequence + slow_hopfield(block.across_time, sequence, sequence), block.time_norm)
        rows = rows + slow_feedforward(rows, block.time_feedforward[0], block.time_feedforward[2])
        across_time[channel] = layer_norm(rows, block.time_feedforward_norm)
    across_channels = np.zeros_like(patches)
    memories = block.learned_memories[0].detach().numpy()
    for patch in range(patches.shape[1]):
        sequence = across_time[:, patch]
        rows = slow_hopfield(block.from_memories, sequence, memories)  # and nothing of `sequence` itself
        rows = layer_norm(rows + slow_hopfield(block.across_channels, sequence, sequence), block.channels_norm)
        rows = rows + slow_feedforward(rows, block.channels_feedforward[0], block.channels_feedforward[2])
        across_channels[:, patch] = layer_norm(rows, block.channels_feedforward_norm)
    return across_channels


@pytest.mark.parametrize("variant", ["stanhop", "outeffhop"])
def test_a_tandem_block_equals_plain_loops(variant):
    block = PublishedTandemBlock(small_config(variant)).double().eval()
    for parameter in block.parameters():  # biases and norms too, which would start as 0 and 1
        nn.init.normal_(parameter, std=0.7)
    patches = torch.randn(2, 3, 5, 11, dtype=torch.float64)
    answer = block(patches).detach().numpy()
    for window in range(2):
        expected = slow_tandem_block(block, patches[window].numpy())
        np.testing.assert_allclose(answer[window], expected, rtol=0, atol=1e-10)  # two LayerNorms amplify rounding


def test_only_variant_stanhop_has_four_norms():
    norms = {
        variant: sum(isinstance(part, nn.LayerNorm) for part in PublishedTandemBlock(small_config(variant)).modules())
        for variant in ("stanhop", "outeffhop")
    }
    assert norms == {"stanhop": 4, "outeffhop": 1}


@pytest.mark.parametrize(("num_patches", "order"), [(6, [0, 1, 2, 3, 4, 5]), (7, [0, 1, 2, 3, 4, 5, 6, 5, 6])])
def test_coarse_graining_repeats_the_last_patches_where_a_remainder_is_left(num_patches, order):
    layer = PublishedCoarseGraining(small_config(merge_size=3, num_levels=1)).double()
    patches = torch.randn(2, 3, num_patches, 11, dtype=torch.float64)
    merged = torch.stack(
        [
            torch.cat([patches[:, :, index] for index in order[start : start + 3]], -1)
            for start in range(0, len(order), 3)
        ],
        dim=2,
    )
    assert torch.equal(layer(patches), layer.merged_proj(layer.merged_norm(merged)))


@pytest.mark.parametrize(("num_patches", "merge_size"), list(itertools.product(range(1, 8), range(1, 9))))
def test_what_the_published_code_cannot_merge_is_refused_with_the_numbers(num_patches, merge_size):
    words = {**WORDS, "in_len": 5 * num_patches, "win_size": merge_size, "e_layers": 2}
    repeated = -num_patches % merge_size
    if repeated > num_patches:
        with pytest.raises(
            ConfigError, match=rf"merges {num_patches} patches by merge_size \({merge_size}\).*last {repeated},"
        ):
            read_published_config(words, "stanhop")
    else:
        network = PublishedSTanHopNet(read_published_config(words, "stanhop")).eval()
        assert network(torch.randn(1, 5 * num_patches, 3)).shape == (1, 7, 3)


def test_a_later_level_that_cannot_be_merged_is_refused():
    words = {**WORDS, "in_len": 20, "win_size": 4, "e_layers": 3}  # 4 patches -> 1, and 1 is too few to merge by 4
    with pytest.raises(ConfigError, match=r"encoder level 3 merges 1 patches by merge_size \(4\).*last 3,"):
        read_published_config(words, "outeffhop")


@pytest.mark.parametrize(("variant", "mode"), VARIANTS)
@pytest.mark.parametrize("merge_size", [1, 2, 3])
def test_every_mode_forecasts_and_learns(variant, mode, merge_size):
    network = small_network(variant, mode, merge_size=merge_size, dropout=0.1).train()
    context = torch.randn(2, 23, 3, dtype=torch.float64, requires_grad=True)
    forecast = network(context)
    assert forecast.shape == (2, 7, 3)
    forecast.square().mean().backward()
    assert context.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_no_parameter_is_dead():
    network = small_network("stanhop")
    network(torch.randn(2, 23, 3, dtype=torch.float64)).square().sum().backward()
    biases = ("memory_proj.bias", "query_proj.bias")  # a score shared by a row moves no weight: rounding remains
    dead = [name for name, value in network.named_parameters() if not value.grad.any() and not name.endswith(biases)]
    assert not dead


@pytest.mark.parametrize(("variant", "mode"), VARIANTS)
def test_float32_is_close_to_float64(variant, mode):
    network = small_network(variant, mode)
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    precise = network(context)
    single = network.float()(context.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), precise, rtol=0, atol=FLOAT32_TOLERANCE)


def test_the_context_is_filled_up_in_front_with_its_first_step():
    network = small_network()
    whole = small_network(context_length=25)
    whole.load_state_dict(network.state_dict())
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    filled = torch.cat([context[:, :1], context[:, :1], context], dim=1)
    assert torch.equal(network(context), whole(filled))


def test_the_forecast_is_cut_at_its_end():
    network = small_network()
    whole = small_network(prediction_length=10)
    whole.load_state_dict(network.state_dict())
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    assert torch.equal(network(context), whole(context)[:, :7])


def test_baseline_adds_the_mean_of_the_context_before_filling():
    network = small_network()
    with_baseline = small_network(baseline=True)
    with_baseline.load_state_dict(network.state_dict())
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    expected = network(context) + context.mean(dim=1, keepdim=True)
    torch.testing.assert_close(with_baseline(context), expected, rtol=0, atol=LOOP_TOLERANCE)


def test_each_decoder_layer_reads_its_level_the_embedding_first(monkeypatch):
    read = []
    forward = PublishedDecoderLayer.forward

    def spy(self, state, level):
        read.append(level.shape[2])
        return forward(self, state, level)

    monkeypatch.setattr(PublishedDecoderLayer, "forward", spy)
    small_network()(torch.randn(1, 23, 3, dtype=torch.float64))
    assert read == [5, 5, 3, 2]


def test_dropout_sits_in_the_published_places(monkeypatch):
    seen = []
    retrieve, forward = published_layers.retrieve, nn.Dropout.forward

    def retrieve_spy(query, memory, values, *, dropout, **others):
        seen.append(("weights", query.shape[-2], memory.shape[-2], dropout))
        return retrieve(query, memory, values, dropout=dropout, **others)

    def dropout_spy(self, rows):
        seen.append(("rows", rows.shape[-2], self.p))
        return forward(self, rows)

    monkeypatch.setattr(published_layers, "retrieve", retrieve_spy)
    monkeypatch.setattr(nn.Dropout, "forward", dropout_spy)
    layer = PublishedDecoderLayer(small_config(dropout=0.3)).double().train()
    layer(torch.randn(2, 3, 5, 11, dtype=torch.float64), torch.randn(2, 3, 7, 11, dtype=torch.float64))
    assert seen == [
        ("weights", 5, 5, 0.3),  # across time: 5 patches
        ("rows", 5, 0.3),
        ("rows", 5, 0.3),  # its feed-forward part
        ("weights", 3, 4, 0.3),  # 3 channels from 4 learned memories: its rows are not dropped
        ("weights", 3, 3, 0.3),  # across channels
        ("rows", 3, 0.3),
        ("rows", 3, 0.3),  # its feed-forward part
        ("weights", 5, 7, 0.3),  # from the 7 patches of the context; the decoder's feed-forward part drops nothing
        ("rows", 5, 0.3),
    ]


def test_nothing_is_dropped_outside_training():
    network = small_network(dropout=0.5)
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    assert torch.equal(network(context), network(context))
    network.train()
    assert not torch.equal(network(context), network(context))


def test_memories_and_positions_start_as_standard_normal():
    network = PublishedSTanHopNet(small_config(num_memories=997, num_channels=97, model_dim=12))
    for values in (
        network.encoder[0].context_block.learned_memories,
        network.context_positions,
        network.forecast_positions,
    ):
        assert abs(values.mean().item()) < 0.1
        assert abs(values.std().item() - 1) < 0.1


def test_a_context_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"context must be \(batch, 23, 3\), got \(1, 23, 4\)"):
        small_network()(torch.randn(1, 23, 4))


def test_a_prefix_and_dead_parameters_are_accepted():
    network = small_network()
    parameters = to_published(network)
    alive = {name: value for name, value in parameters.items() if not name.endswith("alpha_chooser")}
    assert len(alive) < len(parameters)
    context = torch.randn(2, 23, 3, dtype=torch.float64)
    for given in (alive, {f"module.{name}": value for name, value in parameters.items()}):
        assert torch.equal(from_published(given, WORDS, "stanhop")(context), network(context))


def test_a_loaded_network_owns_its_parameters_and_is_ready_to_forecast():
    parameters = to_published(small_network())
    network = from_published(parameters, {**WORDS, "dropout": 0.5}, "stanhop")
    assert not network.training
    assert all(value.requires_grad for value in network.parameters())
    before = parameters["enc_pos"].clone()
    nn.init.zeros_(network.context_positions)
    assert torch.equal(parameters["enc_pos"], before)


def test_missing_and_unexpected_parameters_are_named_three_of_each():
    parameters = to_published(small_network("stanhop"))
    with pytest.raises(ModelError) as caught:
        from_published(parameters, WORDS, "outeffhop")
    assert (
        "missing parameters: encoder.encode_blocks.0.encode_layers.0.cross_time.inner_attention.softmax.alpha, "
        in str(caught.value)
    )
    assert "unexpected parameters: " in str(caught.value)
    assert str(caught.value).count(" more") == 2
    assert caught.value.fix is not None


def test_a_parameter_too_few_or_too_many_is_refused():
    parameters = to_published(small_network())
    with pytest.raises(ModelError, match=r"unexpected parameters: alpha_chooser; check"):
        from_published({**parameters, "alpha_chooser": torch.zeros(1)}, WORDS, "stanhop")
    parameters.pop("enc_pos")
    with pytest.raises(ModelError, match=r"missing parameters: enc_pos; check"):
        from_published(parameters, WORDS, "stanhop")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            torch.zeros(1, 3, 6, 11, dtype=torch.float64),
            r"enc_pos has shape \(1, 3, 6, 11\) instead of \(1, 3, 5, 11\)",
        ),
        (torch.zeros(1, 3, 5, 11), r"enc_pos is of torch.float32, others are of torch.float64"),
        (torch.full((1, 3, 5, 11), math.nan, dtype=torch.float64), r"enc_pos holds values that are not finite"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(value, problem):
    parameters = to_published(small_network())
    given = {name: value if name == "enc_pos" else old for name, old in reversed(parameters.items())}
    with pytest.raises(ModelError, match=problem):
        from_published(given, WORDS, "stanhop")


def test_published_words_and_defaults_are_understood():
    config = read_published_config(
        {"data_dim": 7, "in_len": 96, "out_len": 24, "seg_len": 6, "device": "cpu"}, "outeffhop"
    )
    expected = {"merge_size": 4, "num_memories": 10, "model_dim": 512, "feedforward_dim": 1024, "num_heads": 8}
    expected |= {"num_levels": 3, "dropout": 0.0, "baseline": False, "mode": "entmax", "eta": 1.1, "gamma": -0.1}
    expected |= {"num_channels": 7, "context_length": 96, "prediction_length": 24, "patch_length": 6}
    assert config.model_dump() == expected | {"variant": "outeffhop"}


@pytest.mark.parametrize(
    ("variant", "changes", "problem"),
    [
        ("outeffhop", {"win_sise": 2}, r"unknown argument 'win_sise'; did you mean win_size\?; the constructor of"),
        ("stanhop", {"mode": "entmax"}, r"unknown argument 'mode'"),
        ("stanhop", {"batch": 2}, r"unknown argument 'batch'"),
        ("outeffhop", {"mode": "softmax2"}, r"mode: input should be 'entmax', .*, got 'softmax2'"),
        ("outeffhop", {"d_model": 0}, r"d_model: input should be greater than 0, got '0'"),
        ("outeffhop", {"e_layers": 2.0}, r"e_layers: input should be a valid integer, got '2.0'"),
        ("outeffhop", {"gamma": -math.inf}, r"gamma: input should be a finite number"),
        ("outeffhop", {"n_heads": 13}, r"num_heads \(13\) must not exceed model_dim \(11\)"),
        ("crossformer", {"mode": "softmax"}, r"variant: input should be 'stanhop' or 'outeffhop', got 'crossformer'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(variant, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        read_published_config({**WORDS, **changes}, variant)


def test_a_missing_argument_is_named_in_both_words():
    words = {word: value for word, value in WORDS.items() if word != "seg_len"}
    with pytest.raises(ConfigError, match=r"argument seg_len \(patch_length\) is missing"):
        read_published_config(words, "stanhop")


def test_variant_stanhop_knows_one_mode():
    with pytest.raises(ValueError, match=r"mode must be 'entmax' in variant 'stanhop'"):
        small_config("stanhop", "softmax1")
