"""MIDI files as they come: sound ones, odd ones and broken ones."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from tutti.corpus.found_pieces import MAX_QUARTERS
from tutti.corpus.midi import from_pretty_midi, in_midi_form, read_midi, to_pretty_midi, write_midi
from tutti.corpus.midi_closing import MAX_DELTA_TICKS
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import DataError

END = b"\x00\xff\x2f\x00"
NOTE = b"\x00\x90\x3c\x64" + b"\x60\x80\x3c\x00"
LONGEST_PAUSE = b"\xff\xff\xff\x7f\xb0\x01\x01"


def track(events: bytes, *, end: bytes = END) -> bytes:
    return b"MTrk" + struct.pack(">I", len(events) + len(end)) + events + end


def smf(*events: bytes, kind: int = 1, division: int = 96, tracks: int | None = None) -> bytes:
    count = len(events) if tracks is None else tracks
    return b"MThd" + struct.pack(">IHHH", 6, kind, count, division) + b"".join(map(track, events))


def sounds(score: Score) -> list[tuple[int, ...]]:
    """Onset, duration, pitch and velocity of each note."""
    notes = score.notes
    columns = (notes.onset_ticks, notes.duration_ticks, notes.pitch, notes.velocity)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_note_is_read() -> None:
    score = read_midi(smf(NOTE))
    assert score.ticks_per_quarter == 96
    assert (score.notes.onset_ticks.tolist(), score.notes.duration_ticks.tolist()) == ([0], [96])
    assert (score.notes.pitch.tolist(), score.notes.velocity.tolist()) == ([60], [100])
    assert score.tempo_qpm.tolist() == [120.0]


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "no bytes"),
        (b"not music", "unreadable", "begins with b'not '"),
        (b"MThd\x00\x00", "unreadable", "inside its header"),
        (smf(), "no_notes", "no track"),
        (smf(b""), "no_notes", "no note"),
        (smf(NOTE)[:-3], "unreadable", "3 bytes of track 1 are gone"),
        (smf(NOTE, tracks=3), "unreadable", "promises 3 tracks and the file holds 1"),
        (smf(NOTE, division=0), "bad_time", "0 ticks per quarter"),
        (smf(NOTE, division=0xEA28), "bad_time", "SMPTE time of 22 frames a second by 40 ticks"),
        (smf(NOTE, division=0xE700), "bad_time", "SMPTE time of 25 frames a second by 0 ticks"),
        (smf(b"\x00\xff\x51\x03\x00\x00\x00" + NOTE), "bad_time", "tempo of inf quarters"),
        (smf(b"\x00\xff\x58\x04\x00\x02\x18\x08" + NOTE), "bad_time", "meter of 0/4"),
        (smf(NOTE, NOTE, kind=2), "unreadable", "type 2 holds 2 independent pieces"),
        (smf(NOTE, kind=7), "unreadable", "MIDI type 7"),
        (smf(LONGEST_PAUSE * 9 + NOTE, division=32_767), "too_long", "limit of 1073741823 ticks"),
        # 17 pauses wrap a 32-bit tick once around and look short again.
        (smf(LONGEST_PAUSE * 17 + NOTE, division=32_767), "too_long", "limit of 1073741823 ticks"),
        (smf(LONGEST_PAUSE + NOTE), "too_long", f"limit of {MAX_QUARTERS}"),
        (b"RIFF\x00\x00\x00\x00RMID", "unreadable", "RIFF file holds no MIDI"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "unreadable", "RIFF of kind b'WAVE'"),
        (smf(NOTE + b"\x00\x90\x3c"), "unreadable", "Unexpected EOF"),
        (smf(b"\x00\x3c\x64"), "unreadable", "running status"),
        # symusic takes an end-of-track of any length, and says nothing of what it leaves unread.
        (smf(NOTE + b"\x00\xff\x2f\x01\x00" + NOTE), "unreadable", "do not end where its bytes do"),
        # Past the last pitch of the last channel lies memory that is not symusic's.
        (smf(b"\x00\x9f\xff\x64" + NOTE), "unreadable", "status 0x9f has the data ff 64"),
        (smf(b"\x00\x8f\x80\x64" + NOTE), "unreadable", "status 0x8f has the data 80 64"),
        (smf(b"\x00\x90\x3c\xe4" + b"\x60\x80\x3c\x00"), "unreadable", "velocity -28"),
        (smf(NOTE).replace(b"\x00\x00\x00\x06", b"\x00\x00\x00\x02")[:14] + b"junk", "unreadable", "header of 2 bytes"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(DataError, match=detail) as caught:
        read_midi(data)
    assert caught.value.reason == reason


def test_every_cut_of_a_file_is_refused() -> None:
    whole = smf(NOTE * 3, NOTE)
    for length in range(len(whole)):
        with pytest.raises(DataError):
            read_midi(whole[:length])


def test_riff_wrapping_and_padding_are_taken_off() -> None:
    data = smf(NOTE)
    wrapped = b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data
    assert read_midi(wrapped).same_music(read_midi(data))
    assert read_midi(data + b"\x00" * 64).same_music(read_midi(data))


def test_a_note_without_length_lasts_one_tick() -> None:
    score = read_midi(smf(b"\x00\x90\x3c\x64\x00\x80\x3c\x00"))
    assert score.notes.duration_ticks.tolist() == [1]


def test_a_note_without_end_is_closed_at_the_tracks_end_or_after_eight_quarters() -> None:
    hanging = b"\x00\x90\x3c\x64"
    assert sounds(read_midi(smf(hanging + b"\x60\xb0\x07\x40"))) == [(0, 96, 60, 100)]
    assert sounds(read_midi(smf(hanging + b"\xff\x7f\xb0\x07\x40"))) == [(0, 8 * 96, 60, 100)]
    # The end-of-track's own delta counts, and each track has its own end.
    body = hanging + b"\x30\xff\x2f\x00"
    data = b"MThd" + struct.pack(">IHHH", 6, 1, 2, 96) + track(body, end=b"") + track(NOTE * 5)
    assert sounds(read_midi(data))[0] == (0, 48, 60, 100)
    assert sounds(read_midi(smf(hanging))) == [(0, 1, 60, 100)]


def test_only_the_last_of_equal_pitches_hangs() -> None:
    events = b"\x00\x90\x3c\x64" + b"\x10\x90\x3c\x50" + b"\x10\x80\x3c\x00" + b"\x10\xb0\x07\x40"
    assert sounds(read_midi(smf(events))) == [(0, 32, 60, 100), (16, 32, 60, 80)]


def test_notes_alike_are_one_the_longest_then_the_loudest() -> None:
    both = b"\x00\x90\x3c\x50" + b"\x00\x90\x3c\x64"
    assert sounds(read_midi(smf(both + b"\x10\x80\x3c\x00" + b"\x10\x80\x3c\x00"))) == [(0, 32, 60, 100)]
    louder_first = b"\x00\x90\x3c\x64" + b"\x00\x90\x3c\x50" + b"\x10\x80\x3c\x00" + b"\x00\x80\x3c\x00"
    assert sounds(read_midi(smf(louder_first))) == [(0, 16, 60, 100)]
    assert len(read_midi(smf(NOTE, NOTE)).notes) == 2


def test_running_status_and_an_onset_of_velocity_0() -> None:
    assert sounds(read_midi(smf(b"\x00\x90\x3c\x64" + b"\x60\x3c\x00" + b"\x00\x3e\x64" + b"\x60\x3e\x00"))) == [
        (0, 96, 60, 100), (96, 96, 62, 100),
    ]  # fmt: skip


def test_what_comes_after_an_end_of_track_is_no_music() -> None:
    data = smf(NOTE + END + NOTE)
    assert sounds(read_midi(data)) == [(0, 96, 60, 100)]
    # The same three bytes inside a text end nothing.
    assert len(read_midi(smf(NOTE + b"\x00\xff\x01\x03\xff\x2f\x00" + NOTE)).notes) == 2


def test_a_track_without_end_of_track_is_read_to_its_last_byte() -> None:
    data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + track(NOTE * 2, end=b"")
    assert sounds(read_midi(data)) == [(0, 96, 60, 100), (96, 96, 60, 100)]


def test_headers_of_another_length_and_uncounted_tracks() -> None:
    data = smf(NOTE, NOTE)
    longer = data[:4] + struct.pack(">I", 14) + data[8:14] + bytes(8) + data[14:]
    assert read_midi(longer).same_music(read_midi(data))
    for stated in (0, 14, 2**31):
        wrong = data[:4] + struct.pack(">I", stated) + data[8:]
        assert read_midi(wrong).same_music(read_midi(data))
    assert read_midi(smf(NOTE, NOTE, tracks=1)).same_music(read_midi(data))
    assert read_midi(smf(NOTE, NOTE, tracks=0)).same_music(read_midi(data))


@pytest.mark.parametrize(
    ("frames", "frames_per_s"),
    [(24, Fraction(24)), (25, Fraction(25)), (29, Fraction(30_000, 1001)), (30, Fraction(30))],
)
@pytest.mark.parametrize("ticks_of_frame", [1, 40, 80, 255])
def test_smpte_ticks_keep_their_exact_time(frames: int, frames_per_s: Fraction, ticks_of_frame: int) -> None:
    tempo_and_meter = b"\x00\xff\x51\x03\x01\x00\x00" + b"\x00\xff\x58\x04\x03\x02\x18\x08"
    score = read_midi(smf(tempo_and_meter + NOTE, division=(256 - frames) << 8 | ticks_of_frame))
    assert sounds(score) == [(0, 96, 60, 100)]
    assert score.length_s == pytest.approx(float(96 / (frames_per_s * ticks_of_frame)), rel=1e-12)
    assert (score.meter_numerator.tolist(), score.meter_denominator.tolist()) == ([4], [4])


def test_the_first_tracks_name_is_the_title_unless_it_is_a_part() -> None:
    name = b"\x00\xff\x03\x05Valse"
    assert read_midi(smf(name, NOTE)).title == "Valse"
    assert read_midi(smf(name + NOTE, NOTE)).title is None


def test_drums_and_programs_survive_more_parts_than_channels() -> None:
    count = 40
    notes = Notes.of(
        onset_ticks=np.zeros(count),
        duration_ticks=np.full(count, 10),
        pitch=np.full(count, 60),
        program=[DRUM_PROGRAM, *range(count - 1)],
        track=np.arange(count),
    )
    score = Score.of(notes, ticks_per_quarter=96)
    assert read_midi(write_midi(score)).same_music(in_midi_form(score))


def test_parts_of_one_program_share_a_channel_where_channels_run_out() -> None:
    count = 20
    notes = Notes.of(
        onset_ticks=np.zeros(count),
        duration_ticks=np.full(count, 10),
        pitch=np.full(count, 60),
        program=np.arange(count) % 2,
        track=np.arange(count),
    )
    changes = {track[4:7] for track in write_midi(Score.of(notes, ticks_per_quarter=96)).split(b"MTrk")[2:]}
    assert changes == {b"\x00\xc0\x00", b"\x00\xc1\x01"}


def test_a_repeated_note_ends_before_it_begins_again() -> None:
    notes = Notes.of(onset_ticks=[0, 10], duration_ticks=[10, 10], pitch=[60, 60], velocity=[70, 80])
    data = write_midi(Score.of(notes, ticks_per_quarter=96))
    assert b"\x90\x3c\x46" + b"\x0a\x80\x3c\x00" + b"\x00\x90\x3c\x50" + b"\x0a\x80\x3c\x00" in data


def test_one_rest_longer_than_midi_can_say_is_refused() -> None:
    notes = Notes.of(onset_ticks=[MAX_DELTA_TICKS], duration_ticks=[1], pitch=[60])
    with pytest.raises(DataError, match=f"limit of {MAX_DELTA_TICKS}"):
        write_midi(Score.of(notes, ticks_per_quarter=32_767))


@pytest.mark.parametrize(("ticks_per_quarter", "meter"), [(0, (4, 4)), (40_000, (4, 4)), (96, (4, 5))])
def test_what_has_no_place_in_midi_is_not_written(ticks_per_quarter: int, meter: tuple[int, int]) -> None:
    notes = Notes.of(onset_ticks=[0], duration_ticks=[1], pitch=[60])
    with pytest.raises(DataError, match="bad_time"):
        write_midi(Score.of(notes, ticks_per_quarter=ticks_per_quarter, meters=[(0, *meter)]))


def test_pretty_midi_hears_the_same_notes_at_the_same_seconds() -> None:
    notes = Notes.of(
        onset_ticks=[0, 96, 192, 400],
        duration_ticks=[96, 96, 200, 48],
        pitch=[60, 64, 67, 36],
        velocity=[80, 90, 100, 110],
        program=[0, 40, 40, DRUM_PROGRAM],
        track=[0, 1, 1, 2],
    )
    score = Score.of(notes, ticks_per_quarter=96, tempos=[(0, 90.0), (150, 140.0)], meters=[(0, 3, 4)])
    heard = to_pretty_midi(score)
    found = sorted(
        (note.start, note.end, note.pitch, note.velocity) for part in heard.instruments for note in part.notes
    )
    ends = notes.onset_ticks + notes.duration_ticks
    wanted = zip(score.seconds_at(notes.onset_ticks), score.seconds_at(ends), notes.pitch, notes.velocity, strict=True)
    assert np.allclose(found, sorted(wanted), atol=1e-6)
    assert [part.is_drum for part in heard.instruments] == [False, False, True]
    again = from_pretty_midi(heard)
    assert np.array_equal(again.notes.pitch, score.notes.pitch)
    assert np.allclose(again.seconds_at(again.notes.onset_ticks), score.seconds_at(score.notes.onset_ticks), atol=2e-3)
