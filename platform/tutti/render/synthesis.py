"""A score as sound: every note's voice from a SoundFont or another instrument, mixed to stereo.

Legend: S samples, C channels (left, right). The same score, font and rate give the same samples on the same machine,
whatever the number of threads: notes are added in one fixed order by element-wise arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError, RecipeError
from tutti.render import loops
from tutti.render.soundfont import SoundFont, Zone, default_path, read_soundfont
from tutti.render.voice import AUDIBLE_DB, Instrument, Voice, release_samples, sound

SAMPLE_RATE_HZ = 44_100
MAX_RENDER_S = 1800.0

_CHOKE_S = 0.01
_SEARCH_SAMPLES = 65_536
_HEADROOM = np.float32(0.25)


@dataclass(frozen=True, slots=True)
class _Timing:
    """N notes on the sample grid.

    First sample, samples held, loudness, where a choke cuts them off, and how many decibels below its loudest sample a
    note is over: fewer for soft ones, which are as far below the loudest of the piece already.
    """

    sample_rate_hz: int
    onset_N: NDArray[np.int64]
    held_N: NDArray[np.int64]
    gain_N: NDArray[np.float32]
    cut_N: NDArray[np.int64]
    depth_N: NDArray[np.int64]

    def add(
        self, mix_CS: NDArray[np.float32], voice: Voice, sides_C: NDArray[np.float32], members: NDArray[Any]
    ) -> None:
        """Add some notes of one voice."""
        loops.add_notes(
            mix_CS, voice.held_S, voice.release_S, voice.ends, self.onset_N[members], self.held_N[members],
            self.cut_N[members], self.depth_N[members], self.gain_N[members, None] * sides_C,
            round(_CHOKE_S * self.sample_rate_hz),
        )  # fmt: skip

    def held_s(self, members: NDArray[Any]) -> float:
        """How long the longest of some notes is held."""
        return float(self.held_N[members].max()) / self.sample_rate_hz


def check_renderable(score: Score) -> None:
    """Refuse what has no notes or lasts longer than :data:`MAX_RENDER_S`.

    Raises:
        InputError: either.
    """
    if not len(score.notes):
        raise InputError("the score has no notes", remedy="give a score with at least one")
    if not score.length_s <= MAX_RENDER_S:
        raise InputError(
            f"the score lasts {score.length_s:.0f} s, more than the {MAX_RENDER_S:.0f} s that can be rendered",
            remedy="cut it into parts",
        )


@dataclass(frozen=True, slots=True)
class Seat:
    """Where an instrument sits: ``pan`` from -0.5 left to 0.5 right, and how much louder it is made."""

    pan: float = 0.0
    level_db: float = 0.0


def synthesise(
    score: Score,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    soundfont: Path | None = None,
    instruments: Mapping[int, Instrument] | None = None,
) -> NDArray[np.float32]:
    """Play a score dry, with the ring-out of its last notes.

    Velocity sets loudness by the SoundFont's concave curve, ``(velocity / 127) ** 2``. Nothing is limited: many loud
    notes together may exceed 1.0, which :func:`tutti.render.mastering.master` brings down.

    Args:
        score: at least one note, at most 30 minutes.
        sample_rate_hz: of the result.
        soundfont: an ``.sf2`` file; left out, the one that pretty_midi carries.
        instruments: what plays the notes of a program in place of the SoundFont, in the middle; by program, no drums.

    Returns:
        ``audio_SC``, float32, two channels.

    Raises:
        RecipeError: an instrument for drums.
        InputError: no notes, too long, or no sound behind any of its notes.
        MissingError: no font.
    """
    band = Band(
        score,
        font=read_soundfont(soundfont or default_path()),
        instruments=instruments or {},
        sample_rate_hz=sample_rate_hz,
    )
    mix_CS = band.play()
    return np.ascontiguousarray(mix_CS[:, : audible_samples(mix_CS)].T)


class Band:
    """A score and who plays it.

    Args:
        score: at least one note, at most 30 minutes.
        font: of what no other instrument plays.
        instruments: what plays the notes of a program in place of the SoundFont; by program, no drums.
        sample_rate_hz: of the sound.

    Raises:
        RecipeError: an instrument for drums.
        InputError: no notes, too long, or no sound behind any of its notes.
    """

    def __init__(
        self, score: Score, *, font: SoundFont, instruments: Mapping[int, Instrument], sample_rate_hz: int
    ) -> None:
        check_renderable(score)
        if DRUM_PROGRAM in instruments:
            raise RecipeError("drums have no pitch for an instrument to play", remedy="leave them to the SoundFont")
        self._notes, self._font, self._instruments = score.notes, font, instruments
        of_font_N = ~np.isin(score.notes.program, list(instruments))
        self._timing = _timing(score, font, of_font_N, sample_rate_hz)
        self._zones = list(_zones(score.notes, font, of_font_N))
        self._keys = list(_keys(score.notes, ~of_font_N))
        releases = [
            (members, release_samples(zone, sample_rate_hz=sample_rate_hz)) for _, _, zone, members in self._zones
        ]
        for program, _, members in self._keys:
            releases.append((members, instruments[program].release_samples(sample_rate_hz=sample_rate_hz)))
        end_N = self._timing.onset_N + self._timing.held_N
        self.samples = max((int(end_N[members].max()) + release for members, release in releases), default=0)
        """Length with the ring-out of the last notes."""

    def play(self, *, seats: Mapping[int, Seat] | None = None, only: int | None = None) -> NDArray[np.float32]:
        """The dry sound ``mix_CS``, as long as :attr:`samples` says.

        Args:
            seats: by program; whoever has none sits in the middle.
            only: the one program that is heard.

        Raises:
            InputError: nothing is heard.
        """
        timing, seats = self._timing, seats or {}
        mix_CS = np.zeros((2, self.samples), dtype=np.float32)
        rate_hz = timing.sample_rate_hz
        for program, pitch, zone, members in self._zones:
            if only in (None, program):
                seat = seats.get(program, _MIDDLE)
                voice = sound(self._font, zone, pitch=pitch, held_s=timing.held_s(members), sample_rate_hz=rate_hz)
                sides_C = _sides(zone.pan + seat.pan, zone.attenuation_db - seat.level_db)
                timing.add(mix_CS, voice, sides_C, members)
        drawn: dict[int, dict[int, NDArray[Any]]] = {}
        for program, pitch, members in self._keys:
            if only in (None, program):
                drawn.setdefault(program, {})[pitch] = members
        for program, keys in drawn.items():
            seat = seats.get(program, _MIDDLE)
            held_s = {pitch: timing.held_s(members) for pitch, members in keys.items()}
            for pitch, voice in self._instruments[program].voices(held_s, sample_rate_hz=rate_hz):
                timing.add(mix_CS, voice, _sides(seat.pan, -seat.level_db), keys[pitch])
        if only is None and not mix_CS.any():
            raise InputError(
                "no note of the score has a sound in the SoundFont", remedy="choose other pitches or programs"
            )
        return mix_CS


_MIDDLE = Seat()


def audible_samples(mix_CS: NDArray[np.float32], *, depth_db: float = AUDIBLE_DB) -> int:
    """Length up to the last sample within ``depth_db`` of the loudest; 0 for silence."""
    peak = max(float(mix_CS.max()), -float(mix_CS.min()))
    for start in reversed(range(0, mix_CS.shape[1], _SEARCH_SAMPLES) if peak else ()):
        block_CS = np.abs(mix_CS[:, start : start + _SEARCH_SAMPLES])
        heard = np.flatnonzero((block_CS > peak * 10 ** (-depth_db / 20)).any(axis=0))
        if len(heard):
            return start + int(heard[-1]) + 1
    return 0


def _timing(score: Score, font: SoundFont, of_font_N: NDArray[np.bool_], sample_rate_hz: int) -> _Timing:
    notes = score.notes
    onset_N = np.round(score.seconds_at(notes.onset_ticks) * sample_rate_hz).astype(np.int64)
    end_ticks = notes.onset_ticks.astype(np.int64) + notes.duration_ticks
    end_N = np.round(score.seconds_at(end_ticks) * sample_rate_hz).astype(np.int64)
    gain_N = np.square(notes.velocity.astype(np.float32) / 127) * _HEADROOM
    below_db_N = 20 * np.log10(np.maximum(gain_N, 1e-9) / max(float(gain_N.max()), 1e-9))
    return _Timing(
        sample_rate_hz=sample_rate_hz,
        onset_N=onset_N,
        held_N=np.maximum(end_N - onset_N, 1),
        gain_N=gain_N,
        cut_N=_chokes(notes, onset_N, font, of_font_N),
        depth_N=np.clip(AUDIBLE_DB + below_db_N, 0, AUDIBLE_DB).astype(np.int64),
    )


def _chokes(
    notes: Notes, onset_N: NDArray[np.int64], font: SoundFont, of_font_N: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """First later onset of a note's exclusive class, at which it must be silent; far away for all others."""
    cut_N = np.full(len(notes), np.iinfo(np.int64).max)
    for program in np.unique(notes.program[of_font_N]).tolist():
        class_of_pitch = np.zeros(256, dtype=np.int64)
        for zone in font.zones(program):
            class_of_pitch[zone.keys[0] : zone.keys[1] + 1] = zone.exclusive_class
        class_N = np.where(notes.program == program, class_of_pitch[notes.pitch], 0)
        for exclusive_class in np.unique(class_N[class_N > 0]).tolist():
            members = np.flatnonzero(class_N == exclusive_class)
            onsets = np.unique(onset_N[members])
            following = np.searchsorted(onsets, onset_N[members], side="right")
            has_next = following < len(onsets)
            cut_N[members[has_next]] = onsets[following[has_next]]
    return cut_N


