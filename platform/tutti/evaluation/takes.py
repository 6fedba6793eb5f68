"""What a model makes when nothing is asked of it but a length: as many pieces, as long, as the works beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import rhythm
from tutti.generation.engine import Engine
from tutti.generation.request import MAX_BARS, Request


@dataclass(frozen=True)
class Takes:
    """What was generated.

    Args:
        batch: the pieces.
        requests: what was asked for each, in the same order.
        refused_tokens: tokens of all that could not be decoded; 0 unless something is broken.
    """

    batch: ScoreBatch
    requests: tuple[Request, ...]
    refused_tokens: int

    def __len__(self) -> int:
        return len(self.requests)


def requests_like(
    bars: Sequence[int], *, takes: int, seed: int, temperature: float, top_p: float
) -> tuple[Request, ...]:
    """Requests of nothing but lengths: take ``i`` is as long as work ``i``, from the start again where there are more.

    Args:
        bars: of each work; what is longer than a request may ask for is cut.
        takes: how many.
        seed: root of all takes' streams.
        temperature, top_p: of sampling.
    """
    return tuple(
        Request(
            bars=int(min(max(bars[number % len(bars)], 1), MAX_BARS)),
            seed=seeding.derive(seed, "take", number),
            temperature=temperature,
            top_p=top_p,
        )
        for number in range(takes)
    )


def made(bundle: Path, requests: Sequence[Request], *, device: str) -> Takes:
    """The pieces of a model's bundle.

    Raises:
        MissingError: a file of the bundle is not there.
        IntegrityError: it is damaged or speaks another vocabulary.
    """
    pieces = Engine.load(bundle, device=device).generate(requests)
    batch = ScoreBatch.of([piece.score for piece in pieces])
    return Takes(batch, tuple(requests), sum(piece.refused_tokens for piece in pieces))


def bars_of(batch: ScoreBatch) -> NDArray[np.int64]:
    """Bars of each piece up to its last onset; shape (W,)."""
    return np.diff(rhythm.bars(batch).starts)
