"""A model of voices around a given voice, or bars: the given cells of its grid are sung as they are, others are drawn.

The model sings in order of time and cannot hear what is given later. So several drafts sing side by side, each weighed
by how likely it finds what is given as it comes (the given soprano under its own alto, tenor and bass), and those that
lead nowhere are replaced by copies of better ones: a particle filter, whose drafts come to follow the distribution of
the free voices given the others (Gordon, Salmond and Smith 1993, "Novel approach to nonlinear/non-Gaussian Bayesian
state estimation"; for music Huang et al. 2017 sample the same by Gibbs steps).

Legend: D drafts, T steps, V voices, P identifiers of pitches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from tutti import seeding
from tutti.corpus.score import Notes, Score
from tutti.errors import DataError, InputError, RecipeError
from tutti.features.events import bars_of, encode, on_grid
from tutti.features.grid import COMMON_TIME
from tutti.features.vocabulary import METERS, TICKS_PER_QUARTER
from tutti.features.voices import (
    FIRST_PITCH,
    HIGHEST_PITCH,
    LOWEST_PITCH,
    NOTHING,
    SILENCE,
    STEPS_PER_QUARTER,
    VOICES,
    score_of,
    voices_of,
)
from tutti.generation.material import prepared
from tutti.generation.piece import Piece
from tutti.generation.prepared import Prepared
from tutti.generation.request import Request
from tutti.generation.restoring import restored
from tutti.generation.sampling import choose
from tutti.generation.singing import STEP_TICKS, Singing, restruck
from tutti.generation.start import Kind, Start
from tutti.models.chorale import Chorale

Cells = NDArray[np.int64]

KINDS: frozenset[Kind] = frozenset({"continue", "infill", "accompany", "harmonise", "vary"})
USUAL_DRAFTS = 16
"""More than other models make: a draft costs little beside others."""
_CHOICE_STEPS = 2 * STEPS_PER_QUARTER
_BEYOND_STEPS = 8 * STEPS_PER_QUARTER
"""Of what follows filled-in bars, that count."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is given of a grid.

    Args:
        cells_TV: identifiers that are given; NOTHING where the model is free.
        sung_steps: up to where drafts sing; what follows is given.
        beneath: whether others stay below the first voice.
        tracks: of new notes of each voice.
        programs: of new notes of each voice.
    """

    cells_TV: Cells
    sung_steps: int
    beneath: bool
    tracks: Sequence[int]
    programs: Sequence[int]


def voiced(
    model: Chorale,
    request: Request,
    score: Score,
    *,
    programs: Sequence[int],
    cancelled: Callable[[], bool],
) -> Piece:
    """A piece of four voices that starts from a file.

    Args:
        model: in evaluation mode.
        programs: that new voices take in turn, where the file has none for them.
        cancelled: asked between steps.

    Raises:
        InputError: the file has not the voices that are needed.
        RecipeError: the request contradicts the file, or the model knows not its meter.
    """
    ready, frame = _framed(request, score, programs=programs)
    assert ready.kept is not None
    begin_ticks = ready.kept.begin_ticks
    harmony = ready.limits.harmony if ready.harmony is None else ready.harmony
    singing = Singing(ready.limits, steps=len(frame.cells_TV), harmony=harmony, begin_step=begin_ticks // STEP_TICKS)
    grid_TV, gone = _sung(model, request, frame, singing, cancelled)
    made = score_of(
        np.where(frame.cells_TV[: len(grid_TV)] == NOTHING, grid_TV, SILENCE).astype(np.uint16),
        tempo_qpm=float(score.tempo_qpm[0]),
    ).with_resolution(TICKS_PER_QUARTER)
    voice = made.notes.track
    notes = replace(
        made.notes,
        program=np.array(frame.programs, dtype=np.uint8)[voice],
        track=np.array(frame.tracks, dtype=np.uint16)[voice],
    )
    notes = restruck(notes, harmony, begin_ticks=begin_ticks)
    whole = restored(replace(made, notes=notes), replace(ready.kept, own_tracks=True))
    return Piece(request, whole, encode(on_grid(whole), ready.controls), refused_tokens=0, cancelled=gone)


def check(request: Request, score: Score, *, programs: Sequence[int]) -> None:
    """Refuse what :func:`voiced` cannot make, before anything runs.

    Raises:
        InputError, RecipeError: as there.
    """
    _framed(request, score, programs=programs)


@torch.inference_mode()
def _sung(
    model: Chorale, request: Request, frame: _Frame, singing: Singing, cancelled: Callable[[], bool]
) -> tuple[Cells, bool]:
    """The best draft's grid, whole, and whether it was given up."""
    start = request.start or Start(kind="continue")
    drafts = 1 if start.kind == "continue" else start.drafts or USUAL_DRAFTS
    seeds_D = np.array([seeding.derive(request.seed, "voices", draft) for draft in range(drafts)], dtype=np.uint64)
    memory, weights_D = model.new_memory(rows=drafts), np.zeros(drafts)
    for step in range(frame.sung_steps):
        if cancelled():
            return memory.pitches_BTV[0].cpu().numpy().astype(np.int64), True
        for voice, logits_DP, now_DV in model.sing(memory):
            said_DP = logits_DP.float().cpu().numpy()
            given = int(frame.cells_TV[step, voice])
            if given != NOTHING:
                weights_D += log_softmax(said_DP, axis=1)[:, given]
                now_DV[:, voice] = given
                continue
            allowed_DP = singing.allowed(step, voice, now_DV.cpu().numpy())
            if frame.beneath and frame.cells_TV[step, 0] >= FIRST_PITCH:
                allowed_DP[:, int(frame.cells_TV[step, 0]) + 1 :] = False
            chosen_D = choose(
                said_DP,
                allowed_BV=allowed_DP,
                temperature_B=np.full(drafts, request.temperature),
                top_p_B=np.full(drafts, request.top_p),
                seeds_B=seeds_D,
                counters_B=np.full(drafts, step * VOICES + voice, dtype=np.uint64),
            )
            now_DV[:, voice] = torch.from_numpy(chosen_D).to(now_DV)
        if drafts > 1 and (step + 1) % _CHOICE_STEPS == 0 and step + 1 < frame.sung_steps:
            weights_D = _chosen(memory, weights_D, seed=request.seed, step=step)
    best = memory.pitches_BTV[int(weights_D.argmax())].cpu().numpy().astype(np.int64)
    return np.concatenate((best, frame.cells_TV[len(best) :])), False


