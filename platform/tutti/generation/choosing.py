"""Several pieces of one request, of which the best is kept.

The first candidate is the piece that the request would get alone; the others have seeds derived from its seed. They are
made beside each other, like requests of their own, and judged by :mod:`tutti.generation.judging`. What was chosen can
be made again alone: it is the piece of its candidate's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from tutti import seeding
from tutti.corpus.score import Score
from tutti.generation.judging import points_of, total
from tutti.generation.piece import Candidate, Piece
from tutti.generation.request import Request


class Makes(Protocol):
    """Makes one piece a request, in their order."""

    def __call__(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None,
        cancelled: Callable[[int], bool] | None,
    ) -> list[Piece]:
        """As :meth:`tutti.generation.composers.Composer.generate`."""


def candidates_of(request: Request) -> list[Request]:
    """The requests of which one piece is chosen; the request alone where it wants no choice."""
    seeds = [request.seed, *(seeding.derive(request.seed, "candidate", n) for n in range(1, request.best_of))]
    return [request.model_copy(update={"seed": seed}) for seed in seeds]


def best(pieces: Sequence[Piece], *, request: Request) -> Piece:
    """The piece to keep of those of :func:`candidates_of` a request, and how each was judged.

    The first, unjudged, where the request was given up.
    """
    if len(pieces) == 1 or any(piece.cancelled for piece in pieces):
        return replace(pieces[0], request=request, cancelled=any(piece.cancelled for piece in pieces))
    points = points_of(pieces, request=request)
    totals = [total(each) for each in points]
    chosen = totals.index(min(totals))
    candidates = tuple(
        Candidate(piece.request.seed, score, each, chosen=place == chosen)
        for place, (piece, score, each) in enumerate(zip(pieces, totals, points, strict=True))
    )
    return replace(pieces[chosen], request=request, candidates=candidates)


def chosen(
    make: Makes,
    requests: Sequence[Request],
    *,
    materials: Sequence[Score | None] | None,
    cancelled: Callable[[int], bool] | None,
) -> list[Piece]:
    """One piece a request, in their order, the best of as many as each asks.

    Args:
        make: makes the candidates, all together.
        materials: as for :meth:`tutti.generation.composers.Composer.generate`.
        cancelled: asked with a request's number.
    """
    if all(request.best_of == 1 for request in requests):
        return make(requests, materials=materials, cancelled=cancelled)
    groups = [candidates_of(request) for request in requests]
    of = [number for number, group in enumerate(groups) for _ in group]
    pieces = iter(
        make(
            [candidate for group in groups for candidate in group],
            materials=None if materials is None else [materials[number] for number in of],
            cancelled=None if cancelled is None else lambda place: cancelled(of[place]),
        )
    )
    return [
        best([next(pieces) for _ in group], request=request) for request, group in zip(requests, groups, strict=True)
    ]
