"""A step of a decoder on a processor: one token of each row through the whole network, compiled.

Rows go through products together (:mod:`tutti.models.panels`) and through everything else one by one, so what a row
gets never depends on the rows beside it. Keys and values are panels too: attention is two products a block, of the
queries with its keys and of the weights with its values.

Numbers are float32, or bfloat16 as ``uint16`` (:mod:`tutti.models.compiled`) in products and in what is remembered;
sums, the residual stream and the logits are float32 always.

Legend: B rows, W width, F inner width, V vocabulary, H heads of queries, G of keys and values, D channels of a head, R
slots, L layers, N blocks of S places; P, K, C, E as in :mod:`tutti.models.panels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutti.models.compiled import compiled, exponential, inlined, narrow, wide, within
from tutti.models.panels import COLUMNS, multiply, multiply_one

BLOCK_TOKENS = 32
_S = BLOCK_TOKENS
_EPSILON = np.float32(1e-6)
_FAR = np.float32(-1e30)


class Weights(NamedTuple):
    """Weights of a decoder as panels; the norms' gains are multiplied into those behind them.

    Args:
        embedding_VW: float32.
        query_key_value, output, gate_and_up, down: of each layer; shape (L, P, K / E, C, E).
        head: float32, shape (P, K, C, 1).
        cosines_TD, sines_TD: of the angles of half the channels at each place (RoPE, arXiv 2104.09864).
        heads, groups: H and G.
        inner: F.
        window_tokens: how many of the latest places a row looks at.
    """

    embedding_VW: NDArray[np.float32]
    query_key_value: NDArray[Any]
    output: NDArray[Any]
    gate_and_up: NDArray[Any]
    down: NDArray[Any]
    head: NDArray[np.float32]
    cosines_TD: NDArray[np.float32]
    sines_TD: NDArray[np.float32]
    heads: int
    groups: int
    inner: int
    window_tokens: int


@compiled
def step(
    weights: Any,
    tokens_B: Any,
    lengths_B: Any,
    slots_B: Any,
    keys_RLNGKCE: Any,
    values_RLNGKCE: Any,
    logits_BV: Any,
) -> None:
    """Read one more token of each row.

    Args:
        weights: :class:`Weights`.
        tokens_B: the tokens.
        lengths_B: tokens that each row has read before.
        slots_B: where it keeps their keys and values.
        keys_RLNGKCE: panels whose columns are a block's places and whose inputs are channels; the rows' are added to.
        values_RLNGKCE: panels whose columns are channels and whose inputs are a block's places.
        logits_BV: what follows; as many columns as the head's panels have.
    """
    rows, width = len(tokens_B), weights.embedding_VW.shape[1]
    layers, kept = len(weights.output), weights.output.dtype
    x_BW = np.zeros((rows, columns_of(weights.output[0])), dtype=np.float32)
    normed_BW, mixed_BW = np.zeros((rows, width), dtype=kept), np.zeros((rows, width), dtype=kept)
    packed_BN = np.empty((rows, columns_of(weights.query_key_value[0])), dtype=np.float32)
    gate_and_up_BF = np.empty((rows, columns_of(weights.gate_and_up[0])), dtype=np.float32)
    inside_BF = np.zeros((rows, weights.down.shape[2] * weights.down.shape[4]), dtype=kept)
    for row in range(rows):
        for channel in range(width):
            x_BW[row, channel] = weights.embedding_VW[tokens_B[row], channel]
    for layer in range(layers):
        _norm(x_BW, normed_BW)
        multiply(normed_BW, rows, weights.query_key_value[layer], packed_BN, 0)
        for row in range(rows):
            _attend(
                weights, packed_BN[row], lengths_B[row], keys_RLNGKCE[slots_B[row], layer],
                values_RLNGKCE[slots_B[row], layer], mixed_BW[row],
            )  # fmt: skip
        multiply(mixed_BW, rows, weights.output[layer], x_BW, 1)
        _norm(x_BW, normed_BW)
        multiply(normed_BW, rows, weights.gate_and_up[layer], gate_and_up_BF, 0)
        _swish_and_multiply(gate_and_up_BF, weights.inner, inside_BF)
        multiply(inside_BF, rows, weights.down[layer], x_BW, 1)
    last_BW = np.empty((rows, width), dtype=np.float32)
    _norm(x_BW, last_BW)
    multiply(last_BW, rows, weights.head, logits_BV, 0)


@inlined
def columns_of(panels_PKCE: Any) -> int:
    """Of a product's result."""
    return panels_PKCE.shape[0] * panels_PKCE.shape[2]  # type: ignore[no-any-return]


@within
def _norm(x_BW: Any, normed_BW: Any) -> None:
    """Divided by the root mean square (arXiv 1910.07467)."""
    width = normed_BW.shape[1]
    for row in range(len(normed_BW)):
        squares = np.float32(0)
        for channel in range(width):
            squares += x_BW[row, channel] * x_BW[row, channel]
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + _EPSILON)
        for channel in range(width):
            normed_BW[row, channel] = narrow(x_BW[row, channel] * scale, normed_BW[0, 0])


