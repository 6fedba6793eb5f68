"""Laws of augmentation: valid music stays valid, each change does what it says and no more, and draws have names."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.property.test_events import scores
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import variation
from tutti.features.augment import Augmentation, augmented, hide_controls, transposed
from tutti.features.controls import Controls, tempo_class
from tutti.features.events import bar_windows, decode, encode
from tutti.features.grid import METER_TICKS, Grid, nearest_tempo
from tutti.features.sequences import Sequences, opened, whole
from tutti.features.vocabulary import BAR, CONTROL_KINDS, END, EVENTS, TEMPOS_QPM, instrument_of

RATES = ("stretch_rate", "thin_rate", "instruments_rate", "splice_rate", "velocity_drop_rate")
ALL = Augmentation(**dict.fromkeys(RATES, 1.0), most_stretch=0.3, most_semitones=6, control_dropout=0.3)  # type: ignore[arg-type]
TOLD = {"collection": 3, "key": "D minor", "density": "dense", "length": "8", "mood": "calm"}


def _controls(score: Score) -> Controls:
    grid = Grid.of(ScoreBatch.of([score]))
    families = tuple(dict.fromkeys(instrument_of(program) for program in np.flatnonzero(grid.programs()[0]).tolist()))
    return Controls(**TOLD, tempo_class=tempo_class(TEMPOS_QPM[grid.tempo[0]]), instruments=families)  # type: ignore[arg-type]


_tokens = scores().map(lambda score: encode(score, _controls(score)))
_pieces = st.lists(_tokens, min_size=1, max_size=4).map(Sequences.of)
_windows = st.builds(
    lambda tokens, most: Sequences.of(bar_windows(tokens, max_tokens=most)), _tokens, st.integers(30, 90)
)
_rate = st.sampled_from([0.0, 0.4, 1.0])
_augmentations = st.builds(
    Augmentation,
    most_semitones=st.integers(0, 6),
    most_stretch=st.floats(0, 1),
    control_dropout=_rate,
    all_controls_dropout=_rate,
    **dict.fromkeys(RATES, _rate),
)
_seeds = st.integers(0, 2**40)


def _augmented(sequences: Sequences, augmentation: Augmentation, *, seed: int, epoch: int = 0) -> Sequences:
    count = len(sequences)
    return augmented(
        sequences, augmentation, seed=seed, epochs=np.full(count, epoch), samples=np.arange(count, dtype=np.int64)
    )


def _names(tokens: NDArray[np.integer], kind: str) -> list[str]:
    span = EVENTS.span(kind)
    return [EVENTS.names[token].partition("_")[2] for token in tokens.tolist() if token in span]


@given(st.one_of(_pieces, _windows))
def test_whole_sequences_say_themselves_again(sequences: Sequences) -> None:
    understood = whole(sequences)
    for number in np.flatnonzero(understood).tolist():
        alone = Sequences.of([sequences[number]])
        assert_array_equal(opened(alone).closed().tokens, alone.tokens)
        assert decode(alone.tokens).refused == 0


@given(_pieces)
def test_what_was_encoded_is_whole(sequences: Sequences) -> None:
    assert whole(sequences).all()
    again = opened(sequences).closed()
    assert_array_equal(again.tokens, sequences.tokens)
    assert_array_equal(again.starts, sequences.starts)


@given(_tokens, st.data())
def test_a_broken_sequence_is_not_whole(tokens: NDArray[np.uint16], data: st.DataObject) -> None:
    broken = tokens.copy()
    at = data.draw(st.integers(list(tokens).index(BAR), len(tokens) - 1))
    broken[at] = data.draw(st.integers(0, len(EVENTS) - 1))
    _check_understood(broken)


def test_a_sequence_that_lacks_a_token_is_not_whole() -> None:
    song = _song(2)
    lacking = [np.delete(song, at) for at in range(list(song).index(BAR), len(song))]
    for broken in lacking:
        _check_understood(broken)
    assert 0 < whole(Sequences.of(lacking)).sum() < len(lacking)


def _check_understood(broken: NDArray[np.uint16]) -> None:
    """What is called whole says the same to those that open it and to the decoder."""
    decoded = decode(broken)
    said = len(_names(broken, "Pitch")) + len(_names(broken, "Drum"))
    if whole(Sequences.of([broken]))[0]:
        grid = opened(Sequences.of([broken])).grid
        # A note that is said twice sounds once: odd music, but every token of it is understood.
        once = variation.levelled(grid, pieces=np.array([False]))
        assert len(once.notes) == len(decoded.score.notes)
        assert decoded.refused == said - len(once.notes)


@given(st.one_of(_pieces, _windows), _augmentations, _seeds)
def test_valid_music_stays_valid_and_in_its_place(sequences: Sequences, augmentation: Augmentation, seed: int) -> None:
    made = _augmented(sequences, augmentation, seed=seed)
    assert len(made) == len(sequences)
    assert (made.lengths <= sequences.lengths).all()
    understood = whole(sequences)
    assert whole(made)[understood].all()
    for number in range(len(made)):
        assert (made[number][-1] == END) == (sequences[number][-1] == END)
        assert decode(made[number]).refused <= decode(sequences[number]).refused
        assert [EVENTS.kinds[kind] for kind in EVENTS.kind_of[made[number][:7]]] == ["Start", *CONTROL_KINDS[:6]]


@given(st.one_of(_pieces, _windows), _augmentations, _seeds, st.integers(0, 3))
def test_the_same_draw_is_the_same_change_whatever_lies_beside_it(
    sequences: Sequences, augmentation: Augmentation, seed: int, epoch: int
) -> None:
    before = sequences.tokens.copy()
    made = _augmented(sequences, augmentation, seed=seed, epoch=epoch)
    assert_array_equal(sequences.tokens, before)
    for number in range(len(sequences)):
        alone = augmented(
            Sequences.of([sequences[number]]), augmentation, seed=seed,
            epochs=np.array([epoch]), samples=np.array([number]),
        )  # fmt: skip
        assert_array_equal(alone.tokens, made[number])


@given(st.one_of(_pieces, _windows), _seeds)
def test_no_augmentation_is_the_identity(sequences: Sequences, seed: int) -> None:
    for nothing in (Augmentation(), Augmentation(most_stretch=0.5), Augmentation(stretch_rate=1, most_stretch=0)):
        assert_array_equal(_augmented(sequences, nothing, seed=seed).tokens, sequences.tokens)


@pytest.mark.parametrize("name", [*RATES, "most_semitones", "control_dropout", "all_controls_dropout"])
def test_each_setting_changes_something_and_epochs_differ(name: str) -> None:
    sequences = Sequences.of([_song(number) for number in range(20)])
    kind = type(getattr(ALL, name))
    augmentation = replace(Augmentation(most_stretch=0.3), **{name: kind(1)})
    first, second = (_augmented(sequences, augmentation, seed=5, epoch=epoch) for epoch in (0, 1))
    changed = [not np.array_equal(first[number], sequences[number]) for number in range(20)]
    assert sum(changed) >= 5
    if name not in ("velocity_drop_rate", "control_dropout", "all_controls_dropout"):
        assert any(not np.array_equal(first[number], second[number]) for number in range(20))


@given(_seeds, st.integers(0, 5))
def test_a_setting_leaves_the_draws_of_the_others_alone(seed: int, epoch: int) -> None:
    sequences = Sequences.of([_song(number) for number in range(6)])
    plain = _augmented(sequences, Augmentation(most_semitones=6), seed=seed, epoch=epoch)
    varied = _augmented(sequences, replace(ALL, control_dropout=0.0), seed=seed, epoch=epoch)
    assert [_names(plain[n], "Key") for n in range(6)] == [_names(varied[n], "Key") for n in range(6)]


def test_draws_of_different_names_have_nothing_to_do_with_each_other() -> None:
    sequences = Sequences.of([_song(number) for number in range(40)])
    changed = []
    for name in RATES:
        made = _augmented(sequences, replace(Augmentation(most_stretch=1.0), **{name: 0.5}), seed=1)  # type: ignore[arg-type]
        changed.append(tuple(not np.array_equal(made[number], sequences[number]) for number in range(40)))
        assert 5 < sum(changed[-1]) < 35
    assert len(set(changed)) == len(RATES)


def test_a_tempo_class_that_nothing_in_the_window_tells_is_hidden() -> None:
    windows = Sequences.of(bar_windows(_song(1), max_tokens=180))
    assert [_names(windows[number], "Tempo") for number in range(3)] == [["100"], ["120"], []]
    made = _augmented(windows, Augmentation(stretch_rate=1, most_stretch=1.0), seed=1)
    assert [_names(made[number], "Tempo") for number in range(3)] == [["192"], ["168"], []]
    assert [_names(made[number], "TempoClass") for number in range(3)] == [["presto"], ["any"], ["andante"]]


def _song(number: int) -> NDArray[np.uint16]:
    """Eight bars of four voices, two of one family, with dynamics, drums and a tempo that changes."""
    random = np.random.default_rng(number)
    onset = np.repeat(np.arange(32) * 24, 4)
    score = Score.of(
        Notes.of(
            onset_ticks=onset,
            duration_ticks=random.choice([12, 24], len(onset)),
            pitch=random.integers(50, 70, len(onset)),
            velocity=random.choice([40, 80, 100], len(onset)),
            program=np.tile([0, 3, 40, 128], 32),
        ),
        ticks_per_quarter=24,
        tempos=[(0, 100.0), (5 * 96, 120.0)],
    )
    return encode(score, _controls(score))


@given(scores(), st.floats(0.4, 2.5))
def test_stretching_moves_every_tempo_and_nothing_else(score: Score, factor: float) -> None:
    grid = Grid.of(ScoreBatch.of([score, score]))
    made = variation.stretched(grid, factors=np.array([factor, 1.0]))
    for name in (field.name for field in fields(Grid) if not field.name.startswith("tempo")):
        assert getattr(made, name) is getattr(grid, name)
    before, after = (_tempo_at(each, each.notes.time_ticks) for each in (grid, made))
    count = grid.note_starts[1]
    wanted = nearest_tempo(np.array(TEMPOS_QPM)[before[:count]] * factor)
    assert_array_equal(after[:count], wanted)
    assert_array_equal(after[count:], before[count:])
    for piece in range(2):
        said = made.tempo[made.tempo_starts[piece] : made.tempo_starts[piece + 1]]
        assert (np.diff(said) != 0).all()


def _tempo_at(grid: Grid, time_ticks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the tempo in force at each time, -1 where no token of its piece has said one."""
    at = np.searchsorted(grid.tempo_time_ticks, time_ticks, side="right") - 1
    piece = np.searchsorted(grid.begin_ticks, time_ticks, side="right") - 1
    return np.where(at >= grid.tempo_starts[piece], grid.tempo[np.maximum(at, 0)] if len(grid.tempo) else -1, -1)


