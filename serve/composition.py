"""What travels between the deployments: light to import, so that the ingress starts without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tutti.corpus.score import Score
from tutti.generation.request import Request


@dataclass(frozen=True, slots=True)
class Job:
    """One piece to compose.

    Args:
        request: its controls and seed.
        material: music to continue, or None.
        model: a version, ``NAME/3``; never an alias, which could move on the way.
    """

    request: Request
    material: Score | None
    model: str


@dataclass(frozen=True, slots=True)
class Composition:
    """What came of a job.

    Args:
        score: the music.
        refused_tokens: tokens that could not be decoded; 0 unless something is broken.
        batch: number of requests that stepped together.
        waited_s: seconds from arrival to the first step.
        stepped_s: seconds of stepping.
    """

    score: Score
    refused_tokens: int
    batch: int
    waited_s: float
    stepped_s: float

    def timings_s(self) -> Mapping[str, float]:
        """Seconds by stage."""
        return {"wait": self.waited_s, "compose": self.stepped_s}
