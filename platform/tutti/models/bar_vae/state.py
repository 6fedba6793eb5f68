"""What a bar VAE remembers of rows that it reads: the bar under way, and the pieces so far as one state each.

Legend: B rows, S tokens of the bar under way, H hidden units of the conductor, W width, Z latent dimensions, N bars.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutti.models.bar_vae.configuration import BarVaeConfiguration
from tutti.models.cache import KeyValueCache

ENDLESS_TOKENS = 2**31
_FIRST_TOKENS = 64
_ROWS = (
    "lengths_B", "bar_lengths_B", "bars_B", "tokens_BS", "conductor_BH", "head_BH", "condition_BW", "latent_BZ",
    "plans_BNZ", "planned_B",
)  # fmt: skip


class BarState:
    """A memory of B rows.

    Attributes:
        lengths_B: tokens read.
        bar_lengths_B, tokens_BS: tokens of the bar under way (or of the head), and which.
        bars_B: bars begun; 0 within the head.
        conductor_BH: what came before the bar under way.
        head_BH: what the head said, as the conductor hears it.
        condition_BW, latent_BZ: of the bar under way.
        plans_BNZ, planned_B: latents that the first bars take instead of drawn ones, and of how many bars.
        seeds: random stream of each row.
        keys: attention's, of the bar under way.
    """

    def __init__(
        self, configuration: BarVaeConfiguration, *, rows: int, seeds: NDArray[np.uint64], like: Tensor
    ) -> None:
        self._configuration = configuration
        self.seeds = seeds

        def zeros(size: int) -> Tensor:
            return like.new_zeros(rows, size)

        self.lengths_B = torch.zeros(rows, dtype=torch.long, device=like.device)
        self.bar_lengths_B, self.bars_B = torch.zeros_like(self.lengths_B), torch.zeros_like(self.lengths_B)
        self.planned_B = torch.zeros_like(self.lengths_B)
        self.tokens_BS = self.lengths_B.new_zeros(rows, _FIRST_TOKENS)
        self.conductor_BH, self.head_BH = zeros(configuration.conductor), zeros(configuration.conductor)
        self.condition_BW, self.latent_BZ = zeros(configuration.width), zeros(configuration.latent)
        self.plans_BNZ = like.new_zeros(rows, 1, configuration.latent)
        self.keys = self._new_keys(rows, _FIRST_TOKENS)

    @property
    def capacity_tokens(self) -> int:
        """It never fills up: a bar that is over is one step of the conductor."""
        return ENDLESS_TOKENS

    @property
    def size_bytes(self) -> int:
        """Memory of what grows: keys and values of the bar under way."""
        return self.keys.size_bytes

    def plan(self, latents: Sequence[Tensor]) -> None:
        """Let each row's first bars take these latents, of shape (bars, Z) a row."""
        most = max(1, *(len(latent) for latent in latents))
        padded = [functional.pad(latent, (0, 0, 0, most - len(latent))) for latent in latents]
        self.plans_BNZ = torch.stack(padded).to(self.plans_BNZ)
        self.planned_B = self.planned_B.new_tensor([len(latent) for latent in latents])

    def make_room(self, tokens: int) -> None:
        """Let the bar under way become so long; what is remembered stays."""
        held = self.tokens_BS.shape[1]
        if tokens <= held:
            return
        room = max(tokens, 2 * held)
        self.tokens_BS = functional.pad(self.tokens_BS, (0, room - held))
        old, self.keys = self.keys, self._new_keys(len(self.lengths_B), room)
        self.keys.keys_LBHSD[:, :, :, :held] = old.keys_LBHSD
        self.keys.values_LBHSD[:, :, :, :held] = old.values_LBHSD

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""
        rows = rows.to(self.lengths_B.device)
        for name in _ROWS:
            setattr(self, name, getattr(self, name)[rows])
        self.seeds = self.seeds[rows.cpu().numpy()]
        self.keys.keep(rows)

    def join(self, fresh: BarState) -> None:
        """Take the one row of another memory as one more row, its plan with it."""
        self.make_room(fresh.tokens_BS.shape[1])
        bars = max(self.plans_BNZ.shape[1], fresh.plans_BNZ.shape[1])
        for state in (self, fresh):
            state.plans_BNZ = functional.pad(state.plans_BNZ, (0, 0, 0, bars - state.plans_BNZ.shape[1]))
        room = self.tokens_BS.shape[1] - fresh.tokens_BS.shape[1]
        fresh.tokens_BS = functional.pad(fresh.tokens_BS, (0, room))
        for name in _ROWS:
            setattr(self, name, torch.cat((getattr(self, name), getattr(fresh, name))))
        self.seeds = np.concatenate((self.seeds, fresh.seeds))
        self.keys.join(fresh.keys)

    def put_row(self, index: int, fresh: BarState) -> None:
        """Take the one row of another memory in place of a row; it has no plan."""
        self.make_room(fresh.tokens_BS.shape[1])
        room = self.tokens_BS.shape[1]
        fresh.make_room(room)
        for name in _ROWS:
            if name != "plans_BNZ":
                held, given = getattr(self, name), getattr(fresh, name)[0]
                held[index] = given[:room] if name == "tokens_BS" else given
        self.seeds[index] = fresh.seeds[0]
        self.keys.keys_LBHSD[:, index] = fresh.keys.keys_LBHSD[:, 0, :, :room]
        self.keys.values_LBHSD[:, index] = fresh.keys.values_LBHSD[:, 0, :, :room]

    def _new_keys(self, rows: int, tokens: int) -> KeyValueCache:
        size, like = self._configuration, self.condition_BW
        return KeyValueCache(
            layers=size.layers,
            rows=rows,
            heads=size.heads,
            capacity_tokens=tokens,
            head_width=size.width // size.heads,
            device=like.device,
            dtype=like.dtype,
        )