def _rows(grid: Grid, *, without: tuple[str, ...] = ()) -> list[tuple[int, ...]]:
    names = [name for name in ("time_ticks", "program", "duration", "velocity", "pitch") if name not in without]
    return sorted(zip(*(getattr(grid.notes, name).tolist() for name in names), strict=True))


@given(scores(), st.floats(0, 0.999))
def test_thinning_takes_one_voice_and_never_the_last(score: Score, draw: float) -> None:
    grid = Grid.of(ScoreBatch.of([score]))
    (gone,) = variation.chosen_voices(grid, draws=np.array([draw])).tolist()
    played = np.flatnonzero(grid.programs()[0]).tolist()
    made = variation.thinned(grid, programs=np.array([gone]))
    if len(played) < 2:
        assert gone == -1
        assert _rows(made) == _rows(grid)
    else:
        assert gone == played[int(draw * len(played))]
        assert _rows(made) == [row for row in _rows(grid) if row[1] != gone]
        assert len(made.notes)


@given(scores(), st.lists(st.integers(0, 7), min_size=16, max_size=16))
def test_instruments_stay_in_their_families_and_apart(score: Score, shifts: list[int]) -> None:
    grid = Grid.of(ScoreBatch.of([score]))
    made = variation.reinstrumented(grid, shifts=np.array([shifts]))
    assert _rows(made, without=("program",)) == _rows(grid, without=("program",))
    becomes = {
        program: program if program == DRUM_PROGRAM else program // 8 * 8 + (program + shifts[program // 8]) % 8
        for program in np.flatnonzero(grid.programs()[0]).tolist()
    }
    assert len(set(becomes.values())) == len(becomes)
    assert _rows(made) == sorted((row[0], becomes[row[1]], *row[2:]) for row in _rows(grid))


