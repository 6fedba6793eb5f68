"""Best of several: which candidates there are, how they are judged, and that every door gives the same piece."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from jobs import takes
from jobs.sounding import Sounding
from tests.serving import save_untrained
from tutti.corpus.score import Notes, Score
from tutti.generation.choosing import best, candidates_of
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.generation.judging import ASKED, MEASURES, UNUSABLE, points_of, total
from tutti.generation.piece import BarMade, Event, NoteMade, Piece, PieceMade
from tutti.generation.request import Request
from tutti.generation.sampling import nats_of

ASKS = Request(bars=2, tempo=100, meter="3/4", seed=4, best_of=3)
QUARTER = 24


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("choosing")
    save_untrained(folder)
    return Engine.load(folder, max_batch=4)


def piece(
    pitches: Sequence[int], *, request: Request = ASKS, quarters: float = 1.0, nats: float | None = None
) -> Piece:
    """One note after the other."""
    ticks = round(QUARTER * quarters)
    notes = Notes.of(onset_ticks=ticks * np.arange(len(pitches)), duration_ticks=[ticks] * len(pitches), pitch=pitches)
    score = Score.of(notes, ticks_per_quarter=QUARTER, tempos=[(0, 120.0)])
    return Piece(request, score, np.zeros(0, np.uint16), refused_tokens=0, nats=nats)


SCALE = [60, 62, 64, 65, 67, 69, 71, 72, 74, 76, 74, 72, 71, 69, 67, 65]
CHROMATIC = list(range(60, 76))


@pytest.mark.parametrize(
    ("measure", "worse", "better", "asks"),
    [
        ("scale", piece(CHROMATIC), piece(SCALE), {}),
        ("groove", piece([60, 67] * 8, quarters=0.75), piece([60, 67] * 8), {}),
        ("repetition", piece(SCALE), piece([60, 62, 64, 65] * 2 + [67, 69, 71, 72] * 2), {}),
        ("repetition", piece([60, 62, 64, 65] * 6), piece([60, 62, 64, 65] * 2 + [67, 69, 71, 72] * 2), {}),
        ("range", piece([60, 61, 62] * 6), piece(SCALE), {}),
        ("density", piece(SCALE, quarters=0.25), piece(SCALE), {"difficulty": "easy"}),
        (
            "chords",
            piece([60, 62, 60, 62, 65, 67, 65, 67]),
            piece([60, 64, 67, 64, 65, 69, 72, 69]),
            {"chords": "C | F"},
        ),
        ("range", piece([20, 100] * 8), piece(SCALE), {}),
        ("likelihood", piece(SCALE, nats=90.0), piece(SCALE, nats=40.0), {}),
        ("mood", piece([48, 51, 55] * 5, quarters=2), piece([72, 76, 79] * 20, quarters=0.25), {"mood": "happy"}),
        ("mood", piece([72, 76, 79] * 20, quarters=0.25), piece([48, 51, 55] * 5, quarters=2), {"mood": "sad"}),
        ("density", piece(SCALE), piece(SCALE, quarters=0.2), {"density": "dense"}),
        ("density", piece(SCALE, quarters=0.2), piece(SCALE), {"density": "sparse"}),
        ("length", piece(SCALE * 2), piece(SCALE), {"length": 8.0, "bars": None}),
    ],
)
def test_each_measure_tells_worse_from_better(
    measure: str, worse: Piece, better: Piece, asks: dict[str, object]
) -> None:
    request = Request.model_validate(ASKS.model_dump() | asks)
    more, fewer = (points[measure] for points in points_of([worse, better], request=request))
    assert more > fewer >= 0
    if asks:
        (without,) = points_of([worse], request=ASKS)
        assert measure not in without, "nobody asked for it"


def test_silence_gives_points() -> None:
    gap = piece(SCALE)
    late = np.where(np.arange(16) < 8, gap.score.notes.onset_ticks, gap.score.notes.onset_ticks + 20 * QUARTER)
    silent = replace(gap, score=replace(gap.score, notes=replace(gap.score.notes, onset_ticks=late.astype(np.int32))))
    more, fewer = (points["silence"] for points in points_of([silent, gap], request=ASKS))
    assert more > fewer == 0


def test_what_was_asked_counts_more_and_what_is_no_piece_never_wins() -> None:
    assert total({"scale": 1.0, "mood": 1.0}) == 5.0
    assert {*ASKED} < {measure.name for measure in MEASURES}
    empty = replace(piece([60]), score=Score.of(Notes.none(), ticks_per_quarter=QUARTER))
    broken = replace(piece(SCALE), refused_tokens=1)
    assert points_of([empty, broken], request=ASKS) == [{"unusable": UNUSABLE}] * 2
    assert best([empty, broken, piece(CHROMATIC)], request=ASKS).candidates[2].chosen


def test_the_first_of_equals_and_the_first_alone_of_what_was_given_up() -> None:
    same = [piece(SCALE, request=each) for each in candidates_of(ASKS)]
    kept = best(same, request=ASKS)
    assert [each.chosen for each in kept.candidates] == [True, False, False]
    assert kept.request == ASKS
    given_up = best([same[0], replace(same[1], cancelled=True), same[2]], request=ASKS)
    assert (given_up.cancelled, given_up.candidates) == (True, ())


def test_candidates_begin_with_the_request_itself_and_have_seeds_of_their_own() -> None:
    seeds = [each.seed for each in candidates_of(ASKS)]
    assert seeds[0] == ASKS.seed
    assert len(set(seeds)) == 3
    assert [each.seed for each in candidates_of(ASKS.model_copy(update={"best_of": 5}))][:3] == seeds
    assert ASKS.digest() != ASKS.model_copy(update={"best_of": 1}).digest()


def test_how_unlikely_tokens_are_among_those_that_may_come() -> None:
    logits_BV = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=np.float32))
    allowed_BV = np.array([[True, True, False], [True, True, True]])
    nats = nats_of(np.array([1, 2]), logits_BV=logits_BV, allowed_BV=allowed_BV)
    np.testing.assert_allclose(nats, [-np.log(1 / 3), -np.log(0.8)], rtol=1e-6)


def test_every_door_chooses_the_same_piece_which_its_seed_makes_alone(engine: Engine) -> None:
    (kept,) = engine.generate([ASKS])
    assert [each.seed for each in kept.candidates] == [each.seed for each in candidates_of(ASKS)]
    chosen = next(each for each in kept.candidates if each.chosen)
    assert chosen.score == min(each.score for each in kept.candidates)
    assert all(each.points["likelihood"] >= 0 for each in kept.candidates)
    (alone,) = engine.generate([ASKS.model_copy(update={"best_of": 1, "seed": chosen.seed})])
    assert_array_equal(kept.tokens, alone.tokens)
    assert not alone.candidates
    # Beside others, and told of: notes come when the choice is made.
    desk = Desk(engine)
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    other = Request(bars=1, seed=9)
    mine, beside = desk.submit([ASKS, other], deliver=told.put, told=True)
    events: list[Event] = []
    while sum(isinstance(event, PieceMade) for event in events) < 2:
        event = told.get(timeout=60)
        assert not isinstance(event, Exception), event
        events.append(event)
    made = {event.number: event for event in events if isinstance(event, PieceMade)}
    assert made[mine].piece.candidates == kept.candidates
    assert_array_equal(made[mine].piece.tokens, kept.tokens)
    assert_array_equal(made[beside].piece.tokens, engine.generate([other])[0].tokens)
    notes = [event for event in events if isinstance(event, NoteMade) and event.number == mine]
    assert len(notes) == len(kept.score.notes)
    assert [event.bar for event in events if isinstance(event, BarMade) and event.number == mine] == [0, 1]


def test_giving_up_one_of_several_gives_up_all_of_it(engine: Engine) -> None:
    desk = Desk(engine)
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    (number,) = desk.submit([ASKS.model_copy(update={"bars": 200})], deliver=told.put)
    desk.cancel(number)
    desk.close()
    desk.submit([Request(bars=1, seed=1)], deliver=told.put)
    made = told.get(timeout=60)
    assert isinstance(made, PieceMade)
    assert made.beside == 1
    assert told.empty()


def test_who_stops_it_keeps_the_takes_that_are_written(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Sounding):
        def write(self, score: Score, files: Mapping[str, Path], **rest: str) -> None:
            if list(tmp_path.iterdir()):
                raise KeyboardInterrupt
            Sounding.write(self, score, files, **rest)  # type: ignore[arg-type]

    short = Request(bars=1, tempo=100, meter="1/4", seed=1)
    requests = [short, short.model_copy(update={"seed": 2}), short.model_copy(update={"bars": 300, "seed": 3})]
    with pytest.raises(KeyboardInterrupt):
        takes.write_all(
            engine, requests, None, files={"midi": tmp_path / "take.mid"}, title="sketch", sounding=Interrupted()
        )
    assert [path.name for path in tmp_path.iterdir()] in (["take-1.mid"], ["take-2.mid"])
    assert "stopped: 1 of 3 takes are written" in capsys.readouterr().err
