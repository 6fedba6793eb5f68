"""Checkpoints on their way to storage while the training goes on.

The training stops for the copy to host memory alone (:meth:`Strategy.snapshot`). One thread of each rank then
serialises, hashes and writes that rank's files and, last, a **receipt** that lists them. The first rank's thread waits
for the receipts of all, publishes the manifest and lets the policy remove what need not stay. No collective is called
from here: ranks find each other's receipts on storage, so a rank that dies leaves the others training and its
checkpoint unpublished.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tutti import lineage
from tutti.lineage import FileEntry
from tutti.storage import Folder, patiently
from tutti.training import checkpoint
from tutti.training.snapshot import serialised

_POLL_S, _LONGEST_POLL_S = 0.02, 1.0


@dataclass(frozen=True)
class Policy:
    """Which checkpoints stay; see :func:`tutti.training.checkpoint.staying`."""

    last: int
    best: int
    every_steps: int


@dataclass
class Uploader:
    """One rank's way to storage: at most one checkpoint at a time is on it.

    Args:
        run: folder of the run.
        attempt: names this attempt's folders; the same on all ranks.
        rank, num_ranks: this process among all.
        policy: what stays.
        patience_s: how long storage that is away is asked again.
        told: a line for people, from the thread.
        published: called on the first rank with the step, from the thread; again where storage is away meanwhile.
    """

    run: Folder
    attempt: str
    rank: int
    num_ranks: int
    policy: Policy
    patience_s: float
    told: Callable[[str], None]
    published: Callable[[int], None] = lambda _: None
    _thread: threading.Thread | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _error: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._thread is not None and self._thread.is_alive()

    def submit(
        self, *, step: int, files: Mapping[str, Any], history: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> None:
        """Send off this rank's part of a checkpoint; call it when :attr:`is_busy` is false on all ranks.

        Args:
            files: state by path below the checkpoint, in host memory and not shared with the model.

        Raises:
            PlaceError: the checkpoint before could not be written.
        """
        self.check()
        # The curves grow while the thread works, so they become text now.
        work = partial(self._send, step, files, json.dumps(history).encode(), dict(facts))
        self._thread = threading.Thread(target=work, name=f"checkpoint-{step}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Tell a failure of the thread where it can be raised.

        Raises:
            PlaceError: a checkpoint could not be written, however often it was tried.
            IntegrityError: what was written is not there any more.
        """
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give up what is on its way, and wait for the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _send(self, step: int, files: Mapping[str, Any], history: bytes, facts: dict[str, Any]) -> None:
        folder = checkpoint.place(self.run, step=step, attempt=self.attempt)
        try:
            entries = [self._write(folder, path, serialised(state)) for path, state in files.items()]
            if self.rank == 0:
                entries.append(self._write(folder, checkpoint.HISTORY, history))
            receipt = json.dumps([asdict(entry) for entry in entries]).encode()
            self._patiently(partial(folder.write, _receipt(self.rank), receipt))
            if self.rank == 0:
                self._publish(folder, step=step, facts=facts)
        except Exception as error:
            # Whatever it is: a training that goes on without checkpoints would lose all at its next failure.
            if not self._stopped.is_set():
                self._error = error

    def _write(self, folder: Folder, path: str, data: bytes) -> FileEntry:
        entry: FileEntry = self._patiently(partial(lineage.write_file, folder, path, data))
        return entry

    def _publish(self, folder: Folder, *, step: int, facts: dict[str, Any]) -> None:
        entries: list[FileEntry] = []
        for rank in range(self.num_ranks):
            if not self._await(folder, _receipt(rank)):
                return
            told = json.loads(self._patiently(partial(folder.read, _receipt(rank))))
            entries += [FileEntry(**entry) for entry in told]
        self._patiently(
            partial(
                lineage.publish,
                folder,
                kind="checkpoints",
                name=f"step {step}",
                inputs={},
                files=entries,
                facts={"step": step, **facts},
            )
        )
        self._patiently(partial(self.published, step))
        policy = self.policy
        self._patiently(
            partial(checkpoint.prune, self.run, last=policy.last, best=policy.best, every_steps=policy.every_steps)
        )

    def _await(self, folder: Folder, path: str) -> bool:
        """Wait for a file; False once nobody wants the checkpoint any more."""
        pause_s = _POLL_S
        while not self._patiently(partial(folder.exists, path)):
            if self._stopped.wait(pause_s):
                return False
            pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)
        return True

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return patiently(action, patience_s=self.patience_s, told=self.told, stopped=self._stopped)


def _receipt(rank: int) -> str:
    return f"receipts/rank-{rank:05d}.json"
