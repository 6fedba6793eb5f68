"""Scales by name: which pitch classes a piece may use, and on which it begins and ends.

Steps are semitones above the tonic. The modes of the church, the pentatonic modes of Chinese music (gong, shang, jue,
zhi, yu) and those of Japanese music (in sen, hirajoshi, yo) begin each on their own tonic: ``D dorian`` and ``D shang``
are both on D.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tutti.errors import RecipeError
from tutti.units import PITCH_CLASSES, Key, parse_pitch_class

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "natural minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic minor": (0, 2, 3, 5, 7, 9, 11),
    "harmonic major": (0, 2, 4, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "phrygian dominant": (0, 1, 4, 5, 7, 8, 10),
    "lydian dominant": (0, 2, 4, 6, 7, 9, 10),
    "altered": (0, 1, 3, 4, 6, 8, 10),
    "hungarian minor": (0, 2, 3, 6, 7, 8, 11),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "major blues": (0, 2, 3, 4, 7, 9),
    "whole tone": (0, 2, 4, 6, 8, 10),
    "half whole diminished": (0, 1, 3, 4, 6, 7, 9, 10),
    "whole half diminished": (0, 2, 3, 5, 6, 8, 9, 11),
    "chromatic": tuple(range(12)),
    "gong": (0, 2, 4, 7, 9),
    "shang": (0, 2, 5, 7, 10),
    "jue": (0, 3, 5, 8, 10),
    "zhi": (0, 2, 5, 7, 9),
    "yu": (0, 3, 5, 7, 10),
    "hirajoshi": (0, 2, 3, 7, 8),
    "in sen": (0, 1, 5, 7, 10),
    "yo": (0, 2, 5, 7, 9),
}
_OTHER_NAMES = {
    "ionian": "major", "maj": "major", "aeolian": "natural minor", "minor": "natural minor", "min": "natural minor",
    "pentatonic": "major pentatonic", "pentatonic major": "major pentatonic", "pentatonic minor": "minor pentatonic",
    "minor blues": "blues", "freygish": "phrygian dominant", "octatonic": "half whole diminished",
    "diminished": "whole half diminished", "wholetone": "whole tone", "super locrian": "altered", "acoustic":
    "lydian dominant", "宫": "gong", "宮": "gong", "商": "shang", "角": "jue", "徵": "zhi", "徴": "zhi", "羽": "yu",
}  # fmt: skip
_WRITTEN = re.compile(r"(?:([A-Ga-g][#♯b♭]?)(?=[\s_-]|[^\x00-\x7f♯♭]|$))?(.*)")


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale.

    Args:
        name: member of :data:`SCALES`.
        tonic: pitch class, 0 = C … 11 = B; None where it was not said.
    """

    name: str
    tonic: int | None

    def __str__(self) -> str:
        return self.name if self.tonic is None else f"{PITCH_CLASSES[self.tonic]} {self.name}"

    @property
    def pitch_classes(self) -> frozenset[int]:
        """Its pitch classes."""
        return frozenset(((self.tonic or 0) + step) % 12 for step in SCALES[self.name])

    @property
    def home(self) -> frozenset[int]:
        """Pitch classes on which a piece begins and ends: of its tonic, third and fifth those that it has."""
        steps = SCALES[self.name]
        if self.name == "chromatic":
            return self.pitch_classes
        minor, major = 3 in steps and 7 in steps, 4 in steps
        thirds = (4,) if major and self.name != "altered" else (3,) if minor or 3 in steps else ()
        fifths = (7,) if 7 in steps else (6,) if thirds == (3,) and 6 in steps else ()
        return frozenset(((self.tonic or 0) + step) % 12 for step in (0, *thirds, *fifths))

    @property
    def key(self) -> Key | None:
        """The key that is nearest: of its tonic and third; None where it lacks one of them."""
        if self.tonic is None or self.name == "chromatic":
            return None
        thirds = [step for step in (3, 4) if (self.tonic + step) % 12 in self.home]
        return Key(self.tonic, minor=thirds == [3]) if thirds else None


def parse_scale(text: str) -> Scale:
    """Read ``"C major pentatonic"``, ``"A blues"``, ``"D dorian"``, ``"chromatic"`` or ``"C宫"``.

    Raises:
        RecipeError: the text names no scale.
    """
    match = _WRITTEN.fullmatch(" ".join(text.split()))
    tonic, name = match.groups() if match else (None, text)
    plain = re.sub(r"[\s_-]+", " ", name).strip().lower()
    plain = (
        plain.removesuffix("调式").removesuffix("調式").removesuffix("调").removesuffix(" scale").removesuffix(" mode")
    )
    plain = _OTHER_NAMES.get(plain, plain)
    if plain not in SCALES:
        raise RecipeError(
            f"scale {text!r} is not known", remedy=f'write it like "C major pentatonic"; known are {", ".join(SCALES)}'
        )
    return Scale(plain, None if tonic is None or plain == "chromatic" else parse_pitch_class(tonic))
