"""Piano-rolls: what a window holds, which notes are whose, what is left out, and the dataset of them."""

from __future__ import annotations

import uuid
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.music import walk, works_table
from tutti import lineage
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.dataset import rolls as roll_datasets
from tutti.dataset.blocks import Blocks
from tutti.dataset.packed import Packed
from tutti.dataset.rolls import RollLayout, pack_rolls
from tutti.errors import IntegrityError, UserError
from tutti.features import roll
from tutti.features.roll import BARS, BASS, BEGINS, CLASSES, DRUMS, KEYS, LEAD, LOWEST_PITCH, SOUNDS, STRINGS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import to_parquet

BAR_TICKS = 96


def score_of(rows: list[tuple[int, int, int, int, int]], **told: list[tuple[int, ...]]) -> Score:
    """Rows of onset and duration in ticks of 24 a quarter, pitch, program, part."""
    onset, duration, pitch, program, track = np.array(rows).T
    notes = Notes.of(onset_ticks=onset, duration_ticks=duration, pitch=pitch, program=program, track=track)
    return Score.of(notes, ticks_per_quarter=24, **told)


def marks_of(score: Score, *, hop_bars: int = BARS) -> NDArray[np.bool_]:
    made = roll.rolls_of(score, tracks=roll.tracks_of(score.notes), mood="calm", hop_bars=hop_bars)
    return roll.dense(np.concatenate(made.tokens), lengths=np.array([len(tokens) for tokens in made.tokens]))[1]


def to_last_bar(bars: int = BARS) -> list[tuple[int, int, int, int, int]]:
    """A hit in the last bar, so that the score has it, and a part of another group, so that programs decide."""
    return [(bars * BAR_TICKS - 6, 6, 36, DRUM_PROGRAM, 9), (0, 6, 30, 33, 8)]


def test_repeated_notes_are_not_a_held_one() -> None:
    held, repeated = (
        score_of([*((onset, length, 60, 0, 0) for onset in onsets), *to_last_bar()])
        for onsets, length in (((0,), 48), ((0, 24), 24))
    )
    assert_array_equal(marks_of(held)[:, SOUNDS], marks_of(repeated)[:, SOUNDS])
    cells = marks_of(held)[0, BEGINS, 0, :, 60 - LOWEST_PITCH, KEYS], marks_of(repeated)[0, BEGINS, 0, :, 36, KEYS]
    assert [np.flatnonzero(cell).tolist() for cell in cells] == [[0], [0, 4]]
    for score in (held, repeated):
        again = roll.score_of(marks_of(score), tempo_qpm=120).notes
        lengths = again.duration_ticks[again.pitch == 60].tolist()
        assert lengths == ([48] if score is held else [24, 24])


def test_a_note_over_the_edge_of_two_windows_is_one_note() -> None:
    score = score_of([(3 * BAR_TICKS, 2 * BAR_TICKS, 60, 0, 0), *to_last_bar(8)])
    marks = marks_of(score)
    assert marks.shape[0] == 2
    assert marks[1, SOUNDS, 0, :, 36, KEYS].all()
    assert not marks[1, BEGINS, 0, :, 36, KEYS].any()
    together = roll.score_of(marks, tempo_qpm=90).notes
    assert together.duration_ticks[together.pitch == 60].tolist() == [2 * BAR_TICKS]
    alone = roll.score_of(marks[1:], tempo_qpm=90).notes
    assert alone.duration_ticks[alone.pitch == 60].tolist() == [BAR_TICKS]


def test_times_come_to_the_nearest_sixteenth_and_no_note_is_lost() -> None:
    rows = [(2, 1, 60, 0, 0), (3, 1, 62, 0, 0), (BAR_TICKS - 1, 8, 64, 0, 0), (4 * BAR_TICKS - 1, 30, 65, 0, 0)]
    begins = marks_of(score_of([*rows, *to_last_bar()]))[0, BEGINS, :, :, :, KEYS]
    bar, step, pitch = np.nonzero(begins)
    assert list(zip(bar.tolist(), step.tolist(), (pitch + LOWEST_PITCH).tolist(), strict=True)) == [
        (0, 0, 60), (0, 1, 62), (1, 0, 64), (3, 15, 65),
    ]  # fmt: skip


