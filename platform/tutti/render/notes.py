"""Single notes as sound: what an instrument's model learns from (:class:`tutti.dataset.note_sources.Player`).

Legend: S samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from tutti.corpus.score import Notes, Score
from tutti.errors import InputError
from tutti.render.synthesis import SAMPLE_RATE_HZ, synthesise
from tutti.render.voice import Mono

_TICKS_PER_QUARTER, _TEMPO_QPM = 6_000, 60.0


def play_note(
    *, program: int, pitch: int, velocity: int, length_s: float, sample_rate_hz: int, soundfont: Path | None = None
) -> Mono:
    """One key of a program, held for ``length_s`` and cut off there: ``samples_S``, both channels mixed.

    It is played at 44.1 kHz and brought to the rate from there, for a synthesizer that plays at a low rate folds what
    lies above it down. Silence where the font has no sound.

    Raises:
        MissingError: no font.
    """
    length = round(length_s * sample_rate_hz)
    held_ticks = int(np.ceil(length_s * _TICKS_PER_QUARTER))
    score = Score.of(
        Notes.of(onset_ticks=[0], duration_ticks=[held_ticks], pitch=[pitch], velocity=[velocity], program=[program]),
        ticks_per_quarter=_TICKS_PER_QUARTER,
        tempos=[(0, _TEMPO_QPM)],
    )
    samples_S = np.zeros(length, dtype=np.float32)
    try:
        audio_SC = synthesise(score, sample_rate_hz=SAMPLE_RATE_HZ, soundfont=soundfont)
    except InputError:
        return samples_S
    sound_S = soxr.resample(audio_SC.mean(axis=1), SAMPLE_RATE_HZ, sample_rate_hz)[:length]
    samples_S[: len(sound_S)] = sound_S
    return samples_S
