"""Originality: planted copies are found whatever was done to them, and what all music shares is no copy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.versions import perturbations
from tests.drawn import scores
from tutti.corpus.midi import read_midi
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features.events import on_grid
from tutti.metrics import readings
from tutti.metrics.originality import LIMITS, Limits, Originality, Passage, Shared, WorkIndex, closest, is_copy
from tutti.metrics.suffixes import NOTHING, SuffixArray

TICKS = 480
BEAT_TICKS = 480
FILES = {"lieder": 90, "mutopia": 90}


def written(seed: int, *, beats: int = 48, program: int = 0) -> Score:
    """A tune in eighths, quarters and halves over chords of three notes."""
    random = np.random.default_rng(seed)
    gaps = random.choice([240, 480, 480, 720, 960], 2 * beats)
    onset = np.concatenate(([0], np.cumsum(gaps)))[:-1]
    kept = onset < beats * BEAT_TICKS
    tune = 66 + np.cumsum(random.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 7], kept.sum())) % 14
    chords = 2 * BEAT_TICKS * np.repeat(np.arange(beats // 2), 3)
    below = 40 + np.repeat(random.integers(0, 12, beats // 2), 3) + np.tile([0, 4, 7], beats // 2)
    return Score.of(
        Notes.of(
            onset_ticks=np.concatenate((onset[kept], chords)),
            duration_ticks=np.concatenate((gaps[kept], np.full(len(chords), 2 * BEAT_TICKS))),
            pitch=np.concatenate((tune, below)),
            track=np.concatenate((np.zeros(kept.sum(), int), np.ones(len(chords), int))),
            program=program,
        ),
        ticks_per_quarter=TICKS,
    )


def moved(score: Score, *, semitones: int = 0, stretch: Fraction | int = 1, later_quarters: int = 0) -> Score:
    notes = score.notes
    onset, duration = (
        (ticks.astype(np.int64) * stretch.numerator // stretch.denominator).astype(np.int32)
        for ticks in (notes.onset_ticks, notes.duration_ticks)
    )
    pitch = notes.pitch + np.uint8(semitones % 256)
    made = replace(notes, onset_ticks=onset + np.int32(later_quarters * TICKS), duration_ticks=duration, pitch=pitch)
    return replace(score, notes=made.in_order())


def cut(score: Score, *, first_beat: int, beats: int) -> Score:
    begin = first_beat * BEAT_TICKS
    onset = score.notes.onset_ticks
    held = score.notes.take((onset >= begin) & (onset < begin + beats * BEAT_TICKS))
    return replace(score, notes=replace(held, onset_ticks=held.onset_ticks - np.int32(begin)))


@pytest.fixture(scope="module")
def index() -> WorkIndex:
    works = [written(seed) for seed in range(40)]
    return WorkIndex.of(ScoreBatch.of(works), work_ids=[f"work {seed}" for seed in range(40)])


def asked(index: WorkIndex, *pieces: Score) -> list[Originality]:
    return index.originality(ScoreBatch.of(list(pieces)))


codes = st.lists(st.integers(NOTHING, 2), max_size=40).map(lambda codes: np.array(codes, dtype=np.int64))


@given(codes, codes)
def test_matches_are_what_comparing_everything_gives(text: np.ndarray, wanted: np.ndarray) -> None:
    def common(here: int, there: int) -> int:
        length = 0
        while (
            here + length < len(wanted)
            and there + length < len(text)
            and wanted[here + length] == text[there + length] != NOTHING
        ):
            length += 1
        return length

    suffixes = SuffixArray.of(text)
    assert sorted(suffixes.order.tolist()) == list(range(len(text)))
    search = suffixes.search(wanted)
    longest = search.longest()
    assert longest.tolist() == [max((common(h, t) for t in range(len(text))), default=0) for h in range(len(wanted))]
    places = np.flatnonzero(longest)
    for place, first, past in zip(places, *search.rows(places, longest[places]), strict=True):
        held = np.sort(suffixes.order[first:past]).tolist()
        assert held == [there for there in range(len(text)) if common(place, there) == longest[place]]


@given(
    st.integers(0, 39), st.integers(-12, 12), st.sampled_from([Fraction(1, 2), Fraction(3, 4), 1, Fraction(4, 3), 3]),
    st.integers(0, 127), st.integers(0, 16),
)  # fmt: skip
@settings(max_examples=40)
def test_planted_copies_are_found(
    index: WorkIndex, seed: int, semitones: int, stretch: Fraction | int, program: int, first_beat: int
) -> None:
    """Transposed, in other note values, on one other instrument, cut to 8 bars, all at once."""
    part = cut(written(seed), first_beat=2 * first_beat, beats=32 - 2 * first_beat % 16)
    whole = replace(part.notes, program=np.full_like(part.notes.program, program), track=part.notes.track * 0)
    copy = moved(replace(part, notes=whole.in_order()), semitones=semitones, stretch=stretch)
    (found,) = asked(index, copy)
    assert is_copy(found, limits=LIMITS)
    assert found.texture is not None
    assert found.shared is not None
    assert (found.texture.work_id, found.shared.work_id) == (f"work {seed}",) * 2
    assert found.texture.num_works == 1
    assert found.texture.semitones == semitones
    assert found.texture.stretch == pytest.approx(float(stretch), rel=0.01)
    assert found.texture.share == 1
    assert found.texture.notes == len(copy.notes)
    assert found.shared.share > 0.8
    assert found.texture.work_begin_quarters == 2 * first_beat + found.texture.begin_quarters / float(stretch)


def test_a_passage_is_found_where_it_stands(index: WorkIndex) -> None:
    """Ten bars of one's own, eight of another's a third higher and twice as fast, ten of one's own."""
    own, other = written(101, beats=40), cut(written(7), first_beat=10, beats=16)
    planted = moved(other, semitones=4, stretch=Fraction(1, 2), later_quarters=40)
    rest = moved(written(102, beats=40), later_quarters=48)
    notes = [own.notes, planted.notes, rest.notes]
    columns = {name: np.concatenate([getattr(part, name) for part in notes]) for name in Notes.__slots__}
    (found,) = asked(index, Score.of(Notes.of(**columns), ticks_per_quarter=TICKS))
    passage = found.texture
    assert passage is not None
    assert (passage.work_id, passage.semitones, passage.stretch) == ("work 7", 4, 0.5)
    assert passage.begin_quarters == 40
    assert 47 <= passage.end_quarters < 48
    assert passage.work_begin_quarters == 10
    assert passage.bars == 2
    assert passage.notes == len(planted.notes)
    assert passage.share == pytest.approx(len(planted.notes) / sum(len(part) for part in notes))
    assert found.melody is not None
    assert found.melody.work_id == "work 7"
    assert is_copy(found, limits=LIMITS) == (passage.bits >= LIMITS.texture_bits)


