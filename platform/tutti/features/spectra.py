"""Notes as pictures that a network can draw: log-magnitude and instantaneous frequency, and sound from them.

What GANSynth showed (J. Engel et al. 2019, "GANSynth: Adversarial Neural Audio Synthesis", arXiv 1902.08710): windows
that overlap by three quarters, magnitudes in decibels, frequency in place of phase, mel bins. We differ in that

- frequency is that of the energy itself (reassignment: F. Auger and P. Flandrin 1995, IEEE Trans. Signal Processing
  43), the mean over a bin's energy, told as a place within the bin's reach, where GANSynth unwraps phases and has their
  differences: it needs no neighbour in time and lies in -1 to 1 by itself;
- sound comes back by partials: neighbouring bins that name one frequency are one partial, whose phase runs on from the
  nearest one of the frame before (R. McAulay and T. Quatieri 1986, IEEE Trans. ASSP 34), laid down as lobes of the
  window (X. Rodet and P. Depalle 1992, "Spectral envelopes and inverse FFT synthesis", AES 93). Errors of a network
  then stay small errors of level and tuning; phases that do not fit each other cannot come up. The phases of the sound
  that went in are lost.

Frame f is centred on sample ``f * hop_samples`` of the note, which begins at sample 0: the part of a window that lies
before it is known to be silent, so its level is that of the rest. What comes back of real notes is held in
tests/unit/test_spectra.py.

Legend: B notes, S samples, W samples of a window, F frames, L bins of the transform, K bins of the picture, P partials.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from tutti import seeding
from tutti.features.spectral import Floats
from tutti.mel import hertz_of_mel, mel_of_hertz

LEVEL, FREQUENCY = 0, 1
"""The two channels of a picture."""
OVERLAP = 4
"""Windows that cover a sample."""

LATER_FALL, LEAST_FALL_DB_PER_S = 0.7, 4.0
"""Struck strings fall fast first and slowly later (G. Weinreich 1977, "Coupled piano strings", JASA 62), and what is
blown or bowed only wavers. Measured on 65 rendered notes of 13 instruments, over the two seconds after pictures of a
second: of the struck and plucked it errs by -1.0 dB/s in the mean, 5 rms; of the others by -0.2, 0.9 rms."""

_SAME_PARTIAL_BINS = 0.75
_TRACK_BINS = 1.5
_LOBE_BINS = 4
_ONSET_S = 0.002


@dataclass(frozen=True, slots=True)
class SpectrumScale:
    """What a picture of a note is made with.

    Args:
        sample_rate_hz: of the sound.
        n_fft: W, samples of the Hann window; a multiple of 4. Partials nearer than 4 / n_fft of the rate run together.
        bins: K, from 0 Hz to half the rate, at even steps of mel.
        frames: F.
        range_db: from the loudest bin of a note, at 1, to silence, at -1.
    """

    sample_rate_hz: int
    n_fft: int
    bins: int
    frames: int
    range_db: float = 80.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SpectrumScale:
        """The scale among plain values, such as a model's configuration."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return self.n_fft // OVERLAP

    @property
    def note_samples(self) -> int:
        """Samples of sound that a picture is made of."""
        return (self.frames - 1) * self.hop_samples + self.n_fft // 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, bins and frames of a picture."""
        return (2, self.bins, self.frames)


@lru_cache(maxsize=16)
def centres_hz(scale: SpectrumScale) -> NDArray[np.float64]:
    """Frequency of each bin's middle; shape (K,)."""
    top = mel_of_hertz(np.array(scale.sample_rate_hz / 2))
    return _frozen(hertz_of_mel(np.linspace(0, top, scale.bins + 2)[1:-1]))


def to_spectra(samples_BS: Floats, *, scale: SpectrumScale) -> Floats:
    """Pictures of notes that begin at their first sample: ``spectra_B2KF`` in -1 to 1.

    Args:
        samples_BS: at the scale's rate; sound after :attr:`SpectrumScale.note_samples` is not looked at, and silence
            follows where there is less.
        scale: what the pictures are made with.

    Returns:
        Channel :data:`LEVEL`: decibels under the note's loudest bin. Channel :data:`FREQUENCY`: where in the reach of
        the bin, from the middle of the bin below to that of the bin above, its energy lies; 0 in silence. All of a
        silent note is (-1, 0).
    """
    notes = np.zeros((len(samples_BS), scale.note_samples), dtype=np.float32)
    kept = min(samples_BS.shape[1], scale.note_samples)
    notes[:, :kept] = samples_BS[:, :kept]
    spectra_B2KF = np.empty((len(notes), *scale.shape), dtype=np.float32)
    for samples_S, spectrum_2KF in zip(notes, spectra_B2KF, strict=True):
        _draw(samples_S, spectrum_2KF, scale=scale)
    return spectra_B2KF


