"""One model's requests under way in a replica: whoever comes joins those that step already.

A thread steps while there is anything to step; each request is answered when its own piece is over, whatever the others
do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from serve.composition import Composition, Job

if TYPE_CHECKING:
    from tutti.generation.composers import Composer
    from tutti.generation.piece import PieceMade

Deliver = Callable[[Composition | Exception], None]


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

    def submit(self, job: Job, deliver: Deliver) -> int:
        """Take a job in; its number.

        Args:
            deliver: called from the stepping thread, once, with what came of the job or with an error.

        Raises:
            RecipeError: a request or material that the model cannot take.
        """
        with self._lock:
            number = self._composing.submit(job.request, material=job.material)
            self._awaited[number] = deliver
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
                self._thread.start()
        return number

    def cancel(self, number: int) -> None:
        """Give a job up: it leaves at the next step, and nothing is delivered."""
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
        from tutti.generation.piece import PieceMade

        self._step_began_s = time.monotonic()
        try:
            events = self._composing.step()
        except Exception as error:
            self._begin_anew(error)
            return
        finally:
            self._step_began_s = None
        for event in events:
            if isinstance(event, PieceMade):
                with self._lock:
                    deliver = self._awaited.pop(event.number, None)
                if deliver is not None:
                    deliver(_composition(event))

    def _begin_anew(self, error: Exception) -> None:
        """Answer everybody with a bug of ours, and go on for those who come."""
        with self._lock:
            awaited, self._awaited = self._awaited, {}
            self._composing = self.model.open()
        for deliver in awaited.values():
            deliver(error)


def _composition(made: PieceMade) -> Composition:
    return Composition(
        made.piece.score,
        made.piece.refused_tokens,
        batch=made.beside,
        waited_s=made.waited_s,
        stepped_s=made.stepped_s,
    )
