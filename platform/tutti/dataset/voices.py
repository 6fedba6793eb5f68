"""Works of several voices as rows: each row a whole piece on a grid, of which training sees stretches.

A row is the number of its first step and then the grid, step by step from the highest voice, in the format of packed
sequences, so that blocks, order and cache are the same code.

Legend: B rows of a rank's share, T steps, V voices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti import lineage, seeding
from tutti.corpus import rights
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import blocks
from tutti.dataset.packed import Index, Packed
from tutti.errors import DataError, IntegrityError, UserError
from tutti.features import voices as grids
from tutti.features.voices import FIRST_PITCH, NOTHING, VOCABULARY_SIZE, VOICES
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import WORKS, from_parquet
from tutti.telemetry import Reporter, Silent

PACK_VERSION = 1
"""Moves whenever the same works would give other rows."""
KIND = "voices"
MOST_STEPS = 1024
"""Of one row: a longer piece becomes several, each of which knows the step before it and no more."""
USUAL_TOKENS = 1024
_BLOCK_ROWS = blocks.sequences_of_block(USUAL_TOKENS)


def pack_voices(
    works: Dataset, *, licences: tuple[str, ...], root: Folder, name: str, reporter: Reporter | None = None
) -> Dataset:
    """The works of four voices whose licence was named; found, where that was done before.

    Args:
        works: a ``works`` dataset.
        licences: the licences whose works may train.
        root: results root.
        name: of the new dataset.
        reporter: where progress goes.

    Raises:
        IntegrityError: a shard differs from the manifest.
        UserError: no work has such a licence, or none has four voices; ``name`` cannot be a folder's, or a place cannot
            be used.
    """
    reporter = reporter or Silent()
    inputs = {
        "works": works.address,
        "licences": sorted(licences),
        "vocabulary_size": VOCABULARY_SIZE,
        "voices": VOICES,
        "most_steps": MOST_STEPS,
        "block_sequences": _BLOCK_ROWS,
        "file_blocks": blocks.FILE_BLOCKS,
        "version": PACK_VERSION,
    }
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"voices {name}: found finished · {counts(found)}")
        return found
    for line in rights.told(works, named=licences):
        reporter.line(f"voices {name}: {line}")
    seen = _read(works, licences=licences, name=name, reporter=reporter)
    if not seen.rows:
        raise UserError(f"no work of {works.name} has {VOICES} voices", remedy="ingest scores of four parts")
    writer = blocks.Writer(folder, block_sequences=_BLOCK_ROWS, file_blocks=blocks.FILE_BLOCKS)
    number = 0
    for (split, source), rows in sorted(seen.rows.items()):
        writer.begin(split, source)
        writer.add(_packed(rows, first=number))
        number += len(rows)
    writer.finish()
    kept = ("vocabulary_size", "voices", "most_steps", "block_sequences", "file_blocks")
    facts = {**{name: inputs[name] for name in kept}, "sequences": writer.groups, "works_address": works.address}
    dataset = lineage.publish(
        folder, kind=KIND, name=name, inputs=inputs, files=writer.files, facts=facts | seen.facts()
    )
    reporter.line(f"voices {name}: {counts(dataset)}")
    return dataset


def counts(voices: Dataset) -> str:
    """What a dataset of voices holds, in one short text."""
    facts = voices.facts
    text = f"{facts['works']:,} works of {VOICES} voices · {facts['steps']:,} sixteenths"
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in facts["left_out"].items())
    return f"{text} · left out: {left_out}" if left_out else text


@dataclass
class _Seen:
    """Rows by split and source, and what is told of them."""

    rows: dict[tuple[str, str], list[NDArray[np.uint16]]] = field(default_factory=dict)
    works: int = 0
    steps: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    programs: set[int] = field(default_factory=set)

    def add(self, grid_TV: grids.Voices, *, split: str, source: str) -> None:
        """One more piece."""
        self.works += 1
        self.steps += len(grid_TV)
        self.splits[split] += 1
        changed = np.diff(grid_TV.astype(np.int64), axis=0, prepend=NOTHING) != 0
        self.notes[split] += int(np.count_nonzero(changed & (grid_TV >= FIRST_PITCH)))
        rows = self.rows.setdefault((split, source), [])
        for start in range(0, len(grid_TV), MOST_STEPS):
            first = max(start - 1, 0)
            rows.append(np.append(np.uint16(first), grid_TV[first : start + MOST_STEPS].reshape(-1)))

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "works": self.works,
            "steps": self.steps,
            "tokens": self.steps * VOICES,
            "left_out": dict(sorted(self.left_out.items())),
            "splits": dict(sorted(self.splits.items())),
            "notes": self.notes.total(),
            "split_notes": dict(self.notes),
            "licences": dict(sorted(self.licences.items())),
            "collections": sorted({source for _, source in self.rows}),
            "programs": sorted(self.programs),
        }


def _read(works: Dataset, *, licences: tuple[str, ...], name: str, reporter: Reporter) -> _Seen:
    paths, seen = [path for path in works.paths(".parquet") if path.startswith("works-")], _Seen()
    with reporter.task(f"voices {name}", total=len(paths), unit="shards") as task:
        for number, path in enumerate(paths, start=1):
            table = from_parquet(works.read(path), WORKS)
            may = [rights.allowed(licence, named=licences) for licence in table.column("licence").to_pylist()]
            table = table.filter(pa.array(may, pa.bool_()))
            columns = (table.column(column).to_pylist() for column in ("split", "collection", "licence"))
            for score, split, source, licence in zip(ScoreBatch.from_table(table), *columns, strict=True):
                try:
                    grid_TV = grids.voices_of(score)
                except DataError:
                    seen.left_out["not_of_four_voices"] += 1
                    continue
                seen.add(grid_TV, split=split, source=source)
                seen.licences[licence] += 1
                seen.programs |= set(np.unique(score.notes.program).tolist())
            task.update(number)
    return seen


def _packed(rows: list[NDArray[np.uint16]], *, first: int) -> Packed:
    return Packed.of(
        np.concatenate(rows),
        lengths=np.array([len(row) for row in rows]),
        pieces=np.arange(first, first + len(rows), dtype=np.int64),
        counts=np.ones(len(rows), dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class VoiceBatch:
    """One rank's share of a global batch.

    Args:
        before_BTV: pitches at the step before each one; :data:`tutti.features.voices.NOTHING` before the first.
        now_BTV: pitches at each step; ``NOTHING`` at padding.
        places_BT: number of each step in its piece.
        targets_BTV: what is to be learnt; as ``now_BTV``, and ``NOTHING`` where that is told and not learnt.
    """

    before_BTV: NDArray[np.uint16]
    now_BTV: NDArray[np.uint16]
    places_BT: NDArray[np.int32]
    targets_BTV: NDArray[np.uint16]

    @property
    def num_targets(self) -> int:
        """How many pitches of voices are to be learnt."""
        return int(np.count_nonzero(self.targets_BTV))

    def rows(self, start: int, stop: int) -> VoiceBatch:
        """Rows ``start`` to ``stop`` (exclusive)."""
        return VoiceBatch(*(column[start:stop] for column in self.arrays().values()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name, in the order in which a network reads them."""
        return {
            "before": self.before_BTV, "now": self.now_BTV, "places": self.places_BT, "targets": self.targets_BTV,
        }  # fmt: skip


