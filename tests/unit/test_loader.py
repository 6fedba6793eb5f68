"""The loader on real storage: damage is noticed, the cache keeps its bound, what is away is waited for, threads end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faulty_s3 import FaultyS3
from tests.tokens import tokens_dataset
from tutti import lineage, s3, storage
from tutti.dataset import blocks, packing
from tutti.dataset.cache import Cache
from tutti.dataset.loader import Loader
from tutti.dataset.sequences import SequenceBatch, SequenceLayout
from tutti.errors import IntegrityError, PlaceError
from tutti.lineage import Dataset
from tutti.storage import Folder

SEQUENCE_TOKENS = 96
BLOCK_BYTES = 2 * SEQUENCE_TOKENS * 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(blocks, "FILE_BLOCKS", 4)


def packed(root: Folder) -> Dataset:
    tokens = tokens_dataset(80, collections=("bach", "folk"))
    return packing.pack(tokens, root=root, name="drawn", sequence_tokens=SEQUENCE_TOKENS)


def loader_of(sequences: Dataset, **told: Any) -> Loader:
    settings = {"split": "train", "batch_sequences": 8, "seed": 3, "shuffle_blocks": 2, **told}
    layout = SequenceLayout(sequence_tokens=SEQUENCE_TOKENS, augmentation=settings.pop("augmentation", None))
    return Loader(sequences, layout=layout, **settings)


def bytes_of(batch: SequenceBatch) -> bytes:
    return b"".join(column.tobytes() for column in (batch.inputs_BT, batch.targets_BT, batch.segments_BT))


def streamed(loader: Loader, *, numbers: int = 40) -> list[bytes]:
    return [bytes_of(batch) for batch in loader.stream(range(numbers), first=0, stop=8)]


def test_a_dataset_on_s3_gives_the_batches_of_a_local_one(s3_folder: Folder, tmp_path: Path) -> None:
    found = []
    for folder in (s3_folder, Folder(str(tmp_path)), Folder("memory://loader")):
        sequences = lineage.load(packed(folder).folder)
        with closing(loader_of(sequences)) as loader:
            found.append(streamed(loader))
    assert found[0] == found[1] == found[2]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_every_damaged_block_is_noticed(tmp_path: Path) -> None:
    """Of each stretch the first, a middle and the last byte; sizes stay, so the manifest alone cannot see it."""
    sequences = packed(Folder(str(tmp_path)))
    (path, *_) = (path for path in sequences.paths() if path.startswith("sequences-"))
    file = sequences.folder.local_path / path
    size = file.stat().st_size
    for at in (4, size // 5, size // 2, size - 1):
        flip(file, at)
        with closing(loader_of(lineage.load(sequences.folder))) as loader:
            with pytest.raises(
                IntegrityError, match=r"sequences-train-00-00000.parquet differs from its manifest in by"
            ):
                streamed(loader)
            with pytest.raises(IntegrityError, match="delete the folder to make it again"):
                list(loader.in_order(rank=0, num_ranks=1, rows=8))
        flip(file, at)
    flip(sequences.folder.local_path / blocks.INDEX, 99)
    with pytest.raises(IntegrityError, match=r"blocks.parquet differs from its manifest"):
        loader_of(sequences)


@pytest.mark.parametrize("most_blocks", [0, 1, 3, 1000])
def test_the_cache_keeps_its_bound_and_changes_nothing(tmp_path: Path, most_blocks: int) -> None:
    sequences = packed(Folder(str(tmp_path)))
    with (
        closing(loader_of(sequences)) as free,
        closing(loader_of(sequences, cache_bytes=most_blocks * 2 * BLOCK_BYTES)) as bound,
    ):
        assert streamed(bound) == streamed(free)
        assert bound.cache.peak_bytes <= most_blocks * 2 * BLOCK_BYTES
        assert bound.cache.held_bytes <= bound.cache.peak_bytes
        blocks_of_all = sum(source.blocks for source in free._blocks.sources)
        assert free.cache.reads == blocks_of_all
        assert (bound.cache.reads == blocks_of_all) == (most_blocks == 1000)


def test_a_window_that_fits_is_read_once_an_epoch(tmp_path: Path) -> None:
    sequences = packed(Folder(str(tmp_path)))
    with closing(loader_of(sequences, cache_bytes=8 * 2 * BLOCK_BYTES)) as loader:
        blocks_of_all = sum(source.blocks for source in loader._blocks.sources)
        assert blocks_of_all > 8
        streamed(loader, numbers=loader.num_sequences // 8)
        assert loader.cache.reads <= blocks_of_all + 8


@dataclass(frozen=True)
class _Value:
    size_bytes: int


def test_a_cache_reads_a_value_once_however_many_ask() -> None:
    reads, begin = list[int](), threading.Event()

    def read(key: int) -> _Value:
        begin.wait()
        reads.append(key)
        return _Value(10)

    with closing(Cache(read, most_bytes=30, readers=2)) as cache, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get, [1, 1]) for _ in range(8)]
        begin.set()
        assert len({id(value) for one in asked for value in one.result()}) == 1
        assert reads == [1]
        for key in (2, 3, 1, 4):
            cache.get([key])
        assert reads == [1, 2, 3, 4]
        cache.get([1])
        cache.get([2])
        assert reads == [1, 2, 3, 4, 2]
        assert cache.peak_bytes == 30


def test_a_value_that_could_not_be_read_is_read_again() -> None:
    fails = [True]

    def read(_: int) -> _Value:
        if fails.pop() if fails else False:
            raise PlaceError("away")
        return _Value(1)

    with closing(Cache(read, most_bytes=9, readers=1)) as cache:
        with pytest.raises(PlaceError, match="away"):
            cache.get([1])
        assert cache.get([1]) == [_Value(1)]


@pytest.fixture
def faulty(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.005)
    yield proxy
    proxy.close()


def test_storage_that_is_away_is_waited_for(
    faulty: FaultyS3, s3_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 0.01)
    monkeypatch.setattr(storage, "LONGEST_PATIENT_PAUSE_S", 0.05)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    sequences = packed(s3_folder)
    with closing(loader_of(sequences)) as loader:
        wanted = streamed(loader)
    faulty.calm()
    faulty.plan(*["unavailable"] * 40, match="GET")
    lines: list[str] = []
    with closing(loader_of(sequences, told=lines.append)) as loader:
        assert streamed(loader) == wanted
    assert faulty.failed == 40
    (line,) = lines
    assert "cannot read s3://" in line, "several readers wait, and one line says so"
    faulty.calm()
    with closing(loader_of(sequences, patience_s=0.1)) as loader:
        faulty.storm(1.0, seed=5, kinds=("unavailable",))
        with pytest.raises(PlaceError, match="cannot read s3://"):
            loader.batch(0)
    faulty.calm()
    with closing(loader_of(sequences)) as loader:
        faulty.storm(1.0, seed=5, kinds=("access_denied",))
        with pytest.raises(PlaceError, match="no permission to read"):
            loader.batch(0)


def test_closing_ends_every_thread(faulty: FaultyS3, s3_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 3600.0)
    monkeypatch.setattr(storage, "LONGEST_PATIENT_PAUSE_S", 3600.0)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    before = set(threading.enumerate())
    sequences = packed(s3_folder)

    def left(kind: str = "") -> list[str]:
        found = [
            thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("blocks", "batch"))
        ]
        for thread in found:
            thread.join(timeout=1.0 if thread.name.startswith(kind) else 0.0)
        return [thread.name for thread in found if thread.is_alive() and thread.name.startswith(kind)]

    loader = loader_of(sequences)
    batches = loader.stream(iter(range(10**9)), first=0, stop=8)
    next(batches)
    assert any(thread.name.startswith("batch") for thread in threading.enumerate())
    batches.close()
    assert not left("batch")
    loader.close()
    assert not left()
    # Storage is away, and the loader would wait for hours: it is let go at once.
    loader = loader_of(sequences)
    batches = loader.stream(range(9), first=0, stop=8)
    faulty.storm(1.0, seed=5, kinds=("unavailable",))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches)
        while faulty.counts["unavailable"] < 4:
            threading.Event().wait(0.01)
        loader.close()
        # What was being read ends with its error; what was not yet begun, as if it had been called off.
        with pytest.raises((PlaceError, RuntimeError, CancelledError)):
            waiting.result()
    assert not left()
