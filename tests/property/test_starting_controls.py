"""Laws of hard controls around what a file keeps: chords, polyphony and ranges bind what is composed, no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests.obedience import IN_C, progressions
from tests.property.test_starting import made, rows, scores, without
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import InputError, RecipeError
from tutti.features.events import bars_of, on_grid
from tutti.features.vocabulary import EVENTS, METERS, instrument_of
from tutti.generation.chords import Chord
from tutti.generation.engine import Engine
from tutti.generation.harmony import bar_ticks, scale_of, strong_beats
from tutti.generation.melody import melody_of
from tutti.generation.request import Request
from tutti.generation.restoring import grid_onsets
from tutti.models.decoder import DECODER, Decoder

KINDS = ("harmonise", "accompany", "restyle", "vary", "infill")
laws = settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)


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
        controls["polyphony"] = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    if draw(st.booleans()):
        controls["pitch_range"] = {"piano": draw(st.sampled_from(["20-100", "40-60", "36-48"])), "bass": "30-50"}
    return controls


@laws
@given(scores(), asked())
def test_what_is_composed_keeps_what_is_asked(engine: Engine, score: Score, controls: dict[str, Any]) -> None:
    try:
        request = Request(**controls)
        (piece,) = engine.generate([request], materials=[score])
    except (RecipeError, InputError, ValueError):
        reject()
    assert piece.refused_tokens == 0
    resolution = piece.score.ticks_per_quarter
    begin, end, kept = _kept(request, score)
    if request.start is not None and request.start.kind == "vary":
        old = rows(score, resolution=resolution)
        there = rows(piece.score, resolution=resolution)
        # Of a variation is new what the file has not.
        new = [row for row in there if row not in old]
    else:
        new = without(piece, rows(score, kept, resolution=resolution))
    assert _too_many(request, rows(piece.score, resolution=resolution), new) == []
    for _, _, pitch, _, program, _ in new:
        own = request.ranges.get(instrument_of(program))
        assert own is None or pitch in own
    if request.progression is not None:
        notes = [(row[0] * 24 // resolution, row[0] + row[1], row[2]) for row in new if row[4] != DRUM_PROGRAM]
        ends = [(onset, -(-end * 24 // resolution), pitch) for onset, end, pitch in notes]
        assert _foreign(request, score, ends, begin=begin, end=end) == []


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
    """Where in a bar its chords begin; only of bars of one chord."""
    from tutti.generation.harmony import _edges

    return list(zip(_edges([shares for _, shares in bar], meter)[:-1], [chord for chord, _ in bar], strict=True))
