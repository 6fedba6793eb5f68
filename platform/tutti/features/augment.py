"""Augmentation by named draws: the same seed, epoch and sample always see the same change, and none is ever stored.

What changes notes changes the music that whole sequences say (:mod:`tutti.features.variation`); transposition and the
hiding of controls are done on tokens, of any sequence. Music that would no longer fit the place of its sequence, or
would have no note left, stays as it was.

Controls go on telling the truth. ``Key`` moves with transposition, ``TempoClass`` with the first tempo, ``Instruments``
with a voice that left; what cannot be known without the whole work becomes ``any``: ``Density`` and ``Mood`` without a
voice, ``Density`` of spliced bars and their ``Length`` when bars were cut, ``Mood`` at another tempo or without
dynamics.

Legend: W sequences, T tokens, C kinds of controls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score_batch import reduced
from tutti.features import variation
from tutti.features.controls import tempo_class
from tutti.features.events import Tokens
from tutti.features.grid import Grid, Index
from tutti.features.sequences import Opened, Sequences, opened, whole
from tutti.features.vocabulary import ANY, BAR, CONTROL_KINDS, END, EVENTS, TEMPOS_QPM, instrument_of
from tutti.units import parse_key

MAX_TRANSPOSITION_SEMITONES = 6

_PITCHES = EVENTS.span("Pitch")
# A pitch that fits under every transposition: it stands for the pieces that have none.
_MIDDLE_PITCH = 64
_CONTROL_OF_KIND = np.array([CONTROL_KINDS.index(kind) if kind in CONTROL_KINDS else -1 for kind in EVENTS.kinds])
_ANY = np.array([EVENTS[f"{kind}_{ANY}"] for kind in CONTROL_KINDS], dtype=np.uint16)
# One for each kind, and one for all together.
_DRAWS_OF_CONTROLS = 8
_DRAW_OF_ALL = slice(7, 8)


@dataclass(frozen=True)
class Augmentation:
    """What may change in a piece each time it is seen; by default nothing.

    Args:
        most_semitones: it is transposed by -most to most semitones, each as likely.
        stretch_rate: how often its tempo is multiplied by up to 1 + ``most_stretch`` or divided by as much, evenly on a
            scale of ratios.
        most_stretch: see there.
        thin_rate: how often one of its programs is left out, where it has several.
        instruments_rate: how often its programs become others of their General MIDI families.
        splice_rate: how often a stretch of bars is cut out or heard again in place of what followed.
        velocity_drop_rate: how often all its notes get one velocity.
        control_dropout: how often each kind of control is hidden.
        all_controls_dropout: how often all are hidden at once, so that a model also knows music without conditions.
    """

    most_semitones: int = 0
    stretch_rate: float = 0.0
    most_stretch: float = 0.1
    thin_rate: float = 0.0
    instruments_rate: float = 0.0
    splice_rate: float = 0.0
    velocity_drop_rate: float = 0.0
    control_dropout: float = 0.0
    all_controls_dropout: float = 0.0

    @property
    def varies(self) -> bool:
        """Whether anything but key and controls may change."""
        rates = (self.stretch_rate, self.thin_rate, self.instruments_rate, self.splice_rate, self.velocity_drop_rate)
        return any(rates)


Draw = Callable[[str, int], NDArray[np.float64]]
"""Name and count to numbers from 0 to 1 (exclusive), (W, count); the same name draws the same."""


def augmented(
    sequences: Sequences, augmentation: Augmentation, *, seed: int, epochs: Index, samples: Index
) -> Sequences:
    """The sequences as the given epochs see them; none is longer than it was.

    Args:
        sequences: W sequences.
        augmentation: what may change.
        seed: root of the draws.
        epochs, samples: which epoch sees each, and its number among all pieces; shape (W,).
    """

    def draw(name: str, count: int) -> NDArray[np.float64]:
        draws = np.empty((len(samples), count))
        counters = samples.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
        for epoch in np.unique(epochs).tolist():
            stream = np.array([seeding.derive(seed, name, epoch)], dtype=np.uint64)
            draws[epochs == epoch] = seeding.uniform_at(stream, counters[epochs == epoch])
        return draws

    sequences, hidden = _varied(sequences, augmentation, draw=draw)
    if augmentation.most_semitones:
        steps = 2 * augmentation.most_semitones + 1
        semitones = (draw("transposition", 1)[:, 0] * steps).astype(np.int64) - augmentation.most_semitones
        sequences = transposed(sequences, semitones=semitones)
    if augmentation.control_dropout or augmentation.all_controls_dropout:
        draws = draw("controls", _DRAWS_OF_CONTROLS)
        hidden |= draws[:, : len(CONTROL_KINDS)] < augmentation.control_dropout
        hidden |= draws[:, _DRAW_OF_ALL] < augmentation.all_controls_dropout
    return hide_controls(sequences, kinds=hidden) if hidden.any() else sequences


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


def transposed(sequences: Sequences, *, semitones: Index) -> Sequences:
    """The same music ``semitones`` higher (-6 to 6), of shape (W,); drums stay.

    A piece that would leave MIDI's pitches is returned as it is, so an interval is never bent.
    """
    tokens = sequences.tokens
    is_pitch = (tokens >= _PITCHES.start) & (tokens < _PITCHES.stop)
    pitch = np.where(is_pitch, tokens.astype(np.int64) - _PITCHES.start, _MIDDLE_PITCH)
    low, high = reduced(np.minimum, pitch, sequences.starts), reduced(np.maximum, pitch, sequences.starts)
    semitones = np.where((low + semitones >= 0) & (high + semitones <= 127), semitones, 0)
    row = (semitones + MAX_TRANSPOSITION_SEMITONES)[sequences.sequence_of_token]
    return Sequences(_TRANSPOSED[row, tokens], sequences.starts)


def transpose(tokens: Tokens, *, semitones: int) -> Tokens:
    """One sequence :func:`transposed`."""
    return transposed(Sequences.of([tokens]), semitones=np.array([semitones])).tokens


def hide_controls(sequences: Sequences, *, kinds: NDArray[np.bool_]) -> Sequences:
    """Controls of some kinds become ``any``, so that a request may leave any of them out.

    Several instruments become one ``Instruments_any``: a sequence may get shorter.

    Args:
        sequences: W sequences.
        kinds: which kinds, in the order of ``CONTROL_KINDS``, are hidden in each; shape (W, C).
    """
    at = np.flatnonzero((sequences.tokens > END) & (sequences.tokens < BAR))
    control = _CONTROL_OF_KIND[EVENTS.kind_of[sequences.tokens[at]]]
    sequence = sequences.sequence_of_token[at]
    hidden = kinds[sequence, control]
    again = np.zeros(len(at), dtype=bool)
    again[1:] = (control[1:] == control[:-1]) & (sequence[1:] == sequence[:-1])
    tokens, kept = sequences.tokens.copy(), np.ones(len(sequences.tokens), dtype=bool)
    tokens[at[hidden]] = _ANY[control[hidden]]
    kept[at[hidden & again]] = False
    return Sequences(tokens, sequences.starts).kept(kept)


def _varied(sequences: Sequences, augmentation: Augmentation, *, draw: Draw) -> tuple[Sequences, NDArray[np.bool_]]:
    """Sequences of other music, and which controls no longer hold; shape (W, C)."""
    hidden = np.zeros((len(sequences), len(CONTROL_KINDS)), dtype=bool)
    if not augmentation.varies:
        return sequences, hidden
    wanted = _Wanted.drawn(augmentation, draw=draw)
    rows = np.flatnonzero(wanted.any() & whole(sequences))
    if not len(rows):
        return sequences, hidden
    before = sequences.take(rows)
    after, untold = _changed(opened(before), wanted.of(rows))
    made = after.closed()
    fits = (made.lengths <= before.lengths) & (np.diff(after.grid.note_starts) > 0)
    parts = [sequences[number] for number in range(len(sequences))]
    for number in np.flatnonzero(fits).tolist():
        parts[rows[number]] = made[number]
    hidden[rows[fits]] = untold[fits]
    return Sequences.of(parts), hidden


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What shall change in each of W pieces.

    Args:
        factors: of the tempo; shape (W,).
        voices: which voice leaves, 0 to 1 (exclusive); -1 where none does; shape (W,).
        shifts: of the programs of each family; shape (W, 16).
        spliced, levelled: whether it is; shape (W,).
        splices: whether bars are cut, how many, from where, 0 to 1 (exclusive); shape (W, 3).
    """

    factors: NDArray[np.float64]
    voices: NDArray[np.float64]
    shifts: NDArray[np.int64]
    spliced: NDArray[np.bool_]
    splices: NDArray[np.float64]
    levelled: NDArray[np.bool_]

    @classmethod
    def drawn(cls, augmentation: Augmentation, *, draw: Draw) -> _Wanted:
        stretch, thin = draw("stretch", 2), draw("thin", 2)
        factors = (1 + augmentation.most_stretch) ** (2 * stretch[:, 1] - 1)
        instruments, splice = draw("instruments", 1 + variation.FAMILIES), draw("splice", 4)
        shifts = 1 + (instruments[:, 1:] * (variation.PROGRAMS_OF_A_FAMILY - 1)).astype(np.int64)
        return cls(
            factors=np.where(stretch[:, 0] < augmentation.stretch_rate, factors, 1.0),
            voices=np.where(thin[:, 0] < augmentation.thin_rate, thin[:, 1], -1),
            shifts=np.where(instruments[:, :1] < augmentation.instruments_rate, shifts, 0),
            spliced=splice[:, 0] < augmentation.splice_rate,
            splices=splice[:, 1:],
            levelled=draw("velocity", 1)[:, 0] < augmentation.velocity_drop_rate,
        )

    def any(self) -> NDArray[np.bool_]:
        """Whether anything shall; shape (W,)."""
        return np.asarray(
            (self.factors != 1) | (self.voices >= 0) | self.shifts.any(axis=1) | self.spliced | self.levelled
        )

    def of(self, rows: Index) -> _Wanted:
        """What shall change in some of them."""
        return _Wanted(*(getattr(self, name)[rows] for name in self.__slots__))


