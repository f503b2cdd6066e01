"""What the kernels share around the separation: reading patterns and scores of a tile, dropout, clipping, the gate.

Tensors are (batch, heads, length, features) with any stride but for features, which lie side by side. A *pair* is one
head of one batch entry.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ("num_heads", "num_chunks", "blocks_per_chunk", "num_blocks", "num_batches")
"""Arguments whose value a kernel is not compiled for: another batch, such as an epoch's last, takes what is there."""


@triton.jit
def row_of(pointer, strides, batch, head):
    """Where the rows of one pair begin; strides are those of (batch, heads, ...)."""
    return pointer + batch * strides[0] + head * strides[1]


@triton.jit
def _inside(is_row, columns, NUM_FEATURES: tl.constexpr):
    """Which cells of a tile of patterns exist; features that fill it need no test."""
    if columns.shape[0] == NUM_FEATURES:
        inside = is_row[:, None]
    else:
        inside = is_row[:, None] & (columns[None, :] < NUM_FEATURES)
    return inside


@triton.jit
def load_patterns(pair_pointer, row_stride, rows, columns, is_row, NUM_FEATURES: tl.constexpr, ON_DEVICE: tl.constexpr):
    """A tile of patterns (rows, columns), 0 outside; in the interpreter as float32, since its bfloat16 is broken."""
    pointers = pair_pointer + rows[:, None].to(tl.int64) * row_stride + columns[None, :]
    patterns = tl.load(pointers, mask=_inside(is_row, columns, NUM_FEATURES), other=0.0)
    if not ON_DEVICE:
        patterns = patterns.to(tl.float32)
    return patterns


@triton.jit
def store_patterns(pair_pointer, row_stride, rows, columns, is_row, patterns, NUM_FEATURES: tl.constexpr):
    """Write a tile of patterns."""
    pointers = pair_pointer + rows[:, None].to(tl.int64) * row_stride + columns[None, :]
    tl.store(pointers, patterns.to(pair_pointer.dtype.element_ty), mask=_inside(is_row, columns, NUM_FEATURES))


@triton.jit
def exists(places, length, WHOLE: tl.constexpr):
    """Which places of a tile lie within a length; in a ``WHOLE`` one all, so that the compiler leaves the tests out."""
    return tl.full(places.shape, True, tl.int1) if WHOLE else places < length


@triton.jit
def is_memory(mask, mask_strides, batch, columns, num_memories, MASKED: tl.constexpr, WHOLE: tl.constexpr = False):
    """Which columns of a tile are memories that may be retrieved."""
    inside = exists(columns, num_memories, WHOLE)
    if MASKED:
        pointers = mask + batch * mask_strides[0] + columns.to(tl.int64) * mask_strides[1]
        inside = tl.load(pointers, mask=inside, other=0) != 0
    return inside


@triton.jit
def tile_scores(query, memory, beta, is_column, PRECISION: tl.constexpr):
    """Scores, beta <query, memory>, as float32 (rows, columns), -inf where there is no memory."""
    scores = tl.dot(query, tl.trans(memory), input_precision=PRECISION) * beta
    return tl.where(is_column[None, :], scores, -float("inf"))


@triton.jit
def kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT: tl.constexpr):
    """Factor of each weight of a tile: 1 / (1 - rate) where it is kept, 0 where dropped; forward and backward agree.

    Each weight draws from Philox by its place among all weights, so that tiles of any size draw alike.
    """
    if DROPOUT:
        places = (pair * num_queries + rows[:, None]) * num_memories + columns[None, :]
        factor = tl.where(tl.rand(tl.load(seed), places) >= rate, 1.0 / (1.0 - rate), 0.0)
    else:
        factor = 1.0
    return factor


@triton.jit
def clipped(weights, gamma, eta, CLIP: tl.constexpr):
    """Weights stretched to [gamma, eta] and clipped to [0, 1]."""
    if CLIP:
        weights = tl.clamp((eta - gamma) * weights + gamma, 0.0, 1.0, propagate_nan=tl.PropagateNan.ALL)
    return weights


@triton.jit
def clip_slope(weights, gamma, eta, CLIP: tl.constexpr):
    """Derivative of ``clipped`` by the weights."""
    if CLIP:
        stretched = (eta - gamma) * weights + gamma
        slope = tl.where((stretched >= 0.0) & (stretched <= 1.0), eta - gamma, 0.0)
    else:
        slope = 1.0
    return slope


@triton.jit
def openness(gate, gate_strides, batch, head, rows, is_row, GATED: tl.constexpr):
    """Share of its read-out that each row's gate lets through: a sigmoid; 1 without gate."""
    if GATED:
        pointers = row_of(gate, gate_strides, batch, head) + rows.to(tl.int64) * gate_strides[2]
        share = tl.sigmoid(tl.load(pointers, mask=is_row, other=0.0).to(tl.float32))
    else:
        share = 1.0
    return share


@triton.jit
def gated(patterns, open_share, GATED: tl.constexpr):
    """Rows of ``patterns`` times their open share, as float32 if there is a gate."""
    if GATED:
        patterns = patterns.to(tl.float32) * open_share[:, None]
    return patterns


@triton.jit
def product(left, right, PRECISION: tl.constexpr):
    """The product ``left @ right`` in float32, the left operand rounded to the dtype of the right one."""
    return tl.dot(left.to(right.dtype), right, input_precision=PRECISION)
