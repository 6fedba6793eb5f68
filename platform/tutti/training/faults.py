"""Faults on order: what happens to trainings in the world, made to happen at a stated step.

``rank_killed@step=120`` and its kin do the real thing wherever a process can do it to itself: a signal that cannot be
caught, a stop, an allocation that the machine refuses. They are for trying a cluster's recovery before it is needed,
and for the tests and the soak that hold ours. One fires once in the life of a run: that it did is written into the
run's folder before.
"""

from __future__ import annotations

import ctypes
import difflib
import math
import os
import re
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import psutil
import torch

from tutti import storage
from tutti.errors import RecipeError
from tutti.storage import Folder

_SPEC = re.compile(r"(?P<kind>[a-z_]+)@(?P<settings>\w+=[\w.]+(?:,\w+=[\w.]+)*)")
_FIRED = "faults"


class Kind(StrEnum):
    """What can be made to happen."""

    RANK_KILLED = "rank_killed"
    RANK_HUNG = "rank_hung"
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out_of_memory"
    NAN_LOSS = "nan_loss"
    STORAGE_DOWN = "storage_down"
    TRACKER_DOWN = "tracker_down"


LASTING = frozenset({Kind.STORAGE_DOWN, Kind.TRACKER_DOWN})
"""Faults that last ``seconds``; the others are over at once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on order.

    Args:
        step: optimizer step before which it happens, counted from 0.
        rank: whom it befalls; the first rank by default. Storage is away for all of them.
        seconds: how long, for those that last.
    """

    kind: Kind
    step: int
    rank: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f",seconds={self.seconds:g}" if self.kind in LASTING else ""
        return f"{self.kind}@step={self.step},rank={self.rank}{lasting}"


def parse(text: str) -> Fault:
    """A fault from ``KIND@step=N``, with ``,rank=R`` and, for those that last, ``,seconds=S``.

    Raises:
        RecipeError: it names no fault.
    """
    match = _SPEC.fullmatch(text)
    kinds = [str(kind) for kind in Kind]
    if match is None or match["kind"] not in kinds:
        near = difflib.get_close_matches(text.partition("@")[0], kinds, n=1)
        remedy = f"did you mean {near[0]}@step=120?" if near else f"write KIND@step=120; kinds are {', '.join(kinds)}"
        raise RecipeError(f"fault {text!r} is not known", remedy=remedy)
    kind = Kind(match["kind"])
    pairs = [pair.split("=") for pair in match["settings"].split(",")]
    given = dict(pairs)
    allowed = {"step", "rank", *(("seconds",) if kind in LASTING else ())}
    odd = sorted(set(given) - allowed)
    twice = [name for name in given if [each for each, _ in pairs].count(name) > 1]
    if odd or twice or "step" not in given:
        problem = f"does not know {odd[0]!r}" if odd else f"names {twice[0]!r} twice" if twice else "names no step"
        raise RecipeError(f"fault {text!r} {problem}", remedy=f"settings of {kind} are {', '.join(sorted(allowed))}")
    try:
        seconds = float(given.get("seconds", 120 if kind in LASTING else 0))
        if not math.isfinite(seconds):
            raise ValueError("seconds are no number from 0")
        return Fault(kind, int(given["step"]), int(given.get("rank", 0)), seconds)
    except ValueError as error:
        raise RecipeError(f"fault {text!r} cannot be read ({error})", remedy="write whole numbers") from None


class Faults:
    """Those of one run, on one rank.

    Args:
        run: where it is written that one fired.
        rank: this rank.
        preempt: how a notice of preemption is given; None where nobody could act on it.
        cut_tracker: how the record of the run is cut off for some seconds.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        run: Folder,
        rank: int,
        preempt: Callable[[], None] | None = None,
        cut_tracker: Callable[[float], None] | None = None,
    ) -> None:
        self._run, self._rank = run, rank
        self._preempt, self._cut_tracker = preempt, cut_tracker
        self._waiting = [
            (number, fault)
            for number, fault in enumerate(faults)
            if fault.kind != Kind.NAN_LOSS and (fault.rank == rank or fault.kind == Kind.STORAGE_DOWN)
        ]
        self._poisoned = frozenset(fault.step for fault in faults if fault.kind == Kind.NAN_LOSS)

    def before(self, step: int) -> None:
        """Let happen what is due before ``step``.

        Raises:
            PlaceError: storage is away; what did not happen yet does when it is asked for again.
        """
        for number, fault in [each for each in self._waiting if each[1].step <= step]:
            mark = f"{_FIRED}/{number}-rank-{self._rank}"
            happened = self._run.exists(mark)
            if not happened:
                self._run.write(mark, str(fault).encode())
            self._waiting.remove((number, fault))
            if not happened:
                self._happen(fault)

    def poisons(self, number: int) -> bool:
        """Whether the batch of this number has no finite loss; always the same batch, so it can be skipped."""
        return number in self._poisoned

    def _happen(self, fault: Fault) -> None:
        if fault.kind == Kind.RANK_KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == Kind.RANK_HUNG:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.kind == Kind.NODE_LOST:
            _kill_node()
        elif fault.kind == Kind.OUT_OF_MEMORY:
            _exhaust_memory()
        elif fault.kind == Kind.STORAGE_DOWN:
            storage.cut_off(fault.seconds)
        elif fault.kind == Kind.PREEMPTED and self._preempt:
            self._preempt()
        elif fault.kind == Kind.TRACKER_DOWN and self._cut_tracker:
            self._cut_tracker(fault.seconds)


def _kill_node() -> None:
    """End Ray's daemon of this machine, and with it all its workers, as a power cut would."""
    process = psutil.Process().parent()
    while process is not None and process.name() != "raylet":
        process = process.parent()
    if process is None:
        raise RecipeError("node_lost needs a worker of a Ray node", remedy="train on a cluster of several nodes")
    _die_with_parent()
    process.kill()
    signal.pause()


def _die_with_parent() -> None:
    # A machine that is gone takes its processes along; without this the worker would outlive its daemon for a while.
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _exhaust_memory() -> None:
    """Ask for more than there may be: a real refusal of the allocator, without starving the machine's others."""
    if torch.cuda.is_available():
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, hard))
    try:
        torch.ones(2**32, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
