"""Which kernel serves a shape, with which tiles and how many warps: tables in plain Python, no tuning at run time.

Where ``benchmarks/tiles.py`` timed a tile on an H200 the tables have the fastest one: bfloat16 at 32 and 64 features,
float32 at 32. The other entries follow what that taught (as many queries as memories, few warps) as far as registers
go. Compiled ahead of time for what its table is for, no tile spills more than 80 bytes a thread:
``tests/kernels/test_ahead_of_time.py`` keeps that true.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

SMALLEST_BLOCK = 16
"""What a matrix unit takes at least."""
SMALLEST_FEATURES = 32
"""Features of a tile at least: narrower ones compile to code that spills (float32), and save nothing."""
LARGEST_HEAD_DIM = 128
"""Features a head may have."""
FEATURES_OF_A_WARP = 1024
"""Features of memories that a warp can hold gradients of without spilling."""
PROGRAMS_WANTED = 1024
"""Programs that keep a large GPU busy; below, queries of one pair are split into chunks."""

Resident = dict[tuple[int, int], dict[int, tuple[int, int]]]
"""By (bytes an item, features) and by block of memories: block of queries, warps. A block that is missing is looped."""
Looped = dict[tuple[int, int], tuple[int, int, int, int]]
"""By (bytes an item, features): block of queries, block of memories, warps, stages."""


@dataclass(frozen=True)
class Tables:
    """Tiles of every kernel.

    Args:
        resident_forward: Of the forward pass that holds all memories in one tile.
        resident_backward: Of its backward pass.
        looped_forward: Of the forward pass that loops over blocks of memories.
        looped_backward_queries: Of that part of its backward pass that goes by queries.
        looped_backward_memories: Of the part that goes by memories.
    """

    resident_forward: Resident
    resident_backward: Resident
    looped_forward: Looped
    looped_backward_queries: Looped
    looped_backward_memories: Looped


SOFTMAX = Tables(
    resident_forward={
        (2, 32): {16: (64, 4), 32: (32, 1), 64: (64, 4)},
        (2, 64): {16: (64, 4), 32: (32, 1), 64: (64, 4), 128: (64, 4)},
        (2, 128): {16: (64, 4), 32: (32, 2), 64: (64, 4)},
        (4, 32): {16: (64, 4), 32: (32, 2), 64: (64, 4)},
        (4, 64): {16: (32, 2), 32: (32, 2), 64: (64, 4)},
        (4, 128): {16: (16, 2), 32: (32, 4), 64: (32, 8)},
    },
    resident_backward={
        (2, 32): {16: (128, 8), 32: (32, 4), 64: (64, 4), 128: (128, 8)},
        (2, 64): {16: (128, 8), 32: (32, 2), 64: (64, 4), 128: (32, 4)},
        (2, 128): {16: (64, 4), 32: (32, 4), 64: (64, 8)},
        (4, 32): {16: (32, 4), 32: (32, 2), 64: (16, 4)},
        (4, 64): {16: (32, 4), 32: (32, 4), 64: (16, 8)},
        (4, 128): {16: (16, 8)},
    },
    looped_forward={
        (2, 32): (128, 32, 4, 2),
        (2, 64): (128, 64, 8, 3),
        (2, 128): (128, 64, 8, 2),
        (4, 32): (64, 32, 4, 2),
        (4, 64): (64, 32, 4, 2),
        (4, 128): (32, 32, 4, 2),
    },
    looped_backward_queries={
        (2, 32): (128, 64, 8, 2),
        (2, 64): (128, 64, 8, 2),
        (2, 128): (64, 32, 4, 2),
        (4, 32): (32, 32, 4, 2),
        (4, 64): (32, 32, 4, 2),
        (4, 128): (16, 32, 8, 2),
    },
    looped_backward_memories={
        (2, 32): (64, 64, 4, 2),
        (2, 64): (64, 64, 4, 2),
        (2, 128): (32, 64, 8, 2),
        (4, 32): (32, 32, 4, 2),
        (4, 64): (32, 32, 8, 2),
        (4, 128): (16, 32, 8, 2),
    },
)
"""Of bare softmax and Softmax_1, from compute capability 9.0 on."""
ENTMAX = Tables(
    resident_forward={
        (2, 32): {16: (64, 4), 32: (16, 1), 64: (64, 4)},
        (2, 64): {16: (64, 2), 32: (16, 1), 64: (64, 4), 128: (32, 4)},
        (2, 128): {16: (64, 4), 32: (16, 1), 64: (64, 4), 128: (32, 4)},
        (4, 32): {16: (64, 4), 32: (32, 2), 64: (64, 4), 128: (16, 4)},
        (4, 64): {16: (16, 1), 32: (32, 2), 64: (32, 4), 128: (32, 8)},
        (4, 128): {16: (16, 2), 32: (32, 4), 64: (32, 8)},
    },
    resident_backward={
        (2, 32): {16: (128, 8), 32: (32, 4), 64: (64, 4), 128: (16, 4)},
        (2, 64): {16: (128, 8), 32: (32, 4), 64: (64, 4), 128: (16, 4)},
        (2, 128): {16: (16, 2), 32: (16, 4), 64: (16, 8)},
        (4, 32): {16: (16, 2), 32: (32, 2), 64: (16, 4), 128: (16, 8)},
        (4, 64): {16: (16, 2), 32: (16, 4), 64: (16, 8)},
        (4, 128): {16: (16, 8)},
    },
    looped_forward={
        (2, 32): (64, 32, 4, 2),
        (2, 64): (64, 32, 4, 2),
        (2, 128): (64, 64, 4, 2),
        (4, 32): (64, 32, 4, 2),
        (4, 64): (64, 32, 4, 2),
        (4, 128): (16, 32, 4, 2),
    },
    looped_backward_queries={
        (2, 32): (64, 32, 4, 2),
        (2, 64): (64, 32, 4, 2),
        (2, 128): (64, 32, 4, 2),
        (4, 32): (16, 32, 4, 2),
        (4, 64): (16, 32, 4, 2),
        (4, 128): (16, 32, 8, 2),
    },
    looped_backward_memories={
        (2, 32): (32, 64, 4, 2),
        (2, 64): (64, 32, 4, 2),
        (2, 128): (32, 32, 8, 2),
        (4, 32): (16, 32, 8, 2),
        (4, 64): (32, 32, 8, 2),
        (4, 128): (16, 32, 8, 2),
    },
)
"""Of bare weights of any other kind, from 9.0 on."""
WITH_EXTRAS = dataclasses.replace(
    ENTMAX,
    resident_forward=ENTMAX.resident_forward
    | {
        (2, 32): {16: (64, 4), 32: (16, 1), 64: (64, 4), 128: (16, 4)},
        (2, 64): {16: (64, 4), 32: (16, 1), 64: (64, 4), 128: (16, 4)},
        (2, 128): {16: (16, 1), 32: (16, 1), 64: (64, 4), 128: (32, 4)},
        (4, 32): {16: (64, 4), 32: (32, 4), 64: (64, 4), 128: (16, 4)},
    },
    resident_backward=ENTMAX.resident_backward
    | {
        (2, 32): {16: (64, 4), 32: (32, 4), 64: (32, 8), 128: (16, 8)},
        (2, 64): {16: (64, 4), 32: (32, 4), 64: (32, 8), 128: (16, 8)},
        (4, 32): {16: (16, 2), 32: (16, 4), 64: (16, 4), 128: (16, 8)},
    },
    looped_backward_queries=ENTMAX.looped_backward_queries | {(4, 128): (16, 32, 4, 2)},
    looped_backward_memories=ENTMAX.looped_backward_memories | {(2, 64): (32, 32, 4, 2), (4, 32): (16, 16, 4, 2)},
)
"""Of any kind with mask, gate, clipping or dropout, from 9.0 on: none spills much with all of them at once."""
BEFORE_9 = dataclasses.replace(
    ENTMAX,
    resident_forward={
        (2, 32): {16: (16, 1), 32: (32, 2), 64: (64, 4), 128: (16, 4)},
        (2, 64): {16: (16, 1), 32: (32, 2), 64: (64, 4), 128: (32, 4), 256: (16, 4)},
        (2, 128): {16: (16, 1), 32: (32, 2), 64: (64, 4), 128: (32, 4)},
        (4, 32): {16: (16, 1), 32: (32, 4), 64: (64, 4), 128: (16, 4)},
        (4, 64): {16: (16, 1), 32: (32, 2)},
        (4, 128): {16: (16, 2), 32: (32, 4)},
    },
    resident_backward=ENTMAX.resident_backward
    | {
        (2, 32): {16: (16, 1), 32: (32, 2)},
        (2, 64): {16: (16, 1), 32: (32, 4)},
        (4, 32): {16: (16, 2), 32: (16, 8)},
        (4, 64): {16: (16, 2), 32: (16, 4)},
    },
    looped_forward=ENTMAX.looped_forward
    | {(2, 32): (64, 64, 4, 2), (2, 64): (64, 64, 4, 2), (2, 128): (32, 64, 4, 2), (4, 64): (32, 32, 4, 2)},
    looped_backward_memories=ENTMAX.looped_backward_memories
    | {(2, 32): (64, 32, 8, 2), (2, 64): (64, 32, 8, 2), (4, 128): (16, 16, 8, 2)},
)
"""Of every kind, from 8.0 to 8.9, whose programs have 99 KB of shared memory (8.6, 8.9): by the compiler alone, no such
GPU was timed."""


@dataclass(frozen=True)
class Plan:
    """Tiles of one launch.

    Args:
        is_resident: Whether one tile holds all memories, or blocks of them are looped over.
        query_block: Queries of a tile.
        memory_block: Memories of a tile.
        head_block: Features of query and memory, rounded up.
        values_block: Features of the values, rounded up.
        num_warps: Warps of a program.
        num_stages: Blocks of a loop that are in flight at once.
    """

    is_resident: bool
    query_block: int
    memory_block: int
    head_block: int
    values_block: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Shape:
    """What a plan depends on.

    Args:
        num_queries: Queries of a pair.
        num_memories: Memories of a pair.
        head_dim: Features of query and memory.
        values_dim: Features of the values.
        itemsize: Bytes of one of them.
        is_softmax: Whether weights are softmax's or Softmax_1's, without powers and without an alpha to learn.
        is_bare: Whether there is neither mask, gate, clipping nor dropout, which take registers.
        is_before_9: Whether the GPU's compute capability is below 9.0.
    """

    num_queries: int
    num_memories: int
    head_dim: int
    values_dim: int
    itemsize: int
    is_softmax: bool = False
    is_bare: bool = True
    is_before_9: bool = False

    @property
    def tables(self) -> Tables:
        """Those of the GPU, the kind of weights and what comes with them."""
        if self.is_before_9:
            return BEFORE_9
        if not self.is_bare:
            return WITH_EXTRAS
        return SOFTMAX if self.is_softmax else ENTMAX

    @property
    def width(self) -> tuple[int, int]:
        """Key of the tables."""
        return self.itemsize, max(features(self.head_dim), features(self.values_dim))


def forward_plan(shape: Shape) -> Plan:
    """Tiles of the forward pass."""
    return _resident(shape, shape.tables.resident_forward) or _looped(shape, shape.tables.looped_forward)


def backward_plan(shape: Shape) -> Plan:
    """Tiles of the backward pass; where it is looped, of the part that goes by queries."""
    return _resident(shape, shape.tables.resident_backward) or _looped(shape, shape.tables.looped_backward_queries)


def memories_plan(shape: Shape) -> Plan:
    """Tiles of that part of a looped backward pass that goes by memories."""
    return _looped(shape, shape.tables.looped_backward_memories)


def block(size: int) -> int:
    """The smallest power of 2 that holds ``size`` and that a matrix unit takes."""
    return max(SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def features(size: int) -> int:
    """The block of features that holds ``size``."""
    return max(SMALLEST_FEATURES, block(size))


def num_chunks(num_pairs: int, num_blocks: int) -> int:
    """Chunks into which the ``num_blocks`` query blocks of a pair are split to keep a GPU busy."""
    return max(1, min(num_blocks, PROGRAMS_WANTED // num_pairs))


def _resident(shape: Shape, table: Resident) -> Plan | None:
    memory_block = block(shape.num_memories)
    tiles = table[shape.width].get(memory_block)
    return None if tiles is None else plan_of(shape, True, tiles[0], memory_block, tiles[1])


def _looped(shape: Shape, table: Looped) -> Plan:
    return plan_of(shape, False, *table[shape.width])


def plan_of(
    shape: Shape, is_resident: bool, query_block: int, memory_block: int, num_warps: int, num_stages: int = 1
) -> Plan:
    """The plan of these tiles for ``shape``: where queries are fewer than the tile has, it shrinks, and has less warps.

    What a program keeps of its memories does not shrink, which leaves warps to share it.
    """
    fewer = min(query_block, block(shape.num_queries))
    fewest_warps = max(1, memory_block * shape.width[1] // FEATURES_OF_A_WARP)
    return Plan(
        is_resident=is_resident,
        query_block=fewer,
        memory_block=memory_block,
        head_block=features(shape.head_dim),
        values_block=features(shape.values_dim),
        num_warps=min(num_warps, max(fewest_warps, num_warps * fewer // query_block)),
        num_stages=num_stages,
    )
