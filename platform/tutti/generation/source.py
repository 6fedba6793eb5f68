"""A file to start from, as it is and as the model reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import RecipeError
from tutti.features.controls import Controls, density_class, length_class, tempo_class
from tutti.features.descriptors import describe_score
from tutti.features.events import Bars, bars_of, encode, on_grid
from tutti.features.grid import METER_TICKS
from tutti.features.mood import mood_word
from tutti.features.vocabulary import BAR, INSTRUMENTS, METERS, TICKS_PER_QUARTER, instrument_of
from tutti.generation.controls import Limits, controls_of, harmony_of, limits_of
from tutti.generation.harmony import Harmony
from tutti.generation.planting import Planting, every_pitch
from tutti.generation.request import Request
from tutti.generation.restoring import grid_onsets

HELD_OVER_TICKS = TICKS_PER_QUARTER // 2
"""By how much a last note may sound over its bar line before the continuation waits for the next one."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it is and as the model reads it.

    Args:
        score: the file.
        grid: the same on the grid.
        bars: of the grid.
        programs: that play in it.
    """

    score: Score
    grid: Score
    bars: Bars
    programs: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, score: Score) -> Source:
        """A file that was read."""
        grid = on_grid(score)
        return cls(score, grid, bars_of(grid), tuple(np.unique(grid.notes.program).tolist()))

    def bar_line(self, bar: int) -> int:
        """Tick at which bar ``bar`` (from 0) begins; bars after the last keep its meter."""
        known = len(self.bars.start_ticks)
        if bar < known:
            return int(self.bars.start_ticks[bar])
        return int(self.bars.start_ticks[-1]) + (bar - known + 1) * int(METER_TICKS[self.bars.meter[-1]])

    @property
    def num_bars(self) -> int:
        """Bars until the last note ends; one that only hangs over a bar line begins no new bar."""
        bars = len(self.bars.start_ticks)
        length = int(METER_TICKS[self.bars.meter[-1]])
        over = self.grid.end_ticks - HELD_OVER_TICKS - self.bar_line(bars)
        return bars + max(-(-over // length), 0)

    def body(self) -> list[int]:
        """Its tokens without controls and end."""
        tokens: list[int] = encode(self.grid)[:-1].tolist()
        return tokens[tokens.index(BAR) :]

    def told(self, request: Request, *, collections: Sequence[str], bars: int, whole: bool) -> Controls:
        """Controls: what is asked, and what the file is where nothing is asked.

        Args:
            bars: of the piece.
            whole: whether the file has all parts, and not a melody alone.
        """
        asked, known = controls_of(request, collections=collections), describe_score(self.grid)
        tempo = float(self.grid.tempo_qpm[0]) if request.tempo is None else request.tempo
        told = replace(asked, key=asked.key or known["key"], tempo_class=tempo_class(tempo), length=length_class(bars))
        if not whole:
            return told
        families = {instrument_of(program) for program in self.programs}
        return replace(
            told,
            density=asked.density or density_class(known["notes_per_quarter"]),
            mood=asked.mood or mood_word(known["valence"], known["arousal"]),
            instruments=asked.instruments or tuple(name for name in INSTRUMENTS if name in families),
        )

    def limits(self, request: Request, *, bars: int, programs: Sequence[int]) -> Limits:
        """Limits of what is composed; drum keys of the file are drums."""
        limits = replace(limits_of(request, known_programs=programs), bars=bars)
        if limits.drums.any():
            notes = self.grid.notes
            limits = replace(
                limits, drums=limits.drums | np.isin(np.arange(128), notes.pitch[notes.program == DRUM_PROGRAM])
            )
        return limits

    def sounding(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Onsets and ends of notes that stay, in ticks of the grid, ends rounded up, each sorted; shape (K,)."""
        return np.sort(grid_onsets(self.score)[kept]), np.sort(self.end_ticks[kept])

    @property
    def end_ticks(self) -> NDArray[np.int64]:
        """Where each note of the file ends, in ticks of the grid, rounded up; shape (N,)."""
        notes = self.score.notes
        ends = TICKS_PER_QUARTER * (notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
        return np.asarray(-(-ends // self.score.ticks_per_quarter))

    def harmony(self, request: Request, *, first: int = 0, bars: int) -> Harmony | None:
        """Chords that are asked for some of its bars, in its own meters.

        Args:
            first: the first of these bars, from 0.
            bars: how many there are.

        Raises:
            RecipeError: the chords are not as many bars, or a whole share of them.
        """
        harmony = harmony_of(request)
        if harmony is None:
            return None
        asked = len(harmony.progression)
        if bars % asked:
            raise RecipeError(
                f"chords of {asked} bars do not fill the {bars} bars that they are for",
                remedy=f"write {bars} bars of chords, or as many as go into them",
            )
        meters = tuple(METERS[meter] for meter in self.bars.meter[first : first + bars].tolist())
        return replace(harmony, bars=bars, meters=meters)


def unbound(limits: Limits, *, chords: bool) -> Limits:
    """Limits without what a planting holds of free notes alone.

    Args:
        chords: whether it holds chords, and with them key, scale and range.
    """
    limits = replace(limits, polyphony=None, harmony=None, ranges=None)
    return replace(limits, pitches=every_pitch(), home=every_pitch()) if chords else limits


def refuse_full(planting: Planting, harmony: Harmony | None) -> None:
    """Refuse more notes at once than are asked, and chords that nobody can begin.

    Raises:
        RecipeError: what is kept sounds as many notes as may sound, or no instrument is free to play a chord.
    """
    most = planting.polyphony
    at_once = int(planting.sounding(planting.kept_onsets).max(initial=0))
    if most is not None and (at_once > most or (most == 1 and len(planting.notes))):
        raise RecipeError(
            f"polyphony {most} leaves no voice beside what is kept, which sounds {at_once} notes at once",
            remedy="ask for more, or leave polyphony out",
        )
    if harmony is None:
        return
    if not planting.programs.any():
        raise RecipeError("no instrument is free to play the chords", remedy="name another one beside the melody's")
    for start, _, chord in harmony.regions(harmony.meters[0]):
        begin = np.array([planting.begin_ticks + start])
        if most is not None and int(planting.sounding(begin)[0]) >= most:
            raise RecipeError(
                f"polyphony {most} leaves no voice for the chord {chord.text!r}, where what is kept takes all",
                remedy="ask for more, or leave polyphony out",
            )
