from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.music import chorale, walk
from tutti.corpus import notation
from tutti.corpus.musicxml import fifths_of, spelt, write_musicxml
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.scores import read_scores
from tutti.errors import InputError
from tutti.units import Key, parse_key


def read_back(score: Score, folder: Path, *, key: Key | None = None) -> Score:
    path = folder / "score.musicxml"
    path.write_bytes(write_musicxml(score, key=key))
    (found,) = read_scores(path, tempo_without_mark_qpm=120)
    return found


def played(score: Score) -> list[tuple[float, float, int]]:
    notes, per_quarter = score.notes, score.ticks_per_quarter
    onsets, ends = notes.onset_ticks / per_quarter, (notes.onset_ticks + notes.duration_ticks) / per_quarter
    return sorted(zip(onsets.round(4).tolist(), ends.round(4).tolist(), notes.pitch.tolist(), strict=True))


@pytest.mark.parametrize("score", [walk(1), chorale(2, bars=3)], ids=["walk", "chorale"])
def test_music21_reads_the_same_music(score: Score, tmp_path: Path) -> None:
    found = read_back(score, tmp_path)
    assert played(found) == played(score)
    assert found.tempo_qpm.tolist() == score.tempo_qpm.tolist()
    assert found.title == (score.title or "Untitled")
    assert len(np.unique(found.notes.track)) >= len(np.unique(score.notes.track))


def test_meters_tempos_ties_triplets_programs_and_velocities_come_back(tmp_path: Path) -> None:
    score = Score.of(
        Notes.of(
            onset_ticks=[0, 40, 56, 64, 72, 160, 168],
            duration_ticks=[36, 8, 8, 8, 80, 8, 36],
            pitch=[60, 64, 66, 67, 72, 70, 68],
            velocity=[30, 100, 100, 100, 127, 64, 90],
            program=40,
        ),
        ticks_per_quarter=24,
        tempos=[(0, 90.0), (96, 120.0), (150, 60.0)],
        meters=[(0, 4, 4), (96, 3, 4)],
    )
    found = read_back(score, tmp_path, key=parse_key("F minor"))
    assert played(found) == played(score)
    assert set(found.notes.program.tolist()) == {40}
    assert found.notes.velocity.tolist() == score.notes.velocity.tolist()
    assert found.meter_numerator.tolist() == [4, 3]
    assert found.tempo_qpm.tolist() == [90, 120, 60]
    assert (found.tempo_ticks / found.ticks_per_quarter).tolist() == (score.tempo_ticks / 24).tolist()
    text = (tmp_path / "score.musicxml").read_text(encoding="utf-8")
    assert "<fifths>-4</fifths><mode>minor</mode>" in text
    assert text.count('<tie type="start"/>') == text.count('<tie type="stop"/>') > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), resolution=st.sampled_from([24, 96, 480]))
def test_every_bar_is_full_and_every_value_has_a_shape(seed: int, resolution: int) -> None:
    random = np.random.default_rng(seed)
    count = 30
    score = Score.of(
        Notes.of(
            onset_ticks=random.integers(0, 12 * resolution, count),
            duration_ticks=random.integers(1, 3 * resolution, count),
            pitch=random.integers(30, 90, count),
            program=random.choice([0, 40, DRUM_PROGRAM], count),
        ),
        ticks_per_quarter=resolution,
        meters=[(0, 3, 4), (6 * resolution, 7, 8)],
    )
    bars = notation.bars(score)
    root = ElementTree.fromstring(write_musicxml(score))
    lengths = {"whole": 96, "half": 48, "quarter": 24, "eighth": 12, "16th": 6, "32nd": 3, "64th": 1.5}
    for part in root.iter("part"):
        for bar, measure in zip(bars, part.iter("measure"), strict=True):
            at, reached = 0, 0
            for element in measure:
                duration = int(element.findtext("duration") or 0)
                if element.tag == "backup":
                    assert at == duration == bar.end - bar.start
                    at = 0
                elif element.tag == "note" and element.find("chord") is None:
                    at += duration
                    kind = element.findtext("type")
                    if kind is not None:
                        shape = lengths[kind] * (1.5 if element.find("dot") is not None else 1)
                        assert shape * (2 / 3 if element.find("time-modification") is not None else 1) == duration
                reached = max(reached, at)
            assert at == reached == bar.end - bar.start


def test_what_overlaps_is_in_voices_and_a_keyboard_has_two_staves(tmp_path: Path) -> None:
    score = Score.of(
        Notes.of(onset_ticks=[0, 0, 0, 24], duration_ticks=[96, 24, 24, 24], pitch=[40, 64, 67, 72]),
        ticks_per_quarter=24,
    )
    text = write_musicxml(score).decode()
    assert "<staves>2</staves>" in text
    assert text.count("<chord/>") == 1
    assert played(read_back(score, tmp_path)) == played(score)


def test_drums_stand_on_their_staff_with_a_key_each() -> None:
    score = Score.of(
        Notes.of(onset_ticks=[0, 24], duration_ticks=12, pitch=[36, 42], program=DRUM_PROGRAM), ticks_per_quarter=24
    )
    text = write_musicxml(score).decode()
    assert "<midi-unpitched>37</midi-unpitched>" in text
    assert "<display-step>F</display-step><display-octave>4</display-octave>" in text
    assert text.count("<notehead>x</notehead>") == 1


def test_played_loosely_it_is_written_on_the_grid() -> None:
    random = np.random.default_rng(3)
    exact = np.arange(32) * 120
    loose = Score.of(
        Notes.of(onset_ticks=np.maximum(exact + random.integers(-12, 13, 32), 0), duration_ticks=110, pitch=60),
        ticks_per_quarter=480,
    )
    (line,) = notation.voices(loose.notes, loose)
    assert [chord.start for chord in line] == (exact // 20).tolist()
    assert {chord.end - chord.start for chord in line} == {6}


@pytest.mark.parametrize(
    ("key", "fifths"), [("C major", 0), ("A minor", 0), ("F minor", -4), ("F# major", 6), ("Bb", -2), ("E minor", 1)]
)
def test_signatures(key: str, fifths: int) -> None:
    assert fifths_of(parse_key(key)) in (fifths, fifths - 12)


def test_black_keys_are_spelt_by_the_key() -> None:
    names = {
        key: "".join(
            f"{step}{'#' * max(alter, 0)}{'b' * max(-alter, 0)} "
            for step, alter, _ in (spelt(60 + pitch, fifths=fifths, minor=minor) for pitch in (1, 3, 6, 8, 10))
        ).strip()
        for key, fifths, minor in (("C", 0, False), ("E", 4, False), ("Ab", -4, False), ("A minor", 0, True))
    }
    assert names["C"] == "C# Eb F# Ab Bb"
    assert names["E"] == "C# D# F# G# A#"
    assert names["Ab"] == "Db Eb Gb Ab Bb"
    assert names["A minor"] == "C# Eb F# G# Bb"
    assert spelt(59, fifths=-6, minor=False) == ("C", -1, 4)
    assert spelt(60, fifths=7, minor=False) == ("B", 1, 3)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(InputError, match="no notes"):
        write_musicxml(Score.of(Notes.none(), ticks_per_quarter=24))
    long = Score.of(
        Notes.of(onset_ticks=[0, 2_000_000_000], duration_ticks=[1, 1], pitch=[60, 60]), ticks_per_quarter=24
    )
    with pytest.raises(InputError, match="more than 20000 bars"):
        write_musicxml(long)
