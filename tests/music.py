"""Small, real music for tests: scores that follow simple rules, and datasets made of them by the product's own code."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutti import lineage
from tutti.corpus.drafting import settled
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.works import Origin, drafts
from tutti.dataset import packing
from tutti.dataset.rolls import pack_rolls
from tutti.dataset.voices import pack_voices
from tutti.features.descriptors import describe
from tutti.features.encoding import encode_works
from tutti.features.vocabulary import EVENTS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import TOKENS, to_parquet

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


def walk(seed: int, *, bars: int = 4) -> Score:
    """A melody that walks on a major scale in quarters above held roots: predictable, so that a model can learn it."""
    random = np.random.default_rng(seed)
    degrees = np.cumsum(random.choice([-1, 1], size=4 * bars)) % 7
    melody = 60 + SCALE[degrees]
    roots = 36 + SCALE[degrees[::4]]
    return Score.of(
        Notes.of(
            onset_ticks=np.concatenate((np.arange(4 * bars) * 24, np.arange(bars) * 96)),
            duration_ticks=np.concatenate((np.full(4 * bars, 24), np.full(bars, 96))),
            pitch=np.concatenate((melody, roots)),
            track=np.concatenate((np.zeros(4 * bars, int), np.ones(bars, int))),
        ),
        ticks_per_quarter=24,
        tempos=[(0, 96.0)],
        title=f"Walk {seed}",
    )


SPLITS_OF_TEN = ("train",) * 7 + ("valid", "valid", "test")


def works_table(num_works: int, *, bars: int = 4, licence: str = "CC0-1.0") -> pa.Table:
    """``works`` rows of walks: 70 % train, the rest valid and test."""
    batch = ScoreBatch.of([walk(seed, bars=bars) for seed in range(num_works)])
    origins = [
        Origin(
            source_uri=f"walk:{seed}",
            source_sha256="0" * 64,
            collection="walks",
            licence=licence,
            licence_origin="tests",
        )
        for seed in range(num_works)
    ]
    return settled(
        drafts(batch, origins=origins, describe=describe),
        table="works",
        decided={
            "group_id": batch.work_ids(),
            "split": [SPLITS_OF_TEN[seed % 10] for seed in range(num_works)],
        },
    )


def works_dataset(folder: Folder, *, num_works: int = 40, bars: int = 4) -> Dataset:
    """A published corpus of walks."""
    table = works_table(num_works, bars=bars)
    file = lineage.write_file(folder, "works-00000.parquet", to_parquet(table), rows=num_works)
    licences = pc.value_counts(table.column("licence")).to_pylist()
    facts = {
        "works": num_works,
        "notes": pc.sum(table.column("notes")).as_py(),
        "licences": {found["values"]: found["counts"] for found in licences},
    }
    return lineage.publish(folder, kind="works", name="walks", inputs={}, files=[file], facts=facts)


def tokens_dataset(folder: Folder, *, num_works: int = 40, bars: int = 4) -> Dataset:
    """A published token dataset of walks."""
    table = encode_works(works_table(num_works, bars=bars), collections=["walks"])
    half = table.num_rows // 2
    files = [
        lineage.write_file(folder, f"tokens-{number:05d}.parquet", to_parquet(part), rows=part.num_rows)
        for number, part in enumerate((table.slice(0, half), table.slice(half)))
    ]
    assert table.schema.equals(TOKENS, check_metadata=False)
    facts = {
        "collections": ["walks"],
        "vocabulary": EVENTS.hash,
        "tokens": pc.sum(pc.list_value_length(table.column("tokens"))).as_py(),
    }
    return lineage.publish(folder, kind="tokens", name="walks", inputs={}, files=files, facts=facts)


def sequences_dataset(root: Folder, *, sequence_tokens: int = 128, num_works: int = 40, bars: int = 4) -> Dataset:
    """Walks, packed as `tutti train` packs them."""
    tokens = tokens_dataset(root / "tokens", num_works=num_works, bars=bars)
    return packing.pack(tokens, root=root, name="walks", sequence_tokens=sequence_tokens)


def chorale(seed: int, *, bars: int = 2) -> Score:
    """Four voices that walk in parallel on a major scale, each on a track of its own: a quarter, then eighths."""
    random = np.random.default_rng(seed)
    onsets = np.concatenate([bar * 96 + np.array([0, 24, 36, 48, 72]) for bar in range(bars)])
    durations = np.tile([24, 12, 12, 24, 24], bars)
    degrees = np.cumsum(random.choice([-1, 1], size=len(onsets))) % 7
    voices = range(4)
    return Score.of(
        Notes.of(
            onset_ticks=np.tile(onsets, 4),
            duration_ticks=np.tile(durations, 4),
            pitch=np.concatenate([72 - 7 * voice + SCALE[(degrees + 2 * voice) % 7] for voice in voices]),
            track=np.repeat(list(voices), len(onsets)),
        ),
        ticks_per_quarter=24,
        tempos=[(0, 80.0)],
        title=f"Chorale {seed}",
    )


def voices_dataset(root: Folder, *, num_works: int = 40) -> Dataset:
    """Chorales of two bars as rows of voices, split as walks are."""
    batch = ScoreBatch.of([chorale(seed) for seed in range(num_works)])
    origins = [
        Origin(
            source_uri=f"chorale:{seed}",
            source_sha256="0" * 64,
            collection="chorales",
            licence="CC0-1.0",
            licence_origin="tests",
        )
        for seed in range(num_works)
    ]
    rows = drafts(batch, origins=origins, describe=describe)
    splits = [SPLITS_OF_TEN[seed % 10] for seed in range(num_works)]
    works = settled(rows, table="works", decided={"group_id": rows["work_id"].to_pylist(), "split": splits})
    folder = root / "works"
    file = lineage.write_file(folder, "works-00000.parquet", to_parquet(works), rows=works.num_rows)
    facts = {"works": num_works, "licences": {"CC0-1.0": num_works}}
    held = lineage.publish(folder, kind="works", name="chorales", inputs={}, files=[file], facts=facts)
    return pack_voices(held, licences=("CC0-1.0",), root=root, name="chorales")


def rolls_dataset(root: Folder, *, num_works: int = 20) -> Dataset:
    """Walks of four bars as piano-rolls."""
    works = works_dataset(root / "works", num_works=num_works)
    return pack_rolls(works, licences=("CC0-1.0",), root=root, name="walks", hop_bars=4)
