"""Laws of hard controls around what a file keeps: chords, polyphony and ranges bind what is composed, no more."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.obedience import IN_C, progressions
from tests.property.test_starting import made, rows, scores, without
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError, RecipeError
from tutti.features.events import bars_of, on_grid
from tutti.features.vocabulary import BAR, EVENTS, METERS, instrument_of
from tutti.generation.chords import Chord
from tutti.generation.engine import Engine
from tutti.generation.harmony import _edges, bar_ticks, scale_of, strong_beats
from tutti.generation.melody import melody_of
from tutti.generation.piece import Event, NoteMade, Piece, PieceMade
from tutti.generation.request import Request
from tutti.generation.restoring import grid_onsets
from tutti.generation.start import Start
from tutti.models.decoder import DECODER, Decoder

KINDS = ("harmonise", "accompany", "restyle", "vary", "infill")
laws = settings(max_examples=3, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    return made(Decoder(DECODER.configure("nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 256})))


@st.composite
def asked(draw: st.DrawFn) -> dict[str, Any]:
    """Controls of a request that starts from a file, its kind among them."""
    kind = draw(st.sampled_from(KINDS))
    controls: dict[str, Any] = {"seed": draw(st.integers(0, 2**40)), "mood": "calm"}
    controls["start"] = {"kind": kind, "drafts": 1, **({"bars": "1-2"} if kind == "infill" else {})}
    if draw(st.booleans()):
        bars = draw(progressions(chords=st.sampled_from(IN_C))).split(" | ")
        # One bar of chords fits any file.
        controls["chords"] = " | ".join(bars[: draw(st.sampled_from([1, 1, 2]))])
    if draw(st.booleans()):
        controls["polyphony"] = draw(st.sampled_from([2, 3, 4, 6, 8]))
    if draw(st.booleans()):
        controls["pitch_range"] = {"piano": draw(st.sampled_from(["20-100", "40-60", "60-62"])), "bass": "30-50"}
    return controls


@laws
@given(st.lists(st.tuples(scores(), asked()), min_size=8, max_size=8))
def test_what_is_composed_keeps_what_is_asked(engine: Engine, drawn: list[tuple[Score, dict[str, Any]]]) -> None:
    taken: list[tuple[Request, Score]] = []
    for score, controls in drawn:
        with contextlib.suppress(RecipeError, InputError, ValueError):
            request = Request(**controls)
            engine.check(request, score)
            taken.append((request, score))
    pieces = engine.generate([request for request, _ in taken], materials=[score for _, score in taken])
    for piece, (request, score) in zip(pieces, taken, strict=True):
        assert _faults(piece, request, score) == []


def _faults(piece: Piece, request: Request, score: Score) -> list[str]:
    """What a piece does not hold; a kept note that is missing fails at once."""
    assert request.start is not None
    assert piece.refused_tokens == 0
    resolution = piece.score.ticks_per_quarter
    begin, end, kept = _kept(request, score)
    there = rows(piece.score, resolution=resolution)
    if request.start.kind == "vary":
        # Of a variation is new what the file has not.
        old = rows(score, resolution=resolution)
        new = [row for row in there if row not in old]
    else:
        new = without(piece, rows(score, kept, resolution=resolution))
    lines = bars_of(on_grid(score))
    assert request.start.kind == "infill" or int((piece.tokens == BAR).sum()) == len(lines.start_ticks)
    found = [f"polyphony: {count}" for count in _too_many(request, there, new)]
    for _, _, pitch, _, program, _ in new:
        own = request.ranges.get(instrument_of(program))
        if own is not None and pitch not in own:
            found.append(f"pitch_range: {pitch} of {program}")
    if request.progression is not None:
        notes = [
            (row[0] * 24 // resolution, -(-(row[0] + row[1]) * 24 // resolution), row[2])
            for row in new if row[4] != DRUM_PROGRAM
        ]  # fmt: skip
        found += _foreign(request, score, notes, begin=begin, end=end)
    return found


def _kept(request: Request, score: Score) -> tuple[int, int, np.ndarray]:
    """Where new notes begin and end, in ticks of the grid, and which notes stay."""
    start, lines = request.start, bars_of(on_grid(score))
    assert start is not None
    last = bar_ticks(METERS[lines.meter[-1]])
    edges = [*lines.start_ticks.tolist(), int(lines.start_ticks[-1]) + last]
    if start.kind != "infill":
        return 0, edges[-1], melody_of(score, start.melody) if start.kind != "vary" else np.zeros(0, dtype=bool)
    begin, end, at = edges[0], edges[2], grid_onsets(score)
    return begin, end, (at < begin) | (at >= end)


def _too_many(request: Request, there: list[tuple[int, ...]], new: list[tuple[int, ...]]) -> list[int]:
    """Onsets of new notes at which more sound than are asked."""
    if request.polyphony is None:
        return []
    begins, ends = np.array(there)[:, 0], np.array(there)[:, :2].sum(axis=1)
    at_once = {row[0]: int(((begins <= row[0]) & (row[0] < ends)).sum()) for row in new}
    return [count for count in at_once.values() if count > request.polyphony]


def _foreign(request: Request, score: Score, notes: list[tuple[int, int, int]], *, begin: int, end: int) -> list[str]:
    """What composed notes, as onset, end and pitch in ticks of the grid, do not keep of the chords; measured anew."""
    progression, lines = request.progression, bars_of(on_grid(score))
    assert progression is not None
    key = progression.key().pitch_classes
    found, bars = [], [(int(tick), METERS[meter]) for tick, meter in zip(lines.start_ticks, lines.meter, strict=True)]
    bars = [(tick, meter) for tick, meter in bars if begin <= tick < end]
    regions: list[tuple[int, Chord]] = []
    for number, (tick, meter) in enumerate(bars):
        for place, chord in _beats(progression.bars[number % len(progression)], meter):
            if not regions or not regions[-1][1].sounds_like(chord):
                regions.append((tick + place, chord))
    strong = [tick + beat for tick, meter in bars for beat in strong_beats(meter)]
    for (start, chord), stop in zip(regions, [*(tick for tick, _ in regions[1:]), end], strict=True):
        inside = [note for note in notes if start <= note[0] < stop]
        if any(until > stop for _, until, _ in inside):
            found.append(f"{chord.text}: a note sounds on")
        if any(pitch % 12 not in scale_of(chord, key=key) | chord.tones for _, _, pitch in inside):
            found.append(f"{chord.text}: a note of no scale")
        for beat in (beat for beat in (start, *strong) if start <= beat < stop):
            sounds = {pitch % 12 for onset, until, pitch in inside if onset <= beat < until}
            found += [f"{chord.text}: another chord on a strong beat"] * (not sounds <= chord.tones)
        first = [pitch for onset, _, pitch in inside if onset == start]
        bound = request.polyphony != 1 and request.start is not None and request.start.kind != "vary"
        found += [f"{chord.text}: no bass"] * (bound and (not first or min(first) % 12 != chord.bass))
    return found


def _beats(bar: tuple[tuple[Chord, int], ...], meter: tuple[int, int]) -> list[tuple[int, Chord]]:
    """Where in a bar its chords begin."""
    return list(zip(_edges([shares for _, shares in bar], meter)[:-1], [chord for chord, _ in bar], strict=True))


OPENING = Score.of(
    Notes.of(onset_ticks=np.arange(8) * 24, duration_ticks=24, pitch=[64, 65, 67, 64, 62, 60, 59, 60]),
    ticks_per_quarter=24,
)


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (Request(chords="C | F | G", start=Start(kind="harmonise")), "chords of 3 bars do not fill the 2 bars"),
        (Request(chords="C | F", start=Start(kind="infill", bars="2")), "chords of 2 bars do not fill the 1 bars"),
        (Request(polyphony=1, start=Start(kind="accompany")), "polyphony 1 leaves no voice beside what is kept"),
        (
            Request(pitch_range={"piano": "C4-D4"}, start=Start(kind="harmonise")),
            "5 of 8 notes of the melody are outside the range of its instrument, such as E4",
        ),
        (
            Request(chords="C", start=Start(kind="accompany"), instruments=("piano",), pitch_range="B3-G4"),
            "",
        ),
    ],
)
def test_what_cannot_hold_around_a_file_is_refused_by_name(engine: Engine, request_: Request, line: str) -> None:
    if not line:
        engine.check(request_, OPENING)
        return
    with pytest.raises(RecipeError, match=line):
        engine.check(request_, OPENING)


def test_a_difficulty_asks_around_a_file_what_the_file_allows(engine: Engine) -> None:
    asked_ = Request(difficulty="easy", start=Start(kind="harmonise", drafts=1), seed=1)
    (piece,) = engine.generate([asked_], materials=[OPENING])
    notes = piece.score.notes
    ends = notes.onset_ticks + notes.duration_ticks
    at_once = ((notes.onset_ticks <= notes.onset_ticks[:, None]) & (notes.onset_ticks[:, None] < ends)).sum(axis=1)
    assert at_once.max() == 2
    assert notes.pitch[notes.program < DRUM_PROGRAM].min() >= 48
    high = replace(OPENING, notes=replace(OPENING.notes, pitch=OPENING.notes.pitch + 40))
    assert engine.generate([asked_], materials=[high])[0].score.notes.pitch.max() == 107


def test_notes_around_a_file_are_told_as_they_are_in_the_piece(engine: Engine) -> None:
    session = engine.open()
    asked_ = Request(chords="C | F", polyphony=3, start=Start(kind="accompany", drafts=1), seed=2)
    session.submit(asked_, material=OPENING, told=True)
    events: list[Event] = []
    while not session.idle:
        events += session.step()
    assert isinstance(events[-1], PieceMade)
    notes = events[-1].piece.score.notes
    told = {(each.onset_ticks, each.duration_ticks, each.pitch) for each in events if isinstance(each, NoteMade)}
    assert told == set(
        zip(notes.onset_ticks.tolist(), notes.duration_ticks.tolist(), notes.pitch.tolist(), strict=True)
    )
    assert asked_.chooses
