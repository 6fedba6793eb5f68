"""Chord progressions as text: ``Cm7 F7 Bbmaj7 | Eb % | D7(b9)/A Gm``.

Bars stand between ``|``; the chords of a bar share its beats, the earlier ones take what is left over: three chords in
4/4 last 2, 1 and 1 beats. ``/`` or ``.`` between chords holds the one before for another share, and ``%`` as a whole
bar repeats the bar before. Qualities are read in both notations in use: ``maj7 M7 Δ7 ma7``, ``m min mi -``, ``dim °``,
``ø m7b5``, ``aug +``, ``sus2 sus4``, ``5 6 6/9 7 9 11 13``, ``add9``, ``alt``, ``no3``, and alterations such as ``b9``,
``#11`` or ``-5``, in parentheses or without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tutti.errors import RecipeError
from tutti.units import Key, parse_pitch_class

MOST_CHORDS_IN_A_BAR = 8
MOST_LETTERS = 8000

_CHORD = re.compile(r"([A-G][#♯b♭]?)(.*?)(?:/([A-G][#♯b♭]?))?")
_HOLDS = ("/", ".")
_MAJOR = re.compile(r"major|maj|Maj|MAJ|ma(?!j|dd)|Ma(?!j)|M|Δ|△|∆|\^")
_MINOR = re.compile(r"minor|min|mi(?!n)|m(?!a)|m(?=a)|-")
_DIMINISHED, _HALF, _AUGMENTED = re.compile(r"dim|°|º|o"), re.compile(r"ø|Ø|hdim"), re.compile(r"aug|\+(?!5|9|11|13)")
_NUMBER = re.compile(r"13|11|69|6/9|9|7|6|5|4|2")
_SUSPENDED, _ADDED = re.compile(r"sus(2|4|)"), re.compile(r"add([b#]?)(2|4|6|9|11|13)")
_LEFT_OUT, _ALTERED = re.compile(r"(?:no|omit)(3|5)"), re.compile(r"([b#+-])(5|6|9|11|13)")
_DEGREES = {2: 2, 4: 5, 5: 7, 6: 9, 9: 2, 11: 5, 13: 9}


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord.

    Args:
        text: as it was written.
        root, bass: pitch classes, 0 = C … 11 = B.
        tones: pitch classes, the bass among them.
    """

    text: str
    root: int
    bass: int
    tones: frozenset[int]

    def sounds_like(self, other: Chord) -> bool:
        """Whether both are of the same notes over the same bass."""
        return self.tones == other.tones and self.bass == other.bass


@dataclass(frozen=True, slots=True)
class Progression:
    """Chords over time.

    Args:
        bars: of each bar, its chords in order, each with the number of shares of the bar that it lasts.
    """

    bars: tuple[tuple[tuple[Chord, int], ...], ...]

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def chords(self) -> Iterator[Chord]:
        """Every chord in its order, as often as it comes."""
        return (chord for bar in self.bars for chord, _ in bar)

    def key(self) -> Key:
        """The key that fits best: the chords' tones, the more the longer they last, and where they begin and end."""
        weights = [(chord, shares / sum(n for _, n in bar)) for bar in self.bars for chord, shares in bar]
        first, last = weights[0][0], weights[-1][0]

        def fit(key: Key) -> float:
            inside = sum(weight * len(chord.tones & key.pitch_classes) / len(chord.tones) for chord, weight in weights)
            at_ends = sum(
                share for chord, share in ((first, 0.10), (last, 0.15)) if key.triad <= chord.tones | {chord.root}
                and chord.root == key.tonic
            )  # fmt: skip
            # The dominant leads: its seventh tells a major key from its neighbours.
            leads = any(
                one.root == (key.tonic + 7) % 12 and (key.tonic + 11) % 12 in one.tones and two.root == key.tonic
                for (one, _), (two, _) in pairwise(weights)
            )
            # Eight tones fit a chord sooner than seven.
            return inside / len(self.bars) + at_ends + 0.1 * leads - 0.02 * key.minor

        return max((Key(tonic, minor) for minor in (False, True) for tonic in range(12)), key=fit)


def parse_chords(text: str) -> Progression:
    """Read a progression.

    Raises:
        RecipeError: what cannot be read, with its bar and its place there.
    """
    if len(text) > MOST_LETTERS:
        raise RecipeError(f"chords have {len(text)} letters", remedy=f"write at most {MOST_LETTERS}")
    written = re.sub(r"\s*\|?\s*\n[\s|]*", "|", text.replace("｜", "|").strip()).strip("|").replace("||", "|")
    bars: list[tuple[tuple[Chord, int], ...]] = []
    for number, bar in enumerate(written.split("|"), start=1):
        words = bar.split()
        if not words:
            raise RecipeError(f"chords: bar {number} is empty", remedy="write % to repeat the bar before, or a chord")
        if words == ["%"]:
            if not bars:
                raise RecipeError("chords: bar 1 is %, and no bar is before it", remedy="begin with a chord")
            bars.append(bars[-1])
            continue
        bars.append(_bar(words, number=number))
    return Progression(tuple(bars))


