"""The room that music sounds in: reverberation by name, and the equaliser after it, in one pass over the spectrum.

A room is an impulse response of noise that dies away, the high parts sooner (J. A. Moorer, *About this reverberation
business*, Computer Music Journal 3(2), 1979), after a few early reflections; left and right are drawn apart, as walls
are. What is low is kept out of it. Legend: S samples, C channels, K bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tutti.render import equaliser, loops
from tutti.render.sound import EqualiserName, RoomName
from tutti.seeding import generator

Sound = NDArray[np.float32]

_BANDS_HZ = (250.0, 1_000.0, 4_000.0, 9_000.0)
# Reverberation time of each band beside the middle one's, lowest first: air and cloth take the high parts.
_DECAYS = (1.1, 1.0, 0.85, 0.6, 0.35)
_LOW_CUT_HZ, _HIGH_CUT_HZ = 180.0, 10_000.0
_EARLY_SHARE = 0.35
_EARLY_REFLECTIONS = 7
_OF_THE_OTHER_SIDE = 0.35
_DECAY_DB, _LENGTH_DB = 60.0, 72.0
_EQUALISER_SAMPLES = 8_192
_LEAST_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True, slots=True)
class Room:
    """A room.

    Args:
        decay_s: time until its sound has fallen by 60 dB, in the middle of the range.
        before_s: until the first reflection.
        reverb_db: energy of its sound beside the direct one, where no other is asked for.
    """

    decay_s: float
    before_s: float
    reverb_db: float


ROOMS: dict[RoomName, Room | None] = {
    "dry": None,
    "studio": Room(decay_s=0.4, before_s=0.004, reverb_db=-13.0),
    "chamber": Room(decay_s=0.9, before_s=0.010, reverb_db=-11.0),
    "hall": Room(decay_s=1.8, before_s=0.020, reverb_db=-9.0),
    "church": Room(decay_s=3.2, before_s=0.030, reverb_db=-7.0),
}


@lru_cache(maxsize=8)
def impulse_response(name: RoomName, *, sample_rate_hz: int) -> Sound:
    """A room's answer to one impulse, ``response_CS``, each channel of energy 1; empty for ``dry``."""
    room = ROOMS[name]
    if room is None:
        return np.zeros((2, 0), dtype=np.float32)
    before = round(room.before_s * sample_rate_hz)
    longest = round(max(_DECAYS) * room.decay_s * _LENGTH_DB / _DECAY_DB * sample_rate_hz)
    draws = generator(0, "room", name)
    noise_CK = fft.rfft(draws.standard_normal((2, longest)), axis=1)
    hertz_K = fft.rfftfreq(longest, 1 / sample_rate_hz)
    edges = pairwise((0.0, *_BANDS_HZ, math.inf))
    time_S = np.arange(longest) / sample_rate_hz
    late_CS = np.zeros((2, longest))
    for (low, high), share in zip(edges, _DECAYS, strict=True):
        band_CS = fft.irfft(noise_CK * _band(hertz_K, low, high), longest, axis=1)
        late_CS += band_CS * np.exp(-np.log(1000) * time_S / (room.decay_s * share))
    response_CS = np.zeros((2, before + longest))
    response_CS[:, before:] = late_CS / np.sqrt(np.square(late_CS).sum(axis=1, keepdims=True))
    # Reflections from the nearest walls, each later one weaker, on either side at times of its own.
    spread = max(before, round(0.01 * sample_rate_hz))
    for side_S in response_CS:
        places = before + np.sort(draws.integers(0, 3 * spread, _EARLY_REFLECTIONS))
        strengths = draws.choice([-1.0, 1.0], _EARLY_REFLECTIONS) * 0.8 ** np.arange(_EARLY_REFLECTIONS)
        strengths *= np.sqrt(_EARLY_SHARE / np.square(strengths).sum())
        np.add.at(side_S, places, strengths)
    shaped_CK = fft.rfft(response_CS, axis=1) * _kept(fft.rfftfreq(response_CS.shape[1], 1 / sample_rate_hz))
    shaped_CS = fft.irfft(shaped_CK, response_CS.shape[1], axis=1)
    shaped_CS[:, :before] = 0
    shaped_CS /= np.sqrt(np.square(shaped_CS).sum(axis=1, keepdims=True))
    return np.asarray(shaped_CS, dtype=np.float32)


