"""What a decoder's step does between its products, compiled for the processor.

Loops take arrays of float32 or of bfloat16 as ``uint16`` (:mod:`tutti.models.compiled`) and sum in float32. Each row is
a loop of its own, so what it gets never depends on the rows beside it.

Legend: B rows, W width, H heads of queries, G of keys and values, D channels of a head, F inner width, R slots, L
layers, N blocks of P places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tutti.models.compiled import compiled, exponential, inlined, narrow, wide, within

BLOCK_TOKENS = 64
CHANNELS_A_TURN = 4
_P = BLOCK_TOKENS
_EPSILON = np.float32(1e-6)
_FAR = np.float32(-1e30)


@compiled
def embed(tokens_B: Any, embedding_VW: Any, x_BW: Any, normed_BW: Any) -> None:
    """The embeddings of tokens, and the same normalised."""
    for row in range(len(tokens_B)):
        x_BW[row] = embedding_VW[tokens_B[row]]
        _norm(x_BW[row], normed_BW[row])


@compiled
def add_and_norm(branch_BW: Any, x_BW: Any, normed_BW: Any) -> None:
    """Add a residual branch to ``x_BW``; the sum normalised by its root mean square (arXiv 1910.07467)."""
    for row in range(len(x_BW)):
        x = x_BW[row]
        for channel in range(len(x)):
            x[channel] += wide(branch_BW[row, channel])
        _norm(x, normed_BW[row])


@inlined
def _norm(x_W: Any, normed_W: Any) -> None:
    squares = np.float32(0)
    for channel in range(len(x_W)):
        squares += x_W[channel] * x_W[channel]
    scale = np.float32(1) / np.sqrt(squares / np.float32(len(x_W)) + _EPSILON)
    for channel in range(len(x_W)):
        normed_W[channel] = narrow(x_W[channel] * scale, normed_W[0])


@compiled
def swish_and_multiply(gate_and_up_BF: Any, out_BF: Any) -> None:
    """The first half through SiLU, times the second (SwiGLU, arXiv 2002.05202); shapes (B, 2 * F) and (B, F)."""
    inner = out_BF.shape[1]
    for row in range(len(out_BF)):
        for channel in range(inner):
            gate = wide(gate_and_up_BF[row, channel])
            up = wide(gate_and_up_BF[row, inner + channel])
            swish = gate / (np.float32(1) + exponential(min(-gate, np.float32(80))))
            out_BF[row, channel] = narrow(swish * up, out_BF[0, 0])


@compiled
def attend(
    packed_BN: Any,
    cosines_SD: Any,
    sines_SD: Any,
    lengths_B: Any,
    slots_B: Any,
    keys_RLNGDP: Any,
    values_RLNGPD: Any,
    layer: int,
    window_tokens: int,
    out_BW: Any,
) -> None:
    """Turn queries and keys to their place, remember keys and values, and look at what each row has read.

    Args:
        packed_BN: queries, keys and values of each row's new token, head after head; queries are changed.
        cosines_SD, sines_SD: of the angles of half the channels at each place (RoPE, arXiv 2104.09864).
        lengths_B: tokens that each row has read before.
        slots_B: where it keeps them.
        keys_RLNGDP: channel by channel, the places of a block side by side.
        values_RLNGPD: place by place, its channels side by side. All heads of a block lie together, so that what a row
            has read is dense however far it might read.
        window_tokens: how many of the latest places it looks at.
        out_BW: what it finds.
    """
    groups, width = keys_RLNGDP.shape[3], keys_RLNGDP.shape[4]
    heads = out_BW.shape[1] // width
    each = heads // groups
    queries_HD, mixed_HD = np.empty((heads, width), dtype=np.float32), np.empty((heads, width), dtype=np.float32)
    key_D, keys_GD = np.empty(width, dtype=np.float32), np.empty((groups, width), dtype=keys_RLNGDP.dtype)
    scale = np.float32(1) / np.sqrt(np.float32(width))
    weights_HS = np.empty((heads, keys_RLNGDP.shape[2] * _P), dtype=np.float32)
    for row in range(len(lengths_B)):
        place, slot = lengths_B[row], slots_B[row]
        packed_N, cosines_D, sines_D = packed_BN[row], cosines_SD[place], sines_SD[place]
        keys_NGDP, values_NGPD = keys_RLNGDP[slot, layer], values_RLNGPD[slot, layer]
        for head in range(heads):
            _turn(packed_N[head * width :], cosines_D, sines_D, scale, queries_HD[head])
        for group in range(groups):
            _turn(packed_N[(heads + group) * width :], cosines_D, sines_D, np.float32(1), key_D)
            value_D = packed_N[(heads + groups + group) * width :]
            for channel in range(width):
                keys_GD[group, channel] = narrow(key_D[channel], keys_GD[0, 0])
                values_NGPD[place // _P, group, place % _P, channel] = value_D[channel]
        first = max(place + 1 - window_tokens, 0)
        begin = first // _P
        blocks = place // _P + 1 - begin
        for block in range(blocks):
            keys_GDP = keys_NGDP[begin + block]
            for head in range(heads):
                _score(queries_HD[head], keys_GDP[head // each], weights_HS[head, block * _P : (block + 1) * _P])
        lead, end = first - begin * _P, place + 1 - begin * _P
        for head in range(heads):
            _weigh(weights_HS[head, : blocks * _P], _dot(queries_HD[head], keys_GD[head // each]), lead, end)
        mixed_HD[:] = 0
        for block in range(blocks):
            values_GPD = values_NGPD[begin + block]
            # Places before the first weigh nothing; after the last there is nothing.
            stop = min(end, (block + 1) * _P)
            for head in range(heads):
                _mix(weights_HS[head, block * _P : stop], values_GPD[head // each], mixed_HD[head])
        for head in range(heads):
            for channel in range(width):
                out_BW[row, head * width + channel] = narrow(mixed_HD[head, channel], out_BW[0, 0])
        # Written once their block has been read: what was just written to many lines of memory is slow to read.
        for group in range(groups):
            keys_NGDP[place // _P, group, :, place % _P] = keys_GD[group]


@inlined
def _turn(from_D: Any, cosines_D: Any, sines_D: Any, scale: Any, to_D: Any) -> None:
    half = len(cosines_D)
    for channel in range(half):
        x, y = scale * wide(from_D[channel]), scale * wide(from_D[half + channel])
        to_D[channel] = x * cosines_D[channel] - y * sines_D[channel]
        to_D[half + channel] = y * cosines_D[channel] + x * sines_D[channel]


@within
def _dot(query_D: Any, key_D: Any) -> Any:
    product = np.float32(0)
    for channel in range(len(key_D)):
        product += query_D[channel] * wide(key_D[channel])
    return product


@within
def _weigh(scores_S: Any, own: Any, first: int, end: int) -> None:
    """Scores become weights: the softmax of those from ``first`` to before ``end``, of which the last is ``own``."""
    scores_S[end - 1] = own
    scores_S[:first] = _FAR
    scores_S[end:] = _FAR
    highest = _FAR
    for place in range(len(scores_S)):
        highest = max(highest, scores_S[place])
    mass = np.float32(0)
    for place in range(len(scores_S)):
        weight = exponential(scores_S[place] - highest)
        scores_S[place] = weight
        mass += weight
    for place in range(len(scores_S)):
        scores_S[place] /= mass


@within
def _score(query_D: Any, keys_DP: Any, out_P: Any) -> None:
    """Four channels a turn: what is summed stays in registers that much longer."""
    for start in range(0, len(query_D), CHANNELS_A_TURN):
        a, b, c, d = query_D[start], query_D[start + 1], query_D[start + 2], query_D[start + 3]
        if start == 0:
            for place in range(_P):
                out_P[place] = (
                    a * wide(keys_DP[0, place]) + b * wide(keys_DP[1, place])
                    + c * wide(keys_DP[2, place]) + d * wide(keys_DP[3, place])
                )  # fmt: skip
        else:
            for place in range(_P):
                out_P[place] += (
                    a * wide(keys_DP[start, place]) + b * wide(keys_DP[start + 1, place])
                    + c * wide(keys_DP[start + 2, place]) + d * wide(keys_DP[start + 3, place])
                )  # fmt: skip


@within
def _mix(weights_S: Any, values_PD: Any, out_D: Any) -> None:
    """Add the values of the first places, weighted; eight places a turn."""
    width, places = len(out_D), len(weights_S)
    for s in range(0, places - 7, 8):
        a, b, c, d = weights_S[s], weights_S[s + 1], weights_S[s + 2], weights_S[s + 3]
        e, f, g, h = weights_S[s + 4], weights_S[s + 5], weights_S[s + 6], weights_S[s + 7]
        for channel in range(width):
            out_D[channel] += (
                a * wide(values_PD[s, channel]) + b * wide(values_PD[s + 1, channel])
                + c * wide(values_PD[s + 2, channel]) + d * wide(values_PD[s + 3, channel])
                + e * wide(values_PD[s + 4, channel]) + f * wide(values_PD[s + 5, channel])
                + g * wide(values_PD[s + 6, channel]) + h * wide(values_PD[s + 7, channel])
            )  # fmt: skip
    rest_S, rest_PD = weights_S[places // 8 * 8 :], values_PD[places // 8 * 8 :]
    for s in range(len(rest_S)):
        for channel in range(width):
            out_D[channel] += rest_S[s] * wide(rest_PD[s, channel])
