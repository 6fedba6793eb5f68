"""Standard MIDI files, and the objects of symusic and pretty_midi, from and to scores.

What MIDI can hold is less than what a score can: a tempo is a whole number of microseconds a quarter, a part has one
program, equal pitches that overlap in a part end in the order in which they began, a note has at least one tick.
:func:`in_midi_form` is the score with just that, and ``read_midi(write_midi(score))`` is the identity on it.

Notes without an end are not read. Controllers, pitch bend and lyrics are not part of a score.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import symusic
from numpy.typing import NDArray

from tutti.corpus.midi_chunks import MAX_TICKS, read_chunks
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import DataError
from tutti.units import MICROSECONDS_PER_MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pretty_midi

MAX_NOTES = 1_000_000
MAX_QUARTERS = 100_000
MAX_TICKS_PER_QUARTER = 2**15 - 1
MAX_MICROSECONDS_PER_QUARTER = 2**24 - 1
MAX_DELTA_TICKS = 2**28 - 1

DRUM_CHANNEL = 9
MELODIC_CHANNELS = (*range(DRUM_CHANNEL), *range(DRUM_CHANNEL + 1, 16))

# What symusic's binding raises on bytes that it cannot read (nanobind's names for C++ exceptions).
_SYMUSIC_ERRORS = (RuntimeError, ValueError, IndexError, OverflowError, MemoryError)


def read_midi(data: bytes) -> Score:
    """The score of a Standard MIDI file, type 0 or 1, plain or wrapped in RIFF.

    A part is one (track, channel, program) of the file; parts without notes are left out. The title is the name of the
    file's first track, where that is no part.

    Raises:
        DataError: empty, unreadable, no_notes, bad_time or too_long.
    """
    chunks = read_chunks(data)
    try:
        parsed = symusic.Score.from_midi(chunks.data)
    except _SYMUSIC_ERRORS as error:
        reason = " ".join(str(error).split()).removesuffix(": iostream error")
        raise DataError("unreadable", reason or type(error).__name__) from None
    title = chunks.first_name()
    return replace(from_symusic(parsed), title=None if title in {track.name for track in parsed.tracks} else title)


def write_midi(score: Score) -> bytes:
    """A Standard MIDI file of type 1: maps and title in the first track, then a track for each part.

    Equal scores give equal bytes. Up to 15 melodic parts have a channel each; beyond that, parts of one program share
    one.

    Raises:
        DataError: bad_time, where the resolution or a meter has no place in a MIDI file; too_long, where it lasts
            past the longest pause of one, 2^28 - 1 ticks.
    """
    score = in_midi_form(score)
    if not 1 <= score.ticks_per_quarter <= MAX_TICKS_PER_QUARTER:
        raise DataError(
            "bad_time", f"{score.ticks_per_quarter} ticks per quarter are outside 1 to {MAX_TICKS_PER_QUARTER}"
        )
    last_ticks = max(score.end_ticks, int(score.tempo_ticks[-1]), int(score.meter_ticks[-1]))
    if last_ticks > MAX_DELTA_TICKS:
        raise DataError("too_long", f"{last_ticks} ticks are more than the limit of {MAX_DELTA_TICKS}")
    tracks = [_maps_track(score), *_part_tracks(score.notes)]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), score.ticks_per_quarter)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


def in_midi_form(score: Score) -> Score:
    """The score as a MIDI file holds it: see the module's first lines. Parts are numbered from 0 without gaps."""
    notes = score.notes.in_order()
    parts, track = np.unique(np.stack((notes.track, notes.program), axis=1), axis=0, return_inverse=True)
    onset = notes.onset_ticks.astype(np.int64)
    end = onset + np.maximum(notes.duration_ticks, 1)
    track = track.reshape(-1)
    by_onset = np.lexsort((onset, notes.pitch, track))
    by_end = np.lexsort((end, notes.pitch, track))
    first_out = np.empty_like(end)
    first_out[by_onset] = end[by_end]
    return replace(
        score,
        notes=Notes.of(
            onset_ticks=onset,
            duration_ticks=first_out - onset,
            pitch=notes.pitch,
            velocity=np.clip(notes.velocity, 1, 127),
            program=parts[track, 1] if len(parts) else notes.program,
            track=track,
        ).in_order(),
        tempo_qpm=MICROSECONDS_PER_MINUTE / _microseconds_per_quarter(score.tempo_qpm),
    )