def random_voices(rows: int, *, steps: int) -> VoiceBatch:
    """A batch of full rows that mean nothing."""
    drawn = np.random.default_rng(0).integers(1, VOCABULARY_SIZE, (rows, steps + 1, VOICES), dtype=np.uint16)
    places = np.tile(np.arange(steps, dtype=np.int32), (rows, 1))
    return VoiceBatch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), places, drawn[:, 1:].copy())


class VoiceLayout:
    """Pieces as rows of their own, padded to the longest of them.

    Args:
        steps: longest stretch of a piece that training sees; where to cut is drawn each time.
        most_semitones: a piece is transposed by -most to most semitones, each as likely, each time it is seen, as far
            as the compass reaches.
    """

    kind, unit = KIND, "notes"
    sets_lasts_apart = False
    rows_are_pieces = True
    needs_pieces = True

    def __init__(self, *, steps: int, most_semitones: int) -> None:
        self._steps, self._most_semitones = steps, most_semitones

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse another compass or another number of voices."""
        if (facts["vocabulary_size"], facts["voices"]) != (VOCABULARY_SIZE, VOICES):
            raise IntegrityError(f"{where} holds {facts['voices']} voices of another compass: make them again")

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:
        """Each piece transposed and cut by draws of its own."""

        def draw(name: str) -> NDArray[np.float64]:
            streams = {epoch: seeding.derive(seed, "voices", name, epoch) for epoch in np.unique(epochs).tolist()}
            of_row = np.array([streams[epoch] for epoch in epochs.tolist()], dtype=np.uint64)
            return seeding.uniform_at(of_row, held.pieces.astype(np.uint64))

        rows = [
            self._changed(held.tokens[start:stop], transposition=transposition, cut=cut)
            for start, stop, transposition, cut in zip(
                held.token_starts[:-1].tolist(), held.token_starts[1:].tolist(), draw("transposition").tolist(),
                draw("cut").tolist(), strict=True,
            )
        ]  # fmt: skip
        return Packed.of(
            np.concatenate(rows),
            lengths=np.array([len(row) for row in rows]),
            pieces=held.pieces,
            counts=held.counts,
        )

    def laid(self, held: Packed, *, num_rows: int) -> VoiceBatch:
        """Pieces as a batch; rows beyond them are padding."""
        starts, stops = held.token_starts[:-1].tolist(), held.token_starts[1:].tolist()
        steps = max([(stop - start - 1) // VOICES for start, stop in zip(starts, stops, strict=True)], default=1)
        now = np.full((num_rows, steps, VOICES), NOTHING, dtype=np.uint16)
        places = np.tile(np.arange(steps, dtype=np.int32), (num_rows, 1))
        told = np.zeros(num_rows, dtype=bool)
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            first, grid = int(held.tokens[start]), held.tokens[start + 1 : stop].reshape(-1, VOICES)
            now[row, : len(grid)] = grid
            places[row] += first
            told[row] = first > 0
        before, targets = np.full_like(now, NOTHING), now.copy()
        before[:, 1:] = now[:, :-1]
        targets[told, 0] = NOTHING
        return VoiceBatch(before, now, places, targets)

    def _changed(self, row: NDArray[np.uint16], *, transposition: float, cut: float) -> NDArray[np.uint16]:
        first, grid = int(row[0]), row[1:].reshape(-1, VOICES)
        if (beyond := len(grid) - self._steps) > 0:
            # Beyond both ends and back, so that beginnings and ends come as often as what lies between.
            margin = self._steps // 2
            start = min(max(int(cut * (beyond + 1 + 2 * margin)) - margin, 0), beyond)
            first, grid = first + start, grid[start : start + self._steps]
        sounding = grid[grid >= FIRST_PITCH].astype(np.int64)
        if len(sounding):
            most = self._most_semitones
            down = min(most, int(sounding.min()) - FIRST_PITCH)
            up = min(most, VOCABULARY_SIZE - 1 - int(sounding.max()))
            semitones = int(transposition * (down + up + 1)) - down
            grid = np.where(grid >= FIRST_PITCH, grid.astype(np.int64) + semitones, grid).astype(np.uint16)
        return np.append(np.uint16(first), grid.reshape(-1))
