"""Retrieval where memories do not fit into one tile: a loop over blocks of them, scores computed anew in each pass.

The equations are those of ``resident.py``. At alpha = 1 without clipping one pass suffices: maximum, sum and read-out
are carried along and rescaled (online softmax, Milakov & Gimelshein 2018, arXiv:1805.02867), the no-op memory being
where they start from, a maximum of 0 and a sum of 1. Else there is a pass for the largest score, one for each Newton
step, an exact one, and one that reads out. Pivot and threshold of each query are kept: their sum alone would lose the
digits of the threshold where scores are large.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stanhop.kernels.separation import (
    MAX_STEPS,
    alpha_slope,
    differences,
    first_threshold,
    has_converged,
    needs_another_sum,
    newton_step,
    sharpness,
    sums,
    weights_and_slopes,
    weights_slopes_and_logs,
    with_no_op,
)
from stanhop.kernels.tiles import (
    SIZES,
    clip_slope,
    clipped,
    exists,
    gated,
    is_memory,
    kept,
    load_patterns,
    openness,
    product,
    row_of,
    store_patterns,
    tile_scores,
)


@triton.jit
def _block_scores(
    q, pair_memory, row_stride, first, features, mask, mask_strides, batch, num_memories, beta,
    MASKED: tl.constexpr, HEAD_DIM: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Scores of ``q`` against the block of memories that begins at ``first``."""
    columns = first + tl.arange(0, MEMORY_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
    k = load_patterns(pair_memory, row_stride, columns, features, is_column, HEAD_DIM, ON_DEVICE)
    return tile_scores(q, k, beta, is_column, PRECISION)


@triton.jit
def _num_available(mask, mask_strides, batch, num_memories, MASKED: tl.constexpr, MEMORY_BLOCK: tl.constexpr):
    """Memories that may be retrieved, at least 1."""
    count = num_memories
    if MASKED:
        counts = tl.zeros([MEMORY_BLOCK], tl.int32)
        for first in range(0, num_memories, MEMORY_BLOCK):
            columns = first + tl.arange(0, MEMORY_BLOCK)
            counts += is_memory(mask, mask_strides, batch, columns, num_memories, MASKED).to(tl.int32)
        count = tl.maximum(tl.sum(counts, axis=0), 1)
    return count


@triton.jit
def _pivots(
    q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, NO_OP: tl.constexpr,
    MASKED: tl.constexpr, HEAD_DIM: tl.constexpr, QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Largest score of each row, the no-op's 0 among them; 0 for a row without memories."""
    largest = tl.full([QUERY_BLOCK], 0.0 if NO_OP else -float("inf"), tl.float32)
    for first in range(0, num_memories, MEMORY_BLOCK):
        scores = _block_scores(
            q, pair_memory, row_stride, first, features, mask, mask_strides, batch, num_memories, beta,
            MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
        )  # fmt: skip
        largest = tl.maximum(largest, tl.max(scores, axis=1))
    return tl.where(largest == -float("inf"), 0.0, largest)


@triton.jit
def _sums(
    q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, m, t, a,
    KIND: tl.constexpr, NO_OP: tl.constexpr, ACCURACY: tl.constexpr,
    MASKED: tl.constexpr, HEAD_DIM: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Sums of each row's weights and slopes at threshold ``t``, over all memories and the no-op."""
    total, slope = tl.zeros_like(t), tl.zeros_like(t)
    for first in range(0, num_memories, MEMORY_BLOCK):
        scores = _block_scores(
            q, pair_memory, row_stride, first, features, mask, mask_strides, batch, num_memories, beta,
            MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
        )  # fmt: skip
        block_total, block_slope = sums(differences(scores, m, KIND), t, a, KIND, ACCURACY, ON_DEVICE)
        total, slope = total + block_total, slope + block_slope
    return with_no_op(total, slope, m, t, a, KIND, NO_OP, ACCURACY, ON_DEVICE)


@triton.jit
def _threshold(
    q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, m, a,
    KIND: tl.constexpr, NO_OP: tl.constexpr, MASKED: tl.constexpr, HEAD_DIM: tl.constexpr,
    MEMORY_BLOCK: tl.constexpr, PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """The threshold of each row, so exact that weights need not be normalised."""
    t = first_threshold(m, num_memories, a, KIND, NO_OP)
    total, slope = _sums(
        q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, m, t, a,
        KIND, NO_OP, "rough", MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
    )  # fmt: skip
    if KIND == "softmax":
        t = tl.log(tl.where(total == 0.0, 1.0, total))
    else:
        step = 0
        done = has_converged(total, a, ACCURACY)
        while (step < MAX_STEPS) & (done == 0):
            t = newton_step(t, total, slope, a)
            total, slope = _sums(
                q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, m, t, a,
                KIND, NO_OP, "rough", MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
            )  # fmt: skip
            done = has_converged(total, a, ACCURACY)
            step += 1
        if needs_another_sum(a, ACCURACY):
            total, slope = _sums(
                q, pair_memory, row_stride, features, mask, mask_strides, batch, num_memories, beta, m, t, a,
                KIND, NO_OP, ACCURACY, MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
            )  # fmt: skip
        t = newton_step(t, total, slope, a)
    return t


@triton.jit
def _num_in_whole_blocks(length, BLOCK: tl.constexpr, PAYS: tl.constexpr):
    """How many of ``length`` fill blocks, where nothing need be tested; 0 where a loop of its own for them spills."""
    return length // BLOCK * BLOCK if PAYS else 0


@triton.jit
def _softmax_step(
    largest, total, out, q, pair_memory, memory_stride, pair_values, values_stride, first,
    head_features, values_features, mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries,
    beta, rate, WHOLE: tl.constexpr, MASKED: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Maximum, sum and read-out of each row with one more block of memories, which begins at ``first``."""
    columns = first + tl.arange(0, MEMORY_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED, WHOLE)
    k = load_patterns(pair_memory, memory_stride, columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
    v = load_patterns(pair_values, values_stride, columns, values_features, is_column, VALUES_DIM, ON_DEVICE)
    scores = tile_scores(q, k, beta, is_column, PRECISION)
    larger = tl.maximum(largest, tl.max(scores, axis=1))
    pivot = tl.where(larger == -float("inf"), 0.0, larger)
    rescale = tl.exp(largest - pivot)
    weights = tl.exp(scores - pivot[:, None])
    total = total * rescale + tl.sum(weights, axis=1)
    weights *= kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
    return larger, total, out * rescale[:, None] + product(weights, v, PRECISION)


@triton.jit(do_not_specialize=SIZES)
def looped_forward(
    query, query_strides, memory, memory_strides, values, values_strides,
    alpha, mask, mask_strides, gate, gate_strides, seed,
    retrieved, retrieved_strides, pivots, thresholds,
    num_heads, num_queries, num_memories, num_blocks, beta, zeta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    MASKED: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, HEAD_BLOCK: tl.constexpr, VALUES_BLOCK: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Read out for one block of the queries of one pair."""
    pair, block = (tl.program_id(0) // num_blocks).to(tl.int64), tl.program_id(0) % num_blocks
    batch, head = pair // num_heads, pair % num_heads
    head_features, values_features = tl.arange(0, HEAD_BLOCK), tl.arange(0, VALUES_BLOCK)
    pair_memory, pair_values = row_of(memory, memory_strides, batch, head), row_of(values, values_strides, batch, head)
    pair_query, pair_out = row_of(query, query_strides, batch, head), row_of(retrieved, retrieved_strides, batch, head)
    rows = block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    is_row = rows < num_queries
    q = load_patterns(pair_query, query_strides[2], rows, head_features, is_row, HEAD_DIM, ON_DEVICE)
    out = tl.zeros([QUERY_BLOCK, VALUES_BLOCK], tl.float32)
    if KIND == "softmax" and not CLIP:
        largest = tl.full([QUERY_BLOCK], 0.0 if NO_OP else -float("inf"), tl.float32)
        total = tl.full([QUERY_BLOCK], 1.0 if NO_OP else 0.0, tl.float32)
        num_whole = _num_in_whole_blocks(num_memories, MEMORY_BLOCK, not MASKED and not DROPOUT)
        for first in range(0, num_whole, MEMORY_BLOCK):
            largest, total, out = _softmax_step(
                largest, total, out, q, pair_memory, memory_strides[2], pair_values, values_strides[2], first,
                head_features, values_features, mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries,
                beta, rate, True, MASKED, DROPOUT, HEAD_DIM, VALUES_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
            )  # fmt: skip
        for first in range(num_whole, num_memories, MEMORY_BLOCK):
            largest, total, out = _softmax_step(
                largest, total, out, q, pair_memory, memory_strides[2], pair_values, values_strides[2], first,
                head_features, values_features, mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries,
                beta, rate, False, MASKED, DROPOUT, HEAD_DIM, VALUES_DIM, MEMORY_BLOCK, PRECISION, ON_DEVICE,
            )  # fmt: skip
        total = tl.where(total == 0.0, 1.0, total)
        m, t = tl.where(largest == -float("inf"), 0.0, largest), tl.log(total)
        out = out / total[:, None]
    else:
        gamma = -zeta / _num_available(mask, mask_strides, batch, num_memories, MASKED, MEMORY_BLOCK)
        a = sharpness(alpha, head, KIND)
        m = _pivots(
            q, pair_memory, memory_strides[2], head_features, mask, mask_strides, batch, num_memories, beta, NO_OP,
            MASKED, HEAD_DIM, QUERY_BLOCK, MEMORY_BLOCK, PRECISION, ON_DEVICE,
        )  # fmt: skip
        t = _threshold(
            q, pair_memory, memory_strides[2], head_features, mask, mask_strides, batch, num_memories, beta, m, a,
            KIND, NO_OP, MASKED, HEAD_DIM, MEMORY_BLOCK, PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
        for first in range(0, num_memories, MEMORY_BLOCK):
            columns = first + tl.arange(0, MEMORY_BLOCK)
            is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
            k = load_patterns(pair_memory, memory_strides[2], columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
            v = load_patterns(
                pair_values, values_strides[2], columns, values_features, is_column, VALUES_DIM, ON_DEVICE
            )
            d = differences(tile_scores(q, k, beta, is_column, PRECISION), m, KIND)
            weights, _ = weights_and_slopes(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
            weights = clipped(weights, gamma, eta, CLIP)
            weights *= kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
            out += product(weights, v, PRECISION)
    out = gated(out, openness(gate, gate_strides, batch, head, rows, is_row, GATED), GATED)
    store_patterns(pair_out, retrieved_strides[2], rows, values_features, is_row, out, VALUES_DIM)
    tl.store(pivots + pair * num_queries + rows, m, mask=is_row)
    tl.store(thresholds + pair * num_queries + rows, t, mask=is_row)


@triton.jit
def _query_gradient_step(
    q_grad, a_grad, q, out_grad, m, t, delta, a, gamma,
    pair_memory, memory_stride, pair_values, values_stride, first, head_features, values_features,
    mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries, beta, eta, rate,
    WHOLE: tl.constexpr, KIND: tl.constexpr, CLIP: tl.constexpr, MASKED: tl.constexpr, DROPOUT: tl.constexpr,
    LEARNS_ALPHA: tl.constexpr, HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Gradients by query and alpha with the share of one more block of memories, which begins at ``first``."""
    columns = first + tl.arange(0, MEMORY_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED, WHOLE)
    k = load_patterns(pair_memory, memory_stride, columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
    v = load_patterns(pair_values, values_stride, columns, values_features, is_column, VALUES_DIM, ON_DEVICE)
    d = differences(tile_scores(q, k, beta, is_column, PRECISION), m, KIND)
    p, g, logs = weights_slopes_and_logs(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
    factor = kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
    u_grad = tl.dot(out_grad, tl.trans(v), input_precision=PRECISION) * factor
    deviation = u_grad * clip_slope(p, gamma, eta, CLIP) - delta[:, None]
    if LEARNS_ALPHA:
        a_grad -= tl.sum(alpha_slope(p, g, logs) * deviation, axis=1)
    return q_grad + product(g * deviation * beta, k, PRECISION), a_grad


@triton.jit(do_not_specialize=SIZES)
def looped_backward_queries(
    query, query_strides, memory, memory_strides, values, values_strides,
    alpha, mask, mask_strides, gate, gate_strides, seed,
    retrieved, retrieved_strides, retrieved_grad, retrieved_grad_strides, pivots, thresholds,
    query_grad, query_grad_strides, gate_grad, alpha_grad, deltas,
    num_heads, num_queries, num_memories, num_blocks, num_batches, beta, zeta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    MASKED: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr, LEARNS_ALPHA: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, HEAD_BLOCK: tl.constexpr, VALUES_BLOCK: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Gradients by query, gate and alpha for one block of the queries of one pair, and each row's delta.

    At alpha = 1 without clipping, delta = sum(retrieved * dretrieved), whatever dropout and gate did; else a pass of
    its own sums it.
    """
    pair, block = (tl.program_id(0) // num_blocks).to(tl.int64), tl.program_id(0) % num_blocks
    batch, head = pair // num_heads, pair % num_heads
    head_features, values_features = tl.arange(0, HEAD_BLOCK), tl.arange(0, VALUES_BLOCK)
    pair_memory, pair_values = row_of(memory, memory_strides, batch, head), row_of(values, values_strides, batch, head)
    pair_query, pair_out = row_of(query, query_strides, batch, head), row_of(retrieved, retrieved_strides, batch, head)
    pair_out_grad = row_of(retrieved_grad, retrieved_grad_strides, batch, head)
    rows = block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    is_row = rows < num_queries
    q = load_patterns(pair_query, query_strides[2], rows, head_features, is_row, HEAD_DIM, ON_DEVICE)
    out_grad = load_patterns(
        pair_out_grad, retrieved_grad_strides[2], rows, values_features, is_row, VALUES_DIM, ON_DEVICE
    )
    open_share = openness(gate, gate_strides, batch, head, rows, is_row, GATED)
    m = tl.load(pivots + pair * num_queries + rows, mask=is_row, other=0.0)
    t = tl.load(thresholds + pair * num_queries + rows, mask=is_row, other=0.0)
    gamma = -zeta / _num_available(mask, mask_strides, batch, num_memories, MASKED, MEMORY_BLOCK)
    a = sharpness(alpha, head, KIND)
    if KIND == "softmax" and not CLIP:
        out = load_patterns(pair_out, retrieved_strides[2], rows, values_features, is_row, VALUES_DIM, ON_DEVICE)
        delta = tl.sum(out.to(tl.float32) * out_grad.to(tl.float32), axis=1)
        gate_sum = delta
        out_grad = gated(out_grad, open_share, GATED).to(out_grad.dtype)
    else:
        out_grad = gated(out_grad, open_share, GATED).to(out_grad.dtype)
        slope_sum, product_sum, gate_sum = tl.zeros_like(t), tl.zeros_like(t), tl.zeros_like(t)
        if NO_OP:
            _, slope_sum = weights_and_slopes(-m, t, a, KIND, ACCURACY, ON_DEVICE)
        for first in range(0, num_memories, MEMORY_BLOCK):
            columns = first + tl.arange(0, MEMORY_BLOCK)
            is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
            k = load_patterns(pair_memory, memory_strides[2], columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
            v = load_patterns(
                pair_values, values_strides[2], columns, values_features, is_column, VALUES_DIM, ON_DEVICE
            )
            d = differences(tile_scores(q, k, beta, is_column, PRECISION), m, KIND)
            p, g = weights_and_slopes(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
            factor = kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
            u_grad = tl.dot(out_grad, tl.trans(v), input_precision=PRECISION) * factor
            slope_sum += tl.sum(g, axis=1)
            product_sum += tl.sum(g * u_grad * clip_slope(p, gamma, eta, CLIP), axis=1)
            gate_sum += tl.sum(clipped(p, gamma, eta, CLIP) * u_grad, axis=1)
        delta = product_sum / tl.where(slope_sum == 0.0, 1.0, slope_sum)
    tl.store(deltas + pair * num_queries + rows, delta, mask=is_row)
    if GATED:
        tl.store(gate_grad + pair * num_queries + rows, gate_sum * (1.0 - open_share), mask=is_row)
    q_grad = tl.zeros([QUERY_BLOCK, HEAD_BLOCK], tl.float32)
    a_grad = tl.zeros([QUERY_BLOCK], tl.float32)
    if LEARNS_ALPHA and NO_OP:
        no_op_p, no_op_g, no_op_logs = weights_slopes_and_logs(-m, t, a, KIND, ACCURACY, ON_DEVICE)
        a_grad += alpha_slope(no_op_p, no_op_g, no_op_logs) * delta
    num_whole = _num_in_whole_blocks(num_memories, MEMORY_BLOCK, KIND == "softmax" and not MASKED and not DROPOUT)
    for first in range(0, num_whole, MEMORY_BLOCK):
        q_grad, a_grad = _query_gradient_step(
            q_grad, a_grad, q, out_grad, m, t, delta, a, gamma,
            pair_memory, memory_strides[2], pair_values, values_strides[2], first, head_features, values_features,
            mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries, beta, eta, rate,
            True, KIND, CLIP, MASKED, DROPOUT, LEARNS_ALPHA, HEAD_DIM, VALUES_DIM, MEMORY_BLOCK,
            PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
    for first in range(num_whole, num_memories, MEMORY_BLOCK):
        q_grad, a_grad = _query_gradient_step(
            q_grad, a_grad, q, out_grad, m, t, delta, a, gamma,
            pair_memory, memory_strides[2], pair_values, values_strides[2], first, head_features, values_features,
            mask, mask_strides, batch, num_memories, seed, pair, rows, num_queries, beta, eta, rate,
            False, KIND, CLIP, MASKED, DROPOUT, LEARNS_ALPHA, HEAD_DIM, VALUES_DIM, MEMORY_BLOCK,
            PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
    pair_query_grad = row_of(query_grad, query_grad_strides, batch, head)
    store_patterns(pair_query_grad, query_grad_strides[2], rows, head_features, is_row, q_grad, HEAD_DIM)
    if LEARNS_ALPHA:
        place = (head * num_blocks + block) * num_batches + batch
        tl.store(alpha_grad + place, tl.sum(a_grad, axis=0) / (a * a))


@triton.jit
def _memory_gradient_step(
    k_grad, v_grad, k, v, a, gamma, may_retrieve, columns, first, head_features, values_features,
    pair_query, query_stride, pair_out_grad, out_grad_stride, gate, gate_strides,
    pivots, thresholds, deltas, batch, head, seed, pair, num_queries, num_memories, beta, eta, rate,
    WHOLE: tl.constexpr, KIND: tl.constexpr, CLIP: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, QUERY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Gradients by a block of memories and values with the share of the block of queries that begins at ``first``."""
    rows = first + tl.arange(0, QUERY_BLOCK)
    is_row = exists(rows, num_queries, WHOLE)
    q = load_patterns(pair_query, query_stride, rows, head_features, is_row, HEAD_DIM, ON_DEVICE)
    out_grad = load_patterns(pair_out_grad, out_grad_stride, rows, values_features, is_row, VALUES_DIM, ON_DEVICE)
    open_share = openness(gate, gate_strides, batch, head, rows, is_row, GATED)
    out_grad = gated(out_grad, open_share, GATED).to(v.dtype)
    m = tl.load(pivots + pair * num_queries + rows, mask=is_row, other=0.0)
    t = tl.load(thresholds + pair * num_queries + rows, mask=is_row, other=0.0)
    delta = tl.load(deltas + pair * num_queries + rows, mask=is_row, other=0.0)
    d = differences(tile_scores(q, k, beta, may_retrieve, PRECISION), m, KIND)
    p, g = weights_and_slopes(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
    factor = kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
    u = clipped(p, gamma, eta, CLIP) * factor
    u_grad = tl.dot(out_grad, tl.trans(v), input_precision=PRECISION) * factor
    s_grad = g * (u_grad * clip_slope(p, gamma, eta, CLIP) - delta[:, None]) * beta
    k_grad += product(tl.trans(s_grad), q, PRECISION)
    v_grad += product(tl.trans(u), out_grad, PRECISION)
    return k_grad, v_grad


@triton.jit(do_not_specialize=SIZES)
def looped_backward_memories(
    query, query_strides, memory, memory_strides, values, values_strides,
    alpha, mask, mask_strides, gate, gate_strides, seed,
    retrieved_grad, retrieved_grad_strides, pivots, thresholds, deltas,
    memory_grad, memory_grad_strides, values_grad, values_grad_strides,
    num_heads, num_queries, num_memories, num_blocks, num_chunks, blocks_per_chunk, beta, zeta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    MASKED: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, HEAD_BLOCK: tl.constexpr, VALUES_BLOCK: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Gradients by one block of the memories of one pair and its values: the share of one chunk of the queries."""
    pair = (tl.program_id(0) // (num_blocks * num_chunks)).to(tl.int64)
    block, chunk = tl.program_id(0) // num_chunks % num_blocks, tl.program_id(0) % num_chunks
    batch, head = pair // num_heads, pair % num_heads
    head_features, values_features = tl.arange(0, HEAD_BLOCK), tl.arange(0, VALUES_BLOCK)
    columns = block * MEMORY_BLOCK + tl.arange(0, MEMORY_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
    # Columns beyond the last memory get gradients, too, which are not written: no test of them in the loop.
    may_retrieve = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED, not MASKED)
    pair_memory, pair_values = row_of(memory, memory_strides, batch, head), row_of(values, values_strides, batch, head)
    k = load_patterns(pair_memory, memory_strides[2], columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
    v = load_patterns(pair_values, values_strides[2], columns, values_features, is_column, VALUES_DIM, ON_DEVICE)
    gamma = -zeta / _num_available(mask, mask_strides, batch, num_memories, MASKED, MEMORY_BLOCK)
    a = sharpness(alpha, head, KIND)
    pair_query = row_of(query, query_strides, batch, head)
    pair_out_grad = row_of(retrieved_grad, retrieved_grad_strides, batch, head)
    k_grad = tl.zeros([MEMORY_BLOCK, HEAD_BLOCK], tl.float32)
    v_grad = tl.zeros([MEMORY_BLOCK, VALUES_BLOCK], tl.float32)
    first_row = chunk * blocks_per_chunk * QUERY_BLOCK
    end = tl.minimum(first_row + blocks_per_chunk * QUERY_BLOCK, num_queries)
    num_whole = _num_in_whole_blocks(end - first_row, QUERY_BLOCK, KIND == "softmax" and not MASKED and not DROPOUT)
    for first in range(first_row, first_row + num_whole, QUERY_BLOCK):
        k_grad, v_grad = _memory_gradient_step(
            k_grad, v_grad, k, v, a, gamma, may_retrieve, columns, first, head_features, values_features,
            pair_query, query_strides[2], pair_out_grad, retrieved_grad_strides[2], gate, gate_strides,
            pivots, thresholds, deltas, batch, head, seed, pair, num_queries, num_memories, beta, eta, rate,
            True, KIND, CLIP, GATED, DROPOUT, HEAD_DIM, VALUES_DIM, QUERY_BLOCK, PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
    for first in range(first_row + num_whole, end, QUERY_BLOCK):
        k_grad, v_grad = _memory_gradient_step(
            k_grad, v_grad, k, v, a, gamma, may_retrieve, columns, first, head_features, values_features,
            pair_query, query_strides[2], pair_out_grad, retrieved_grad_strides[2], gate, gate_strides,
            pivots, thresholds, deltas, batch, head, seed, pair, num_queries, num_memories, beta, eta, rate,
            False, KIND, CLIP, GATED, DROPOUT, HEAD_DIM, VALUES_DIM, QUERY_BLOCK, PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
    is_written = columns < num_memories
    pair_memory_grad = (
        row_of(memory_grad, memory_grad_strides, batch, head) + chunk.to(tl.int64) * memory_grad_strides[3]
    )
    pair_values_grad = (
        row_of(values_grad, values_grad_strides, batch, head) + chunk.to(tl.int64) * values_grad_strides[3]
    )
    store_patterns(pair_memory_grad, memory_grad_strides[2], columns, head_features, is_written, k_grad, HEAD_DIM)
    store_patterns(pair_values_grad, values_grad_strides[2], columns, values_features, is_written, v_grad, VALUES_DIM)