def _changed(music: Opened, wanted: _Wanted) -> tuple[Opened, NDArray[np.bool_]]:
    """The changed music, and which controls no longer hold; shape (W, C)."""
    grid = music.grid
    gone = np.where(wanted.voices >= 0, variation.chosen_voices(grid, draws=np.maximum(wanted.voices, 0)), -1)
    bars, starts = variation.spliced_bars(grid, pieces=wanted.spliced, draws=wanted.splices)
    thinned = variation.thinned(grid, programs=gone)
    made = variation.reinstrumented(thinned, shifts=wanted.shifts)
    made = variation.levelled(made, pieces=wanted.levelled)
    made = variation.stretched(made, factors=wanted.factors)
    made = variation.rearranged(made, bars=bars, starts=starts)

    cut = np.diff(starts) < np.diff(grid.bar_starts)
    stays = np.arange(len(bars)) - np.repeat(starts[:-1] - grid.bar_starts[:-1], np.diff(starts))
    moved = reduced(np.maximum, (bars != stays).astype(np.int64), starts) > 0
    sped = (wanted.factors != 1) & (np.diff(grid.tempo_starts) > 0)
    begins, played = _first_tempos(made), thinned.programs()
    retimed = sped | (begins != _first_tempos(grid))
    heads = list(music.heads)
    for number in np.flatnonzero(gone >= 0).tolist():
        heads[number] = _without_voice(heads[number], int(gone[number]), played=played[number])
    for number in np.flatnonzero(retimed & (begins >= 0)).tolist():
        heads[number] = _at_tempo(heads[number], TEMPOS_QPM[begins[number]])
    untold = np.zeros((len(grid), len(CONTROL_KINDS)), dtype=bool)
    untold[:, CONTROL_KINDS.index("TempoClass")] = retimed & (begins < 0)
    untold[:, CONTROL_KINDS.index("Density")] = (gone >= 0) | cut | moved
    untold[:, CONTROL_KINDS.index("Length")] = cut
    untold[:, CONTROL_KINDS.index("Mood")] = (gone >= 0) | sped | wanted.levelled
    return Opened(grid=made, heads=heads, ended=music.ended), untold


