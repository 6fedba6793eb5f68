"""Pieces by the latents of their bars: between two files, and a file with more of something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.sounding import Sounding, numbered
from tutti.corpus.score import Score
from tutti.dataset import learnt
from tutti.errors import InputError
from tutti.generation import latent
from tutti.generation.composers import Composer
from tutti.generation.engine import Engine, Piece
from tutti.generation.request import Request
from tutti.generation.restoring import Ends, works_of
from tutti.generation.start import Start
from tutti.render.picture import piano_rolls_png
from tutti.storage import Folder

WORKS = 64
"""Of the training, whose bars say which way an attribute lies."""


def amounts_of(texts: Sequence[str]) -> dict[latent.Attribute, float]:
    """How far to go along each attribute, of words like ``density=1.5``.

    Raises:
        InputError: no such attribute, or no number.
    """
    found: dict[latent.Attribute, float] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if name not in latent.ATTRIBUTES:
            raise InputError(f"--more {text} names no attribute", remedy=f"choose {', '.join(latent.ATTRIBUTES)}")
        try:
            found[name] = float(amount)
        except ValueError:
            raise InputError(f"--more {text} has no amount", remedy=f"write {name}=1, or {name}=-1 for less") from None
    return found


def between(composer: Composer, ends: tuple[Score, Score], *, steps: int, seed: int) -> list[Piece]:
    """Pieces from one score to another, both as they come back, told by the likeliest tokens.

    Raises:
        InputError: the model has no latents, or a score is none that it reads.
    """
    material = Ends.between(*ends)
    starts = [Start(kind="interpolate", weight=step / (steps - 1), works=works_of(material)) for step in range(steps)]
    requests = [Request(start=start, top_p=latent.GREEDY, seed=seed) for start in starts]
    return composer.generate(requests, materials=[material] * steps)


def moved(
    composer: Composer,
    request: Request,
    score: Score | None,
    amounts: Mapping[latent.Attribute, float],
    *,
    root: Folder,
) -> Piece:
    """A score, or a piece that is made of the request first, with more of each attribute.

    Args:
        root: results root, where the works of the training are.

    Raises:
        InputError: the model has no latents, or the score is none that it reads.
        MissingError: the works are gone.
    """
    engine = engine_of(composer)
    if score is None:
        score = engine.generate([request])[0].score
    known = _known(engine, root=root)
    shifts = [(latent.attribute_direction(engine, known, name), amount) for name, amount in amounts.items()]
    return latent.moved(engine, score, shifts, seed=request.seed)


def engine_of(composer: Composer) -> Engine:
    """The composer, where it has latents.

    Raises:
        InputError: it has none.
    """
    if not isinstance(composer, Engine):
        raise InputError("this model has no latents", remedy="name a version of family bar_vae")
    latent.network_of(composer)
    return composer


def write(pieces: Sequence[Piece], files: Mapping[str, Path], *, title: str, sounding: Sounding) -> list[Path]:
    """Each piece in each format, numbered from 1; the picture is one of all side by side."""
    written = []
    for name, path in files.items():
        place = Folder(str(path.absolute().parent))
        if name == "png":
            shares = [f"{100 * number / (len(pieces) - 1):.0f} %" for number in range(len(pieces))]
            place.write(path.name, piano_rolls_png([piece.score for piece in pieces], titles=shares, title=title))
            written.append(path)
            continue
        for number, piece in enumerate(pieces, start=1):
            own = numbered(path, str(number))
            sounding.write(piece.score, {name: own}, title=f"{title} · {number}", number=str(number))
            written.append(own)
    return written


def _known(engine: Engine, *, root: Folder) -> list[Score]:
    held = learnt.dataset_of(engine.facts, kind="works", root=root)
    licences = tuple(engine.facts.get("data", {}).get("licences", ()))
    train = learnt.drawn(learnt.read(held, None, split="train", licences=licences), most=WORKS, seed=0)
    from tutti.evaluation import latents as beginnings

    return beginnings.beginnings(train.batch, most=WORKS)
