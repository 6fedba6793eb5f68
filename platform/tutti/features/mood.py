"""Mood on two axes, estimated from cues of a score: valence (sad to happy) and arousal (calm to excited).

Convention: both axes run from -1 to 1, 0 is the middle of common-practice music. Russell's circumplex (1980) names the
quadrants.

Sources: which cue moves which axis, and in which direction, is taken from the review by Gabrielsson and Lindström
(2010, "The role of structure in the musical expression of emotions", Handbook of Music and Emotion, pages 367 to 400)
and from the factorial experiment of Eerola, Friberg and Bresin (2013, "Emotional expression in music: contribution,
linearity, and additivity of primary musical cues", Frontiers in Psychology 4:487): mode says most about valence, then
speed, register, loudness and articulation; speed and loudness say most about arousal; and the cues add up, almost
without interaction. That is why the estimate is a sum.

The weights below keep that order but are ours. The centres and spreads of speed, register and articulation are the
means and deviations over 2,497 scores of songs, keyboard, chamber and band music; loudness is centred on mezzo forte.
The estimate was **not** held against labels of listeners: it ranks pieces in a plausible way, and wherever it is stored
it is called ``estimate``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NEUTRAL_RADIUS = 0.2


@dataclass(frozen=True, slots=True)
class Cues:
    """What the estimate listens to.

    Args:
        mode_lean: -1 (surely minor) to 1 (surely major).
        onsets_per_s: moments at which notes begin, a second; chords count once.
        velocity: mean MIDI velocity, or None where all are equal and so tell nothing.
        pitch: mean MIDI pitch of notes that are no drums, weighted by duration, or None without any.
        legato: median of duration over time to the part's next onset; 1 is legato, 0.5 staccato.
    """

    mode_lean: float
    onsets_per_s: float
    velocity: float | None
    pitch: float | None
    legato: float


def estimate_mood(cues: Cues) -> tuple[float, float]:
    """Valence and arousal, each in -1 to 1."""
    speed = _standing(math.log2(max(cues.onsets_per_s, 1 / 16)), centre=1.6, spread=0.8)
    loudness = 0.0 if cues.velocity is None else _standing(cues.velocity, centre=80, spread=16)
    register = 0.0 if cues.pitch is None else _standing(cues.pitch, centre=62, spread=4.5)
    detached = _standing(-cues.legato, centre=-0.95, spread=0.2)
    valence = 0.55 * cues.mode_lean + 0.25 * speed + 0.12 * register + 0.08 * detached
    arousal = 0.55 * speed + 0.3 * loudness + 0.1 * detached + 0.05 * register
    return valence, arousal


def mood_word(valence: float, arousal: float) -> str:
    """``neutral`` near the middle, else the quadrant: ``happy``, ``tense``, ``sad`` or ``calm``."""
    if math.hypot(valence, arousal) < NEUTRAL_RADIUS:
        return "neutral"
    if arousal >= 0:
        return "happy" if valence >= 0 else "tense"
    return "calm" if valence >= 0 else "sad"


def _standing(value: float, *, centre: float, spread: float) -> float:
    """Where a value stands between the extremes, -1 to 1; one spread above the centre is 0.46."""
    return math.tanh((value - centre) / (2 * spread))