def test_of_two_notes_in_one_cell_the_longer_stays_and_another_beginning_ends_it() -> None:
    score = score_of([(0, 6, 60, 0, 0), (0, 72, 60, 4, 1), (24, 6, 60, 6, 2), *to_last_bar()])
    notes = roll.score_of(marks_of(score), tempo_qpm=120).notes
    chosen = notes.pitch == 60
    assert notes.onset_ticks[chosen].tolist() == [0, 24]
    assert notes.duration_ticks[chosen].tolist() == [24, 6]


def test_pitches_outside_come_in_by_octaves_and_drum_keys_outside_are_left_out() -> None:
    rows = [(0, 6, 23, 0, 0), (6, 6, 108, 0, 0), (12, 6, 127, 0, 0), (18, 6, 20, DRUM_PROGRAM, 1)]
    notes = roll.score_of(marks_of(score_of([*rows, *to_last_bar()])), tempo_qpm=120).notes
    assert notes.pitch[notes.program == 0].tolist() == [35, 96, 103]
    assert notes.pitch[notes.program == DRUM_PROGRAM].tolist() == [36]


def test_a_drum_is_hit_for_one_step_however_long_it_was_written() -> None:
    marks = marks_of(score_of([(0, 200, 38, DRUM_PROGRAM, 0), *to_last_bar()]))
    assert marks[0, SOUNDS, ..., 38 - LOWEST_PITCH, DRUMS].sum() == 1
    held = np.zeros_like(marks)
    held[0, SOUNDS, 0, :3, 38 - LOWEST_PITCH, DRUMS] = True
    assert roll.score_of(held, tempo_qpm=120).notes.duration_ticks.tolist() == [6, 6, 6]


def test_bars_of_other_meters_are_left_out_and_counted() -> None:
    rows = [(bar * 24, 24, 60, 0, 0) for bar in range(60)]
    # 5 bars of 4/4, 2 of 3/4, 4 of 2/2, and of 4/4 four and a half.
    meters = [(0, 4, 4), (480, 3, 4), (624, 2, 2), (1008, 4, 4)]
    made = roll.rolls_of(score_of(rows, meters=meters), tracks=np.zeros(60, int) + KEYS, mood="sad", hop_bars=BARS)
    assert made.bars == [0, 7, 11]
    assert made.left_out == Counter(meter=2, short=2)
    hopping = roll.rolls_of(score_of(rows, meters=meters), tracks=np.full(60, KEYS), mood="sad", hop_bars=1)
    assert hopping.bars == [0, 1, 7, 8, 9, 10, 11, 12]
    assert hopping.left_out == Counter(meter=2)
    assert [roll.notes_in(tokens) for tokens in hopping.tokens] == [16] * 7 + [14]


def test_a_note_ends_where_its_run_of_bars_ends() -> None:
    rows = [(0, 100 * BAR_TICKS, 60, 0, 0), (8 * BAR_TICKS + 72, 6, 64, 0, 0)]
    meters = [(0, 4, 4), (4 * BAR_TICKS, 3, 4), (4 * BAR_TICKS + 72, 4, 4)]
    marks = roll.rolls_of(score_of(rows, meters=meters), tracks=np.full(2, KEYS), mood="sad", hop_bars=BARS).tokens
    assert [len(tokens) - roll.HEAD_TOKENS for tokens in marks] == [64, 0]


def test_the_head_says_the_mood_and_the_class_of_the_tempo_in_force() -> None:
    score = score_of([(bar * BAR_TICKS, 96, 60, 0, 0) for bar in range(8)], tempos=[(0, 100.0), (300, 180.0)])
    made = roll.rolls_of(score, tracks=np.full(8, KEYS), mood="tense", hop_bars=BARS)
    heads = [tokens[: roll.HEAD_TOKENS].tolist() for tokens in made.tokens]
    assert heads == [roll.head_of(mood="tense", tempo=tempo).tolist() for tempo in ("andante", "presto")]
    classes, _ = roll.dense(np.concatenate(made.tokens), lengths=np.array([len(tokens) for tokens in made.tokens]))
    assert [[CLASSES["mood"][a], CLASSES["tempo"][b]] for a, b in classes.tolist()] == [
        ["tense", "andante"], ["tense", "presto"],
    ]  # fmt: skip


def test_every_token_fits_sixteen_bits_and_means_one_thing() -> None:
    last = roll.head_of(mood="neutral", tempo="prestissimo")
    assert last.tolist() == [2 * roll.CELLS + len(CLASSES["mood"]) - 1, 2 * roll.CELLS + 6 + len(CLASSES["tempo"]) - 1]
    assert int(last[-1]) < 2**16


