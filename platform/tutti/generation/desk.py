"""One model's requests under way for many who ask: whoever comes joins those that step already.

The one loop over the engine, whoever drives it: a catalogue's actor has a desk for its blocks, a replica of the service
one for each of its models. A thread steps while there is anything to step; each request is answered when its own piece
is over, whatever the others do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tutti.corpus.score import Score
from tutti.generation.choosing import best, candidates_of
from tutti.generation.composers import Composer
from tutti.generation.form.composing import InSections
from tutti.generation.piece import Event, PieceMade, told_of
from tutti.generation.request import Request

Deliver = Callable[[Event | Exception], None]


@dataclass(eq=False)
class _Awaited:
    """A request under way, and the pieces that are there of its candidates, by their numbers."""

    request: Request
    deliver: Deliver
    told: bool
    candidates: dict[int, PieceMade | None] = field(default_factory=dict)

    def answer(self) -> list[Event]:
        """What is told when all candidates are there: the best of them."""
        made = [each for each in self.candidates.values() if each is not None]
        number = next(iter(self.candidates))
        piece = best([each.piece for each in made], request=self.request)
        came_s = min(each.waited_s for each in made)
        over = PieceMade(
            number,
            piece,
            beside=max(each.beside for each in made),
            waited_s=came_s,
            stepped_s=max(each.waited_s + each.stepped_s for each in made) - came_s,
        )
        return [*(told_of(number, piece) if self.told and len(made) > 1 else ()), over]


class Desk:
    """Requests of one model.

    Args:
        model: who composes.
    """

    def __init__(self, model: Composer) -> None:
        self.model = model
        self._composing = InSections(model.open())
        self._lock = threading.Lock()
        self._awaited: dict[int, _Awaited] = {}
        self._of_candidate: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._step_began_s: float | None = None

    @property
    def exact(self) -> bool:
        """As :attr:`tutti.generation.composing.Composing.exact`."""
        return self._composing.exact

    @property
    def whole(self) -> bool:
        """As :attr:`tutti.generation.composing.Composing.whole`."""
        return self._composing.whole

    def submit(
        self,
        requests: Sequence[Request],
        *,
        deliver: Deliver,
        materials: Sequence[Score | None] | None = None,
        told: bool = False,
    ) -> list[int]:
        """Take requests in, all of them before the next step; their numbers.

        Args:
            deliver: called from the stepping thread, in order, with what comes of them: notes and bars where ``told``,
                each piece last, or in place of anything more of a request an error. Of several to choose from, the best
                one alone is told of, when all are there.
            materials: music to continue, where a request has any.
            told: whether notes and bars are wanted as they are made.

        Raises:
            RecipeError: a request or material that the model cannot take; none was taken in.
        """
        numbers: list[int] = []
        with self._lock:
            try:
                for request, material in zip(requests, materials or [None] * len(requests), strict=True):
                    numbers.append(self._taken_in(request, material, _Awaited(request, deliver, told=told)))
            except BaseException:
                for number in numbers:
                    self._give_up(number)
                raise
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
                self._thread.start()
        return numbers

    def cancel(self, number: int) -> None:
        """Give a request up: it leaves at the next step, and nothing more is delivered. One that is over stays so."""
        with self._lock:
            self._give_up(number)

    def close(self) -> None:
        """Give everything up, and wait for the step under way."""
        with self._lock:
            for number in list(self._awaited):
                self._give_up(number)
            thread = self._thread
        if thread is not None:
            thread.join()

    def _taken_in(self, request: Request, material: Score | None, awaited: _Awaited) -> int:
        """A request's candidates, under the number of the first."""
        told = awaited.told and request.best_of == 1
        try:
            for candidate in candidates_of(request):
                number = self._composing.submit(candidate, material=material, told=told)
                awaited.candidates[number] = None
        except BaseException:
            for number in awaited.candidates:
                self._composing.cancel(number)
            raise
        first = next(iter(awaited.candidates))
        self._awaited[first] = awaited
        self._of_candidate |= dict.fromkeys(awaited.candidates, first)
        return first

    def _give_up(self, number: int) -> None:
        awaited = self._awaited.pop(number, None)
        for candidate in () if awaited is None else awaited.candidates:
            del self._of_candidate[candidate]
            self._composing.cancel(candidate)

    @property
    def stepping_s(self) -> float:
        """How long the step under way has taken; 0 between steps."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._composing.idle:
                    self._thread = None
                    return
            self._step()

    def _step(self) -> None:
        self._step_began_s = time.monotonic()
        try:
            events = self._composing.step()
            self._deliver(events)
        except Exception as error:
            self._begin_anew(error)
        finally:
            self._step_began_s = None

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            with self._lock:
                awaited = self._awaited.get(self._of_candidate.get(event.number, -1))
                if awaited is not None and isinstance(event, PieceMade):
                    awaited.candidates[event.number] = event
                    if None in awaited.candidates.values():
                        continue
                    for number in awaited.candidates:
                        self._awaited.pop(self._of_candidate.pop(number), None)
            if awaited is not None:
                for each in awaited.answer() if isinstance(event, PieceMade) else [event]:
                    awaited.deliver(each)

    def _begin_anew(self, error: Exception) -> None:
        """Answer everybody with a bug of ours, and go on for those who come."""
        with self._lock:
            everybody, self._awaited, self._of_candidate = self._awaited, {}, {}
            self._composing = InSections(self.model.open())
        for awaited in everybody.values():
            awaited.deliver(error)
