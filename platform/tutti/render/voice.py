"""One sounding key: a recording read at the right speed, filtered, and shaped by its envelopes.

Legend: S samples at the output rate, B edges of blocks. Low-frequency oscillators are not played, and the modulation
envelope runs as if the key stayed down (its release is hidden under the loudness envelope's).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutti.render import loops
from tutti.render.soundfont import DEFAULT_CUTOFF_CENTS, FULL_SCALE_DB, Envelope, SoundFont, Zone

Mono = NDArray[np.float32]

AUDIBLE_DB = 80.0
"""What has fallen this far below its start is no longer computed."""

KEPT_BYTES = 256 * 2**20
"""Of voices that are kept for the next piece."""

_SHORTEST_S = 0.25
_FILTER_STEP_CENTS = 50
_HIGHEST_CUTOFF = 0.45
_CENTS_ZERO_HZ = 440 * 2 ** (-69 / 12)


@dataclass(frozen=True, slots=True)
class Voice:
    """A key held down, and what its release multiplies it by.

    Args:
        held_S: the sound from the moment the key goes down; it may be shorter than asked when it has died away.
        release_S: factors from the moment the key goes up, straight in decibels down to :data:`AUDIBLE_DB`.
        ends: by decibels from 0 to :data:`AUDIBLE_DB`, the sample after which it stays so far below its largest one.
    """

    held_S: Mono
    release_S: Mono
    ends: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", _ends(self.held_S))


def _ends(held_S: Mono) -> NDArray[np.int64]:
    depths = np.arange(round(AUDIBLE_DB) + 1)
    if not len(held_S):
        return np.zeros_like(depths)
    starts_B = np.arange(0, len(held_S), loops.VOICE_BLOCK_SAMPLES)
    largest_B = np.maximum.reduceat(np.abs(held_S), starts_B)
    to_come_B = np.maximum.accumulate(largest_B[::-1])[::-1]
    blocks = np.searchsorted(-to_come_B, -to_come_B[0] * 10 ** (-depths / 20))
    return np.asarray(np.minimum(blocks * loops.VOICE_BLOCK_SAMPLES, len(held_S)))


class Instrument(Protocol):
    """What plays the notes of a program in place of a SoundFont."""

    def release_samples(self, *, sample_rate_hz: int) -> int:
        """How long a note is heard after its key went up."""

    def voices(self, held_s: Mapping[int, float], *, sample_rate_hz: int) -> Iterator[tuple[int, Voice]]:
        """Each pitch of ``held_s`` and its voice, for notes of up to so many seconds, in an order that is always the
        same."""


def release_samples(zone: Zone, *, sample_rate_hz: int) -> int:
    """How long a note is heard after its key went up."""
    return max(1, math.ceil(zone.volume.release_s * AUDIBLE_DB / FULL_SCALE_DB * sample_rate_hz))


def sound(font: SoundFont, zone: Zone, *, pitch: int, held_s: float, sample_rate_hz: int) -> Voice:
    """The voice of ``zone`` at ``pitch`` for notes of up to ``held_s`` seconds.

    It is made for one of a few lengths and kept while :data:`KEPT_BYTES` hold it: pieces ask for the same keys again.
    """
    steps = math.ceil(math.log2(max(held_s, _SHORTEST_S) / _SHORTEST_S))
    tail = release_samples(zone, sample_rate_hz=sample_rate_hz)
    length = math.ceil(_SHORTEST_S * 2**steps * sample_rate_hz) + tail
    length = min(length, _lifetime_samples(zone.volume, sample_rate_hz))
    return _KEPT.get(
        (id(font), zone, pitch, length, sample_rate_hz),
        font=font,
        make=lambda: Voice(held_S=_made(font, zone, pitch, length, sample_rate_hz), release_S=released(tail)),
    )


class _Shelf:
    """Voices that were made, the least used of them given up; for several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        # A font stays with its voices, so that its number is not another's.
        self._voices: OrderedDict[tuple[Any, ...], tuple[Voice, SoundFont]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...], *, font: SoundFont, make: Callable[[], Voice]) -> Voice:
        with self._lock:
            if key in self._voices:
                self._voices.move_to_end(key)
                return self._voices[key][0]
        voice = make()
        with self._lock:
            if key not in self._voices:
                self._bytes += voice.held_S.nbytes
            self._voices[key] = (voice, font)
            while self._bytes > self._most_bytes:
                _, (given_up, _) = self._voices.popitem(last=False)
                self._bytes -= given_up.held_S.nbytes
        return voice


_KEPT = _Shelf(KEPT_BYTES)


@lru_cache(maxsize=256)
def released(length: int) -> Mono:
    """Factors of so many samples that fall by :data:`AUDIBLE_DB`, straight in decibels."""
    return _decibels(np.linspace(0, -AUDIBLE_DB, length, dtype=np.float32))


def _decibels(level_db: Mono) -> Mono:
    return np.asarray(np.exp(level_db * np.float32(math.log(10) / 20)), dtype=np.float32)


