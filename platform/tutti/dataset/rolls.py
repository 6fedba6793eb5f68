"""Piano-rolls of works: windows cut and stored once for every corpus, and their rows as batches.

A roll is a sequence of one piece in the format of packed sequences, so that blocks, order and cache are the same code.

Legend: R rolls, B rows of a rank's share; of a roll M marks, B bars, S steps, P pitches, K tracks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti import lineage, seeding
from tutti.corpus import rights
from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import blocks
from tutti.dataset.packed import Index, Packed
from tutti.dataset.spill import Bucket, Spill, draws
from tutti.errors import IntegrityError, UserError
from tutti.features import roll
from tutti.features.mood import mood_word
from tutti.features.vocabulary import ANY
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import WORKS, from_parquet
from tutti.telemetry import Reporter, Silent

PACK_VERSION = 1
"""Moves whenever the same rolls would lie otherwise."""
KIND = "rolls"
USUAL_TOKENS = 512
"""Of a roll, about: what a block of about 1 MiB is measured by."""
BUCKET_BYTES = 2**28
"""Tokens that are shuffled at once; memory holds some times as much."""
_CELLS_OF_NOTE = 4
_PROGRAMS = DRUM_PROGRAM + 1


def pack_rolls(
    works: Dataset,
    *,
    licences: tuple[str, ...],
    root: Folder,
    name: str,
    hop_bars: int,
    reporter: Reporter | None = None,
    bucket_bytes: int = BUCKET_BYTES,
) -> Dataset:
    """The rolls of the works whose licence was named; found, where that was done before.

    Args:
        works: a ``works`` dataset.
        licences: the licences whose works may train.
        root: results root.
        name: of the new dataset.
        hop_bars: bars from one window of a work to the next; below :data:`tutti.features.roll.BARS` they overlap, and
            a bar is seen in several places of its phrase.
        reporter: where progress goes.
        bucket_bytes: tokens that are shuffled at once, about; part of the address, for it decides what lies together.

    Raises:
        IntegrityError: a shard differs from the manifest.
        UserError: no work has such a licence, or none has a window; ``name`` cannot be a folder's, or a place cannot be
            used.
    """
    reporter = reporter or Silent()
    block_sequences, file_blocks = blocks.sequences_of_block(USUAL_TOKENS), blocks.FILE_BLOCKS
    inputs = {
        "works": works.address,
        "licences": sorted(licences),
        "rolls": roll.described(),
        "hop_bars": hop_bars,
        "block_sequences": block_sequences,
        "file_blocks": file_blocks,
        "bucket_bytes": bucket_bytes,
        "version": PACK_VERSION,
    }
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"rolls {name}: found finished · {counts(found)}")
        return found
    for line in rights.told(works, named=licences):
        reporter.line(f"rolls {name}: {line}")
    writer = blocks.Writer(folder, block_sequences=block_sequences, file_blocks=file_blocks)
    seen = _written(works, writer, licences=licences, hop_bars=hop_bars, bucket_bytes=bucket_bytes, reporter=reporter)
    if not writer.groups:
        raise UserError(
            f"no work of {works.name} has {roll.BARS} bars of four quarters in a row", remedy="ingest works in 4/4"
        )
    facts = {name: inputs[name] for name in ("rolls", "hop_bars", "block_sequences", "file_blocks")}
    facts |= {"sequences": writer.groups, "works_address": works.address, **seen.facts()}
    dataset = lineage.publish(folder, kind=KIND, name=name, inputs=inputs, files=writer.files, facts=facts)
    reporter.line(f"rolls {name}: {counts(dataset)}")
    return dataset


def counts(rolls: Dataset) -> str:
    """What a dataset of rolls holds, in one short text."""
    facts = rolls.facts
    held = sum(group["sequences"] for sources in facts["sequences"].values() for group in sources.values())
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in facts["left_out"].items())
    text = f"{held:,} rolls of {roll.BARS} bars of {facts['works']:,} works"
    return f"{text} · left out: {left_out}" if left_out else text


@dataclass
class _Seen:
    """What went into the rolls and what did not."""

    works: int = 0
    works_without: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    split_notes: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    collections: set[str] = field(default_factory=set)
    notes_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(roll.TRACKS), _PROGRAMS), np.int64))

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        used = self.notes_of.any(axis=1)
        return {
            "works": self.works,
            "works_without_rolls": self.works_without,
            "left_out": dict(sorted(self.left_out.items())),
            "splits": dict(sorted(self.splits.items())),
            "notes": self.split_notes.total(),
            "split_notes": dict(self.split_notes),
            "licences": dict(sorted(self.licences.items())),
            "collections": sorted(self.collections),
            "programs": np.flatnonzero(self.notes_of.any(axis=0)).tolist(),
            # What a track is most often played by, so that a choir is not decoded as a band.
            "track_programs": np.where(used, self.notes_of.argmax(axis=1), roll.PROGRAMS).tolist(),
        }


def _written(
    works: Dataset,
    writer: blocks.Writer,
    *,
    licences: tuple[str, ...],
    hop_bars: int,
    bucket_bytes: int,
    reporter: Reporter,
) -> _Seen:
    """Write all rolls; what they were made of."""
    paths, seen = [path for path in works.paths(".parquet") if path.startswith("works-")], _Seen()
    cells = _CELLS_OF_NOTE * int(works.facts["notes"]) * roll.BARS // hop_bars
    with tempfile.TemporaryDirectory(prefix="tutti-rolls-") as spilled:
        spill = Spill(Path(spilled), buckets=max(-(-2 * cells // bucket_bytes), 1))
        with reporter.task("rolls", total=2 * len(paths), unit="shards") as task:
            for number, path in enumerate(paths, start=1):
                table = from_parquet(works.read(path), WORKS)
                rolls, of = _windows(table, seen, licences=licences, hop_bars=hop_bars)
                spill.add(rolls, groups=of)
                task.update(number)
            groups = spill.groups()
            for number, (split, source) in enumerate(groups, start=1):
                writer.begin(split, source)
                for bucket in spill.read(split, source, most_bytes=bucket_bytes):
                    writer.add(_shuffled(bucket))
                task.update(len(paths) * (1 + number / len(groups)))
        writer.finish()
    return seen


def _windows(
    table: pa.Table, seen: _Seen, *, licences: tuple[str, ...], hop_bars: int
) -> tuple[list[roll.Tokens], list[tuple[str, str]]]:
    """The rolls of one shard's works that may be used, with split and source of each."""
    may = [rights.allowed(licence, named=licences) for licence in table.column("licence").to_pylist()]
    table = table.filter(pa.array(may, pa.bool_()))
    names = ("split", "collection", "licence", "valence", "arousal")
    rolls, groups = list[roll.Tokens](), list[tuple[str, str]]()
    rows = zip(ScoreBatch.from_table(table), *(table.column(name).to_pylist() for name in names), strict=True)
    for score, split, collection, licence, valence, arousal in rows:
        tracks = roll.tracks_of(score.notes)
        made = roll.rolls_of(score, tracks=tracks, mood=mood_word(valence, arousal), hop_bars=hop_bars)
        sounding = [tokens for tokens in made.tokens if len(tokens) > roll.HEAD_TOKENS]
        seen.left_out += made.left_out + Counter(silent=len(made.tokens) - len(sounding))
        seen.works += bool(sounding)
        seen.works_without += not sounding
        if sounding:
            seen.licences[licence] += 1
            seen.splits[split] += 1
            seen.collections.add(collection)
            np.add.at(seen.notes_of, (tracks, np.minimum(score.notes.program, DRUM_PROGRAM)), 1)
        rolls += sounding
        groups += [(split, collection)] * len(sounding)
        seen.split_notes[split] += sum(roll.notes_in(tokens) for tokens in sounding)
    return rolls, groups


