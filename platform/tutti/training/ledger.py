"""What a training costs: worker-seconds by kind of worker and by what they were spent on, and their price.

A worker-second is one worker for one second, whether it computes or waits: machines are paid for by the clock. Every
second of a run belongs to exactly one :class:`Activity`. What was done after the last published checkpoint and then
thrown away by a failure is moved to ``lost`` (:meth:`Ledger.lost_since`), so totals stay what the clock said.

Seconds are kept as whole microseconds, so that merging ledgers in any grouping gives the same one to the bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import Field, NonNegativeFloat

from tutti.config import Settings
from tutti.errors import IntegrityError, MissingError
from tutti.storage import Folder

LEDGER = "ledger.json"
CPU, GPU = "cpu", "gpu"
"""Kinds of workers; one with a GPU may also be named by it, such as ``H100``."""
_US = 1_000_000
_HOUR_S = 3600.0


class Activity(StrEnum):
    """What a worker's time goes into; the list is closed."""

    START = "start"
    """Workers come up, read the data's index, load the model and the checkpoint."""
    TRAIN = "train"
    VALIDATE = "validate"
    CHECKPOINT = "checkpoint"
    """Only while training stands still for it."""
    SAMPLE = "sample"
    LOST = "lost"
    """Work that a failure threw away, and the time until it was noticed and workers were there again."""
    WAIT = "wait"
    """Nothing to do: storage or other workers are awaited."""


class Prices(Settings):
    """What workers cost; free unless a recipe says otherwise."""

    currency: str = Field(default="EUR", min_length=1, max_length=16, description="unit of money, for people")
    worker_hour: dict[str, NonNegativeFloat] = Field(
        default={}, description="price of one worker for one hour, by kind: cpu, gpu, or a GPU's name such as H100"
    )

    def of(self, kind: str) -> float:
        """Price of one worker-hour; a GPU without a price of its own costs what ``gpu`` does."""
        fallback = 0.0 if kind == CPU else self.worker_hour.get(GPU, 0.0)
        return self.worker_hour.get(kind, fallback)


def kind_of(*, gpus_per_worker: int, accelerator: str | None = None) -> str:
    """Kind of a worker, by its GPUs and, where it is known, their name."""
    return (accelerator or GPU) if gpus_per_worker else CPU