@pytest.mark.parametrize(
    ("rows", "tracks"),
    [
        pytest.param(
            [(0, 6, 36, 128, 0), (0, 6, 30, 33, 1), (0, 6, 60, 0, 2), (0, 6, 62, 25, 3), (0, 6, 64, 48, 4),
             (0, 6, 70, 73, 5)],
            [DRUMS, BASS, KEYS, KEYS, STRINGS, LEAD],
            id="a band by its programs",
        ),
        pytest.param(
            [(0, 24, 72, 0, 0), (0, 24, 64, 0, 1), (0, 24, 60, 0, 2), (0, 24, 48, 0, 3), (24, 24, 63, 0, 0),
             (24, 24, 65, 0, 1)],
            [LEAD, STRINGS, KEYS, BASS, LEAD, STRINGS],
            id="a chorale by its parts, voices crossing",
        ),
        pytest.param(
            [(0, 96, 40, 0, 0), (0, 24, 72, 0, 0), (0, 24, 64, 0, 0), (0, 24, 55, 0, 0), (24, 24, 76, 0, 0)],
            [BASS, LEAD, STRINGS, KEYS, LEAD],
            id="a keyboard by what sounds together",
        ),
        pytest.param([(0, 24, 72, 40, 0), (24, 24, 60, 40, 0)], [LEAD, LEAD], id="a voice alone sings"),
        pytest.param(
            [(0, 6, 36, 128, 0), (0, 24, 72, 0, 0), (0, 24, 48, 0, 0)], [DRUMS, LEAD, BASS], id="drums are no group"
        ),
        pytest.param([(0, 6, 36, 128, 0)], [DRUMS], id="drums alone"),
    ],
)  # fmt: skip
def test_which_notes_are_whose(rows: list[tuple[int, int, int, int, int]], tracks: list[int]) -> None:
    onset, duration, pitch, program, track = np.array(rows).T
    notes = Notes.of(onset_ticks=onset, duration_ticks=duration, pitch=pitch, program=program, track=track)
    assert roll.tracks_of(notes).tolist() == tracks


def works_dataset(root: Folder, table: pa.Table, *, shards: int = 3) -> Dataset:
    size = -(-table.num_rows // shards)
    files = [
        lineage.write_file(root / "works", f"works-{n:05d}.parquet", to_parquet(table.slice(n * size, size)))
        for n in range(shards)
    ]
    facts = {
        "works": table.num_rows,
        "notes": int(sum(table.column("notes").to_pylist())),
        "licences": dict(Counter(table.column("licence").to_pylist())),
    }
    return lineage.publish(root / "works", kind="works", name="walks", inputs={}, files=files, facts=facts)


@pytest.fixture
def root() -> Folder:
    return Folder(f"memory://{uuid.uuid4().hex}")


def test_a_dataset_holds_every_roll_of_every_work_that_may_train(root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_datasets.blocks, "BLOCK_BYTES", 8 * roll_datasets.USUAL_TOKENS)
    table = pa.concat_tables([works_table(20, bars=9), works_table(4, bars=5, licence="CC-BY-NC-4.0")])
    works = works_dataset(root, table)
    dataset = pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=2)
    facts = dataset.facts
    assert facts["works"] == 20
    assert facts["licences"] == {"CC0-1.0": 20}
    assert facts["left_out"] == {"short": 20}
    assert {split: sources["walks"]["sequences"] for split, sources in facts["sequences"].items()} == {
        "test": 6, "train": 42, "valid": 12,
    }  # fmt: skip
    wanted = Counter[bytes]()
    for seed in range(20):
        score = walk(seed, bars=9)
        made = roll.rolls_of(score, tracks=roll.tracks_of(score.notes), mood="calm", hop_bars=2)
        wanted.update(tokens[roll.HEAD_TOKENS :].tobytes() for tokens in made.tokens)
    found = Counter[bytes]()
    numbers = list[int]()
    for split in facts["sequences"]:
        blocks = Blocks(dataset, split=split, with_pieces=True, patience_s=0)
        for block in range(blocks.sources[0].blocks):
            held = blocks.read(0, block)
            starts = held.token_starts
            found.update(
                held.tokens[start + roll.HEAD_TOKENS : stop].tobytes()
                for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
            )
            numbers += held.pieces.tolist()
    assert found == wanted
    assert sorted(numbers) == list(range(60))
    assert numbers != sorted(numbers), "rolls of one work do not lie together"
    assert facts["split_notes"]["test"] == 6 * 20
    assert facts["track_programs"][LEAD] == 0, "walks are played on a piano"


