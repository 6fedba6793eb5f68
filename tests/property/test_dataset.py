"""Laws of packing and the loader: nothing lost, equal batches on any number of ranks, after any resume."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.tokens import PITCHES, tokens_dataset
from tutti.dataset import blocks, packing, shards
from tutti.dataset.loader import Loader
from tutti.dataset.packed import Packed
from tutti.dataset.sequences import SequenceBatch, SequenceLayout
from tutti.errors import IntegrityError, RecipeError, UserError
from tutti.features.augment import Augmentation
from tutti.features.events import bar_windows
from tutti.features.vocabulary import BAR, END, PAD, START
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import SEQUENCES, from_parquet

SEQUENCE_TOKENS = 96
AUGMENTATION = Augmentation(most_semitones=5, control_dropout=0.3)
FROZEN_BATCHES = "5a1a7a5e0ab7bc10"
_COLUMNS = ("inputs_BT", "targets_BT", "segments_BT")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few works make many blocks, the last of them short, and several files."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 * SEQUENCE_TOKENS * 5)
    monkeypatch.setattr(blocks, "FILE_BLOCKS", 3)


def packed(num_works: int = 60, **told: Any) -> Dataset:
    tokens = tokens_dataset(num_works, **told)
    return packing.pack(
        tokens, root=Folder(tokens.folder.uri), name="drawn", sequence_tokens=SEQUENCE_TOKENS, bucket_bytes=6000
    )


@contextmanager
def loader_of(sequences: Dataset, **told: Any) -> Iterator[Loader]:
    settings = {"split": "train", "batch_sequences": 8, "seed": 3, "augmentation": AUGMENTATION, "shuffle_blocks": 2}
    settings |= told
    layout = SequenceLayout(sequence_tokens=SEQUENCE_TOKENS, augmentation=settings.pop("augmentation"))
    with closing(Loader(sequences, layout=layout, **settings)) as loader:
        yield loader


def same(batch: SequenceBatch, other: SequenceBatch) -> None:
    for column in _COLUMNS:
        assert_array_equal(getattr(batch, column), getattr(other, column))
        assert getattr(batch, column).dtype == getattr(other, column).dtype


@given(st.lists(st.integers(1, 64), max_size=200))
def test_a_plan_conserves_pieces_and_fits(lengths: list[int]) -> None:
    plan = packing.plan(np.array(lengths, dtype=np.int64), sequence_tokens=64)
    assert sorted(plan.pieces.tolist()) == list(range(len(lengths)))
    used = [sum(lengths[piece] for piece in plan.of(sequence).tolist()) for sequence in range(len(plan))]
    assert all(0 < tokens <= 64 for tokens in used)
    assert sum(tokens <= 32 for tokens in used) <= 1


def test_piece_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens does not fit a sequence of 64"):
        packing.plan(np.array([3, 65]), sequence_tokens=64)


def pieces_on_storage(sequences: Dataset, *, split: str, source: str) -> dict[int, NDArray[np.uint16]]:
    """Pieces by number, as any reader of Parquet finds them."""
    found = {}
    for path in sequences.paths(".parquet"):
        if path.startswith(f"sequences-{split}-"):
            for row in from_parquet(sequences.read(path), SEQUENCES).to_pylist():
                tokens = np.frombuffer(row["tokens"], "<u2")
                assert len(tokens) == sum(row["lengths"]) <= SEQUENCE_TOKENS + len(row["lengths"])
                parts = np.split(tokens, np.cumsum(row["lengths"])[:-1])
                if row["source"] == source:
                    assert not found.keys() & set(row["pieces"])
                    found.update(zip(row["pieces"], parts, strict=True))
    return found


@settings(max_examples=8)
@given(st.integers(1, 60), st.sampled_from([("bach",), ("bach", "folk/songs: 1")]), st.integers(0, 9))
def test_packing_conserves_pieces(num_works: int, collections: tuple[str, ...], seed: int) -> None:
    told: dict[str, Any] = {"collections": collections, "splits": ("train", "valid"), "seed": seed}
    sequences, tokens = packed(num_works, **told), tokens_dataset(num_works, **told)
    numbers = list[int]()
    for split in sequences.facts["sequences"]:
        works, wanted = shards.read(tokens, split=split), list[bytes]()
        for number in range(len(works)):
            wanted += [part.tobytes() for part in bar_windows(works[number], max_tokens=SEQUENCE_TOKENS + 1)]
        found = list[bytes]()
        for slot, source in enumerate(collections):
            held = pieces_on_storage(sequences, split=split, source=source)
            heads = {int(piece[1]) for piece in held.values()}
            assert len(heads) <= 1, f"{source} ({slot}) holds pieces of {heads}"
            found += [piece.tobytes() for piece in held.values()]
            numbers += held
        assert sorted(found) == sorted(wanted)
        assert sequences.facts["split_notes"][split] == works.notes
    assert sorted(numbers) == list(range(len(numbers)))


def test_packing_again_finds_what_was_packed_and_makes_the_same_bytes() -> None:
    first, tokens = packed(), tokens_dataset(60)
    root = Folder("memory://elsewhere")
    told: dict[str, Any] = {"name": "drawn", "sequence_tokens": SEQUENCE_TOKENS, "bucket_bytes": 6000}
    again = packing.pack(tokens, root=root, **told)
    assert (again.files, again.address) == (first.files, first.address)
    assert packing.pack(tokens, root=root, **told) == again
    assert packing.pack(tokens, root=root, **{**told, "sequence_tokens": 95}).address != again.address


def test_sequences_are_nearly_full() -> None:
    for group in packed(300).facts["sequences"]["train"].values():
        assert group["inputs"] / (group["sequences"] * SEQUENCE_TOKENS) > 0.95


def laid_by_hand(parts: list[NDArray[np.uint16]]) -> list[NDArray[np.int64]]:
    rows = [np.full(SEQUENCE_TOKENS, value, dtype=np.int64) for value in (PAD, PAD, -1)]
    at = 0
    for number, tokens in enumerate(parts):
        end = at + len(tokens) - 1
        rows[0][at:end] = tokens[:-1]
        rows[1][at:end] = np.where((tokens[1:] >= BAR) | (tokens[1:] == END), tokens[1:], PAD)
        rows[2][at:end] = number
        at = end
    return rows


def test_batches_are_what_storage_holds() -> None:
    sequences = packed()
    rows = list[list[NDArray[np.uint16]]]()
    for path in sequences.paths(".parquet"):
        if path.startswith("sequences-"):
            for row in from_parquet(sequences.read(path), SEQUENCES).to_pylist():
                rows.append(np.split(np.frombuffer(row["tokens"], "<u2"), np.cumsum(row["lengths"])[:-1]))
    with loader_of(sequences, augmentation=None) as plain, loader_of(sequences) as augmenting:
        assert plain.num_sequences == len(rows)
        for number in range(len(rows) // 8 + 1):
            batch = plain.batch(number)
            for at, sequence in enumerate(plain.order(number)[2].tolist()):
                for column, wanted in zip(_COLUMNS, laid_by_hand(rows[sequence]), strict=True):
                    assert_array_equal(getattr(batch, column)[at], wanted)
        unchanged = [each.in_order(rank=0, num_ranks=1, rows=7) for each in (plain, augmenting)]
        for batch, other in zip(*unchanged, strict=True):
            same(batch, other)


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION, Augmentation(most_semitones=2, splice_rate=0.5)])
def test_a_global_batch_is_the_same_on_1_2_4_8_ranks(augmentation: Augmentation | None) -> None:
    with loader_of(packed(), augmentation=augmentation) as loader:
        for number in (0, 1, 7, 1000):
            whole = loader.batch(number)
            for num_ranks in (2, 4, 8):
                share = 8 // num_ranks
                parts = [loader.batch(number, first=at, stop=at + share) for at in range(0, 8, share)]
                joined = SequenceBatch(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))
                same(joined, whole)
                same(whole.rows(share, 2 * share), parts[1])


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
def test_order_files_are_the_same_bytes_on_any_ranks_and_after_any_resume(num_ranks: int) -> None:
    """Each rank goes on where it was killed; the ranks that come after are another number."""
    sequences = packed(collections=("bach", "folk"))
    told: dict[str, Any] = {"mixture": {"bach": 0.3, "folk": 0.7}}

    def order_file(numbers: range, loader: Loader) -> bytes:
        return b"".join(np.stack(loader.order(number)).astype("<i8").tobytes() for number in numbers)

    with loader_of(sequences, **told) as loader:
        straight = order_file(range(40), loader)
        reference = [loader.batch(number) for number in range(40)]
    for stop in (1, 17, 39):
        recorded = b""
        for numbers, ranks in ((range(stop), num_ranks), (range(stop, 40), 2)):
            share = 8 // ranks
            with loader_of(sequences, **told) as loader:
                recorded += order_file(numbers, loader)
                for rank in range(ranks):
                    rows = {"first": rank * share, "stop": (rank + 1) * share}
                    with closing(loader.stream(numbers, **rows)) as batches:
                        for number, batch in zip(numbers, batches, strict=True):
                            same(batch, reference[number].rows(rank * share, (rank + 1) * share))
        assert recorded == straight


def test_batches_are_frozen() -> None:
    state = hashlib.sha256()
    with loader_of(packed()) as loader:
        for number in range(12):
            batch = loader.batch(number)
            for column in _COLUMNS:
                state.update(getattr(batch, column).astype("<i8").tobytes())
    assert state.hexdigest()[:16] == FROZEN_BATCHES


@settings(max_examples=15)
@given(st.lists(st.integers(0, 500), max_size=40), st.integers(0, 7), st.integers(1, 8))
def test_a_stream_gives_what_each_number_gives(numbers: list[int], first: int, rows: int) -> None:
    stop = min(first + rows, 8)
    with loader_of(packed(40)) as loader:
        streamed = list(loader.stream(numbers, first=first, stop=stop))
        assert len(streamed) == len(numbers)
        for number, batch in zip(numbers, streamed, strict=True):
            same(batch, loader.batch(number, first=first, stop=stop))


@settings(max_examples=10)
@given(st.integers(1, 30), st.sampled_from([1, 2, 3]), st.integers(1, 9))
def test_validation_reads_every_event_once(num_works: int, num_ranks: int, rows: int) -> None:
    works = shards.read(tokens_dataset(num_works, most_notes=60), split="train")
    with loader_of(packed(num_works, most_notes=60)) as loader:
        batches = [list(loader.in_order(rank=rank, num_ranks=num_ranks, rows=rows)) for rank in range(num_ranks)]
    assert len({len(of_rank) for of_rank in batches}) == 1
    assert all(batch.inputs_BT.shape == (rows, SEQUENCE_TOKENS) for of_rank in batches for batch in of_rank)
    seen = np.concatenate([batch.targets_BT.ravel() for of_rank in batches for batch in of_rank])
    played = works.tokens[np.isin(works.tokens, PITCHES)]
    assert_array_equal(np.sort(seen[np.isin(seen, PITCHES)]), np.sort(played))
    assert (seen == END).sum() == num_works


def test_targets_follow_inputs_within_a_piece_and_never_name_a_control() -> None:
    with loader_of(packed()) as loader:
        batch = loader.batch(0)
    learnt = batch.targets_BT != PAD
    assert batch.num_targets == learnt.sum()
    assert not np.isin(batch.targets_BT[learnt], np.arange(START, BAR)[np.arange(START, BAR) != END]).any()
    inside = learnt[:, :-1] & (batch.segments_BT[:, :-1] == batch.segments_BT[:, 1:])
    assert_array_equal(batch.targets_BT[:, :-1][inside], batch.inputs_BT[:, 1:][inside])


def test_a_mixture_draws_its_shares() -> None:
    with loader_of(packed(collections=("bach", "folk")), mixture={"folk": 3.0, "bach": 1.0}) as loader:
        drawn = np.concatenate([loader.order(number)[0] for number in range(100)])
        assert loader.sources == ("bach", "folk")
        assert np.bincount(drawn).tolist() == [200, 600]


def test_each_epoch_augments_anew_and_draws_by_piece() -> None:
    sequences = packed(4)
    with loader_of(sequences, batch_sequences=1) as loader:
        size = loader.num_sequences
        seen = {number: loader.batch(number) for number in range(4 * size)}
        of_sequence = [[n for n in seen if loader.order(n)[2][0] == sequence] for sequence in range(size)]
    assert all(len(numbers) == 4 for numbers in of_sequence)
    assert any(
        not np.array_equal(seen[numbers[0]].inputs_BT, seen[other].inputs_BT)
        for numbers in of_sequence
        for other in numbers[1:]
    )


def test_what_cannot_be_loaded_is_told() -> None:
    sequences = packed(3)
    with (
        pytest.raises(UserError, match=r"the test split of memory://.* is empty: ingest more works"),
        loader_of(sequences, split="test"),
    ):
        pass
    with pytest.raises(RecipeError, match="was packed to 96 tokens, not 128: pack again"):
        Loader(sequences, split="train", layout=SequenceLayout(sequence_tokens=128), batch_sequences=8, seed=0)
    with (
        pytest.raises(RecipeError, match="names 'jazz', which is no source: name one of bach"),
        loader_of(sequences, mixture={"jazz": 1.0}),
    ):
        pass
    other = {**sequences.facts, "vocabulary": "0" * 16}
    stranger = Dataset(sequences.folder, "sequences", "x", "y", {}, other, sequences.files)
    with pytest.raises(IntegrityError, match="speaks vocabulary 0000"), loader_of(stranger):
        pass


@given(st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=4), min_size=1, max_size=9), st.data())
def test_packed_sequences_survive_their_table(counts: list[list[int]], data: st.DataObject) -> None:
    lengths = np.array([length for row in counts for length in row], dtype=np.int32)
    tokens = np.arange(lengths.sum(), dtype=np.uint16) + 60000
    pieces = np.arange(len(lengths)) + 2**40
    whole = Packed.of(tokens, lengths=lengths, pieces=pieces, counts=np.array([len(row) for row in counts]))
    start = data.draw(st.integers(0, len(counts) - 1))
    stop = data.draw(st.integers(start + 1, len(counts)))
    part = whole.rows(start, stop)
    for table in (part.to_table(source="a"), whole.to_table(source="a").slice(start, stop - start)):
        found = Packed.from_table(table)
        for name in ("tokens", "lengths", "pieces", "piece_starts", "token_starts"):
            assert_array_equal(getattr(found, name), getattr(part, name))
    joined = Packed.joined([whole.rows(0, start), part, whole.rows(stop, len(counts))])
    assert_array_equal(joined.tokens, whole.tokens)
    assert_array_equal(joined.token_starts, whole.token_starts)
