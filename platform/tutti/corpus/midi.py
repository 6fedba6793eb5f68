"""Standard MIDI files, and the objects of symusic and pretty_midi, from and to scores.

What MIDI can hold is less than what a score can: a tempo is a whole number of microseconds a quarter, a part has one
program, equal pitches that overlap in a part end in the order in which they began and no two begin at once, a note has
at least one tick. :func:`in_midi_form` is the score with just that, and ``read_midi(write_midi(score))`` is the
identity on it. How files are read: :mod:`tutti.corpus.midi_reader`.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import symusic
from numpy.typing import NDArray

from tutti.corpus.found_pieces import HANGING_NOTE_QUARTERS, MAX_NOTES, lesser_duplicates
from tutti.corpus.midi_chunks import read_chunks
from tutti.corpus.midi_closing import MAX_DELTA_TICKS
from tutti.corpus.midi_reader import MidiReader
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import DataError
from tutti.units import MICROSECONDS_PER_MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pretty_midi

MAX_TICKS_PER_QUARTER = 2**15 - 1
MAX_MICROSECONDS_PER_QUARTER = 2**24 - 1

DRUM_CHANNEL = 9
MELODIC_CHANNELS = (*range(DRUM_CHANNEL), *range(DRUM_CHANNEL + 1, 16))


def read_midi(data: bytes) -> Score:
    """The score of a Standard MIDI file that holds one piece; the rules are those of :mod:`tutti.corpus.midi_reader`.

    A note without an end lasts 8 quarters at most.

    Raises:
        DataError: empty, unreadable, no_notes, bad_time or too_long.
    """
    chunks = read_chunks(data)
    pieces = chunks.pieces()
    if len(pieces) > 1:
        raise DataError("unreadable", f"MIDI type 2 holds {len(pieces)} independent pieces; save each as type 1")
    reader = MidiReader(hanging_note_quarters=HANGING_NOTE_QUARTERS)
    reader.add(chunks, pieces[0])
    return _only_piece(reader)


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
    notes = score.notes
    _, track = np.unique(np.stack((notes.track, notes.program), axis=1), axis=0, return_inverse=True)
    notes = replace(
        notes,
        duration_ticks=np.maximum(notes.duration_ticks, 1),
        velocity=np.clip(notes.velocity, 1, 127),
        track=track.reshape(-1).astype(np.uint16),
    ).in_order()
    once = np.ones(len(notes), dtype=bool)
    once[lesser_duplicates(np.zeros(len(notes), dtype=np.int64), notes)] = False
    notes = notes.take(once)
    onset = notes.onset_ticks.astype(np.int64)
    end = onset + notes.duration_ticks
    by_onset = np.lexsort((onset, notes.pitch, notes.track))
    by_end = np.lexsort((end, notes.pitch, notes.track))
    first_out = np.empty_like(end)
    first_out[by_onset] = end[by_end]
    return replace(
        score,
        notes=replace(notes, duration_ticks=(first_out - onset).astype(np.int32)).in_order(),
        tempo_qpm=MICROSECONDS_PER_MINUTE / _microseconds_per_quarter(score.tempo_qpm),
    )


def from_symusic(parsed: Any) -> Score:
    """The score of a ``symusic.Score`` in ticks.

    Raises:
        DataError: no_notes, bad_time or too_long.
    """
    reader = MidiReader(hanging_note_quarters=HANGING_NOTE_QUARTERS)
    reader.add_symusic(parsed)
    return _only_piece(reader)


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


def _only_piece(reader: MidiReader) -> Score:
    batch, _, refused = reader.found().settled(max_notes=MAX_NOTES)
    if refused:
        raise DataError(*refused[0])
    return batch[0]


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