def _keys(notes: Notes, chosen_N: NDArray[np.bool_]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Each program and pitch of the chosen notes, with the positions of those."""
    positions = np.flatnonzero(chosen_N)
    key_N = notes.program[positions].astype(np.int32) * 128 + notes.pitch[positions]
    order = np.argsort(key_N, kind="stable")
    keys, starts = np.unique(key_N[order], return_index=True)
    if len(keys):
        for key, members in zip(keys.tolist(), np.split(positions[order], starts[1:]), strict=True):
            yield *divmod(key, 128), members


def _zones(
    notes: Notes, font: SoundFont, of_font_N: NDArray[np.bool_]
) -> Iterator[tuple[int, int, Zone, NDArray[Any]]]:
    """Each program, pitch and zone that sounds, with the positions of its notes."""
    for program, pitch, members in _keys(notes, of_font_N):
        for zone in font.zones_at(program, pitch):
            low, high = zone.velocities
            velocity = notes.velocity[members]
            heard = members[(velocity >= low) & (velocity <= high)]
            if len(heard):
                yield program, pitch, zone, heard


def _sides(pan: float, attenuation_db: float) -> NDArray[np.float32]:
    """Gains of left and right: constant power, as controller 10 has it (8.4.4)."""
    angle = (min(max(pan, -0.5), 0.5) + 0.5) * math.pi / 2
    volume = np.float32(10 ** (-attenuation_db / 20))
    return np.array([math.cos(angle), math.sin(angle)], dtype=np.float32) * volume
