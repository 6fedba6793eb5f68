"""Written scores (MusicXML, ABC, kern) from and to columns, through music21.

Rules, where a written score says more or less than a played one:

- Ties: notes joined by a tie are one note.
- Pickup: music begins on the bar line before it; the missing beats of a first bar are silent.
- Bars of another length than the meter's become a meter change, so that every written downbeat is on a bar line. Two
  bars that fill one together, as around a repeat sign, stay one bar; a short last bar is left as it is.
- Repeats are not expanded: a work holds each written bar once.
- Grace notes have no written length and are left out; so are chord symbols and lyrics.
- Transposing instruments sound where they sound.
- Tempo: metronome marks, and words such as `Allegro` by music21's table; a score without any gets the caller's.
- Program: what the file's instrument says; a part that names no instrument of General MIDI, as the voices of most
  chorales, is a piano (0). Velocity: what the file states for a note, else 64; dynamic marks are not read.
- Key signatures are not kept: the key is a descriptor.

The resolution is 480 ticks a quarter where that is exact, else 10,080, which holds every division by 2, 3, 5, 7 and 9.
"""

from __future__ import annotations

import gc
import math
import re
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tutti.corpus.found_pieces import MAX_QUARTERS
from tutti.corpus.score import CANONICAL_TICKS_PER_QUARTER, DEFAULT_METER, DRUM_PROGRAM, Notes, Score
from tutti.errors import DataError

FINE_TICKS_PER_QUARTER = 10_080
MAX_UNPACKED_BYTES = 64 * 2**20
DEFAULT_VELOCITY = 64
SUFFIXES = (".musicxml", ".mxl", ".xml", ".abc", ".krn")

_FORMATS = {".musicxml": "musicxml", ".mxl": "musicxml", ".xml": "musicxml", ".abc": "abc", ".krn": "humdrum"}

_ABC_TUNE = re.compile(r"^X:", re.MULTILINE)

# music21 keeps a time as a float where that is exact and as a fraction elsewhere.
Quarters = Fraction | float


@dataclass(slots=True)
class _Written:
    """A note as written; times in quarters from the part's beginning."""

    onset: Quarters
    end: Quarters
    pitch: int
    velocity: int
    program: int
    ties_back: bool
    ties_on: bool


@dataclass(frozen=True, slots=True)
class _Bar:
    """A written measure; times in quarters."""

    start: Quarters
    length: Quarters
    meter: tuple[int, int]

    @property
    def full_length(self) -> Quarters:
        """The length that the meter asks for."""
        return Fraction(4 * self.meter[0], self.meter[1])


def read_scores(path: Path, *, tempo_without_mark_qpm: float) -> list[Score]:
    """The scores of a file, several where it holds a collection of tunes.

    Raises:
        DataError: unknown_format, unreadable, too_long or no_notes.
    """
    from music21 import converter

    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DataError("unknown_format", f"{path.name} ends in none of {', '.join(SUFFIXES)}")
    # music21 warns of oddities in a file and raises whatever its parsers trip over: both are the file's fault.
    with warnings.catch_warnings(), _without_cycle_collection():
        warnings.simplefilter("ignore")
        try:
            _check_archive(path)
            if suffix == ".abc":
                # By its text: music21 leaves an ABC file open that it cannot read.
                parsed = converter.parseData(path.read_text(encoding="utf-8"), format="abc")
            else:
                parsed = converter.parse(path, format=_FORMATS[suffix], forceSource=True, storePickle=False)
            return [
                from_music21(piece, tempo_without_mark_qpm=tempo_without_mark_qpm, name=path.stem)
                for piece in _pieces(parsed)
            ]
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError("unreadable", f"{type(error).__name__}: {reason}") from None


