"""What one attempt costs, as it goes: a stopwatch over the ledger of the attempts before it."""

from __future__ import annotations

import threading
import time
from typing import Any

from tutti.storage import Folder
from tutti.training.ledger import Activity, Bill, Ledger, Prices, Stopwatch
from tutti.training.plan import Attempt


class Accounts:
    """The bill of a run, kept by its first rank: all workers live by the same clock.

    Args:
        run: where the bill is written.
        attempt: knows what was spent before, and when this one was asked for.
        kind: of worker, see :func:`tutti.training.ledger.kind_of`.
        workers: of this attempt.
    """

    def __init__(self, run: Folder, attempt: Attempt, *, kind: str, workers: int, prices: Prices) -> None:
        self._run, self._attempt = run, attempt
        self._kind, self._workers, self._prices = kind, workers, prices
        self._before_s = max(time.time() - attempt.began_unix_s, 0.0)
        self.watch = Stopwatch(Activity.START)
        self._lock = threading.Lock()
        self._taken: dict[int, tuple[Ledger, int]] = {}
        self.published_step = -1
        self.kept, self.tokens = attempt.ledger, 0

    def now(self) -> Ledger:
        """All that was spent until now."""
        spent = self.watch.seconds()
        # What workers need to come up again after a failure is part of what the failure cost.
        start_s = spent.pop(Activity.START, 0.0) + self._before_s
        begun = self._attempt.ledger.charged(
            self._attempt.start_is, kind=self._kind, workers=self._workers, seconds=start_s
        )
        return begun.charged_all(spent, kind=self._kind, workers=self._workers)

    def resumed(self, tokens: int) -> None:
        """A checkpoint was read that had learnt so many tokens."""
        self.tokens = tokens

    def taken(self, step: int, *, tokens: int) -> None:
        """A checkpoint was copied and is on its way."""
        ledger = self.now()
        with self._lock:
            self._taken[step] = ledger, tokens

    def published(self, step: int) -> None:
        """It is complete: what was spent until then cannot be lost any more. Called from the uploader's thread.

        Raises:
            PlaceError: the bill cannot be written; it may be tried again.
        """
        with self._lock:
            self.kept, self.tokens = self._taken[step]
            self.published_step = step
        Bill(self.kept, self._prices, self.tokens).write(self._run)
        with self._lock:
            del self._taken[step]

    def close(self, *, tokens: int) -> Bill:
        """The run's bill at its end; written."""
        bill = Bill(self.now(), self._prices, tokens)
        bill.write(self._run)
        return bill


def facts_of(bill: Bill) -> dict[str, Any]:
    """A bill for a model's card."""
    hours = {kind: round(bill.ledger.worker_seconds(kind=kind) / 3600, 4) for kind in bill.ledger.kinds}
    per_unit = bill.tokens_per_unit
    return {
        "currency": bill.prices.currency,
        "worker_hours": hours,
        "price": round(bill.price, 4),
        "tokens_per_unit": None if per_unit is None else round(per_unit, 1),
    }
