"""Files by their names: which module reads which, and many files at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import splitext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutti.corpus import grids, note_tables, scores
from tutti.corpus.found_pieces import HANGING_NOTE_QUARTERS, MAX_NOTES, FoundPieces
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.score import Score
from tutti.corpus.score_batch import MAX_PIECES, ScoreBatch
from tutti.errors import DataError

if TYPE_CHECKING:
    from tutti.corpus.midi_reader import MidiReader

MIDI_SUFFIXES = (".mid", ".midi", ".smf", ".kar", ".rmi")
SUFFIXES = (*MIDI_SUFFIXES, *scores.SUFFIXES, *note_tables.SUFFIXES, *grids.SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseOptions:
    """How files are read; plain values, to be sent to another process.

    Args:
        tempo_without_mark_qpm: tempo of written scores that state none, in quarters per minute.
        hanging_note_quarters: how long a MIDI note without an end lasts at most.
        max_notes: of one piece.
    """

    tempo_without_mark_qpm: float
    hanging_note_quarters: float = HANGING_NOTE_QUARTERS
    max_notes: int = MAX_NOTES


@dataclass(frozen=True, slots=True)
class Parsed:
    """What files hold. Each file has a piece or a refusal; a file of several pieces may have some of both.

    Args:
        batch: W pieces, in the order of their files.
        file_of_piece: which file each piece is of; shape (W,).
        refusals: file, reason (of :data:`tutti.tables.REFUSAL_REASONS`) and detail, in the order of the files.
    """

    batch: ScoreBatch
    file_of_piece: NDArray[np.int64]
    refusals: tuple[tuple[int, str, str], ...]


def is_known(name: str) -> bool:
    """Whether the file's name ends in a format that can be read."""
    return _suffix(name) in SUFFIXES


def max_bytes(name: str) -> int:
    """The size up to which a file of that name is read."""
    return note_tables.MAX_FILE_BYTES if _suffix(name) in note_tables.SUFFIXES else MAX_FILE_BYTES


def parse(data: bytes, *, name: str, tempo_without_mark_qpm: float) -> list[Score]:
    """The scores in the bytes of a file, without those of its pieces that cannot be taken.

    Args:
        data: the file.
        name: its name, whose end tells the format.
        tempo_without_mark_qpm: tempo of written scores that state none.

    Raises:
        DataError: no piece can be taken, for one of :data:`tutti.tables.REFUSAL_REASONS`.
    """
    options = ParseOptions(tempo_without_mark_qpm=tempo_without_mark_qpm)
    parsed = parse_many([(name, data)], options=options, on_file=lambda _: None)
    if not len(parsed.batch):
        _, reason, detail = parsed.refusals[0]
        raise DataError(reason, detail)
    return list(parsed.batch)


def parse_many(files: Sequence[tuple[str, bytes]], *, options: ParseOptions, on_file: Callable[[int], None]) -> Parsed:
    """The pieces of many files, as columns of one batch; a file that cannot be taken is refused alone.

    Args:
        files: name, whose end tells the format, and bytes of each.
        options: how to read them.
        on_file: told the index of each file before it is touched, in order.
    """
    reading = _Reading(options, on_file=on_file)
    for number, (name, data) in enumerate(files):
        on_file(number)
        reading.read(number, name=name, data=data)
    return reading.finished()


