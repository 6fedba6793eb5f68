"""Files by their names: which module reads which."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from tutti.corpus import scores
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.score import Score
from tutti.errors import DataError

MIDI_SUFFIXES = (".mid", ".midi", ".smf", ".kar", ".rmi")
SUFFIXES = (*MIDI_SUFFIXES, *scores.SUFFIXES)


def is_known(name: str) -> bool:
    """Whether the file's name ends in a format that can be read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def parse(data: bytes, *, name: str, tempo_without_mark_qpm: float) -> list[Score]:
    """The scores in the bytes of a file.

    Args:
        data: the file.
        name: its name, whose end tells the format.
        tempo_without_mark_qpm: tempo of written scores that state none.

    Raises:
        DataError: for one of :data:`tutti.tables.REFUSAL_REASONS`.
    """
    if not is_known(name):
        raise DataError("unknown_format", f"{name} ends in none of {', '.join(SUFFIXES)}")
    if not data:
        raise DataError("empty", "the file holds no bytes")
    if len(data) > MAX_FILE_BYTES:
        raise DataError("too_long", f"{len(data)} bytes are more than the limit of {MAX_FILE_BYTES}")
    path = PurePosixPath(name)
    if path.suffix.lower() in MIDI_SUFFIXES:
        from tutti.corpus.midi import read_midi

        return [read_midi(data)]
    with tempfile.TemporaryDirectory(prefix="tutti-score-") as folder:
        file = Path(folder) / path.name
        file.write_bytes(data)
        return scores.read_scores(file, tempo_without_mark_qpm=tempo_without_mark_qpm)
