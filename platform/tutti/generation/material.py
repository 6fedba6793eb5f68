"""From a file and what is asked of it to what a model reads, what it must say, and what is put back afterwards.

=========== ================================ ================================= =====================================
kind        the model reads                  it composes                       of the file stays
=========== ================================ ================================= =====================================
continue    the file                         new bars                          all
infill      the bars before                  the bars asked, in their meters   all but the notes that begin in them
accompany   nothing                          around the melody                 the melody
harmonise   nothing                          beneath the melody                the melody
vary        nothing                          around the notes that stay        notes that carry the structure
restyle     nothing                          around the melody                 the melody, on another program if asked
=========== ================================ ================================= =====================================

What a request leaves open is told to the model as the file has it. What contradicts the file is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tutti.corpus.score import Score
from tutti.errors import InputError, RecipeError
from tutti.generation.around import around
from tutti.generation.contradictions import found
from tutti.generation.extending import continued, filled
from tutti.generation.leading import DIFFICULTIES
from tutti.generation.length import USUAL_LENGTH_S
from tutti.generation.prepared import Prepared
from tutti.generation.request import Request
from tutti.generation.restoring import Ends
from tutti.generation.source import Source
from tutti.generation.start import PLANTED, Start

_UNCHANGED = {
    "infill": ("bars", "length", "tempo", "meter"),
    **dict.fromkeys(PLANTED, ("bars", "length", "meter")),
}


def prepared(request: Request, score: Score, *, collections: Sequence[str], programs: Sequence[int]) -> Prepared:
    """What is to be read, said and kept; ``continue`` where the request states no kind.

    Args:
        collections: that the model knows.
        programs: that it was trained on.

    Raises:
        InputError: the file has no notes, no melody or not the bars that are asked for.
        RecipeError: the request contradicts the file.
    """
    start = request.start or Start(kind="continue")
    if start.kind == "interpolate":
        raise RecipeError("interpolate needs a model with latents", remedy="use a model of bar_vae")
    if isinstance(score, Ends):
        raise RecipeError(f"{start.kind} starts from one file, and there are two", remedy="leave out one of them")
    if not len(score.notes):
        raise InputError("the file has no notes", remedy="give a file with notes")
    for name in _UNCHANGED.get(start.kind, ()):
        if getattr(request, name) not in (None, USUAL_LENGTH_S):
            raise RecipeError(f"{start.kind} keeps the file's {name}", remedy=f"leave {name} out")
    file = Source.of(score)

    def ready(asked: Request) -> Prepared:
        if start.kind == "continue":
            return continued(asked, file, collections=collections)
        if start.kind == "infill":
            return filled(asked, start, file, collections=collections)
        return around(asked, start, file, collections=collections, programs=programs)

    return ready(_eased(request, ready) if request.difficulty else request)


def _eased(request: Request, ready: Callable[[Request], Prepared]) -> Request:
    """The request with what its difficulty asks and it leaves open, but for the tempo, as far as the file allows it."""
    for name, value in DIFFICULTIES[request.difficulty or ""].items():
        if name == "tempo" or getattr(request, name) is not None:
            continue
        harder = request.model_copy(update={name: value})
        if found(harder) is None:
            try:
                ready(harder)
            except RecipeError:
                continue
            request = harder
    return request
