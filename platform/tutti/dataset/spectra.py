"""Notes as packed pictures: what a family that draws instruments learns from, in the same blocks as sequences.

One row is one note is one piece: ``[pitch, instrument, …]`` and the picture's numbers as 16-bit floats, whose bits are
told as the 16-bit whole numbers that packed rows are made of. Blocks, order, cache and loader are therefore those of
sequences (:mod:`.blocks`, :mod:`.order`, :mod:`.loader`).

Legend: B rows of a rank's share, S samples, K bins, F frames, N numbers of a row.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti import lineage, seeding
from tutti.dataset import blocks
from tutti.dataset.note_sources import Note, NoteSource
from tutti.dataset.packed import Index, Packed
from tutti.errors import RecipeError, UserError
from tutti.features.spectra import SpectrumScale, to_spectra
from tutti.features.spectral import Floats
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.telemetry import Reporter, Silent

SPECTRA_VERSION = 1
"""Moves whenever the same notes would give other rows."""
KIND = "spectra"
HEAD = 2
"""Numbers of a row before its picture: pitch and instrument."""

_NUMBER, _WHOLE = np.dtype("<f2"), np.dtype("<u2")
_SILENT = 1e-4


def pack_spectra(
    sources: Sequence[NoteSource],
    *,
    scale: SpectrumScale,
    root: Folder,
    name: str,
    reporter: Reporter | None = None,
) -> Dataset:
    """The notes of some sources as packed pictures; found, where that was done before.

    Silent notes are left out and counted. Instruments are numbered by name, in the fact ``instruments``.

    Args:
        sources: of the notes, in an order that decides nothing but the rows' numbers.
        scale: what the pictures are made with.
        root: results root.
        name: of the new dataset.
        reporter: where progress goes.

    Raises:
        UserError: no source gives a note that sounds; ``name`` cannot be a folder's, or a place cannot be used.
    """
    reporter = reporter or Silent()
    row_numbers = HEAD + int(np.prod(scale.shape))
    block_notes, file_blocks = blocks.sequences_of_block(row_numbers), blocks.FILE_BLOCKS
    inputs = {
        "sources": [dict(source.inputs) for source in sources],
        "scale": scale.to_dict(),
        "block_sequences": block_notes,
        "file_blocks": file_blocks,
        "version": SPECTRA_VERSION,
    }
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"spectra {name}: found finished · {counts(found)}")
        return found
    writer = blocks.Writer(folder, block_sequences=block_notes, file_blocks=file_blocks)
    facts = _written(sources, writer, scale=scale, row_numbers=row_numbers, name=name, reporter=reporter)
    dataset = lineage.publish(
        folder,
        kind=KIND,
        name=name,
        inputs=inputs,
        files=writer.files,
        facts={
            "scale": scale.to_dict(),
            "block_sequences": block_notes,
            "file_blocks": file_blocks,
            "sequences": writer.groups,
            "split_notes": {
                split: sum(group["sequences"] for group in groups.values()) for split, groups in writer.groups.items()
            },
            **facts,
        },
    )
    reporter.line(f"spectra {name}: {counts(dataset)}")
    return dataset


def _written(
    sources: Sequence[NoteSource],
    writer: blocks.Writer,
    *,
    scale: SpectrumScale,
    row_numbers: int,
    name: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write all notes; what is to be known of them."""
    length_s = scale.note_samples / scale.sample_rate_hz
    with tempfile.TemporaryDirectory(prefix="tutti-spectra-") as spilled:
        spill = _Spill(Path(spilled), row_numbers=row_numbers)
        with reporter.task("draw", total=sum(source.total for source in sources), unit="steps") as task:
            steps = (source.notes(sample_rate_hz=scale.sample_rate_hz, length_s=length_s) for source in sources)
            for done, notes in enumerate(itertools.chain.from_iterable(steps), start=1):
                spill.add(notes, scale=scale)
                task.update(done)
        if not spill.instruments:
            raise UserError(f"spectra {name}: no source gives a note that sounds", remedy="name other sources")
        for split, instrument in spill.groups():
            writer.begin(split, instrument)
            for rows in spill.read(split, instrument, rows_at_once=blocks.sequences_of_block(row_numbers)):
                writer.add(rows)
        writer.finish()
        return {
            "instruments": spill.instruments,
            "pitches": [spill.pitch_low, spill.pitch_high],
            "licences": dict(sorted(spill.licences.items())),
            "silent": spill.silent,
        }


def counts(spectra: Dataset) -> str:
    """What a dataset of spectra holds, in one short text."""
    facts = spectra.facts
    low, high = facts["pitches"]
    notes, instruments = sum(facts["split_notes"].values()), len(facts["instruments"])
    return f"{notes:,} notes of {instruments:,} instruments · pitches {low} to {high}"


def scale_of(spectra: Dataset) -> SpectrumScale:
    """What the pictures of a dataset were made with."""
    return SpectrumScale(**spectra.facts["scale"])


