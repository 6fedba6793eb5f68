"""Small tokens datasets of drawn music, published as `tutti encode` publishes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutti import lineage
from tutti.features.vocabulary import BAR, END, EVENTS, START
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import TOKENS, to_parquet, to_table

PITCHES = EVENTS.span("Pitch")


def work(random: np.random.Generator, *, collection: int, most_notes: int) -> NDArray[np.uint16]:
    """One work: a head, bars, pitches, an end."""
    head = [
        START,
        EVENTS[f"Collection_{collection}"],
        EVENTS["Key_C major"],
        EVENTS["Instruments_piano"],
        EVENTS["Instruments_bass"],
    ]
    body = [BAR, EVENTS["Meter_4/4"]]
    for note in range(int(random.integers(0, most_notes + 1))):
        body += [BAR] if note and note % 17 == 0 else []
        body.append(int(random.integers(PITCHES.start + 12, PITCHES.stop - 12)))
    return np.array([*head, *body, END], np.uint16)


def tokens_dataset(
    num_works: int,
    *,
    collections: Sequence[str] = ("bach",),
    splits: Sequence[str] = ("train",),
    shards: int = 2,
    most_notes: int = 120,
    seed: int = 0,
    root: Folder | None = None,
) -> Dataset:
    """So many works; collection and split go round."""
    root = root or Folder(f"memory://{uuid.uuid4().hex}")
    random, rows = np.random.default_rng(seed), []
    for number in range(num_works):
        tokens = work(random, collection=number % len(collections), most_notes=most_notes)
        rows.append(
            {
                "work_id": f"{number:016x}",
                "vocabulary": EVENTS.hash,
                "tokens": tokens.tolist(),
                "notes": int(np.isin(tokens, PITCHES).sum()),
                "controls": json.dumps([]),
                "split": splits[number // len(collections) % len(splits)],
            }
        )
    inputs = {"works": num_works, "seed": seed, "collections": list(collections), "notes": most_notes}
    folder = lineage.place(root, kind="tokens", name="drawn", inputs=inputs)
    files = [
        lineage.write_file(folder, f"tokens-{shard:05d}.parquet", to_parquet(to_table(rows[shard::shards], TOKENS)))
        for shard in range(shards)
    ]
    facts = {
        "works": num_works,
        "notes": sum(row["notes"] for row in rows),
        "tokens": sum(len(row["tokens"]) for row in rows),
        "collections": list(collections),
        "vocabulary": EVENTS.hash,
        "licences": {"CC0-1.0": num_works},
        "programs": [0],
        "works_address": "nowhere",
    }
    return lineage.publish(folder, kind="tokens", name="drawn", inputs=inputs, files=files, facts=facts)
