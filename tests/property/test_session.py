"""Laws of requests under way: whatever joins or leaves beside it, a request gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.music import walk
from tutti.errors import RecipeError
from tutti.features.vocabulary import BAR, EVENTS
from tutti.generation.composing import drained
from tutti.generation.engine import Engine
from tutti.generation.piece import BarMade, Event, NoteMade, Piece, PieceMade, TempoMade, told_of
from tutti.generation.request import Request
from tutti.models.decoder import DECODER, Decoder
from tutti.models.recurrent import RECURRENT, Recurrent
from tutti.training.examples import KINDS
from tutti.training.recipe import TrainingRecipe

SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 256}
EVENTS_SHAPE = KINDS["sequences"].shape(TrainingRecipe()) | SHAPE
CONTEXT_TOKENS = 160

RELATIVE = {"relative": "pitch_and_time", "key_value_heads": 1}
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "decoder": lambda: Decoder(DECODER.configure("nano", shape=SHAPE)),
    "grouped and relative": lambda: Decoder(DECODER.configure("nano", shape=EVENTS_SHAPE, settings=RELATIVE)),
    "recurrent": lambda: Recurrent(RECURRENT.configure("nano", shape=SHAPE)),
}


@pytest.fixture(scope="module", params=["decoder", "grouped and relative", "recurrent"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return made(request.param)


def made(name: str, **settings: int) -> Engine:
    torch.manual_seed(11)
    network = NETWORKS[name]().eval()
    return Engine(
        network, digest="", collections=("bach",), facts={}, context_tokens=CONTEXT_TOKENS,  # type: ignore[arg-type]
        **{"max_batch": 6, **settings},
    )  # fmt: skip


MINE = (
    Request(bars=3, tempo=100, key="D minor", meter="2/4", seed=1),
    Request(bars=1, seed=2, density="dense", mood="sad", guidance=2.5),
    Request(bars=1, tempo=60, meter="3/4", seed=3, temperature=0.8, top_p=0.5),
)
companies = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.builds(
            Request,
            bars=st.integers(1, 2),
            tempo=st.none() | st.just(120.0),
            seed=st.integers(0, 2**62),
            mood=st.none() | st.just("calm"),
            guidance=st.sampled_from([1.0, 3.0]),
        ),
        st.none() | st.integers(1, 40),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=2, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(companies, st.permutations(range(3)))
def test_company_that_comes_and_goes_changes_no_note(
    engine: Engine, company: list[tuple[int, Request, int | None]], order: list[int]
) -> None:
    alone = {mine: engine.generate([MINE[mine]])[0] for mine in range(3)}
    session = engine.open()
    begins = {10 * place: mine for place, mine in enumerate(order)}
    numbers: dict[int, int] = {}
    gives_up: dict[int, int] = {}
    pieces: dict[int, Piece] = {}
    step = 0
    while step <= 60 or not session.idle:
        if step in begins:
            numbers[begins[step]] = session.submit(MINE[begins[step]])
        for begin, request, patience in company:
            if begin == step:
                number = session.submit(request)
                if patience is not None:
                    gives_up[number] = step + patience
        for number, last in gives_up.items():
            if last == step:
                session.cancel(number)
        for event in session.step():
            assert isinstance(event, PieceMade)
            pieces[event.number] = event.piece
        step += 1
    assert len(pieces) == len(company) + 3, "a request was lost"
    for mine in range(3):
        assert_array_equal(pieces[numbers[mine]].tokens, alone[mine].tokens)
    assert all(piece.refused_tokens == 0 for piece in pieces.values())


def test_notes_and_bars_are_told_as_they_are_made() -> None:
    engine = made("decoder")
    session = engine.open()
    asked = Request(bars=3, tempo=100, meter="3/4", seed=5)
    number = session.submit(asked, told=True)
    session.submit(Request(bars=2, seed=6))
    events: list[Event] = []
    while not session.idle:
        events += session.step()
    mine = [event for event in events if event.number == number]
    (piece,) = [event.piece for event in mine if isinstance(event, PieceMade)]
    notes = [event for event in mine if isinstance(event, NoteMade)]
    told = sorted((note.onset_ticks, note.program, note.pitch, note.velocity) for note in notes)
    heard = piece.score.notes
    columns = (heard.onset_ticks, heard.program, heard.pitch, heard.velocity)
    assert told == sorted(zip(*(column.tolist() for column in columns), strict=True))
    ends = {(n.onset_ticks, n.program, n.pitch): n.onset_ticks + n.duration_ticks for n in notes}
    for onset, program, pitch, duration in zip(
        *(column.tolist() for column in (heard.onset_ticks, heard.program, heard.pitch, heard.duration_ticks)),
        strict=True,
    ):
        told_end = ends[onset, program, pitch]
        cut = min([at for at, p, k in ends if (p, k) == (program, pitch) and onset < at < told_end], default=None)
        assert onset + duration == told_end if cut is None else onset + duration <= cut
    assert [event.bar for event in mine if isinstance(event, BarMade)] == [0, 1, 2]
    assert mine.index(notes[0]) < mine.index(next(event for event in mine if isinstance(event, BarMade)))
    assert all(isinstance(event, PieceMade) for event in events if event.number != number), "it asked for no notes"


def test_a_piece_that_is_there_tells_what_it_would_have_told_on_the_way() -> None:
    session = made("decoder").open()
    number = session.submit(Request(bars=3, meter="3/4", seed=5), told=True)
    events: list[Event] = []
    while not session.idle:
        events += session.step()
    (piece,) = [event.piece for event in events if isinstance(event, PieceMade)]
    again = told_of(number, piece)
    for kind in (TempoMade, BarMade):
        assert [event for event in again if isinstance(event, kind)] == [e for e in events if isinstance(e, kind)]
    places = [
        [(n.onset_ticks, n.program, n.pitch) for n in each if isinstance(n, NoteMade)] for each in (again, events)
    ]
    assert sorted(places[0]) == sorted(places[1])
    first_bar = again.index(BarMade(number, 0))
    assert all(e.onset_ticks < 72 for e in again[:first_bar] if isinstance(e, NoteMade))
    assert all(e.onset_ticks >= 72 for e in again[first_bar:] if isinstance(e, NoteMade))
    assert session.exact
    assert not session.whole


def test_bars_of_material_count() -> None:
    session = made("decoder").open()
    session.submit(Request(bars=1, seed=5), material=walk(5, bars=2), told=True)
    events = []
    while not session.idle:
        events += session.step()
    (piece,) = [event.piece for event in events if isinstance(event, PieceMade)]
    bars = [event.bar for event in events if isinstance(event, BarMade)]
    assert bars[-1] == int((piece.tokens == BAR).sum()) - 1
    assert len(bars) == 1, "the file's own bars are nobody's news"
    for note in (event for event in events if isinstance(event, NoteMade)):
        assert note.onset_ticks in piece.score.notes.onset_ticks


def test_rows_follow_from_the_memory() -> None:
    row = made("decoder", max_batch=1).open()
    bytes_of_a_row = row.memory_bytes // 2
    engine = made("decoder", cache_bytes=3 * bytes_of_a_row + 5)
    session = engine.open()
    assert session.memory_bytes == 3 * bytes_of_a_row
    numbers = [session.submit(request) for request in MINE]
    most = 0
    pieces = {}
    while not session.idle:
        pieces |= {event.number: event.piece for event in session.step() if isinstance(event, PieceMade)}
        most = max(most, session.under_way)
    assert most in (2, 3)
    roomy = made("decoder")
    for number, piece in zip(numbers, roomy.generate(MINE), strict=True):
        assert_array_equal(pieces[number].tokens, piece.tokens)
    with pytest.raises(RecipeError, match="needs 2 rows of memory, and there is room for 1"):
        made("decoder", cache_bytes=bytes_of_a_row).generate([MINE[1]])
    with pytest.raises(RecipeError, match="cache_bytes is 1,000: give it more memory"):
        made("decoder", cache_bytes=1000)


def test_what_is_given_up_before_it_began_is_a_piece_without_notes() -> None:
    session = made("decoder", max_batch=1).open()
    first, second = session.submit(Request(bars=1, seed=1)), session.submit(Request(bars=1, seed=2))
    session.step()
    session.cancel(second)
    session.cancel(999)
    (gone,) = session.step()
    assert isinstance(gone, PieceMade)
    assert (gone.number, gone.piece.cancelled, len(gone.piece.score.notes), gone.beside) == (second, True, 0, 0)
    assert not drained(session, [first])[0].cancelled


def test_memory_stays_flat_over_many_requests() -> None:
    session = made("recurrent", max_batch=32).open()
    torch_bytes = session.memory_bytes
    for number in range(100):
        session.submit(Request(bars=1, tempo=60, meter="1/8", seed=number))
    done = refused = 0
    while not session.idle:
        pieces = [event.piece for event in session.step() if isinstance(event, PieceMade)]
        done, refused = done + len(pieces), refused + sum(piece.refused_tokens for piece in pieces)
    assert (done, refused) == (100, 0)
    assert session.memory_bytes == torch_bytes
