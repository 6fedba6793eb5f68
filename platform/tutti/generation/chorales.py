"""Requests through a model that sings in steps of four voices.

A step is a sixteenth; within it the voices sing from the highest, each hearing those above. What holds by construction:
length, tempo, key and scale (only pitches of it; its tonic triad at the first step and in the last quarter), chords
and instruments, which share the voices. Meters other than 4/4, mood, density and collection are of no meaning to such a
model, which has four voices and their compass: a request that asks for them is refused. What starts from a file is
:mod:`tutti.generation.voicing`'s.

Legend: B rows, V voices, P identifiers of pitches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutti import seeding
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import IntegrityError, RecipeError
from tutti.features.events import encode
from tutti.features.vocabulary import TICKS_PER_QUARTER, instrument_of
from tutti.features.voices import STEPS_PER_QUARTER, VOCABULARY_SIZE, score_of
from tutti.generation import voicing
from tutti.generation.choosing import chosen
from tutti.generation.composing import Gathered
from tutti.generation.controls import controls_of, limits_of
from tutti.generation.harmony import Harmony
from tutti.generation.length import bars_of_length
from tutti.generation.piece import Piece, tempo_of
from tutti.generation.refusals import METER, refuse_controls, refuse_meters, refuse_start
from tutti.generation.request import Request
from tutti.generation.sampling import choose
from tutti.generation.singing import Singing, restruck
from tutti.models import bundle as bundles
from tutti.models import families
from tutti.models.chorale import Chorale
from tutti.models.precision import Precision

USUAL_QPM = 80.0
"""Where no tempo is asked."""
_MODEL = "a model of voices"
_FOREIGN = (
    "mood", "valence", "arousal", "density", "difficulty", "collection", "guidance", "pitch_range", "polyphony",
    "form",
)  # fmt: skip
_BAR_STEPS = 4 * STEPS_PER_QUARTER
_CHOIR = 52


@dataclass
class _Row:
    """One request under way."""

    number: int
    request: Request
    singing: Singing
    harmony: Harmony | None
    steps: int
    grid: list[list[int]]
    cancelled: bool = False


class ChoraleComposer:
    """A model of voices, ready to compose.

    Args:
        model: in evaluation mode, on its device.
        digest: hash of the model's bundle.
        facts: what is known of its making.
        max_batch: most pieces that are made at once.
    """

    collections: tuple[str, ...] = ()

    def __init__(self, model: Chorale, *, digest: str, facts: Mapping[str, Any], max_batch: int = 32) -> None:
        self._model, self._max_batch = model, max_batch
        self._programs = tuple(int(program) for program in facts.get("data", {}).get("programs", ())) or (_CHOIR,)
        self.digest, self.facts = digest, facts

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_batch: int = 32,
        cache_bytes: int = 0,  # noqa: ARG003
        precision: Precision = "auto",  # noqa: ARG003
    ) -> ChoraleComposer:
        """A composer from a bundle folder.

        Raises:
            MissingError: a file of the bundle is not there.
            IntegrityError: it is damaged or has another compass.
        """
        bundle = bundles.load(folder)
        model = families.network_of(bundle.family, bundle.configuration, dropout=0.0)
        assert isinstance(model, Chorale)
        if model.configuration.vocabulary_size != VOCABULARY_SIZE:
            raise IntegrityError(f"model folder {folder} has another compass than this version of Tutti")
        model.load_state_dict(dict(bundle.weights))
        return cls(model.eval().to(device), digest=bundle.digest(), facts=bundle.facts, max_batch=max_batch)

    def check(self, request: Request, material: Score | None = None) -> None:
        """Refuse a request that this model cannot take, or a file that it cannot start from, before anything runs.

        Raises:
            RecipeError: a control that voices cannot hold.
        """
        refuse_controls(request, names=_FOREIGN, model=_MODEL)
        refuse_meters(request, model=_MODEL)
        refuse_start(request, model=_MODEL, but=voicing.KINDS)
        if request.instruments and not _programs(request, usual=self._programs):
            raise RecipeError("a drum kit cannot sing the voices of a chorale", remedy="ask for other instruments")
        if material is not None:
            voicing.check(request, material, programs=_programs(request, usual=self._programs))

    def open(self) -> Gathered:
        """Requests under way, none yet."""
        return Gathered(self._made, check=self.check, model=_MODEL, max_batch=self._max_batch, take=self._take)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        """One piece a request, in their order; the same request gives the same notes whatever is asked beside it.

        Args:
            materials: files that requests start from, four voices or a melody.
            cancelled: asked between steps with a request's number; True gives that request up.

        Raises:
            RecipeError: a request that this model cannot take; nothing ran.
        """
        for request, material in zip(requests, materials or [None] * len(requests), strict=True):
            self.check(request)
            self._take(request, material)
        return chosen(self._made, requests, materials=materials, cancelled=cancelled)

    def _made(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        gone = cancelled or (lambda _: False)
        files = dict(enumerate(materials or ()))
        rows = [_row(number, request) for number, request in enumerate(requests) if files.get(number) is None]
        for start in range(0, len(rows), self._max_batch):
            self._run(rows[start : start + self._max_batch], gone)
        made = {row.number: self._piece(row) for row in rows}
        for number, file in files.items():
            if file is not None:
                request = requests[number]
                programs = _programs(request, usual=self._programs)
                made[number] = voicing.voiced(
                    self._model, request, file, programs=programs, cancelled=partial(gone, number)
                )
        return [made[number] for number in range(len(requests))]

    def _take(self, request: Request, material: Score | None) -> None:
        """Refuse a file that a request cannot start from, or one that is not there."""
        if material is not None:
            voicing.check(request, material, programs=_programs(request, usual=self._programs))
        elif request.start is not None:
            raise RecipeError(f"{request.start.kind} starts from a file, and there is none", remedy="give a file")

    @torch.inference_mode()
    def _run(self, rows: list[_Row], cancelled: Callable[[int], bool]) -> None:
        memory = self._model.new_memory(rows=len(rows))
        alive = list(rows)
        while alive:
            seeds = np.array([seeding.derive(row.request.seed, "generation") for row in alive], dtype=np.uint64)
            for voice, logits_BP, now_BV in self._model.sing(memory):
                sung_BV = now_BV.cpu().numpy()
                allowed_BP = np.concatenate([
                    row.singing.allowed(len(row.grid), voice, sung_BV[place : place + 1])
                    for place, row in enumerate(alive)
                ])  # fmt: skip
                chosen_B = choose(
                    logits_BP.float().cpu().numpy(),
                    allowed_BV=allowed_BP,
                    temperature_B=np.array([row.request.temperature for row in alive]),
                    top_p_B=np.array([row.request.top_p for row in alive]),
                    seeds_B=seeds,
                    counters_B=np.array([len(row.grid) * now_BV.shape[1] + voice for row in alive], dtype=np.uint64),
                )
                now_BV[:, voice] = torch.from_numpy(chosen_B).to(now_BV)
            for row, pitches in zip(alive, memory.pitches_BTV[:, -1].tolist(), strict=True):
                row.grid.append(pitches)
                row.cancelled = cancelled(row.number)
            stays = [index for index, row in enumerate(alive) if len(row.grid) < row.steps and not row.cancelled]
            if len(stays) < len(alive):
                alive = [alive[index] for index in stays]
                memory.keep(torch.tensor(stays, dtype=torch.long, device=memory.pitches_BTV.device))

    def _piece(self, row: _Row) -> Piece:
        request = row.request
        score = score_of(
            np.array(row.grid, dtype=np.uint16), tempo_qpm=tempo_of(request, said_qpm=USUAL_QPM, meter=METER)
        )
        program_V = np.array(_programs(request, usual=self._programs))
        notes = replace(
            score.notes, program=program_V[score.notes.track % len(program_V)].astype(score.notes.program.dtype)
        )
        score = replace(score, notes=notes)
        if row.harmony is not None:
            fine = score.with_resolution(TICKS_PER_QUARTER)
            score = Score.of(
                restruck(fine.notes, row.harmony, begin_ticks=0),
                ticks_per_quarter=TICKS_PER_QUARTER,
                tempos=[(0, float(score.tempo_qpm[0]))],
                meters=[(0, *METER)],
            )
        tokens = encode(score, controls_of(request, collections=()))
        return Piece(request=request, score=score, tokens=tokens, refused_tokens=0, cancelled=row.cancelled)


def _row(number: int, request: Request) -> _Row:
    limits, steps = limits_of(request), _bars(request) * _BAR_STEPS
    singing = Singing(limits, steps=steps, harmony=limits.harmony)
    return _Row(number, request, singing, limits.harmony, steps=steps, grid=[])


def _bars(request: Request) -> int:
    bars, tempo_qpm = request.extent
    return bars or bars_of_length(request.length_s, tempo_qpm=tempo_qpm or USUAL_QPM, meter=METER)


def _programs(request: Request, *, usual: Sequence[int]) -> list[int]:
    """General MIDI programs that the voices take in turn; none where only drums may play."""
    pitched = [program for program in usual if program != DRUM_PROGRAM] or [_CHOIR]
    if not request.instruments:
        return pitched[:1]
    chosen = []
    for instrument in request.instruments:
        of_family = [program for program in range(DRUM_PROGRAM) if instrument_of(program) == instrument]
        chosen += ([program for program in of_family if program in pitched] or of_family)[:1]
    return chosen
