"""A corpus in figures is the corpus: every work counted once, however it lies in shards, and drawn without help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.music import walk, works_table
from tutti import lineage, tables
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset.columns import read_columns
from tutti.dataset.overview import MOST_POINTS, Overview, overview_of
from tutti.dataset.overview_page import MOST_METERS, bars, render
from tutti.dataset.scales import SCALES, Scale
from tutti.errors import IntegrityError, RecipeError
from tutti.features.descriptors import describe_score
from tutti.features.vocabulary import KEYS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import CLIPS, REFUSALS, WORKS, to_parquet, to_table

EVIL = "</h2><script>alert(1)</script><img src=x onerror=alert(1)> & \"quoted\" 'too'"
DRAWN = [scale for scale in SCALES if scale.edges]


def row_of(score: Score, **columns: Any) -> dict[str, Any]:
    """A ``works`` row."""
    (work_id,) = ScoreBatch.of([score]).work_ids()
    return {
        "work_id": work_id, "group_id": work_id, "source_uri": "a.mid", "source_sha256": "0" * 64,
        "collection": "walks", "title": None, "composer": None, "tags": [], "metadata": "{}", "licence": "CC0-1.0",
        "licence_origin": "tests", "split": "train", "fingerprint": "", "sketch": [],
        **score.columns(), **describe_score(score), **columns,
    }  # fmt: skip


def drums() -> Score:
    notes = Notes.of(onset_ticks=24 * np.arange(8), duration_ticks=[12] * 8, pitch=[36] * 8, program=[DRUM_PROGRAM] * 8)
    return Score.of(notes, ticks_per_quarter=24, tempos=[(0, 90.0)], meters=[(0, 3, 4)])


def refusal(reason: str, uri: str, detail: str = "") -> dict[str, str]:
    return {"source_uri": uri, "stage": "ingest", "reason": reason, "detail": detail}


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Dataset]:
    """Publish tables as a dataset, in shards of so many works."""

    def made(
        works: pa.Table, *, per_shard: int = 1000, refusals: list[dict[str, str]] | None = None,
        clips: list[dict[str, Any]] | None = None, kind: str = "works", name: str = "walks",
    ) -> Dataset:  # fmt: skip
        inputs = {"per_shard": per_shard, "clips": len(clips or []), "kind": kind}
        folder = lineage.place(Folder(str(tmp_path)), kind=kind, name=name, inputs=inputs)
        tables_by_path = {
            f"works-{number:05d}.parquet": works.slice(start, per_shard)
            for number, start in enumerate(range(0, max(works.num_rows, 1), per_shard))
        }
        tables_by_path["refusals.parquet"] = to_table(refusals or [], REFUSALS)
        if clips:
            tables_by_path["clips-00000.parquet"] = to_table(clips, CLIPS)
        files = [
            lineage.write_file(folder, path, to_parquet(table), rows=table.num_rows)
            for path, table in tables_by_path.items()
        ]
        return lineage.publish(folder, kind=kind, name=name, inputs=inputs, files=files, facts={"files": 60})

    return made


@pytest.fixture
def mixed(publish: Callable[..., Dataset]) -> Overview:
    """Forty walks, twice the same piece of drums, and refusals."""
    extra = [
        row_of(drums(), work_id=f"d{number}", group_id="d0", split="test", collection="beats") for number in (0, 1)
    ]
    extra[0] |= {"mood_source": "label", "valence": 0.9, "arousal": 0.9, "composer": EVIL, "tags": ["loud", "short"]}
    extra[1] |= {"licence": "unknown", "licence_origin": "nobody"}
    refusals = [refusal("empty", "x.mid"), refusal("unreadable", EVIL, EVIL), refusal("empty", "y.mid")]
    return overview_of(
        publish(pa.concat_tables([works_table(40), to_table(extra, WORKS)]), per_shard=7, refusals=refusals)
    )


@pytest.mark.parametrize("scale", DRAWN, ids=lambda scale: scale.column)
@given(values=st.lists(st.floats(min_value=0, max_value=1e6), max_size=30))
def test_every_value_is_in_one_bar_and_stands_in_it(scale: Scale, values: list[float]) -> None:
    counts = scale.counts(np.array(values, dtype=np.float64))
    assert counts.sum() == len(values)
    assert len(counts) == len(scale.edges) + 1
    for value in values:
        (bar,) = np.flatnonzero(scale.counts(np.array([value])))
        assert bar <= scale.position(value) <= bar + 1
        assert scale.bar_name(int(bar))


@pytest.mark.parametrize("scale", DRAWN, ids=lambda scale: scale.column)
def test_bars_rise_and_ticks_lie_among_them(scale: Scale) -> None:
    assert list(scale.edges) == sorted(set(scale.edges))
    assert scale.counts(np.array(scale.edges)).tolist() == [0] + [1] * len(scale.edges)
    assert all(scale.edges[0] <= tick <= scale.edges[-1] for tick in scale.ticks)
    assert len({scale.bar_name(bar) for bar in range(len(scale.edges) + 1)}) == len(scale.edges) + 1


@pytest.mark.parametrize("per_shard", [1, 3, 1000])
def test_figures_are_those_of_the_rows_however_they_lie(publish: Callable[..., Dataset], per_shard: int) -> None:
    table = works_table(30)
    seen = overview_of(publish(table, per_shard=per_shard))
    rows = table.to_pylist()
    assert (seen.works, seen.notes) == (30, sum(row["notes"] for row in rows))
    assert seen.length_s == pytest.approx(sum(row["length_s"] for row in rows))
    assert {key: works for key, works in seen.keys.items() if works} == Counter(row["key"] for row in rows)
    assert tuple(seen.keys) == KEYS
    assert seen.splits == Counter(row["split"] for row in rows)
    assert seen.meters == {"4/4": 30}
    assert {name for name, works in seen.families.items() if works} == {"piano"}
    assert seen.families["piano"] == 30
    played = Counter(pitch for row in rows for pitch in row["pitch"])
    assert {pitch: count for pitch, count in enumerate(seen.pitches.tolist()) if count} == played
    for scale in SCALES:
        measure = seen.measures[scale.column]
        values = [row[scale.column] for row in rows]
        assert measure.works == sum(measure.counts) == 30
        assert measure.quartiles == pytest.approx(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    assert sum(seen.moods.quadrants.values()) == len(seen.moods.points) == 30


def test_a_corpus_on_object_storage_is_told_alike(publish: Callable[..., Dataset], s3_folder: Folder) -> None:
    here = publish(works_table(12), per_shard=5, refusals=[refusal("empty", "x.mid")])
    there = lineage.place(s3_folder, kind="works", name="walks", inputs=here.inputs)
    for path in here.paths():
        there.write(path, here.read(path))
    moved = lineage.publish(
        there, kind="works", name="walks", inputs=here.inputs, files=here.files, facts=here.facts
    )  # fmt: skip
    assert render(overview_of(moved)) == render(overview_of(here))


def test_drums_alone_have_neither_key_nor_scale(mixed: Overview) -> None:
    assert (mixed.works, mixed.pitched, sum(mixed.keys.values())) == (42, 40, 40)
    assert mixed.measures["scale_consistency"].works == 40
    assert mixed.measures["tempo_mean_qpm"].works == 42
    assert mixed.families["drums"] == 2
    assert mixed.pitches[36] == sum(row["pitch"].count(36) for row in works_table(40).to_pylist())


def test_parts_tell_what_is_in_them(mixed: Overview) -> None:
    assert [(part.name, part.works, part.of) for part in mixed.collections] == [
        ("walks", 40, ("CC0-1.0",)),
        ("beats", 2, ("CC0-1.0", "unknown")),
    ]
    assert [(part.name, part.works, part.of) for part in mixed.licences] == [
        ("CC0-1.0", 41, ("tests",)),
        ("unknown", 1, ("nobody",)),
    ]
    assert sum(part.notes for part in mixed.licences) == mixed.notes
    assert (mixed.composers, mixed.tags) == ({EVIL: 1}, {"loud": 1, "short": 1})


def test_groups_labels_and_refusals(mixed: Overview) -> None:
    assert (mixed.groups, mixed.grouped, mixed.largest_group) == (1, 2, 2)
    assert (mixed.moods.labels, mixed.moods.are_labels.sum()) == (1, 1)
    assert [(row.reason, row.inputs, row.example) for row in mixed.refusals] == [
        ("empty", 2, "x.mid"),
        ("unreadable", 1, EVIL),
    ]
    assert (mixed.files, mixed.refused) == (60, 3)


def test_clips_are_told_where_there_are_some(publish: Callable[..., Dataset]) -> None:
    clip = {
        "clip_id": "c", "source_uri": "a.wav", "source_sha256": "0" * 64, "collection": "sounds", "title": None,
        "composer": None, "tags": [], "metadata": "{}", "licence": "CC0-1.0", "licence_origin": "tests",
        "split": "train", "work_id": None, "start_s": 0.0, "length_s": 4.0, "sample_rate_hz": 44_100, "channels": 2,
        "audio": b"", "loudness_lufs": None, "tempo_qpm": None, "tempo_confidence": 0.0, "key": "C major",
        "key_confidence": 0.1, "onsets_per_s": 1.0, "valence": None, "arousal": None, "mood_source": None,
    }  # fmt: skip
    rendered = {**clip, "work_id": "w", "loudness_lufs": -14.0, "sample_rate_hz": 22_050, "channels": 1}
    dataset = publish(works_table(2), clips=[clip, rendered, clip])
    seen = overview_of(dataset).clips
    assert seen is not None
    assert (seen.clips, seen.length_s, seen.works) == (3, 12.0, 1)
    assert list(seen.formats.items()) == [((44_100, 2), 2), ((22_050, 1), 1)]
    assert seen.loudness_lufs == (-14.0,) * 5
    assert "2 at 44,100 Hz in 2 channels" in render(overview_of(dataset)).decode()
    assert overview_of(publish(works_table(2))).clips is None


def test_no_works_at_all_are_told_as_none(publish: Callable[..., Dataset]) -> None:
    seen = overview_of(publish(works_table(2).slice(0, 0)))
    assert (seen.works, seen.groups, sum(seen.keys.values())) == (0, 0, 0)
    assert seen.measures["notes"].quartiles == ()
    page = render(seen).decode()
    assert "Nothing was refused." in page
    assert "nan" not in page.lower()


def test_only_the_asked_columns_are_read(publish: Callable[..., Dataset]) -> None:
    dataset = publish(works_table(10), per_shard=4)
    read = list(read_columns(dataset, prefix="works-", schema=WORKS, columns=("key", "notes")))
    assert [table.num_rows for table in read] == [4, 4, 2]
    assert {tuple(table.column_names) for table in read} == {("key", "notes")}


def test_another_kind_version_or_damage_is_refused(publish: Callable[..., Dataset], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds tokens, not works"):
        overview_of(publish(works_table(1), kind="tokens"))
    old = works_table(3).replace_schema_metadata({"table": "works", "version": "1"})
    with pytest.raises(IntegrityError, match=f"expected version '{tables.VERSIONS['works']}' and found '1'"):
        overview_of(publish(old, per_shard=2))
    dataset = publish(works_table(3), per_shard=3)
    dataset.folder.write("works-00000.parquet", b"PAR1 no table PAR1")
    with pytest.raises(IntegrityError, match="not a readable Parquet table"):
        overview_of(dataset)


class Seen(HTMLParser):
    """Tags with their attributes, and the tags that were left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_loads_nothing_and_runs_nothing(mixed: Overview) -> None:
    text = render(mixed).decode()
    assert re.findall(r"(?:https?:)?//[\w.]+|url\(|@import|<link|<iframe|<script|<img", text) == []
    seen = Seen(text)
    assert seen.open == []
    assert not any(name in ("src", "href") or name.startswith("on") for _, held in seen.tags for name in held)
    (policy,) = (tag["content"] for tag in seen.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_the_page_can_be_read_without_eyes(mixed: Overview) -> None:
    seen = Seen(render(mixed).decode())
    ids = Counter(held["id"] for _, held in seen.tags if "id" in held)
    assert [name for name, count in ids.items() if count > 1] == []
    assert all(section["aria-labelledby"] in ids for section in seen.all("section"))
    pictures = seen.all("svg")
    assert len(pictures) == len(DRAWN) + 3
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert {"lang": "en"} in seen.all("html")


def test_the_same_corpus_gives_the_same_page(publish: Callable[..., Dataset]) -> None:
    dataset = publish(works_table(20), per_shard=6)
    assert render(overview_of(dataset)) == render(overview_of(dataset))


def test_what_is_drawn_lies_in_its_picture(mixed: Overview) -> None:
    text = render(mixed).decode()
    for picture in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        width, height = (float(side) for side in re.findall(r"viewBox=\"0 0 (\d+) (\d+)\"", picture)[0])
        for x, y, wide, high in re.findall(
            r'x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)" height="([-\d.]+)"', picture
        ):
            assert 0 <= float(x) <= float(x) + float(wide) <= width
            assert 0 <= float(y) <= float(y) + float(high) <= height
        for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", picture):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_a_large_corpus_draws_some_of_its_moods(publish: Callable[..., Dataset]) -> None:
    table = pa.concat_tables([works_table(10)] * (MOST_POINTS // 10 + 1))
    seen = overview_of(publish(table))
    assert len(seen.moods.points) == MOST_POINTS
    assert sum(seen.moods.quadrants.values()) == table.num_rows
    assert f"{MOST_POINTS:,} works are drawn" in render(seen).decode()


@given(counts=st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=12), most=st.integers(1, 12))
def test_a_bar_chart_loses_no_count(counts: dict[str, int], most: int) -> None:
    rows = bars(counts, total=sum(counts.values()), most_names=most)
    assert sum(row.count for row in rows) == sum(counts.values())
    assert sum(row.share for row in rows) == pytest.approx(100 if any(counts.values()) else 0)
    assert len(rows) <= most + 1
    assert all(0 <= row.length <= 100 for row in rows)


def test_many_meters_are_summed_up(publish: Callable[..., Dataset]) -> None:
    rows = [row_of(walk(seed), meter=f"{seed + 2}/4") for seed in range(MOST_METERS + 3)]
    assert "3 others" in render(overview_of(publish(to_table(rows, WORKS)))).decode()
