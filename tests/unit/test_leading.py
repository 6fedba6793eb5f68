"""A mood leads also through key and tempo where a request leaves them open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.controls import asked
from tests.serving import save_untrained
from tutti.features.vocabulary import DENSITIES
from tutti.generation.engine import Engine
from tutti.generation.leading import TEMPOS_QPM, led
from tutti.generation.request import Request
from tutti.units import parse_key


@pytest.mark.parametrize(("mood", "minor"), [("happy", False), ("calm", False), ("sad", True), ("tense", True)])
def test_a_mood_draws_a_key_of_its_mode_and_a_tempo_of_its_speed(mood: str, minor: bool) -> None:
    drawn = [led(Request(mood=mood, seed=seed)) for seed in range(30)]
    keys = {request.key for request in drawn if request.key is not None}
    assert len(keys) > 3
    assert {parse_key(key).minor for key in keys} == {minor}
    assert all(
        (request.scale == f"{request.key.split()[0]} harmonic minor") == minor for request in drawn if request.key
    )
    assert all(request == Request(**request.model_dump()) for request in drawn), "what is drawn contradicts itself"
    assert {request.tempo for request in drawn} == set(TEMPOS_QPM[mood])
    assert drawn == [led(Request(mood=mood, seed=seed)) for seed in range(30)]


@pytest.mark.parametrize("controls", [{}, {"mood": "neutral"}, {"mood": "sad", "guidance": 0}, {"density": "dense"}])
def test_nothing_else_is_led(controls: dict[str, Any]) -> None:
    assert led(Request(**controls)) == Request(**controls)


def test_what_is_named_wins() -> None:
    request = led(Request(mood="sad", key="F major", tempo=170))
    assert (request.key, request.tempo) == ("F major", 170)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder: Path = tmp_path_factory.mktemp("bundle")
    save_untrained(folder)
    return Engine.load(folder)


def test_a_piece_has_the_key_and_the_tempo_that_its_mood_drew(engine: Engine) -> None:
    request = Request(mood="tense", bars=2, seed=5)
    (piece,) = engine.generate([request])
    drawn = led(request)
    assert piece.request == request
    assert drawn.tonality is not None
    notes = piece.score.notes
    assert set((notes.pitch[notes.program < 128] % 12).tolist()) <= drawn.tonality.pitch_classes
    assert piece.score.tempo_qpm[0] == pytest.approx(drawn.tempo)


def test_the_benchmark_asks_and_measures_every_axis(engine: Engine) -> None:
    found = asked(engine, takes=5, how={"guidance": 1}, bars=1)
    assert [(each.control, each.axis) for each in found] == [
        ("mood", "valence"), ("mood", "arousal"), ("density", "notes_a_quarter"), ("tempo", "quarters_a_minute"),
    ]  # fmt: skip
    # The tempo holds by construction, whatever the model has learnt; an untrained one knows nothing of density.
    assert found[3].correlations()[0] == pytest.approx(1)


def test_numbers_are_a_mood_whose_tempo_follows_arousal() -> None:
    drawn = [led(Request(valence=-0.6, arousal=arousal)) for arousal in (-1, -0.5, 0, 0.5, 1)]
    assert [request.tempo for request in drawn] == [54, 70, 91, 117, 152]
    assert all(request.key is not None and request.key.endswith("minor") for request in drawn)
    assert [request.feeling for request in drawn] == ["sad", "sad", "tense", "tense", "tense"]
    assert led(Request(valence=0.8)).tempo is None
    with pytest.raises(ValueError, match="mood sad and valence both say a mood: leave out one of them"):
        Request(mood="sad", valence=1)


@pytest.mark.parametrize(
    ("difficulty", "polyphony", "tempo"), [("easy", 2, 80), ("medium", 4, 100), ("hard", None, 132)]
)
def test_a_difficulty_is_what_the_table_says_where_it_is_left_open(
    difficulty: str, polyphony: int | None, tempo: float
) -> None:
    request = led(Request(difficulty=difficulty))  # type: ignore[arg-type]
    assert (request.polyphony, request.tempo) == (polyphony, tempo)
    assert led(Request(difficulty=difficulty, polyphony=7, tempo=50)).polyphony == 7  # type: ignore[arg-type]
    with_chords = led(Request(difficulty=difficulty, chords="C F G C"))  # type: ignore[arg-type]
    assert (with_chords.polyphony, with_chords.pitch_range, with_chords.tempo) == (None, None, tempo)
    drums = led(Request(difficulty=difficulty, instruments=("drums",), mood="sad"))  # type: ignore[arg-type]
    assert drums == Request(**drums.model_dump())


def test_an_easy_piece_has_two_notes_at_once_within_three_octaves(engine: Engine) -> None:
    (piece,) = engine.generate([Request(difficulty="easy", bars=2, seed=1)])
    notes = piece.score.notes
    ends = notes.onset_ticks + notes.duration_ticks
    at_once = ((notes.onset_ticks <= notes.onset_ticks[:, None]) & (notes.onset_ticks[:, None] < ends)).sum(axis=1)
    assert at_once.max() <= 2
    pitches = notes.pitch[notes.program < 128]
    assert pitches.min() >= 48
    assert pitches.max() <= 84


def test_a_thin_density_bounds_the_notes_at_once() -> None:
    assert [led(Request(density=name)).polyphony for name in DENSITIES] == [1, 2, 3, None, None]
    assert led(Request(density="sparse", guidance=0)).polyphony is None


def test_takes_keep_their_identity_unless_the_new_controls_are_asked() -> None:
    assert not {"valence", "arousal", "difficulty"} & set(Request(mood="sad").model_dump())
    assert Request(difficulty="easy").digest() != Request().digest()


def test_a_mood_draws_no_key_that_the_asked_range_has_not() -> None:
    narrow = [led(Request(mood="happy", pitch_range="D4-Eb4", seed=seed)) for seed in range(12)]
    assert {request.key for request in narrow} == {"G major", "D major", "Bb major", "Eb major"}
    assert led(Request(mood="calm", pitch_range="C#4-C#4")).key == "A major"
