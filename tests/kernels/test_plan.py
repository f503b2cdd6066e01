"""Which tiles serve a shape: every memory fits, or is looped over, and a GPU has enough to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.kernels.plan import (
    LARGEST_HEAD_DIM,
    PROGRAMS_WANTED,
    Shape,
    backward_plan,
    forward_plan,
    memories_plan,
    num_chunks,
)

shapes = st.builds(
    Shape,
    num_queries=st.integers(1, 5000),
    num_memories=st.integers(1, 5000),
    head_dim=st.integers(1, LARGEST_HEAD_DIM),
    values_dim=st.integers(1, LARGEST_HEAD_DIM),
    itemsize=st.sampled_from([2, 4]),
)


@given(shapes)
def test_every_shape_has_tiles_that_hold_its_features_and_resident_ones_all_its_memories(shape) -> None:
    for plan in (forward_plan(shape), backward_plan(shape), memories_plan(shape)):
        assert plan.head_block >= shape.head_dim
        assert plan.values_block >= shape.values_dim
        assert not plan.is_resident or plan.memory_block >= shape.num_memories
        for size in (plan.query_block, plan.memory_block, plan.head_block, plan.values_block, plan.num_warps):
            assert size & (size - 1) == 0, "Triton takes powers of 2"
        assert min(plan.query_block, plan.memory_block, plan.head_block, plan.values_block) >= 16


@pytest.mark.parametrize("itemsize", [2, 4])
def test_patches_and_channels_of_the_usual_networks_stay_resident(itemsize) -> None:
    shape = Shape(num_queries=14, num_memories=14, head_dim=64, values_dim=64, itemsize=itemsize)
    assert forward_plan(shape).is_resident
    assert backward_plan(shape).is_resident
    assert forward_plan(shape).query_block == 16, "no larger than the queries"


@given(num_pairs=st.integers(1, 10**6), num_blocks=st.integers(1, 10**4))
def test_chunks_are_no_more_than_blocks_nor_than_a_gpu_needs(num_pairs, num_blocks) -> None:
    chunks = num_chunks(num_pairs, num_blocks)
    assert 1 <= chunks <= num_blocks
    assert chunks == 1 or chunks * num_pairs <= PROGRAMS_WANTED
