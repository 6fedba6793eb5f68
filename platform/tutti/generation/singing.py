"""What each of several voices may sing at a step, and how what they sing follows chords.

Legend: D drafts, P identifiers of pitches, V voices, N notes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Notes
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.features.voices import (
    FIRST_PITCH,
    HIGHEST_PITCH,
    LOWEST_PITCH,
    NOTHING,
    STEPS_PER_QUARTER,
    VOCABULARY_SIZE,
    VOICES,
)
from tutti.generation.controls import Limits
from tutti.generation.harmony import Harmony
from tutti.generation.refusals import METER

Mask = NDArray[np.bool_]

STEP_TICKS = TICKS_PER_QUARTER // STEPS_PER_QUARTER


class Singing:
    """Limits of one piece, step by step.

    With a key, it begins on the tonic triad and ends on it, from the last quarter on. Chords bind it as they bind
    every piece (:mod:`tutti.generation.harmony`): where one begins its bass is sung, below all others, by the lowest
    voice.

    Args:
        limits: of the piece.
        steps: of the whole piece.
        harmony: chords, from ``begin_step`` on.
    """

    def __init__(self, limits: Limits, *, steps: int, harmony: Harmony | None = None, begin_step: int = 0) -> None:
        self._limits, self._steps, self._begin_step = limits, steps, begin_step
        self._spans = None if harmony is None else harmony.spans(METER, before=limits.pitches)

    def allowed(self, step: int, voice: int, now_DV: NDArray[np.integer]) -> Mask:
        """Identifiers that a voice may sing; shape (D, P).

        Args:
            now_DV: what the voices above it sing at this step.
        """
        pitches, bass = self._pitches(step)
        allowed = np.ones(VOCABULARY_SIZE, dtype=bool)
        allowed[NOTHING] = False
        allowed[FIRST_PITCH:] = pitches[LOWEST_PITCH : HIGHEST_PITCH + 1]
        if bass is None:
            return np.repeat(allowed[None], len(now_DV), axis=0)
        low = np.zeros(VOCABULARY_SIZE, dtype=bool)
        low[FIRST_PITCH:] = bass[LOWEST_PITCH : HIGHEST_PITCH + 1]
        if voice < VOICES - 1:
            # Room is left for the bass.
            allowed[FIRST_PITCH : int(low.argmax()) + 1] = False
            return np.repeat(allowed[None], len(now_DV), axis=0)
        above = now_DV[:, :voice]
        lowest = np.where(above >= FIRST_PITCH, above, VOCABULARY_SIZE).min(axis=1)
        beneath = low & (np.arange(VOCABULARY_SIZE) < lowest[:, None])
        found: Mask = np.where(beneath.any(axis=1)[:, None], beneath, low)
        return found

    def _pitches(self, step: int) -> tuple[Mask, Mask | None]:
        """Pitches that may sound, and those of the bass where a chord begins; shape (128,) each."""
        since = (step - self._begin_step) * STEP_TICKS
        if self._spans is None or since < 0 or since >= self._spans.hold_ticks[-1]:
            at_home = step == 0 or step >= self._steps - STEPS_PER_QUARTER
            return (self._limits.home if at_home else self._limits.pitches), None
        spans = self._spans
        span = int(np.searchsorted(spans.start_ticks, since, side="right")) - 1
        begins = spans.start_ticks[span] == since and spans.lowest[span] >= 0
        return spans.masks[spans.begin[span]], spans.masks[spans.lowest[span]] if begins else None


def restruck(notes: Notes, harmony: Harmony | None, *, begin_ticks: int) -> Notes:
    """Notes that sound from one chord into the next, struck again where it begins.

    Args:
        notes: 24 ticks a quarter.
        harmony: chords, from ``begin_ticks`` on.
    """
    for start, _, _ in () if harmony is None else harmony.regions(METER):
        at = begin_ticks + start
        over = (notes.onset_ticks < at) & (at < notes.onset_ticks + notes.duration_ticks)
        rest = notes.take(over)
        again = replace(
            rest,
            onset_ticks=np.full(len(rest), at, dtype=np.int32),
            duration_ticks=(rest.onset_ticks + rest.duration_ticks - at).astype(np.int32),
        )
        first = replace(
            notes, duration_ticks=np.where(over, at - notes.onset_ticks, notes.duration_ticks).astype(np.int32)
        )
        columns = Notes.__dataclass_fields__
        notes = Notes(*(np.concatenate((getattr(first, name), getattr(again, name))) for name in columns))
    return notes