def _chosen(memory: object, weights_D: NDArray[np.float64], *, seed: int, step: int) -> NDArray[np.float64]:
    """Weights after drafts that lead nowhere have given way to copies of better ones, where too few still count."""
    share_D = softmax(weights_D)
    drafts = len(share_D)
    if 1 / float((share_D**2).sum()) > drafts / 2:
        return weights_D
    drawn = float(
        seeding.uniform_at(
            np.array([seeding.derive(seed, "choice")], dtype=np.uint64), np.array([step], dtype=np.uint64)
        )[0]
    )
    stays = np.searchsorted(np.cumsum(share_D), (np.arange(drafts) + drawn) / drafts).clip(max=drafts - 1)
    memory.keep(torch.from_numpy(stays))  # type: ignore[attr-defined]
    return np.zeros(drafts)


def _framed(request: Request, score: Score, *, programs: Sequence[int]) -> tuple[Prepared, _Frame]:
    start = request.start or Start(kind="continue")
    ready = prepared(request, score, collections=(), programs=programs)
    kept = ready.kept
    assert kept is not None, "what a model of voices makes starts from one file"
    bars = bars_of(on_grid(score))
    if bars.meter[-1] != COMMON_TIME:
        above, below = METERS[bars.meter[-1]]
        raise RecipeError(f"a model of voices knows no meter {above}/{below}", remedy="use a model of sequences")
    steps = (int(bars.start_ticks[-1]) + 4 * TICKS_PER_QUARTER) // STEP_TICKS
    if start.kind in ("harmonise", "accompany"):
        cells_TV = np.full((steps, VOICES), NOTHING, dtype=np.int64)
        cells_TV[:, 0] = _column(score.notes.take(kept.notes), score, steps=steps)
        new_tracks = [int(score.notes.track.max()) + voice for voice in range(VOICES)]
        new_programs = [programs[voice % len(programs)] for voice in range(VOICES)]
        return ready, _Frame(cells_TV, steps, True, new_tracks, new_programs)
    tracks, own = _voices_of(score)
    if request.instruments:
        own = [programs[voice % len(programs)] for voice in range(VOICES)]
    if start.kind == "continue":
        steps = kept.begin_ticks // STEP_TICKS
    given_TV = np.stack(
        [_column(score.notes.take(score.notes.track == track), score, steps=steps) for track in tracks], axis=1
    )
    if start.kind == "continue":
        more = (ready.limits.bars or 0) * 4 * STEPS_PER_QUARTER - steps
        free_TV = np.full((max(more, 0), VOICES), NOTHING, dtype=np.int64)
        return ready, _Frame(np.concatenate((given_TV, free_TV)), len(given_TV) + len(free_TV), False, tracks, own)
    if start.kind == "infill":
        begin, end = kept.begin_ticks // STEP_TICKS, (kept.end_ticks or 0) // STEP_TICKS
        given_TV[begin:end] = NOTHING
        return ready, _Frame(given_TV, min(end + _BEYOND_STEPS, steps), False, tracks, own)
    held_TV = np.stack(
        [_column(score.notes.take(kept.notes & (score.notes.track == track)), score, steps=steps) for track in tracks],
        axis=1,
    )
    return ready, _Frame(np.where(held_TV >= FIRST_PITCH, held_TV, NOTHING), steps, False, tracks, own)