def test_a_tune_is_found_under_other_chords(index: WorkIndex) -> None:
    tune, chords = written(3).notes, written(104).notes
    both = [tune.take(tune.track == 0), chords.take(chords.track == 1)]
    columns = {name: np.concatenate([getattr(part, name) for part in both]) for name in Notes.__slots__}
    (found,) = asked(index, Score.of(Notes.of(**columns), ticks_per_quarter=TICKS))
    assert found.melody is not None
    assert (found.melody.work_id, found.melody.semitones) == ("work 3", 0)
    assert found.melody.bits >= LIMITS.melody_bits
    assert found.shared is None or found.shared.share < LIMITS.share


@given(st.integers(200, 230), st.sampled_from([Fraction(1, 2), Fraction(2, 3), 2, 5]), st.integers(-9, 9))
@settings(max_examples=20)
def test_key_and_note_values_change_nothing_but_themselves(
    index: WorkIndex, seed: int, stretch: Fraction | int, semitones: int
) -> None:
    plain, other = asked(index, written(seed), moved(written(seed), semitones=semitones, stretch=stretch))

    def told(found: Originality) -> list[object]:
        return [
            passage and (passage.work_id, passage.num_works, passage.notes, passage.bits, passage.share)
            for passage in (found.melody, found.texture)
        ] + [found.shared]

    assert told(plain) == told(other)


def test_what_is_written_by_rule_alone_is_no_copy(index: WorkIndex) -> None:
    fresh = asked(index, *(written(seed) for seed in range(300, 360)))
    assert not any(is_copy(found, limits=LIMITS) for found in fresh)
    assert all(found.melody and found.melody.num_works >= 1 for found in fresh)


