"""Scales and chords by name, where chords stand in bars, and limits over time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tutti.errors import RecipeError
from tutti.generation.chords import parse_chord, parse_chords
from tutti.generation.harmony import Harmony, beat_ticks, scale_of, strong_beats
from tutti.generation.scales import parse_scale
from tutti.generation.timetable import Spans, Timetable
from tutti.units import PitchRange, parse_key, parse_pitch_range


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("C", {0, 4, 7}),
        ("Cm", {0, 3, 7}),
        ("C-", {0, 3, 7}),
        ("Cmin", {0, 3, 7}),
        ("Cmaj", {0, 4, 7}),
        ("C°", {0, 3, 6}),
        ("Cdim", {0, 3, 6}),
        ("C+", {0, 4, 8}),
        ("Caug", {0, 4, 8}),
        ("C5", {0, 7}),
        ("Csus2", {0, 2, 7}),
        ("Csus4", {0, 5, 7}),
        ("Csus", {0, 5, 7}),
        ("C6", {0, 4, 7, 9}),
        ("Cm6", {0, 3, 7, 9}),
        ("C6/9", {0, 2, 4, 7, 9}),
        ("C7", {0, 4, 7, 10}),
        ("Cmaj7", {0, 4, 7, 11}),
        ("CM7", {0, 4, 7, 11}),
        ("CΔ", {0, 4, 7, 11}),
        ("CΔ7", {0, 4, 7, 11}),
        ("Cma7", {0, 4, 7, 11}),
        ("C^7", {0, 4, 7, 11}),
        ("Cm7", {0, 3, 7, 10}),
        ("C-7", {0, 3, 7, 10}),
        ("Cmi7", {0, 3, 7, 10}),
        ("CmM7", {0, 3, 7, 11}),
        ("Cm(maj7)", {0, 3, 7, 11}),
        ("C-Δ", {0, 3, 7, 11}),
        ("Cdim7", {0, 3, 6, 9}),
        ("Co7", {0, 3, 6, 9}),
        ("Cø", {0, 3, 6, 10}),
        ("Cø7", {0, 3, 6, 10}),
        ("Cm7b5", {0, 3, 6, 10}),
        ("C-7(♭5)", {0, 3, 6, 10}),
        ("C+7", {0, 4, 8, 10}),
        ("C7+", {0, 4, 8, 10}),
        ("C7#5", {0, 4, 8, 10}),
        ("C7sus4", {0, 5, 7, 10}),
        ("C9", {0, 2, 4, 7, 10}),
        ("Cmaj9", {0, 2, 4, 7, 11}),
        ("C11", {0, 2, 5, 7, 10}),
        ("Cm11", {0, 2, 3, 5, 7, 10}),
        ("C13", {0, 2, 4, 7, 9, 10}),
        ("Cadd9", {0, 2, 4, 7}),
        ("Cmadd9", {0, 2, 3, 7}),
        ("C7(b9,#11)", {0, 1, 4, 6, 7, 10}),
        ("C7-9", {0, 1, 4, 7, 10}),
        ("C7#9", {0, 3, 4, 7, 10}),
        ("C7alt", {0, 1, 3, 4, 8, 10}),
        ("Cmaj7#11", {0, 4, 6, 7, 11}),
        ("Cno3", {0, 7}),
        ("C7no5", {0, 4, 10}),
        ("C13b9", {0, 1, 4, 7, 9, 10}),
    ],
)
def test_qualities_are_read_in_both_notations(text: str, steps: set[int]) -> None:
    assert parse_chord(text).tones == steps
    moved = parse_chord("Eb" + text[1:])
    assert moved.tones == {(step + 3) % 12 for step in steps}
    assert (moved.root, moved.bass) == (3, 3)


def test_what_follows_a_slash_is_the_bass_and_sounds() -> None:
    chord = parse_chord("Cm7/Bb")
    assert (chord.root, chord.bass) == (0, 10)
    assert parse_chord("C/F#").tones == {0, 4, 6, 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cm7 F7 | Hmaj7", r": bar 2, chord 1: 'Hmaj7' does not begin with a root of A to G: write it like"),
        ("C | F Gm7x G", r": bar 2, chord 2: 'Gm7x' has a quality 'm7x' that is not known: write it like"),
        ("C/H", r": bar 1, chord 1: 'C/H' has a quality"),
        ("C | | F", r": bar 2 is empty: write % to repeat"),
        ("% | C", r": bar 1 is %, and no bar is before it"),
        ("/ C", r": bar 1, chord 1: '/' does not begin with a root"),
        ("C C C C C C C C C", r": bar 1 has 9 chords, and a bar has at most 8: write | between bars"),
        ("", r": bar 1 is empty"),
        ("C|" * 5000, r" have 10000 letters: write at most 8000"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match="chords" + message.replace("|", r"\|")):
        parse_chords(text)


def test_bars_are_read_however_they_are_ruled() -> None:
    plain = parse_chords("C | F G | %")
    assert [[(chord.text, shares) for chord, shares in bar] for bar in plain.bars] == [
        [("C", 1)],
        [("F", 1), ("G", 1)],
        [("F", 1), ("G", 1)],
    ]
    for text in ("| C | F G | % |", "C || F G | %", "C | F G |\n| %", "C\nF G\n\n%", "C｜F G｜%"):
        assert parse_chords(text) == plain


def _regions(text: str, meter: tuple[int, int], *, bars: int) -> list[tuple[int, int, str]]:
    harmony = Harmony(parse_chords(text), bars=bars, scale=None, pitch_range=PitchRange(0, 127), has_bass=True)
    return [(start, stop, chord.text) for start, stop, chord in harmony.regions(meter)]


def test_chords_of_a_bar_share_its_beats() -> None:
    assert _regions("C F G", (4, 4), bars=1) == [(0, 48, "C"), (48, 72, "F"), (72, 96, "G")]
    assert _regions("C / / G", (4, 4), bars=1) == [(0, 72, "C"), (72, 96, "G")]
    assert _regions("C F", (3, 4), bars=1) == [(0, 48, "C"), (48, 72, "F")]
    assert _regions("C F", (6, 8), bars=1) == [(0, 36, "C"), (36, 72, "F")]
    assert _regions("C F G Am", (3, 4), bars=1) == [(0, 18, "C"), (18, 36, "F"), (36, 54, "G"), (54, 72, "Am")]
    # The same chord again is one, also where the progression begins anew.
    assert _regions("C | G C", (4, 4), bars=4) == [
        (0, 96, "C"),
        (96, 144, "G"),
        (144, 288, "C"),
        (288, 336, "G"),
        (336, 384, "C"),
    ]


@pytest.mark.parametrize(
    ("meter", "beat", "strong"),
    [
        ((4, 4), 24, [0, 48]),
        ((3, 4), 24, [0]),
        ((2, 4), 24, [0]),
        ((6, 8), 36, [0]),
        ((12, 8), 36, [0, 72]),
        ((5, 4), 24, [0, 72]),
        ((7, 8), 12, [0, 36, 60]),
        ((1, 4), 24, [0]),
        ((3, 8), 12, [0]),
        ((8, 4), 24, [0, 48, 96, 144]),
    ],
)
def test_strong_beats(meter: tuple[int, int], beat: int, strong: list[int]) -> None:
    assert beat_ticks(meter) == beat
    assert strong_beats(meter) == strong


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Dm7 | G7 | Cmaj7", "C major"),
        ("C | Am | F | G", "C major"),
        ("Am | F | C | G", "A minor"),
        ("Em | Am | B7 | Em", "E minor"),
        ("Cm7 F7 | Bbmaj7 | Ebmaj7 | Am7b5 | D7 | Gm", "G minor"),
        ("E | A | B7 | E", "E major"),
    ],
)
def test_the_key_of_a_progression(text: str, key: str) -> None:
    assert str(parse_chords(text).key()) == key


def test_a_foreign_chord_brings_the_nearest_scale() -> None:
    key = parse_key("C major").pitch_classes
    assert scale_of(parse_chord("G7"), key=key) == key
    assert scale_of(parse_chord("C7"), key=key) == parse_key("F major").pitch_classes
    assert scale_of(parse_chord("E7"), key=key) == (key - {7}) | {8}
    assert parse_chord("C7(b9,#11)").tones <= scale_of(parse_chord("C7(b9,#11)"), key=key)
    # Seven semitones side by side are in no scale: the chord stands alone.
    crowded = parse_chord("C13(b9,#9,#11,b5,#5)")
    assert scale_of(crowded, key=key) == crowded.tones


@pytest.mark.parametrize(
    ("text", "name", "classes"),
    [
        ("C major pentatonic", "C major pentatonic", {0, 2, 4, 7, 9}),
        ("a Blues", "A blues", {9, 0, 2, 3, 4, 7}),
        ("D dorian", "D dorian", {2, 4, 5, 7, 9, 11, 0}),
        ("F# harmonic minor", "F# harmonic minor", {6, 8, 9, 11, 1, 2, 5}),
        ("Bb whole-tone", "Bb whole tone", {10, 0, 2, 4, 6, 8}),
        ("chromatic", "chromatic", set(range(12))),
        ("C chromatic scale", "chromatic", set(range(12))),
        ("C宫", "C gong", {0, 2, 4, 7, 9}),
        ("D 羽调式", "D yu", {2, 5, 7, 9, 0}),
        ("G zhi", "G zhi", {7, 9, 0, 2, 4}),
        ("E aeolian", "E natural minor", {4, 6, 7, 9, 11, 0, 2}),
        ("harmonic minor", "harmonic minor", {0, 2, 3, 5, 7, 8, 11}),
    ],
)
def test_scales_by_name(text: str, name: str, classes: set[int]) -> None:
    scale = parse_scale(text)
    assert str(scale) == name
    assert scale.pitch_classes == classes
    assert parse_scale(str(scale)) == scale


def test_unknown_scales_are_told_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"scale 'C bebop' is not known: .* known are major, natural minor"):
        parse_scale("C bebop")


def test_a_scale_begins_and_ends_on_what_it_has_of_its_triad() -> None:
    assert parse_scale("A blues").home == {9, 0, 4}
    assert parse_scale("D shang").home == {2, 9}
    assert parse_scale("B locrian").home == {11, 2, 5}
    assert str(parse_scale("D dorian").key) == "D minor"
    assert str(parse_scale("G mixolydian").key) == "G major"
    assert parse_scale("D shang").key is None


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("C3-C6", 48, 84),
        ("48-84", 48, 84),
        ("e2 to G#5", 40, 80),
        ("C-1-G9", 0, 127),
        ("Bb2..B2", 46, 47),
        ("60–60", 60, 60),
    ],
)
def test_pitch_ranges(text: str, low: int, high: int) -> None:
    found = parse_pitch_range(text)
    assert (found.low, found.high) == (low, high)
    assert parse_pitch_range(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C6-C3", "begins above its end"),
        ("C3", "has no two ends"),
        ("C3-H4", "pitch 'H4' is not known"),
        ("0-128", "pitch '128' is not known: write it like"),
        ("A9-B9", "pitch 'A9' is not known"),
    ],
)
def test_unreadable_pitch_ranges(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_pitch_range(text)


def _spans(text: str, *, bars: int) -> Spans:
    harmony = Harmony(parse_chords(text), bars=bars, scale=None, pitch_range=PitchRange(36, 84), has_bass=True)
    return harmony.spans((4, 4), before=np.ones(128, dtype=bool))


def test_limits_over_time_come_and_go_with_their_rows() -> None:
    short, long = _spans("C | F", bars=2), _spans("Am F C G | E7", bars=8)
    table = Timetable([None, short])
    table.join(Timetable([None]))
    table.join(Timetable([long]))
    assert table.timed.tolist() == [False, True, False, True]
    rows = np.array([1, 3])
    table.origin_ticks[3] = 960
    at = np.array([96, 960 + 24])
    spans = table.span(rows, at)
    begin = table.begin(rows, spans)
    assert set((np.flatnonzero(begin[0]) % 12).tolist()) == {5, 9, 0}
    assert set((np.flatnonzero(begin[1]) % 12).tolist()) == {5, 9, 0}
    ruled, lowest = table.lowest(rows, spans, at)
    assert ruled.all()
    assert set((np.flatnonzero(lowest[1]) % 12).tolist()) == {5}
    assert table.next_must(rows, spans).tolist()[1] == 960 + 48
    assert_array_equal(table.released(rows, spans, pitches=np.array([65, 65])), [192, 960 + 48])
    # A tone of no chord ends on the next strong beat.
    off = np.array([96 + 24, 960 + 24])
    assert table.released(rows, table.span(rows, off), pitches=np.array([67, 65]))[0] == 96 + 48
    table.keep(np.array([2, 3]))
    assert table.timed.tolist() == [False, True]
    assert table.begin(np.array([1]), table.span(np.array([1]), np.array([984]))).any()
    table.keep(np.array([0]))
    assert not table.any