def _lifetime_samples(envelope: Envelope, sample_rate_hz: int) -> int:
    """When a held key has fallen silent by itself; beyond any length if it sustains."""
    if envelope.sustain < AUDIBLE_DB:
        return 2**62
    before_decay_s = envelope.delay_s + envelope.attack_s + envelope.hold_s
    return math.ceil((before_decay_s + envelope.decay_s * AUDIBLE_DB / FULL_SCALE_DB) * sample_rate_hz)


def _made(font: SoundFont, zone: Zone, pitch: int, length: int, sample_rate_hz: int) -> Mono:
    """So many samples of the voice, or fewer where the recording ends; Catmull-Rom's cubic between its values."""
    cents = (pitch - zone.key) * zone.cents_per_key + zone.tune_cents
    speed = 2 ** (cents / 1200) * zone.sample_rate_hz / sample_rate_hz
    modulation_B = _modulation(zone.modulation, length, sample_rate_hz)
    speed_B = speed * np.exp2(modulation_B * (zone.pitch_swing_cents / 1200))
    last = float(zone.end - zone.start)
    loop = np.array([last, last])
    if zone.loops:
        loop[:] = zone.loop_start - zone.start, zone.loop_end - zone.start
    # One value before the start and three after the end stand in for the cubic's neighbours; a loop's own follow it.
    recording = np.zeros(int(loop[1]) + 5, dtype=np.int16)
    found = font.samples[max(zone.start - 1, 0) : zone.start + int(loop[1]) + 3]
    recording[: len(found)] = found
    rows_B, filters = _filters(zone, modulation_B[:-1], sample_rate_hz)
    made_S = np.empty(length, dtype=np.float32)
    count = loops.voice(
        made_S, recording, loop, speed_B, rows_B, filters, _stages(zone.volume, sample_rate_hz), 1 / 32_768
    )
    return made_S[:count]


def _modulation(envelope: Envelope, length: int, sample_rate_hz: int) -> NDArray[np.float64]:
    """The modulation envelope, 0 to 1, at the edges of blocks."""
    stages_s = (envelope.delay_s, envelope.attack_s, envelope.hold_s, envelope.decay_s * (1 - envelope.sustain))
    corners = np.cumsum(stages_s) * sample_rate_hz
    edges_B = np.arange(-(-length // loops.VOICE_BLOCK_SAMPLES) + 1) * loops.VOICE_BLOCK_SAMPLES
    modulation_B = np.interp(edges_B, corners, (0, 1, 1, envelope.sustain))
    # The attack is convex (8.1.2, generator 26): a straight rise in units of 96 dB.
    rising = modulation_B[edges_B < corners[1]]
    modulation_B[edges_B < corners[1]] = np.clip(1 + 40 / 96 * np.log10(np.maximum(rising, 1e-6)), 0, 1)
    return modulation_B


def _filters(
    zone: Zone, modulation_B: NDArray[np.float64], sample_rate_hz: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Two-pole low-pass whose cut-off follows the modulation envelope in steps of half a semitone: row by block."""
    cutoff_cents = zone.cutoff_cents + zone.cutoff_swing_cents * modulation_B
    if zone.resonance_db == 0 and cutoff_cents.min(initial=DEFAULT_CUTOFF_CENTS) >= DEFAULT_CUTOFF_CENTS:
        return np.full(len(modulation_B), -1), np.zeros((1, 5))
    steps, rows_B = np.unique(np.round(cutoff_cents / _FILTER_STEP_CENTS), return_inverse=True)
    filters = [_low_pass(float(step) * _FILTER_STEP_CENTS, zone.resonance_db, sample_rate_hz) for step in steps]
    return rows_B.astype(np.int64), np.array(filters)


def _stages(envelope: Envelope, sample_rate_hz: int) -> NDArray[np.float64]:
    """Delay, attack (straight in amplitude), hold, decay (straight in dB) and sustain, as the loop wants them."""
    fall_s = envelope.decay_s * envelope.sustain / FULL_SCALE_DB
    stages_s = (envelope.delay_s, envelope.attack_s, envelope.hold_s, fall_s)
    delay, attack, hold, decay = (round(seconds * sample_rate_hz) for seconds in stages_s)
    fall = 10 ** (-envelope.sustain / 20 / max(decay, 1))
    return np.array([delay, attack, hold, decay, fall, 10 ** (-envelope.sustain / 20)])


def _low_pass(cutoff_cents: float, resonance_db: float, sample_rate_hz: int) -> tuple[float, ...]:
    """Biquad of R. Bristow-Johnson's cookbook; its loudness falls by half the resonance (8.1.2, generator 9)."""
    cutoff_hz = min(_CENTS_ZERO_HZ * 2 ** (cutoff_cents / 1200), _HIGHEST_CUTOFF * sample_rate_hz)
    quality = 10 ** ((resonance_db - 3.01) / 20)
    angle = 2 * math.pi * cutoff_hz / sample_rate_hz
    alpha, cosine = math.sin(angle) / (2 * quality), math.cos(angle)
    gain = (1 - cosine) / math.sqrt(max(quality, 1.0)) / (1 + alpha)
    return (gain / 2, gain, gain / 2, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha))