def test_scales_repeated_notes_and_broken_chords_tell_next_to_nothing() -> None:
    figures = {
        "scale": np.arange(20, 116),
        "repeated": np.full(96, 64),
        "broken chord": np.tile([60, 67, 64, 67], 24),
    }
    pieces = {
        name: Score.of(
            Notes.of(onset_ticks=np.arange(96) * 120, duration_ticks=120, pitch=pitch), ticks_per_quarter=480
        )
        for name, pitch in figures.items()
    }
    index = WorkIndex.of(ScoreBatch.of(list(pieces.values())), work_ids=list(pieces))
    for name, found in zip(pieces, asked(index, *pieces.values()), strict=True):
        assert found.texture is not None, name
        assert (found.texture.work_id, found.texture.notes, found.texture.share) == (name, 96, 1.0)
        assert found.texture.bits < LIMITS.shared_bits, name
        assert not is_copy(found, limits=LIMITS), name


def test_of_works_alike_the_first_is_named_and_all_are_counted() -> None:
    works = [written(1), written(2), moved(written(2), semitones=3), moved(written(1), stretch=2), written(1)]
    index = WorkIndex.of(ScoreBatch.of(works), work_ids=list("abcde"))
    first, second = asked(index, moved(written(1), semitones=-2), written(2))
    assert first.texture is not None
    assert second.texture is not None
    assert (first.texture.work_id, first.texture.num_works) == ("a", 3)
    assert (second.texture.work_id, second.texture.num_works) == ("b", 2)
    assert first.shared is not None
    assert first.shared.work_id == "a"


def test_a_work_off_the_grid_of_tokens_is_found_on_it() -> None:
    """A model writes on a grid that the works it learned from need not lie on."""
    random = np.random.default_rng(0)
    gaps = random.choice([15, 30, 45, 105, 225], 160)
    pitch = 60 + np.cumsum(random.choice([-4, -3, -1, 1, 2, 3, 5], 160)) % 20
    quick = Score.of(Notes.of(onset_ticks=np.cumsum(gaps), duration_ticks=gaps, pitch=pitch), ticks_per_quarter=480)
    index = WorkIndex.of(ScoreBatch.of([written(0), quick]), work_ids=["slow", "quick"])
    for piece in (quick, on_grid(quick)):
        (found,) = asked(index, piece)
        assert found.shared is not None
        assert found.shared.work_id == "quick"
        assert found.shared.share > 0.9
        assert found.texture is not None
        assert found.texture.num_works == 1


def test_drums_alone_are_compared_as_beaten_and_with_others_not_at_all(index: WorkIndex) -> None:
    random = np.random.default_rng(4)
    onset = np.cumsum(random.choice([113, 127, 236, 251, 472], 120))
    beat = Notes.of(onset_ticks=onset, duration_ticks=30, pitch=random.choice([36, 38, 42], 120), program=DRUM_PROGRAM)
    take = Score.of(beat, ticks_per_quarter=480)
    drums = WorkIndex.of(ScoreBatch.of([written(0), take]), work_ids=["song", "take"])
    (found,) = asked(drums, moved(take, stretch=2))
    assert found.texture is not None
    assert (found.texture.work_id, found.texture.share, found.texture.semitones) == ("take", 1.0, 0)
    song = written(0)
    columns = {name: np.concatenate((getattr(song.notes, name), getattr(beat, name))) for name in Notes.__slots__}
    (with_drums,) = asked(drums, Score.of(Notes.of(**columns), ticks_per_quarter=480))
    (without,) = asked(drums, song)
    assert with_drums.shared == without.shared


@given(st.lists(scores(), max_size=5))
@settings(max_examples=40)
def test_pieces_asked_together_are_answered_as_each_alone(drawn: list[Score]) -> None:
    known = [*drawn[:3], written(1, beats=8)]
    index = WorkIndex.of(ScoreBatch.of(known), work_ids=[str(number) for number in range(len(known))])
    together = asked(index, *drawn)
    assert together == [asked(index, score)[0] for score in drawn]
    for score, found in zip(drawn[:3], together, strict=False):
        for passage in (found.melody, found.texture):
            if passage is not None:
                assert 0 < passage.share <= 1
                assert passage.end_quarters >= passage.begin_quarters >= 0
        # A work shares all of itself, if anything can be said of it.
        if len(readings.texture(ScoreBatch.of([score])).codes) > 2:
            assert found.texture is not None
            assert found.texture.share == 1


