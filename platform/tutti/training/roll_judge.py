"""Measures of piano-rolls beside as many that were generated.

What MuseGAN was judged by (Dong et al. 2018, arXiv 1709.06298, section 5), as :mod:`tutti.metrics.piano_roll` defines
it: empty bars, used pitch classes, qualified notes, the drum pattern, tonal distance. Beside them stand what those
cannot see: how many notes begin and sound together, how far notes keep to one scale, and how much rolls differ among
each other, without which one good roll, repeated, would pass for music.

Each is told as two figures: of what was generated, and of the data (``…_of_data``). Figures of tracks are told as the
mean over the tracks that play in the data.

Whether what is asked for is heard is told by two more figures that the score leaves out: by how much rolls that were
asked for in happy and calm moods exceed the others in valence (``valence_contrast``), and those in happy and tense
moods in arousal, as :mod:`tutti.features.mood` estimates both. They are 0 of a model that does not listen.

The score, ``roll_deviation``, is 0 where all are alike and 1 at most. It is the mean over measures of the mean over
tracks (pairs of tracks, for tonal distance) of how far the generated figure lies from the data's: as it is for rates,
as a share of the data's figure for numbers and distances, never more than 1, and 1 where a track plays in the data
and not in what was generated.

Legend: R rolls, M marks, B bars, S steps, P pitches, K tracks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutti.corpus.score_batch import ScoreBatch
from tutti.features import roll
from tutti.features.descriptors import describe
from tutti.metrics import piano_roll
from tutti.metrics.pitch import scale_consistency

Figures = NDArray[np.float64]

STEPS_PER_QUARTER = roll.STEPS // 4
LEAST_STEPS = 2
"""Of a qualified note: an eighth. At four steps a quarter the 32nd of MuseGAN is no note at all."""
RATES = (
    "empty_bars_rate",
    "qualified_note_rate",
    "polyphonic_rate",
    "drum_pattern_rate",
    "scale_consistency",
    "variety",
)
AXES = {"valence": (("happy", "calm"), ("tense", "sad")), "arousal": (("happy", "tense"), ("sad", "calm"))}
"""Moods that are high and low on each axis."""
_NAMELESS_QPM = 120.0


class RollJudge:
    """Of rolls: how far their figures lie from those of generated ones."""

    score_name = "roll_deviation"

    def compared(self, examples: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Figures by name, the score first.

        Args:
            examples: ``roll`` (R, M, B, S, P, K) and ``classes`` (R, C) of the real ones.
            fakes: generated ones, of the same shape; a cell is marked above a half.
        """
        rolls = [(marks > 0.5).cpu().numpy() for marks in (examples["roll"], fakes)]
        data, made = map(measured, rolls)
        figures = {self.score_name: float(np.mean([_apart(name, data[name], made[name]) for name in told(data)]))}
        for name in told(data):
            plays = np.isfinite(data[name])
            for suffix, value in (("", made[name][plays]), ("_of_data", data[name][plays])):
                if np.isfinite(value).any():
                    figures[name + suffix] = float(np.nanmean(value))
        mood_R = examples["classes"][:, list(roll.CLASSES).index("mood")].cpu().numpy()
        for suffix, marks in zip(("_of_data", ""), rolls, strict=True):
            figures |= {name + suffix: value for name, value in contrasts(marks, mood_R).items()}
        return figures


