"""A request that starts from a file, ready to be composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.features.controls import Controls
from tutti.features.vocabulary import END
from tutti.generation.controls import Limits
from tutti.generation.harmony import Harmony
from tutti.generation.planting import Planting
from tutti.generation.restoring import Kept


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that starts from a file, ready to be composed.

    Args:
        controls: told to the model.
        limits: of what is composed; its ``bars`` are those of the whole piece.
        given: tokens after the controls that the model reads before it composes.
        kept: what is put back.
        planting: what must be said, if anything.
        after: tokens of what follows the composed bars.
        drafts: how many are made, of which one is taken.
        latents: of the bars, of models that have any; shape (bars, Z).
        tempo_qpm: of the whole piece, to the figure; None: as the tokens say it.
        harmony: chords of what is composed, from where ``kept`` begins.
    """

    controls: Controls
    limits: Limits
    given: tuple[int, ...]
    kept: Kept | None = None
    planting: Planting | None = None
    after: tuple[int, ...] = ()
    drafts: int = 1
    latents: NDArray[np.float32] | None = None
    tempo_qpm: float | None = None
    harmony: Harmony | None = None


def closing(tokens: Sequence[int], after: Sequence[int]) -> list[int]:
    """A filled-in sequence with the bars that follow, from its controls to its end."""
    body = list(tokens[:-1]) if tokens and tokens[-1] == END else list(tokens)
    return [*body, *after, END] if after else list(tokens)
