"""Laws of MIDI files: what was written is what is read, and no bytes do worse than a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import scores
from tutti.corpus.midi import from_symusic, in_midi_form, read_midi, to_symusic, write_midi
from tutti.corpus.score import Notes, Score
from tutti.errors import DataError
from tutti.tables import REFUSAL_REASONS


@given(scores())
def test_a_score_in_midi_form_is_read_as_it_was_written(score: Score) -> None:
    normal = in_midi_form(score)
    read = read_midi(write_midi(score))
    assert read.same_music(normal)
    assert read.title == score.title


@given(scores())
def test_midi_form_keeps_onsets_and_the_longest_sounding_time_of_each(score: Score) -> None:
    normal = in_midi_form(score)
    assert in_midi_form(normal).same_music(normal)
    longest: dict[tuple[int, ...], int] = {}
    notes = score.notes
    for onset, duration, *part in zip(
        notes.onset_ticks.tolist(), notes.duration_ticks.tolist(), notes.pitch.tolist(), notes.program.tolist(),
        notes.track.tolist(), strict=True,
    ):  # fmt: skip
        longest[onset, *part] = max(longest.get((onset, *part), 1), duration)
    assert sorted(key[:3] for key in longest) == sorted(
        zip(*(getattr(normal.notes, name).tolist() for name in ("onset_ticks", "pitch", "program")), strict=True)
    )
    assert normal.notes.duration_ticks.astype(np.int64).sum() == sum(longest.values())


@given(scores())
def test_symusic_objects_go_there_and_back(score: Score) -> None:
    assert from_symusic(to_symusic(score)).same_music(in_midi_form(score))


@given(scores(), st.randoms(use_true_random=False))
def test_notes_in_another_order_give_the_same_bytes(score: Score, random: Any) -> None:
    order = list(range(len(score.notes)))
    random.shuffle(order)
    shuffled = Score.from_columns({**score.columns(), **_columns(score.notes.take(np.array(order)))})
    assert write_midi(shuffled).split(b"MTrk")[2:] == write_midi(score).split(b"MTrk")[2:]


@given(scores(), st.data())
def test_damaged_files_are_read_or_refused_for_a_listed_reason(score: Score, data: st.DataObject) -> None:
    damaged = bytearray(write_midi(score))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    read = _read_or_refused(bytes(damaged))
    if isinstance(read, DataError):
        assert read.reason in REFUSAL_REASONS
    else:
        assert len(read.notes)
        assert read.notes.onset_ticks.min() >= 0
        assert read.notes.duration_ticks.min() >= 1
        assert np.all(np.isfinite(read.tempo_qpm))
        assert 0 < read.length_s < np.inf


def _read_or_refused(data: bytes) -> Score | DataError:
    try:
        return read_midi(data)
    except DataError as error:
        return error


def _columns(notes: Notes) -> dict[str, Any]:
    return {
        name: getattr(notes, name)
        for name in ("onset_ticks", "duration_ticks", "pitch", "velocity", "program", "track")
    }
