"""A corpus in figures: what a works dataset holds, counted shard by shard.

Only the columns that are counted are read, one shard at a time; what is held of a work is some 150 bytes of figures, so
a million works need 150 MB, and no notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.splits import SPLITS
from tutti.dataset.columns import read_columns
from tutti.dataset.scales import SCALES
from tutti.errors import RecipeError
from tutti.features.mood import mood_word
from tutti.features.vocabulary import INSTRUMENTS, KEYS, MOODS
from tutti.lineage import Dataset
from tutti.tables import CLIPS, REFUSALS, WORKS

LABEL = "label"
MOST_POINTS = 4000
"""Works that the mood plane draws at most."""
_QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_COUNTED = ("split", "meter", "composer")
_COLUMNS = (
    "collection", "licence", "licence_origin", "group_id", "tags", "key", "programs", "valence", "arousal",
    "mood_source", *_COUNTED, *(scale.column for scale in SCALES),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """The works of one collection or under one licence.

    Args:
        name: of the collection or licence.
        works, notes, length_s: how much it holds.
        of: what else is told of them: the licences of a collection; who stated a licence. Most frequent first.
    """

    name: str
    works: int
    notes: int
    length_s: float
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure over the works that have it.

    Args:
        works: how many have it.
        quartiles: least, lower quartile, median, upper quartile, greatest; none where no work has it.
        counts: works in each bar of its scale; shape (edges + 1,).
    """

    works: int
    quartiles: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moods:
    """Works on the plane of valence and arousal.

    Args:
        quadrants: works by mood word.
        labels: works whose mood is a label and no estimate.
        points: valence and arousal of :data:`MOST_POINTS` works at most, spread evenly; shape (points, 2).
        are_labels: which of them are labels; shape (points,).
    """

    quadrants: Mapping[str, int]
    labels: int
    points: NDArray[np.float64]
    are_labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Refused:
    """Inputs that were refused for one reason, with one of them."""

    reason: str
    inputs: int
    example: str
    detail: str


@dataclass(frozen=True, slots=True)
class Clips:
    """The audio of a corpus.

    Args:
        clips, length_s: how much there is.
        works: works that some of it renders.
        formats: clips by sample rate in hertz and number of channels.
        loudness_lufs: quartiles, as those of :class:`Measure`.
        licences: clips by licence.
    """

    clips: int
    length_s: float
    works: int
    formats: Mapping[tuple[int, int], int]
    loudness_lufs: tuple[float, ...]
    licences: Mapping[str, int]


@dataclass(frozen=True)
class Overview:
    """A corpus in figures; each mapping runs from the most to the least, keys, splits and families as written.

    Args:
        dataset: what was looked at.
        works, notes, length_s: how much it holds.
        pitched: works that are not drums alone; keys and scales are told of these.
        collections, licences: parts of it.
        splits, meters, composers, tags: works by each.
        keys: pitched works by each of the 24 keys.
        families: works by family of General MIDI programs that they play, drums last.
        measures: by column of :data:`tutti.dataset.scales.SCALES`.
        pitches: notes of each MIDI pitch, no drums; shape (128,).
        moods: works on the mood plane.
        groups, grouped, largest_group: groups of near duplicates, the works in them, those of the largest.
        refusals: by reason.
        clips: audio, where there is some.
    """

    dataset: Dataset
    works: int
    notes: int
    length_s: float
    pitched: int
    collections: tuple[Part, ...]
    licences: tuple[Part, ...]
    splits: Mapping[str, int]
    meters: Mapping[str, int]
    composers: Mapping[str, int]
    tags: Mapping[str, int]
    keys: Mapping[str, int]
    families: Mapping[str, int]
    measures: Mapping[str, Measure]
    pitches: NDArray[np.int64]
    moods: Moods
    groups: int
    grouped: int
    largest_group: int
    refusals: tuple[Refused, ...]
    clips: Clips | None

    @property
    def files(self) -> int | None:
        """Inputs that the run was given, where its manifest tells."""
        files = self.dataset.facts.get("files")
        return None if files is None else int(files)

    @property
    def refused(self) -> int:
        """Inputs that were not taken."""
        return sum(refused.inputs for refused in self.refusals)


