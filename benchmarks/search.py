"""A search over many takes: how long the first answer takes, reading the columns, and how long the next one does.

Takes are described by their columns alone, drawn from stated distributions; their notes are stood in for by columns of
the size that a one-minute piece has, which a search must not read. Peer: the same catalogue read whole into pandas and
filtered there by hand for the same question.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Bench, run
from tutti.catalogue.publish import ROWS_OF_GROUP
from tutti.catalogue.search import search, similar
from tutti.catalogue.search_index import Index
from tutti.features.mood import mood_word
from tutti.features.vocabulary import KEYS
from tutti.lineage import MANIFEST
from tutti.storage import Folder
from tutti.tables import TAKES

NOTES_A_TAKE = 300
SENTENCES = ("calm, minor, strings, 3 min", "D minor, 80 to 100 bpm, no drums", "平静的小调弦乐，三分钟")


def takes(number: int, *, seed: int) -> pa.Table:
    """A table of takes of ``number`` rows, as catalogues write it."""
    draw = np.random.default_rng(seed)
    valence, arousal = draw.uniform(-1, 1, (2, number))
    programs = [
        sorted(set(draw.choice([0, 24, 32, 40, 48, 56, 73, 128], draw.integers(1, 5)).tolist())) for _ in range(number)
    ]
    notes = {
        name: pa.FixedSizeListArray.from_arrays(
            pa.array(draw.integers(0, 100, number * NOTES_A_TAKE).astype(kind)), NOTES_A_TAKE
        ).cast(pa.list_(pa.from_numpy_dtype(kind)))
        for name, kind in (
            ("onset_ticks", np.int32), ("duration_ticks", np.int32), ("pitch", np.uint8), ("velocity", np.uint8),
            ("program", np.uint8),
        )
    }  # fmt: skip
    told: dict[str, Any] = {
        "take_id": [f"{at:024x}" for at in range(number)],
        "title": [f"piece {at}" for at in range(number)],
        "verdict": np.where(draw.random(number) < 0.9, "accepted", "rejected"),
        "key": draw.choice(KEYS, number),
        "asked_key": pa.nulls(number, pa.string()),
        "mood": [mood_word(*pair) for pair in zip(valence, arousal, strict=True)],
        "valence": valence,
        "arousal": arousal,
        "tempo_qpm": draw.uniform(40, 200, number),
        "length_s": draw.uniform(20, 300, number),
        "programs": pa.array(programs, pa.list_(pa.uint8())),
        "meter": draw.choice(["4/4", "3/4", "6/8"], number),
        "notes_per_quarter": draw.gamma(4, 1, number),
        "checks": ['{"check":"notes","figure":300,"limit":8,"verdict":"passed","detail":"300 notes"},' * 8] * number,
        **notes,
    }  # fmt: skip
    columns = []
    for field in TAKES:
        column = told.get(field.name)
        if column is None:
            column = pa.array([[0]] * number if pa.types.is_list(field.type) else [1] * number)
            column = column.cast(field.type)
        columns.append(column if isinstance(column, pa.Array) else pa.array(column, field.type))
    return pa.table(columns, schema=TAKES)


def write(folder: Path, table: pa.Table) -> None:
    """A finished catalogue of a table, in groups of rows as blocks give them."""
    folder.mkdir(parents=True)
    with pq.ParquetWriter(folder / "takes.parquet", TAKES, compression="zstd") as writer:
        writer.write_table(table, row_group_size=ROWS_OF_GROUP)
    (folder / MANIFEST).write_text("{}")


def by_pandas(path: Path) -> pd.DataFrame:
    """The peer: the whole table, filtered by hand for the first sentence."""
    frame = pd.read_parquet(path)
    strings = frame["programs"].map(lambda played: any(40 <= program < 52 for program in played))
    kept = frame[
        (frame["verdict"] == "accepted")
        & frame["key"].str.endswith("minor")
        & strings
        & frame["length_s"].between(162, 198)
    ]
    away = np.hypot(kept["valence"] - 0.4, kept["arousal"] + 0.5)
    return kept.assign(away=away).nsmallest(10, "away")


def measure(bench: Bench) -> None:
    """Read the columns, search, and the peer."""
    number = int(bench.settings["takes"])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalogues" / "many" / "0" / "takes.parquet"
        write(path.parent, takes(number, seed=7))
        root = Folder(name)
        index = Index.read(root)

        def tutti() -> None:
            search(Index.read(root), SENTENCES[0])

        whole = {"tutti, columns read and searched": tutti, "pandas, whole table": lambda: by_pandas(path)}
        bench.race("first question", whole, amount=1, unit="answers")
        asked = {text: partial(search, index, text) for text in SENTENCES}
        bench.race("next question", {**asked, "similar": lambda: similar(index, 5)}, amount=1, unit="answers")
        bench.count("table", {"parquet": path.stat().st_size / 2**20}, unit="MiB")
    bench.note(f"{number:,} takes")
    bench.name("catalogue_search_s", 1 / bench.figures["first question"]["tutti, columns read and searched"].median)


if __name__ == "__main__":
    run("searching a catalogue", measure, settings={"takes": (100_000, "takes of the catalogue")})