def _first_tempos(grid: Grid) -> Index:
    """Tempo of each piece that begins with one, -1 of others; shape (W,)."""
    if not len(grid.tempo):
        return np.full(len(grid), -1, dtype=np.int64)
    at = np.minimum(grid.tempo_starts[:-1], len(grid.tempo) - 1)
    return np.where(grid.tempo_time_ticks[at] == grid.begin_ticks, grid.tempo[at], -1)


def _without_voice(head: Tokens, program: int, *, played: NDArray[np.bool_]) -> Tokens:
    """Control tokens of a piece that lost a program and plays those of ``played``, of shape (129,)."""
    family = instrument_of(program)
    if any(instrument_of(other) == family for other in np.flatnonzero(played).tolist()):
        return head
    named = np.isin(head, EVENTS.span("Instruments"))
    left = head[named & (head != EVENTS[f"Instruments_{family}"])]
    return np.append(head[~named], left if len(left) else _ANY[-1:])


def _at_tempo(head: Tokens, qpm: float) -> Tokens:
    """Control tokens of a piece that begins at a tempo, where they told one."""
    told = np.isin(head, EVENTS.span("TempoClass")) & (head != EVENTS[f"TempoClass_{ANY}"])
    return np.where(told, np.uint16(EVENTS[f"TempoClass_{tempo_class(qpm)}"]), head)
