"""What can be said of pieces in a few figures: key, tempo, meter, density, polyphony, range, groove, mood.

Convention: figures are computed from the columns of a batch, of all its pieces at once; drums (program 128) count as
notes but have no pitch. :mod:`tutti.features.tonality` and :mod:`tutti.features.rhythm` define them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch, reduced
from tutti.features import rhythm, tonality
from tutti.features.mood import Cues, estimate_moods
from tutti.units import Key

MODE_SLOPE = 4.0


def describe(batch: ScoreBatch) -> dict[str, pa.Array]:
    """The descriptor columns of the ``works`` table, by name; each of W rows."""
    pitched = batch.without_drums()
    fit = tonality.key_fit(pitched)
    keys, confidence = tonality.best_keys(fit)
    pitch_entropy, pitch_class_entropy = tonality.entropies(pitched)
    bars = rhythm.bars(batch)
    sounds_pitched = np.diff(pitched.note_starts) > 0
    polyphony = np.where(sounds_pitched, rhythm.polyphony(pitched), rhythm.polyphony(batch))
    valence, arousal = estimate_moods(_cues(batch, pitched=pitched, fit=fit))
    quarters = batch.end_ticks / batch.ticks_per_quarter
    return {
        "notes": pa.array(np.diff(batch.note_starts).astype(np.int32)),
        "length_s": pa.array(batch.length_s),
        "bars": pa.array(np.diff(bars.starts).astype(np.int32)),
        "empty_bars_share": pa.array(rhythm.empty_share(bars)),
        "tempo_mean_qpm": pa.array(_mean_tempos(batch, quarters=quarters)),
        "meter": pa.array(rhythm.longest_meters(batch)),
        "programs": _programs(batch),
        "key": pa.array([str(tonality.KEYS[key]) for key in keys]),
        "key_confidence": pa.array(confidence),
        "scale_consistency": pa.array(tonality.scale_consistency(pitched)),
        "pitch_entropy": pa.array(pitch_entropy),
        "pitch_class_entropy": pa.array(pitch_class_entropy),
        "groove_consistency": pa.array(rhythm.groove_consistency(bars)),
        "notes_per_quarter": pa.array(rhythm.notes_per_quarter(batch)),
        "polyphony": pa.array(polyphony),
        "pitch_low": pa.array(reduced(np.minimum, pitched.notes.pitch, pitched.note_starts)),
        "pitch_high": pa.array(reduced(np.maximum, pitched.notes.pitch, pitched.note_starts)),
        "valence": pa.array(valence),
        "arousal": pa.array(arousal),
        "mood_source": pa.array(["estimate"] * len(batch)),
    }


def describe_score(score: Score) -> dict[str, Any]:
    """The descriptor columns of one piece, as plain values."""
    return {name: column[0].as_py() for name, column in describe(ScoreBatch.of([score])).items()}


def estimate_key(score: Score) -> tuple[Key, float]:
    """The likeliest key and its confidence: correlation of its profile less that of the second best, 0 to 2."""
    keys, confidence = tonality.best_keys(tonality.key_fit(ScoreBatch.of([score]).without_drums()))
    return tonality.KEYS[keys[0]], float(confidence[0])


def _mean_tempos(batch: ScoreBatch, *, quarters: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Quarters over minutes up to the end; the first tempo of a piece without length."""
    first = batch.tempo_qpm[batch.tempo_starts[:-1]]
    lasts = batch.length_s > 0
    return np.where(lasts, 60.0 * quarters / np.where(lasts, batch.length_s, 1.0), first)


def _programs(batch: ScoreBatch) -> pa.Array:
    """Programs in use, rising; a list for each piece."""
    used = np.zeros((len(batch), 256), dtype=bool)
    used[batch.piece_of_note, batch.notes.program] = True
    piece, program = np.nonzero(used)
    starts = np.concatenate(([0], np.cumsum(np.bincount(piece, minlength=len(batch)))))
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(program.astype(np.uint8)))


def _cues(batch: ScoreBatch, *, pitched: ScoreBatch, fit: np.ndarray[Any, Any]) -> Cues:
    size, piece = len(batch), batch.piece_of_note
    notes = np.maximum(np.diff(batch.note_starts), 1)
    moments, sounding_s = rhythm.moments(batch)
    sounding_s = np.maximum(sounding_s, 1.0)
    velocity = np.bincount(piece, weights=batch.notes.velocity, minlength=size) / notes
    low, high = (reduced(side, batch.notes.velocity, batch.note_starts) for side in (np.minimum, np.maximum))
    weight = pitched.notes.duration_ticks.astype(np.float64)
    weights = np.bincount(pitched.piece_of_note, weights=weight, minlength=size)
    pitch = np.bincount(pitched.piece_of_note, weights=weight * pitched.notes.pitch, minlength=size)
    return Cues(
        mode_lean=np.tanh(MODE_SLOPE * (fit[:, :12].max(axis=1) - fit[:, 12:].max(axis=1))),
        notes_per_s=np.diff(batch.note_starts) / sounding_s,
        moments_per_s=moments / sounding_s,
        velocity=np.where(high > low, velocity, np.nan),
        pitch=np.where(weights > 0, pitch / np.where(weights > 0, weights, 1.0), np.nan),
        legato=rhythm.legato(batch),
    )
