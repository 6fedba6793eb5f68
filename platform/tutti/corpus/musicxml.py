"""A score as MusicXML 4.0 (https://www.w3.org/2021/06/musicxml40/), written as :mod:`tutti.corpus.notation` reads it.

A part for each track and program. A keyboard that needs both clefs has two staves, parted at middle C. Drums are
unpitched, each key an instrument of its own, at its place on a drum staff (N. Weinberg, *Guidelines for drumset
notation*, Percussive Notes 32(3), 1994); music21 knows one instrument a part and reads no keys from them. Velocities
are kept as ``dynamics``, tempo changes as metronome marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from tutti.corpus import notation
from tutti.corpus.notation import DIVISIONS, Bar, Chord, Written
from tutti.corpus.programs import program_name
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import InputError
from tutti.units import Key

_KEYBOARDS = (*range(8), *range(16, 24))
_MIDDLE_C = 60
_LETTERS = "FCGDAEB"
_STEP_OF_LETTER = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Steps of the line of fifths from C to the letters above: F is -1.
_FIRST_LETTER = -1
_FORTE = 90
_LEAST_TEMPO_CHANGE = 0.005
_DRUM_CHANNEL = 10
# Where a key stands on the drum staff, and whether its head is a cross.
_DRUM_PLACES: dict[int, tuple[str, int, bool]] = {
    **dict.fromkeys((35, 36), ("F", 4, False)),
    **dict.fromkeys((38, 40), ("C", 5, False)),
    **dict.fromkeys((31, 37), ("C", 5, True)),
    **dict.fromkeys((42, 46), ("G", 5, True)),
    44: ("D", 4, True),
    **dict.fromkeys((41, 43), ("A", 4, False)),
    45: ("B", 4, False),
    **dict.fromkeys((47, 48), ("D", 5, False)),
    50: ("E", 5, False),
    **dict.fromkeys((49, 52, 55, 57), ("A", 5, True)),
    **dict.fromkeys((51, 53, 59), ("F", 5, True)),
}
_OTHER_DRUM = ("B", 5, True)


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    program: int
    staves: tuple[tuple[list[Chord], ...], ...]
    clefs: tuple[str, ...]
    drum_keys: tuple[int, ...]


def write_musicxml(score: Score, *, key: Key | None = None) -> bytes:
    """The score as one uncompressed MusicXML document, UTF-8.

    Args:
        score: at least one note.
        key: of the piece: its signature, and how black keys are spelt; without one, C major.

    Raises:
        InputError: no notes, or more bars than can be written.
    """
    if not len(score.notes):
        raise InputError("the score has no notes", remedy="give a score with at least one")
    bars = notation.bars(score)
    fifths = fifths_of(key)
    parts = _parts(score)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" '
        '"http://www.musicxml.org/dtds/partwise.dtd">',
        '<score-partwise version="4.0">',
        f"<work><work-title>{escape(score.title or 'Untitled')}</work-title></work>",
        "<identification>",
        *([f'<creator type="composer">{escape(score.composer)}</creator>'] if score.composer else []),
        "<encoding><software>Tutti</software></encoding></identification><part-list>",
        *(_listed(part) for part in parts),
        "</part-list>",
    ]
    tempos = _tempos(score)
    for part in parts:
        lines.append(f'<part id="P{part.number}">')
        for number, bar in enumerate(bars, start=1):
            lines.append(f'<measure number="{number}">')
            lines += _attributes(part, bar, fifths=fifths, minor=key is not None and key.minor, first=number == 1)
            lines += _marks(tempos, bar) if part.number == 1 else []
            lines += _music(part, bar, fifths=fifths, minor=key is not None and key.minor)
            lines.append("</measure>")
        lines.append("</part>")
    lines.append("</score-partwise>\n")
    return "\n".join(lines).encode()


def fifths_of(key: Key | None) -> int:
    """Sharps of a key's signature; flats are below 0. The signature with fewer of them."""
    if key is None:
        return 0
    major = (key.tonic + 3) % 12 if key.minor else key.tonic
    return (major * 7 + 5) % 12 - 5


def spelt(pitch: int, *, fifths: int, minor: bool) -> tuple[str, int, int]:
    """Letter, alteration and octave of a pitch: the spelling nearest to the key on the line of fifths.

    In minor the raised sixth and seventh belong to it.
    """
    lowest = fifths - (3 if minor else 4)
    place = lowest + (pitch * 7 - lowest) % 12
    alteration, letter = divmod(place - _FIRST_LETTER, 7)
    name = _LETTERS[letter]
    return name, alteration, (pitch - alteration - _STEP_OF_LETTER[name]) // 12 - 1


def _parts(score: Score) -> list[_Part]:
    keys = np.unique(np.stack((score.notes.track.astype(np.int64), score.notes.program), axis=1), axis=0)
    parts = []
    for number, (track, program) in enumerate(keys.tolist(), start=1):
        notes = score.notes.take((score.notes.track == track) & (score.notes.program == program))
        drums = program == DRUM_PROGRAM
        high = notes.pitch >= _MIDDLE_C
        clefs: tuple[str, ...]
        if drums:
            clefs, hands = ("percussion",), [notes]
        elif program in _KEYBOARDS and high.any() and not high.all():
            clefs, hands = ("treble", "bass"), [notes.take(high), notes.take(~high)]
        else:
            clefs, hands = ("treble" if notes.pitch.mean() >= _MIDDLE_C else "bass",), [notes]
        staves = tuple(tuple(notation.voices(hand, score)) for hand in hands)
        drum_keys = tuple(np.unique(notes.pitch).tolist()) if drums else ()
        parts.append(_Part(number, program, staves, clefs, drum_keys))
    return parts