def _band(hertz_K: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Share of each frequency in a band; neighbours cross over within a third of an octave and add up to 1."""

    def above(edge: float) -> NDArray[np.float64]:
        if edge in (0, math.inf):
            return np.full_like(hertz_K, float(edge == 0))
        octaves_K = np.log2(np.maximum(hertz_K, 1.0) / edge)
        return np.clip(octaves_K * 3 + 0.5, 0, 1)

    return above(low) - above(high)


def _kept(hertz_K: NDArray[np.float64]) -> NDArray[np.float64]:
    below_K = 1 / (1 + (_LOW_CUT_HZ / np.maximum(hertz_K, 1e-3)) ** 4)
    above_K = 1 / (1 + (hertz_K / _HIGH_CUT_HZ) ** 4)
    return np.asarray(np.sqrt(below_K * above_K))


@dataclass(frozen=True)
class Response:
    """What a room and an equaliser make of each side of a sound, as spectra of blocks.

    Args:
        block: samples of a transform.
        tail: by how many samples a sound gets longer.
        own_CK: from a side to itself.
        other_CK: from the other side, through the room.
    """

    block: int
    tail: int
    own_CK: NDArray[np.complex64]
    other_CK: NDArray[np.complex64]


@lru_cache(maxsize=8)
def response(name: RoomName, preset: EqualiserName, *, reverb_db: float | None, sample_rate_hz: int) -> Response | None:
    """The pass for a room and an equaliser; None where neither changes anything."""
    room = ROOMS[name]
    if room is None and not equaliser.PRESETS[preset]:
        return None
    direct_S = equaliser.impulse_response(preset, sample_rate_hz=sample_rate_hz, samples=_EQUALISER_SAMPLES)
    room_CS = impulse_response(name, sample_rate_hz=sample_rate_hz)
    tail = room_CS.shape[1] + _EQUALISER_SAMPLES
    block = _LEAST_BLOCK_SAMPLES
    while block < 3 * tail:
        block *= 2
    direct_K = fft.rfft(direct_S, block)
    room_CK = np.zeros((2, len(direct_K)), dtype=np.complex128)
    if room is not None:
        wanted_db = room.reverb_db if reverb_db is None else reverb_db
        room_CK = fft.rfft(room_CS.astype(np.float64), block, axis=1) * direct_K * 10 ** (wanted_db / 20)
    own, other = (share / math.hypot(1, _OF_THE_OTHER_SIDE) for share in (1, _OF_THE_OTHER_SIDE))
    return Response(
        block, tail, (direct_K + own * room_CK).astype(np.complex64), (other * room_CK).astype(np.complex64)
    )


def played_in(sound_CS: Sound, response: Response) -> Sound:
    """A sound in its room and through its equaliser, longer by ``response.tail``; overlapping blocks are added."""
    length = sound_CS.shape[1]
    made_CS = np.zeros((2, length + response.tail), dtype=np.float32)
    step = response.block - response.tail
    heard_CK = np.empty_like(response.own_CK)
    for start in range(0, length, step):
        part_CK = fft.rfft(sound_CS[:, start : start + step], response.block, axis=1)
        loops.cross(part_CK, response.own_CK, response.other_CK, heard_CK)
        heard_CS = fft.irfft(heard_CK, response.block, axis=1)
        stop = min(start + response.block, made_CS.shape[1])
        made_CS[:, start:stop] += heard_CS[:, : stop - start]
    return made_CS