@dataclass(frozen=True)
class Ledger:
    """What was spent until now; a value, never changed in place.

    Args:
        worker_us: worker-microseconds by kind of worker, then by activity.
        restarts: how often workers were started again after a failure.
    """

    worker_us: Mapping[str, Mapping[Activity, int]] = field(default_factory=dict)
    restarts: int = 0

    def __post_init__(self) -> None:
        entries = {
            kind: MappingProxyType({activity: spent[activity] for activity in Activity if spent.get(activity)})
            for kind, spent in sorted(self.worker_us.items())
        }
        object.__setattr__(
            self, "worker_us", MappingProxyType({kind: spent for kind, spent in entries.items() if spent})
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only views of mappings do not survive pickling between Ray's processes.
        return (Ledger, ({kind: dict(spent) for kind, spent in self.worker_us.items()}, self.restarts))

    def charged(self, activity: Activity, *, kind: str, workers: int, seconds: float) -> Ledger:
        """The ledger after ``workers`` workers spent ``seconds`` of wall time each."""
        return self.merged(Ledger({kind: {activity: workers * round(seconds * _US)}}))

    def charged_all(self, seconds: Mapping[Activity, float], *, kind: str, workers: int) -> Ledger:
        """The ledger after all that a :class:`Stopwatch` measured, in seconds of wall time."""
        spent = {activity: workers * round(passed * _US) for activity, passed in seconds.items()}
        return self.merged(Ledger({kind: spent}))

    def restarted(self) -> Ledger:
        """The ledger after workers were started once more."""
        return Ledger(self.worker_us, restarts=self.restarts + 1)

    def merged(self, other: Ledger) -> Ledger:
        """Both together."""
        kinds = {*self.worker_us, *other.worker_us}
        return Ledger(
            {kind: {each: self._us(kind, each) + other._us(kind, each) for each in Activity} for kind in kinds},
            restarts=self.restarts + other.restarts,
        )

    def lost_since(self, checkpoint: Ledger) -> Ledger:
        """The ledger with all that was spent after ``checkpoint``, whatever on, counted as lost.

        Args:
            checkpoint: this same ledger as it was when the last published checkpoint was taken.
        """
        kept = {kind: dict(spent) for kind, spent in checkpoint.worker_us.items()}
        for kind, spent in self.worker_us.items():
            thrown_away = sum(spent.values()) - sum(kept.get(kind, {}).values())
            of_kind = kept.setdefault(kind, {})
            of_kind[Activity.LOST] = of_kind.get(Activity.LOST, 0) + thrown_away
        return Ledger(kept, restarts=self.restarts)

    def worker_seconds(self, *, kind: str | None = None, activity: Activity | None = None) -> float:
        """Worker-seconds of one kind or of all, of one activity or of all."""
        kinds = self.worker_us if kind is None else (kind,)
        activities = Activity if activity is None else (activity,)
        return sum(self._us(each, of) for each in kinds for of in activities) / _US

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of workers that were there, sorted."""
        return tuple(self.worker_us)

    @property
    def lost_seconds(self) -> float:
        """Worker-seconds lost to failures."""
        return self.worker_seconds(activity=Activity.LOST)

    def price(self, prices: Prices, *, activity: Activity | None = None) -> float:
        """Price of all, or of one activity, in the currency of ``prices``."""
        return sum(self.worker_seconds(kind=kind, activity=activity) / _HOUR_S * prices.of(kind) for kind in self.kinds)

    def tokens_per_unit(self, prices: Prices, tokens: int) -> float | None:
        """Tokens learnt for one unit of money; None where nothing was to be paid."""
        price = self.price(prices)
        return tokens / price if price else None

    def figures(self, prices: Prices, *, tokens: int) -> dict[str, float]:
        """All of it by flat names, for a tracker: worker-seconds, restarts, money.

        Args:
            tokens: tokens learnt, those of thrown away steps not counted.
        """
        told = {
            "cost_worker_s": self.worker_seconds(),
            **{f"cost_worker_s_{kind}": self.worker_seconds(kind=kind) for kind in self.kinds},
            **{f"cost_worker_s_{activity}": self.worker_seconds(activity=activity) for activity in Activity},
            "cost_restarts": float(self.restarts),
            "cost_price": self.price(prices),
            "cost_price_lost": self.price(prices, activity=Activity.LOST),
        }
        per_unit = self.tokens_per_unit(prices, tokens)
        return told if per_unit is None else {**told, "cost_tokens_per_unit": per_unit}

    def to_dict(self) -> dict[str, Any]:
        """As plain values: seconds, not microseconds, for whoever reads the file."""
        seconds = {
            kind: {str(activity): us / _US for activity, us in spent.items()} for kind, spent in self.worker_us.items()
        }
        return {"worker_seconds": seconds, "restarts": self.restarts}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Ledger:
        """What :meth:`to_dict` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it did not.
        """
        spent = {
            str(kind): {Activity(activity): round(seconds * _US) for activity, seconds in of_kind.items()}
            for kind, of_kind in document["worker_seconds"].items()
        }
        return cls(spent, restarts=int(document["restarts"]))

    def write(self, folder: Folder, *, prices: Prices, tokens: int) -> None:
        """Put the ledger and what it is priced by into a run's folder, whole or not at all.

        Raises:
            PlaceError: the folder cannot be written.
        """
        Bill(self, prices, tokens).write(folder)

    @classmethod
    def read(cls, folder: Folder) -> Ledger:
        """The ledger of a run so far; an empty one where the run is new.

        Raises:
            IntegrityError: what is there is not a ledger.
            PlaceError: the folder cannot be read.
        """
        bill = Bill.read(folder)
        return cls() if bill is None else bill.ledger

    def _us(self, kind: str, activity: Activity) -> int:
        return self.worker_us.get(kind, {}).get(activity, 0)


@dataclass(frozen=True)
class Bill:
    """What lies in a run's folder: the ledger, its prices, and what was had for it.

    Args:
        tokens: tokens learnt until the last published checkpoint.
    """

    ledger: Ledger
    prices: Prices
    tokens: int = 0

    def write(self, folder: Folder) -> None:
        """Put it into a run's folder, whole or not at all.

        Raises:
            PlaceError: the folder cannot be written.
        """
        document = {**self.ledger.to_dict(), "prices": self.prices.model_dump(mode="json"), "tokens": self.tokens}
        folder.write(LEDGER, json.dumps(document, indent=2, ensure_ascii=False).encode())

    @classmethod
    def read(cls, folder: Folder) -> Bill | None:
        """The bill in a run's folder, or None where none was written.

        Raises:
            IntegrityError: what is there is not a bill.
            PlaceError: the folder cannot be read.
        """
        try:
            data = folder.read(LEDGER)
        except MissingError:
            return None
        try:
            document = json.loads(data)
            prices = Prices.model_validate(document["prices"])
            return cls(Ledger.from_dict(document), prices, int(document["tokens"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{folder.uri}/{LEDGER} is not a ledger ({type(error).__name__})") from error

    @property
    def price(self) -> float:
        """Of all that was spent."""
        return self.ledger.price(self.prices)

    @property
    def tokens_per_unit(self) -> float | None:
        """Tokens learnt for one unit of money; None where nothing was to be paid."""
        return self.ledger.tokens_per_unit(self.prices, self.tokens)

    def figures(self) -> dict[str, float]:
        """All of it by flat names, for a tracker."""
        return self.ledger.figures(self.prices, tokens=self.tokens)


class Stopwatch:
    """Gives every moment to exactly one activity, by a clock that only goes forward. For one thread.

    Args:
        activity: what goes on when nothing else was said.
        clock: seconds that never go back.
    """

    def __init__(self, activity: Activity = Activity.START, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = activity
        self._began_s = clock()
        self._spent_s = dict.fromkeys(Activity, 0.0)

    @contextmanager
    def on(self, activity: Activity) -> Iterator[None]:
        """Count the block as ``activity``; what was going on stands still meanwhile, so blocks may lie in blocks."""
        outer = self._now
        self.turn(activity)
        try:
            yield
        finally:
            self.turn(outer)

    def turn(self, activity: Activity) -> None:
        """Count what follows as ``activity``."""
        moment_s = self._clock()
        self._spent_s[self._now] += moment_s - self._began_s
        self._now, self._began_s = activity, moment_s

    def seconds(self) -> dict[Activity, float]:
        """Seconds of wall time by activity since the start, until now; those without any are left out."""
        self.turn(self._now)
        return {activity: spent_s for activity, spent_s in self._spent_s.items() if spent_s}

    def lap(self) -> dict[Activity, float]:
        """As :meth:`seconds`, and begin again at zero."""
        spent_s = self.seconds()
        self._spent_s = dict.fromkeys(Activity, 0.0)
        return spent_s
