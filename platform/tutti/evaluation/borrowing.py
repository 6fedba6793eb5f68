"""What pieces have in common with the works that a model learnt from, and which works these are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset.learnt import Named, Works
from tutti.metrics.originality import LIMITS, Originality, Passage, WorkIndex, is_copy

Figures = NDArray[np.float64]

MOST_NOTES = 20_000_000
"""Of an index: 1.3 GB of memory."""


@dataclass(frozen=True)
class Borrowings:
    """What each of W pieces shares.

    Args:
        found: by piece.
        named: the works by their identifiers.
    """

    found: tuple[Originality, ...]
    named: dict[str, Named]

    @property
    def copies(self) -> NDArray[np.bool_]:
        """Which pieces :func:`tutti.metrics.originality.is_copy` takes for copies; shape (W,)."""
        return np.array([is_copy(each, limits=LIMITS) for each in self.found], dtype=bool)

    @property
    def melody_bits(self) -> Figures:
        """What the longest passage of each melody tells, 0 where no work holds any; shape (W,)."""
        return np.array([0 if each.melody is None else each.melody.bits for each in self.found], dtype=np.float64)

    @property
    def texture_bits(self) -> Figures:
        """The same of the texture."""
        return np.array([0 if each.texture is None else each.texture.bits for each in self.found], dtype=np.float64)

    @property
    def shared_share(self) -> Figures:
        """Notes of each piece that one work has, as a share; shape (W,)."""
        return np.array([0 if each.shared is None else each.shared.share for each in self.found], dtype=np.float64)

    def longest(self, piece: int) -> Passage | None:
        """The passage of a piece that comes nearest to its limit, in melody or texture."""
        found = self.found[piece]
        by_limit = [
            (passage.bits / limit, passage)
            for passage, limit in ((found.melody, LIMITS.melody_bits), (found.texture, LIMITS.texture_bits))
            if passage is not None
        ]
        return max(by_limit, key=lambda pair: pair[0])[1] if by_limit else None

    def plain(self) -> Iterator[dict[str, Any]]:
        """Each piece's findings as plain values, works with their names and licences."""
        for found, copy in zip(self.found, self.copies.tolist(), strict=True):
            parts = {part: getattr(found, part) for part in ("melody", "texture", "shared")}
            yield {"copy": copy} | {
                part: None if each is None else asdict(each) | {"work": asdict(self.named[each.work_id])}
                for part, each in parts.items()
            }


class Lender:
    """The works of a training, ready to be asked what pieces have of them."""

    def __init__(self, works: Works) -> None:
        self._named = {named.work_id: named for named in works.named}
        self._index = WorkIndex.of(works.batch, work_ids=[named.work_id for named in works.named])

    def asked(self, pieces: ScoreBatch) -> Borrowings:
        """What each piece shares with the works."""
        return Borrowings(tuple(self._index.originality(pieces)), self._named)
