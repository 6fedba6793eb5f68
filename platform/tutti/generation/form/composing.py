"""Requests with a form among others: each becomes several requests to whoever composes, and comes back as one piece.

The doors are those of :class:`tutti.generation.composing.Composing`, so whoever drives a model drives this. A request
without a form goes straight through.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.generation.composing import Composing
from tutti.generation.form.making import Making
from tutti.generation.form.plan import StepId
from tutti.generation.piece import Event, PieceMade, told_of
from tutti.generation.request import Request


@dataclass(eq=False)
class _Formed:
    """A request with a form, and its steps that are under way."""

    number: int
    making: Making
    told: bool
    under_way: set[int] = field(default_factory=set)
    ended: list[PieceMade] = field(default_factory=list)


class InSections:
    """Requests under way, of which those with a form are made section by section.

    Args:
        composing: makes the sections, and everything else.
    """

    def __init__(self, composing: Composing) -> None:
        self._composing = composing
        self._numbers = itertools.count()
        # Held by who submits, until it is known whose the number is that came of it.
        self._door = threading.RLock()
        self._plain: dict[int, int] = {}
        self._steps: dict[int, tuple[_Formed, StepId]] = {}
        self._asked: dict[int, int | _Formed] = {}

    @property
    def exact(self) -> bool:
        """As :attr:`tutti.generation.composing.Composing.exact`."""
        return self._composing.exact

    @property
    def whole(self) -> bool:
        """As :attr:`tutti.generation.composing.Composing.whole`."""
        return self._composing.whole

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return self._composing.idle

    def submit(self, request: Request, *, material: Score | None = None, told: bool = False) -> int:
        """As :meth:`tutti.generation.composing.Composing.submit`; with a form notes are told when all are there."""
        with self._door:
            number = next(self._numbers)
            if request.form is None:
                inner = self._composing.submit(request, material=material, told=told)
                self._plain[inner], self._asked[number] = number, inner
                return number
            if material is not None:
                raise RecipeError("a piece with a form starts from no file", remedy="leave out the form or the file")
            formed = _Formed(number, Making(request), told)
            self._begin(formed)
            self._asked[number] = formed
            return number

    def cancel(self, number: int) -> None:
        """As :meth:`tutti.generation.composing.Composing.cancel`."""
        with self._door:
            asked = self._asked.get(number)
            if isinstance(asked, _Formed):
                asked.making.cancelled = True
                for inner in asked.under_way:
                    self._composing.cancel(inner)
            elif asked is not None:
                self._composing.cancel(asked)

    def step(self) -> list[Event]:
        """Go on a little; what came of it, in order."""
        events: list[Event] = []
        made = self._composing.step()
        with self._door:
            for event in made:
                events += self._heard(event)
        return events

    def _heard(self, event: Event) -> Sequence[Event]:
        if event.number in self._steps:
            return self._taken(event) if isinstance(event, PieceMade) else ()
        number = self._plain[event.number]
        if isinstance(event, PieceMade):
            del self._plain[event.number], self._asked[number]
        return (replace(event, number=number),)

    def _taken(self, event: PieceMade) -> Sequence[Event]:
        """A step is over: begin what it was waited for by, or give the piece."""
        formed, name = self._steps.pop(event.number)
        formed.under_way.discard(event.number)
        formed.ended.append(event)
        if not formed.making.cancelled:
            formed.making.take(name, event.piece)
            self._begin(formed)
        if formed.under_way:
            return ()
        del self._asked[formed.number]
        piece = formed.making.piece()
        came_s = formed.ended[0].waited_s
        over = PieceMade(
            formed.number,
            piece,
            beside=max(each.beside for each in formed.ended),
            waited_s=came_s,
            stepped_s=sum(each.stepped_s for each in formed.ended),
        )
        return [*(told_of(formed.number, piece) if formed.told else ()), over]

    def _begin(self, formed: _Formed) -> None:
        """Submit every step that can be made."""
        making = formed.making
        while ready := list(making.ready()):
            for name in ready:
                if making.plan.steps[name].what == "move":
                    making.take(name, None)
                    continue
                request, material = making.asked(name)
                try:
                    inner = self._composing.submit(request, material=material)
                except RecipeError:
                    if making.plan.steps[name].what != "vary":
                        raise
                    # The asked pitches leave no room beside what a variation keeps: it returns as it was.
                    making.take(name, None)
                    continue
                self._steps[inner] = (formed, name)
                formed.under_way.add(inner)
