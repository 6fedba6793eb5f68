"""The doors through which requests come to whoever composes them: the batch run and the service use no others."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from tutti.corpus.score import Score
from tutti.generation.piece import Event, Piece, PieceMade, told_of
from tutti.generation.refusals import refuse_material
from tutti.generation.request import Request


class Composing(Protocol):
    """Requests under way, whoever composes them."""

    @property
    def exact(self) -> bool:
        """Whether a request gets the same notes to the bit whatever is under way beside it.

        Where it is False, rounding depends on the company, and the same requests must go together to get the same.
        """

    @property
    def whole(self) -> bool:
        """Whether pieces are made whole, so that notes and bars are told only when all of them are there."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""

    def submit(self, request: Request, *, material: Score | None = None, told: bool = False) -> int:
        """Take a request in; its number.

        Args:
            material: music to continue; the request's length counts from its end.
            told: whether tempos, notes and bars are wanted as they are made, and not the piece alone.

        Raises:
            RecipeError: a request that this model cannot take.
        """

    def cancel(self, number: int) -> None:
        """Give a request up: the next step makes a piece of what there is of it."""

    def step(self) -> list[Event]:
        """Go on a little; what came of it, in order."""


def drained(
    composing: Composing, numbers: Sequence[int], *, cancelled: Callable[[int], bool] | None = None
) -> list[Piece]:
    """Step until these requests are over; their pieces, in their order.

    Args:
        cancelled: asked between steps with a request's place in ``numbers``; True gives that request up.
    """
    pieces: dict[int, Piece] = {}
    while len(pieces) < len(numbers):
        for event in composing.step():
            if isinstance(event, PieceMade):
                pieces[event.number] = event.piece
        if cancelled is not None:
            for place, number in enumerate(numbers):
                if number not in pieces and cancelled(place):
                    composing.cancel(number)
    return [pieces[number] for number in numbers]


class Gathered:
    """Requests of a composer that makes pieces whole: a step makes those that wait, as many as go together.

    Args:
        generate: makes one piece a request, and refuses before anything runs.
        check: refuses a request that the model cannot take.
        model: what it is, for people.
        max_batch: most pieces that are made at once.
        take: refuses a file that a request cannot start from; None: it starts from none.
    """

    exact, whole = False, True

    def __init__(
        self,
        generate: Callable[..., list[Piece]],
        *,
        check: Callable[[Request], None],
        model: str,
        max_batch: int,
        take: Callable[[Request, Score | None], None] | None = None,
    ) -> None:
        self._generate, self._check = generate, check
        self._model, self._max_batch, self._take = model, max_batch, take
        self._numbers = itertools.count()
        self._waiting: deque[tuple[int, Request, Score | None, float]] = deque()
        self._told: set[int] = set()
        self._given_up: set[int] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def submit(self, request: Request, *, material: Score | None = None, told: bool = False) -> int:
        """As :meth:`Composing.submit`; notes and bars are told of when the piece is there."""
        self._check(request)
        if self._take is None:
            refuse_material([material], model=self._model)
        else:
            self._take(request, material)
        number = next(self._numbers)
        if told:
            self._told.add(number)
        self._waiting.append((number, request, material, time.monotonic()))
        return number

    def cancel(self, number: int) -> None:
        """As :meth:`Composing.cancel`."""
        self._given_up.add(number)

    def step(self) -> list[Event]:
        """The pieces of as many requests as go together."""
        taken = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
        if not taken:
            return []
        numbers = [number for number, _, _, _ in taken]
        given_up, began_s = self._given_up, time.monotonic()
        pieces = self._generate(
            [request for _, request, _, _ in taken],
            materials=[material for _, _, material, _ in taken],
            cancelled=lambda place: numbers[place] in given_up,
        )
        given_up.difference_update(numbers)
        stepped_s = time.monotonic() - began_s
        events: list[Event] = []
        for (number, _, _, came_s), piece in zip(taken, pieces, strict=True):
            if number in self._told:
                events += told_of(number, piece)
            events.append(PieceMade(number, piece, beside=len(taken), waited_s=began_s - came_s, stepped_s=stepped_s))
        self._told.difference_update(numbers)
        return events
