"""Requests under way through one model: they join and leave between steps, and each gets what it would get alone.

A step draws one token of every row, tells what came of it, lets go of rows that ended, and reads the tokens in. Rows
share nothing but the time: each has its own controls, limits, length and random stream, and what it hears does not
depend on its company (:mod:`tutti.generation.reading`).

``submit`` and ``cancel`` may be called from other threads than the one that steps.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.features.vocabulary import BAR, END, EVENTS, START, TEMPOS_QPM
from tutti.generation.controls import Limits, controls_of, limits_of
from tutti.generation.drafts import Drafts
from tutti.generation.grammar import Grammar
from tutti.generation.interpolating import interpolated
from tutti.generation.leading import led
from tutti.generation.material import prepared
from tutti.generation.narrowing import narrowed
from tutti.generation.piece import BarMade, Event, NoteMade, PieceMade, TempoMade, piece_of, tempo_of, told_of
from tutti.generation.planted import Planted
from tutti.generation.prepared import Prepared, closing
from tutti.generation.reading import GuidedReading
from tutti.generation.request import Request
from tutti.generation.sampling import choose, nats_of
from tutti.models.reader import Reader, Steps

_PITCH0, _DRUM0 = EVENTS.first("Pitch"), EVENTS.first("Drum")
_TEMPO0 = EVENTS.first("Tempo")
_SAYS_NOTE = np.isin(EVENTS.kind_of, [EVENTS.kinds.index(kind) for kind in ("Pitch", "Drum")])
_SAYS_TEMPO = EVENTS.kind_of == EVENTS.kinds.index("Tempo")


@dataclass(eq=False)
class _Row:
    """One request, waiting or under way."""

    number: int
    request: Request
    limits: Limits
    head: int
    tokens: list[int]
    given: int
    told: bool
    seed: int
    came_s: float
    start: Prepared | None = None
    drafts: Drafts = field(default_factory=lambda: Drafts(1))
    draft: int = 0
    began_s: float = math.nan
    beside: int = 0
    nats: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether its notes are known only when all are there: it is one of several drafts, or what a file keeps is put
        back among them."""
        return self.drafts.size > 1 or (self.start is not None and self.start.planting is not None)


