"""MusPy's and Pypianoroll's measures: ``python music_measures.py > tests/golden/music_measures.json``.

It runs in an environment that knows neither Tutti nor its benchmarks: ``pip install muspy pypianoroll``. It makes small
pieces and rolls, and writes them with what the peers say of them; the golden file holds :mod:`tutti.metrics` to these
peers where they are not installed. ``python music_measures.py - < PIECES`` answers other pieces, as JSON of the same
form.

Pypianoroll 1.0.4 does not do what it says in several places. Where a call with other arguments gives what it says, it
is called so; where none does, its function is mended first, and here is how:

- ``_to_chroma`` adds up ten neighbouring pitches, not octaves: it is replaced by one that adds octaves.
- ``qualified_note_rate`` fails on boolean rolls, whose difference it takes in bytes without a sign; it pairs the begin
  of one pitch with the end of another, and counts 128 steps to a step: it is asked for one pitch at a time, as floats.
- ``empty_beat_rate`` gives the rate of beats that are not empty: 1 less it is taken.
- ``drum_in_pattern_rate`` takes rolls of one beat only: it is asked for one beat at a time.
- ``tonal_distance`` raises an exception at all resolutions but 12, where it takes beats for pitch classes: its tonal
  matrix is taken, and the distance of the centroids of beats that sound in both, as its source defines it.
"""

from __future__ import annotations

import json
import math
import sys
from importlib.metadata import version
from typing import Any

import muspy
import numpy as np
import pypianoroll.metrics as rolls

# What MusPy gives for no notes; its other measures end with an exception there.
COUNTS = ("pitches_used", "pitch_classes_used", "pitch_range")