def abc_tunes(data: bytes) -> list[bytes]:
    """The tunes of an ABC file, each with what stands before the first, as UTF-8; one where no ``X:`` tells them apart.

    Source: the ABC standard 2.1, section 2.2 (https://abcnotation.com/wiki/abc:standard:v2.1). Older files are Latin-1.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    starts = [found.start() for found in _ABC_TUNE.finditer(text)] or [0]
    head = text[: starts[0]]
    return [(head + text[start:end]).encode() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def from_music21(stream: Any, *, tempo_without_mark_qpm: float, name: str | None = None) -> Score:
    """The score of a music21 ``Score`` or ``Part``.

    Args:
        stream: with measures, or flat.
        tempo_without_mark_qpm: tempo of a score that states none.
        name: title of a score that states none.

    Raises:
        DataError: no_notes or too_long.
    """
    parts = list(getattr(stream, "parts", ())) or [stream]
    written = [_tied(_written(part)) for part in parts]
    if not any(written):
        raise DataError("no_notes", "the score holds no note")
    bars = _bars(parts[0])
    pickup = max(0, bars[0].full_length - bars[0].length) if len(bars) > 1 else 0

    def ticks(at: Quarters) -> int:
        return round((at + pickup) * FINE_TICKS_PER_QUARTER)

    columns = np.array(
        [
            (ticks(note.onset), ticks(note.end), note.pitch, note.velocity, note.program, track)
            for track, part in enumerate(written)
            for note in part
        ],
        dtype=np.int64,
    ).T
    if columns[1].max() > MAX_QUARTERS * FINE_TICKS_PER_QUARTER:
        quarters = columns[1].max() / FINE_TICKS_PER_QUARTER
        raise DataError("too_long", f"{quarters:.0f} quarters are more than the limit of {MAX_QUARTERS}")
    tempos = _tempos(parts) or [(0, tempo_without_mark_qpm)]
    fine = Score.of(
        Notes.of(
            onset_ticks=columns[0],
            duration_ticks=np.maximum(columns[1] - columns[0], 1),
            pitch=columns[2],
            velocity=columns[3],
            program=columns[4],
            track=columns[5],
        ),
        ticks_per_quarter=FINE_TICKS_PER_QUARTER,
        tempos=[(ticks(at) if at > 0 else 0, qpm) for at, qpm in tempos],
        meters=[(max(ticks(at), 0), *meter) for at, meter in _meters(parts[0], bars=bars, pickup=pickup)],
        title=_title(stream, name=name),
        composer=(stream.metadata.composer or None) if getattr(stream, "metadata", None) else None,
    )
    coarse = fine.with_resolution(CANONICAL_TICKS_PER_QUARTER)
    return coarse if coarse.with_resolution(FINE_TICKS_PER_QUARTER).same_music(fine) else fine


def to_music21(score: Score) -> Any:
    """The score as a music21 ``Score``: a part for each track and program, notes by offset, without bars.

    ``makeNotation()`` of the result adds measures, ties and rests.
    """
    from music21 import instrument, metadata, meter, note, stream, tempo

    made = stream.Score()
    made.metadata = metadata.Metadata(title=score.title, composer=score.composer)
    keys = np.unique(np.stack((score.notes.track, score.notes.program), axis=1), axis=0)
    for number, (track, program) in enumerate(keys.tolist()):
        part = stream.Part(id=f"P{number + 1}")
        drums = program == DRUM_PROGRAM
        part.insert(0, instrument.UnpitchedPercussion() if drums else instrument.instrumentFromMidiProgram(program))
        if number == 0:
            for tick, qpm in zip(score.tempo_ticks.tolist(), score.tempo_qpm.tolist(), strict=True):
                part.insert(_quarters(tick, score), tempo.MetronomeMark(number=qpm, referent=note.Note(type="quarter")))
        for tick, above, below in zip(
            score.meter_ticks.tolist(), score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True
        ):
            part.insert(_quarters(tick, score), meter.TimeSignature(f"{above}/{below}"))
        chosen = (score.notes.track == track) & (score.notes.program == program)
        columns = score.notes.take(chosen)
        for onset, duration, pitch, velocity in zip(
            columns.onset_ticks.tolist(),
            columns.duration_ticks.tolist(),
            columns.pitch.tolist(),
            columns.velocity.tolist(),
            strict=True,
        ):
            sound = note.Note(pitch, quarterLength=_quarters(duration, score))
            sound.volume.velocity = velocity
            part.insert(_quarters(onset, score), sound)
        made.insert(0, part)
    return made


def _quarters(ticks: int, score: Score) -> Fraction:
    return Fraction(ticks, score.ticks_per_quarter)


@contextmanager
def _without_cycle_collection() -> Iterator[None]:
    """Python's collector walks music21's web of objects while it grows: a sixth of the time to read a chorale."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_archive(path: Path) -> None:
    if path.suffix.lower() == ".mxl":
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise DataError("too_long", f"its files unpack to more than the limit of {MAX_UNPACKED_BYTES} bytes")


def _pieces(parsed: Any) -> list[Any]:
    """The scores of a collection of tunes, or the one score."""
    from music21 import stream

    return list(parsed.scores) if isinstance(parsed, stream.Opus) else [parsed]


def _walk(container: Any, *, base: Quarters = 0) -> Iterator[tuple[Quarters, Any]]:
    """Everything in a part with its time, measures and voices opened; no copies, unlike music21's ``flatten``."""
    for element in container:
        at = base + element.offset
        if element.isStream:
            yield from _walk(element, base=at)
        else:
            yield at, element


def _written(part: Any) -> list[_Written]:
    """Notes of a part in time order, at sounding pitch."""
    from music21 import chord, harmony, instrument, note

    elements = list(_walk(part))
    instruments = sorted(
        ((at, element) for at, element in elements if isinstance(element, instrument.Instrument)),
        key=lambda entry: entry[0],
    )
    starts = [at for at, _ in instruments]
    as_written = part.atSoundingPitch is False
    notes = []
    for at, element in elements:
        if not isinstance(element, note.NotRest) or isinstance(element, harmony.ChordSymbol):
            continue
        length = element.duration.quarterLength
        if length == 0:
            continue
        playing = instruments[max(bisect_right(starts, at) - 1, 0)][1] if instruments else None
        program = _program(playing)
        shift = playing.transposition.semitones if as_written and playing and playing.transposition else 0
        for sound in element.notes if isinstance(element, chord.ChordBase) else (element,):
            pitch = _pitch(sound, shift=shift)
            if pitch is None:
                continue
            tie = sound.tie.type if sound.tie else None
            notes.append(
                _Written(
                    onset=at,
                    end=at + length,
                    pitch=pitch,
                    velocity=_velocity(sound),
                    program=program if hasattr(sound, "pitch") else DRUM_PROGRAM,
                    ties_back=tie in ("stop", "continue"),
                    ties_on=tie in ("start", "continue"),
                )
            )
    notes.sort(key=lambda one: (one.onset, one.pitch, one.end))
    return notes