@given(scores())
def test_levelling_leaves_everything_but_dynamics(score: Score) -> None:
    grid = Grid.of(ScoreBatch.of([score, score]))
    made = variation.levelled(grid, pieces=np.array([True, False]))
    count = grid.note_starts[1]
    assert set(made.notes.velocity[:count].tolist()) <= {variation.ONE_VELOCITY}
    assert_array_equal(made.notes.velocity[count:], grid.notes.velocity[count:])
    assert _rows(made, without=("velocity",)) == _rows(grid, without=("velocity",))


@given(st.one_of(_pieces, _windows), st.lists(st.floats(0, 0.999), min_size=3, max_size=3))
def test_spliced_bars_keep_their_notes_meters_and_tempos(sequences: Sequences, draws: list[float]) -> None:
    understood = np.flatnonzero(whole(sequences))
    assume(len(understood) > 0)
    grid = opened(sequences.take(understood)).grid
    bars, starts = variation.spliced_bars(
        grid, pieces=np.ones(len(grid), dtype=bool), draws=np.tile(draws, (len(grid), 1))
    )
    made = variation.rearranged(grid, bars=bars, starts=starts)
    assert_array_equal(made.bar_starts, starts)
    assert_array_equal(made.bar_meter, grid.bar_meter[bars])
    for bar, source in enumerate(bars.tolist()):
        after, before = (_of_bar(made, bar), _of_bar(grid, source))
        assert [row[:-1] for row in after] == [row[:-1] for row in before]
        assert all(now[-1] <= then[-1] for now, then in zip(after, before, strict=True))
    for piece in range(len(grid)):
        _check_splice(
            (bars[starts[piece] : starts[piece + 1]] - grid.bar_starts[piece]).tolist(),
            held=int(np.diff(grid.bar_starts)[piece]),
            cut=draws[0] < 0.5,
        )


