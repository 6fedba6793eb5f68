"""Random requests, and every hard control measured on what came of one, by rules of their own.

What is measured shares with the grammar the reading of names alone: scales, chords and where they stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import RecipeError
from tutti.features.vocabulary import BAR, END, INSTRUMENTS, METERS, instrument_of
from tutti.generation.controls import harmony_of
from tutti.generation.harmony import bar_ticks, scale_of, strong_beats
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.generation.scales import SCALES
from tutti.units import MAX_TEMPO_QPM, PITCH_CLASSES

QUALITIES = ("", "m", "7", "m7", "maj7", "dim7", "m7b5", "sus4", "aug", "6", "m6", "9", "13", "7(b9,#11)", "7alt", "5")
IN_C = ("C", "Dm7", "Em", "Fmaj7", "G7", "Am7", "Bm7b5", "C/G", "F/A")
_ROOTS = (*PITCH_CLASSES, "Db", "G#")

keys = st.sampled_from([f"{tonic} {mode}" for tonic in PITCH_CLASSES for mode in ("major", "minor")])
scales = st.sampled_from([f"{tonic} {name}" for tonic in PITCH_CLASSES for name in SCALES])
free_chords = st.builds(
    lambda root, quality, bass: root + quality + bass,
    st.sampled_from(_ROOTS),
    st.sampled_from(QUALITIES),
    st.sampled_from(("", "", "", "/C", "/F#")),
)


ranges = st.builds(
    lambda low, width: f"{low}-{min(low + width, 127)}", st.integers(0, 126), st.sampled_from([2, 5, 11, 11, 18, 30])
)


@st.composite
def progressions(draw: st.DrawFn, *, chords: st.SearchStrategy[str]) -> str:
    """One to three bars of chords."""
    bars = draw(st.lists(st.lists(chords | st.just("/"), min_size=1, max_size=4), min_size=1, max_size=3))
    written = [" ".join(["C" if bar[0] == "/" else bar[0], *bar[1:]]) for bar in bars]
    return " | ".join(written + ["%"] * draw(st.integers(0, 1)))


@st.composite
def _tonality(draw: st.DrawFn) -> dict[str, Any]:
    match draw(st.sampled_from(("free", "key", "scale", "both"))):
        case "key":
            return {"key": draw(keys)}
        case "scale":
            return {"scale": draw(scales)}
        case "both":
            return {"key": "A minor", "scale": draw(st.sampled_from(("minor pentatonic", "A harmonic minor", "A yu")))}
    return {}


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests with any of the hard controls; what contradicts itself is drawn again."""
    asked: dict[str, Any] = {
        "tempo": draw(st.none() | st.sampled_from([20.0, 66.6, 90.0, 300.0])),
        "meter": draw(st.none() | st.sampled_from([f"{above}/{below}" for above, below in METERS])),
        "instruments": tuple(draw(st.lists(st.sampled_from(INSTRUMENTS), unique=True, max_size=3))),
        "polyphony": draw(st.none() | st.sampled_from([1, 1, 2, 3, 4, 8])),
        "seed": draw(st.integers(0, 2**62)),
        **draw(_tonality()),
    }
    match draw(st.sampled_from(("bars", "length", "chords", "chords in a key"))):
        case "bars":
            asked["bars"] = draw(st.integers(1, 4))
        case "length":
            asked["length"] = draw(st.sampled_from([1.0, 5.0, "8s"]))
        case "chords":
            asked |= {"chords": draw(progressions(chords=free_chords)), "key": None, "scale": None}
        case _:
            key = draw(st.sampled_from(({"key": "C major"}, {"scale": "C major"}, {"scale": "A natural minor"})))
            asked |= {"key": None, "scale": None, "chords": draw(progressions(chords=st.sampled_from(IN_C))), **key}
    if "chords" in asked:
        asked["length"] = draw(st.none() | st.sampled_from([6.0, 12.0]))
        if asked["meter"] in ("1/16", "2/16"):
            asked["meter"] = None
    match draw(st.sampled_from(("free", "free", "one", "by instrument"))):
        case "one":
            asked["pitch_range"] = draw(ranges)
        case "by instrument":
            pitched = [name for name in asked["instruments"] or INSTRUMENTS if name != "drums"]
            if pitched:
                asked["pitch_range"] = draw(st.dictionaries(st.sampled_from(pitched), ranges, min_size=1, max_size=3))
    try:
        return Request(**{name: value for name, value in asked.items() if value is not None})
    except (ValueError, RecipeError):
        reject()


def faults(piece: Piece) -> list[str]:
    """What a piece does not hold of what was asked, measured on its score; each begins with the control's name."""
    if not len(piece.score.notes):
        return ["notes: there are none"]
    return [
        *_of_form(piece),
        *_of_pitch(piece),
        *_of_voices(piece.request, piece.score),
        *_of_chords(piece),
    ]


