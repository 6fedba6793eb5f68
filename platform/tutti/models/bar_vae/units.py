"""Where the bars of packed pieces lie: a unit is what a bar token begins, or the head before a piece's first bar.

Legend: B rows, T tokens, U units of all rows in their order, P pieces, Z latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutti import seeding


@dataclass(frozen=True)
class Units:
    """Units of a batch; padding counts as a piece of one unit that is no bar.

    Args:
        of_BT: unit of each place.
        starts_U: its first place in the flattened batch.
        is_bar_U: whether it is a bar.
        piece_U: its piece.
        place_U: how many units of its piece come before it.
        first_U: first unit of its piece.
    """

    of_BT: Tensor
    starts_U: Tensor
    is_bar_U: Tensor
    piece_U: Tensor
    place_U: Tensor
    first_U: Tensor

    @classmethod
    def of(cls, tokens_BT: Tensor, segments_BT: Tensor | None, *, bar_token: int) -> Units:
        """Units of packed rows.

        Args:
            segments_BT: number of the piece within its row, -1 at padding; None: each row is one piece.
        """
        if segments_BT is None:
            segments_BT = torch.zeros_like(tokens_BT)
        opens = torch.ones_like(segments_BT, dtype=torch.bool)
        opens[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
        bars = (tokens_BT == bar_token) & (segments_BT >= 0)
        begins, opens = (opens | bars).flatten(), opens.flatten()
        starts_U = torch.nonzero(begins).flatten()
        piece_U = opens.long().cumsum(0)[starts_U] - 1
        first_U = torch.nonzero(opens[starts_U]).flatten()[piece_U]
        return cls(
            of_BT=(begins.long().cumsum(0) - 1).view_as(tokens_BT),
            starts_U=starts_U,
            is_bar_U=bars.flatten()[starts_U],
            piece_U=piece_U,
            place_U=torch.arange(len(starts_U), device=starts_U.device) - first_U,
            first_U=first_U,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Places of each unit, row after row."""
        ends_U = torch.cat([self.starts_U[1:], self.starts_U.new_tensor([self.of_BT.numel()])])
        return tuple((ends_U - self.starts_U).tolist())

    def together(self) -> Tensor:
        """Whether two places of a row are of one unit; shape (B, 1, T, T)."""
        return self.of_BT[:, None, :, None] == self.of_BT[:, None, None, :]

    def means(self, values_BTW: Tensor) -> Tensor:
        """The mean of each unit's places; shape (U, W), float32."""
        of_places, flat = self.of_BT.flatten(), values_BTW.flatten(0, 1).float()
        sums_UW = flat.new_zeros(len(self.starts_U), flat.shape[1]).index_add(0, of_places, flat)
        return sums_UW / torch.bincount(of_places, minlength=len(self.starts_U))[:, None]

    def set_at_first_place(self, values_UW: Tensor) -> Tensor:
        """Each unit's value at its first place, 0 elsewhere; shape (B, T, W)."""
        flat = values_UW.new_zeros(self.of_BT.numel(), values_UW.shape[1])
        return flat.index_copy(0, self.starts_U, values_UW).view(*self.of_BT.shape, -1)


def seeds_of_content(tokens_BT: Tensor, starts_U: Tensor) -> NDArray[np.uint64]:
    """A seed for each unit that its tokens alone decide, wherever it lies; shape (U,)."""
    flat, starts = tokens_BT.flatten().cpu().numpy(), starts_U.cpu().numpy()
    places = np.arange(len(flat)) - np.repeat(starts, np.diff(starts, append=len(flat)))
    return np.add.reduceat(seeding.mix64((flat + (places << 16)).astype(np.uint64)), starts)


def normal_at(seeds_U: NDArray[np.uint64], numbers_U: NDArray[np.integer], *, size: int) -> Tensor:
    """The ``numbers_U``-th standard normal vector of each stream; shape (U, size), float32, on the processor."""
    counters = (np.asarray(numbers_U, dtype=np.int64)[:, None] * size + np.arange(size)).astype(np.uint64)
    # Draws lie on a grid of step 2^-53 from 0: half a step away from it the tails are finite.
    drawn = seeding.uniform_at(seeds_U[:, None], counters) + 2.0**-54
    normal: Tensor = torch.special.ndtri(torch.from_numpy(drawn).clamp_max(1 - 2.0**-53))
    return normal.float()
