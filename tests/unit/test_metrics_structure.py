"""Structure: bars that resemble, what comes again, and the fitness of segments against its own definition."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.metrics import scape, structure
from tutti.metrics.structure import Repeat

Matrix = NDArray[np.float64]


def of_bars(*bars: list[int], drums: bool = False, up: dict[int, int] | None = None) -> Score:
    """Bars of 4/4 of quarters on the given pitches, some of them higher."""
    onset = [96 * bar + 24 * beat for bar, pitches in enumerate(bars) for beat in range(len(pitches))]
    pitch = [pitch + (up or {}).get(bar, 0) for bar, pitches in enumerate(bars) for pitch in pitches]
    program = DRUM_PROGRAM if drums else 0
    return Score.of(Notes.of(onset_ticks=onset, duration_ticks=24, pitch=pitch, program=program), ticks_per_quarter=24)


A, B, C = [60, 62, 64, 65], [67, 65, 64, 62], [72, 71, 69, 67]


def test_bars_resemble_by_the_notes_they_share() -> None:
    found = structure.similarity(of_bars(A, B, A, [60, 62, 71, 65], [], A), transposed=False)
    assert found[0].tolist() == [1, 0.25, 1, 0.75, 0, 1]
    # E4 in the third quarter is all that A and B share; an empty bar resembles nothing.
    assert np.diagonal(found).tolist() == [1, 1, 1, 1, 0, 1]


def test_transposed_bars_resemble_where_that_is_asked_for_and_drums_never() -> None:
    higher = of_bars(A, B, A, A, up={2: 3, 3: -11})
    assert structure.similarity(higher, transposed=False)[0, 2:].max() < 1
    assert structure.similarity(higher, transposed=True)[0, 2:].tolist() == [1, 1]
    beats = of_bars([36, 38, 36, 38], [38, 40, 38, 40], drums=True)
    assert structure.similarity(beats, transposed=True)[0, 1] == 0
    wide = of_bars([20, 24, 20, 24], [20, 24, 20, 24], up={1: 12})
    assert structure.similarity(wide, transposed=True)[0, 1] == 0


@st.composite
def pieces(draw: st.DrawFn) -> Score:
    count = draw(st.integers(0, 30))

    def column(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    notes = Notes.of(
        onset_ticks=np.array(column(0, 60), dtype=int) * 12,
        duration_ticks=column(1, 60),
        pitch=column(0, 127) if draw(st.booleans()) else column(60, 64),
        program=[draw(st.sampled_from((0, 40, DRUM_PROGRAM))) for _ in range(count)],
    )
    meters = draw(st.lists(st.sampled_from([(0, 4, 4), (0, 3, 8), (96, 3, 4), (230, 5, 8)]), unique=True))
    return Score.of(notes, ticks_per_quarter=24, meters=meters)


@given(pieces(), st.booleans())
def test_similarity_is_symmetric_and_bounded_and_whole_with_itself(score: Score, transposed: bool) -> None:
    found = structure.similarity(score, transposed=transposed)
    np.testing.assert_array_equal(found, found.T)
    assert found.min(initial=0) >= 0
    assert found.max(initial=0) <= 1
    assert set(np.diagonal(found)) <= {0, 1}
    if transposed:
        assert np.all(found >= structure.similarity(score, transposed=False))


@given(pieces(), st.integers(1, 11))
def test_similarity_of_transposed_bars_does_not_depend_on_the_key(score: Score, semitones: int) -> None:
    notes = score.notes.take((score.notes.pitch < 128 - semitones) & (score.notes.program != DRUM_PROGRAM))
    higher = replace(notes, pitch=notes.pitch + np.uint8(semitones))
    one, other = (structure.similarity(replace(score, notes=each), transposed=True) for each in (notes, higher))
    np.testing.assert_array_equal(one, other)


def test_pieces_too_long_to_compare_with_themselves_are_refused() -> None:
    notes = Notes.of(onset_ticks=[0, 96 * structure.MAX_BARS], duration_ticks=24, pitch=60)
    long = Score.of(notes, ticks_per_quarter=24)
    with pytest.raises(InputError, match="a piece of 4097 bars has more than 4096: cut it"):
        structure.similarity(long, transposed=False)
    with pytest.raises(InputError, match="a piece of 8192 s has more than 4096 frames at 2 a second: ask"):
        scape.chroma(long, frames_per_s=2)


def test_repeats_of_known_forms() -> None:
    song = structure.similarity(of_bars(A, B, C, A, B, A, B, C, A, C), transposed=False)
    assert structure.longest_repeat(song, threshold=1.0) == Repeat(bars=4, first=0, again=5)
    # All but the first of each A, B and C come again.
    assert structure.repetition_rate(song, threshold=1.0) == pytest.approx(7 / 10)
    assert structure.period_bars(song) == 5
    ostinato = structure.similarity(of_bars(*[A] * 9), transposed=False)
    assert structure.longest_repeat(ostinato, threshold=1.0) == Repeat(bars=4, first=0, again=4)
    assert structure.mean_similarity(ostinato) == 1
    different = structure.similarity(of_bars(A, C), transposed=False)
    assert structure.longest_repeat(different, threshold=1.0) is None
    assert structure.repetition_rate(different, threshold=1.0) == 0
    assert structure.mean_similarity(different) == 0
    assert structure.period_bars(different) is None


@given(st.lists(st.integers(0, 2), min_size=0, max_size=12))
def test_the_longest_repeat_is_what_comparing_everything_gives(form: list[int]) -> None:
    found = structure.longest_repeat(
        structure.similarity(of_bars(*[(A, B, C)[kind] for kind in form]), transposed=False), threshold=1.0
    )
    every = [
        (length, -first, -again)
        for first, again in itertools.combinations(range(len(form)), 2)
        for length in range(1, again - first + 1)
        if form[first : first + length] == form[again : again + length] and again + length <= len(form)
    ]
    expected = max(every, default=None)
    assert (found and (found.bars, -found.first, -found.again)) == expected


def test_silent_bars_count_for_nothing() -> None:
    gaps = structure.similarity(of_bars(A, [], A, [], A), transposed=False)
    assert structure.mean_similarity(gaps) == 1
    assert structure.repetition_rate(gaps, threshold=1.0) == pytest.approx(2 / 3)
    assert structure.longest_repeat(gaps, threshold=1.0) == Repeat(bars=1, first=0, again=2)


def test_segments_longer_than_the_piece_have_no_fitness() -> None:
    score = played(tune(1, notes=20), tune(1, notes=20))
    assert scape.structureness(score, shortest_s=2, longest_s=10, frames_per_s=1) > 0.3
    assert scape.structureness(score, shortest_s=score.length_s + 2, longest_s=1e9, frames_per_s=1) == 0


def test_nothing_has_no_structure() -> None:
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    found = structure.similarity(nothing, transposed=True)
    assert found.shape == (0, 0)
    assert np.isnan(structure.mean_similarity(found))
    assert np.isnan(structure.repetition_rate(found, threshold=1.0))
    assert structure.longest_repeat(found, threshold=1.0) is None
    assert structure.period_bars(found) is None
    assert scape.structureness(nothing, shortest_s=3, longest_s=8, frames_per_s=2) == 0


def by_definition(similarity: Matrix, begin: int, length: int) -> float:
    """Fitness of one segment: the best path family among all, its cells and what it covers, step by step."""
    segment, frames = similarity[:, begin : begin + length], len(similarity)
    # Of each cell the best path that ends there: score, cells, first row; of equals the one named first.
    best: list[list[tuple[float, int, int] | None]] = [[None] * length for _ in range(frames)]
    family: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for row in range(frames):
        for column in range(length):
            came: list[tuple[float, int, int]] = []
            if column == 0:
                came = [(family[row][0], 0, row)]
            else:
                for down, along in ((1, 1), (2, 1), (1, 2)):
                    if row >= down and column >= along and best[row - down][column - along] is not None:
                        came.append(best[row - down][column - along])  # type: ignore[arg-type]
            if came:
                score, cells, first = max(came, key=lambda path: path[0])
                best[row][column] = (score + segment[row, column], cells + 1, first)
        ended = best[row][-1]
        score, cells, covered = family[row]
        if ended is not None and ended[0] > score:
            before = family[ended[2]]
            family.append((ended[0], before[1] + ended[1], before[2] + row - ended[2] + 1))
        else:
            family.append((score, cells, covered))
    score, cells, covered = family[-1]
    normal, coverage = (score - length) / max(cells, 1), (covered - length) / frames
    return 2 * normal * coverage / (normal + coverage) if normal + coverage > 0 else 0.0


@given(st.integers(0, 10_000), st.integers(2, 14))
@settings(max_examples=40)
def test_fitness_is_what_its_definition_says(seed: int, frames: int) -> None:
    random = np.random.default_rng(seed)
    similarity = np.where(random.random((frames, frames)) < 0.5, random.random((frames, frames)), -2.0)
    similarity = np.maximum(similarity, similarity.T)
    np.fill_diagonal(similarity, 1.0)
    for length in range(1, frames + 1):
        found = scape.fitness(similarity, length=length)
        assert found.tolist() == pytest.approx(
            [by_definition(similarity, begin, length) for begin in range(frames - length + 1)]
        )
    highest = max(scape.fitness(similarity, length=length).max() for length in range(2, frames + 1))
    assert scape.highest_fitness(similarity, shortest=2, longest=10**9) == pytest.approx(max(highest, 0))


def test_two_rounds_of_one_song_are_covered_by_half_of_it() -> None:
    """The textbook's example: a matrix of exact repeats."""
    part = np.eye(6)
    rounds = np.where(np.tile(part, (3, 3)) > 0, 1.0, -2.0)
    # Three rounds: all but one third is covered, and every cell scores 1.
    assert scape.fitness(rounds, length=6)[0] == pytest.approx(2 * (12 / 18) ** 2 / (24 / 18))
    assert scape.fitness(rounds, length=18).tolist() == [0]


