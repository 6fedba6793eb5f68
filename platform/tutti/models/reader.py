"""What an engine needs of a network that reads a piece token by token, whatever it remembers.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutti.models.precision import Precision


class Memory(Protocol):
    """What was already read of some rows, each at its own length."""

    lengths_B: Tensor

    @property
    def capacity_tokens(self) -> int:
        """How long a row may become."""

    @property
    def size_bytes(self) -> int:
        """Memory of all rows that there is room for."""

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""

    def join(self, fresh: Any) -> None:
        """Take the one row of another memory of the same network as one more row."""

    def put_row(self, index: int, fresh: Any) -> None:
        """Take the one row of another memory of the same network in place of a row."""


class Steps(Protocol):
    """A network made ready to read one token of each row again and again.

    Attributes:
        draws: whether what a row remembers depends on its seed too, and not on its tokens alone.
    """

    draws: bool

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> Any:
        """A memory of no rows with room for so many, which steps read on; rows join it that the network read in."""

    def __call__(self, tokens_B: Tensor, memory: Any) -> Tensor:
        """Read one more token of each row of ``memory``, in place; logits of what follows, shape (B, V)."""

    def order(self, memory: Any) -> NDArray[np.int64] | None:
        """The order in which the rows of ``memory`` would step faster; None: they do well as they lie."""


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

    def steps(self, precision: Precision = "float32") -> Steps:
        """The network as it is now, made ready to step.

        Args:
            precision: of its products and of what it remembers, where it has a choice.
        """


class PlainSteps:
    """Steps of a network that has no faster way than to read.

    Args:
        model: that reads.
    """

    draws = True

    def __init__(self, model: Reader) -> None:
        self._model = model

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> Any:  # noqa: ARG002
        """As :class:`Steps`: the network's own, which grows as rows join."""
        return self._model.new_cache(rows=0, capacity_tokens=capacity_tokens, seeds=np.zeros(0, dtype=np.uint64))

    def __call__(self, tokens_B: Tensor, memory: Any) -> Tensor:
        """As :class:`Steps`."""
        return self._model.read(tokens_B[:, None], memory)[:, -1]

    def order(self, memory: Any) -> None:  # noqa: ARG002
        """As :class:`Steps`: any."""
        return