def _draw(samples_S: Floats, spectrum_2KF: Floats, *, scale: SpectrumScale) -> None:
    half = scale.n_fft // 2
    padded_S = np.concatenate((np.zeros(half, np.float32), samples_S))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded_S, scale.n_fft)[:: scale.hop_samples][: scale.frames]
    windows_FW, slopes_FW = _windows(scale)
    seen_FL = scipy.fft.rfft(frames_FW * windows_FW, axis=-1)
    moved_FL = scipy.fft.rfft(frames_FW * slopes_FW, axis=-1)
    power_FL = np.square(seen_FL.real) + np.square(seen_FL.imag)
    # Im(moved / seen) times the power, so that nothing is divided by what may be nothing.
    shift_FL = moved_FL.imag * seen_FL.real - moved_FL.real * seen_FL.imag
    hertz_L = np.arange(half + 1) * (scale.sample_rate_hz / scale.n_fft)
    moment_FL = hertz_L * power_FL - shift_FL * (scale.sample_rate_hz / (2 * np.pi))
    weights_LK = _weights(scale)
    power_FK, moment_FK = power_FL @ weights_LK, moment_FL @ weights_LK
    loudest = float(power_FK.max())
    if not loudest > 0:
        spectrum_2KF[LEVEL], spectrum_2KF[FREQUENCY] = -1, 0
        return
    silence = loudest * 10 ** (-scale.range_db / 10)
    centres_K, reach_K = centres_hz(scale), _reach_hz(scale)
    level_FK = 1 + 20 / scale.range_db * np.log10(np.maximum(power_FK, silence) / loudest)
    # As much silence lies in the middle: where there is little else, little is said of frequency.
    place_FK = (moment_FK - power_FK * centres_K) / ((power_FK + silence) * reach_K)
    spectrum_2KF[LEVEL], spectrum_2KF[FREQUENCY] = level_FK.T, np.clip(place_FK, -1, 1).T


