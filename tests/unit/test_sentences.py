"""Sentences become controls, each with the words that it comes from; what cannot be taken is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.sentences import FOUND, labelled, precision_and_recall, score
from jobs import generate
from tutti.catalogue.order import Line, Order
from tutti.config import build
from tutti.errors import RecipeError
from tutti.features.vocabulary import INSTRUMENTS
from tutti.generation.request import Request
from tutti.generation.sentences import scenes
from tutti.generation.sentences.reading import Hear, read
from tutti.generation.sentences.text import number

LULLABY = "gentle piano for falling asleep, slow, no drums"


def all_but(*families: str) -> tuple[str, ...]:
    return tuple(name for name in INSTRUMENTS if name not in families)


@pytest.mark.parametrize(
    ("sentence", "controls"),
    [
        (LULLABY, {"mood": "calm", "tempo": 66.0, "instruments": ("piano",)}),
        ("轻柔的钢琴，助眠，慢，不要鼓", {"mood": "calm", "tempo": 66.0, "instruments": ("piano",)}),
        ("at 92 bpm, in D minor, 30 seconds, 3/4", {"tempo": 92.0, "key": "D minor", "length": 30.0, "meter": "3/4"}),
        ("每分钟92拍，D小调，二分钟，四三拍", {"tempo": 92.0, "key": "D minor", "length": 120.0, "meter": "3/4"}),
        ("slow, 92 bpm", {"tempo": 92.0}),
        ("very slow", {"tempo": 50.0}),
        ("a bit faster", {"tempo": 126.0}),
        ("not too fast", {"tempo": 100.0}),
        ("不快不慢", {"tempo": 100.0}),
        ("sixteen bars in B flat", {"bars": 16, "key": "Bb major"}),
        ("1分30秒", {"length": 90.0}),
        ("without drums, bass or brass", {"instruments": all_but("drums", "bass", "brass")}),
        ("no drums and a slow tempo", {"instruments": all_but("drums"), "tempo": 66.0}),
        ("除了钢琴什么都行", {"instruments": all_but("piano")}),
        ("除了钢琴还要长笛", {"instruments": ("piano", "pipe")}),
        ("drum-free flute", {"instruments": ("pipe",)}),
        ("in a minor key", {}),
        ("in A minor", {"key": "A minor"}),
        ("sad pinao", {"mood": "sad", "instruments": ("piano",)}),
        ("energetic but sad", {"mood": "tense"}),
        ("十分安静", {"mood": "calm"}),
        ("guitar over the chords Cm7 F7 Bbmaj7", {"chords": "Cm7 | F7 | Bbmaj7", "instruments": ("guitar",)}),
        ("和弦：C G | Am F", {"chords": "C G | Am F"}),
        ("in D dorian, between C3 and C6", {"scale": "D dorian", "pitch_range": "C3-C6"}),
        ("an easy piece for beginners, at most two voices", {"difficulty": "easy", "polyphony": 2}),
    ],
)
def test_words_and_figures_become_controls(sentence: str, controls: dict[str, Any]) -> None:
    assert read(sentence).controls == controls
    build(Request, read(sentence).controls)


def test_every_control_tells_the_words_that_it_comes_from() -> None:
    assert read(LULLABY).lines() == [
        "mood         calm (valence 0.1, arousal -0.3), from 'gentle'",
        "tempo        66 quarter notes a minute, from 'slow'",
        "instruments  piano, from 'piano', without 'drums'",
    ]


def test_what_is_not_understood_or_cannot_be_held_is_told() -> None:
    reading = read("grobulous piano, not sad")
    assert reading.not_understood == ("grobulous",)
    assert reading.controls == {"instruments": ("piano",)}
    assert any("'not sad' is left open" in text for text in reading.not_held)
    assert read("琥珀色的钢琴").not_understood == ("琥珀色",)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("slow and fast", "tempo 66 by 'slow' and 144 by 'fast'"),
        ("92 bpm and 120 bpm", "tempo 92.* and 120"),
        ("happy and sad", "'sad' and 'happy' ask for opposite moods"),
        ("drums, but no drums", "'drums' is asked for and 'no drums' forbids it"),
        ("8 bars, 30 seconds", "a length in seconds and '8 bars' one in bars"),
        ("两小时", "'两小时' is 7200 s, and a piece has 1 s to 600 s"),
        ("900 bpm", "'900 bpm' is 900 quarter notes a minute"),
        ("?!", "the sentence is empty"),
        ("la " * 500, "more than 1000"),
    ],
)
def test_contradictions_are_refused_by_name(sentence: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(sentence).beside(())


def test_what_is_given_outright_wins_and_settles_a_contradiction() -> None:
    assert read("slow and fast piano").beside(["tempo"]) == {"instruments": ("piano",)}
    assert read("30 seconds").beside(["bars"]) == {}
    assert "left out     30 seconds, from '30 seconds': given outright" in read("30 seconds").lines(["bars"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("forty-five", 45), ("one hundred and twenty", 120), ("一百二十八", 128), ("十五", 15), ("二十", 20)],
)
def test_numbers_are_read_from_words(text: str, value: float) -> None:
    assert number(text) == value


def shares(found: bool, *, hear: Hear | None) -> tuple[float, float]:
    cases = [case for case in labelled() if case.held_out and (case.kind == FOUND) == found]
    counted = score(cases, [read(case.sentence, hear=hear) for case in cases])
    return precision_and_recall(sum(counted.values(), Counter()))


def test_half_of_each_language_is_held_out_and_always_the_same() -> None:
    cases = labelled()
    ours = [case for case in cases if case.kind != FOUND]
    assert len(ours) >= 200
    assert sum(case.held_out for case in ours) == 115
    assert sum(case.chinese for case in ours) == 110
    assert all(case.held_out for case in cases if case.kind == FOUND)


def test_rules_alone_read_sentences_that_were_held_out() -> None:
    precision, recall = shares(False, hear=None)
    assert precision > 0.97
    assert recall > 0.96
    precision, recall = shares(True, hear=None)
    assert precision > 0.89
    assert recall > 0.89


@pytest.fixture(scope="module")
def hearing() -> scenes.Scenes:
    found = scenes.load()
    if found is None:
        pytest.skip(scenes.REMEDY)
    return found


def test_embeddings_find_what_no_known_word_says(hearing: scenes.Scenes) -> None:
    precision, recall = shares(True, hear=hearing.hear)
    assert precision > 0.87
    assert recall > max(0.93, shares(True, hear=None)[1])


@pytest.mark.parametrize(
    ("sentence", "mood"),
    [
        ("the last train home has gone and nobody waited", "sad"),
        ("末班车开走了只剩我一个人", "sad"),
        ("burglars in the cellar", "tense"),
        ("地窖里有贼", "tense"),
        ("a podcast about tax law", None),
    ],
)
def test_a_scene_says_a_mood_and_which_it_sounds_like(hearing: scenes.Scenes, sentence: str, mood: str | None) -> None:
    reading = read(sentence, hear=hearing.hear)
    assert reading.controls.get("mood") == mood
    assert ("which sounds like" in "".join(reading.lines())) == (mood is not None)
    assert read(sentence, hear=hearing.hear) == reading


def test_the_vectors_beside_the_scenes_are_those_of_the_scenes(hearing: scenes.Scenes) -> None:
    known = scenes.known_scenes()
    assert hearing.texts == list(known)
    stored = scenes._made()
    assert stored is not None, "the scenes changed: python -m tutti.generation.sentences.scenes"
    some = list(known)[::40]
    assert np.abs(hearing._embedder.query(some) - stored[::40]).max() < 1e-3


def test_a_denied_stretch_is_not_heard(hearing: scenes.Scenes) -> None:
    assert "mood" not in read("no ghost has died here", hear=hearing.hear).controls


def lines_of(output: Sequence[str], start: str) -> list[str]:
    return [line for line in output if line.startswith(start)]


def test_the_command_shows_what_a_sentence_became_before_anything_runs(tmp_path: Path) -> None:
    arguments = ["--say", LULLABY, "--tempo", "70", "--root", str(tmp_path), "--dry-run"]
    result = CliRunner().invoke(generate.command, arguments)
    output = result.output.splitlines()
    assert lines_of(output, "mood") == ["mood         calm (valence 0.1, arousal -0.3), from 'gentle'"]
    assert lines_of(output, "left out")[0].endswith("from 'slow': given outright")
    result = CliRunner().invoke(generate.command, ["--say", "slow and fast", "--root", str(tmp_path)])
    assert result.exit_code != 0
    assert not list(tmp_path.iterdir())


def test_a_line_of_an_order_takes_a_sentence_and_its_controls_win() -> None:
    line = Line.model_validate({"count": 2, "sentence": LULLABY, "controls": {"tempo": 80, "key": "F major"}})
    assert line.controls == Request(mood="calm", tempo=80.0, key="F major", instruments=("piano",))
    order = Order(name="sleep", model="bach", lines=(line,))
    assert build(Order, order.document()) == order
    assert "sentence" not in Order(name="sleep", model="bach", lines=(Line(count=1),)).document()["lines"][0]
    with pytest.raises(RecipeError, match=r"lines\.0.*: the sentence contradicts itself"):
        build(Order, {"name": "x", "model": "bach", "lines": [{"count": 1, "sentence": "slow and fast"}]})