def _shuffled(bucket: Bucket) -> Packed:
    """Each roll a sequence of its own, in an order that is drawn."""
    drawn = np.argsort(draws("place", bucket.numbers), kind="stable")
    taken = bucket.pieces.take(drawn)
    return Packed.of(
        taken.tokens,
        lengths=taken.lengths,
        pieces=bucket.numbers[drawn],
        counts=np.ones(len(drawn), dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class RollBatch:
    """One rank's share of a global batch of rolls; rows of padding, where there are any, follow the real ones.

    Args:
        roll_RMBSPK: 1 where a cell sounds, and where a note begins in it.
        classes_RC: index into each of :data:`tutti.features.roll.CLASSES`.
        num_targets: how many rows are real.
    """

    roll_RMBSPK: NDArray[np.uint8]
    classes_RC: NDArray[np.uint8]
    num_targets: int

    def rows(self, start: int, stop: int) -> RollBatch:
        """Rolls ``start`` to ``stop`` (exclusive)."""
        real = min(max(self.num_targets - start, 0), stop - start)
        return RollBatch(self.roll_RMBSPK[start:stop], self.classes_RC[start:stop], real)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name, each of shape (R, …)."""
        return {"roll": self.roll_RMBSPK, "classes": self.classes_RC}


class RollLayout:
    """Rolls as dense rows.

    Args:
        most_semitones: a roll is transposed by -most to most semitones, each as likely, each time it is seen.
        class_dropout: how often each of its classes is hidden (``any``).
        home_key: whether it is laid transposed to C major or A minor, as its notes lie, wherever it is read.
    """

    kind, unit = KIND, "rolls"
    sets_lasts_apart = False
    rows_are_pieces = False

    def __init__(self, *, most_semitones: int, class_dropout: float, home_key: bool = False) -> None:
        self._most_semitones, self._class_dropout, self._home_key = most_semitones, class_dropout, home_key
        self.needs_pieces = most_semitones > 0 or class_dropout > 0

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse rolls of another shape or other classes.

        Raises:
            IntegrityError: they are.
        """
        if facts.get("rolls") != roll.described():
            raise IntegrityError(f"{where} holds rolls of another shape or version: make them again")

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:
        """Rolls transposed, and their classes hidden, by draws of their own.

        Args:
            held: R rolls.
            seed: root of the draws.
            epochs: which epoch sees each; shape (R,).
        """

        def draw(name: str) -> NDArray[np.float64]:
            streams = {epoch: seeding.derive(seed, "rolls", name, epoch) for epoch in np.unique(epochs).tolist()}
            of_row = np.array([streams[epoch] for epoch in epochs.tolist()], dtype=np.uint64)
            return seeding.uniform_at(of_row, held.pieces.astype(np.uint64))

        steps = 2 * self._most_semitones + 1
        semitones = (draw("transposition") * steps).astype(np.int64) - self._most_semitones
        tokens = roll.transposed(held.tokens, lengths=held.lengths, semitones=semitones)
        hidden = roll.head_of(**dict.fromkeys(roll.CLASSES, ANY))
        for place, kind in enumerate(roll.CLASSES):
            is_hidden = draw(kind) < self._class_dropout
            tokens[held.token_starts[:-1][is_hidden] + place] = hidden[place]
        return Packed.of(tokens, lengths=held.lengths, pieces=held.pieces, counts=held.counts)

    def laid(self, held: Packed, *, num_rows: int) -> RollBatch:
        """Rolls as a batch; rows beyond them are silent and of no class."""
        tokens = held.tokens
        if self._home_key:
            semitones = roll.semitones_home(tokens, lengths=held.lengths)
            tokens = roll.transposed(tokens, lengths=held.lengths, semitones=semitones)
        classes, marks = roll.dense(tokens, lengths=held.lengths)
        missing = num_rows - len(held)
        return RollBatch(
            np.concatenate((marks, np.zeros((missing, *roll.SHAPE), dtype=bool))).view(np.uint8),
            np.concatenate((classes, np.zeros((missing, roll.HEAD_TOKENS), dtype=np.int64))).astype(np.uint8),
            len(held),
        )