def test_chroma_are_sounding_times() -> None:
    notes = Notes.of(onset_ticks=[0, 240], duration_ticks=[240, 240], pitch=[60, 67])
    score = Score.of(notes, ticks_per_quarter=24, tempos=[(0, 60.0)])
    found = scape.chroma(score, frames_per_s=1)
    assert found.shape == (20, 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert found[4, 0] == found[15, 7] == pytest.approx(1)
    # At the change both sound within 2.1 s.
    assert 0.5 < found[10, 0] < 0.9
    drums = replace(score, notes=replace(notes, program=np.full(2, DRUM_PROGRAM, np.uint8)))
    assert len(scape.chroma(drums, frames_per_s=1)) == 0


def tune(seed: int, *, notes: int) -> list[tuple[int, int]]:
    random = np.random.default_rng(seed)
    return list(
        zip(random.choice([12, 24, 24, 48], notes).tolist(), random.integers(55, 80, notes).tolist(), strict=True)
    )


def played(*parts: list[tuple[int, int]], up: int = 0) -> Score:
    rows = [row for part in parts for row in part]
    lengths = np.array([length for length, _ in rows])
    onset = np.cumsum(lengths) - lengths
    pitch = np.array([pitch for _, pitch in rows])
    pitch[len(pitch) // 2 :] += up
    return Score.of(Notes.of(onset_ticks=onset, duration_ticks=lengths, pitch=pitch), ticks_per_quarter=24)


@pytest.mark.parametrize("up", [0, 4])
def test_a_song_in_rounds_has_more_structure_than_one_that_wanders(up: int) -> None:
    """Also where its second half is in another key."""
    verse = tune(1, notes=40)
    rounds, wanders = played(verse, verse, up=up), played(tune(1, notes=40), tune(2, notes=40))
    settings = {"shortest_s": 10, "longest_s": 25, "frames_per_s": 1}
    found = [scape.structureness(score, **settings) for score in (rounds, wanders)]
    assert found[0] > found[1] + 0.15
    assert 0 <= found[1] <= found[0] < 1