def made_pieces(random: np.random.Generator) -> list[dict[str, Any]]:
    """Pieces with chords, overlaps, rests, drums, many resolutions and meters; among them odd ones."""
    made = []
    for number in range(24):
        resolution = (1, 4, 12, 24, 96, 480)[number % 6]
        meter = ((4, 4), (3, 4), (6, 8))[number % 3] if resolution > 1 else (4, 4)
        count = 0 if number == 0 else int(random.integers(2, (7, 60)[number // 3 % 2]))
        drums = (0.0, 0.3, 1.0)[number // 2 % 3]
        grid = max(resolution // (4, 12, 8, 24)[number % 4], 1)
        made.append(
            {
                "ticks_per_quarter": resolution,
                "meter": meter,
                "onset_ticks": np.sort(random.integers(0, 90, count) * grid).tolist(),
                "duration_ticks": (random.integers(1, 9, count) * grid - (resolution > 4) * (number % 2)).tolist(),
                "pitch": random.choice([36, 38, 55, 57, 59, 60, 62, 64, 65, 67, 69, 71, 72, 78], count).tolist(),
                "program": np.where(random.random(count) < drums, 128, random.integers(0, 3, count)).tolist(),
            }
        )
    return made


def made_rolls(random: np.random.Generator) -> list[dict[str, Any]]:
    """Pairs of rolls of whole beats, some beats and some rolls of them silent."""
    made = []
    for number, steps_per_quarter in enumerate((4, 6, 8, 9, 12, 16, 18, 24, 24, 4)):
        steps = 4 * steps_per_quarter

        def cells(notes: int, *, steps: int = steps) -> list[list[int]]:
            found = set()
            for _ in range(notes):
                begin, pitch = (
                    int(random.integers(0, steps)),
                    int(random.choice([31, 42, 60, 61, 64, 66, 67, 72, 120, 127])),
                )
                found |= {(step, pitch) for step in range(begin, min(begin + int(random.integers(1, 6)), steps))}
            return sorted(map(list, found))

        one, other = (cells(4 * number), cells(6))
        made.append({"steps": steps, "steps_per_quarter": steps_per_quarter, "cells": one, "other_cells": other})
    return made


def music(piece: dict[str, Any]) -> Any:
    """MusPy's object of a piece."""
    resolution = piece["ticks_per_quarter"]
    tracks: dict[bool, Any] = {}
    for onset, duration, pitch, program in zip(
        piece["onset_ticks"], piece["duration_ticks"], piece["pitch"], piece["program"], strict=True
    ):
        drums = program == 128
        track = tracks.setdefault(drums, muspy.Track(program=0, is_drum=drums))
        track.notes.append(muspy.Note(time=onset, pitch=pitch, duration=duration))
    return muspy.Music(resolution=resolution, tracks=list(tracks.values()))


def by_muspy(piece: dict[str, Any]) -> dict[str, float]:
    """Every measure of MusPy that Tutti has too."""
    if not piece["pitch"]:
        return dict.fromkeys(COUNTS, 0.0)
    held = music(piece)
    bar_ticks = 4 * piece["ticks_per_quarter"] * piece["meter"][0] // piece["meter"][1]
    return {
        "pitches_used": muspy.n_pitches_used(held),
        "pitch_classes_used": muspy.n_pitch_classes_used(held),
        "pitch_range": muspy.pitch_range(held),
        "pitch_entropy": muspy.pitch_entropy(held),
        "pitch_class_entropy": muspy.pitch_class_entropy(held),
        "scale_consistency": muspy.scale_consistency(held),
        "in_d_major": muspy.pitch_in_scale_rate(held, 2, "major"),
        "in_g_minor": muspy.pitch_in_scale_rate(held, 7, "minor"),
        "polyphony": muspy.polyphony(held),
        "polyphony_rate_1": muspy.polyphony_rate(held, threshold=1),
        "polyphony_rate_2": muspy.polyphony_rate(held, threshold=2),
        "empty_beat_rate": muspy.empty_beat_rate(held),
        "empty_measure_rate": muspy.empty_measure_rate(held, bar_ticks),
        "groove_consistency": muspy.groove_consistency(held, bar_ticks),
        "drum_in_duple_pattern_rate": muspy.drum_in_pattern_rate(held, "duple"),
        "drum_in_triple_pattern_rate": muspy.drum_in_pattern_rate(held, "triple"),
        "drum_pattern_consistency": muspy.drum_pattern_consistency(held),
    }


def _octaves(roll: np.ndarray) -> np.ndarray:
    folded = np.zeros((len(roll), 12), int)
    for pitch in range(roll.shape[1]):
        folded[:, pitch % 12] += roll[:, pitch].astype(int)
    return folded


def _centroid(beat: np.ndarray) -> np.ndarray:
    chroma = _octaves(beat).sum(axis=0)
    return np.asarray(rolls._get_tonal_matrix(1.0, 1.0, 0.5) @ (chroma / chroma.sum()))


def by_pypianoroll(piece: dict[str, Any]) -> dict[str, Any]:
    """Every measure of Pypianoroll that Tutti has too, of rolls of whole beats over 128 pitches."""
    steps = piece["steps_per_quarter"]
    one, other = (np.zeros((piece["steps"], 128), bool) for _ in range(2))
    for roll, cells in ((one, piece["cells"]), (other, piece["other_cells"])):
        roll[tuple(np.array(cells, int).reshape(-1, 2).T)] = True
    beats = one.reshape(-1, steps, 128)
    notes = [len(np.flatnonzero(np.diff(column.astype(int), prepend=0) > 0)) for column in one.T]
    qualified = [rolls.qualified_note_rate(one[:, [pitch]].astype(float), 3) for pitch in np.flatnonzero(notes)]
    drums = [rolls.drum_in_pattern_rate(beat, steps) for beat in beats if beat.any()]
    struck = [np.count_nonzero(beat) for beat in beats if beat.any()]
    both = [
        np.linalg.norm(_centroid(mine) - _centroid(yours))
        for mine, yours in zip(beats, other.reshape(-1, steps, 128), strict=True)
        if mine.any() and yours.any()
    ]
    return {
        "pitches_used": int(rolls.n_pitches_used(one)),
        "pitch_classes_used": int(rolls.n_pitch_classes_used(one)),
        "pitch_range": float(rolls.pitch_range(one)),
        "polyphonic_rate": rolls.polyphonic_rate(one, 2),
        "empty_beat_rate": 1 - rolls.empty_beat_rate(one, steps),
        "qualified_note_rate": float(np.average(qualified, weights=[n for n in notes if n])) if qualified else math.nan,
        "in_c_major": float(rolls.in_scale_rate(one)) if one.any() else math.nan,
        "drum_in_pattern_rate": float(np.average(drums, weights=struck)) if drums else math.nan,
        "tonal_distance": float(np.mean(both)) if both else math.nan,
    }


def _plain(figures: dict[str, Any]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else float(value) for name, value in figures.items()}


def main() -> None:
    """Answer the pieces of standard input, or those made here."""
    rolls._to_chroma = _octaves
    random = np.random.default_rng(1)
    asked = json.load(sys.stdin) if "-" in sys.argv else {"pieces": made_pieces(random), "rolls": made_rolls(random)}
    np.seterr(all="ignore")
    answer = {
        "made_by": f"MusPy {version('muspy')}, Pypianoroll {version('pypianoroll')}",
        "pieces": [{**piece, "figures": _plain(by_muspy(piece))} for piece in asked.get("pieces", [])],
        "rolls": [{**roll, "figures": _plain(by_pypianoroll(roll))} for roll in asked.get("rolls", [])],
    }
    json.dump(answer, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
