"""The tracker of a training: figures go into a queue, one thread carries them to MLflow.

``log`` costs the training loop a dictionary's copy; a SQLite write costs the thread 6 to 10 ms, at most once a second.
A server that is away is tried again with growing pauses while the queue fills; a full queue drops figures and says how
many. Nothing here ever stops a training, and a server that refuses its first call does not even delay one.

What a run keeps, by convention::

    parameters            the recipe, flat (training.steps, model.flavour, …)
    figures               curves by step
    pictures/loss.png     the loss picture (tutti.training.picture)
    samples/sample.mid    one piece of the finished model, with sample.flac and sample.png of the same piece
    recipe.yaml, …        any other file, by its path
    bundle/<digest>-…/    the files of a registered version (tutti.registry.versions)

Rank 0 owns the run. The tracker holds a thread, so it is made where it works: :class:`MlflowTracking` is plain values
and travels to a worker, which calls :meth:`MlflowTracking.open`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mlflow.exceptions import MlflowException

from tutti.errors import PlaceError, RecipeError
from tutti.registry.backend import Backend
from tutti.registry.run_record import Figures, RunRecord, check_artifact_path

LOSS_PICTURE = "pictures/loss.png"
SAMPLE_MIDI, SAMPLE_FLAC, SAMPLE_PICTURE = "samples/sample.mid", "samples/sample.flac", "samples/sample.png"
UNTRACKED = "untracked"
"""What ``start`` returns where no run could be opened in time."""

QUEUE_CALLS = 10_000
QUEUE_ARTIFACT_BYTES = 64 * 2**20
FLUSH_EVERY_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

_log = logging.getLogger(__name__)


def prepare(tracking_uri: str) -> None:
    """Make the SQLite file's tables, or greet the server, before workers start.

    Raises:
        PlaceError: the backend cannot be used.
    """
    Backend(tracking_uri).prepare()


@dataclass(frozen=True)
class MlflowTracking:
    """How to track one training, as plain values.

    Args:
        tracking_uri: ``sqlite:////path/mlflow.db`` or ``http(s)://host:port``.
        experiment: MLflow's name for a group of runs.
        run_key: hash of inputs, settings and code version; a run with the same key is continued.
        artifacts: URI where the files of a new experiment go; None puts them beside the SQLite file, or where the
            server decides.
        start_limit_s: how long ``start`` waits for the first answer before the training goes on without the run's id;
            a refusal is an answer, so a server that is away costs no more than the greeting.
        finish_limit_s: how long ``finish`` waits for the queue.
    """

    tracking_uri: str
    experiment: str
    run_key: str
    artifacts: str | None = None
    start_limit_s: float = 10.0
    finish_limit_s: float = 30.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.\-]{1,250}", self.run_key):
            raise RecipeError(f"run key {self.run_key!r} is not a name", remedy="use letters, digits, _, . and -")
        if not self.experiment.strip():
            raise RecipeError("the experiment has no name", remedy="name it")

    def open(self) -> MlflowTracker:
        """The tracker; call it in the process that trains.

        Raises:
            PlaceError: the address is of an unknown kind.
        """
        return MlflowTracker(self)


class MlflowTracker:
    """A :class:`tutti.training.tracker.Tracker` on MLflow."""

    def __init__(self, tracking: MlflowTracking) -> None:
        self.dropped_calls = 0
        self._tracking = tracking
        self._backend = Backend(tracking.tracking_uri)
        self._record: RunRecord | None = None
        self._answered = threading.Event()
        self._opened = threading.Event()
        self._finishing = threading.Event()
        self._abandoned = threading.Event()
        self._lock = threading.Lock()
        self._figures: deque[Figures] = deque()
        self._taken: list[Figures] = []
        self._artifacts: deque[tuple[str, bytes]] = deque()
        self._artifact_bytes = 0
        self._thread: threading.Thread | None = None
        self._failed = False
        self._cut_off_until_s = 0.0

    def start(self, *, parameters: Mapping[str, str | int | float], tags: Mapping[str, str]) -> str:
        """Open the run of the key, or find it again; its id, or ``untracked`` where MLflow refuses or is slow.

        The thread goes on trying, so what is given meanwhile reaches a late server.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._carry, args=(dict(parameters), dict(tags)), name="mlflow-tracker", daemon=True
            )
            self._thread.start()
        self._answered.wait(self._tracking.start_limit_s)
        return self._record.run_id if self._record else UNTRACKED

    def run_id(self, *, limit_s: float) -> str:
        """The id of the run that ``start`` opens, for who cannot go on without it.

        Args:
            limit_s: how long to wait for MLflow.

        Raises:
            PlaceError: MLflow did not open the run in that time.
        """
        self._opened.wait(limit_s)
        if self._record is None:
            raise PlaceError(
                f"MLflow at {self._backend.shown} did not open the run of {self._tracking.experiment} within "
                f"{limit_s:g} s",
                remedy="start it and try again: what is finished is found",
            )
        return self._record.run_id

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Queue figures of one step; a full queue, or what is no number, drops them."""
        try:
            values = {name: float(value) for name, value in figures.items()}
        except (TypeError, ValueError):
            _log.warning("figures of step %d are not all numbers and are dropped: %r", step, figures)
            self.dropped_calls += 1
            return
        if self._finishing.is_set() or len(self._figures) + len(self._taken) >= QUEUE_CALLS:
            self.dropped_calls += 1
            return
        self._figures.append(Figures(values, step, time.time_ns() // 1_000_000))

    def artifact(self, path: str, data: bytes) -> None:
        """Queue one file.

        Raises:
            InputError: the path is not below the run.
        """
        check_artifact_path(path)
        with self._lock:
            if self._finishing.is_set() or self._artifact_bytes + len(data) > QUEUE_ARTIFACT_BYTES:
                _log.warning("MLflow's queue is full or closed: %s (%d bytes) is not kept", path, len(data))
                return
            self._artifact_bytes += len(data)
            self._artifacts.append((path, data))

    def cut_off(self, seconds: float) -> None:
        """Let MLflow be out of reach for some seconds, as an outage would: to try what happens then."""
        self._cut_off_until_s = time.monotonic() + seconds

    def finish(self, *, failed: bool = False) -> None:
        """Deliver what is queued and close the run, within the limit."""
        self._failed = failed
        self._finishing.set()
        if self._thread is None:
            return
        self._thread.join(self._tracking.finish_limit_s)
        self._abandoned.set()
        lost = self.dropped_calls + len(self._figures) + len(self._taken)
        if self._thread.is_alive() or lost or self._artifacts:
            _log.warning(
                "MLflow at %s did not take everything: %d calls of log and %d files are lost",
                self._backend.shown, lost, len(self._artifacts),
            )  # fmt: skip

    def _carry(self, parameters: Mapping[str, str | int | float], tags: Mapping[str, str]) -> None:
        def open_record() -> None:
            try:
                self._record = RunRecord.open(
                    self._backend,
                    experiment=self._tracking.experiment,
                    run_key=self._tracking.run_key,
                    parameters=parameters,
                    tags=tags,
                    artifacts=self._tracking.artifacts,
                )
            finally:
                self._answered.set()

        self._attempt(open_record, "opening the run")
        self._opened.set()
        record = self._record
        if record is None:
            return
        while True:
            # Read before delivering: what was queued before finish() is then delivered by this last round.
            last = self._finishing.wait(FLUSH_EVERY_S)
            self._deliver(record)
            if self._abandoned.is_set():
                return
            if last:
                self._attempt(lambda: record.close(failed=self._failed), "closing the run")
                return

    def _deliver(self, record: RunRecord) -> None:
        while self._figures:
            self._taken.append(self._figures.popleft())
        if self._taken and self._attempt(partial(record.log, self._taken), f"{len(self._taken)} calls of log"):
            self._taken.clear()
        while self._artifacts and not self._abandoned.is_set():
            path, data = self._artifacts[0]
            if self._attempt(partial(record.artifact, path, data), path):
                with self._lock:
                    self._artifacts.popleft()
                    self._artifact_bytes -= len(data)

    def _attempt(self, action: Callable[[], None], what: str) -> bool:
        """Do it, again while the reason may pass; False where the end of the run cut that short."""
        pause_s = FIRST_PAUSE_S
        waiting = False
        while not self._abandoned.is_set():
            try:
                if time.monotonic() < self._cut_off_until_s:
                    raise PlaceError("MLflow is cut off on purpose", remedy="wait", passes=True)
                action()
            except (PlaceError, OSError) as error:
                if not waiting:
                    _log.warning("MLflow must wait for %s: %s", what, error)
                waiting = True
            except MlflowException as error:
                _log.warning("MLflow refuses %s for good: %s", what, " ".join(str(error).split()))
                return True
            except Exception:
                _log.exception("MLflow cannot take %s; the training goes on without it", what)
                return True
            else:
                if waiting:
                    _log.warning("MLflow is back and took %s", what)
                return True
            if self._finishing.is_set():
                self._abandoned.wait(FIRST_PAUSE_S)
            else:
                self._finishing.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return False
