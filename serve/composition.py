"""What travels between the deployments: light to import, so that the ingress starts without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tutti.corpus.score import Score
from tutti.generation.piece import BarMade, Candidate, NoteMade, PieceMade, TempoMade
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
        candidates: the pieces that it was chosen from, where the request wants the best of several.
    """

    score: Score
    refused_tokens: int
    batch: int
    waited_s: float
    stepped_s: float
    candidates: tuple[Candidate, ...] = ()

    def timings_s(self) -> Mapping[str, float]:
        """Seconds by stage."""
        return {"wait": self.waited_s, "compose": self.stepped_s}

    @classmethod
    def of(cls, made: PieceMade) -> Composition:
        """What the engine says of a piece that is over."""
        return cls(
            made.piece.score,
            made.piece.refused_tokens,
            batch=made.beside,
            waited_s=made.waited_s,
            stepped_s=made.stepped_s,
            candidates=made.piece.candidates,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job whose notes are wanted as they are made is under way; always the first that is told of it.

    Args:
        whole: whether its notes come only when all of them are there.
    """

    whole: bool


Told = Accepted | TempoMade | NoteMade | BarMade | Composition
"""What is told of a job under way, in order: the composition last."""
