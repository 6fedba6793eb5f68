"""What a loader hands out, and how the rows of a dataset become that: one layout for each kind of examples.

Legend: B rows of a rank's share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from tutti.dataset.packed import Index, Packed


class Batch(Protocol):
    """One rank's share of a global batch, in the narrowest types that hold it: what is copied least is fastest."""

    @property
    def num_targets(self) -> int:
        """How many places are to be learnt."""

    def rows(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop`` (exclusive)."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name, each of shape (B, …)."""


class Layout(Protocol):
    """How packed rows become batches of one kind of examples."""

    kind: str
    """Of the datasets that it reads."""
    unit: str
    """What a place to be learnt is called, in the plural."""
    needs_pieces: bool
    """Whether pieces' numbers are wanted: rows change each time they are seen."""
    sets_lasts_apart: bool
    """Whether the last token of each piece is no input."""
    rows_are_pieces: bool
    """Whether each row is one piece, so that a mean over rows is one over pieces."""

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse a dataset that was made for another layout.

        Raises:
            RecipeError: it has another shape.
            IntegrityError: it speaks another vocabulary.
        """

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:
        """The rows as they are seen in their epochs.

        Args:
            epochs: of each row; shape (B,).
        """

    def laid(self, held: Packed, *, num_rows: int) -> Batch:
        """The rows as a batch; where there are fewer than ``num_rows``, padding follows."""
