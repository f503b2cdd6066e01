"""Retrieval where all memories of a pair fit into one tile: of each query nothing but pivot and threshold is kept.

    scores = beta query @ memory.T          weights = separation(scores)                     (``separation.py``)
    retrieved = sigmoid(gate) * (dropout(clip(weights)) @ values)

One program serves one pair (a head of a batch entry) and some blocks of its queries; memory and values are read once.
Scores and weights are computed again in the backward pass, so that no array of queries x memories is ever stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stanhop.kernels.separation import (
    alpha_slope,
    differences,
    pivot,
    sharpness,
    threshold,
    weights_and_slopes,
    weights_slopes_and_logs,
)
from stanhop.kernels.tiles import (
    SIZES,
    clip_slope,
    clipped,
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


@triton.jit(do_not_specialize=SIZES)
def resident_forward(
    query, query_strides, memory, memory_strides, values, values_strides,
    alpha, mask, mask_strides, gate, gate_strides, seed,
    retrieved, retrieved_strides, pivots, thresholds,
    num_heads, num_queries, num_memories, num_chunks, blocks_per_chunk, beta, zeta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    MASKED: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, HEAD_BLOCK: tl.constexpr, VALUES_BLOCK: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Read out for one chunk of the queries of one pair; MEMORY_BLOCK >= num_memories."""
    pair, chunk = (tl.program_id(0) // num_chunks).to(tl.int64), tl.program_id(0) % num_chunks
    batch, head = pair // num_heads, pair % num_heads
    columns = tl.arange(0, MEMORY_BLOCK)
    head_features, values_features = tl.arange(0, HEAD_BLOCK), tl.arange(0, VALUES_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
    pair_memory, pair_values = row_of(memory, memory_strides, batch, head), row_of(values, values_strides, batch, head)
    k = load_patterns(pair_memory, memory_strides[2], columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
    v = load_patterns(pair_values, values_strides[2], columns, values_features, is_column, VALUES_DIM, ON_DEVICE)
    gamma = -zeta / tl.maximum(tl.sum(is_column.to(tl.int32), axis=0), 1)
    a = sharpness(alpha, head, KIND)
    pair_query, pair_out = row_of(query, query_strides, batch, head), row_of(retrieved, retrieved_strides, batch, head)
    for block in range(chunk * blocks_per_chunk, (chunk + 1) * blocks_per_chunk):
        rows = block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
        is_row = rows < num_queries
        q = load_patterns(pair_query, query_strides[2], rows, head_features, is_row, HEAD_DIM, ON_DEVICE)
        scores = tile_scores(q, k, beta, is_column, PRECISION)
        m = pivot(scores, NO_OP)
        d = differences(scores, m, KIND)
        t = threshold(d, m, num_memories, a, KIND, NO_OP, ACCURACY, ON_DEVICE)
        p, _ = weights_and_slopes(d, t[:, None], a, KIND, ACCURACY, ON_DEVICE)
        u = clipped(p, gamma, eta, CLIP) * kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
        open_share = openness(gate, gate_strides, batch, head, rows, is_row, GATED)
        out = gated(product(u, v, PRECISION), open_share, GATED)
        store_patterns(pair_out, retrieved_strides[2], rows, values_features, is_row, out, VALUES_DIM)
        tl.store(pivots + pair * num_queries + rows, m, mask=is_row)
        tl.store(thresholds + pair * num_queries + rows, t, mask=is_row)


@triton.jit
def _gradients_of_block(
    block, k, v, a, gamma, is_column, columns, head_features, values_features,
    pair_query, query_stride, pair_out_grad, out_grad_stride, pair_query_grad, query_grad_stride,
    gate, gate_strides, gate_grad, pivots, thresholds, batch, head, seed, pair, num_queries, num_memories,
    beta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    GATED: tl.constexpr, DROPOUT: tl.constexpr, LEARNS_ALPHA: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, QUERY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Write the gradients by one block of queries and its gates; return its shares of those by memory, values, alpha.

    That by alpha lacks a factor, 1 / a ** 2.
    """
    rows = block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    is_row = rows < num_queries
    q = load_patterns(pair_query, query_stride, rows, head_features, is_row, HEAD_DIM, ON_DEVICE)
    out_grad = load_patterns(pair_out_grad, out_grad_stride, rows, values_features, is_row, VALUES_DIM, ON_DEVICE)
    open_share = openness(gate, gate_strides, batch, head, rows, is_row, GATED)
    out_grad = gated(out_grad, open_share, GATED).to(v.dtype)
    scores = tile_scores(q, k, beta, is_column, PRECISION)
    m = tl.load(pivots + pair * num_queries + rows, mask=is_row, other=0.0)
    t = tl.load(thresholds + pair * num_queries + rows, mask=is_row, other=0.0)
    p, g, logs = weights_slopes_and_logs(differences(scores, m, KIND), t[:, None], a, KIND, ACCURACY, ON_DEVICE)
    factor = kept(seed, pair, rows, columns, num_queries, num_memories, rate, DROPOUT)
    u = clipped(p, gamma, eta, CLIP) * factor
    u_grad = tl.dot(out_grad, tl.trans(v), input_precision=PRECISION)
    if GATED:
        shares = tl.sum(u * u_grad, axis=1) * (1.0 - open_share)
        tl.store(gate_grad + pair * num_queries + rows, shares, mask=is_row)
    p_grad = u_grad * factor * clip_slope(p, gamma, eta, CLIP)
    slope = tl.sum(g, axis=1)
    if NO_OP:
        no_op_p, no_op_g, no_op_logs = weights_slopes_and_logs(-m, t, a, KIND, ACCURACY, ON_DEVICE)
        slope += no_op_g
    delta = tl.sum(g * p_grad, axis=1) / tl.where(slope == 0.0, 1.0, slope)
    v_share = product(tl.trans(u), out_grad, PRECISION)
    a_share = tl.zeros([QUERY_BLOCK], tl.float32)
    if LEARNS_ALPHA:
        a_share -= tl.sum(alpha_slope(p, g, logs) * (p_grad - delta[:, None]), axis=1)
        if NO_OP:
            a_share += alpha_slope(no_op_p, no_op_g, no_op_logs) * delta
    s_grad = g * (p_grad - delta[:, None]) * beta
    q_grad = product(s_grad, k, PRECISION)
    store_patterns(pair_query_grad, query_grad_stride, rows, head_features, is_row, q_grad, HEAD_DIM)
    return product(tl.trans(s_grad), q, PRECISION), v_share, a_share


@triton.jit(do_not_specialize=SIZES)
def resident_backward(
    query, query_strides, memory, memory_strides, values, values_strides,
    alpha, mask, mask_strides, gate, gate_strides, seed,
    retrieved_grad, retrieved_grad_strides, pivots, thresholds,
    query_grad, query_grad_strides, memory_grad, memory_grad_strides, values_grad, values_grad_strides,
    gate_grad, alpha_grad,
    num_heads, num_queries, num_memories, num_chunks, blocks_per_chunk, num_batches, beta, zeta, eta, rate,
    KIND: tl.constexpr, NO_OP: tl.constexpr, CLIP: tl.constexpr,
    MASKED: tl.constexpr, GATED: tl.constexpr, DROPOUT: tl.constexpr,
    LEARNS_ALPHA: tl.constexpr, ONE_BLOCK: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUES_DIM: tl.constexpr, HEAD_BLOCK: tl.constexpr, VALUES_BLOCK: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, MEMORY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, ACCURACY: tl.constexpr, ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """Gradients from one chunk of the queries of one pair; those of memory, values and alpha are this chunk's share.

    With dU = dropout factor * (open share * dretrieved) @ values.T, dP = clip slope * dU and slopes g:

        delta = sum(g dP) / sum(g)      dscores = g (dP - delta)      dalpha = -sum(psi (dP - delta))
        dgate = (1 - open share) * sum(weights used * dU)

    where sums run over the no-op memory, too, whose dP is 0.
    """
    pair, chunk = (tl.program_id(0) // num_chunks).to(tl.int64), tl.program_id(0) % num_chunks
    batch, head = pair // num_heads, pair % num_heads
    columns = tl.arange(0, MEMORY_BLOCK)
    head_features, values_features = tl.arange(0, HEAD_BLOCK), tl.arange(0, VALUES_BLOCK)
    is_column = is_memory(mask, mask_strides, batch, columns, num_memories, MASKED)
    pair_memory, pair_values = row_of(memory, memory_strides, batch, head), row_of(values, values_strides, batch, head)
    k = load_patterns(pair_memory, memory_strides[2], columns, head_features, is_column, HEAD_DIM, ON_DEVICE)
    v = load_patterns(pair_values, values_strides[2], columns, values_features, is_column, VALUES_DIM, ON_DEVICE)
    gamma = -zeta / tl.maximum(tl.sum(is_column.to(tl.int32), axis=0), 1)
    a = sharpness(alpha, head, KIND)
    pair_query = row_of(query, query_strides, batch, head)
    pair_out_grad = row_of(retrieved_grad, retrieved_grad_strides, batch, head)
    pair_query_grad = row_of(query_grad, query_grad_strides, batch, head)
    # Without sums over blocks half of the registers do. A loop of one step compiles to other code: hence two calls.
    if ONE_BLOCK:
        k_grad, v_grad, a_grad = _gradients_of_block(
            chunk, k, v, a, gamma, is_column, columns, head_features, values_features,
            pair_query, query_strides[2], pair_out_grad, retrieved_grad_strides[2],
            pair_query_grad, query_grad_strides[2], gate, gate_strides, gate_grad, pivots, thresholds,
            batch, head, seed, pair, num_queries, num_memories,
            beta, eta, rate, KIND, NO_OP, CLIP, GATED, DROPOUT, LEARNS_ALPHA,
            HEAD_DIM, VALUES_DIM, QUERY_BLOCK, PRECISION, ACCURACY, ON_DEVICE,
        )  # fmt: skip
    else:
        k_grad = tl.zeros([MEMORY_BLOCK, HEAD_BLOCK], tl.float32)
        v_grad = tl.zeros([MEMORY_BLOCK, VALUES_BLOCK], tl.float32)
        a_grad = tl.zeros([QUERY_BLOCK], tl.float32)
        for block in range(chunk * blocks_per_chunk, (chunk + 1) * blocks_per_chunk):
            k_share, v_share, a_share = _gradients_of_block(
                block, k, v, a, gamma, is_column, columns, head_features, values_features,
                pair_query, query_strides[2], pair_out_grad, retrieved_grad_strides[2],
                pair_query_grad, query_grad_strides[2], gate, gate_strides, gate_grad, pivots, thresholds,
                batch, head, seed, pair, num_queries, num_memories,
                beta, eta, rate, KIND, NO_OP, CLIP, GATED, DROPOUT, LEARNS_ALPHA,
                HEAD_DIM, VALUES_DIM, QUERY_BLOCK, PRECISION, ACCURACY, ON_DEVICE,
            )  # fmt: skip
            k_grad += k_share
            v_grad += v_share
            a_grad += a_share
    is_written = columns < num_memories
    pair_memory_grad = (
        row_of(memory_grad, memory_grad_strides, batch, head) + chunk.to(tl.int64) * memory_grad_strides[3]
    )
    pair_values_grad = (
        row_of(values_grad, values_grad_strides, batch, head) + chunk.to(tl.int64) * values_grad_strides[3]
    )
    store_patterns(pair_memory_grad, memory_grad_strides[2], columns, head_features, is_written, k_grad, HEAD_DIM)
    store_patterns(pair_values_grad, values_grad_strides[2], columns, values_features, is_written, v_grad, VALUES_DIM)
    if LEARNS_ALPHA:
        place = (head * num_chunks + chunk) * num_batches + batch
        tl.store(alpha_grad + place, tl.sum(a_grad, axis=0) / (a * a))
