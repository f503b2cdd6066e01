"""STanHop-Net as a whole: shapes, invariances, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stanhop.config import PUBLISHED_SEPARATIONS, ModelConfig
from stanhop.errors import ConfigError
from stanhop.hopfield.separation import SEPARATIONS
from stanhop.model.block import AcrossChannels, absorb_scales
from stanhop.model.network import DirectPath, STanHopNet, build_network
from stanhop.model.patching import CoarseGraining, PatchEmbedding, num_patches
from stanhop.model.published import PublishedSTanHopNet

BATCH, CHANNELS = 3, 5
CONFIG = ModelConfig(
    context_length=37,
    prediction_length=11,
    patch_length=6,
    model_dim=8,
    num_heads=2,
    feedforward_dim=13,
    num_levels=3,
    num_memories=7,
    channel_embedding=False,
    mean_reversion=False,
)


def changed(**values: object) -> ModelConfig:
    return ModelConfig.model_validate(CONFIG.model_dump() | values)


def network(config: ModelConfig = CONFIG, *, opened: bool = False) -> STanHopNet:
    """A network in evaluation mode; ``opened`` gives every parameter a random value."""
    torch.manual_seed(0)
    built = STanHopNet(config, CHANNELS).eval()
    if opened:
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def context(length: int = 37, *, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, length, CHANNELS, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("separation", SEPARATIONS)
@pytest.mark.parametrize("gate", [False, True])
def test_every_separation_forecasts_and_every_parameter_learns(separation: str, gate: bool) -> None:
    net = network(changed(separation=separation, gate=gate), opened=True)
    forecast = net(context())
    assert forecast.shape == (BATCH, 11, CHANNELS)
    forecast.square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
    assert all(p.grad.abs().sum() > 0 for name, p in net.named_parameters() if "memory_proj.bias" not in name)


@pytest.mark.parametrize(
    ("context_length", "prediction_length", "patch_length", "num_levels", "merge_size"),
    [(1, 1, 1, 1, 1), (6, 1, 6, 2, 2), (7, 13, 6, 4, 3), (5, 12, 3, 2, 5), (36, 6, 6, 3, 1)],
)
def test_any_sizes_forecast_the_whole_horizon(
    context_length: int, prediction_length: int, patch_length: int, num_levels: int, merge_size: int
) -> None:
    config = changed(
        context_length=context_length,
        prediction_length=prediction_length,
        patch_length=patch_length,
        num_levels=num_levels,
        merge_size=merge_size,
    )
    forecast = network(config, opened=True)(context(context_length))
    assert forecast.shape == (BATCH, prediction_length, CHANNELS)
    assert forecast.isfinite().all()


def test_relabelled_channels_give_the_relabelled_forecast() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    net = network(opened=True).double()
    x = context(dtype=torch.float64)
    torch.testing.assert_close(net(x[..., order]), net(x)[..., order])


def test_with_an_embedding_each_channel_is_known_by_its_place() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    net = network(changed(channel_embedding=True), opened=True).double()
    x = context(dtype=torch.float64)
    assert (net(x[..., order]) - net(x)[..., order]).abs().max() > 1e-3
    net.embedding.channel.data = net.embedding.channel.data[order]
    relabelled = net(x[..., order])
    net.embedding.channel.data = net.embedding.channel.data[order.argsort()]
    torch.testing.assert_close(relabelled, net(x)[..., order])
    assert network().embedding.channel is None


def test_channels_hear_each_other() -> None:
    x = context()
    disturbed = x.clone()
    disturbed[..., 0] = disturbed[..., 0].flip(1)
    others = slice(1, None)
    net = network(opened=True)
    assert (net(disturbed) - net(x))[..., others].abs().max() > 1e-3


def test_channels_do_not_hear_each_other_before_they_have_learned_to_unless_a_joint_path_is_for_them() -> None:
    x = context()
    disturbed = x.clone()
    disturbed[..., 0] = disturbed[..., 0].flip(1)
    for config, hears in ((changed(joint_rank=0), False), (changed(joint_rank=2), True)):
        net = network(config)
        assert torch.equal(net(disturbed)[..., 1:], net(x)[..., 1:]) != hears
        scales = [parameter for name, parameter in net.named_parameters() if name.endswith("scale")]
        assert len(scales) == (0 if hears else config.num_levels)


@pytest.mark.parametrize("gate", [False, True])
def test_maps_that_take_up_the_scales_leave_the_forecast_and_make_what_is_small_small_before_it(gate: bool) -> None:
    net = network(changed(gate=gate), opened=True).double()
    stages = [module for module in net.modules() if isinstance(module, AcrossChannels)]
    heard: list[Tensor] = []
    for stage in stages:
        stage.register_forward_hook(lambda _module, _inputs, retrieved: heard.append(retrieved))
    scales = [weight.clone() for name, weight in net.named_parameters() if name.endswith(".scale")]
    before = net(context(dtype=torch.float64))
    absorb_scales(net)
    torch.testing.assert_close(net(context(dtype=torch.float64)), before, rtol=1e-12, atol=1e-12)
    for scale, large, small in zip(scales, heard[: len(stages)], heard[len(stages) :], strict=True):
        torch.testing.assert_close(small, scale * large)
    assert all(weight == 1 for name, weight in net.named_parameters() if name.endswith(".scale"))


@pytest.mark.parametrize(("level", "spread"), [(0.0, 1e-9), (1e9, 1e3), (-3.0, 1e12)])
def test_instance_normalisation_carries_level_and_spread_to_the_forecast(level: float, spread: float) -> None:
    net = network(opened=True)
    x = context(dtype=torch.float64)
    moved = (net(x * spread + level) - level) / spread
    torch.testing.assert_close(moved, net(x), rtol=1e-4, atol=1e-4)


def test_without_instance_normalisation_the_level_matters() -> None:
    net = network(changed(instance_norm=False), opened=True)
    assert (net(context() + 1) - net(context()) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 1e30, 12.3])
def test_a_constant_context_is_forecast_to_stay_constant(value: float) -> None:
    x = context(dtype=torch.float64)
    x[..., 1] = value
    forecast = network(opened=True)(x)
    torch.testing.assert_close(forecast[..., 1], torch.full((BATCH, 11), value, dtype=torch.float64), rtol=1e-6, atol=0)
    assert forecast.isfinite().all()


def test_a_float64_context_keeps_its_dtype_and_nearly_the_float32_forecast() -> None:
    net = network(opened=True)
    assert net(context(dtype=torch.float64)).dtype == torch.float64
    torch.testing.assert_close(net(context(dtype=torch.float64)).float(), net(context()), rtol=1e-4, atol=1e-4)


def test_evaluation_is_repeatable_and_training_drops() -> None:
    net = network(opened=True)
    torch.testing.assert_close(net(context()), net(context()), rtol=0, atol=0)
    net.train()
    assert (net(context()) - net(context())).abs().max() > 1e-4


def test_a_window_forecasts_the_same_alone_and_in_a_batch() -> None:
    net = network(opened=True).double()
    x = context(dtype=torch.float64)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))


def test_the_direct_path_starts_as_the_mean_of_the_context() -> None:
    x = torch.arange(12.0).reshape(1, 1, 12)
    torch.testing.assert_close(DirectPath(12, 3)(x), torch.full((1, 1, 3), 5.5))


def test_padding_repeats_the_first_step() -> None:
    embedding = PatchEmbedding(5, 3, 8, dropout=0.0)
    series = torch.tensor([[[7.0, 1.0, 2.0, 3.0, 4.0]]])
    padded = torch.tensor([[[[7.0, 7.0, 1.0], [2.0, 3.0, 4.0]]]])
    torch.testing.assert_close(embedding(series), embedding.linear(padded) + embedding.position)


def test_coarse_graining_merges_neighbours_and_repeats_the_last_patch() -> None:
    torch.manual_seed(0)
    coarse = CoarseGraining(4, 3)
    patches = torch.randn(2, 3, 7, 4)
    merged = coarse(patches)
    assert merged.shape == (2, 3, 3, 4)
    expected = coarse.linear(coarse.norm(torch.cat([patches[:, :, 6], patches[:, :, 6], patches[:, :, 6]], dim=-1)))
    torch.testing.assert_close(merged[:, :, 2], expected)


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (6, 1), (7, 2), (12, 2)])
def test_patches_cover_the_length(length: int, expected: int) -> None:
    assert num_patches(length, 6) == expected


def test_build_network_builds_a_stanhop_net() -> None:
    net = build_network(CONFIG, CHANNELS)
    assert isinstance(net, nn.Module)
    assert isinstance(net, STanHopNet)


@pytest.mark.parametrize(
    ("network", "separation"),
    [(name, separation) for name, separations in PUBLISHED_SEPARATIONS.items() for separation in separations],
)
def test_the_published_networks_are_built_by_name(network: str, separation: str) -> None:
    torch.manual_seed(0)
    config = changed(network=network, separation=separation, instance_norm=False)
    net = build_network(config, CHANNELS).eval()
    assert isinstance(net, PublishedSTanHopNet)
    assert net.config.variant == network.removeprefix("published_")
    shared = (
        "context_length",
        "prediction_length",
        "patch_length",
        "merge_size",
        "num_levels",
        "num_memories",
        "dropout",
    )
    assert [getattr(net.config, key) for key in shared] == [getattr(config, key) for key in shared]
    forecast = net(context(dtype=torch.float64))
    assert (forecast.shape, forecast.dtype) == ((BATCH, 11, CHANNELS), torch.float64)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"network": "published_stanhop"}, "network published_stanhop has separation gsh, not outeffhop"),
        ({"network": "published_outeffhop", "separation": "sparse_outeffhop"}, "not sparse_outeffhop"),
        ({"network": "published_outeffhop"}, "has no instance_norm: set model.instance_norm to false"),
        ({"network": "published_outeffhop", "instance_norm": False, "gate": True}, "set model.gate to false"),
        (
            {"network": "published_outeffhop", "instance_norm": False, "channel_embedding": True},
            "set model.channel_embedding to false",
        ),
        ({"network": "published_outeffhop", "instance_norm": False, "joint_rank": 3}, "set model.joint_rank to 0"),
        ({"network": "published_outeffhop", "instance_norm": False, "num_updates": 2}, "set model.num_updates to 1"),
    ],
)
def test_what_a_published_network_has_not_is_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        changed(**values)


def test_levels_that_the_published_code_cannot_merge_are_refused() -> None:
    config = changed(network="published_outeffhop", instance_norm=False, merge_size=8)
    with pytest.raises(ConfigError, match=r"encoder level 2 merges 7 patches|encoder level 3 merges 1 patches"):
        build_network(config, CHANNELS)


def test_bounds_of_a_quantile_head_never_cross_and_belong_to_the_forecast() -> None:
    built = network(changed(head="quantile", levels=(50.0, 80.0, 95.0)), opened=True)
    context = 40 * torch.randn(BATCH, 37, CHANNELS, dtype=torch.float64) + 7
    forecast, lower, upper = built.with_bounds(context)
    assert torch.equal(forecast, built(context))
    assert lower.shape == upper.shape == (BATCH, 3, 11, CHANNELS)
    assert lower.dtype == torch.float64
    ladder = torch.cat([lower.flip(1), forecast[:, None], upper], dim=1)  # from the widest lower bound to the upper
    assert (ladder.diff(dim=1) > 0).all()


def test_bounds_move_with_the_scale_of_the_context() -> None:
    built = network(changed(head="quantile", levels=(80.0,)), opened=True)
    context = torch.randn(BATCH, 37, CHANNELS, dtype=torch.float64)
    for small, large in zip(built.with_bounds(context), built.with_bounds(1000 * context - 5), strict=True):
        torch.testing.assert_close(1000 * small - 5, large, rtol=1e-4, atol=1e-2)


def test_a_point_network_has_no_weights_for_bounds() -> None:
    names = set(network().state_dict())
    assert names == {name for name in network(changed(head="quantile")).state_dict() if not name.startswith("spreads")}


def test_a_quantile_head_needs_levels_and_our_network() -> None:
    with pytest.raises(ValueError, match=r"head quantile needs model\.levels"):
        changed(head="quantile", levels=())
    with pytest.raises(ValueError, match="network published_stanhop has no head"):
        changed(head="quantile", network="published_stanhop", separation="gsh", instance_norm=False)
    for levels in ((95.0, 80.0), (80.0, 80.0), (0.0,), (100.0,)):
        with pytest.raises(ValueError, match="must be between 0 and 100, ascending, each once"):
            changed(levels=levels)


@pytest.mark.parametrize("num_memories", [0, 5])
def test_the_joint_path_starts_as_nothing_and_leaves_the_rest_as_it_was_drawn(num_memories: int) -> None:
    plain, joint = network(), network(changed(joint_rank=4, joint_memories=num_memories))
    scales = [weight for name, weight in plain.named_parameters() if name.endswith(".scale")]
    for name, weight in joint.state_dict().items():
        assert name.startswith("joint.") or torch.equal(plain.state_dict()[name], weight), name
    with torch.no_grad():
        for scale in scales:
            scale.fill_(1)  # with a joint path, channels are heard from the start
    assert torch.equal(joint(context()), plain(context()))


@pytest.mark.parametrize("norm", [True, False])
def test_the_joint_path_maps_the_last_patch_of_all_channels_in_scaled_units(norm: bool) -> None:
    net = network(changed(joint_rank=4, instance_norm=norm), opened=True).double()
    series = context(dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1, 1.0, 0.0])
    whole = net(series)
    assert net.joint is not None
    down, up = net.joint.down, net.joint.up
    net.joint = None
    centred = series - series.mean(dim=1, keepdim=True) if norm else series
    recent = centred[:, -CONFIG.patch_length :].transpose(1, 2).flatten(1)
    reduced = recent @ down.weight.T + down.bias
    expected = (reduced @ up.weight.T + up.bias).unflatten(1, (CHANNELS, -1)).transpose(1, 2)
    if norm:
        expected[..., 4] = 0  # what never moved is forecast not to move
    torch.testing.assert_close(whole - net(series), expected)


@pytest.mark.parametrize("head", ["point", "quantile"])
@pytest.mark.parametrize("norm", [True, False])
def test_the_joint_path_is_told_the_time_of_the_last_step_and_what_it_makes_of_levels(norm: bool, head: str) -> None:
    told = changed(joint_rank=4, instance_norm=norm, time_features=("day", "year"), head=head)
    net = network(told, opened=True).double()
    series = context(dtype=torch.float64)
    features = torch.randn(*series.shape[:2], 4, dtype=torch.float64)
    whole = net(torch.cat([series, features], dim=2))
    if head == "quantile":
        torch.testing.assert_close(net.with_bounds(torch.cat([series, features], dim=2))[0], whole)
    assert net.joint is not None
    down, up = net.joint.down, net.joint.up
    net.joint = None
    centred = series - series.mean(dim=1, keepdim=True) if norm else series
    rows = []
    for window, time in zip(centred, features[:, -1], strict=True):
        patch = window[-CONFIG.patch_length :].T  # (channels, steps)
        levels = [*patch[:, -1], *patch.mean(dim=1)]
        rows.append(torch.stack([*patch.flatten(), *time, *(each * level for each in time for level in levels)]))
    reduced = torch.stack(rows) @ down.weight.T + down.bias
    expected = (reduced @ up.weight.T + up.bias).unflatten(1, (CHANNELS, -1)).transpose(1, 2)
    torch.testing.assert_close(whole - net(series), expected)


def test_what_a_joint_path_reads_is_refused_without_one_and_a_period_twice() -> None:
    with pytest.raises(ValueError, match="time_features are for the joint path: raise joint_rank above 0"):
        changed(time_features=("day",), joint_rank=0)
    with pytest.raises(ValueError, match="must name each period once"):
        changed(time_features=("day", "day"))
    published = {"network": "published_outeffhop", "instance_norm": False, "channel_embedding": False}
    with pytest.raises(ValueError, match=r"set model.time_features to \[\]"):
        changed(**published, time_features=("day",))
    with pytest.raises(ValueError, match="joint_memories are for the joint path: raise joint_rank above 0"):
        changed(joint_memories=3, joint_rank=0)
    with pytest.raises(ValueError, match=r"set model\.joint_memories to 0"):
        changed(**published, joint_memories=3)


def test_the_joint_path_has_no_more_rank_than_inputs() -> None:
    net = network(changed(joint_rank=1_000))
    assert net.joint is not None
    assert net.joint.down.out_features == CHANNELS * CONFIG.patch_length


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_the_level_returns_by_its_share_bounds_and_all(head: str) -> None:
    plain = network(changed(head=head), opened=True)
    reverting = network(changed(head=head, mean_reversion=True), opened=True)
    reverting.load_state_dict(plain.state_dict(), strict=False)
    assert reverting.reversion is not None
    x = 3 + context(dtype=torch.float64)
    x[..., 2] = 7.0  # what never moved is forecast not to move
    assert torch.equal(reverting(x), plain(x))  # by nothing, before it is estimated
    shares = torch.linspace(0, 1, 11)
    reverting.reversion.begin_as(shares, torch.tensor(3.1))
    levels = x.mean(dim=1, keepdim=True)
    assert levels[..., :2].min() < 3.1 < levels[..., :2].max()  # some are beyond those that were seen
    change = -shares.double()[:, None] * levels.clamp(max=torch.tensor(3.1).double())
    change[..., 2] = 0
    torch.testing.assert_close(reverting(x) - plain(x), change)
    if head == "quantile":
        for found, before in zip(reverting.with_bounds(x), plain.with_bounds(x), strict=True):
            moved = change if found.dim() == 3 else change.unsqueeze(1)
            torch.testing.assert_close(found - before, moved.expand_as(found))


def test_mean_reversion_adds_nothing_that_learns_and_is_for_instance_normalisation() -> None:
    plain, reverting = network(), network(changed(mean_reversion=True))
    assert dict(plain.named_parameters()).keys() == dict(reverting.named_parameters()).keys()
    assert reverting.state_dict().keys() - plain.state_dict().keys() == {"reversion.share", "reversion.farthest"}
    assert network(changed(mean_reversion=True, instance_norm=False)).reversion is None