def _bar(words: list[str], *, number: int) -> tuple[tuple[Chord, int], ...]:
    if len(words) > MOST_CHORDS_IN_A_BAR:
        raise RecipeError(
            f"chords: bar {number} has {len(words)} chords, and a bar has at most {MOST_CHORDS_IN_A_BAR}",
            remedy="write | between bars",
        )
    chords: list[tuple[Chord, int]] = []
    for place, word in enumerate(words, start=1):
        if word in _HOLDS and chords:
            chords[-1] = (chords[-1][0], chords[-1][1] + 1)
            continue
        try:
            chords.append((parse_chord(word), 1))
        except RecipeError as error:
            raise RecipeError(f"chords: bar {number}, chord {place}: {error.what}", remedy=error.remedy) from None
    return tuple(chords)


def parse_chord(text: str) -> Chord:
    """Read one chord, such as ``Cm7``, ``F#maj9``, ``Bb7(b9,#11)`` or ``D/F#``.

    Raises:
        RecipeError: it has no root of A to G, or a quality that is not known.
    """
    match = _CHORD.fullmatch(text)
    if match is None:
        raise RecipeError(f"{text!r} does not begin with a root of A to G", remedy='write it like "Cm7" or "Bbmaj7/D"')
    root_text, quality, bass_text = match.groups()
    steps = _Quality(quality).steps()
    if steps is None:
        raise RecipeError(
            f"{text!r} has a quality {quality!r} that is not known",
            remedy="write it like maj7, m7, 7, dim7, m7b5, sus4, 6, add9 or 7(b9)",
        )
    root = parse_pitch_class(root_text)
    bass = root if bass_text is None else parse_pitch_class(bass_text)
    return Chord(text, root, bass, frozenset((root + step) % 12 for step in steps) | {bass})


class _Quality:
    """A chord's quality, read from its beginning to its end."""

    def __init__(self, text: str) -> None:
        text = text.replace("♭", "b").replace("♯", "#").replace("−", "-").replace("–", "-")
        self._rest = re.sub(r"[(),\[\]]", "", text)
        self._third: int | None = 4
        self._fifth: set[int] = {7}
        self._others: set[int] = set()

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._rest)
        if match is not None:
            self._rest = self._rest[match.end() :]
        return match

    def steps(self) -> frozenset[int] | None:
        """Semitones above the root; None where something cannot be read."""
        if self._rest in ("alt", "7alt"):
            return frozenset((0, 1, 3, 4, 8, 10))
        seventh = self._base()
        if (number := self._take(_NUMBER)) is not None:
            self._count(number[0], seventh=10 if seventh is None else seventh)
        while self._rest:
            if not self._modifier():
                return None
        third = set() if self._third is None else {self._third}
        return frozenset({0} | third | self._fifth | {step % 12 for step in self._others})

    def _base(self) -> int | None:
        """Third and fifth; which seventh a number means, None: the minor one."""
        if self._take(_HALF):
            self._third, self._fifth = 3, {6}
            self._others.add(10)
            return 10
        if self._take(_DIMINISHED):
            self._third, self._fifth = 3, {6}
            return 9
        if self._take(_AUGMENTED):
            self._fifth = {8}
            return None
        major = None
        if _MAJOR.match(self._rest) is None and self._take(_MINOR):
            self._third = 3
        if (major := self._take(_MAJOR)) is not None:
            if major[0] in "Δ△∆^" or (self._third == 3 and not self._rest[:1].isdigit()):
                self._others.add(11)
            return 11
        return None

    def _count(self, number: str, *, seventh: int) -> None:
        match number:
            case "5":
                self._third = None
            case "6":
                self._others.add(9)
            case "69" | "6/9":
                self._others |= {9, 2}
            case "2":
                self._others.add(2)
            case "4":
                self._third = 5
            case _:
                self._others |= {seventh} | {"7": set(), "9": {2}, "11": {2, 5}, "13": {2, 9}}[number]
                if number == "11" and self._third == 4:
                    # It lies a semitone below the eleventh, and is left out.
                    self._third = None

    def _modifier(self) -> bool:
        if (found := self._take(_SUSPENDED)) is not None:
            self._third = 2 if found[1] == "2" else 5
        elif (found := self._take(_ADDED)) is not None:
            self._others.add(_DEGREES[int(found[2])] + {"": 0, "b": -1, "#": 1}[found[1]])
        elif (found := self._take(_LEFT_OUT)) is not None:
            if found[1] == "3":
                self._third = None
            else:
                self._fifth = set()
        elif (found := self._take(_ALTERED)) is not None:
            self._alter(int(found[2]), -1 if found[1] in "b-" else 1)
        elif self._take(_AUGMENTED):
            self._fifth = {8}
        elif self._take(re.compile(r"(?:maj|Maj|ma|M|Δ)7")):
            self._others = (self._others - {10}) | {11}
        else:
            return False
        return True

    def _alter(self, degree: int, by: int) -> None:
        step = _DEGREES[degree] + by
        if degree == 5:
            # Two alterations of one fifth stand side by side.
            self._fifth = (self._fifth - {7}) | {step}
        elif degree == 9:
            self._others = (self._others - {2}) | {step}
        else:
            self._others = (self._others - {_DEGREES[degree]}) | {step}
