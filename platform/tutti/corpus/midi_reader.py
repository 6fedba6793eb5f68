"""Many MIDI files at once, read by symusic straight into columns.

A numpy call costs a microsecond whatever it is given, and the usual MIDI file has a few hundred notes: what symusic
finds in each part is put aside as it is, and everything else is done once for all files.

Rules:

- A part is one (track, channel, program) of the file at the time when a note begins; parts without notes are left out.
- Equal pitches that overlap in a part end in the order in which they began. A note-on of velocity 0 is an end.
- A note without an end is closed at the earlier of its track's end and a stated number of quarters after its onset.
- The title is the name of the file's first track, where that is no part.
- :mod:`tutti.corpus.midi_chunks` says what of a file's frame is taken, :mod:`tutti.corpus.midi_closing` what of a
  track, :mod:`tutti.corpus.found_pieces` what of its notes.

Controllers, pitch bend and lyrics are not read.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import symusic
from numpy.typing import NDArray

from tutti.corpus.found_pieces import FoundPieces, Refusal
from tutti.corpus.midi_chunks import Chunks, first_name
from tutti.corpus.midi_closing import PAUSE_TICKS, closed, witness
from tutti.corpus.score import DRUM_PROGRAM
from tutti.errors import DataError
from tutti.units import MICROSECONDS_PER_MINUTE

# What symusic's binding raises on bytes that it cannot read (nanobind's names for C++ exceptions).
_SYMUSIC_ERRORS = (RuntimeError, ValueError, IndexError, OverflowError, MemoryError)
_NO_WITNESS = -1


class MidiReader:
    """Pieces go in one by one; :meth:`found` is what was in them.

    Args:
        hanging_note_quarters: how long a note without an end lasts at most.
    """

    def __init__(self, *, hanging_note_quarters: float) -> None:
        self._hanging_note_quarters = hanging_note_quarters
        self._titles: list[str | None] = []
        self._ticks_per_quarter: list[int] = []
        self._witnesses: list[int] = []
        self._tracks: list[int] = []
        self._fixed_tempos: dict[int, int] = {}
        self._columns: list[dict[str, NDArray[Any]]] = []
        self._parts: list[tuple[int, int, int]] = []
        self._tempos: list[dict[str, NDArray[Any]]] = []
        self._meters: list[dict[str, NDArray[Any]]] = []

    def __len__(self) -> int:
        return len(self._titles)

    def add(self, chunks: Chunks, tracks: list[bytes]) -> None:
        """Read a piece.

        Args:
            chunks: the frame of its file.
            tracks: one of ``chunks.pieces()``.

        Raises:
            DataError: unreadable or too_long.
        """
        microseconds = witness(tracks)
        whole = [b"MThd", struct.pack(">IHHH", 6, 1, len(tracks), chunks.ticks_per_quarter)]
        for track in tracks:
            ready = closed(track, witness_microseconds=microseconds)
            whole += (b"MTrk", len(ready).to_bytes(4, "big"), ready)
        try:
            parsed = symusic.Score.from_midi(b"".join(whole))
        except _SYMUSIC_ERRORS as error:
            reason = " ".join(str(error).split()).removesuffix(": iostream error")
            raise DataError("unreadable", reason or type(error).__name__) from None
        if chunks.microseconds_per_quarter is not None:
            self._fixed_tempos[len(self)] = chunks.microseconds_per_quarter
        self.add_symusic(parsed, title=first_name(tracks[0]), witness=microseconds, tracks=len(tracks))

    def add_symusic(
        self, parsed: Any, *, title: str | None = None, witness: int = _NO_WITNESS, tracks: int = 0
    ) -> None:
        """A ``symusic.Score`` in ticks as a piece.

        Args:
            witness, tracks: a tempo that each of so many tracks must hold, see :mod:`tutti.corpus.midi_closing`.
        """
        piece, number = len(self._titles), 0
        for part in parsed.tracks:
            columns = part.notes.numpy()
            if len(columns["time"]):
                program = DRUM_PROGRAM if part.is_drum else int(part.program) & 0x7F
                self._columns.append(columns)
                self._parts.append((piece, program, number))
                number += 1
        self._tempos.append(parsed.tempos.numpy())
        self._meters.append(parsed.time_signatures.numpy())
        self._titles.append(title if title is None or all(part.name != title for part in parsed.tracks) else None)
        self._ticks_per_quarter.append(parsed.ticks_per_quarter)
        self._witnesses.append(witness)
        self._tracks.append(tracks)

    def found(self) -> FoundPieces:
        """All pieces so far."""
        parts = np.array(self._parts, dtype=np.int64).reshape(-1, 3)
        sizes = [len(columns["time"]) for columns in self._columns]
        onset, duration, pitch, velocity = (
            _joined(self._columns, name, np.int32) for name in ("time", "duration", "pitch", "velocity")
        )
        piece, program, track = (np.repeat(parts[:, number], sizes) for number in range(3))
        tpq = np.array(self._ticks_per_quarter, dtype=np.int64)
        hanging = np.flatnonzero(duration >= PAUSE_TICKS)
        hanging = hanging[np.array(self._tracks, dtype=np.int64)[piece[hanging]] > 0]
        limit_ticks = np.rint(tpq[piece[hanging]] * self._hanging_note_quarters)
        duration[hanging] = np.minimum(duration[hanging] - PAUSE_TICKS, limit_ticks)
        tempos, refused = self._checked_tempos()
        meter_piece = np.repeat(np.arange(len(self)), [len(meters["time"]) for meters in self._meters])
        in_beats = ~np.isin(meter_piece, list(self._fixed_tempos))
        return FoundPieces(
            ticks_per_quarter=tpq,
            titles=list(self._titles),
            composers=[None] * len(self),
            piece=piece,
            onset_ticks=onset,
            duration_ticks=duration,
            pitch=pitch,
            velocity=velocity,
            program=program,
            track=track,
            **tempos,
            meter_piece=meter_piece[in_beats],
            meter_ticks=_joined(self._meters, "time", np.int32)[in_beats],
            meter_numerator=_joined(self._meters, "numerator", np.uint8)[in_beats],
            meter_denominator=_joined(self._meters, "denominator", np.uint8)[in_beats],
            refused=refused,
        )

    def _checked_tempos(self) -> tuple[dict[str, Any], dict[int, Refusal]]:
        """Tempos that count, without the witnesses; and the pieces whose witnesses tell against them."""
        piece = np.repeat(np.arange(len(self)), [len(tempos["time"]) for tempos in self._tempos])
        ticks, microseconds = _joined(self._tempos, "time", np.int32), _joined(self._tempos, "mspq", np.int32)
        is_witness = microseconds == np.array(self._witnesses, dtype=np.int64)[piece]
        seen = np.bincount(piece[is_witness], minlength=len(self))
        refused: dict[int, Refusal] = {}
        for number in np.flatnonzero(seen != self._tracks).tolist():
            refused[number] = ("unreadable", "the events of a track do not end where its bytes do")
        for number in piece[is_witness & ((ticks < 0) | (ticks >= PAUSE_TICKS))].tolist():
            refused[number] = ("too_long", f"a track is longer than the limit of {PAUSE_TICKS - 1} ticks")
        counts = ~is_witness & ~np.isin(piece, list(self._fixed_tempos))
        fixed = np.array(list(self._fixed_tempos.items()), dtype=np.int64).reshape(-1, 2)
        with np.errstate(divide="ignore"):
            tempo_qpm = MICROSECONDS_PER_MINUTE / np.concatenate((microseconds[counts], fixed[:, 1]))
        tempos = {
            "tempo_piece": np.concatenate((piece[counts], fixed[:, 0])),
            "tempo_ticks": np.concatenate((ticks[counts], np.zeros(len(fixed), dtype=np.int64))),
            "tempo_qpm": tempo_qpm,
        }
        return tempos, refused


def _joined(columns: list[dict[str, NDArray[Any]]], name: str, kind: type) -> NDArray[Any]:
    return np.concatenate([column[name] for column in columns]) if columns else np.empty(0, dtype=kind)
