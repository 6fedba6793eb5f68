"""The same MIDI files read by pretty_midi: the same notes within a tick.

They part only where the rules of :mod:`tutti.corpus.midi_reader` and of pretty_midi differ, and there on purpose:

- Equal pitches that overlap: here each end ends the oldest, there all of them.
- Notes alike: here one, there as many as stand there.
- Notes without length: here one tick, there nothing, or all up to the next end.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from tutti.corpus.midi import read_midi
from tutti.corpus.score import Score

FILES = 150
# pretty_midi takes a second for 39,000 notes.
MAX_BYTES = 10_000
Note = tuple[int, int, int, int, int]


def by_pretty_midi(data: bytes) -> list[Note]:
    """Onset, end, pitch, velocity and program of each note, in ticks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heard = pretty_midi.PrettyMIDI(io.BytesIO(data))
    return [
        (
            int(heard.time_to_tick(note.start)), int(heard.time_to_tick(note.end)), note.pitch, note.velocity,
            128 if part.is_drum else int(part.program),
        )
        for part in heard.instruments
        for note in part.notes
    ]  # fmt: skip


def by_tutti(score: Score) -> list[Note]:
    notes = score.notes
    ends = notes.onset_ticks + notes.duration_ticks
    columns = (notes.onset_ticks, ends, notes.pitch, notes.velocity, notes.program)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def plain(notes: list[Note], *, repeated: set[tuple[int, int, int]]) -> list[Note]:
    """The notes on which both sets of rules agree: with a length, and alone on their pitch while they sound."""
    by_pitch: dict[tuple[int, int], list[Note]] = defaultdict(list)
    for note in notes:
        by_pitch[note[2], note[4]].append(note)
    found = []
    for group in by_pitch.values():
        group.sort()
        sounding = -1
        for note, following in zip(group, [*group[1:], None], strict=True):
            onset, end, pitch, _, program = note
            alone = onset >= sounding and (following is None or following[0] >= end)
            if alone and end - onset > 1 and (onset, pitch, program) not in repeated:
                found.append(note)
            sounding = max(sounding, end)
    return found


@pytest.fixture(scope="module")
def paths(shared_folder: Path) -> list[Path]:
    found = [path for path in sorted((shared_folder / "corpora").rglob("*.mid")) if path.stat().st_size < MAX_BYTES]
    return [found[index] for index in np.linspace(0, len(found) - 1, FILES).astype(int)]


def test_the_same_notes_within_a_tick(paths: list[Path]) -> None:
    total = agreed = 0
    for path in paths:
        data = path.read_bytes()
        ours, theirs = by_tutti(read_midi(data)), by_pretty_midi(data)
        onsets = Counter((onset, pitch, program) for onset, _, pitch, _, program in theirs)
        known = {(onset, pitch, program) for onset, _, pitch, _, program in ours}
        near = [any((onset + by, pitch, program) in known for by in (0, -1, 1)) for onset, pitch, program in onsets]
        assert all(near), f"{path.name}: pretty_midi hears {near.count(False)} onsets that are not here"
        checked = plain(ours, repeated={key for key, count in onsets.items() if count > 1})
        exact = set(theirs)
        missing = [
            note
            for note in checked
            if not any((note[0] + by, note[1] + to, *note[2:]) in exact for by in (0, -1, 1) for to in (0, -1, 1))
        ]
        assert not missing, f"{path.name}: {missing[:3]} are not what pretty_midi hears"
        total, agreed = total + len(ours), agreed + len(checked)
    assert agreed > 0.95 * total