def _listed(part: _Part) -> str:
    name = escape(program_name(part.program))
    channel = (
        part.number if part.number < _DRUM_CHANNEL else part.number % 15 + 1 + (part.number % 15 + 1 >= _DRUM_CHANNEL)
    )
    instruments = [(f"P{part.number}-I1", name, f"<midi-program>{part.program + 1}</midi-program>")]
    if part.drum_keys:
        channel = _DRUM_CHANNEL
        instruments = [
            (f"P{part.number}-K{key}", f"{name}, key {key}", f"<midi-unpitched>{key + 1}</midi-unpitched>")
            for key in part.drum_keys
        ]
    named = "".join(
        f'<score-instrument id="{place}"><instrument-name>{told}</instrument-name></score-instrument>'
        for place, told, _ in instruments
    )
    played = "".join(
        f'<midi-instrument id="{place}"><midi-channel>{channel}</midi-channel>{sound}</midi-instrument>'
        for place, _, sound in instruments
    )
    return f'<score-part id="P{part.number}"><part-name>{name}</part-name>{named}{played}</score-part>'


_CLEFS = {
    "treble": "<sign>G</sign><line>2</line>",
    "bass": "<sign>F</sign><line>4</line>",
    "percussion": "<sign>percussion</sign>",
}


def _attributes(part: _Part, bar: Bar, *, fifths: int, minor: bool, first: bool) -> list[str]:
    told = ""
    if first:
        told += f"<divisions>{DIVISIONS}</divisions>"
        if not part.drum_keys:
            told += f"<key><fifths>{fifths}</fifths><mode>{'minor' if minor else 'major'}</mode></key>"
    if bar.meter:
        told += f"<time><beats>{bar.meter[0]}</beats><beat-type>{bar.meter[1]}</beat-type></time>"
    if first:
        several = len(part.clefs) > 1
        told += f"<staves>{len(part.clefs)}</staves>" if several else ""
        for number, clef in enumerate(part.clefs, start=1):
            told += f'<clef number="{number}">' if several else "<clef>"
            told += f"{_CLEFS[clef]}</clef>"
    return [f"<attributes>{told}</attributes>"] if told else []


def _tempos(score: Score) -> list[tuple[int, float]]:
    """Tempo changes in 24ths; those that nobody hears are left out."""
    at = (score.tempo_ticks.astype(np.int64) * DIVISIONS) // score.ticks_per_quarter
    kept: list[tuple[int, float]] = []
    for place, tempo in zip(at.tolist(), score.tempo_qpm.tolist(), strict=True):
        if not kept or abs(tempo - kept[-1][1]) > _LEAST_TEMPO_CHANGE * kept[-1][1]:
            kept.append((place, tempo))
    return kept


def _marks(tempos: Sequence[tuple[int, float]], bar: Bar) -> list[str]:
    return [
        '<direction placement="above"><direction-type><metronome><beat-unit>quarter</beat-unit>'
        f"<per-minute>{round(tempo, 2):g}</per-minute></metronome></direction-type>"
        f"<offset>{place - bar.start}</offset>"
        f'<sound tempo="{round(tempo, 3):g}"/></direction>'
        for place, tempo in tempos
        if bar.start <= place < bar.end
    ]


def _music(part: _Part, bar: Bar, *, fifths: int, minor: bool) -> Iterable[str]:
    length = bar.end - bar.start
    several = len(part.staves) > 1
    begun = False
    for staff, lines in enumerate(part.staves, start=1):
        for voice, line in enumerate(lines):
            values = list(notation.written(line, bar))
            if not values and voice:
                continue
            if begun:
                yield f"<backup><duration>{length}</duration></backup>"
            begun = True
            placed = f"<voice>{4 * (staff - 1) + voice + 1}</voice>"
            on_staff = f"<staff>{staff}</staff>" if several else ""
            if not values:
                yield f'<note><rest measure="yes"/><duration>{length}</duration>{placed}{on_staff}</note>'
            for value in values:
                yield from _notes(part, value, placed, on_staff, fifths=fifths, minor=minor)


def _notes(part: _Part, value: Written, placed: str, on_staff: str, *, fifths: int, minor: bool) -> Iterable[str]:
    shape = f"<type>{value.kind}</type>" + ("<dot/>" if value.dotted else "")
    if value.triplet:
        shape += "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
    duration = f"<duration>{value.length}</duration>"
    if not value.pitches:
        yield f"<note><rest/>{duration}{placed}{shape}{on_staff}</note>"
        return
    sides = [side for side, tied in (("stop", value.ties_back), ("start", value.ties_on)) if tied]
    ties = "".join(f'<tie type="{side}"/>' for side in sides)
    drawn = "".join(f'<tied type="{side}"/>' for side in sides)
    drawn = f"<notations>{drawn}</notations>" if drawn else ""
    for place, pitch in enumerate(value.pitches):
        head = ""
        if part.drum_keys:
            name, octave, crossed = _DRUM_PLACES.get(pitch, _OTHER_DRUM)
            head = "<notehead>x</notehead>" if crossed else ""
            what = (
                f"<unpitched><display-step>{name}</display-step><display-octave>{octave}</display-octave></unpitched>"
            )
            by = f'<instrument id="P{part.number}-K{pitch}"/>'
        else:
            name, alteration, octave = spelt(pitch, fifths=fifths, minor=minor)
            what = f"<pitch><step>{name}</step>"
            what += f"<alter>{alteration}</alter>" if alteration else ""
            what += f"<octave>{octave}</octave></pitch>"
            by = ""
        chord = "<chord/>" if place else ""
        loud = f'dynamics="{value.velocity * 100 / _FORTE:.2f}"'
        yield f"<note {loud}>{chord}{what}{duration}{ties}{by}{placed}{shape}{head}{on_staff}{drawn}</note>"
