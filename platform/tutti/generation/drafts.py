"""Several drafts of one request, of which the one is taken that fits best what the request keeps of its file."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutti import seeding
from tutti.generation.piece import PieceMade


@dataclass(eq=False)
class Drafts:
    """Drafts of one request that are under way.

    Args:
        size: how many there are.
    """

    size: int
    _made: list[tuple[float, int, PieceMade]] = field(default_factory=list)

    @staticmethod
    def seed(root: int, draft: int) -> int:
        """Root of a draft's random streams; that of the first is the request's own."""
        return root if draft == 0 else seeding.derive(root, "draft", draft)

    def take(self, made: PieceMade, *, draft: int, fit: float) -> PieceMade | None:
        """Take a draft that is over; the best of all once they are, the earlier of equals.

        Args:
            fit: how well it fits, more is better; a draft that was given up is the last choice.
        """
        self._made.append((float("-inf") if made.piece.cancelled else fit, -draft, made))
        if len(self._made) < self.size:
            return None
        return max(self._made, key=lambda each: each[:2])[2]
