"""Measures of notes that a model made: are they in tune, and do they sound like the notes that it learnt from?

Goal: pitch accuracy is the share of notes whose fundamental, estimated from their sound alone, lies within a quarter
tone (50 cents) of the pitch that was asked for; a note without a fundamental is wrong. Distance is Fréchet's between
Gaussians fitted to embeddings of real and of generated notes (D. C. Dowson and B. V. Landau 1982, J. Multivariate
Analysis 12; for sound: K. Kilgour et al. 2019, "Fréchet Audio Distance", arXiv 1812.08466).

Convention: sound in -1 to 1 at any level, one note a row, all of one length; distance in squared decibels, mean over
bands. We differ from the latter paper in the embedding, which is no network's, so nothing has to be downloaded and no
model is judged by what it was taught with: log-mel levels of 32 bands under the note's loudest moment, clipped 80 dB
below it, as means over its first tenth of a second and over all that follows, and the change from its second quarter to
its last; of each the first ten numbers of a cosine transform over the bands (S. Davis and P. Mermelstein 1980, IEEE
Trans. ASSP 28), which tell the shape of the spectrum and not the places of its harmonics.
A distance grows as samples get fewer, so compare equal numbers only; beside it stands that of one half of the real
notes to the other, of half as many each: a model that had learnt everything would be nearer than that.

Empty input, and fewer than two notes of a kind, give NaN.

Legend: B notes, S samples, F frames, M bands, E numbers of an embedding, N rows.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import NDArray

from tutti import seeding
from tutti.features.fundamental import note_pitch
from tutti.features.spectra import SpectrumScale, to_sound
from tutti.features.spectral import Floats, MelScale, log_mel

Figures = NDArray[np.float64]

IN_TUNE_CENTS = 50.0
BANDS, SHAPES = 32, 10
RANGE_DB = 80.0

_LOW_HZ, _HIGH_HZ = 30.0, 7_600.0
_WINDOW_S, _HOP_S, _ATTACK_S = 0.064, 0.032, 0.1
_NO_POWER = 1e-12


def pitch_errors_cents(samples_BS: Floats, *, pitch_B: NDArray[np.integer], sample_rate_hz: int) -> Figures:
    """How far each note is from the pitch that was asked for, ``cents_B``; NaN where it has no fundamental."""
    heard = [note_pitch(samples_S, sample_rate_hz=sample_rate_hz) for samples_S in samples_BS]
    return np.asarray(100 * (np.array(heard, dtype=np.float64) - pitch_B))


def pitch_accuracy(samples_BS: Floats, *, pitch_B: NDArray[np.integer], sample_rate_hz: int) -> float:
    """Share of the notes within :data:`IN_TUNE_CENTS` of their pitch."""
    return _share_in_tune(pitch_errors_cents(samples_BS, pitch_B=pitch_B, sample_rate_hz=sample_rate_hz))


def embedded(samples_BS: Floats, *, sample_rate_hz: int) -> Figures:
    """Shape of the spectrum at the start, after it, and of how it changes: ``embedding_BE``, ten numbers each."""
    scale = MelScale(
        n_fft=1 << round(math.log2(_WINDOW_S * sample_rate_hz)),
        hop_samples=round(_HOP_S * sample_rate_hz),
        n_mels=BANDS,
        fmin_hz=_LOW_HZ,
        fmax_hz=_HIGH_HZ,
        floor_db=-200.0,
    )
    level_BFM = log_mel(samples_BS, sample_rate_hz=sample_rate_hz, scale=scale).astype(np.float64)
    level_BFM -= level_BFM.max(axis=(1, 2), keepdims=True)
    np.maximum(level_BFM, -RANGE_DB, out=level_BFM)
    # The first frame is half, and the last may be less, of silence around the note.
    level_BFM = level_BFM[:, 1:-1]
    attack = max(round(_ATTACK_S / _HOP_S), 1)
    quarter = max(level_BFM.shape[1] // 4, 1)
    change_BM = level_BFM[:, -quarter:].mean(axis=1) - level_BFM[:, quarter : 2 * quarter].mean(axis=1)
    told_B3M = np.stack((level_BFM[:, :attack].mean(axis=1), level_BFM[:, attack:].mean(axis=1), change_BM), axis=1)
    # Orthogonal and scaled so that a change of all bands by a decibel is one of the first number by a decibel.
    shapes_B3E = scipy.fft.dct(told_B3M, axis=-1, norm="ortho")[..., :SHAPES] / math.sqrt(BANDS)
    return np.asarray(shapes_B3E.reshape(len(told_B3M), -1))


def frechet_distance(some_NE: Figures, others_NE: Figures) -> float:
    """Squared distance of the means, and how much the covariances differ."""
    if min(len(some_NE), len(others_NE)) < 2:
        return math.nan
    shift = some_NE.mean(axis=0) - others_NE.mean(axis=0)
    spread, others_spread = (np.atleast_2d(np.cov(rows_NE, rowvar=False)) for rows_NE in (some_NE, others_NE))
    # The eigenvalues of a product of covariances are those of a symmetric matrix: real, and rounding alone is negative.
    values, vectors = scipy.linalg.eigh(spread)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(scipy.linalg.eigvalsh(root @ others_spread @ root), 0)).sum()
    return max(float(shift @ shift + np.trace(spread) + np.trace(others_spread) - 2 * shared), 0.0)


def halves_distance(embedding_NE: Figures, *, seed: int = 0) -> float:
    """Distance of one half of the rows, drawn, to the other."""
    order = np.argsort(
        seeding.uniform_at(
            np.array([seeding.derive(seed, "halves")], np.uint64), np.arange(len(embedding_NE), dtype=np.uint64)
        )
    )
    half = len(order) // 2
    return frechet_distance(embedding_NE[order[:half]], embedding_NE[order[half:]])


def log_spectral_distance_db(some_BS: Floats, others_BS: Floats, *, sample_rate_hz: int) -> Figures:
    """How far each pair of notes is apart, ``distance_B``: root mean square over 64 mel bands, mean over time.

    A. Gray and J. Markel 1976 ("Distance measures for speech processing", IEEE Trans. ASSP 24), on mel bands, of notes
    of equal power; what is 60 dB under the loudest band of the first counts as silence.
    """
    scale = MelScale(
        n_fft=1 << round(math.log2(_WINDOW_S * sample_rate_hz)),
        hop_samples=round(_HOP_S / 2 * sample_rate_hz),
        n_mels=2 * BANDS,
        fmin_hz=_LOW_HZ,
        fmax_hz=_HIGH_HZ,
        floor_db=-200.0,
    )
    some_BFM, others_BFM = (
        log_mel(
            samples_BS / np.sqrt(np.maximum(np.square(samples_BS).mean(axis=1, keepdims=True), _NO_POWER)),
            sample_rate_hz=sample_rate_hz,
            scale=scale,
        )
        for samples_BS in (some_BS, others_BS)
    )
    silence_B11 = some_BFM.max(axis=(1, 2), keepdims=True) - 60
    apart_BFM = np.maximum(some_BFM, silence_B11) - np.maximum(others_BFM, silence_B11)
    return np.asarray(np.sqrt(np.square(apart_BFM, dtype=np.float64).mean(axis=2)).mean(axis=1))


def compared(
    real_B2KF: Floats, fake_B2KF: Floats, *, pitch_B: NDArray[np.integer], scale: SpectrumScale
) -> dict[str, float]:
    """Pictures of real notes beside as many generated ones of the same pitches, by the sound of both.

    Returns:
        ``pitch_accuracy`` and ``pitch_cents`` (median size of the error where there is a fundamental) of the generated
        notes, ``real_pitch_accuracy``; ``timbre_distance`` from real to generated, ``real_timbre_distance`` from one
        half of the real ones to the other; ``spectral_distance_db``, how far each generated note is from the real one
        beside it, mean.
    """
    length_s = scale.frames * scale.hop_samples / scale.sample_rate_hz
    figures, embeddings, sounds = {}, [], []
    for prefix, spectra_B2KF in (("real_", real_B2KF), ("", fake_B2KF)):
        samples_BS = to_sound(spectra_B2KF.astype(np.float32), scale=scale, length_s=length_s)
        cents_B = pitch_errors_cents(samples_BS, pitch_B=pitch_B, sample_rate_hz=scale.sample_rate_hz)
        figures[f"{prefix}pitch_accuracy"] = _share_in_tune(cents_B)
        figures[f"{prefix}pitch_cents"] = (
            float(np.nanmedian(np.abs(cents_B))) if np.isfinite(cents_B).any() else math.nan
        )
        sounds.append(samples_BS)
        embeddings.append(embedded(samples_BS, sample_rate_hz=scale.sample_rate_hz))
    figures["timbre_distance"] = frechet_distance(*embeddings)
    figures["real_timbre_distance"] = halves_distance(embeddings[0])
    apart_B = log_spectral_distance_db(sounds[0], sounds[1], sample_rate_hz=scale.sample_rate_hz)
    figures["spectral_distance_db"] = float(apart_B.mean()) if len(apart_B) else math.nan
    return figures


def _share_in_tune(cents_B: Figures) -> float:
    return float(np.mean(np.abs(cents_B) <= IN_TUNE_CENTS)) if len(cents_B) else math.nan
