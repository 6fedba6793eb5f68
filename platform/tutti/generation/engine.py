"""The engine: many requests at once through one model.

All requests of a call step together, each with its own controls, limits, length and random stream; a row that ended
leaves the batch. The same list of requests gives the same notes on the same machine.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score import Score
from tutti.errors import IntegrityError
from tutti.features.events import bars_of, decode, encode, on_grid
from tutti.features.vocabulary import BAR, EVENTS, START, TICKS_PER_QUARTER
from tutti.generation.controls import controls_of, limits_of
from tutti.generation.grammar import Grammar
from tutti.generation.reading import GuidedReading
from tutti.generation.request import Request
from tutti.generation.sampling import choose
from tutti.models import bundle as bundles
from tutti.models import families
from tutti.models.reader import Reader

Tokens = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one request.

    Args:
        request: as it was asked.
        score: the music, 24 ticks a quarter, in normal form; the asked tempo to the figure.
        tokens: the whole sequence, material included.
        refused_tokens: tokens that could not be decoded; 0 unless something is broken.
        cancelled: whether the request was given up before its end.
    """

    request: Request
    score: Score
    tokens: Tokens
    refused_tokens: int
    cancelled: bool = False


@dataclass
class _Row:
    """One request under way."""

    number: int
    request: Request
    head: list[int]
    tokens: list[int]
    given: int
    cancelled: bool = False


class Engine:
    """One model, ready to generate.

    Args:
        model: in evaluation mode, on its device.
        digest: hash of the model's bundle.
        collections: source collections that it knows.
        facts: what is known of its making.
        context_tokens: how far back the model looks; it was trained on sequences of this length.
        max_batch: most rows that step together.
    """

    def __init__(
        self,
        model: Reader,
        *,
        digest: str,
        collections: Sequence[str],
        facts: Mapping[str, Any],
        context_tokens: int,
        max_batch: int = 32,
    ) -> None:
        self._model = model
        longest = model.new_cache(rows=1, capacity_tokens=context_tokens).capacity_tokens
        self._context_tokens = min(context_tokens, longest)
        self._max_batch = max_batch
        self._programs = tuple(int(program) for program in facts.get("data", {}).get("programs", range(129)))
        self.digest = digest
        self.collections = tuple(collections)
        self.facts = facts

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", max_batch: int = 32) -> Engine:
        """An engine from a bundle folder.

        Raises:
            MissingError: a file of the bundle is not there.
            IntegrityError: it is damaged or speaks another vocabulary.
        """
        bundle = bundles.load(folder)
        if bundle.vocabulary != EVENTS.names:
            raise IntegrityError(f"model folder {folder} speaks another vocabulary than this version of Tutti")
        model = families.network_of(bundle.family, bundle.configuration, dropout=0.0)
        model.load_state_dict(dict(bundle.weights))
        return cls(
            cast(Reader, model.eval().to(device)),
            digest=bundle.digest(),
            collections=bundle.collections,
            facts=bundle.facts,
            context_tokens=int(bundle.facts.get("training", {}).get("sequence_tokens", 512)),
            max_batch=max_batch,
        )

    @property
    def model(self) -> Reader:
        """The network itself."""
        return self._model

    def check(self, request: Request) -> None:
        """Refuse a request that this model cannot take, before anything runs.

        Raises:
            RecipeError: an unknown collection.
        """
        controls_of(request, collections=self.collections)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        """One piece a request, in their order.

        Args:
            materials: music to continue, where a request has any; its length counts from the material's end.
            cancelled: asked between steps with a request's number; True gives that request up.

        Raises:
            RecipeError: a request that this model cannot take; nothing ran.
        """
        materials = materials or [None] * len(requests)
        rows = [
            self._row(number, request, material)
            for number, (request, material) in enumerate(zip(requests, materials, strict=True))
        ]
        for start in range(0, len(rows), self._max_batch):
            self._run(rows[start : start + self._max_batch], cancelled or (lambda _: False))
        return [_piece(row, materials[row.number]) for row in rows]

    def _row(self, number: int, request: Request, material: Score | None) -> _Row:
        controls = controls_of(request, collections=self.collections)
        if material is None:
            head = [START, *controls.tokens().tolist()]
            return _Row(number, request, head=head, tokens=list(head), given=len(head))
        tokens = encode(on_grid(material), controls)[:-1].tolist()
        return _Row(number, request, head=tokens[: tokens.index(BAR)], tokens=tokens, given=len(tokens))

    @torch.inference_mode()
    def _run(self, rows: list[_Row], cancelled: Callable[[int], bool]) -> None:
        grammar = Grammar([limits_of(row.request, known_programs=self._programs) for row in rows])
        for index, row in enumerate(rows):
            if row.given > len(row.head):
                grammar.read(index, np.array(row.tokens[len(row.head) :]), more_length=True)
        seeds = np.array([seeding.derive(row.request.seed, "generation") for row in rows], dtype=np.uint64)
        reading = GuidedReading(
            self._model,
            [row.tokens for row in rows],
            heads=[len(row.head) for row in rows],
            guidance_B=[row.request.guidance for row in rows],
            seeds_B=np.array([seeding.derive(row.request.seed, "latents") for row in rows], dtype=np.uint64),
            context_tokens=self._context_tokens,
        )
        logits_BV = reading.first()
        alive = list(rows)
        while alive:
            tokens_B = choose(
                grammar.with_one_bar_line(logits_BV),
                allowed_BV=grammar.allowed(),
                temperature_B=np.array([row.request.temperature for row in alive]),
                top_p_B=np.array([row.request.top_p for row in alive]),
                seeds_B=seeds,
                counters_B=np.array([len(row.tokens) - row.given for row in alive], dtype=np.uint64),
            )
            grammar.advance(tokens_B)
            for row, token in zip(alive, tokens_B.tolist(), strict=True):
                row.tokens.append(token)
                row.cancelled = cancelled(row.number)
            stays = np.flatnonzero(~grammar.ended & np.array([not row.cancelled for row in alive]))
            if len(stays) < len(alive):
                alive = [alive[index] for index in stays.tolist()]
                seeds, tokens_B = seeds[stays], tokens_B[stays]
                grammar.keep(stays)
                reading.keep(stays)
            if alive:
                logits_BV = reading.following(tokens_B)


def _piece(row: _Row, material: Score | None) -> Piece:
    decoded = decode(np.array(row.tokens))
    score = _within_bars(decoded.score, bars=decoded.bars)
    if row.request.tempo is not None and material is None:
        score = replace(score, tempo_qpm=np.array([row.request.tempo]))
    return Piece(
        request=row.request,
        score=score,
        tokens=np.array(row.tokens, dtype=np.uint16),
        refused_tokens=decoded.refused,
        cancelled=row.cancelled,
    )


def _within_bars(score: Score, *, bars: int) -> Score:
    """The score with every note released by the last bar line."""
    if not len(score.notes):
        return score
    lines = bars_of(score)
    last_above, last_below = int(score.meter_numerator[-1]), int(score.meter_denominator[-1])
    bar_ticks = 4 * TICKS_PER_QUARTER * last_above // last_below
    end_ticks = int(lines.start_ticks[-1]) + bar_ticks * (1 + bars - len(lines.start_ticks))
    room = end_ticks - score.notes.onset_ticks
    return replace(
        score, notes=replace(score.notes, duration_ticks=np.minimum(score.notes.duration_ticks, room).astype(np.int32))
    )
