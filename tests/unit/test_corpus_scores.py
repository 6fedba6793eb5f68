"""Written scores: what the bars, ties and pickups of a page become in ticks."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.scores import FINE_TICKS_PER_QUARTER, from_music21, read_scores, to_music21
from tutti.corpus.sources import music21_folder
from tutti.errors import DataError

MUSICXML = """<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="4.0"><movement-title>{title}</movement-title>
<part-list><score-part id="P1"><part-name>Part</part-name>{instrument}</score-part></part-list>
<part id="P1">{bars}</part></score-partwise>"""
CLARINET = (
    '<score-instrument id="I1"><instrument-name>Clarinet in Bb</instrument-name></score-instrument>'
    '<midi-instrument id="I1"><midi-program>72</midi-program></midi-instrument>'
)
ATTRIBUTES = (
    "<attributes><divisions>12</divisions>{transpose}"
    "<time><beats>{beats}</beats><beat-type>4</beat-type></time></attributes>"
)


def attributes(beats: int, transpose: str = "") -> str:
    return ATTRIBUTES.format(beats=beats, transpose=transpose)


def sound(step: str, quarters: float, *, octave: int = 4, inside: str = "") -> str:
    pitch = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    return f"<note>{pitch}<duration>{round(12 * quarters)}</duration>{inside}</note>"


def bar(number: int, *content: str, implicit: bool = False) -> str:
    kind = ' implicit="yes"' if implicit else ""
    return f'<measure number="{number}"{kind}>{"".join(content)}</measure>'


def read(tmp_path: Path, *bars: str, title: str = "", instrument: str = "") -> Score:
    path = tmp_path / "piece.musicxml"
    path.write_text(MUSICXML.format(title=title, instrument=instrument, bars="".join(bars)))
    (score,) = read_scores(path, tempo_without_mark_qpm=80.0)
    return score


def quarters(score: Score) -> list[float]:
    return (score.notes.onset_ticks / score.ticks_per_quarter).tolist()


def lengths(score: Score) -> list[float]:
    return (score.notes.duration_ticks / score.ticks_per_quarter).tolist()


def meters(score: Score) -> list[tuple[float, int, int]]:
    columns = (score.meter_ticks / score.ticks_per_quarter, score.meter_numerator, score.meter_denominator)
    return [(float(at), int(above), int(below)) for at, above, below in zip(*columns, strict=True)]


def test_a_pickup_is_pushed_to_the_end_of_its_bar(tmp_path: Path) -> None:
    score = read(tmp_path, bar(0, attributes(3), sound("G", 1), implicit=True), bar(1, sound("C", 3)))
    assert quarters(score) == [2.0, 3.0]
    assert meters(score) == [(0.0, 3, 4)]


def test_tied_notes_are_one(tmp_path: Path) -> None:
    start, both, stop = (
        "".join(f'<tie type="{kind}"/>' for kind in kinds) for kinds in (["start"], ["stop", "start"], ["stop"])
    )
    score = read(
        tmp_path,
        bar(1, attributes(2), sound("C", 2, inside=start)),
        bar(2, sound("C", 2, inside=both)),
        bar(3, sound("C", 1, inside=stop), sound("C", 1)),
    )
    assert (quarters(score), lengths(score)) == ([0.0, 5.0], [5.0, 1.0])


def test_a_bar_of_another_length_becomes_a_meter_change(tmp_path: Path) -> None:
    score = read(
        tmp_path,
        bar(1, attributes(4), sound("C", 4)),
        bar(2, sound("D", 3)),
        bar(3, sound("E", 4)),
        bar(4, sound("F", 4)),
    )
    assert meters(score) == [(0.0, 4, 4), (4.0, 3, 4), (7.0, 4, 4)]


def test_two_bars_that_fill_one_stay_one(tmp_path: Path) -> None:
    score = read(
        tmp_path,
        bar(1, attributes(4), sound("C", 4)),
        bar(2, sound("D", 3)),
        bar(3, sound("E", 1)),
        bar(4, sound("F", 4)),
    )
    assert meters(score) == [(0.0, 4, 4)]


def test_a_transposing_instrument_sounds_where_it_sounds(tmp_path: Path) -> None:
    down = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    score = read(tmp_path, bar(1, attributes(4, down), sound("D", 4)), instrument=CLARINET)
    assert score.notes.pitch.tolist() == [60]
    assert score.notes.program.tolist() == [71]


def test_triplets_are_exact_and_septuplets_get_the_fine_grid(tmp_path: Path) -> None:
    plain = read(tmp_path, bar(1, attributes(2), *(sound("C", 1 / 3) for _ in range(6))))
    assert (plain.ticks_per_quarter, plain.notes.onset_ticks.tolist()) == (480, [0, 160, 320, 480, 640, 800])
    path = tmp_path / "seven.abc"
    path.write_text("X:1\nT:Seven\nM:2/4\nL:1/8\nK:C\n(7:4:7CDEFGAB|\n")
    (fine,) = read_scores(path, tempo_without_mark_qpm=80.0)
    assert len(set(np.diff(fine.notes.onset_ticks).tolist())) == 1
    assert fine.ticks_per_quarter == FINE_TICKS_PER_QUARTER


def test_grace_notes_and_chord_symbols_are_left_out(tmp_path: Path) -> None:
    grace = "<note><grace/><pitch><step>B</step><octave>4</octave></pitch></note>"
    symbol = "<harmony><root><root-step>C</root-step></root><kind>major</kind></harmony>"
    score = read(tmp_path, bar(1, attributes(4), symbol, grace, sound("C", 4)))
    assert score.notes.pitch.tolist() == [60]


def test_chord_symbols_with_a_length_are_left_out_too() -> None:
    from music21 import harmony, note, stream

    part = stream.Part()
    symbol = harmony.ChordSymbol("C")
    symbol.duration.quarterLength = 4.0
    part.insert(0, symbol)
    part.insert(0, note.Note("G4", quarterLength=4.0))
    assert from_music21(part, tempo_without_mark_qpm=80.0).notes.pitch.tolist() == [67]


def test_tempo_title_and_their_defaults(tmp_path: Path) -> None:
    fast = (
        "<direction><direction-type><metronome><beat-unit>half</beat-unit><per-minute>60</per-minute></metronome>"
        "</direction-type></direction>"
    )
    told = read(tmp_path, bar(1, attributes(4), fast, sound("C", 4)), title="Air")
    assert (told.title, told.tempo_qpm.tolist()) == ("Air", [120.0])
    untold = read(tmp_path, bar(1, attributes(4), sound("C", 4)))
    assert (untold.title, untold.tempo_qpm.tolist()) == ("piece", [80.0])


def test_a_chorale_of_the_installed_corpus() -> None:
    (score,) = read_scores(music21_folder() / "bach" / "bwv66.6.mxl", tempo_without_mark_qpm=80.0)
    assert score.title == "bwv66.6"
    assert len(np.unique(score.notes.track)) == 4
    assert set(score.notes.program.tolist()) == {0}
    # Its upbeat is the last quarter of the first 4/4 bar; the soprano opens C#5 in eighths.
    assert quarters(score)[0] == 3.0
    soprano = score.notes.take(score.notes.track == 0)
    assert soprano.pitch[:4].tolist() == [73, 71, 69, 71]
    assert meters(score) == [(0.0, 4, 4)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("piece.musicxml", "<score-partwise><part", "unreadable"),
        ("piece.musicxml", "not xml at all", "unreadable"),
        ("piece.mxl", "not a zip file", "unreadable"),
        ("piece.krn", "**kern\n*-\n", "no_notes"),
        ("piece.docx", "words", "unknown_format"),
    ],
)
def test_broken_scores_are_refused_with_their_reason(tmp_path: Path, name: str, content: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_scores(path, tempo_without_mark_qpm=80.0)
    assert caught.value.reason == reason


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mxl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.xml", b"0" * (65 << 20))
    with pytest.raises(DataError, match=r"too_long: .* unpack to more than"):
        read_scores(path, tempo_without_mark_qpm=80.0)


def test_a_score_goes_to_music21_and_back() -> None:
    notes = Notes.of(
        onset_ticks=[0, 0, 480, 640, 800, 960],
        duration_ticks=[480, 960, 160, 160, 160, 480],
        pitch=[60, 48, 62, 64, 65, 67],
        velocity=[80, 70, 60, 61, 62, 63],
        program=[0, 40, 0, 0, 0, 0],
        track=[0, 1, 0, 0, 0, 0],
    )
    score = Score.of(notes, ticks_per_quarter=480, tempos=[(0, 90.0), (480, 60.0)], meters=[(0, 3, 4)], title="Air")
    again = from_music21(to_music21(score), tempo_without_mark_qpm=80.0)
    assert again.same_music(score)
    assert again.title == "Air"


def test_drums_go_to_music21_and_back_as_drums() -> None:
    notes = Notes.of(onset_ticks=[0, 480], duration_ticks=[240, 240], pitch=[36, 38], program=DRUM_PROGRAM)
    score = Score.of(notes, ticks_per_quarter=480, tempos=[(0, 90.0)])
    assert from_music21(to_music21(score), tempo_without_mark_qpm=80.0).same_music(score)
