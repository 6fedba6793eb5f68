"""Pieces with a form: what is asked, the plan, and that what was planned comes, the same at every door."""

from __future__ import annotations

import queue

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from tests.obedience import faults
from tests.serving import save_untrained
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import RecipeError
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.generation.form.keys import closes, moved
from tutti.generation.form.layout import phrases, shared
from tutti.generation.form.plan import Plan, planned
from tutti.generation.form.stretch import Stretch, ended, joined, shaded, thinned
from tutti.generation.form.text import NAMES, bars_of_form, parse_form, sections_of
from tutti.generation.harmony import bar_ticks
from tutti.generation.piece import Event, Piece, PieceMade
from tutti.generation.request import Request
from tutti.units import Key, parse_key

# An untrained model says a bar of notes for each of a trained one's: bars are short, and instruments few.
ASKS = Request(form="A:4 B:4 A A':5", tempo=120, key="C major", seed=4, meter="2/4", instruments=("piano",), top_p=0.5)
LENGTHS_S = (90.0, 180.0, 300.0, 600.0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("form")
    save_untrained(folder)
    return Engine.load(folder, max_batch=4)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("AABA'", "A A B A'"),
        (" A A’B  A ", "A A' B A"),
        ("Rondo", "rondo"),
        ("verse chorus", "verse-chorus"),
        ("intro A B A'' outro", "intro A B A'' outro"),
        ("A:8 B:16 A", "A:8 B:16 A:8"),
        ("A:8 A':12 A", "A:8 A':12 A:8"),
    ],
)
def test_a_form_has_one_spelling(text: str, form: str) -> None:
    assert parse_form(text) == form
    assert parse_form(form) == form


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fugue", "form 'fugue' is not known.*A A B A'.*rondo"),
        ("", "is not known"),
        ("A:8 B A", "says no bars of B"),
        ("A:8 B:3", "section B:3 of form 'A:8 B:3' has less than 4 bars"),
        ("A:8 B:8 A':6", "section A':6 .* has less than 8 bars"),
        ("AB" * 17, "has 34 sections.*at most 32"),
        ("A" + "'" * 10, "more than 9 primes"),
    ],
)
def test_what_is_no_form_is_refused(text: str, line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        parse_form(text)


def test_a_form_says_its_bars_or_has_a_usual_length() -> None:
    assert bars_of_form("A:8 B:16 A:8") == 32
    assert (bars_of_form("A B A"), bars_of_form("rondo"), bars_of_form(None)) == (None, None, None)
    assert Request(form="rondo").length_s == 180
    assert Request(form="A:8 B:8").length is None
    assert Request(form="A:8 B:8").extent == (16, None)


@pytest.mark.parametrize("bars", [20, 31, 64, 90, 253])
@pytest.mark.parametrize("form", ["A A B A'", "intro A B C outro", "A B"])
def test_bars_are_shared_so_that_returns_are_as_long(form: str, bars: int) -> None:
    sections = sections_of(form, length_s=60)
    got = shared(sections, bars)
    assert sum(got) == bars
    assert min(got) >= 4
    for section, each in zip(sections[:-1], got, strict=False):
        assert each % 4 == 0
        assert each == got[[other.name for other in sections].index(section.name)]
    # What is left over is less than one more four for whatever letter comes least often.
    fewest = min(sum(other.name == section.name for other in sections) for section in sections)
    assert got[-1] - got[[other.name for other in sections].index(sections[-1].name)] < 4 * max(fewest, 3)


@pytest.mark.parametrize("bars", [4, 8, 11, 12, 13, 20, 37, 64, 130])
def test_phrases_fill_a_section_and_return_as_long(bars: int) -> None:
    found = phrases(bars)
    assert sum(each for _, each in found) == bars
    assert len({each for _, each in found[:-1]}) <= 1
    assert found[-1][1] >= found[0][1] >= 4


@pytest.mark.parametrize("length_s", LENGTHS_S)
@pytest.mark.parametrize("form", [*NAMES, "intro A A' B A'' outro"])
@pytest.mark.parametrize("key", ["D minor", None], ids=["minor", "open"])
def test_every_plan_can_be_made_and_lasts_as_long_as_asked(form: str, length_s: float, key: str | None) -> None:
    plan = planned(Request(form=form, length=length_s, key=key, seed=7))
    quarters = 4 * plan.bars
    assert 60 * quarters / plan.extent.tempo_qpm == pytest.approx(length_s)
    assert 60 < plan.extent.tempo_qpm < 160
    made: set[tuple[str, str]] = set()
    for name, step in plan.steps.items():
        assert set(step.needs) <= made
        assert step.bars > 0
        made.add(name)
    assert sum(phrase.bars for phrase in plan.phrases) == plan.bars
    for phrase, music in zip(plan.phrases, plan.music, strict=True):
        assert sum(plan.steps[name].bars for name in music) == phrase.bars
        assert -1 <= phrase.manner.level <= 1
        assert phrase.close is not None
    assert plan.phrases[-1].close in closes(_key(plan.phrases[-1].key), half=False)
    assert plan.phrases[-1].key == _key(plan.phrases[0].key), "it ends at home"


def _key(key: Key | None) -> Key:
    assert key is not None
    return key


def test_returns_are_what_they_return_to() -> None:
    plan = planned(Request(form="A B A A'", bars=64, key="C major"))
    assert [str(phrase.key) for phrase in _firsts(plan)] == ["C major", "G major", "C major", "C major"]
    bodies = {
        section: [music[0] for phrase, music in zip(plan.phrases, plan.music, strict=True) if phrase.section == section]
        for section in range(4)
    }
    assert bodies[0] == bodies[2], "no prime, no change"
    assert not set(bodies[0]) & set(bodies[1])
    assert not set(bodies[0]) & set(bodies[3])
    assert [plan.steps[name].what for name in bodies[3]] == ["vary", "vary"]
    assert [plan.steps[name].needs for name in bodies[3]] == [plan.bodies["A.a"], plan.bodies["A.a'"]]
    # B leads back: it closes on the dominant of what returns.
    assert plan.phrases[3].close == "F | G"
    assert plan.lines()[2] == "A            bars 33-48, C major: A again"
    assert plan.lines()[3] == "A'           bars 49-64, C major: A varied"


def _firsts(plan: Plan) -> list[object]:
    return [next(phrase for phrase in plan.phrases if phrase.section == n) for n in range(len(plan.extent.sections))]


def test_a_scale_or_drums_alone_stay_what_they_are() -> None:
    plan = planned(Request(form="A B A", bars=24, scale="C gong"))
    assert len({phrase.key for phrase in plan.phrases}) == 1
    assert {phrase.close for phrase in plan.phrases} == {"C | C"}
    drums = planned(Request(form="A B A", bars=24, instruments=("drums",)))
    assert {(phrase.key, phrase.close) for phrase in drums.phrases} == {(None, None)}


def test_several_instruments_come_and_go() -> None:
    asked = ("piano", "strings", "bass")
    plan = planned(Request(form="A B A outro", bars=40, instruments=asked))
    assert [phrase.manner.instruments for phrase in _firsts(plan)] == [  # type: ignore[attr-defined]
        asked, ("piano", "strings"), asked, ("piano",),
    ]  # fmt: skip


def test_a_piece_has_its_sections_note_for_note(engine: Engine) -> None:
    (piece,) = engine.generate([ASKS])
    assert (piece.refused_tokens, piece.cancelled) == (0, False)
    last = piece.score.notes.take(piece.score.notes.onset_ticks >= 16 * 48)
    assert set(last.duration_ticks.tolist()) == {48}, "the last chord is held to the last bar line"
    first, again, varied = (_bars(piece, start, start + 2) for start in (0, 8, 12))
    assert first
    assert first == again
    assert first != varied
    assert len(first & varied) >= len(first) / 2
    # It closes on the dominant and the tonic, beginning on their basses.
    lows = [min(pitch for tick, _, pitch, _ in _bars(piece, bar, bar + 1) if tick == bar * 0) for bar in (15, 16)]
    assert [low % 12 for low in lows] == [7, 0]


def test_a_phrase_says_its_idea_twice(engine: Engine) -> None:
    asked = [ASKS.model_copy(update={"form": "A:8", "seed": seed}) for seed in range(9)]
    (twice,) = [each for each in asked if len(planned(each).steps) > 2][:1]
    assert [(step.what, step.bars) for step in planned(twice).steps.values()] == [
        ("compose", 2), ("vary", 2), ("extend", 2), ("close", 2),
    ]  # fmt: skip
    (piece,) = engine.generate([twice])
    idea, again, after = (_bars(piece, start, start + 2) for start in (0, 2, 4))
    assert idea != again
    assert len(idea & again) >= len(idea) / 2
    assert len(idea & after) < len(idea) / 2


def _bars(piece: Piece, start: int, end: int) -> set[tuple[int, int, int, int]]:
    notes, bar = piece.score.notes, bar_ticks((2, 4))
    inside = notes.take((notes.onset_ticks >= start * bar) & (notes.onset_ticks < end * bar))
    columns = (inside.onset_ticks - start * bar, inside.duration_ticks, inside.pitch, inside.program)
    return set(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize(
    "asked",
    [
        {"scale": "C gong", "pitch_range": "C3-C5", "form": "A B", "bars": 8},
        {"polyphony": 2, "tempo": 90, "meter": "3/8"},
        {"instruments": ["piano", "drums"], "pitch_range": "C2-C6", "best_of": 2},
        {"instruments": ["piano", "bass"], "pitch_range": {"piano": "C4-C6", "bass": "C2-C3"}},
        {"pitch_range": "C4-E4", "scale": "C major"},
        {"mood": "calm", "density": "sparse", "guidance": 2},
    ],
)
def test_hard_controls_hold_in_every_section(engine: Engine, asked: dict[str, object]) -> None:
    (piece,) = engine.generate([Request(**{"form": "A A'", "bars": 9, "meter": "2/4", "seed": 2, **asked})])
    assert faults(piece) == []


def test_the_same_piece_whatever_is_beside_it_and_at_every_door(engine: Engine) -> None:
    (alone,) = engine.generate([ASKS])
    desk = Desk(engine)
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    number, beside = desk.submit([ASKS, Request(bars=4, meter="2/4", seed=8)], deliver=told.put, told=True)
    events: list[Event] = []
    while sum(isinstance(event, PieceMade) for event in events) < 2:
        event = told.get(timeout=60)
        assert not isinstance(event, Exception), event
        events.append(event)
    assert {event.number for event in events} == {number, beside}
    assert sum(event.number == number for event in events) > len(alone.score.notes)
    made = next(event for event in events if event.number == number and isinstance(event, PieceMade))
    assert made.piece.score.same_music(alone.score)
    assert made.stepped_s > 0
    desk.close()


def test_who_gives_up_gets_what_is_there_without_a_gap(engine: Engine) -> None:
    asked: list[int] = []
    (piece,) = engine.generate([ASKS], cancelled=lambda number: asked.append(number) or len(asked) > 100)
    assert piece.cancelled
    (whole,) = engine.generate([ASKS])
    assert len(piece.score.notes) < len(whole.score.notes)


def test_a_form_starts_from_no_file(engine: Engine) -> None:
    score = Score.of(Notes.of(onset_ticks=[0], duration_ticks=[24], pitch=[60]), ticks_per_quarter=24)
    with pytest.raises(RecipeError, match="a piece with a form starts from no file"):
        engine.check(ASKS, score)
    with pytest.raises(RecipeError, match="a piece with a form starts from no file"):
        Desk(engine).submit([ASKS], materials=[score], deliver=lambda _: None)


def notes(pitches: list[int], *, step: int = 24, **columns: object) -> Notes:
    return Notes.of(
        onset_ticks=step * np.arange(len(pitches)), duration_ticks=[24] * len(pitches), pitch=pitches, **columns
    )


def test_music_moves_to_another_key_by_the_nearest_way() -> None:
    scale = [60, 62, 64, 65, 67, 69, 71]

    def to(name: str, low: int = 0, high: int = 127) -> list[int]:
        target = parse_key(name)
        got = moved(
            notes(scale), source=parse_key("C major"), target=target, low=np.full(7, low), high=np.full(7, high)
        ).pitch.tolist()
        assert {pitch % 12 for pitch in got} <= target.pitch_classes
        return [int(pitch) for pitch in got]

    assert to("G major") == [pitch - 5 for pitch in scale]
    assert to("G major", low=56) == [pitch + 7 for pitch in scale]
    assert to("C minor") == [60, 62, 63, 65, 67, 68, 71]
    assert to("F major", low=60, high=72)[-1] == 64, "what is outside moves by octaves"
    drums = notes([36, 38], program=DRUM_PROGRAM)
    kept = moved(drums, source=parse_key("C"), target=parse_key("G"), low=np.zeros(2, int), high=np.full(2, 127))
    assert_array_equal(kept.pitch, drums.pitch)


def test_stretches_are_joined_cut_and_counted() -> None:
    first, second = Stretch(notes([60, 62]), 1, (4, 4)), Stretch(notes([64]), 2, (4, 4))
    both = joined([first, second])
    assert (both.bars, both.notes.onset_ticks.tolist()) == (3, [0, 24, 96])
    assert both.last(2).notes.onset_ticks.tolist() == [0]
    assert (both.silent_bars, first.silent_bars, Stretch(Notes.none(), 2, (4, 4)).silent_bars) == (1, 0, 2)


def test_notes_are_thinned_shaded_and_ended() -> None:
    chord = Notes.of(onset_ticks=[0, 0, 0, 24], duration_ticks=[48, 24, 24, 24], pitch=[60, 64, 67, 62])
    assert thinned(chord, polyphony=2).pitch.tolist() == [60, 67, 62]
    assert thinned(chord, polyphony=1).pitch.tolist() == [67, 62]
    curve = shaded(notes([60, 60, 60]), at_ticks=[0, 48], levels=[-1, 1])
    assert curve.velocity.tolist() == [46, 64, 82]
    assert ended(chord, from_ticks=12, to_ticks=96).duration_ticks.tolist() == [48, 24, 24, 72]
    assert ended(chord, from_ticks=0, to_ticks=96).duration_ticks.tolist() == [96, 96, 96]
    assert len(ended(chord, from_ticks=48, to_ticks=96)) == 4
