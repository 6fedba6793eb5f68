"""What comes of a request: the piece, and before it its notes and bars, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.features.events import bars_of, decode
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.generation.harmony import Harmony, bar_ticks
from tutti.generation.length import bars_of_length, exact_tempo_near
from tutti.generation.request import Request
from tutti.generation.restoring import Kept, restored
from tutti.generation.timetable import FAR

Tokens = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several pieces of a request, as it was judged.

    Args:
        seed: of the request that gives this piece alone.
        score: all its points; the fewest win.
        points: by measure (:data:`tutti.generation.judging.MEASURES`).
        chosen: whether this one was kept.
    """

    seed: int
    score: float
    points: Mapping[str, float]
    chosen: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"seed": self.seed, "score": self.score, "points": dict(self.points), "chosen": self.chosen}


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one request.

    Args:
        request: as it was asked.
        score: the music, 24 ticks a quarter, in normal form but that the last bar line and the ends of chords cut
            notes; the tempo is that of :func:`tempo_of`. Where it starts from a file, the notes of the file that stay
            are exact, in a resolution that holds both.
        tokens: the whole sequence, material included.
        refused_tokens: tokens that could not be decoded; 0 unless something is broken.
        cancelled: whether the request was given up before its end.
        nats: how unlikely what was drawn is to the model, all tokens together; None where nobody chooses by it.
        candidates: all pieces that it was chosen from, itself among them; none where there was no choice.
    """

    request: Request
    score: Score
    tokens: Tokens
    refused_tokens: int
    cancelled: bool = False
    nats: float | None = None
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class TempoMade:
    """From where on a request under way has which tempo; told before any note from there on.

    Args:
        number: of the request.
        onset_ticks: from where on; 24 a quarter, from the piece's beginning.
        tempo_qpm: quarter notes a minute.
    """

    number: int
    onset_ticks: int
    tempo_qpm: float


@dataclass(frozen=True, slots=True)
class NoteMade:
    """A note of a request under way.

    It stands as it is told, but that a later note of the same pitch and program ends it where it begins.

    Args:
        number: of the request.
        onset_ticks, duration_ticks: 24 a quarter, from the piece's beginning.
        pitch, velocity, program: as MIDI; program 128: drums.
    """

    number: int
    onset_ticks: int
    duration_ticks: int
    pitch: int
    velocity: int
    program: int


@dataclass(frozen=True, slots=True)
class BarMade:
    """A bar of a request is complete.

    Args:
        number: of the request.
        bar: which one, from 0, bars of the material among them.
    """

    number: int
    bar: int


@dataclass(frozen=True, slots=True)
class PieceMade:
    """A request is over.

    Args:
        number: of the request.
        piece: what came of it.
        beside: most requests that stepped together with it, itself among them.
        waited_s: seconds from when it came to when it joined.
        stepped_s: seconds from then on.
    """

    number: int
    piece: Piece
    beside: int
    waited_s: float
    stepped_s: float


Event = TempoMade | NoteMade | BarMade | PieceMade


def told_of(number: int, piece: Piece) -> list[Event]:
    """Tempos, notes and bars of a piece that was made whole, as if it had been told of them on the way.

    Args:
        number: of its request.
    """
    score = piece.score.with_resolution(TICKS_PER_QUARTER)
    notes = score.notes
    columns = (notes.onset_ticks, notes.duration_ticks, notes.pitch, notes.velocity, notes.program)
    events: list[tuple[int, int, Event]] = [
        (tick, 1, TempoMade(number, tick, qpm))
        for tick, qpm in zip(score.tempo_ticks.tolist(), score.tempo_qpm.tolist(), strict=True)
    ]
    events += [(row[0], 2, NoteMade(number, *row)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    if len(notes):
        # A bar is over where the next one begins.
        ends = [*bars_of(score).start_ticks.tolist()[1:], score.end_ticks]
        events += [(tick, 0, BarMade(number, bar)) for bar, tick in enumerate(ends)]
    return [event for _, _, event in sorted(events, key=lambda item: item[:2])]


def piece_of(
    tokens: Sequence[int],
    *,
    request: Request,
    kept: Kept | None = None,
    harmony: Harmony | None = None,
    cancelled: bool = False,
) -> Piece:
    """The piece that a sequence says.

    Args:
        kept: what is put back of the file that it starts from.
        harmony: chords that it keeps.
        cancelled: whether it was given up.
    """
    decoded = decode(np.array(tokens))
    score = _within_bars(decoded.score, bars=decoded.bars)
    if harmony is not None and len(score.notes):
        score = _within_chords(score, harmony, begin_ticks=0 if kept is None else kept.begin_ticks)
    if kept is not None:
        score = restored(score, kept)
    elif len(score.tempo_qpm):
        tempo_qpm = tempo_of(request, said_qpm=float(score.tempo_qpm[0]), meter=_last_meter(score))
        score = replace(score, tempo_qpm=np.array([tempo_qpm]))
    return Piece(
        request=request,
        score=score,
        tokens=np.array(tokens, dtype=np.uint16),
        refused_tokens=decoded.refused,
        cancelled=cancelled,
    )


def tempo_of(request: Request, *, said_qpm: float, meter: tuple[int, int]) -> float:
    """The tempo of a piece that said one, in quarters a minute: the asked one to the figure; where it was free and the
    length was asked in seconds, the one beside it at which the bars last so long."""
    bars, asked_qpm = request.extent
    if asked_qpm is not None:
        return asked_qpm
    if bars is not None:
        return said_qpm
    bars = bars_of_length(request.length_s, tempo_qpm=said_qpm, meter=meter)
    return exact_tempo_near(request.length_s, bars=bars, meter=meter, said_qpm=said_qpm)


def _last_meter(score: Score) -> tuple[int, int]:
    return int(score.meter_numerator[-1]), int(score.meter_denominator[-1])


def _end_ticks(score: Score, *, bars: int) -> int:
    """The last bar line of a score of so many bars."""
    lines = bars_of(score)
    return int(lines.start_ticks[-1]) + bar_ticks(_last_meter(score)) * (1 + bars - len(lines.start_ticks))


def _within_bars(score: Score, *, bars: int) -> Score:
    """The score with every note released by the last bar line."""
    if not len(score.notes):
        return score
    return _released(score, np.full(len(score.notes), _end_ticks(score, bars=bars)))


def _within_chords(score: Score, harmony: Harmony, *, begin_ticks: int) -> Score:
    """The score with the notes of each chord released where it ends.

    Args:
        begin_ticks: where the first chord begins.
    """
    notes = score.notes
    spans = harmony.spans(_last_meter(score), before=np.ones(128, dtype=bool))
    since = notes.onset_ticks.astype(np.int64) - begin_ticks
    released = begin_ticks + spans.released(since, pitch=notes.pitch, program=notes.program)
    # What follows bars that were filled in has no chord.
    return _released(score, np.where(since < spans.hold_ticks[-1], released, FAR))


def _released(score: Score, ends_ticks: NDArray[np.int64]) -> Score:
    room = np.minimum(score.notes.duration_ticks, ends_ticks - score.notes.onset_ticks).astype(np.int32)
    return replace(score, notes=replace(score.notes, duration_ticks=room))
