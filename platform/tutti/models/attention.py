"""Causal self-attention through ``scaled_dot_product_attention``, with or without a cache.

Legend: B rows, T tokens, S tokens in the cache, W width, H heads of queries, G of keys and values, D = W / H
channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.cache import KeyValueCache
from tutti.models.positions import rotate


@dataclass(frozen=True)
class Context:
    """What all layers of one call share.

    Args:
        cosines, sines: rotary angles of the tokens' positions, broadcastable to (B, H, T, D/2).
        mask: True where a token may look, or what is added to the logits, minus infinity where it may not;
            broadcastable to (B, H, T, S); None for plain causal attention.
        pieces: tokens of each piece, row after row, padding among them; attention runs over each by itself.
        causal: whether a token of a piece looks back alone; else at the whole piece.
        biases: what is added to the logits of each piece, shape (H, t, t), minus infinity where a token may not look.
        cache: keys and values of earlier tokens.
        positions_BT: place of each token in the cache.
        used: number of cache places that the longest row reaches after this call.
    """

    cosines: Tensor
    sines: Tensor
    mask: Tensor | None
    cache: KeyValueCache | None = None
    positions_BT: Tensor | None = None
    used: int = 0
    pieces: tuple[int, ...] | None = None
    causal: bool = True
    biases: tuple[Tensor, ...] | None = None


class Attention(nn.Module):
    """Multi-head self-attention without biases, in groups of heads that share keys and values.

    Source of the groups: Ainslie et al. 2023 (arXiv 2305.13245); one group of all heads is Shazeer 2019 (1911.02150).
    """

    def __init__(self, *, width: int, heads: int, key_value_heads: int) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = heads, key_value_heads, width // heads
        self.query_key_value = nn.Linear(width, (heads + 2 * key_value_heads) * self.head_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x_BTW: Tensor, context: Context, *, layer: int) -> Tensor:
        """Mix tokens; shape (B, T, W)."""
        rows, tokens, width = x_BTW.shape
        packed = self.query_key_value(x_BTW).view(rows, tokens, self.heads + 2 * self.key_value_heads, self.head_width)
        queries, keys, values = packed.transpose(1, 2).split(
            (self.heads, self.key_value_heads, self.key_value_heads), dim=1
        )
        queries = rotate(queries, context.cosines, context.sines)
        keys = rotate(keys, context.cosines, context.sines)
        if context.cache is not None and context.positions_BT is not None:
            keys, values = context.cache.put(layer, keys, values, context.positions_BT, used=context.used)
        if context.pieces is not None:
            mixed = _by_pieces(queries, keys, values, context.pieces, context.biases, causal=context.causal)
        else:
            if context.mask is not None and context.mask.is_floating_point():
                # torch's kernels for GPUs know biases or groups of heads, not both.
                keys, values = (part.repeat_interleave(self.heads // part.shape[1], dim=1) for part in (keys, values))
            mixed = functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=context.mask, is_causal=context.mask is None,
                enable_gqa=self.heads != keys.shape[1],
            ).transpose(1, 2)  # fmt: skip
        out: Tensor = self.output(mixed.reshape(rows, tokens, width))
        return out


def _by_pieces(
    queries_BHTD: Tensor,
    keys_BGTD: Tensor,
    values_BGTD: Tensor,
    pieces: tuple[int, ...],
    biases: tuple[Tensor, ...] | None,
    *,
    causal: bool,
) -> Tensor:
    """Attention of each piece to itself, with no work for pairs of different pieces; shape (B, T, H, D)."""
    rows, heads, tokens, head_width = queries_BHTD.shape
    queries, keys, values = (
        [part.transpose(0, 1) for part in torch.split(flat, list(pieces))]
        for column in (queries_BHTD, keys_BGTD, values_BGTD)
        for flat in (column.transpose(1, 2).reshape(rows * tokens, -1, head_width),)
    )
    if biases is None:
        mixed = [
            functional.scaled_dot_product_attention(
                query[None], key[None], value[None], is_causal=causal, enable_gqa=heads != keys_BGTD.shape[1]
            )[0]
            for query, key, value in zip(queries, keys, values, strict=True)
        ]
    else:
        mixed = [_biased(*each) for each in zip(queries, keys, values, biases, strict=True)]
    return torch.cat([part.transpose(0, 1) for part in mixed]).view(rows, tokens, heads, head_width)


def _biased(queries_HTD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, bias_HTT: Tensor) -> Tensor:
    """Attention with a bias that is learnt, which torch's fast kernels for processors do not know; shape (H, T, D)."""
    groups, tokens, head_width = keys_GTD.shape
    queries = queries_HTD.reshape(groups, -1, head_width)
    bias = bias_HTT.reshape(groups, -1, tokens).to(queries.dtype)
    scores = torch.baddbmm(bias, queries, keys_GTD.transpose(1, 2), alpha=head_width**-0.5)
    return torch.bmm(scores.softmax(-1, dtype=scores.dtype), values_GTD).view(queries_HTD.shape)


def begins_of(segments_BT: Tensor) -> Tensor:
    """True at the first token of each piece of each row; shape (B, T)."""
    begins = torch.ones_like(segments_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return begins


def pieces_of(segments_BT: Tensor) -> tuple[int, ...]:
    """Tokens of each piece of a batch, row after row; padding at the end of a row counts as one."""
    begins = begins_of(segments_BT)
    starts = torch.nonzero(begins.flatten()).flatten()
    return tuple(torch.diff(starts, append=starts.new_tensor([begins.numel()])).tolist())


def within_segments(segments_BT: Tensor) -> Tensor:
    """Mask that is causal and keeps each piece of a packed sequence to itself; shape (B, 1, T, T)."""
    tokens = segments_BT.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=segments_BT.device).tril()
    same = segments_BT[:, None, :, None] == segments_BT[:, None, None, :]
    return same & causal


def within_window(positions_T: Tensor, places_S: Tensor, *, window_tokens: int) -> Tensor:
    """Mask that looks back over a window, the token itself among it (Child et al. 2019, arXiv 1904.10509).

    Args:
        positions_T: places of the tokens that look; any leading dimensions.
        places_S: places of what is looked at.

    Returns:
        True where a token may look; shape (…, T, S).
    """
    back = positions_T[..., :, None] - places_S
    return (back >= 0) & (back < window_tokens)