def from_symusic(parsed: Any) -> Score:
    """The score of a ``symusic.Score`` in ticks.

    Raises:
        DataError: no_notes, bad_time or too_long.
    """
    tracks = [track for track in parsed.tracks if len(track.notes)]
    if not tracks:
        raise DataError("no_notes", "the piece holds no note")
    columns = [track.notes.numpy() for track in tracks]
    sizes = [len(column["time"]) for column in columns]
    if sum(sizes) > MAX_NOTES:
        raise DataError("too_long", f"{sum(sizes)} notes are more than the limit of {MAX_NOTES}")
    onset, duration, pitch, velocity = (
        np.concatenate([column[name] for column in columns]).astype(np.int64)
        for name in ("time", "duration", "pitch", "velocity")
    )
    if onset.min() < 0 or pitch.min() < 0 or velocity.min() < 0 or duration.min() < 0:
        raise DataError("unreadable", "a note has a negative time, pitch or velocity: the bytes are not MIDI events")
    _check_length(int((onset + duration).max()), ticks_per_quarter=int(parsed.ticks_per_quarter))
    programs = [DRUM_PROGRAM if track.is_drum else int(track.program) & 0x7F for track in tracks]
    return Score.of(
        Notes.of(
            onset_ticks=onset,
            duration_ticks=np.maximum(duration, 1),
            pitch=pitch,
            velocity=np.maximum(velocity, 1),
            program=np.repeat(programs, sizes),
            track=np.repeat(np.arange(len(tracks)), sizes),
        ),
        ticks_per_quarter=int(parsed.ticks_per_quarter),
        tempos=_tempos(parsed),
        meters=_meters(parsed),
    )


def to_symusic(score: Score) -> Any:
    """The score as a ``symusic.Score`` in ticks, in MIDI form."""
    score = in_midi_form(score)
    made = symusic.Score(score.ticks_per_quarter)
    for program, _, notes in _parts(score.notes):
        part = symusic.Track("", 0 if program == DRUM_PROGRAM else program, program == DRUM_PROGRAM)
        part.notes = symusic.Note.from_numpy(
            notes.onset_ticks, notes.duration_ticks, notes.pitch.astype(np.int8), notes.velocity.astype(np.int8)
        )
        made.tracks.append(part)
    made.tempos = symusic.Tempo.from_numpy(
        score.tempo_ticks, _microseconds_per_quarter(score.tempo_qpm).astype(np.int32)
    )
    for tick, above, below in _meter_rows(score):
        made.time_signatures.append(symusic.TimeSignature(tick, above, below))
    return made


def to_pretty_midi(score: Score) -> pretty_midi.PrettyMIDI:
    """The score as a ``pretty_midi.PrettyMIDI``, whose times are seconds."""
    import pretty_midi

    return pretty_midi.PrettyMIDI(io.BytesIO(write_midi(score)))


def from_pretty_midi(parsed: pretty_midi.PrettyMIDI) -> Score:
    """The score of a ``pretty_midi.PrettyMIDI``, on its own resolution.

    Raises:
        DataError: as :func:`read_midi`.
    """
    sink = io.BytesIO()
    parsed.write(sink)
    return read_midi(sink.getvalue())


def _check_length(end_ticks: int, *, ticks_per_quarter: int) -> None:
    if ticks_per_quarter <= 0:
        raise DataError("bad_time", f"{ticks_per_quarter} ticks per quarter give no finite length")
    if end_ticks > MAX_TICKS:
        raise DataError("too_long", f"the last note ends at tick {end_ticks}, past the limit of {MAX_TICKS}")
    if end_ticks > MAX_QUARTERS * ticks_per_quarter:
        quarters = end_ticks / ticks_per_quarter
        raise DataError("too_long", f"{quarters:.0f} quarters are more than the limit of {MAX_QUARTERS}")


def _tempos(parsed: Any) -> list[tuple[int, float]]:
    columns = parsed.tempos.numpy()
    if np.any(columns["mspq"] <= 0):
        raise DataError("bad_time", "a tempo of 0 microseconds a quarter gives no finite speed")
    return list(zip(columns["time"].tolist(), (MICROSECONDS_PER_MINUTE / columns["mspq"]).tolist(), strict=True))


def _meters(parsed: Any) -> list[tuple[int, int, int]]:
    meters = [(meter.time, meter.numerator & 0xFF, meter.denominator & 0xFF) for meter in parsed.time_signatures]
    for _, above, below in meters:
        if above == 0 or below == 0:
            raise DataError("bad_time", f"a meter of {above}/{below} has no bar")
    return meters