def to_sound(spectra_B2KF: Floats, *, scale: SpectrumScale, length_s: float) -> Floats:
    """Sound of pictures: ``samples_BS`` at the scale's rate; a bin at level 1 has the power of a sine of amplitude 1.

    Args:
        spectra_B2KF: of :func:`to_spectra` or a network; what lies outside of -1 to 1 is clipped.
        scale: what they were made with.
        length_s: of the sound; beyond the picture it goes on as :func:`extended` says.
    """
    num_samples = round(length_s * scale.sample_rate_hz)
    hop = scale.hop_samples
    frames = max(-(-num_samples // hop) + 1, 2)
    longer = extended(np.clip(spectra_B2KF, -1, 1), frames=frames, scale=scale)
    partials = _partials(longer, scale=scale)
    phase_P = _phases(partials, scale=scale)
    samples_BS = np.zeros((len(longer), (frames + 1) * hop))
    for frame, (first, stop) in enumerate(itertools.pairwise(partials.frame_starts)):
        windowed_BW = _laid(partials, slice(first, stop), phase_P[first:stop], notes=len(longer), scale=scale)
        samples_BS[:, frame * hop : (frame + 2) * hop] += windowed_BW
    # A window is centred on its frame: the first half of the first one lies before the note.
    sound_BS = samples_BS[:, hop : hop + num_samples].astype(np.float32)
    rise = min(round(_ONSET_S * scale.sample_rate_hz), num_samples)
    sound_BS[:, :rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)
    return sound_BS


def extended(spectra_B2KF: Floats, *, frames: int, scale: SpectrumScale) -> Floats:
    """The first ``frames`` frames of notes that go on as their second half did, to and fro.

    A note whose power falls goes on falling, at :data:`LATER_FALL` of the lower of its rates over the last half and the
    last three quarters; one that falls by less than :data:`LEAST_FALL_DB_PER_S` is held, and stays as loud as it was.
    """
    given = spectra_B2KF.shape[-1]
    if frames <= given:
        return spectra_B2KF[..., :frames]
    at_F, half = np.arange(frames), given - given // 2
    swing = max(given - 1 - half, 1)
    there_F = np.where(at_F < given, at_F, given - 1 - np.abs((at_F - given + 1 + swing) % (2 * swing) - swing))
    longer_B2KF = spectra_B2KF[..., there_F]
    fallen_BF = _falls(spectra_B2KF[:, LEVEL], scale=scale)[:, None] * (at_F - there_F)
    longer_B2KF[:, LEVEL] += (fallen_BF * (2 / scale.range_db))[:, None].astype(np.float32)
    longer_B2KF[:, LEVEL] = np.maximum(longer_B2KF[:, LEVEL], -1)
    return longer_B2KF


def _falls(level_BKF: Floats, *, scale: SpectrumScale) -> NDArray[np.float64]:
    """What the power of each note loses from a frame to the next once its picture has ended, decibels; 0 or less."""
    given = level_BKF.shape[-1]
    power_BF = np.power(10, (level_BKF.astype(np.float64) - 1) * (scale.range_db / 20)).sum(axis=1)
    rates = []
    for part in (given // 2, given - given // 4):
        time_T = np.arange(part) - (part - 1) / 2
        rates.append(10 * np.log10(power_BF[:, given - part :]) @ time_T / max(np.square(time_T).sum(), 1))
    fall_B = np.maximum(*rates)
    frames_per_s = scale.sample_rate_hz / scale.hop_samples
    return np.where(fall_B * frames_per_s < -LEAST_FALL_DB_PER_S, LATER_FALL * fall_B, 0.0)


@dataclass(frozen=True, slots=True)
class _Partials:
    """P partials of all notes, sorted by frame, then note, then bin.

    Args:
        note_P: where each belongs.
        hertz_P, amplitude_P: what it sounds at, and how loud.
        bin_P: its lowest bin, by which a new one draws its phase.
        frame_starts: where the partials of each frame begin, and P.
    """

    note_P: NDArray[np.int64]
    hertz_P: NDArray[np.float64]
    amplitude_P: NDArray[np.float64]
    bin_P: NDArray[np.int64]
    frame_starts: list[int]


def _partials(spectra_B2KF: Floats, *, scale: SpectrumScale) -> _Partials:
    """Neighbouring bins that name one frequency, as one."""
    frames = spectra_B2KF.shape[-1]
    level_FBK, place_FBK = spectra_B2KF.transpose(1, 3, 0, 2)
    frame_N, note_N, bin_N = np.nonzero(level_FBK > -1)
    decibels_N = (level_FBK[frame_N, note_N, bin_N].astype(np.float64) - 1) * (scale.range_db / 2)
    power_N = np.power(10, decibels_N / 10)
    reach_K, centres_K = _reach_hz(scale), centres_hz(scale)
    hertz_N = centres_K[bin_N] + reach_K[bin_N] * place_FBK[frame_N, note_N, bin_N]
    apart_N = np.abs(np.diff(hertz_N)) > _SAME_PARTIAL_BINS * reach_K[bin_N[1:]]
    begins_N = np.ones(len(bin_N), dtype=bool)
    begins_N[1:] = apart_N | (np.diff(bin_N) != 1) | (np.diff(note_N) != 0) | (np.diff(frame_N) != 0)
    first_P = np.flatnonzero(begins_N)
    power_P = np.add.reduceat(power_N, first_P) if len(first_P) else power_N
    moment_P = np.add.reduceat(power_N * hertz_N, first_P) if len(first_P) else power_N
    return _Partials(
        note_P=note_N[first_P],
        hertz_P=moment_P / power_P,
        amplitude_P=np.sqrt(power_P),
        bin_P=bin_N[first_P],
        frame_starts=np.searchsorted(frame_N[first_P], np.arange(frames + 1)).tolist(),
    )


def _phases(partials: _Partials, *, scale: SpectrumScale) -> NDArray[np.float64]:
    """Phase of each partial in the middle of its frame: it runs on from the nearest one of the frame before."""
    drawn_K = (
        2
        * np.pi
        * seeding.uniform_at(
            np.array([seeding.derive(0, "spectra", "phase")], np.uint64), np.arange(scale.bins, dtype=np.uint64)
        )
    )
    phase_P = drawn_K[partials.bin_P]
    turn = np.pi * scale.hop_samples / scale.sample_rate_hz
    farthest_hz = _TRACK_BINS * scale.sample_rate_hz / scale.n_fft
    # Notes follow each other on one axis, each with more room than there are frequencies.
    key_P = partials.note_P * float(2 * scale.sample_rate_hz) + partials.hertz_P
    starts = partials.frame_starts
    for before, here, stop in zip(starts[:-2], starts[1:-1], starts[2:], strict=True):
        if before == here or here == stop:
            continue
        order = before + np.argsort(key_P[before:here], kind="stable")
        key_Q, key_N = key_P[order], key_P[here:stop]
        above_N = np.searchsorted(key_Q, key_N).clip(1, len(key_Q) - 1) if len(key_Q) > 1 else np.zeros(len(key_N), int)
        below_N = np.maximum(above_N - 1, 0)
        nearest_N = np.where(key_N - key_Q[below_N] < key_Q[above_N] - key_N, below_N, above_N)
        goes_on_N = np.abs(key_Q[nearest_N] - key_N) < farthest_hz
        last_N = order[nearest_N]
        run_on_N = phase_P[last_N] + turn * (partials.hertz_P[last_N] + partials.hertz_P[here:stop])
        phase_P[here:stop] = np.where(goes_on_N, run_on_N % (2 * np.pi), phase_P[here:stop])
    return phase_P


def _laid(
    partials: _Partials, part: slice, phase_N: NDArray[np.float64], *, notes: int, scale: SpectrumScale
) -> NDArray[np.float64]:
    """Some partials of one frame under a Hann window of two hops: ``windowed_BW``, the frame's middle in its middle."""
    window = 2 * scale.hop_samples
    bins = window // 2 + 1
    place_N1 = (partials.hertz_P[part] * (window / scale.sample_rate_hz))[:, None]
    bin_NL = np.rint(place_N1).astype(np.int64) + np.arange(-_LOBE_BINS, _LOBE_BINS + 1)
    away_NL = bin_NL - place_N1
    # Its transform, sinc(x) / (1 - x²), is 1/2 at x = ±1.
    at_edge_NL = np.abs(np.abs(away_NL) - 1) < 1e-6
    lobe_NL = np.where(at_edge_NL, 0.5, np.sinc(away_NL) / np.where(at_edge_NL, 1, 1 - np.square(away_NL)))
    value_NL = (partials.amplitude_P[part] * np.exp(1j * phase_N))[:, None] * lobe_NL * (window / 4)
    # What lies under 0 Hz or over half the rate is the mirror image of what lies on the other side.
    mirrored_NL = (bin_NL < 0) | (bin_NL >= bins)
    value_NL = np.where(mirrored_NL, value_NL.conj(), value_NL)
    bin_NL = np.where(bin_NL >= bins, window - bin_NL, np.abs(bin_NL))
    flat = (partials.note_P[part, None] * bins + bin_NL).ravel()
    real, imaginary = (
        np.bincount(flat, weights=column.ravel(), minlength=notes * bins) for column in (value_NL.real, value_NL.imag)
    )
    windowed_BW = scipy.fft.irfft((real + 1j * imaginary).reshape(notes, bins), window, axis=-1)
    return np.asarray(scipy.fft.fftshift(windowed_BW, axes=-1))


@lru_cache(maxsize=16)
def _reach_hz(scale: SpectrumScale) -> NDArray[np.float64]:
    """Half the distance between the middles of the bins on either side of each; shape (K,)."""
    edges = hertz_of_mel(np.linspace(0, mel_of_hertz(np.array(scale.sample_rate_hz / 2)), scale.bins + 2))
    return _frozen((edges[2:] - edges[:-2]) / 2)


@lru_cache(maxsize=16)
def _weights(scale: SpectrumScale) -> NDArray[np.float64]:
    """How much of the power of each bin of the transform falls to each of the picture: all of it to its neighbours."""
    place_L = mel_of_hertz(np.linspace(0, scale.sample_rate_hz / 2, 1 + scale.n_fft // 2))
    place_L = place_L * ((scale.bins + 1) / place_L[-1]) - 1
    away_LK = np.abs(place_L[:, None] - np.arange(scale.bins))
    return _frozen(np.clip(1 - away_LK, 0, None))


@lru_cache(maxsize=16)
def _windows(scale: SpectrumScale) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Hann window for each frame over what of it lies in the note, and its slope; of power 1 each."""
    windows_FW = np.zeros((scale.frames, scale.n_fft))
    slopes_FW = np.zeros((scale.frames, scale.n_fft))
    for frame in range(scale.frames):
        length = min(scale.n_fft // 2 + frame * scale.hop_samples, scale.n_fft)
        angle = 2 * np.pi * np.arange(length) / length
        scaled = 1 / np.sqrt(np.square(0.5 - 0.5 * np.cos(angle)).sum())
        windows_FW[frame, scale.n_fft - length :] = (0.5 - 0.5 * np.cos(angle)) * scaled
        slopes_FW[frame, scale.n_fft - length :] = np.sin(angle) * (np.pi / length) * scaled
    return _frozen(windows_FW), _frozen(slopes_FW)


def _frozen(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For a cache: nobody may change it."""
    values.setflags(write=False)
    return values
