"""Which kernel serves a shape, with which tiles and how many warps: a rule in plain Python, no tuning at run time.

The limits come from compiling every plan ahead of time for compute capability 9.0 and 8.0 and asking the assembler for
registers and spills (``tests/kernels/test_ahead_of_time.py`` keeps them).
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_BLOCK = 16
"""What a matrix unit takes at least."""
LARGEST_HEAD_DIM = 128
"""Features a head may have."""
PROGRAMS_WANTED = 1024
"""Programs that keep a large GPU busy; below, queries of one pair are split into chunks."""


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
    """

    is_resident: bool
    query_block: int
    memory_block: int
    head_block: int
    values_block: int
    num_warps: int


def block(size: int) -> int:
    """The smallest power of 2 that holds ``size`` and that a matrix unit takes."""
    return max(SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def forward_plan(num_queries: int, num_memories: int, head_dim: int, values_dim: int, *, itemsize: int) -> Plan:
    """Tiles of the forward pass; ``itemsize`` is that of the patterns in bytes."""
    head_block, values_block = block(head_dim), block(values_dim)
    width = max(head_block, values_block) * itemsize  # bytes a row
    memory_block = block(num_memories)
    is_resident = memory_block * width <= 64 * 1024 and memory_block <= 512
    if not is_resident:
        memory_block = 64 if width <= 256 else 32
    query_block = min(block(num_queries), 64, max(SMALLEST_BLOCK, 8192 // memory_block))
    return Plan(is_resident, query_block, memory_block, head_block, values_block, _warps(query_block * memory_block))


def backward_plan(num_queries: int, num_memories: int, head_dim: int, values_dim: int, *, itemsize: int) -> Plan:
    """Tiles of the backward pass, which holds the gradients of all its memories as well."""
    head_block, values_block = block(head_dim), block(values_dim)
    memory_block = block(num_memories)
    is_resident = memory_block * max(head_block, values_block) <= 128 * 64
    if not is_resident:
        memory_block = 32 if max(head_block, values_block) * itemsize > 256 else 64
    query_block = min(block(num_queries), 64, max(SMALLEST_BLOCK, 4096 // memory_block))
    return Plan(is_resident, query_block, memory_block, head_block, values_block, _warps(query_block * memory_block))


def num_chunks(num_pairs: int, num_blocks: int) -> int:
    """Chunks into which the ``num_blocks`` query blocks of a pair are split to keep a GPU busy."""
    return max(1, min(num_blocks, PROGRAMS_WANTED // num_pairs))


def _warps(tile_size: int) -> int:
    return 1 if tile_size <= 256 else 2 if tile_size <= 1024 else 4 if tile_size <= 4096 else 8