def _of_form(piece: Piece) -> list[str]:
    request, score, found = piece.request, piece.score, []
    if piece.refused_tokens or piece.tokens[-1] != END or piece.cancelled:
        found.append("decode: not every token says something")
    if len(score.meter_numerator) != 1 or len(score.tempo_qpm) != 1:
        return [*found, "meter, tempo: not one"]
    meter, tempo_qpm = (int(score.meter_numerator[0]), int(score.meter_denominator[0])), float(score.tempo_qpm[0])
    bars = int((piece.tokens == BAR).sum())
    end_ticks = bars * bar_ticks(meter)
    length_s, bar_s = end_ticks / 24 * 60 / tempo_qpm, bar_ticks(meter) / 24 * 60 / tempo_qpm
    if request.meter is not None and request.meter != f"{meter[0]}/{meter[1]}":
        found.append(f"meter: {meter}")
    if request.tempo is not None and tempo_qpm != request.tempo:
        found.append(f"tempo: {tempo_qpm}")
    if request.bars is not None and bars != request.bars:
        found.append(f"bars: {bars}")
    if request.progression is not None and bars % len(request.progression):
        found.append(f"chords: {bars} bars")
    if request.bars is None and request.length is not None:
        away_s, one_s = abs(length_s - request.length_s), bar_s * len(request.progression or (1,))
        # Of bars that are too long at the fastest tempo, none lasts so short.
        slow = bar_ticks(meter) / 24 * 60 / MAX_TEMPO_QPM > request.length_s
        if away_s > (one_s / 2 if request.tempo is not None or slow else 0.0) + 1e-6:
            found.append(f"length: {length_s} s")
    if int(score.notes.onset_ticks.min()) != 0:
        found.append("notes: the piece does not begin with one")
    if int((score.notes.onset_ticks + score.notes.duration_ticks).max()) > end_ticks:
        found.append("ending: a note hangs over the last bar line")
    if int(score.notes.duration_ticks.min()) < 1:
        found.append("notes: one has no length")
    if request.instruments:
        odd = {instrument_of(int(program)) for program in score.notes.program} - set(request.instruments)
        found += [f"instruments: {odd}"] if odd else []
    return found


def _of_pitch(piece: Piece) -> list[str]:
    request, score = piece.request, piece.score
    notes, found = score.notes, []
    melodic = notes.take(notes.program != DRUM_PROGRAM)
    classes = set((melodic.pitch % 12).tolist())
    if request.tonality is not None and not classes <= request.tonality.pitch_classes:
        found.append(f"key: {classes}")
    if request.asked_scale is not None and not classes <= request.asked_scale.pitch_classes:
        found.append(f"scale: {classes}")
    low, high = request.compass.low, request.compass.high
    if len(melodic) and not low <= melodic.pitch.min() <= melodic.pitch.max() <= high:
        found.append(f"pitch_range: {melodic.pitch.min()} to {melodic.pitch.max()}")
    for name, own in request.ranges.items():
        played = [pitch for pitch, by in zip(melodic.pitch, melodic.program, strict=True) if instrument_of(by) == name]
        if not all(own.low <= pitch <= own.high for pitch in played):
            found.append(f"pitch_range: {name} plays {min(played)} to {max(played)}")
    if request.progression is None and (request.key is not None or request.scale is not None):
        bar = bar_ticks((int(score.meter_numerator[0]), int(score.meter_denominator[0])))
        # Not the bar of the last onset: held notes may leave no place for one in the last bar.
        last = (int((piece.tokens == BAR).sum()) - 1) * bar
        at_home = (melodic.onset_ticks == 0) | (2 * (melodic.onset_ticks - last) >= bar)
        if not set((melodic.pitch[at_home] % 12).tolist()) <= request.home_classes:
            found.append("key: it does not begin and end at home")
    return found


def _of_voices(request: Request, score: Score) -> list[str]:
    onsets, ends = score.notes.onset_ticks, score.notes.onset_ticks + score.notes.duration_ticks
    sounding = [int(((onsets <= tick) & (tick < ends)).sum()) for tick in np.unique(onsets)]
    if request.polyphony is not None and max(sounding) > request.polyphony:
        return [f"polyphony: {max(sounding)}"]
    return []


def _of_chords(piece: Piece) -> list[str]:
    request, score = piece.request, piece.score
    harmony = harmony_of(request)
    if harmony is None:
        return []
    meter = int(score.meter_numerator[0]), int(score.meter_denominator[0])
    notes = score.notes.take(score.notes.program != DRUM_PROGRAM)
    onsets, pitches = notes.onset_ticks, notes.pitch
    ends = onsets + notes.duration_ticks
    bar, total = bar_ticks(meter), harmony.bars * bar_ticks(meter)
    asked = request.key is not None or request.scale is not None
    found = []
    for start, stop, chord in harmony.regions(meter):
        scale = request.pitch_classes if asked else scale_of(chord, key=harmony.progression.key().pitch_classes)
        inside = (onsets >= start) & (onsets < stop)
        if not (onsets == start).any():
            found.append(f"chords: no note begins with {chord.text}")
            continue
        if (ends[inside] > stop).any():
            found.append(f"chords: a note of {chord.text} sounds into the next")
        if not set((pitches[inside] % 12).tolist()) <= scale | chord.tones:
            found.append(f"chords: a note within {chord.text} is of another scale")
        beats = [start, *(first + beat for first in range(0, total, bar) for beat in strong_beats(meter))]
        for beat in (beat for beat in beats if start <= beat < stop):
            sounds = (onsets <= beat) & (beat < ends)
            if not set((pitches[sounds] % 12).tolist()) <= chord.tones:
                found.append(f"chords: what sounds on a strong beat of {chord.text} is another chord")
        if request.polyphony != 1 and int(pitches[(onsets <= start) & (start < ends)].min()) % 12 != chord.bass:
            found.append(f"chords: the bass of {chord.text}")
        ending = inside & (2 * (onsets - (total - bar)) >= bar)
        if not set((pitches[ending] % 12).tolist()) <= chord.tones:
            found.append(f"chords: the piece does not end on {chord.text}")
    return found
