"""What an engine needs of a network that reads a piece token by token, whatever it remembers.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Memory(Protocol):
    """What was already read of some rows, each at its own length."""

    lengths_B: Tensor

    @property
    def capacity_tokens(self) -> int:
        """How long a row may become."""

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""

    def put_row(self, index: int, fresh: Any) -> None:
        """Take the one row of another memory of the same network in place of a row."""


class Reader(Protocol):
    """A network that says what comes next."""

    def read(self, tokens_BT: Tensor, cache: Any, *, counts_B: Tensor | None = None) -> Tensor:
        """Read on from what ``cache`` holds, each row from its own length; logits of shape (B, T, V).

        Args:
            tokens_BT: the next tokens of each row, padded on the right.
            cache: a memory of this network's, changed in place; its lengths grow by ``counts_B``.
            counts_B: how many of the T tokens are real in each row; None: all.
        """

    def new_cache(self, *, rows: int, capacity_tokens: int, seeds: NDArray[np.uint64] | None = None) -> Any:
        """An empty memory for this network, on its device, in its precision.

        Args:
            seeds: of each row, for networks that draw what a piece is to be; so a row is the same whatever else is read
                beside it. None: one for all.
        """