def overview_of(dataset: Dataset) -> Overview:
    """Look a works dataset through.

    Raises:
        RecipeError: it is a dataset of another kind.
        IntegrityError: its tables are damaged or of another version.
        PlaceError: it cannot be read.
    """
    if dataset.kind != "works":
        raise RecipeError(
            f"{dataset.folder.uri} holds {dataset.kind}, not works", remedy="name what `tutti ingest` printed"
        )
    tally = _Tally()
    for table in read_columns(dataset, prefix="works-", schema=WORKS, columns=_COLUMNS):
        tally.add(table)
    groups = tally.group_sizes()
    return Overview(
        dataset=dataset,
        works=sum(tally.counted["split"].values()),
        notes=sum(part[1] for part in tally.parts.values()),
        length_s=sum(part[2] for part in tally.parts.values()),
        pitched=tally.keys.total(),
        collections=_parts(tally.parts, name=0, of=1),
        licences=_parts(tally.parts, name=1, of=2),
        splits={split: tally.counted["split"][split] for split in SPLITS},
        meters=_ranked(tally.counted["meter"]),
        composers=_ranked(tally.counted["composer"]),
        tags=_ranked(tally.tags),
        keys={key: tally.keys[key] for key in KEYS},
        families={name: int(works) for name, works in zip(INSTRUMENTS, tally.families, strict=True)},
        measures=tally.measures(),
        pitches=_pitches(dataset),
        moods=tally.moods(),
        groups=int((groups > 1).sum()),
        grouped=int(groups[groups > 1].sum()),
        largest_group=int(groups.max(initial=0)),
        refusals=_refusals(dataset),
        clips=_clips(dataset),
    )


# Works, notes and seconds by collection, licence and who stated it.
_Sums = dict[tuple[str, str, str], tuple[int, int, float]]


class _Tally:
    """Counts over all shards so far."""

    def __init__(self) -> None:
        self.parts: _Sums = {}
        self.counted: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self.tags: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.families = np.zeros(len(INSTRUMENTS), np.int64)
        self._values: dict[str, list[NDArray[np.float64]]] = {scale.column: [] for scale in SCALES}
        self._moods: list[NDArray[np.float64]] = []
        self._are_labels: list[NDArray[np.bool_]] = []
        self._group_ids: list[pa.Array] = []

    def add(self, table: pa.Table) -> None:
        """Count the works of one shard."""
        if not table.num_rows:
            return
        _add_parts(self.parts, table)
        for name, counter in self.counted.items():
            _count(counter, table[name])
        _count(self.tags, pc.list_flatten(table["tags"]))
        families = _families(table["programs"])
        self.families += families.sum(axis=0)
        pitched = families[:, :-1].any(axis=1)
        _count(self.keys, table["key"].filter(pa.array(pitched)))
        for scale in SCALES:
            values = table[scale.column].to_numpy().astype(np.float64)
            self._values[scale.column].append(values[pitched] if scale.pitched else values)
        self._moods.append(np.stack([table[axis].to_numpy() for axis in ("valence", "arousal")], axis=1))
        self._are_labels.append(pc.equal(table["mood_source"], LABEL).to_numpy())
        self._group_ids += table["group_id"].chunks

    def measures(self) -> dict[str, Measure]:
        """Each measure over all works."""
        made = {}
        for scale in SCALES:
            values = np.concatenate([np.empty(0), *self._values[scale.column]])
            made[scale.column] = Measure(len(values), _quartiles(values), tuple(scale.counts(values).tolist()))
        return made

    def moods(self) -> Moods:
        """All works on the mood plane."""
        points = np.concatenate([np.empty((0, 2)), *self._moods])
        are_labels = np.concatenate([np.empty(0, bool), *self._are_labels])
        words = Counter(mood_word(valence, arousal) for valence, arousal in points.tolist())
        drawn = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(np.int64)
        return Moods(
            quadrants={mood: words[mood] for mood in MOODS},
            labels=int(are_labels.sum()),
            points=points[drawn],
            are_labels=are_labels[drawn],
        )

    def group_sizes(self) -> NDArray[np.int64]:
        """Works in each group of near duplicates; a lone work is a group of one."""
        counts = pc.value_counts(pa.chunked_array(self._group_ids, pa.string()))
        return np.asarray(counts.field("counts").to_numpy())