def test_a_second_run_finds_the_first_and_another_hop_does_not(root: Folder) -> None:
    works = works_dataset(root, works_table(10))
    first = pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=4)
    again = pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=4)
    assert again == first
    assert pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=1).address != first.address


def test_works_without_licence_or_window_are_refused_by_name(root: Folder) -> None:
    works = works_dataset(root, works_table(10, bars=3))
    with pytest.raises(UserError, match="no work of walks has a licence of MIT"):
        pack_rolls(works, licences=("MIT",), root=root, name="walks", hop_bars=4)
    with pytest.raises(UserError, match="no work of walks has 4 bars of four quarters in a row"):
        pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=4)


def held_of(count: int) -> Packed:
    scores = [walk(seed) for seed in range(count)]
    rolls = [
        roll.rolls_of(score, tracks=roll.tracks_of(score.notes), mood="sad", hop_bars=4).tokens[0] for score in scores
    ]
    return Packed.of(
        np.concatenate(rolls),
        lengths=np.array([len(tokens) for tokens in rolls]),
        pieces=np.arange(count) * 3,
        counts=np.ones(count, dtype=np.int64),
    )


def test_a_layout_fills_up_with_silent_rows_that_do_not_count() -> None:
    batch = RollLayout(most_semitones=0, class_dropout=0.0).laid(held_of(3), num_rows=5)
    assert batch.roll_RMBSPK.shape == (5, *roll.SHAPE)
    assert batch.num_targets == 3
    assert [batch.rows(start, start + 2).num_targets for start in (0, 2, 4)] == [2, 1, 0]
    assert not batch.roll_RMBSPK[3:].any()
    assert batch.arrays()["classes"].tolist()[2:] == [[CLASSES["mood"].index("sad"), 3], [0, 0], [0, 0]]


def test_what_a_roll_becomes_is_a_function_of_seed_epoch_and_its_number() -> None:
    layout, held = RollLayout(most_semitones=5, class_dropout=0.4), held_of(40)
    epochs = np.arange(40) % 3
    changed = layout.changed(held, seed=7, epochs=epochs)
    classes, marks = roll.dense(changed.tokens, lengths=changed.lengths)
    for row in (0, 17, 39):
        alone = layout.changed(held.rows(row, row + 1), seed=7, epochs=epochs[row : row + 1])
        assert_array_equal(alone.tokens, changed.rows(row, row + 1).tokens)
    original = roll.dense(held.tokens, lengths=held.lengths)[1]
    by = np.array([np.nonzero(a)[-2].min() for a in marks]) - np.array([np.nonzero(a)[-2].min() for a in original])
    assert set(by.tolist()) == set(range(-5, 6))
    assert 0.2 < (classes == 0).mean() < 0.6
    assert ((classes == 0).any(axis=1) & (classes != 0).any(axis=1)).any(), "each class is hidden by itself"
    assert not np.array_equal(layout.changed(held, seed=7, epochs=epochs + 3).tokens, changed.tokens)


def test_at_home_a_roll_is_the_same_from_whatever_key_it_came() -> None:
    layout, held = RollLayout(most_semitones=0, class_dropout=0.0, home_key=True), held_of(6)
    home = layout.laid(held, num_rows=6).roll_RMBSPK
    assert (home != RollLayout(most_semitones=0, class_dropout=0.0).laid(held, num_rows=6).roll_RMBSPK).any()
    for semitones in (-3, 2, 6):
        moves = np.full(6, semitones)
        moved = roll.transposed(held.tokens, lengths=held.lengths, semitones=moves)
        away = roll.semitones_home(moved, lengths=held.lengths)
        assert_array_equal((away + moves - roll.semitones_home(held.tokens, lengths=held.lengths)) % 12, 0)
        there = Packed.of(moved, lengths=held.lengths, pieces=held.pieces, counts=held.counts)
        laid = layout.laid(there, num_rows=6).roll_RMBSPK
        same = (away + moves) == roll.semitones_home(held.tokens, lengths=held.lengths)
        assert_array_equal(laid[same], home[same])
        assert same.any()


def test_rolls_of_another_version_are_refused(root: Folder) -> None:
    works = works_dataset(root, works_table(10))
    dataset = pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=4)
    layout = RollLayout(most_semitones=0, class_dropout=0.0)
    layout.check(dataset.facts, where="here")
    with pytest.raises(IntegrityError, match="here holds rolls of another shape or version"):
        layout.check({**dataset.facts, "rolls": {**dataset.facts["rolls"], "bars": 8}}, where="here")
