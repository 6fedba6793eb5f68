"""What is heard of a model: one piece of a fixed request, or a fixed phrase on the instruments that it draws."""

from __future__ import annotations

from pathlib import Path

from tutti.generation import composers
from tutti.generation.request import Request
from tutti.models import bundle as bundles
from tutti.models.families import family_of
from tutti.render import phrase
from tutti.render.export import Finished, finish

SAMPLE = Request(length=20.0, seed=0)
FORMATS = ("midi", "flac", "png")


def made(folder: Path, *, title: str) -> Finished:
    """The sample of a bundle's folder as MIDI, sound and picture.

    Args:
        folder: of the bundle.
        title: over the picture.
    """
    bundle = bundles.load(folder)
    if family_of(bundle.family).reads == "spectra":
        score, instruments = phrase.played_by(bundle)
        return finish(score, formats=FORMATS, title=title, instruments=instruments)
    return finish(composers.load(folder).generate([SAMPLE])[0].score, formats=FORMATS, title=title)