class Session:
    """Requests under way through a model that says one event after another.

    Its doors are those of :class:`tutti.generation.composing.Composing`.

    Args:
        model: that reads.
        steps: the same, made ready to step.
        collections: source collections that it knows.
        programs: that it was trained on.
        context_tokens: how far back it looks.
        max_batch: most requests that step together.
        room_rows: rows that its memory holds; a request with guidance may need two.
    """

    def __init__(
        self,
        model: Reader,
        steps: Steps,
        *,
        collections: Sequence[str],
        programs: Sequence[int],
        context_tokens: int,
        max_batch: int,
        room_rows: int,
    ) -> None:
        self._model, self._collections, self._programs = model, collections, programs
        self._max_batch, self._room_rows = max_batch, room_rows
        self._reading = GuidedReading(model, steps, room_rows=room_rows, context_tokens=context_tokens)
        self._numbers = itertools.count()
        # Held by who changes what other threads may change too.
        self._door = threading.Lock()
        self._waiting: deque[_Row] = deque()
        self._given_up: set[int] = set()
        self._rows: list[_Row] = []
        self._grammar = Grammar([])
        self._planted = Planted()
        self._temperature_B, self._top_p_B = np.zeros(0), np.zeros(0)
        self._seeds_B = np.zeros(0, dtype=np.uint64)
        self._logits_BV = np.zeros((0, len(EVENTS)), dtype=np.float32)

    whole = False

    @property
    def exact(self) -> bool:
        """As :attr:`tutti.generation.composing.Composing.exact`."""
        return self._reading.exact

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self._rows

    @property
    def under_way(self) -> int:
        """Requests that step."""
        return len(self._rows)

    @property
    def memory_bytes(self) -> int:
        """Of what rows have read, for all that there is room for."""
        return self._reading.memory_bytes

    def submit(self, request: Request, *, material: Score | None = None, told: bool = False) -> int:
        """As :meth:`tutti.generation.composing.Composing.submit`."""
        start = self._start(request, material)
        asked = led(request)
        controls = controls_of(asked, collections=self._collections) if start is None else start.controls
        limits = limits_of(asked, known_programs=self._programs) if start is None else start.limits
        tokens = [START, *controls.tokens().tolist()]
        head = len(tokens)
        tokens += [] if start is None else start.given
        needs = GuidedReading.needs(tokens, head=head, guidance=request.guidance)
        if needs > self._room_rows:
            raise RecipeError(
                f"guidance {request.guidance:g} needs {needs} rows of memory, and there is room for {self._room_rows}",
                remedy="give the engine more memory, or ask without guidance",
            )
        with self._door:
            number, came_s = next(self._numbers), time.monotonic()
            drafts = Drafts(1 if start is None else start.drafts)
            self._waiting += [
                _Row(
                    number, request, limits, head, list(tokens), given=len(tokens), told=told,
                    seed=drafts.seed(request.seed, draft), came_s=came_s, start=start, drafts=drafts, draft=draft,
                )
                for draft in range(drafts.size)
            ]  # fmt: skip
        return number

    def _start(self, request: Request, material: Score | None) -> Prepared | None:
        if material is None:
            if request.start is not None:
                raise RecipeError(f"{request.start.kind} starts from a file, and there is none", remedy="give a file")
            return None
        if request.start is not None and request.start.kind == "interpolate":
            return interpolated(request, material, model=self._model, programs=self._programs)
        return prepared(request, material, collections=self._collections, programs=self._programs)

    def cancel(self, number: int) -> None:
        """As :meth:`tutti.generation.composing.Composing.cancel`."""
        with self._door:
            self._given_up.add(number)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One token of each row, the first ones of those that join among them; what came of it, in order."""
        events: list[Event] = [*self._let_go_of_cancelled()]
        events += self._admit()
        if not self._rows:
            return events
        for row in self._rows:
            row.beside = max(row.beside, len(self._rows))
        logits_BV, allowed_BV = self._grammar.with_one_bar_line(self._logits_BV), self._grammar.allowed()
        if len(self._planted):
            logits_BV, allowed_BV = narrowed(
                self._planted, logits_BV, allowed_BV=allowed_BV, pitches_BP=self._grammar.pitches
            )
        tokens_B = choose(
            logits_BV,
            allowed_BV=allowed_BV,
            temperature_B=self._temperature_B,
            top_p_B=self._top_p_B,
            seeds_B=self._seeds_B,
            counters_B=np.array([len(row.tokens) - row.given for row in self._rows], dtype=np.uint64),
        )
        self._weigh(tokens_B, logits_BV=logits_BV, allowed_BV=allowed_BV)
        self._grammar.advance(tokens_B)
        if len(self._planted):
            self._planted.advance(tokens_B)
        for row, token in zip(self._rows, tokens_B.tolist(), strict=True):
            row.tokens.append(token)
        events += self._told(tokens_B)
        if self._grammar.ended.any():
            for place in np.flatnonzero(self._grammar.ended).tolist():
                events += self._over(self._rows[place], fit=self._planted.weight(place))
            stays = np.flatnonzero(~self._grammar.ended)
            self._keep(stays)
            tokens_B = tokens_B[stays]
        if self._rows:
            self._logits_BV = self._reading.following(tokens_B)
        return events

    def _weigh(
        self, tokens_B: NDArray[np.int64], *, logits_BV: NDArray[np.float32], allowed_BV: NDArray[np.bool_]
    ) -> None:
        """Add up how unlikely what was drawn is to the model, in rows that are one of several to choose from."""
        places = [place for place, row in enumerate(self._rows) if row.request.best_of > 1]
        if places:
            nats = nats_of(tokens_B[places], logits_BV=logits_BV[places], allowed_BV=allowed_BV[places])
            for place, each in zip(places, nats.tolist(), strict=True):
                self._rows[place].nats += each

    def _told(self, tokens_B: NDArray[np.int64]) -> list[Event]:
        """Tempos, notes and bars that these tokens complete, in rows that want them."""
        events: list[Event] = []
        says_B = _SAYS_NOTE[tokens_B] | _SAYS_TEMPO[tokens_B] | (tokens_B == BAR) | (tokens_B == END)
        for place in np.flatnonzero(says_B).tolist():
            row, token = self._rows[place], int(tokens_B[place])
            if not row.told or row.whole:
                continue
            if _SAYS_TEMPO[token]:
                # Said once, at the first position of all.
                meter, said_qpm = self._grammar.meter(place), float(TEMPOS_QPM[token - _TEMPO0])
                events.append(TempoMade(row.number, 0, tempo_of(row.request, said_qpm=said_qpm, meter=meter)))
                continue
            if _SAYS_NOTE[token]:
                pitch = token - (_DRUM0 if token >= _DRUM0 else _PITCH0)
                onset, duration, velocity, program = self._grammar.note(place, pitch)
                events.append(NoteMade(row.number, onset, duration, pitch, velocity, program))
                continue
            bars = int(self._grammar.bars[place])
            if token == END:
                events.append(BarMade(row.number, bars - 1))
            elif bars > 1:
                events.append(BarMade(row.number, bars - 2))
        return events

    def _admit(self) -> list[TempoMade]:
        """Let requests join, first come first served, while there is room; tempos that they begin with."""
        events: list[TempoMade] = []
        while self._waiting and len(self._rows) < self._max_batch:
            row = self._waiting[0]
            needs = GuidedReading.needs(row.tokens, head=row.head, guidance=row.request.guidance)
            if self._reading.held + needs > self._room_rows:
                break
            with self._door:
                self._waiting.popleft()
            self._join(row)
            if row.told and not row.whole and row.start and row.start.kept and row.start.kept.changed_tempo:
                events.append(TempoMade(row.number, *row.start.kept.changed_tempo))
        return events

    def _join(self, row: _Row) -> None:
        row.began_s = time.monotonic()
        grammar, given = Grammar([row.limits]), row.tokens[row.head :]
        if given:
            grammar.read(0, np.array(given))
        if row.start is not None and row.start.planting is not None:
            self._planted.join(Planted.of(row.start.planting, given=given), row=len(self._rows))
        logits_V = self._reading.join(
            row.tokens,
            head=row.head,
            guidance=row.request.guidance,
            seed=seeding.derive(row.seed, "latents"),
            latents=None if row.start is None else row.start.latents,
        )
        self._grammar.join(grammar)
        self._rows.append(row)
        self._logits_BV = np.concatenate((self._logits_BV, logits_V[None]))
        self._temperature_B = np.append(self._temperature_B, row.request.temperature)
        self._top_p_B = np.append(self._top_p_B, row.request.top_p)
        seed = np.uint64(seeding.derive(row.seed, "generation"))
        self._seeds_B = np.append(self._seeds_B, seed)

    def _keep(self, stays: NDArray[np.int64]) -> None:
        self._rows = [self._rows[row] for row in stays.tolist()]
        self._temperature_B, self._top_p_B = self._temperature_B[stays], self._top_p_B[stays]
        self._seeds_B, self._logits_BV = self._seeds_B[stays], self._logits_BV[stays]
        self._grammar.keep(stays)
        self._planted.keep(stays)
        self._reading.keep(stays)

    def _let_go_of_cancelled(self) -> list[PieceMade]:
        """Pieces of what there is of requests that were given up."""
        with self._door:
            given_up, self._given_up = self._given_up, set()
            if not given_up:
                return []
            gone = [row for row in (*self._waiting, *self._rows) if row.number in given_up]
            self._waiting = deque(row for row in self._waiting if row.number not in given_up)
        stays = [place for place, row in enumerate(self._rows) if row.number not in given_up]
        if len(stays) < len(self._rows):
            self._keep(np.array(stays, dtype=np.int64))
        return [made for row in gone for made in self._over(row, fit=0.0, cancelled=True)]

    def _over(self, row: _Row, *, fit: float, cancelled: bool = False) -> list[PieceMade]:
        """The piece of a row that is over, where no other draft of its request is under way."""
        if row.start is not None and row.start.after and row.drafts.size > 1 and not cancelled:
            fit = -self._reading.nats(row.tokens[:-1], row.start.after, head=row.head)
        made = row.drafts.take(_made(row, cancelled=cancelled), draft=row.draft, fit=fit)
        if made is None:
            return []
        # Which draft it is to be is known only now.
        return [*(told_of(row.number, made.piece) if row.told and row.whole else ()), made]


def _made(row: _Row, *, cancelled: bool) -> PieceMade:
    start = row.start
    after, kept = ((), None) if start is None else (start.after, start.kept)
    harmony = row.limits.harmony if start is None or start.harmony is None else start.harmony
    piece = piece_of(closing(row.tokens, after), request=row.request, kept=kept, harmony=harmony, cancelled=cancelled)
    if row.start is not None and row.start.tempo_qpm is not None:
        piece = replace(piece, score=replace(piece.score, tempo_qpm=np.array([row.start.tempo_qpm])))
    if row.request.best_of > 1:
        piece = replace(piece, nats=row.nats)
    now_s = time.monotonic()
    began_s = now_s if math.isnan(row.began_s) else row.began_s
    waited_s, stepped_s = began_s - row.came_s, now_s - began_s
    return PieceMade(row.number, piece, beside=row.beside, waited_s=waited_s, stepped_s=stepped_s)