def _program(playing: Any) -> int:
    from music21 import instrument

    if isinstance(playing, instrument.UnpitchedPercussion):
        return DRUM_PROGRAM
    program = None if playing is None else playing.midiProgram
    return int(program) if program is not None and 0 <= program <= 127 else 0


def _pitch(sound: Any, *, shift: int) -> int | None:
    """MIDI pitch of a note, the drum key of an unpitched one, or None where neither is known or fits."""
    if hasattr(sound, "pitch"):
        pitch = round(sound.pitch.ps + shift)
        return pitch if 0 <= pitch <= 127 else None
    key = getattr(getattr(sound, "storedInstrument", None), "percMapPitch", None)
    return key if key is not None and 0 <= key <= 127 else None


def _velocity(sound: Any) -> int:
    if not sound.hasVolumeInformation() or sound.volume.velocity is None:
        return DEFAULT_VELOCITY
    return min(max(int(sound.volume.velocity), 1), 127)


def _tied(notes: list[_Written]) -> list[_Written]:
    """Notes with ties joined: a note that ties back prolongs the equal pitch that ends where it begins."""
    kept: list[_Written] = []
    waiting: dict[tuple[int, Quarters], _Written] = {}
    for note in notes:
        before = waiting.pop((note.pitch, note.onset), None) if note.ties_back else None
        if before is None:
            kept.append(note)
            before = note
        else:
            before.end = note.end
        if note.ties_on:
            waiting[note.pitch, note.end] = before
    return kept


def _tempos(parts: list[Any]) -> list[tuple[Quarters, float]]:
    """Tempo changes by the marks of all parts, the first from the beginning on; quarters and quarters a minute."""
    from music21 import tempo

    marks: dict[Quarters, float] = {}
    for part in parts:
        for at, element in _walk(part):
            if isinstance(element, tempo.MetronomeMark):
                qpm = element.getQuarterBPM()
                if qpm and math.isfinite(qpm) and qpm > 0:
                    marks.setdefault(at, float(qpm))
    changes: list[tuple[Quarters, float]] = []
    for at, qpm in sorted(marks.items()):
        if not changes:
            changes.append((0, qpm))
        elif changes[-1][1] != qpm:
            changes.append((at, qpm))
    return changes


def _bars(part: Any) -> list[_Bar]:
    """Measures of a part with the meter that holds in each; empty for a part without measures."""
    from music21 import meter, stream

    measures = list(part.getElementsByClass(stream.Measure))
    starts = [measure.offset for measure in measures]
    ends = [*starts[1:], measures[-1].offset + measures[-1].highestTime] if measures else []
    bars, now = [], DEFAULT_METER
    for measure, start, end in zip(measures, starts, ends, strict=True):
        for signature in measure.getElementsByClass(meter.TimeSignature):
            now = (signature.numerator, signature.denominator)
        bars.append(_Bar(start=start, length=end - start, meter=now))
    return bars


def _meters(part: Any, *, bars: list[_Bar], pickup: Quarters) -> list[tuple[Quarters, tuple[int, int]]]:
    """Meter changes by time, from the written bars; see the module's rules."""
    from music21 import meter

    if not bars:
        found = [(at, element) for at, element in _walk(part) if isinstance(element, meter.TimeSignature)]
        return [(at, (signature.numerator, signature.denominator)) for at, signature in found]
    changes: list[tuple[Quarters, tuple[int, int]]] = []
    index = 0
    while index < len(bars):
        bar, meter_here = bars[index], bars[index].meter
        length = bar.length + (pickup if index == 0 else 0)
        if index + 1 < len(bars) and length + bars[index + 1].length == bar.full_length:
            index += 1
        elif length != bar.full_length and index + 1 < len(bars):
            meter_here = _meter_of(length) or bar.meter
        if not changes or changes[-1][1] != meter_here:
            changes.append((bar.start - (pickup if not changes else 0), meter_here))
        index += 1
    return changes


def _meter_of(length: Quarters) -> tuple[int, int] | None:
    """The meter of the coarsest beat whose bar has this length; None where no beat down to a 32nd gives it."""
    for below in (4, 8, 16, 32):
        above = length * below / 4
        if above == int(above) and 0 < above < 256:
            return int(above), below
    return None


def _title(stream: Any, *, name: str | None) -> str | None:
    """The stated title; a file's own name is none."""
    stated = stream.metadata.bestTitle if getattr(stream, "metadata", None) else None
    if stated and not stated.lower().endswith(SUFFIXES):
        return " ".join(stated.split())
    return name
