"""Augmentation by named draws: the same epoch and sample always see the same change.

Transposition works on tokens: one table look-up moves every ``Pitch`` and the ``Key`` control; drums stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.features.vocabulary import ANY, CONTROL_KINDS, EVENTS
from tutti.units import parse_key

MAX_TRANSPOSITION_SEMITONES = 6

_PITCHES = EVENTS.span("Pitch")


def _table() -> NDArray[np.uint16]:
    """Token after each transposition; shape (2 * 6 + 1, V). Pitches that would leave 0 to 127 stay."""
    most = MAX_TRANSPOSITION_SEMITONES
    table = np.tile(np.arange(len(EVENTS), dtype=np.uint16), (2 * most + 1, 1))
    pitches = np.array(_PITCHES)
    for row, semitones in zip(table, range(-most, most + 1), strict=True):
        row[pitches] = np.clip(pitches + semitones, _PITCHES.start, _PITCHES.stop - 1)
        for token in EVENTS.span("Key"):
            name = EVENTS.names[token].removeprefix("Key_")
            if name != ANY:
                row[token] = EVENTS[f"Key_{parse_key(name).transposed(semitones)}"]
    return table


_TRANSPOSED = _table()


def transpose(tokens: NDArray[np.uint16], *, semitones: int) -> NDArray[np.uint16]:
    """The same music ``semitones`` higher (-6 to 6); the shape stays.

    A piece that would leave MIDI's pitches is returned as it is, so an interval is never bent.
    """
    pitches = tokens[(tokens >= _PITCHES.start) & (tokens < _PITCHES.stop)].astype(np.int64) - _PITCHES.start
    if len(pitches) and not 0 <= pitches.min() + semitones <= pitches.max() + semitones <= 127:
        return tokens
    return np.asarray(_TRANSPOSED[semitones + MAX_TRANSPOSITION_SEMITONES][tokens])


def drawn_transposition(seed: int, *, epoch: int, sample: int, most_semitones: int) -> int:
    """The draw named ``transposition`` for one sample of one epoch: uniform on -most to most."""
    if most_semitones == 0:
        return 0
    stream = np.array([seeding.derive(seed, "transposition", epoch)], dtype=np.uint64)
    draw = float(seeding.uniform_at(stream, sample)[0])
    return int(draw * (2 * most_semitones + 1)) - most_semitones


def drop_controls(tokens: NDArray[np.uint16], *, seed: int, epoch: int, sample: int, rate: float) -> NDArray[np.uint16]:
    """Each control kind is replaced by ``any`` with probability ``rate`` (draw named ``controls``), so that a request
    may leave any of them out. Several instruments become one ``Instruments_any``; the sequence may get shorter."""
    if rate == 0:
        return tokens
    kept = np.ones(len(tokens), dtype=bool)
    changed = tokens.copy()
    stream = np.array([seeding.derive(seed, "controls", epoch)], dtype=np.uint64)
    for number, kind in enumerate(CONTROL_KINDS):
        if float(seeding.uniform_at(stream, sample * 8 + number)[0]) < rate:
            span = EVENTS.span(kind)
            held = np.flatnonzero((tokens >= span.start) & (tokens < span.stop))
            changed[held[:1]] = EVENTS[f"{kind}_{ANY}"]
            kept[held[1:]] = False
    return changed[kept]