def _count(counter: Counter[str], column: pa.ChunkedArray) -> None:
    for found in pc.value_counts(column.drop_null()).to_pylist():
        counter[found["values"]] += found["counts"]


def _ranked(counter: Counter[str]) -> dict[str, int]:
    """From the most to the least; equal counts by name, so that a page is the same each time."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _add_parts(parts: _Sums, table: pa.Table) -> None:
    names = ["collection", "licence", "licence_origin"]
    sums = table.group_by(names).aggregate([([], "count_all"), ("notes", "sum"), ("length_s", "sum")])
    for row in sums.to_pylist():
        key = tuple(row[name] for name in names)
        works, notes, length_s = parts.get(key, (0, 0, 0.0))
        parts[key] = (works + row["count_all"], notes + row["notes_sum"], length_s + row["length_s_sum"])


def _parts(parts: _Sums, *, name: int, of: int) -> tuple[Part, ...]:
    """Sums by one member of the key, with what another member is in them, from the most works to the least."""
    told: dict[str, Counter[str]] = {}
    sums: dict[str, tuple[int, int, float]] = {}
    for key in sorted(parts):
        works, notes, length_s = sums.get(key[name], (0, 0, 0.0))
        sums[key[name]] = (works + parts[key][0], notes + parts[key][1], length_s + parts[key][2])
        told.setdefault(key[name], Counter())[key[of]] += parts[key][0]
    ranked = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    return tuple(Part(who, *held, of=tuple(_ranked(told[who]))) for who, held in ranked)


def _families(programs: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which families of programs each work plays; shape (works, families)."""
    column = programs.combine_chunks()
    work = pc.list_parent_indices(column).to_numpy()
    used = np.zeros((len(column), len(INSTRUMENTS)), bool)
    used[work, pc.list_flatten(column).to_numpy() // 8] = True
    return used


def _quartiles(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.quantile(values, _QUARTILES).tolist()) if len(values) else ()


def _pitches(dataset: Dataset) -> NDArray[np.int64]:
    counts = np.zeros(128, np.int64)
    for table in read_columns(dataset, prefix="works-", schema=WORKS, columns=("pitch", "program")):
        for chunk in table.to_batches():
            pitch, program = (pc.list_flatten(chunk[name]).to_numpy() for name in ("pitch", "program"))
            counts += np.bincount(pitch[program != DRUM_PROGRAM], minlength=128)[:128]
    return counts


def _refusals(dataset: Dataset) -> tuple[Refused, ...]:
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    columns = ("reason", "source_uri", "detail")
    for table in read_columns(dataset, prefix="refusals", schema=REFUSALS, columns=columns):
        _count(counts, table["reason"])
        for reason in counts.keys() - first.keys():
            row = pc.index(table["reason"], reason).as_py()
            first[reason] = (table["source_uri"][row].as_py(), table["detail"][row].as_py())
    return tuple(Refused(reason, inputs, *first[reason]) for reason, inputs in _ranked(counts).items())


def _clips(dataset: Dataset) -> Clips | None:
    columns = ("licence", "work_id", "length_s", "sample_rate_hz", "channels", "loudness_lufs")
    tables = list(read_columns(dataset, prefix="clips-", schema=CLIPS, columns=columns))
    if not tables:
        return None
    table = pa.concat_tables(tables)
    licences: Counter[str] = Counter()
    _count(licences, table["licence"])
    formats = Counter(zip(table["sample_rate_hz"].to_pylist(), table["channels"].to_pylist(), strict=True))
    return Clips(
        clips=table.num_rows,
        length_s=float(pc.sum(table["length_s"]).as_py() or 0.0),
        works=pc.count_distinct(table["work_id"]).as_py(),
        formats=dict(sorted(formats.items(), key=lambda item: (-item[1], item[0]))),
        loudness_lufs=_quartiles(table["loudness_lufs"].drop_null().to_numpy()),
        licences=_ranked(licences),
    )
