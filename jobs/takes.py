"""Several takes of one request: drafted together, each written as soon as it is there."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from jobs.sounding import Sounding, numbered
from tutti import seeding
from tutti.corpus.score import Score
from tutti.generation.composers import Composer
from tutti.generation.desk import Desk
from tutti.generation.piece import Event, Piece, PieceMade
from tutti.generation.request import Request


def requests_of(request: Request, *, takes: int) -> list[Request]:
    """The request itself, and as many more with seeds derived from its seed as make ``takes``."""
    seeds = [request.seed, *(seeding.derive(request.seed, "take", number) for number in range(1, takes))]
    return [request.model_copy(update={"seed": seed}) for seed in seeds]


def write_all(
    composer: Composer,
    requests: Sequence[Request],
    material: Score | None,
    *,
    files: Mapping[str, Path],
    title: str,
    sounding: Sounding,
) -> list[Piece]:
    """Every piece in each format, numbered from 1 where there are several; whoever stops it keeps what is written.

    Args:
        material: music that each continues.
        files: by format, where one piece would go.
        title: of each, before its seed.
        sounding: what they are played with.

    Raises:
        KeyboardInterrupt: it was stopped; the takes that were over are written, and a line says how many.
    """
    desk = Desk(composer)
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    numbers = desk.submit(requests, materials=[material] * len(requests), deliver=told.put)
    pieces: dict[int, Piece] = {}
    try:
        while len(pieces) < len(numbers):
            event = told.get()
            if isinstance(event, Exception):
                raise event
            assert isinstance(event, PieceMade)
            place = numbers.index(event.number)
            number = "" if len(requests) == 1 else f"{place + 1:0{len(str(len(requests)))}d}"
            own = _numbered(files, number) if number else files
            named = f"{title} · seed {event.piece.request.seed}"
            sounding.write(event.piece.score, own, title=named, number=number)
            pieces[place] = event.piece
            if len(requests) > 1:
                click.echo(f"{', '.join(map(str, own.values()))}: {told_of(event.piece)}")
    except KeyboardInterrupt:
        click.echo(f"stopped: {len(pieces)} of {len(numbers)} takes are written", err=True)
        raise
    finally:
        desk.close()
    return [pieces[place] for place in range(len(pieces))]


def told_of(piece: Piece) -> str:
    """A piece in a few words, and how it was chosen."""
    text = f"{len(piece.score.notes)} notes · {piece.score.length_s:.1f} s · seed {piece.request.seed}"
    kept = [candidate for candidate in piece.candidates if candidate.chosen]
    if not kept:
        return text
    scores = ", ".join(f"{candidate.score:g}" for candidate in piece.candidates)
    return f"{text} · best of {len(piece.candidates)}: seed {kept[0].seed} ({kept[0].score:g} points of {scores})"


def told_of_all(piece: Piece, *, takes: int) -> str:
    """What was made, in a few words: the one piece, or that there are several from its seed on."""
    return told_of(piece) if takes == 1 else f"{takes} takes from seed {piece.request.seed} on"


def _numbered(files: Mapping[str, Path], number: str) -> dict[str, Path]:
    return {name: numbered(path, number) for name, path in files.items()}
