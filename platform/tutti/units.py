"""Quantities and their notation: time, tempo, pitch names, sizes.

Conventions: ``*_ticks`` are integers against a stated ``ticks_per_quarter``; ``*_s`` are seconds; ``*_qpm`` are
quarter notes per minute (MIDI's tempo, whatever the meter's beat); pitches are MIDI numbers, middle C = 60.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tutti.errors import RecipeError

MICROSECONDS_PER_MINUTE = 60_000_000
MIN_TEMPO_QPM, MAX_TEMPO_QPM = 20.0, 300.0
MIN_LENGTH_S, MAX_LENGTH_S = 1.0, 600.0

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)\s*s?)?")
_PITCH = re.compile(r"([A-Ga-g])([#♯b♭]?)(-1|\d)|(\d{1,3})")
_RANGE_SIGNS = re.compile(r"\s*(?:\.\.|–|—|~|～|\bto\b)\s*|(?<=\d)\s*-\s*(?=\S)")
_KEY = re.compile(r"([A-Ga-g])\s*([#♯b♭]?)\s*[- ]?\s*(major|minor|maj|min|M|m|)")


@dataclass(frozen=True, slots=True)
class Key:
    """A tonality: pitch class of the tonic (0 = C … 11 = B) and mode."""

    tonic: int
    minor: bool

    def __str__(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {'minor' if self.minor else 'major'}"

    def transposed(self, semitones: int) -> Key:
        """The same mode, ``semitones`` higher."""
        return Key((self.tonic + semitones) % 12, self.minor)

    @property
    def pitch_classes(self) -> frozenset[int]:
        """Pitch classes of the scale; in minor both sevenths belong to it (natural and harmonic minor)."""
        steps = (0, 2, 3, 5, 7, 8, 10, 11) if self.minor else (0, 2, 4, 5, 7, 9, 11)
        return frozenset((self.tonic + step) % 12 for step in steps)

    @property
    def triad(self) -> frozenset[int]:
        """Pitch classes of the tonic triad."""
        return frozenset((self.tonic + step) % 12 for step in (0, 3 if self.minor else 4, 7))


def parse_key(text: str) -> Key:
    """Read ``"D minor"``, ``"F# major"``, ``"Bb"`` or ``"c#m"``.

    Raises:
        RecipeError: the text names no key.
    """
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise RecipeError(f"key {text!r} is not known", remedy='write it like "D minor", "F# major" or "Bb"')
    letter, accidental, mode = match.groups()
    minor = mode in ("minor", "min", "m") or (mode == "" and letter.islower())
    return Key((_LETTERS[letter.upper()] + _ACCIDENTALS[accidental]) % 12, minor)


def parse_pitch_class(text: str) -> int:
    """Pitch class of ``"C"``, ``"F#"`` or ``"Bb"``: 0 = C … 11 = B.

    Raises:
        RecipeError: the text names none.
    """
    letter, accidental = text[:1].upper(), text[1:]
    if letter not in _LETTERS or accidental not in _ACCIDENTALS:
        raise RecipeError(f"{text!r} is no pitch class", remedy='write it like "C", "F#" or "Bb"')
    return (_LETTERS[letter] + _ACCIDENTALS[accidental]) % 12


@dataclass(frozen=True, slots=True)
class PitchRange:
    """Pitches from ``low`` to ``high``, both among them, as MIDI numbers."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{pitch_name(self.low)}-{pitch_name(self.high)}"

    def __contains__(self, pitch: int) -> bool:
        return self.low <= pitch <= self.high


def parse_pitch(text: str) -> int:
    """MIDI number of ``"C4"``, ``"F#3"``, ``"Bb-1"`` or ``"60"``.

    Raises:
        RecipeError: the text names no pitch of 0 to 127.
    """
    match = _PITCH.fullmatch(text.strip())
    if match is not None:
        letter, accidental, octave, number = match.groups()
        pitch = int(number) if number else _LETTERS[letter.upper()] + _ACCIDENTALS[accidental] + 12 * (int(octave) + 1)
        if 0 <= pitch <= 127:
            return pitch
    raise RecipeError(
        f"pitch {text!r} is not known", remedy='write it like "C4", "F#3" or 60, from C-1 (0) to G9 (127)'
    )


def parse_pitch_range(text: str) -> PitchRange:
    """Read ``"C3-C6"``, ``"48-84"`` or ``"E2 to G#5"``.

    Raises:
        RecipeError: unreadable, or its lower end is above its upper one.
    """
    ends = _RANGE_SIGNS.split(text.strip())
    if len(ends) != 2:
        raise RecipeError(f"pitch_range {text!r} has no two ends", remedy='write it like "C3-C6" or "48-84"')
    low, high = (parse_pitch(end) for end in ends)
    if low > high:
        raise RecipeError(f"pitch_range {text!r} begins above its end", remedy="write the lower pitch first")
    return PitchRange(low, high)


def parse_length_s(text: str | float) -> float:
    """Read ``30``, ``"30s"``, ``"1m30s"`` or ``"2 min"`` as seconds within the limits of one piece.

    Raises:
        RecipeError: unreadable, or outside 1 s to 600 s.
    """
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip())
        if match is None or not any(match.groups()):
            raise RecipeError(f"length {text!r} is not a time", remedy='write it like "30s", "1m30s" or 90')
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        length_s = 3600 * hours + 60 * minutes + seconds
    else:
        length_s = float(text)
    if not MIN_LENGTH_S <= length_s <= MAX_LENGTH_S:
        raise RecipeError(
            f"length {text} is outside {MIN_LENGTH_S:g} s to {MAX_LENGTH_S:g} s",
            remedy="ask for a length within it",
        )
    return length_s


def check_tempo_qpm(tempo: float) -> float:
    """Return ``tempo`` if a piece may have it.

    Raises:
        RecipeError: outside 20 to 300 quarters a minute.
    """
    if not MIN_TEMPO_QPM <= tempo <= MAX_TEMPO_QPM:
        raise RecipeError(
            f"tempo {tempo:g} is outside {MIN_TEMPO_QPM:g} to {MAX_TEMPO_QPM:g} quarters a minute",
            remedy="ask for a tempo within it",
        )
    return float(tempo)


def pitch_name(pitch: int) -> str:
    """MIDI number to scientific pitch notation: 60 is ``C4``."""
    return f"{PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def format_bytes(size: float) -> str:
    """Size for people, in powers of 1024: 1536 is ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_seconds(seconds: float) -> str:
    """Time for people: 75 is ``1m15s``."""
    if seconds < 59.5:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