class _Reading:
    """The state of :func:`parse_many`: pieces by reader, each with its file."""

    def __init__(self, options: ParseOptions, *, on_file: Callable[[int], None]) -> None:
        self._options = options
        self._on_file = on_file
        self._midi: MidiReader | None = None
        self._files_of_midi: list[int] = []
        self._others: list[FoundPieces] = []
        self._files_of_others: list[int] = []
        self._refusals: list[tuple[int, str, str]] = []

    def read(self, number: int, *, name: str, data: bytes) -> None:
        """Put the pieces of a file aside, or its refusal."""
        try:
            if not is_known(name):
                raise DataError("unknown_format", f"{name} ends in none of {', '.join(SUFFIXES)}")
            if not data:
                raise DataError("empty", "the file holds no bytes")
            if len(data) > (limit := max_bytes(name)):
                raise DataError("too_long", f"{len(data)} bytes are more than the limit of {limit}")
            if _suffix(name) in MIDI_SUFFIXES:
                self._read_midi(number, data)
            else:
                for part in self._parts(number, name, data):
                    self._read_other(number, name, part)
        except DataError as error:
            self._refusals.append((number, error.reason, error.detail))

    def _read_other(self, number: int, name: str, part: bytes) -> None:
        try:
            found = self._found(name, part)
            self._check_room(len(found))
            self._others.append(found)
            self._files_of_others += [number] * len(found)
        except DataError as error:
            self._refusals.append((number, error.reason, error.detail))

    def finished(self) -> Parsed:
        """All pieces by the rules of :mod:`tutti.corpus.found_pieces`, in the order of their files."""
        parts = [] if self._midi is None else [self._midi.found()]
        file_of_found = np.array(self._files_of_midi + self._files_of_others, dtype=np.int64)
        found = FoundPieces.joined([*parts, *self._others])
        batch, kept, refused = found.settled(max_notes=self._options.max_notes)
        file_of_piece = file_of_found[kept]
        if (np.diff(file_of_piece) < 0).any():
            order = np.argsort(file_of_piece, kind="stable")
            batch, file_of_piece = batch.take(order), file_of_piece[order]
        with_pieces = set(file_of_piece.tolist())
        refusals = list(self._refusals)
        for piece, (reason, detail) in sorted(refused.items()):
            file = int(file_of_found[piece])
            # An empty track among others that hold music is no loss.
            if reason != "no_notes" or file not in with_pieces:
                refusals.append((file, reason, detail))
        return Parsed(batch, file_of_piece, tuple(sorted(refusals, key=lambda refusal: refusal[0])))

    def _check_room(self, pieces: int) -> None:
        if len(self._files_of_midi) + len(self._files_of_others) + pieces > MAX_PIECES:
            raise DataError(
                "too_long", f"its {pieces} pieces and those of the files before it are more than {MAX_PIECES}"
            )

    def _read_midi(self, number: int, data: bytes) -> None:
        from tutti.corpus.midi_chunks import read_chunks
        from tutti.corpus.midi_reader import MidiReader

        if self._midi is None:
            self._midi = MidiReader(hanging_note_quarters=self._options.hanging_note_quarters)
        chunks = read_chunks(data)
        self._check_room(len(chunks.pieces()))
        for tracks in chunks.pieces():
            try:
                self._midi.add(chunks, tracks)
                self._files_of_midi.append(number)
            except DataError as error:
                self._refusals.append((number, error.reason, error.detail))

    def _parts(self, number: int, name: str, data: bytes) -> Iterator[bytes]:
        """A file's parts that stand alone: a book of tunes is read tune by tune, each in its own time."""
        if _suffix(name) != ".abc":
            yield data
            return
        for tune in scores.abc_tunes(data):
            self._on_file(number)
            yield tune

    def _found(self, name: str, data: bytes) -> FoundPieces:
        if _suffix(name) in note_tables.SUFFIXES:
            return note_tables.read_pieces(data)
        if _suffix(name) in grids.SUFFIXES:
            return FoundPieces.of([grids.read(data, tempo_qpm=self._options.tempo_without_mark_qpm)])
        with tempfile.TemporaryDirectory(prefix="tutti-score-") as folder:
            file = Path(folder) / PurePosixPath(name).name
            file.write_bytes(data)
            return FoundPieces.of(scores.read_scores(file, tempo_without_mark_qpm=self._options.tempo_without_mark_qpm))


def _suffix(name: str) -> str:
    return splitext(name)[1].lower()
