"""Fitness of every segment of a piece as its thumbnail, and how much structure there is at short and long range.

Goal: the structureness indicator without sound. Convention: a segment's fitness says how much of a piece its repeats
cover and how well: the harmonic mean of coverage and score, each without what the segment is of itself, 0 (nothing
repeats) to below 1. The structureness indicator is the highest fitness of all segments within a range of lengths.

Source: fitness and path families of Müller, Jiang and Grosche (2013, "A robust fitness measure for capturing
repetitions in music recordings with applications to audio thumbnailing"); self-similarity with path enhancement and
thresholds as in Müller's "Fundamentals of Music Processing" (2nd ed., section 4.2); the indicator is Wu and Yang's
(2020, "The Jazz Transformer on the front line", ISMIR), whose parameters these are. We differ in two:

- Chroma are the sounding time of each pitch class, from the notes; theirs come from synthesised sound. What loudness,
  decay and overtones do to chroma is missing: compare figures of one kind.
- A path begins with the segment's first frame and may step over any frame, as defined. In libfmp 1.3, whose fitness of
  one segment in four is another one, the sum lets a path begin with the second frame, and its way back does not know of
  steps over the second row; with both mended all of 2,367 segments agree.

A piece without pitched notes, or shorter than the shortest segment, has the indicator 0.

Legend: F frames, L lengths of segments, A lengths of a path.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import InputError

Figures = NDArray[np.float64]

# Wu and Yang's parameters, in seconds where they are times.
SMOOTHING_S, PATH_S = 2.1, 8.0
TEMPO_RATIOS = np.exp(np.linspace(np.log(0.5), np.log(2.0), 7))
KEPT_SHARE, PENALTY = 0.25, -2.0
_FINE_FRAMES = 5
MAX_FRAMES = 4096
"""More need matrices of over 128 MiB."""

# What is known of a cell's path family, in one number: rows covered by paths that ended, cells, first row of its path.
_COVERED, _START, _FIELD = 1 << 20, 1 << 40, (1 << 20) - 1


def structureness(score: Score, *, shortest_s: float, longest_s: float, frames_per_s: float) -> float:
    """The highest fitness of all segments from ``shortest_s`` to ``longest_s`` long, 0 to 1.

    Wu and Yang report 3 to 8 s, 8 to 15 s, and 15 s and longer, at 2 frames a second. With long segments time grows
    with the fourth power of the frames: two minutes of music take 20 s at 2 frames a second, 1.5 s at 1.
    """
    return highest_fitness(
        enhanced_similarity(chroma(score, frames_per_s=frames_per_s), frames_per_s=frames_per_s),
        shortest=max(int(shortest_s * frames_per_s), 1),
        longest=int(min(longest_s * frames_per_s, score.length_s * frames_per_s + 1)),
    )


def highest_fitness(similarity_FF: Figures, *, shortest: int, longest: int) -> float:
    """The highest fitness of all segments of ``shortest`` to ``longest`` frames, 0 without any."""
    frames, best = len(similarity_FF), 0.0
    for length in range(shortest, min(longest, frames) + 1):
        coverage = (frames - length) / frames
        # No segment of this length or longer can cover more, nor score more than 1.
        if 2 * coverage <= best * (1 + coverage):
            break
        best = max(best, float(fitness(similarity_FF, length=length).max()))
    return best


def fitness(similarity_FF: Figures, *, length: int) -> Figures:
    """Fitness of every segment of ``length`` frames, by its first frame; shape (F - length + 1,).

    Args:
        similarity_FF: 1 on the diagonal, at most 1 elsewhere; what is unlike is negative.
        length: 1 to F.
    """
    frames = len(similarity_FF)
    windows = np.lib.stride_tricks.sliding_window_view(similarity_FF, length, axis=1)
    starts = windows.shape[1]
    # Column 0 is the elevator, in which no path is; column m is the segment's frame m - 1.
    last, before_last = (np.full((starts, length + 1), -np.inf) for _ in range(2))
    known, known_before = (np.zeros((starts, length + 1), np.int64) for _ in range(2))
    last[:, 0], last[:, 1], known[:, 1] = 0.0, windows[0, :, 0], 1
    for row in range(1, frames):
        score, family = np.empty_like(last), np.empty_like(known)
        ends = last[:, -1] > last[:, 0]
        score[:, 0] = np.where(ends, last[:, -1], last[:, 0])
        family[:, 0] = np.where(ends, _ended(known[:, -1], row), known[:, 0])
        score[:, 1] = score[:, 0] + windows[row, :, 0]
        family[:, 1] = family[:, 0] + 1 + row * _START
        best, best_known = last[:, 1:-1], known[:, 1:-1]
        steep = before_last[:, 1:-1] > best
        best, best_known = (
            np.where(steep, before_last[:, 1:-1], best),
            np.where(steep, known_before[:, 1:-1], best_known),
        )
        # A path begins in column 1 and nowhere else, so the flat step leads to column 3 or beyond.
        flat = last[:, 1:-2] > best[:, 1:]
        best[:, 1:] = np.where(flat, last[:, 1:-2], best[:, 1:])
        best_known[:, 1:] = np.where(flat, known[:, 1:-2], best_known[:, 1:])
        score[:, 2:] = best + windows[row, :, 1:]
        family[:, 2:] = best_known + 1
        last, before_last, known, known_before = score, last, family, known
    ends = last[:, -1] >= last[:, 0]
    total = np.where(ends, last[:, -1], last[:, 0])
    family = np.where(ends, _ended(known[:, -1], frames), known[:, 0])
    cells, covered = family & _FIELD, family // _COVERED & _FIELD
    scores, coverage = (total - length) / np.maximum(cells, 1), (covered - length) / frames
    either = scores + coverage
    return np.where(either > 0, 2 * scores * coverage / np.where(either > 0, either, 1.0), 0.0)


def _ended(known: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """The family of a path that ended before ``row``: what it covers is added up, and no path is on its way."""
    start = known // _START
    return known - start * _START + (row - start) * _COVERED


def chroma(score: Score, *, frames_per_s: float) -> Figures:
    """Sounding time of each pitch class, smoothed over 2.1 s, each frame of length 1; shape (F, 12).

    A silent frame sounds all classes alike.

    Raises:
        InputError: there are more than :data:`MAX_FRAMES` frames.
    """
    if score.length_s * frames_per_s > MAX_FRAMES:
        raise InputError(
            f"a piece of {score.length_s:.0f} s has more than {MAX_FRAMES} frames at {frames_per_s:g} a second",
            remedy="ask for fewer a second",
        )
    notes = score.notes.take(score.notes.program != DRUM_PROGRAM)
    begin_s = score.seconds_at(notes.onset_ticks)
    end_s = score.seconds_at(notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
    rate = _FINE_FRAMES * frames_per_s
    edges_s = np.arange(int(np.ceil(end_s.max(initial=0.0) * rate)) + 1) / rate
    fine_F12 = np.zeros((len(edges_s) - 1, 12))
    for kind in range(12):
        held = notes.pitch % 12 == kind
        fine_F12[:, kind] = np.diff(_time_before(begin_s[held], edges_s) - _time_before(end_s[held], edges_s))
    width = max(round(SMOOTHING_S * rate), 1)
    smooth_F12 = uniform_filter1d(fine_F12, width, axis=0, mode="constant")[::_FINE_FRAMES]
    norm = np.linalg.norm(smooth_F12, axis=1, keepdims=True)
    silent = norm < 1e-9
    return np.asarray(np.where(silent, 1 / np.sqrt(12), smooth_F12 / np.where(silent, 1.0, norm)))


def _time_before(times_s: Figures, edges_s: Figures) -> Figures:
    """Seconds from every time that lies before each edge to the edge, all together."""
    inorder = np.sort(times_s)
    count = np.searchsorted(inorder, edges_s)
    return np.asarray(count * edges_s - np.concatenate(([0.0], np.cumsum(inorder)))[count])


def enhanced_similarity(chroma_F12: Figures, *, frames_per_s: float) -> Figures:
    """Similarity of frames, in whatever key and at half to double tempo, of which the best quarter counts; (F, F).

    What is kept lies from 0 to 1, the rest is -2; the diagonal is 1.
    """
    frames = len(chroma_F12)
    steps = np.arange(max(round(PATH_S * frames_per_s), 1))
    reach = 2 * len(steps)
    best_FF = np.zeros((frames, frames))
    for semitones in range(12):
        plain_FF = np.roll(chroma_F12, semitones, axis=1) @ chroma_F12.T
        padded = np.pad(plain_FF, reach)
        for ratio in TEMPO_RATIOS:
            for way in (1, -1):
                smooth_FF = np.zeros((frames, frames))
                for down, along in zip(steps * way, np.rint(steps * ratio).astype(int) * way, strict=True):
                    smooth_FF += padded[reach + down :, reach + along :][:frames, :frames]
                np.maximum(best_FF, smooth_FF / len(steps), out=best_FF)
    kept_FF = _thresholded(best_FF)
    np.fill_diagonal(kept_FF, 1.0)
    return kept_FF


def _thresholded(similarity_FF: Figures) -> Figures:
    if not similarity_FF.size:
        return similarity_FF
    inorder = np.sort(similarity_FF, axis=None)
    least = inorder[min(round(similarity_FF.size * (1 - KEPT_SHARE)), similarity_FF.size - 1)]
    most = inorder[-1]
    scaled = (similarity_FF - least) / (most - least) if most > least else np.zeros_like(similarity_FF)
    return np.where(similarity_FF >= least, scaled, PENALTY)
