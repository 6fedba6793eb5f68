"""The one door to generation: a model's bundle to whoever makes pieces with it, whatever its family.

A family composes by the kind of examples it reads: what says the next event is driven by the engine, what sings in
steps of several voices by the composer of chorales, what makes piano-rolls by their composer. Models that make single
notes compose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.generation.chorales import ChoraleComposer
from tutti.generation.composing import Composing
from tutti.generation.engine import CACHE_BYTES, Engine, Piece
from tutti.generation.request import Request
from tutti.generation.rolls import RollComposer
from tutti.models import bundle as bundles
from tutti.models.families import family_of
from tutti.models.precision import Precision


class Composer(Protocol):
    """One model, ready to compose.

    Args:
        digest: hash of the model's bundle.
        collections: source collections that it knows by name.
        facts: what is known of its making.
    """

    digest: str
    collections: tuple[str, ...]
    facts: Mapping[str, Any]

    def check(self, request: Request, material: Score | None = None) -> None:
        """Refuse a request that this model cannot take, or a file that it cannot start from, before anything runs.

        Raises:
            RecipeError: it cannot.
        """

    def open(self) -> Composing:
        """Requests under way, none yet: they join and leave one by one."""

    def generate(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        """One piece a request, in their order; as :meth:`tutti.generation.engine.Engine.generate`."""


COMPOSERS: dict[str, Callable[..., Composer]] = {
    "sequences": Engine.load,
    "voices": ChoraleComposer.load,
    "rolls": RollComposer.load,
}
"""By the kind of examples that a family reads; each takes what :func:`load` takes."""


def load(
    folder: Path,
    *,
    device: str = "cpu",
    max_batch: int = 32,
    cache_bytes: int = CACHE_BYTES,
    precision: Precision = "auto",
) -> Composer:
    """Whoever composes with the model of a bundle folder.

    Args:
        max_batch: most pieces that are made at once.
        cache_bytes: memory for what a model has read, where it remembers what it read.
        precision: of products and of what is remembered, where a model has a choice.

    Raises:
        MissingError: a file of the bundle is not there.
        IntegrityError: it is damaged or speaks another vocabulary.
        RecipeError: models of its family compose nothing.
    """
    family = _family(folder)
    reads = family_of(family).reads
    if reads not in COMPOSERS:
        raise RecipeError(f"a {family} composes no pieces: it reads {reads}", remedy="use a model of another family")
    return COMPOSERS[reads](folder, device=device, max_batch=max_batch, cache_bytes=cache_bytes, precision=precision)


def _family(folder: Path) -> str:
    try:
        return str(json.loads((folder / bundles.MODEL).read_bytes())["family"])
    except (OSError, ValueError, KeyError, TypeError):
        # Says what is wrong with it.
        return bundles.load(folder).family
