"""Laws of fingerprints and splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.fingerprint import fingerprint
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.splits import SPLITS, split_of

FROZEN = ["test", "test", "train", "train", "train", "test"]

melodies = st.lists(st.tuples(st.integers(1, 96), st.integers(20, 100)), min_size=2, max_size=20)


def of(melody: list[tuple[int, int]], *, tempo_qpm: float = 90.0, program: int = 0) -> Score:
    gaps, pitches = zip(*melody, strict=True)
    notes = Notes.of(
        onset_ticks=np.cumsum((0, *gaps[:-1])), duration_ticks=gaps, pitch=pitches, velocity=80, program=program
    )
    return Score.of(notes, ticks_per_quarter=24, tempos=[(0, tempo_qpm)])


@given(melodies, st.integers(-20, 27), st.floats(20, 300), st.sampled_from((1, 2, 5, 20)), st.integers(0, 500))
def test_a_melody_is_the_same_in_any_key_tempo_resolution_and_place(
    melody: list[tuple[int, int]], semitones: int, tempo_qpm: float, finer: int, later: int
) -> None:
    score = of(melody)
    moved = of([(gap, pitch + semitones) for gap, pitch in melody], tempo_qpm=tempo_qpm, program=40)
    shifted = replace(moved, notes=replace(moved.notes, onset_ticks=moved.notes.onset_ticks + later))
    assert fingerprint(shifted.with_resolution(24 * finer)) == fingerprint(score)


@given(melodies, st.data())
def test_lower_voices_and_loudness_do_not_change_it(melody: list[tuple[int, int]], data: st.DataObject) -> None:
    score = of(melody)
    below = np.array(data.draw(st.lists(st.integers(1, 19), min_size=len(melody), max_size=len(melody))), np.uint8)
    both = Notes.of(
        onset_ticks=np.tile(score.notes.onset_ticks, 2),
        duration_ticks=np.tile(score.notes.duration_ticks, 2),
        pitch=np.concatenate((score.notes.pitch, score.notes.pitch - below)),
        velocity=30,
        track=np.repeat((0, 1), len(melody)),
    )
    assert fingerprint(replace(score, notes=both.in_order())) == fingerprint(score)


@given(melodies, st.data())
def test_another_interval_or_rhythm_is_another_melody(melody: list[tuple[int, int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(melody) - 2))
    gap, pitch = melody[at]
    assert fingerprint(of([*melody[:at], (gap + 1, pitch), *melody[at + 1 :]])) != fingerprint(of(melody))
    assert fingerprint(of([*melody[:at], (gap, pitch + 1), *melody[at + 1 :]])) != fingerprint(of(melody))


@given(melodies)
def test_drums_are_told_by_their_keys(melody: list[tuple[int, int]]) -> None:
    drums = of(melody, program=DRUM_PROGRAM)
    other = of([(gap, pitch + 1) for gap, pitch in melody], program=DRUM_PROGRAM)
    assert fingerprint(drums) != fingerprint(other)


@given(st.text(min_size=1), st.floats(0, 0.5), st.floats(0, 0.4), st.floats(0, 0.1))
def test_a_larger_share_takes_works_from_training_only(key: str, valid: float, test: float, more: float) -> None:
    before = split_of(key, valid_share=valid, test_share=test)
    after = split_of(key, valid_share=valid + more, test_share=test)
    assert before in SPLITS
    assert after == before or (before, after) == ("train", "valid")


def test_shares_are_met_by_many_keys() -> None:
    count = 20_000
    found = [split_of(f"key {number}", valid_share=0.1, test_share=0.05) for number in range(count)]
    # Four standard deviations of a binomial draw.
    assert abs(found.count("valid") / count - 0.1) < 4 * (0.1 * 0.9 / count) ** 0.5
    assert abs(found.count("test") / count - 0.05) < 4 * (0.05 * 0.95 / count) ** 0.5


def test_a_split_never_moves_between_versions() -> None:
    assert [split_of(key, valid_share=0.3, test_share=0.3) for key in ("a", "b", "c", "d", "e", "f")] == FROZEN