def _voices_of(score: Score) -> tuple[list[int], list[int]]:
    """Tracks and programs of the four voices, the highest first."""
    try:
        voices_of(score)
    except DataError as error:
        raise InputError(
            f"the file is not of four voices ({error.detail})", remedy="use a model of sequences"
        ) from None
    notes = score.notes
    tracks = np.unique(notes.track).tolist()
    height = {track: float(notes.pitch[notes.track == track].mean()) for track in tracks}
    tracks.sort(key=lambda track: -height[track])
    return tracks, [int(notes.program[notes.track == track][0]) for track in tracks]


def _column(notes: Notes, score: Score, *, steps: int) -> Cells:
    """What one voice sings at each step; of two notes at one step the later one. Shape (T,)."""
    low, high = (int(notes.pitch.min()), int(notes.pitch.max())) if len(notes) else (LOWEST_PITCH, LOWEST_PITCH)
    if low < LOWEST_PITCH or high > HIGHEST_PITCH:
        raise InputError(
            f"pitches {low} to {high} are outside the voices' {LOWEST_PITCH} to {HIGHEST_PITCH}",
            remedy="transpose the file",
        )
    step_ticks = score.ticks_per_quarter / STEPS_PER_QUARTER
    begin = np.floor(notes.onset_ticks / step_ticks + 0.5).astype(np.int64)
    end = np.floor((notes.onset_ticks.astype(np.int64) + notes.duration_ticks) / step_ticks + 0.5).astype(np.int64)
    column = np.full(steps, SILENCE, dtype=np.int64)
    for note in np.argsort(begin, kind="stable").tolist():
        column[begin[note] : max(end[note], begin[note] + 1)] = int(notes.pitch[note]) - LOWEST_PITCH + FIRST_PITCH
    return column
