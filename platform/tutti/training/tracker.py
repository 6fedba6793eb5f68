"""Where a training's figures go; rank 0 owns the one tracker of a run.

The loop knows only this face. The real one (MLflow) lives in :mod:`tutti.registry.runs`, above this room, and is handed
in by the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tutti.models.bundle import Bundle


class Tracker(Protocol):
    """One run's record. Failing to record never stops a training."""

    def start(self, *, parameters: Mapping[str, str | int | float], tags: Mapping[str, str]) -> str:
        """Open the run, or find it open again after a restart; return its id."""

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Record figures of one step."""

    def artifact(self, path: str, data: bytes) -> None:
        """Keep one file under the run, such as ``pictures/loss.png``."""

    def cut_off(self, seconds: float) -> None:
        """Let the record be out of reach for some seconds, as an outage would: to try what happens then."""

    def finish(self, *, failed: bool = False) -> None:
        """Close the run."""


class Sampler(Protocol):
    """What is made of a model while it learns: small, picklable."""

    def files(self, bundle: Bundle, *, step: int) -> Mapping[str, bytes]:
        """Files for the run's record by path, such as ``samples/step-00000120.mid``.

        Raises:
            InputError: what was made cannot be played or drawn, such as a piece without notes; the training says so
                and goes on.
        """


class NoSampler:
    """Makes nothing."""

    def files(self, bundle: Bundle, *, step: int) -> Mapping[str, bytes]:  # noqa: ARG002
        """No files."""
        return {}


class NoTracker:
    """A tracker that keeps nothing."""

    def start(self, *, parameters: Mapping[str, str | int | float], tags: Mapping[str, str]) -> str:  # noqa: ARG002
        """Open nothing."""
        return "untracked"

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Drop the figures."""

    def artifact(self, path: str, data: bytes) -> None:
        """Drop the file."""

    def cut_off(self, seconds: float) -> None:
        """Nothing is kept anyway."""

    def finish(self, *, failed: bool = False) -> None:
        """Close nothing."""


class Tracking(Protocol):
    """How to reach the record from any process: small, picklable."""

    def open(self) -> Tracker:
        """The tracker of this run."""


class NoTracking:
    """A record that is not kept."""

    def open(self) -> Tracker:
        """A tracker that keeps nothing."""
        return NoTracker()