class _Spill:
    """Rows of each split and instrument on this machine's disk, all of one length."""

    def __init__(self, folder: Path, *, row_numbers: int) -> None:
        self.silent = 0
        self.licences = Counter[str]()
        self.pitch_low, self.pitch_high = 127, 0
        self._folder, self._row_numbers = folder, row_numbers
        self._rows = dict[tuple[str, str], list[int]]()
        self._next_row = 0

    @property
    def instruments(self) -> list[str]:
        """All of them, sorted: the place of a name is its number."""
        return sorted({instrument for _, instrument in self._rows})

    def add(self, notes: Sequence[Note], *, scale: SpectrumScale) -> None:
        """Draw some notes."""
        heard = [note for note in notes if len(note.samples_S) and float(np.abs(note.samples_S).max()) >= _SILENT]
        self.silent += len(notes) - len(heard)
        if not heard:
            return
        spectra_B2KF = to_spectra(_of_one_length([note.samples_S for note in heard]), scale=scale)
        for note, spectrum_2KF in zip(heard, spectra_B2KF, strict=True):
            row = np.empty(self._row_numbers, dtype=_WHOLE)
            row[0] = note.pitch
            row[HEAD:] = spectrum_2KF.ravel().astype(_NUMBER).view(_WHOLE)
            group = (note.split, note.instrument)
            self._rows.setdefault(group, []).append(self._next_row)
            with self._path(*group).open("ab") as file:
                file.write(row.tobytes())
            self._next_row += 1
            self.licences[note.licence] += 1
            self.pitch_low, self.pitch_high = min(self.pitch_low, note.pitch), max(self.pitch_high, note.pitch)

    def groups(self) -> list[tuple[str, str]]:
        """Split and instrument of all rows, sorted."""
        return sorted(self._rows)

    def read(self, split: str, instrument: str, *, rows_at_once: int) -> Iterator[Packed]:
        """The rows of a group in an order that is drawn: neighbours in pitch are not to share their blocks."""
        numbers = np.array(self._rows[split, instrument], dtype=np.int64)
        held = np.memmap(self._path(split, instrument), dtype=_WHOLE, mode="r").reshape(len(numbers), -1)
        stream = np.array([seeding.derive(0, "spectra", "place")], dtype=np.uint64)
        drawn = np.argsort(seeding.uniform_at(stream, numbers.astype(np.uint64)), kind="stable")
        for start in range(0, len(drawn), rows_at_once):
            chosen = drawn[start : start + rows_at_once]
            rows = held[chosen]
            rows[:, 1] = self.instruments.index(instrument)
            yield Packed.of(
                rows.ravel(),
                lengths=np.full(len(rows), self._row_numbers),
                pieces=numbers[chosen],
                counts=np.ones(len(rows), dtype=np.int64),
            )

    def _path(self, split: str, instrument: str) -> Path:
        # An instrument may be called as no file can be.
        return self._folder / f"{list(self._rows).index((split, instrument))}.rows"


def _of_one_length(sounds: Sequence[Floats]) -> Floats:
    samples_BS = np.zeros((len(sounds), max(len(samples_S) for samples_S in sounds)), dtype=np.float32)
    for row_S, samples_S in zip(samples_BS, sounds, strict=True):
        row_S[: len(samples_S)] = samples_S
    return samples_BS


@dataclass(frozen=True, slots=True)
class SpectraBatch:
    """One rank's share of a global batch.

    Args:
        spectra_B2KF: 16-bit floats; silence in padding.
        pitch_B, instrument_B: of each note; the lowest and 0 in padding, which comes last.
        num_targets: how many rows are notes.
    """

    spectra_B2KF: NDArray[np.float16]
    pitch_B: NDArray[np.uint8]
    instrument_B: NDArray[np.uint16]
    num_targets: int

    def rows(self, start: int, stop: int) -> SpectraBatch:
        """Rows ``start`` to ``stop`` (exclusive)."""
        return SpectraBatch(
            self.spectra_B2KF[start:stop],
            self.pitch_B[start:stop],
            self.instrument_B[start:stop],
            int(np.clip(self.num_targets - start, 0, stop - start)),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name, each of shape (B, …)."""
        return {"spectra": self.spectra_B2KF, "pitch": self.pitch_B, "instrument": self.instrument_B}


class SpectraLayout:
    """Pictures of one scale.

    Args:
        scale: what the dataset was made with.
        lowest_pitch: that a model knows: padding asks for it, for it must ask for something.
    """

    kind, unit = KIND, "notes"
    needs_pieces = sets_lasts_apart = rows_are_pieces = False

    def __init__(self, *, scale: SpectrumScale, lowest_pitch: int) -> None:
        self._scale, self._lowest_pitch = scale, lowest_pitch

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse pictures of another scale.

        Raises:
            RecipeError: they are.
        """
        if dict(facts["scale"]) != self._scale.to_dict():
            raise RecipeError(f"{where} was made with {facts['scale']}, not {self._scale}", remedy="make it again")

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:  # noqa: ARG002
        """The same: a note has no other forms."""
        return held

    def laid(self, held: Packed, *, num_rows: int) -> SpectraBatch:
        """The rows as a batch; where there are fewer than ``num_rows``, silence follows."""
        rows = held.tokens.reshape(len(held), HEAD + int(np.prod(self._scale.shape)))
        spectra_B2KF = np.zeros((num_rows, *self._scale.shape), dtype=np.float16)
        spectra_B2KF[len(held) :, 0] = -1
        spectra_B2KF[: len(held)] = (
            np.ascontiguousarray(rows[:, HEAD:]).view(np.float16).reshape(-1, *self._scale.shape)
        )
        pitch_B, instrument_B = np.full(num_rows, self._lowest_pitch, np.uint8), np.zeros(num_rows, np.uint16)
        pitch_B[: len(held)], instrument_B[: len(held)] = rows[:, 0], rows[:, 1]
        return SpectraBatch(spectra_B2KF, pitch_B, instrument_B, len(held))
