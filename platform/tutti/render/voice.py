"""One sounding key: a recording read at the right speed, filtered, and shaped by its envelopes.

Legend: S samples at the output rate. Low-frequency oscillators are not played, and the modulation envelope runs as if
the key stayed down (its release is hidden under the loudness envelope's).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from tutti.render.soundfont import DEFAULT_CUTOFF_CENTS, FULL_SCALE_DB, Envelope, SoundFont, Zone

Mono = NDArray[np.float32]

AUDIBLE_DB = 80.0
"""What has fallen this far below its start is no longer computed."""

_FILTER_BLOCK_SAMPLES = 64
_FILTER_STEP_CENTS = 50
_HIGHEST_CUTOFF = 0.45
_CENTS_ZERO_HZ = 440 * 2 ** (-69 / 12)


@dataclass(frozen=True, slots=True)
class Voice:
    """A key held down, and what its release multiplies it by.

    Args:
        held_S: the sound from the moment the key goes down; it may be shorter than asked when it has died away.
        release_S: factors from the moment the key goes up.
    """

    held_S: Mono
    release_S: Mono


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
    """The voice of ``zone`` at ``pitch`` for notes of up to ``held_s`` seconds."""
    tail = release_samples(zone, sample_rate_hz=sample_rate_hz)
    length = min(math.ceil(held_s * sample_rate_hz) + tail, _lifetime_samples(zone.volume, sample_rate_hz))
    modulation_S = _modulation(zone, length, sample_rate_hz)
    held_S = _oscillator(font, zone, pitch, length, modulation_S, sample_rate_hz)
    held_S = _filtered(held_S, zone, modulation_S, sample_rate_hz)
    _shape(held_S, zone.volume, sample_rate_hz)
    return Voice(held_S=held_S, release_S=released(tail))


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


def _modulation(zone: Zone, length: int, sample_rate_hz: int) -> Mono | None:
    """The modulation envelope, 0 to 1; none where nothing listens to it."""
    if not zone.pitch_swing_cents and not zone.cutoff_swing_cents:
        return None
    envelope = zone.modulation
    stages_s = (envelope.delay_s, envelope.attack_s, envelope.hold_s, envelope.decay_s * (1 - envelope.sustain))
    corners = np.cumsum(stages_s) * sample_rate_hz
    modulation_S = np.interp(np.arange(length), corners, (0, 1, 1, envelope.sustain)).astype(np.float32)
    # The attack is convex (8.1.2, generator 26): a straight rise in units of 96 dB.
    rising = modulation_S[: math.ceil(corners[1])]
    np.clip(1 + 40 / 96 * np.log10(np.maximum(rising, 1e-6)), 0, 1, out=rising)
    return modulation_S


def _oscillator(
    font: SoundFont, zone: Zone, pitch: int, length: int, modulation_S: Mono | None, sample_rate_hz: int
) -> Mono:
    """The recording at the speed of ``pitch``, between samples by Catmull-Rom's cubic."""
    cents = (pitch - zone.key) * zone.cents_per_key + zone.tune_cents
    speed = 2 ** (cents / 1200) * zone.sample_rate_hz / sample_rate_hz
    if modulation_S is not None and zone.pitch_swing_cents:
        speeds = speed * np.exp2(modulation_S.astype(np.float64) * (zone.pitch_swing_cents / 1200))
        position = np.cumsum(speeds) - speeds[0]
    else:
        position = np.arange(length) * speed
    last = zone.end - zone.start
    if zone.loops:
        loop_start, loop_end = zone.loop_start - zone.start, zone.loop_end - zone.start
        wrap = int(np.searchsorted(position, loop_end))
        position[wrap:] = loop_start + np.mod(position[wrap:] - loop_start, loop_end - loop_start)
        last = loop_end
    else:
        position = position[: int(np.searchsorted(position, last))]
    # One sample before the start and two after the end stand in for the cubic's neighbours; a loop's own follow it.
    recording = font.samples[max(zone.start - 1, 0) : zone.start + last + 3].astype(np.float32)
    recording = np.concatenate((recording, np.zeros(4, dtype=np.float32)))
    base = position.astype(np.int32)
    fraction = (position - base).astype(np.float32)
    before, here, after, beyond = (recording[base + step] for step in range(4))
    sound_S = here + np.float32(0.5) * fraction * (
        after
        - before
        + fraction * (2 * before - 5 * here + 4 * after - beyond + fraction * (3 * (here - after) + beyond - before))
    )
    return np.asarray(sound_S / np.float32(32_768), dtype=np.float32)


def _filtered(sound_S: Mono, zone: Zone, modulation_S: Mono | None, sample_rate_hz: int) -> Mono:
    """Two-pole low-pass whose cut-off follows the modulation envelope in steps of half a semitone."""
    if not len(sound_S):
        return sound_S
    blocks = np.zeros(1) if modulation_S is None else modulation_S[: len(sound_S) : _FILTER_BLOCK_SAMPLES]
    cutoff_cents = zone.cutoff_cents + zone.cutoff_swing_cents * blocks
    if zone.resonance_db == 0 and cutoff_cents.min() >= DEFAULT_CUTOFF_CENTS:
        return sound_S
    steps = np.round(cutoff_cents / _FILTER_STEP_CENTS)
    edges = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist()]
    filtered_S = np.empty_like(sound_S)
    state = np.zeros(2)
    for block, after in zip(edges, [*edges[1:], None], strict=True):
        span = slice(block * _FILTER_BLOCK_SAMPLES, after and after * _FILTER_BLOCK_SAMPLES)
        above, below = _low_pass(float(steps[block]) * _FILTER_STEP_CENTS, zone.resonance_db, sample_rate_hz)
        filtered_S[span], state = signal.lfilter(above, below, sound_S[span], zi=state)
    return filtered_S


def _low_pass(cutoff_cents: float, resonance_db: float, sample_rate_hz: int) -> tuple[NDArray[np.float64], ...]:
    """Biquad of R. Bristow-Johnson's cookbook; its loudness falls by half the resonance (8.1.2, generator 9)."""
    cutoff_hz = min(_CENTS_ZERO_HZ * 2 ** (cutoff_cents / 1200), _HIGHEST_CUTOFF * sample_rate_hz)
    quality = 10 ** ((resonance_db - 3.01) / 20)
    angle = 2 * math.pi * cutoff_hz / sample_rate_hz
    alpha, cosine = math.sin(angle) / (2 * quality), math.cos(angle)
    gain = 1 / math.sqrt(max(quality, 1.0))
    above = np.array([0.5, 1, 0.5]) * (1 - cosine) * gain / (1 + alpha)
    return above, np.array([1, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)])


def _shape(sound_S: Mono, envelope: Envelope, sample_rate_hz: int) -> None:
    """Apply delay, attack (straight in amplitude), hold, decay (straight in dB) and sustain, in place."""
    delay, attack, hold, decay = (
        round(seconds * sample_rate_hz)
        for seconds in (
            envelope.delay_s,
            envelope.attack_s,
            envelope.hold_s,
            envelope.decay_s * envelope.sustain / FULL_SCALE_DB,
        )
    )
    sound_S[:delay] = 0
    rising = sound_S[delay : delay + attack]
    rising *= np.linspace(0, 1, attack, dtype=np.float32)[: len(rising)]
    falling = sound_S[delay + attack + hold :]
    fall_db = np.linspace(0, -envelope.sustain, decay, dtype=np.float32)[: len(falling)]
    falling[: len(fall_db)] *= _decibels(fall_db)
    falling[len(fall_db) :] *= np.float32(10 ** (-envelope.sustain / 20))