@within
def _swish_and_multiply(gate_and_up_BF: Any, inner: int, out_BF: Any) -> None:
    """The first half through SiLU, times the second (SwiGLU, arXiv 2002.05202); shapes (B, 2 * F) and (B, F)."""
    for row in range(len(out_BF)):
        for channel in range(inner):
            gate, up = gate_and_up_BF[row, channel], gate_and_up_BF[row, inner + channel]
            swish = gate / (np.float32(1) + exponential(min(-gate, np.float32(80))))
            out_BF[row, channel] = narrow(swish * up, out_BF[0, 0])


@within
def _attend(weights: Any, packed_N: Any, place: int, keys_NGKCE: Any, values_NGKCE: Any, out_W: Any) -> None:
    """Turn a row's query and key to their place, look at what it has read, and remember its key and value."""
    heads, groups = weights.heads, weights.groups
    each, width = heads // groups, 2 * weights.cosines_TD.shape[1]
    cosines_D, sines_D = weights.cosines_TD[place], weights.sines_TD[place]
    first = max(place + 1 - weights.window_tokens, 0)
    begin = first // _S
    blocks = place // _S + 1 - begin
    lead, own = first - begin * _S, place - begin * _S
    pair, across = keys_NGKCE.shape[4], values_NGKCE.shape[3]
    queries_HD, keys_GD = np.empty((heads, width), dtype=out_W.dtype), np.empty((groups, width), dtype=out_W.dtype)
    scores_HS = np.empty((heads, blocks * _S), dtype=np.float32)
    looks_HS = np.empty((heads, blocks * _S), dtype=out_W.dtype)
    (shares_H, own_H), mixed_HD = np.empty((2, heads), dtype=np.float32), np.zeros((heads, across), dtype=np.float32)
    scale = np.float32(1) / np.sqrt(np.float32(width))
    for head in range(heads):
        _turn(packed_N[head * width :], cosines_D, sines_D, scale, queries_HD[head])
    for group in range(groups):
        _turn(packed_N[(heads + group) * width :], cosines_D, sines_D, np.float32(1), keys_GD[group])
    steps = keys_NGKCE.shape[2]
    for block in range(blocks):
        lines = min((own - block * _S) // COLUMNS + 1, _S // COLUMNS)
        for head in range(heads):
            to_S = scores_HS[head, block * _S :]
            multiply_one(queries_HD[head], keys_NGKCE[begin + block, head // each], steps, lines, to_S, 0)
    for head in range(heads):
        scores_HS[head, own] = _dot(queries_HD[head], keys_GD[head // each])
        shares_H[head] = _weigh(scores_HS[head], lead, own, looks_HS[head])
        own_H[head] = wide(looks_HS[head, own])
        looks_HS[head, own] = narrow(np.float32(0), looks_HS[0, 0])
    lines = across // COLUMNS
    for block in range(blocks):
        # The own value is added below; of places behind it nothing counts.
        steps = (min(own - block * _S, _S) + pair - 1) // pair
        for head in range(heads):
            looks_S = looks_HS[head, block * _S :]
            multiply_one(looks_S, values_NGKCE[begin + block, head // each], steps, lines, mixed_HD[head], 1)
    for head in range(heads):
        value_D = packed_N[(heads + groups + head // each) * width :]
        for channel in range(width):
            mixed = (mixed_HD[head, channel] + own_H[head] * value_D[channel]) * shares_H[head]
            out_W[head * width + channel] = narrow(mixed, out_W[0])
    # Written once their block has been read: what was just written to many lines of memory is slow to read.
    block, at = place // _S, place % _S
    for group in range(groups):
        value_D = packed_N[(heads + groups + group) * width :]
        keys_KE, values_C = keys_NGKCE[block, group, :, at], values_NGKCE[block, group, at // pair, :, at % pair]
        for channel in range(width):
            keys_KE[channel // pair, channel % pair] = keys_GD[group, channel]
            values_C[channel] = narrow(value_D[channel], out_W[0])


@inlined
def _turn(from_D: Any, cosines_D: Any, sines_D: Any, scale: Any, to_D: Any) -> None:
    half = len(cosines_D)
    for channel in range(half):
        x, y = scale * from_D[channel], scale * from_D[half + channel]
        to_D[channel] = narrow(x * cosines_D[channel] - y * sines_D[channel], to_D[0])
        to_D[half + channel] = narrow(y * cosines_D[channel] + x * sines_D[channel], to_D[0])


@within
def _dot(query_D: Any, key_D: Any) -> Any:
    product = np.float32(0)
    for channel in range(len(key_D)):
        product += wide(query_D[channel]) * wide(key_D[channel])
    return product


@within
def _weigh(scores_S: Any, first: int, own: int, looks_S: Any) -> Any:
    """Looks: the softmax of the scores from ``first`` to ``own``, but for a factor, which is returned."""
    for place in range(first):
        scores_S[place] = _FAR
    for place in range(own + 1, len(scores_S)):
        scores_S[place] = _FAR
    highest = _FAR
    for place in range(len(scores_S)):
        highest = max(highest, scores_S[place])
    mass = np.float32(0)
    for place in range(len(scores_S)):
        look = narrow(exponential(scores_S[place] - highest), looks_S[0])
        looks_S[place] = look
        mass += wide(look)
    return np.float32(1) / mass
