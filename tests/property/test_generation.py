"""Laws of generation: whatever a model wants, what comes out decodes and obeys the request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.obedience import faults, requests
from tutti.corpus.score import Notes, Score
from tutti.errors import RecipeError
from tutti.features.events import on_grid
from tutti.features.vocabulary import BAR, END, EVENTS, START
from tutti.generation.controls import harmony_of, limits_of
from tutti.generation.engine import Engine
from tutti.generation.grammar import Grammar
from tutti.generation.piece import piece_of
from tutti.generation.request import Request
from tutti.generation.sampling import choose
from tutti.models.decoder import DECODER, Decoder
from tutti.seeding import uniform_at


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(st.lists(requests(), min_size=1, max_size=4), st.integers(0, 1000), st.sampled_from([0.0, 6.0]))
def test_random_walks_through_the_grammar_decode_and_obey(batch: list[Request], seed: int, long: float) -> None:
    random = np.random.default_rng(seed)
    grammar = Grammar([limits_of(request) for request in batch])
    sequences: list[list[int]] = [[START] for _ in batch]
    pull = np.zeros(len(EVENTS), dtype=np.float32)
    pull[BAR], pull[EVENTS.span("Position")] = 6.0, 2.0
    # Notes that sound on and on are what polyphony and chords have to cope with.
    pull[EVENTS.span("Duration").stop - 12 : EVENTS.span("Duration").stop] = long
    steps = 0
    while not grammar.ended.all():
        allowed = grammar.allowed()
        assert allowed[~grammar.ended].any(axis=1).all(), "a corner where nothing may come"
        allowed[grammar.ended, 0] = True
        tokens = choose(
            random.normal(size=allowed.shape).astype(np.float32) + pull,
            allowed_BV=allowed,
            temperature_B=np.ones(len(batch)),
            top_p_B=np.ones(len(batch)),
            seeds_B=np.arange(len(batch), dtype=np.uint64),
            counters_B=np.full(len(batch), steps, dtype=np.uint64),
        )
        for sequence, token, ended in zip(sequences, tokens.tolist(), grammar.ended.tolist(), strict=True):
            if not ended:
                sequence.append(token)
        grammar.advance(tokens)
        steps += 1
    for request, sequence in zip(batch, sequences, strict=True):
        piece = piece_of(sequence, request=request, harmony=harmony_of(request))
        assert faults(piece) == []


def _after(tokens: list[str], request: Request) -> Grammar:
    grammar = Grammar([limits_of(request)])
    grammar.read(0, np.array([EVENTS[name] for name in tokens]))
    return grammar


def test_wanting_the_bar_line_of_the_last_bar_is_wanting_the_end() -> None:
    logits = np.random.default_rng(0).normal(size=(1, len(EVENTS))).astype(np.float32)
    logits[0, BAR] = 9.0
    opening = ["Bar", "Meter_4/4", "Position_0", "Tempo_96", "Program_0", "Duration_24", "Velocity_79", "Pitch_60"]
    last = _after(opening, Request(bars=1)).with_one_bar_line(logits)
    assert last[0, END] > 9.0
    inner = _after(opening, Request(bars=2)).with_one_bar_line(np.where(np.arange(len(EVENTS)) == END, 12.0, logits))
    assert inner[0, BAR] > 12.0


def test_a_piece_begins_with_a_note() -> None:
    allowed = _after(["Bar", "Meter_4/4", "Position_0", "Tempo_96"], Request(bars=4)).allowed()[0]
    kinds = {EVENTS.kinds[kind] for kind in EVENTS.kind_of[allowed]}
    assert kinds == {"Program", "Duration"}


def test_only_known_programs_play_unless_others_are_asked_for() -> None:
    known = limits_of(Request(), known_programs=(0, 52))
    assert np.flatnonzero(known.programs).tolist() == [0, 52]
    assert not known.drums.any()
    assert np.flatnonzero(limits_of(Request(instruments=("piano",)), known_programs=(0, 52)).programs).tolist() == [0]
    unknown = limits_of(Request(instruments=("brass", "drums")), known_programs=(0,))
    assert np.flatnonzero(unknown.programs).tolist() == list(range(56, 64))
    assert unknown.drums.any()


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    configuration = DECODER.configure(
        "nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 256}, settings={"dropout": 0.0}
    )
    return Engine(Decoder(configuration), digest="0", collections=("bach",), facts={}, context_tokens=256, max_batch=8)


def _same(left: Score, right: Score) -> bool:
    return left.same_music(right)


def test_untrained_model_obeys_and_repeats_itself(engine: Engine) -> None:
    asked = [
        Request(bars=2, key="D minor", tempo=90, instruments=("piano",), seed=1),
        Request(length="2s", tempo=66, meter="3/4", seed=2),
        Request(bars=1, instruments=("drums",), seed=3),
    ]
    first, second = engine.generate(asked), engine.generate(asked)
    for piece, again in zip(first, second, strict=True):
        assert piece.refused_tokens == 0
        assert _same(piece.score, again.score)
        assert faults(piece) == []
    assert first[0].score.tempo_qpm.tolist() == [90.0]
    assert not _same(first[0].score, engine.generate([asked[0].model_copy(update={"seed": 9})])[0].score)


def test_every_note_is_released_by_the_last_bar_line(engine: Engine) -> None:
    for piece in engine.generate([Request(bars=1, meter="2/4", seed=seed) for seed in range(6)]):
        assert piece.score.end_ticks <= 48


def test_pieces_longer_than_the_context_go_on(engine: Engine) -> None:
    piece = engine.generate([Request(bars=6, seed=4)])[0]
    assert len(piece.tokens) > 256
    assert piece.refused_tokens == 0
    assert int((piece.tokens == BAR).sum()) == 6


def test_material_is_continued_and_kept(engine: Engine) -> None:
    material = on_grid(
        Score.of(
            Notes.of(onset_ticks=np.arange(8) * 24, duration_ticks=24, pitch=[60, 62, 64, 65, 67, 65, 64, 62]),
            ticks_per_quarter=24,
            tempos=[(0, 100.0)],
        )
    )
    piece = engine.generate([Request(bars=2, seed=8)], materials=[material])[0]
    kept = piece.score.notes.onset_ticks < 7 * 24
    assert_array_equal(piece.score.notes.pitch[kept][:7], material.notes.pitch[:7])
    assert int((piece.tokens == BAR).sum()) == 4
    assert piece.refused_tokens == 0


def test_long_material_is_continued_whole(engine: Engine) -> None:
    count = 400
    material = on_grid(
        Score.of(
            Notes.of(onset_ticks=np.arange(count) * 24, duration_ticks=24, pitch=60 + np.arange(count) % 12),
            ticks_per_quarter=24,
        )
    )
    piece = engine.generate([Request(bars=2, seed=8)], materials=[material])[0]
    assert int((piece.tokens == BAR).sum()) == 102
    assert_array_equal(piece.score.notes.pitch[: count - 1], material.notes.pitch[: count - 1])


def test_cancelled_requests_leave_the_others_alone(engine: Engine) -> None:
    polls: list[int] = []

    def give_up(number: int) -> bool:
        polls.append(number)
        return number == 0 and polls.count(0) > 10

    pieces = engine.generate([Request(bars=4, seed=1), Request(bars=1, seed=2)], cancelled=give_up)
    assert [piece.cancelled for piece in pieces] == [True, False]
    assert int((pieces[1].tokens == BAR).sum()) == 1
    assert polls.count(0) == 11


def test_unknown_collection_is_refused_before_anything_runs(engine: Engine) -> None:
    with pytest.raises(RecipeError, match="collection 'elvis' is not known to this model: it knows bach"):
        engine.generate([Request(collection="elvis")])


@pytest.mark.parametrize(
    ("field", "value"),
    [("tempo", 0), ("length", "10h"), ("length", 36000), ("key", "H dur"), ("meter", "17/4"), ("mood", "blue")],
)
def test_impossible_requests_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Request(**{field: value})  # type: ignore[arg-type]


def test_top_p_keeps_the_likeliest_and_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], dtype=np.float32)).repeat(4000, axis=0)
    arguments = {
        "allowed_BV": np.ones((4000, 4), dtype=bool),
        "temperature_B": np.ones(4000),
        "seeds_B": np.arange(4000, dtype=np.uint64),
        "counters_B": np.zeros(4000, dtype=np.uint64),
    }
    free = np.bincount(choose(logits, top_p_B=np.ones(4000), **arguments), minlength=4) / 4000
    np.testing.assert_allclose(free, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    held = np.bincount(choose(logits, top_p_B=np.full(4000, 0.75), **arguments), minlength=4) / 4000
    np.testing.assert_allclose(held, [0.625, 0.375, 0, 0], atol=0.03)


@given(st.integers(0, 2**32), st.floats(0.01, 1), st.floats(0.2, 2), st.integers(1, 300))
@settings(max_examples=60)
def test_the_nucleus_is_that_of_its_definition(seed: int, top_p: float, temperature: float, tokens: int) -> None:
    random = np.random.default_rng(seed)
    logits = (5 * random.normal(size=(40, tokens))).round(random.integers(0, 3)).astype(np.float32)
    allowed = random.random(logits.shape) < random.random()
    allowed[:, 0] = True
    seeds, counters = np.arange(40, dtype=np.uint64), np.full(40, seed, dtype=np.uint64)
    chosen = choose(
        logits, allowed_BV=allowed, temperature_B=np.full(40, temperature), top_p_B=np.full(40, top_p),
        seeds_B=seeds, counters_B=counters,
    )  # fmt: skip
    for row, draw in enumerate(uniform_at(seeds, counters)):
        scores = np.where(allowed[row], logits[row] / temperature, -np.inf).astype(np.float64)
        mass = np.exp(scores - scores.max())
        order = np.lexsort((np.arange(tokens), -mass))
        before = np.cumsum(mass[order]) - mass[order]
        mass[order[before >= top_p * mass.sum() * (1 + 1e-6)]] = 0
        reached = np.cumsum(mass)
        assert mass[chosen[row]] > 0
        assert reached[chosen[row]] - mass[chosen[row]] <= reached[-1] * (draw + 1e-5)
        assert reached[chosen[row]] >= reached[-1] * (draw - 1e-5)


def test_every_instrument_keeps_its_own_range() -> None:
    asked = Request(
        bars=2, instruments=("piano", "bass", "drums"), key="C major", pitch_range={"piano": "72-74", "bass": "E1-G1"}
    )
    torch.manual_seed(1)
    shape = {"vocabulary_size": len(EVENTS), "max_tokens": 128}
    model = Decoder(DECODER.configure("nano", shape=shape)).eval()
    engine = Engine(model, digest="", collections=(), facts={}, context_tokens=128)
    pieces = engine.generate([asked.model_copy(update={"seed": seed}) for seed in range(4)])
    assert [faults(piece) for piece in pieces] == [[]] * 4
    notes = [piece.score.notes for piece in pieces]
    assert {pitch for each in notes for pitch in each.pitch[each.program < 8].tolist()} <= {72, 74}


def test_the_densest_pieces_have_a_note_at_every_pulse() -> None:
    torch.manual_seed(1)
    model = Decoder(DECODER.configure("nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 128})).eval()
    engine = Engine(model, digest="", collections=(), facts={}, context_tokens=128)
    asked = Request(bars=2, meter="3/8", density="very_dense", seed=1)
    dense, free = engine.generate([asked, asked.model_copy(update={"guidance": 0.0})])
    onsets = set(dense.score.notes.onset_ticks.tolist())
    assert faults(dense) == []
    assert {0, 12, 18, 24, 36, 48, 54, 60} <= onsets
    assert not {0, 12, 18, 24, 36, 48, 54, 60} <= set(free.score.notes.onset_ticks.tolist())