def measured(roll_RMBSPK: NDArray[np.bool_]) -> dict[str, Figures]:
    """Every measure by name: for each track, each pair of tracks, or alone; NaN where nothing can be said."""
    sounds_RBSPK, begins_RBSPK = roll_RMBSPK[:, roll.SOUNDS], roll_RMBSPK[:, roll.BEGINS]
    distance_KK = piano_roll.tonal_distance(sounds_RBSPK, steps_per_quarter=STEPS_PER_QUARTER)
    pitched = np.arange(roll_RMBSPK.shape[-1]) != roll.DRUMS
    upper = np.triu(pitched[:, None] & pitched[None, :], k=1)
    pattern_K = piano_roll.drum_pattern_rate(sounds_RBSPK, steps_per_quarter=STEPS_PER_QUARTER)
    begun_K = begins_RBSPK.mean(axis=0).sum(axis=(0, 1, 2))
    plays_K = sounds_RBSPK.any(axis=(0, 1, 2, 3))
    polyphonic_K = piano_roll.polyphonic_rate(sounds_RBSPK, threshold=1)
    return {
        "empty_bars_rate": piano_roll.empty_bars_rate(sounds_RBSPK),
        "pitch_classes_used": np.where(pitched, piano_roll.pitch_classes_used(sounds_RBSPK), np.nan),
        "qualified_note_rate": np.where(
            pitched, piano_roll.qualified_note_rate(sounds_RBSPK, min_steps=LEAST_STEPS), np.nan
        ),
        "drum_pattern_rate": pattern_K[[roll.DRUMS]],
        "tonal_distance": distance_KK[upper],
        "notes": np.where(plays_K, begun_K, np.nan),
        "polyphonic_rate": np.where(plays_K, polyphonic_K, np.nan),
        "scale_consistency": _mean(scale_consistency(_scores(roll_RMBSPK))),
        "variety": variety(sounds_RBSPK),
    }


def contrasts(roll_RMBSPK: NDArray[np.bool_], mood_R: NDArray[np.integer]) -> dict[str, float]:
    """By how much rolls of the moods that are high on an axis exceed those that are low on it, -2 to 2.

    Args:
        mood_R: index into the moods of :data:`tutti.features.roll.CLASSES`, as they were asked for. An axis of which
            there are no rolls on both sides is left out.
    """
    names = np.array(roll.CLASSES["mood"])[mood_R.astype(np.int64)]
    described = describe(_scores(roll_RMBSPK))
    found = {}
    for axis, sides in AXES.items():
        value_R = described[axis].to_numpy(zero_copy_only=False)
        high, low = (value_R[np.isin(names, side)] for side in sides)
        if len(high) and len(low):
            found[f"{axis}_contrast"] = float(high.mean() - low.mean())
    return found


def _scores(roll_RMBSPK: NDArray[np.bool_]) -> ScoreBatch:
    return ScoreBatch.of([roll.score_of(marks[None], tempo_qpm=_NAMELESS_QPM) for marks in roll_RMBSPK])


def told(data: Mapping[str, Figures]) -> list[str]:
    """The measures that say something of the data."""
    return [name for name, value in data.items() if np.isfinite(value).any()]


def variety(sounds_RBSPK: NDArray[np.bool_]) -> Figures:
    """How much rolls that stand side by side differ: 1 less their common cells as a share of all; 0 to 1, shape (1,).

    The last stands beside the first; NaN of a single roll.
    """
    flat = sounds_RBSPK.reshape(len(sounds_RBSPK), -1)
    if len(flat) < 2:
        return np.full(1, np.nan)
    other = np.roll(flat, 1, axis=0)
    both, either = (flat & other).sum(axis=1), (flat | other).sum(axis=1)
    return _mean(1 - np.where(either > 0, both / np.maximum(either, 1), 1.0))


def _apart(name: str, data: Figures, made: Figures) -> float:
    """How far figures lie apart, 0 to 1, over what the data says something of."""
    plays = np.isfinite(data)
    data, made = data[plays], made[plays]
    unit = np.ones_like(data) if name in RATES else np.maximum(data, np.finfo(np.float64).tiny)
    return float(np.where(np.isfinite(made), np.minimum(np.abs(made - data) / unit, 1.0), 1.0).mean())


def _mean(values: Figures) -> Figures:
    known = values[np.isfinite(values)]
    return np.array([known.mean() if len(known) else np.nan])
