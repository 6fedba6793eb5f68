"""One piece with a form under way: what its next requests to the model are, and the piece once all are answered.

Each step has a random stream of its own, named by its music, so the piece is a function of request, seed and model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.features.controls import density_class
from tutti.features.events import encode
from tutti.features.vocabulary import DENSITIES, TICKS_PER_QUARTER
from tutti.generation.controls import ranges_of
from tutti.generation.form.keys import in_key, moved
from tutti.generation.form.plan import Plan, Step, StepId, planned
from tutti.generation.form.stretch import Stretch, ended, joined, of_score, shaded, thinned
from tutti.generation.harmony import bar_ticks
from tutti.generation.length import USUAL_LENGTH_S
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.generation.start import Start
from tutti.units import PitchRange

HEARD_BARS = 8
"""What a phrase that goes on hears of what went before."""
DRAFTS = 2
"""Of a variation, of which one is taken."""
_PIANO = (21, 108)
_NARROWEST = 24
"""Semitones that a section's own compass has at least."""


class Making:
    """A piece under way.

    Args:
        request: with a form.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.plan: Plan = planned(request)
        self.cancelled = False
        self._made: dict[StepId, Stretch] = {}
        self._asked: set[StepId] = set()
        self._refused_tokens, self._nats = 0, 0.0

    @property
    def complete(self) -> bool:
        """Whether every step is over."""
        return len(self._made) == len(self.plan.steps)

    def ready(self) -> Iterator[StepId]:
        """Steps that can be made now and were not told of before."""
        for name, step in self.plan.steps.items():
            if name not in self._asked and all(need in self._made for need in step.needs):
                self._asked.add(name)
                yield name

    def asked(self, name: StepId) -> tuple[Request, Score | None]:
        """What a step asks of the model, and the music that it starts from."""
        step = self.plan.steps[name]
        tempo_qpm = self.plan.extent.tempo_qpm
        request = self._controls(name, step)
        heard = self._heard(step)
        if heard is None:
            chords = {"chords": step.phrase.close} if step.what == "close" else {}
            return request.model_copy(update={"bars": step.bars, **chords}), None
        if step.what == "vary":
            start = Start(kind="vary", strength=step.strength, drafts=DRAFTS)
            # What a variation keeps of its file is not asked for.
            kept: dict[str, object] = {
                "start": start,
                "bars": None,
                "length": USUAL_LENGTH_S,
                "meter": None,
                "polyphony": None,
            }
            kept |= {"pitch_range": None} if self.plan.base.ranges else {}
            return request.model_copy(update=kept), self._original(step).score(tempo_qpm=tempo_qpm)
        silent = min(heard.silent_bars, heard.bars - 1)
        update: dict[str, object] = {"bars": silent + step.bars}
        if step.what == "close":
            chords_of_close = str(step.phrase.close)
            update["chords"] = " | ".join([chords_of_close.rpartition("| ")[2]] * silent + [chords_of_close])
        return request.model_copy(update=update), heard.score(tempo_qpm=tempo_qpm)

    def take(self, name: StepId, piece: Piece | None) -> None:
        """Take what a step made; None where what it was to vary stays as it is."""
        step, meter = self.plan.steps[name], self.plan.extent.meter
        if piece is None:
            self._made[name] = self._original(step)
            return
        self._refused_tokens += piece.refused_tokens
        self._nats = math.nan if piece.nats is None else self._nats + piece.nats
        heard = self._heard(step)
        after = 0 if heard is None or step.what == "vary" else heard.bars
        stretch = of_score(piece.score, after_bars=after, bars=step.bars, meter=meter)
        if step.what == "vary":
            stretch = replace(stretch, notes=self._within(stretch.notes))
        self._made[name] = stretch

    def piece(self) -> Piece:
        """The piece, as far as it is there without a gap."""
        plan, there = self.plan, []
        for music in plan.music:
            if any(name not in self._made for name in music):
                break
            there.append(joined([self._made[name] for name in music]))
        meter, tempo_qpm = plan.extent.meter, plan.extent.tempo_qpm
        whole = joined(there) if there else Stretch(Notes.none(), 0, meter)
        notes = whole.notes
        if there:
            length = bar_ticks(meter)
            bars = np.cumsum([0, *(each.bars for each in there)])
            middles = [float((bars[place] + bars[place + 1]) / 2 * length) for place in range(len(there))]
            notes = shaded(
                notes, at_ticks=middles, levels=[phrase.manner.level for phrase in plan.phrases[: len(there)]]
            )
            if self.complete and plan.phrases[-1].close is not None:
                notes = ended(notes, from_ticks=whole.ticks - length, to_ticks=whole.ticks)
        score = replace(whole, notes=notes).score(tempo_qpm=tempo_qpm)
        return Piece(
            request=self.request,
            score=score,
            tokens=encode(score),
            refused_tokens=self._refused_tokens,
            cancelled=not self.complete,
            nats=None if math.isnan(self._nats) else self._nats,
        )

    def _within(self, notes: Notes) -> Notes:
        """Of a variation's notes those that keep what it was not told of."""
        if self.plan.base.ranges:
            low, high = self._reach(notes)
            notes = notes.take((notes.pitch >= low) & (notes.pitch <= high))
        polyphony = self.plan.base.polyphony
        return notes if polyphony is None else thinned(notes, polyphony=polyphony)

    def _reach(self, notes: Notes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lowest and highest pitch that each note may have; shape (N,) each."""
        low, high = self.plan.base.compass.low, self.plan.base.compass.high
        ranges = ranges_of(self.plan.base)
        if ranges is None:
            return np.full(len(notes), max(low, _PIANO[0])), np.full(len(notes), min(high, _PIANO[1]))
        lows, highs = ranges[np.minimum(notes.program, DRUM_PROGRAM - 1)].T
        drums = notes.program == DRUM_PROGRAM
        return np.where(drums, 0, np.maximum(lows, low)), np.where(drums, 127, np.minimum(highs, high))

    def _heard(self, step: Step) -> Stretch | None:
        """What a step starts from; None where there is nothing to go on with."""
        if not step.needs:
            return None
        heard = joined([self._made[need] for need in step.needs])
        if step.what != "vary":
            heard = heard.last(HEARD_BARS)
        # What goes on is played by those who played: drums alone would leave the chords to nobody.
        pitched = heard.notes.program != DRUM_PROGRAM
        return heard if pitched.any() or (self.plan.base.instruments == ("drums",) and len(pitched)) else None

    def _original(self, step: Step) -> Stretch:
        """What a variation varies, in the variation's key."""
        made, phrase = joined([self._made[need] for need in step.needs]), step.phrase
        if phrase.key is None or phrase.source_key is None or phrase.key == phrase.source_key:
            return made
        low, high = self._reach(made.notes)
        notes = moved(made.notes, source=phrase.source_key, target=phrase.key, low=low, high=high)
        return replace(made, notes=notes)

    def _controls(self, name: StepId, step: Step) -> Request:
        """Controls of a step, without its length."""
        base, phrase = self.plan.base, step.phrase
        key = phrase.close_key if step.what == "close" else phrase.key
        update: dict[str, object] = {"seed": seeding.derive(self.request.seed, "form", *name)}
        if phrase.manner.instruments:
            update["instruments"] = phrase.manner.instruments
        first = [self._made[each] for each in self.plan.first if each in self._made]
        if len(first) == len(self.plan.first) and any(len(each.notes) for each in first):
            update |= self._contrast(step, joined(first))
        return in_key(base, key).model_copy(update=update)

    def _contrast(self, step: Step, reference: Stretch) -> dict[str, object]:
        """What a step asks otherwise than the piece began."""
        first, own = self.plan.phrases[0].manner, step.phrase.manner
        base, update = self.plan.base, dict[str, object]()
        if (denser := own.density - first.density) != 0:
            quarters = reference.ticks / TICKS_PER_QUARTER
            usual = base.density or density_class(len(reference.notes) / quarters)
            update["density"] = DENSITIES[min(max(DENSITIES.index(usual) + denser, 0), len(DENSITIES) - 1)]
        semitones = own.semitones - first.semitones
        pitched = reference.notes.pitch[reference.notes.program != DRUM_PROGRAM].astype(np.int64)
        if semitones and len(pitched) and step.what != "vary" and not base.ranges:
            low, high = int(pitched.min()) + semitones, int(pitched.max()) + semitones
            wider = max(_NARROWEST - (high - low), 0)
            low, high = max(low - wider // 2, base.compass.low), min(high + wider - wider // 2, base.compass.high)
            if high - low >= _NARROWEST:
                update["pitch_range"] = str(PitchRange(low, high))
        return update
