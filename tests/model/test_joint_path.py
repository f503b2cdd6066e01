"""The memories of a joint path: what they retrieve is what the definition says, and nothing for what is like none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stanhop.config import ModelConfig
from stanhop.model.joint_path import (
    NUM_DIRECTIONS,
    NUM_HEADS,
    SPREAD,
    WEIGHT_OF_TIME,
    JointMemories,
    JointPath,
    joint_inputs,
    num_joint_inputs,
)

CHANNELS, STEPS, MEMORIES = 3, 4, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(**changes: object) -> ModelConfig:
    given = {"patch_length": STEPS, "context_length": 2 * STEPS, "joint_rank": 3, "joint_memories": MEMORIES}
    return ModelConfig.model_validate({**given, "time_features": ("day",), "dropout": 0.0, **changes})


def memories_of(config: ModelConfig) -> JointMemories:
    memories = JointMemories(config, CHANNELS).double().eval()
    memories.ask(drawn(NUM_DIRECTIONS, num_joint_inputs(CHANNELS, STEPS, config.num_time_features), seed=1) / 8)
    return memories


def plain_inputs(rows: int, config: ModelConfig) -> Tensor:
    return joint_inputs(drawn(rows, CHANNELS, STEPS), drawn(rows, config.num_time_features, seed=2))


@pytest.mark.parametrize("periods", [(), ("day",), ("day", "year")])
def test_each_head_retrieves_by_softmax_1_what_directions_and_time_are_like(periods: tuple[str, ...]) -> None:
    config = sizes(time_features=periods)
    memories, time = memories_of(config), drawn(7, config.num_time_features, seed=2)
    inputs = joint_inputs(drawn(7, CHANNELS, STEPS), time)
    found = memories(inputs).detach().unflatten(1, (NUM_HEADS, MEMORIES))
    for row in range(7):
        query = torch.cat([memories.query_proj.weight.detach() @ inputs[row], WEIGHT_OF_TIME * time[row]])
        for head in range(NUM_HEADS):
            of_head = memories.memory.detach()[head]
            scores = [math.exp(float(query @ memory) / math.sqrt(len(query))) for memory in of_head]
            shares = torch.tensor(scores, dtype=torch.float64) / (1 + sum(scores))
            torch.testing.assert_close(found[row, head], shares - 1 / (MEMORIES + 1))


def test_shares_are_told_against_their_mean_over_the_windows_that_are_usual() -> None:
    memories, inputs = memories_of(sizes()), plain_inputs(9, sizes())
    before = memories(inputs)
    memories.expect(inputs.split([4, 2, 3]))
    torch.testing.assert_close(memories(inputs), before - before.mean(dim=0))


def test_a_query_that_is_against_all_memories_retrieves_nothing() -> None:
    memories = memories_of(sizes())
    with torch.no_grad():
        memories.memory.abs_()
        memories.query_proj.bias.fill_(-1e4)
        memories.usual.zero_()
        assert not memories(plain_inputs(2, sizes())).any()


def test_memories_are_the_same_whatever_the_seed_of_a_training_and_take_nothing_from_it() -> None:
    torch.manual_seed(1)
    one = JointPath(sizes(), CHANNELS, rank=3)
    torch.manual_seed(2)
    other = JointPath(sizes(), CHANNELS, rank=3)
    assert one.memories is not None
    assert other.memories is not None
    assert torch.equal(one.memories.memory, other.memories.memory)
    assert not torch.equal(one.down.weight, other.down.weight)
    state = torch.get_rng_state()
    JointMemories(sizes(), CHANNELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(one.memories.memory.detach().std()) == pytest.approx(SPREAD, rel=0.1)
    heads = one.memories.memory.detach().flatten(1)
    assert len(heads.unique(dim=0)) == NUM_HEADS


def test_fewer_directions_than_there_is_room_for_leave_the_others_out() -> None:
    memories = JointMemories(sizes(), CHANNELS)
    directions = drawn(2, num_joint_inputs(CHANNELS, STEPS, 2)).float()
    memories.ask(directions)
    assert torch.equal(memories.query_proj.weight[:2], directions)
    assert not memories.query_proj.weight[2:].any()
    assert not memories.query_proj.bias.any()


def test_some_shares_are_dropped_in_training_and_none_in_use() -> None:
    config = sizes(dropout=0.25)
    memories, inputs = memories_of(config), plain_inputs(50, config)
    whole = memories(inputs)
    assert whole.all()
    torch.manual_seed(0)
    some = memories.train()(inputs)
    kept = some != 0
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(some[kept], whole[kept] / 0.75)


@pytest.mark.parametrize("periods", [(), ("day",)])
def test_what_is_retrieved_is_mapped_behind_the_rest(periods: tuple[str, ...]) -> None:
    config = sizes(time_features=periods)
    recent, time = drawn(6, CHANNELS, STEPS), drawn(6, config.num_time_features, seed=2)
    memories = memories_of(config)
    inputs = joint_inputs(recent, time, memories)
    assert inputs.shape[1] == num_joint_inputs(CHANNELS, STEPS, config.num_time_features, MEMORIES)
    plain = joint_inputs(recent, time)
    torch.testing.assert_close(inputs[:, : plain.shape[1]], plain)
    torch.testing.assert_close(inputs[:, plain.shape[1] :], memories(plain))


@pytest.mark.parametrize("unit", [False, True])
def test_the_path_asks_in_scaled_units(unit: bool) -> None:
    path = JointPath(sizes(), CHANNELS, rank=3).double().eval()
    path.begin_as(drawn(3, path.down.in_features, seed=5), drawn(path.up.out_features, 3, seed=6))
    series, time = drawn(6, CHANNELS, 2 * STEPS), drawn(6, 2)
    scale = drawn(6, CHANNELS, 1, seed=7).exp() if unit else torch.ones(6, CHANNELS, 1, dtype=torch.float64)
    inputs = joint_inputs((series * scale)[..., -STEPS:], time, path.memories)
    expected = (inputs @ path.down.weight.T @ path.up.weight.T).unflatten(1, (CHANNELS, -1)) / scale
    torch.testing.assert_close(path(series, time, scale if unit else None), expected)
