"""Mood on two axes, estimated from cues of a piece: valence (sad to happy) and arousal (calm to excited).

Convention: both axes run from -1 to 1, 0 is the middle of common-practice music. Russell's circumplex (1980) names the
quadrants.

Sources: which cue moves which axis, and in which direction, is taken from the review by Gabrielsson and Lindström
(2010, "The role of structure in the musical expression of emotions", Handbook of Music and Emotion, pages 367 to 400)
and from the factorial experiment of Eerola, Friberg and Bresin (2013, "Emotional expression in music: contribution,
linearity, and additivity of primary musical cues", Frontiers in Psychology 4:487): mode says most about valence, then
speed, register, loudness and articulation; speed and loudness say most about arousal; and the cues add up, almost
without interaction. That is why the estimate is a sum.

The weights keep that order but are ours. Where speed has its middle is taken from EMOPIA (Hung et al. 2021, "EMOPIA: A
multi-modal pop piano dataset", ISMIR), whose published means of the clips that people heard as excited (1,065 tokens in
31.9 s, 1,368 in 35.6 s) and as calm (771 in 40.6 s, 729 in 38.2 s) lie around 6 notes a second. There the excited are
hardly happier than the calm, so speed counts less for valence than in the experiment. Loudness has its middle at that
of MIDI's velocities. The other centres and spreads are means and deviations over 2,497 scores of songs, keyboard,
chamber and band music.

No set of clips with listeners' labels may be shipped or fetched here, so the estimate itself was not fitted to any:
wherever it is stored it is called ``estimate``, and a label that comes with the music takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Figures = NDArray[np.float64]

NEUTRAL_RADIUS = 0.2


@dataclass(frozen=True, slots=True)
class Cues:
    """What the estimate listens to, of W pieces; each of shape (W,).

    Args:
        mode_lean: -1 (surely minor) to 1 (surely major).
        notes_per_s: notes a second.
        moments_per_s: moments at which notes begin, a second; a chord counts once.
        velocity: mean MIDI velocity, NaN where all are equal and so tell nothing.
        pitch: mean MIDI pitch of notes that are no drums, weighted by duration, NaN without any.
        legato: median of duration over time to the part's next onset; 1 is legato, 0.5 staccato.
    """

    mode_lean: Figures
    notes_per_s: Figures
    moments_per_s: Figures
    velocity: Figures
    pitch: Figures
    legato: Figures


def estimate_moods(cues: Cues) -> tuple[Figures, Figures]:
    """Valence and arousal of each piece, -1 to 1; each of shape (W,)."""
    density = _standing(np.log2(np.maximum(cues.notes_per_s, 1 / 16)), centre=2.6, spread=0.75)
    pace = _standing(np.log2(np.maximum(cues.moments_per_s, 1 / 16)), centre=1.75, spread=0.75)
    speed = (density + pace) / 2
    loudness = _told(_standing(cues.velocity, centre=64, spread=12))
    register = _told(_standing(cues.pitch, centre=62, spread=4.5))
    detached = _standing(-cues.legato, centre=-0.95, spread=0.2)
    valence = 0.72 * cues.mode_lean + 0.12 * speed + 0.1 * register + 0.06 * detached
    arousal = 0.6 * speed + 0.28 * loudness + 0.08 * detached + 0.04 * register
    return valence, arousal


def mood_word(valence: float, arousal: float) -> str:
    """``neutral`` near the middle, else the quadrant: ``happy``, ``tense``, ``sad`` or ``calm``."""
    if math.hypot(valence, arousal) < NEUTRAL_RADIUS:
        return "neutral"
    if arousal >= 0:
        return "happy" if valence >= 0 else "tense"
    return "calm" if valence >= 0 else "sad"


def _standing(value: Figures, *, centre: float, spread: float) -> Figures:
    """Where a value stands between the extremes, -1 to 1; one spread above the centre is 0.46."""
    return np.asarray(np.tanh((value - centre) / (2 * spread)))


def _told(standing: Figures) -> Figures:
    """0 where a cue tells nothing."""
    return np.where(np.isnan(standing), 0.0, standing)
