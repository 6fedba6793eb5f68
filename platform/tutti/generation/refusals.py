"""What models that are driven by no tokens refuse: controls that mean nothing to them, other meters, material."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.generation.request import Request

METER = (4, 4)
"""The only one of a model whose steps are counted from bar to bar."""


def refuse_controls(request: Request, *, names: Iterable[str], model: str) -> None:
    """Refuse a request that sets one of these controls otherwise than a request does by itself.

    Args:
        names: of fields of the request.
        model: what cannot hold them, for people.

    Raises:
        RecipeError: it does.
    """
    for name in names:
        if getattr(request, name) != Request.model_fields[name].default:
            raise RecipeError(f"{model} cannot hold {name}", remedy="leave it out, or use a model of sequences")


def refuse_meters(request: Request, *, model: str) -> None:
    """Refuse every meter but :data:`METER`.

    Raises:
        RecipeError: another one is asked.
    """
    above, below = METER
    if request.meter not in (None, f"{above}/{below}"):
        raise RecipeError(f"{model} knows no meter {request.meter}", remedy=f"ask for {above}/{below}, or for none")


def refuse_start(request: Request, *, model: str, but: Collection[str] = ()) -> None:
    """Refuse to start from a file, but for these kinds.

    Raises:
        RecipeError: the request does.
    """
    if request.start is not None and request.start.kind not in but:
        raise RecipeError(f"{model} cannot {request.start.kind} a piece", remedy="use a model of sequences")


def refuse_material(materials: Sequence[Score | None] | None, *, model: str) -> None:
    """Refuse to continue anything.

    Raises:
        RecipeError: there is material for a request.
    """
    if any(material is not None for material in materials or ()):
        raise RecipeError(f"{model} cannot continue a piece", remedy="use a model of sequences")