def _of_bar(grid: Grid, bar: int) -> list[tuple[int, ...]]:
    """Position, tempo, program, pitch, velocity and, last, duration of the notes of a bar."""
    start = grid.bar_time_ticks[bar]
    here = (grid.notes.time_ticks >= start) & (grid.notes.time_ticks < start + METER_TICKS[grid.bar_meter[bar]])
    notes, tempo = grid.notes, _tempo_at(grid, grid.notes.time_ticks)
    columns = (notes.time_ticks - start, tempo, notes.program, notes.pitch, notes.velocity, notes.duration)
    return sorted(zip(*(column[here].tolist() for column in columns), strict=True))


def _check_splice(bars: list[int], *, held: int, cut: bool) -> None:
    most = min(held // 2, variation.MOST_SPLICED_BARS)
    if bars == list(range(held)):
        assert not cut or most == 0
        return
    assert bars[0] == 0 or cut
    if cut:
        assert bars == sorted(set(bars))
        assert 1 <= held - len(bars) <= most
        gaps = [later - sooner for sooner, later in zip([-1, *bars], [*bars, held], strict=True)]
        assert sum(gap > 1 for gap in gaps) == 1
    else:
        assert len(bars) == held
        away = [bar for bar, source in enumerate(bars) if source != bar]
        assert away == list(range(away[0], away[-1] + 1))
        assert [bars[bar] for bar in away] == list(range(away[0] - len(away), away[0]))
        assert len(away) <= most


@pytest.mark.parametrize("most_tokens", [120, 180, 250, 999])
def test_windows_that_begin_without_a_tempo_are_spliced_where_it_can_be_said(most_tokens: int) -> None:
    windows = Sequences.of(bar_windows(_song(3), max_tokens=most_tokens))
    steps = np.arange(0, 1, 0.2)
    draws = np.array([(what, count, first) for what in (0, 0.9) for count in steps for first in steps])
    for number in range(len(windows)):
        grid = opened(Sequences.of([windows[number]] * len(draws))).grid
        bars, starts = variation.spliced_bars(grid, pieces=np.ones(len(draws), dtype=bool), draws=draws)
        made = variation.rearranged(grid, bars=bars, starts=starts)
        for bar, source in enumerate(bars.tolist()):
            assert [row[:2] for row in _of_bar(made, bar)] == [row[:2] for row in _of_bar(grid, source)]


def test_a_piece_that_lost_its_beginning_tells_the_tempo_that_it_now_begins_with() -> None:
    song = encode(_two_tempos(), _controls(_two_tempos()))
    count = 60
    made = _augmented(Sequences.of([song] * count), Augmentation(splice_rate=1), seed=1)
    told = {(*_names(made[number], "TempoClass"), _names(made[number], "Tempo")[0]) for number in range(count)}
    assert told == {(tempo_class(60.0), "60"), (tempo_class(120.0), "120")}


def test_tempos_that_meet_at_the_scales_end_are_said_once() -> None:
    score = replace(_two_tempos(), tempo_qpm=np.array([270.0, 300.0]))
    made = variation.stretched(Grid.of(ScoreBatch.of([score, score])), factors=np.array([2.0, 1.0]))
    assert [TEMPOS_QPM[tempo] for tempo in made.tempo] == [304, 268, 304]
    assert made.tempo_starts.tolist() == [0, 1, 3]


def test_the_tempo_that_a_stretch_began_with_is_said_again() -> None:
    grid = Grid.of(ScoreBatch.of([_two_tempos()]))
    made = variation.rearranged(grid, bars=np.array([0, 1, 0, 1, 3]), starts=np.array([0, 5]))
    assert [TEMPOS_QPM[tempo] for tempo in made.tempo] == [60, 120, 60, 120]
    assert made.tempo_time_ticks.tolist() == [0, 96, 192, 288]
    cut = variation.rearranged(grid, bars=np.array([0, 2, 3]), starts=np.array([0, 3]))
    assert list(zip(cut.tempo_time_ticks.tolist(), [TEMPOS_QPM[tempo] for tempo in cut.tempo], strict=True)) == [
        (0, 60), (96, 120),
    ]  # fmt: skip


def _two_tempos() -> Score:
    onset = np.arange(16) * 24
    notes = Notes.of(onset_ticks=onset, duration_ticks=np.full(16, 24), pitch=60 + np.arange(16))
    return Score.of(notes, ticks_per_quarter=24, tempos=[(0, 60.0), (96, 120.0)])


@given(_tokens, _seeds)
def test_controls_go_on_telling_the_truth(tokens: NDArray[np.uint16], seed: int) -> None:
    changes = replace(ALL, control_dropout=0.0, most_semitones=0)
    made = _augmented(Sequences.of([tokens]), changes, seed=seed).tokens
    decoded = decode(made)
    families = dict.fromkeys(instrument_of(int(program)) for program in np.unique(decoded.score.notes.program))
    if _names(made, "Instruments") != ["any"]:
        assert set(families) <= set(_names(made, "Instruments"))
    (told,) = _names(made, "TempoClass")
    assert told in ("any", tempo_class(float(decoded.score.tempo_qpm[0])))
    if len(bars_of_tokens(made)) != len(bars_of_tokens(tokens)):
        assert _names(made, "Length") == _names(made, "Density") == ["any"]
    if not np.array_equal(decoded.score.notes.velocity, decode(tokens).score.notes.velocity):
        assert _names(made, "Mood") == ["any"] or len(decoded.score.notes) != len(decode(tokens).score.notes)
    assert _names(made, "Collection") == ["3"]
    assert _names(made, "Key") == ["D minor"]


@given(_tokens, _seeds)
def test_a_voice_that_left_is_told_of_no_more(tokens: NDArray[np.uint16], seed: int) -> None:
    made = _augmented(Sequences.of([tokens]), Augmentation(thin_rate=1), seed=seed).tokens
    before, after = (np.unique(decode(each).score.notes.program).tolist() for each in (tokens, made))
    if np.array_equal(made, tokens):
        return
    assert len(after) == len(before) - 1
    assert _names(made, "Instruments") == list(dict.fromkeys(instrument_of(program) for program in after))
    assert _names(made, "Density") == _names(made, "Mood") == ["any"]
    assert _names(made, "Length") == ["8"]


def bars_of_tokens(tokens: NDArray[np.uint16]) -> NDArray[np.int64]:
    return np.flatnonzero(tokens == BAR)


@given(_pieces, st.integers(-6, 6))
def test_transposition_moves_every_pitch_and_returns(sequences: Sequences, semitones: int) -> None:
    moved = transposed(sequences, semitones=np.full(len(sequences), semitones))
    back = transposed(moved, semitones=np.full(len(sequences), -semitones))
    for number in range(len(sequences)):
        before, after = decode(sequences[number]).score.notes, decode(moved[number]).score.notes
        melodic = before.program < DRUM_PROGRAM
        shift = set((after.pitch.astype(int) - before.pitch)[melodic].tolist())
        assert shift <= {semitones} or shift == {0}
        assert_array_equal(before.pitch[~melodic], after.pitch[~melodic])
        if shift == {semitones}:
            assert_array_equal(back[number], sequences[number])


@given(_pieces, st.data())
def test_hidden_controls_leave_the_music(sequences: Sequences, data: st.DataObject) -> None:
    kinds = np.array(
        data.draw(
            st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=len(sequences), max_size=len(sequences))
        )
    )
    made = hide_controls(sequences, kinds=kinds)
    for number, hidden in enumerate(kinds.tolist()):
        before, after = sequences[number], made[number]
        assert_array_equal(after[list(after).index(BAR) :], before[list(before).index(BAR) :])
        for kind, hide in zip(CONTROL_KINDS, hidden, strict=True):
            assert _names(after, kind) == (["any"] if hide else _names(before, kind))


def test_all_controls_are_hidden_together_as_often_as_is_asked_and_the_others_go_on_as_before() -> None:
    pieces = 2000
    sequences = Sequences.of([encode(_song_with_notes(), _controls(_song_with_notes()))] * pieces)
    alone = _augmented(sequences, Augmentation(control_dropout=0.2), seed=3)
    both = _augmented(sequences, Augmentation(control_dropout=0.2, all_controls_dropout=0.25), seed=3)
    hidden = _hidden(both)
    everything = hidden.all(axis=1)
    # Apart, all seven would meet in one of 78,125.
    assert everything.mean() == pytest.approx(0.25, abs=0.04)
    assert_array_equal(hidden[~everything], _hidden(alone)[~everything])


def _song_with_notes() -> Score:
    return decode(_song(0)).score


def _hidden(sequences: Sequences) -> NDArray[np.bool_]:
    """Which kinds of controls say nothing; shape (W, C)."""
    unsaid = [f"{kind}_any" for kind in CONTROL_KINDS]
    heads = [{EVENTS.names[token] for token in sequences[number].tolist()} for number in range(len(sequences))]
    return np.array([[name in head for name in unsaid] for head in heads])
