"""The memories of a joint path: what they retrieve is what the definition says, and nothing for what is like none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stanhop.config import ModelConfig
from stanhop.model.joint_path import (
    HEAD_DIM,
    NUM_HEADS,
    WEIGHT_OF_TIME,
    JointMemories,
    JointPath,
    joint_inputs,
    levels_of,
    moment_of,
    num_joint_inputs,
)

CHANNELS, STEPS, TIME_FEATURES, MEMORIES = 3, 4, 2, 5
SIZE = 2 * CHANNELS + TIME_FEATURES


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def memories() -> JointMemories:
    found = JointMemories(MEMORIES, CHANNELS, TIME_FEATURES).double()
    found.remember(drawn(MEMORIES, SIZE, seed=1))
    return found


def test_each_head_retrieves_by_softmax_1_of_minus_half_the_squared_distances(memories: JointMemories) -> None:
    moments = drawn(7, SIZE)
    found = memories(moments).unflatten(1, (NUM_HEADS, MEMORIES))
    for row, moment in enumerate(moments):
        for head in range(NUM_HEADS):
            directions = memories.directions[:, head * HEAD_DIM : (head + 1) * HEAD_DIM]
            gaps = [(moment - pattern) @ directions for pattern in memories.patterns]
            shares = [math.exp(-float(gap @ gap) / 2) for gap in gaps]
            expected = torch.tensor(shares, dtype=torch.float64) / (1 + sum(shares)) * math.sqrt(MEMORIES)
            torch.testing.assert_close(found[row, head], expected)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_moment_that_is_like_none_retrieves_nothing(memories: JointMemories, size: float) -> None:
    assert not memories.float()(torch.full((1, SIZE), size)).any()


def test_heads_look_in_the_same_directions_whatever_the_seed_of_a_training() -> None:
    torch.manual_seed(1)
    one = JointMemories(MEMORIES, CHANNELS, TIME_FEATURES)
    after = torch.rand(1)
    torch.manual_seed(2)
    other = JointMemories(MEMORIES, CHANNELS, TIME_FEATURES)
    torch.manual_seed(1)
    assert torch.equal(one.directions, other.directions)
    assert torch.equal(after, torch.rand(1))


def test_a_moment_is_the_last_values_the_means_of_the_patch_and_the_time() -> None:
    recent, time = drawn(6, CHANNELS, STEPS), drawn(6, TIME_FEATURES, seed=2)
    for row, moment in enumerate(moment_of(recent, time)):
        levels = [*recent[row, :, -1], *(sum(channel) / STEPS for channel in recent[row])]
        torch.testing.assert_close(moment, torch.stack([*levels, *(WEIGHT_OF_TIME * time[row])]))
    torch.testing.assert_close(levels_of(recent), moment_of(recent, time[:, :0]))


@pytest.mark.parametrize("num_time_features", [0, TIME_FEATURES])
def test_what_is_retrieved_is_mapped_behind_the_rest(num_time_features: int) -> None:
    recent, time = drawn(6, CHANNELS, STEPS), drawn(6, num_time_features, seed=2)
    memories = JointMemories(MEMORIES, CHANNELS, num_time_features).double()
    memories.remember(drawn(MEMORIES, 2 * CHANNELS + num_time_features, seed=3))
    inputs = joint_inputs(recent, time, memories)
    assert inputs.shape[1] == num_joint_inputs(CHANNELS, STEPS, num_time_features, MEMORIES)
    plain = num_joint_inputs(CHANNELS, STEPS, num_time_features, 0)
    torch.testing.assert_close(inputs[:, :plain], joint_inputs(recent, time))
    torch.testing.assert_close(inputs[:, plain:], memories(moment_of(recent, time)))


@pytest.mark.parametrize("unit", [False, True])
def test_the_path_compares_moments_in_scaled_units(unit: bool) -> None:
    config = ModelConfig(patch_length=STEPS, context_length=2 * STEPS, joint_rank=3, joint_memories=MEMORIES)
    path = JointPath(config, CHANNELS, rank=3).double()
    assert path.memories is not None
    path.memories.remember(drawn(MEMORIES, 2 * CHANNELS, seed=4))
    path.begin_as(drawn(3, path.down.in_features, seed=5), drawn(path.up.out_features, 3, seed=6))
    series, time = drawn(6, CHANNELS, 2 * STEPS), drawn(6, 0)
    scale = drawn(6, CHANNELS, 1, seed=7).exp() if unit else torch.ones(6, CHANNELS, 1, dtype=torch.float64)
    inputs = joint_inputs((series * scale)[..., -STEPS:], time, path.memories)
    expected = (inputs @ path.down.weight.T @ path.up.weight.T).unflatten(1, (CHANNELS, -1)) / scale
    torch.testing.assert_close(path(series, time, scale if unit else None), expected)