def test_nothing_shares_nothing(index: WorkIndex) -> None:
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    two = Score.of(Notes.of(onset_ticks=[0, 24], duration_ticks=24, pitch=[60, 62]), ticks_per_quarter=24)
    assert asked(index, nothing, two) == [Originality(None, None, None)] * 2
    assert asked(index) == []
    for works in ([], [nothing], [two]):
        empty = WorkIndex.of(ScoreBatch.of(works), work_ids=["x"] * len(works))
        assert asked(empty, written(1), nothing) == [Originality(None, None, None)] * 2
    with pytest.raises(ValueError, match="1 names for 2 works"):
        WorkIndex.of(ScoreBatch.of([two, two]), work_ids=["one"])


def test_each_limit_alone_makes_a_copy() -> None:
    limits = Limits(melody_bits=100, texture_bits=90, share=0.5, shared_bits=40)

    def passage(bits: int) -> Passage:
        return Passage("w", 1, 10, bits, 2, 0.1, 0.0, 8.0, 0.0, 0, 1.0)

    cases = {
        Originality(None, None, None): False,
        Originality(passage(99), passage(89), Shared("w", 10, 39, 0.9)): False,
        Originality(passage(99), passage(89), Shared("w", 10, 400, 0.49)): False,
        Originality(passage(100), None, None): True,
        Originality(None, passage(90), None): True,
        Originality(None, None, Shared("w", 10, 40, 0.5)): True,
    }
    assert {found: is_copy(found, limits=limits) for found in cases} == cases


def test_copies_of_real_works_are_found_and_other_works_let_pass(shared_folder: Path) -> None:
    works = []
    for collection, wanted in FILES.items():
        paths = sorted((shared_folder / "corpora" / collection).rglob("*.mid"))
        if not paths:
            pytest.skip(f"no MIDI in {collection}")
        works += [read_midi(paths[at].read_bytes()) for at in np.linspace(0, len(paths) - 1, wanted).astype(int)]
    works = [score for score in works if len(score.notes) >= perturbations.MIN_NOTES]
    known, others = works[::2], works[1::2]
    index = WorkIndex.of(ScoreBatch.of(known), work_ids=[str(number) for number in range(len(known))])
    draw = np.random.default_rng(6)
    copies = []
    for number, score in enumerate(known):
        part = perturbations.some_bars(score, draw, count=8)
        if part is not None:
            for change in (perturbations.transposed, perturbations.stretched, perturbations.on_another_instrument):
                part = change(part, draw)
            copies.append((str(number), part))
    found = asked(index, *(part for _, part in copies))
    assert len(copies) > 70
    assert all(is_copy(each, limits=LIMITS) for each in found)
    assert [each.shared and each.shared.work_id for each in found] == [name for name, _ in copies]
    taken = sum(is_copy(each, limits=LIMITS) for each in asked(index, *others))
    assert taken <= 0.02 * len(others)


@given(
    st.integers(0, 39), st.integers(0, 5), st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1),
    st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=40)
def test_what_comes_closest_is_a_copy_where_the_verdict_says_so(
    index: WorkIndex, seed: int, beats: int, melody_bits: int, texture_bits: int, share: float, shared_bits: int
) -> None:
    (found,) = asked(index, cut(written(seed), first_beat=4, beats=4 * beats + 2))
    limits = Limits(melody_bits, texture_bits, share, shared_bits)
    near = closest(found, limits=limits)
    assert (near is not None and near.is_copy) == is_copy(found, limits=limits)
    assert near is None or near.work_id in index.work_ids


def test_apart_a_piece_is_held_against_works_of_its_own_number_alone() -> None:
    works = ScoreBatch.of([written(seed) for seed in (1, 2, 3, 1)])
    number = np.array([7, 7, 9, 8])
    index = WorkIndex.of(works, work_ids=list("abcd"), apart=number)
    pieces = ScoreBatch.of([written(1), written(1), written(1), written(3)])
    found = index.originality(pieces, apart=np.array([7, 8, 9, 9]))
    near = [closest(each, limits=LIMITS) for each in found]
    assert [each.work_id if each and each.is_copy else None for each in near] == ["a", "d", None, "c"]
    plain = WorkIndex.of(works.take(np.array([0, 1])), work_ids=list("ab"))
    assert plain.originality(pieces.take(np.array([0]))) == [found[0]]


def test_an_index_comes_back_from_its_arrays(index: WorkIndex) -> None:
    pieces = ScoreBatch.of([written(3), cut(written(5), first_beat=8, beats=12), written(99)])
    again = WorkIndex.from_arrays(index.arrays(), work_ids=index.work_ids)
    assert again.originality(pieces) == index.originality(pieces)
