"""One model's requests under way for many who ask: whoever comes joins those that step already.

The one loop over the engine, whoever drives it: a catalogue's actor has a desk for its blocks, a replica of the service
one for each of its models. A thread steps while there is anything to step; each request is answered when its own piece
is over, whatever the others do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from tutti.corpus.score import Score
from tutti.generation.composers import Composer
from tutti.generation.piece import Event, PieceMade
from tutti.generation.request import Request

Deliver = Callable[[Event | Exception], None]


class Desk:
    """Requests of one model.

    Args:
        model: who composes.
    """

    def __init__(self, model: Composer) -> None:
        self.model = model
        self._composing = model.open()
        self._lock = threading.Lock()
        self._awaited: dict[int, Deliver] = {}
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
                each piece last, or in place of anything more of a request an error.
            materials: music to continue, where a request has any.
            told: whether notes and bars are wanted as they are made.

        Raises:
            RecipeError: a request or material that the model cannot take; none was taken in.
        """
        numbers: list[int] = []
        with self._lock:
            try:
                for request, material in zip(requests, materials or [None] * len(requests), strict=True):
                    numbers.append(self._composing.submit(request, material=material, told=told))
            except BaseException:
                for number in numbers:
                    self._composing.cancel(number)
                raise
            self._awaited |= dict.fromkeys(numbers, deliver)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
                self._thread.start()
        return numbers

    def cancel(self, number: int) -> None:
        """Give a request up: it leaves at the next step, and nothing more is delivered. One that is over stays so."""
        with self._lock:
            if self._awaited.pop(number, None) is not None:
                self._composing.cancel(number)

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
        except Exception as error:
            self._begin_anew(error)
            return
        finally:
            self._step_began_s = None
        for event in events:
            with self._lock:
                over = isinstance(event, PieceMade)
                deliver = self._awaited.pop(event.number, None) if over else self._awaited.get(event.number)
            if deliver is not None:
                deliver(event)

    def _begin_anew(self, error: Exception) -> None:
        """Answer everybody with a bug of ours, and go on for those who come."""
        with self._lock:
            awaited, self._awaited = self._awaited, {}
            self._composing = self.model.open()
        for deliver in awaited.values():
            deliver(error)
