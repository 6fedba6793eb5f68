"""A piece between two files, of models whose bars are points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutti.corpus.score import Score
from tutti.errors import InputError, RecipeError
from tutti.generation.controls import controls_of, limits_of
from tutti.generation.prepared import Prepared
from tutti.generation.request import Request
from tutti.generation.restoring import Ends
from tutti.models.bar_vae import BarVae
from tutti.models.reader import Reader

_NOTHING_ASKED = Request()


def interpolated(request: Request, material: Score, *, model: Reader, programs: Sequence[int]) -> Prepared:
    """Latents on the straight line between two files, bar by bar; see :func:`tutti.generation.latent.between`.

    Raises:
        InputError: the model has no latents, or a file is none that it reads.
        RecipeError: there is one file alone, or the request asks for a length or meter of its own.
    """
    from tutti.generation import latent  # stands above the engine, which stands above this

    if not isinstance(model, BarVae):
        raise InputError("this model has no latents", remedy="name a version of family bar_vae")
    if not isinstance(material, Ends) or request.start is None:
        raise RecipeError("interpolate needs two files", remedy="name the second one too")
    for name in ("bars", "length", "meter"):
        if getattr(request, name) != getattr(_NOTHING_ASKED, name):
            raise RecipeError(f"interpolate takes its {name} from the files", remedy=f"leave {name} out")
    points, like = latent.between(model, material, share=request.start.share_of_second)
    tempo = like.tempo if request.tempo is None else request.tempo
    asked = request.model_copy(update={"bars": len(points), "meter": like.meter, "tempo": tempo})
    limits = replace(limits_of(asked, known_programs=programs), bars=len(points))
    return Prepared(
        controls=controls_of(asked, collections=()), limits=limits, given=(), latents=points, tempo_qpm=tempo
    )