def _microseconds_per_quarter(tempo_qpm: NDArray[np.float64]) -> NDArray[np.int64]:
    rounded = np.rint(MICROSECONDS_PER_MINUTE / tempo_qpm)
    return np.clip(rounded, 1, MAX_MICROSECONDS_PER_QUARTER).astype(np.int64)


def _meter_rows(score: Score) -> list[tuple[int, int, int]]:
    columns = (score.meter_ticks, score.meter_numerator, score.meter_denominator)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _parts(notes: Notes) -> Iterator[tuple[int, int, Notes]]:
    """Program, channel and notes of each part; ``notes`` are in MIDI form."""
    tracks, first = np.unique(notes.track, return_index=True)
    programs = notes.program[first]
    melodic = np.flatnonzero(programs != DRUM_PROGRAM)
    seat = np.arange(len(melodic))
    if len(melodic) > len(MELODIC_CHANNELS):
        seat = np.unique(programs[melodic], return_inverse=True)[1]
    channels = np.full(len(tracks), DRUM_CHANNEL)
    channels[melodic] = np.array(MELODIC_CHANNELS)[seat % len(MELODIC_CHANNELS)]
    for track, program, channel in zip(tracks, programs.tolist(), channels.tolist(), strict=True):
        yield program, channel, notes.take(notes.track == track)


def _maps_track(score: Score) -> bytes:
    """Title, tempos and meters, in order of ticks."""
    events: list[tuple[int, bytes]] = []
    if score.title:
        name = score.title.encode()
        events.append((0, b"\xff\x03" + _delta(len(name)) + name))
    for tick, above, below in _meter_rows(score):
        if above == 0 or below not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise DataError("bad_time", f"meter {above}/{below} has no place in a MIDI file")
        events.append((tick, bytes((0xFF, 0x58, 4, above, below.bit_length() - 1, 24, 8))))
    for tick, microseconds in zip(
        score.tempo_ticks.tolist(), _microseconds_per_quarter(score.tempo_qpm).tolist(), strict=True
    ):
        events.append((tick, b"\xff\x51\x03" + microseconds.to_bytes(3, "big")))
    events.sort(key=lambda event: event[0])
    track, now = bytearray(), 0
    for tick, message in events:
        track += _delta(tick - now) + message
        now = tick
    return bytes(track) + b"\x00\xff\x2f\x00"


def _part_tracks(notes: Notes) -> Iterator[bytes]:
    for program, channel, part in _parts(notes):
        program_change = bytes((0, 0xC0 | channel, 0 if program == DRUM_PROGRAM else program))
        yield program_change + _note_events(part, channel=channel) + b"\x00\xff\x2f\x00"


def _note_events(notes: Notes, *, channel: int) -> bytes:
    """Note-on and note-off messages with their delta times; at one tick, ends come before onsets."""
    onset = notes.onset_ticks.astype(np.int64)
    ticks = np.concatenate((onset + notes.duration_ticks, onset))
    messages = np.concatenate(
        (
            np.stack((np.full_like(notes.pitch, 0x80 | channel), notes.pitch, np.zeros_like(notes.pitch)), axis=1),
            np.stack((np.full_like(notes.pitch, 0x90 | channel), notes.pitch, notes.velocity), axis=1),
        )
    )
    is_onset = np.repeat((False, True), len(notes))
    order = np.lexsort((is_onset, ticks))
    deltas = np.diff(ticks[order], prepend=0)
    # A delta is one to four groups of seven bits, the highest first; all but the last carry the high bit.
    groups = (deltas[:, None] >> np.array((21, 14, 7, 0))) & 0x7F
    written = np.column_stack([deltas >= 1 << shift for shift in (21, 14, 7)] + [np.ones_like(deltas, dtype=bool)])
    stream = np.concatenate((groups.astype(np.uint8) | np.array((0x80, 0x80, 0x80, 0), np.uint8), messages[order]), 1)
    kept = np.concatenate((written, np.ones_like(messages, dtype=bool)), axis=1)
    return bytes(stream[kept].tobytes())


def _delta(ticks: int) -> bytes:
    groups = [ticks & 0x7F]
    while ticks := ticks >> 7:
        groups.append(0x80 | ticks & 0x7F)
    return bytes(reversed(groups))
