"""A sentence as what is looked for: "calm, minor, strings, 3 min", "80 to 100 bpm, no drums, at least 2 minutes".

The sentences of requests are read (:mod:`tutti.generation.sentences`), in English and Chinese, and beyond them what
only a search can hold: ranges and limits of tempo, length and bars, a mode without a tonic, moods that are not wanted,
and words of titles, quoted or unknown. Numbers, keys, modes, meters, instruments, pitch ranges, denials and words of
titles must hold; mood, words for tempo, length and density, and polyphony say what comes first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tutti.catalogue import search_fit as fit
from tutti.catalogue.search_index import Index
from tutti.errors import RecipeError
from tutti.generation.sentences.figures import Figure, figures
from tutti.generation.sentences.reading import Reading, read
from tutti.generation.sentences.scenes import understood
from tutti.generation.sentences.text import NUMBER, NUMERAL, number, plain
from tutti.generation.sentences.weighing import Heard

TOLERANCE = 0.1
"""How far a number may lie from the asked one, as share of it."""
_MEASURED = ("tempo", "length", "bars")
_NOT_SEARCHED = ("scale", "chords", "difficulty")
_LOW = (
    r"at least|no(?:t)? less than|no slower than|more than|longer than|faster than|over|above|from|min(?:imum)?(?: of)?"
    r"|>=?|≥|至少|不少于|不低于|不慢于|超过|大于|长于|快于"
)
_HIGH = (
    r"at most|no(?:t)? more than|no longer than|no faster than|less than|shorter than|slower than|under|below|up to"
    r"|max(?:imum)?(?: of)?|<=?|≤|至多|最多|不超过|不快于|少于|小于|短于|低于|慢于"
)
_JOINS = r"-|–|—|~|to|and|到|至"
_BEFORE = re.compile(rf"(?:\b|(?<=[^a-z]))(?:(?P<low>{_LOW})|(?P<high>{_HIGH}))\s*$", re.IGNORECASE)
_AFTER = re.compile(
    r"\s*(?:(?P<low>\+|or (?:more|longer|faster)|and up|(?:及|或)?以上)"
    r"|(?P<high>or (?:less|shorter|slower)|(?:及|或)?以[下内]))",
    re.IGNORECASE,
)
_FROM = re.compile(rf"(?:\b(?:between|from)\s+)?(?P<first>{NUMBER}|{NUMERAL})\s*(?:{_JOINS})\s*$", re.IGNORECASE)
_BETWEEN = re.compile(rf"\s*(?:{_JOINS})\s*", re.IGNORECASE)
_AND = re.compile(r"\b(?P<between>between\b[^,;]{1,24}?)\s+and\s+", re.IGNORECASE)
"""What a minute and two seconds could be too."""
_OPENS = re.compile(r"\b(?:between|from)\s+$", re.IGNORECASE)
_NUMBER = re.compile(rf"{NUMBER}|{NUMERAL}", re.IGNORECASE)
_MODE = re.compile(
    r"\b(?:in (?:a )?)?(?P<mode>minor|major)\b(?:[ -](?:key|mode|scale)s?\b)?|(?P<chinese>[小大])[调調]", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“”「『](?P<text>[^\"“”」』]{1,120})[\"“”」』]")
_WORD = re.compile(r"[^\W\d_]{3,}|[\u4e00-\u9fff]{2,}|\d{2,}")


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Args:
        text: as it was typed, in one line.
        criteria: what a take is held against.
        not_understood: stretches that nothing was made of, and that no title holds.
        not_searched: controls that were understood and by which no take can be found.
    """

    text: str
    criteria: tuple[fit.Criterion, ...]
    not_understood: tuple[str, ...] = ()
    not_searched: tuple[str, ...] = ()


def understand(text: str, index: Index, *, tolerance: float = TOLERANCE) -> Query:
    """Read a sentence.

    Args:
        index: whose titles tell which unknown words are looked for.
        tolerance: see :data:`TOLERANCE`.

    Raises:
        RecipeError: it contradicts itself, or nothing in it can be searched by.
    """
    if not 0 <= tolerance < 1:
        raise RecipeError(f"tolerance {tolerance:g} is no share", remedy="give one of 0 to 1, such as 0.1")
    said = plain(text)
    rest, criteria = _AND.sub(r"\g<between> to ", said), list[fit.Criterion]()
    for part in (_titles, _measured, _modes):
        rest, found = part(rest, tolerance)
        criteria += found
    reading, missing = _read(rest, index)
    criteria += _of_reading(reading)
    words = [words for words in missing if index.mentions(words).any()]
    criteria += [fit.Title(words) for words in words]
    if reading is not None:
        said_by_words = {word for word in _WORD.findall(reading.sentence) if word not in words}
        criteria += [fit.TitleToo(word) for word in sorted(said_by_words) if index.mentions(word).any()]
    not_searched = tuple(name for name in _NOT_SEARCHED if reading is not None and name in reading.controls)
    not_understood = tuple(words for words in missing if not index.mentions(words).any())
    if not criteria:
        raise RecipeError(
            f"nothing in {said!r} can be searched by",
            remedy='say mood, tempo, key, instruments, length or a title, such as "calm, minor, strings, 3 min"',
        )
    return Query(said, tuple(criteria), not_understood, not_searched)


Part = tuple[str, list[fit.Criterion]]


def _titles(text: str, _: float) -> Part:
    return _QUOTED.sub(" ", text), [fit.Title(match["text"].strip()) for match in _QUOTED.finditer(text)]


def _modes(text: str, _: float) -> Part:
    in_keys = [(figure.start, figure.end) for figure in figures(text) if figure.control in ("key", "scale")]
    found = [
        match
        for match in _MODE.finditer(text)
        if not any(start <= match.start("mode" if match["mode"] else "chinese") < end for start, end in in_keys)
    ]
    modes = {(match["mode"] or match["chinese"]).lower() in ("minor", "小") for match in found}
    if len(modes) > 1:
        raise RecipeError("the sentence asks for major and minor", remedy="say one of them")
    return _blanked(text, [match.span() for match in found]), [fit.Mode(minor=minor) for minor in modes]


def _measured(text: str, tolerance: float) -> Part:
    """Tempo, length and bars by number: a range, a limit, or about so much."""
    spans: list[tuple[int, int]] = []
    criteria: dict[str, fit.Number] = {}
    measured = [figure for figure in figures(text) if figure.control in _MEASURED]
    open_range: Figure | None = None
    for figure, after in pairwise([*measured, None]):
        assert figure is not None
        if after and after.control == figure.control and _BETWEEN.fullmatch(text[figure.end : after.start]):
            opens = _OPENS.search(text[: figure.start])
            spans.append((opens.start() if opens else figure.start, after.start))
            open_range = figure
            continue
        low, high, span = _bounds(text, figure, first=open_range)
        open_range = None
        spans.append(span)
        criteria[figure.control] = _joined(criteria.get(figure.control), figure.control, low, high, tolerance)
    return _blanked(text, spans), list(criteria.values())


def _bounds(text: str, figure: Figure, *, first: Figure | None) -> tuple[float | None, float | None, tuple[int, int]]:
    """Lowest and highest value that a figure leaves, and where it stands with the words around it."""
    value, start, end = float(figure.value), figure.start, figure.end
    if first is not None:
        return float(first.value), value, (start, end)
    if match := _FROM.search(text[:start]):
        own = _NUMBER.search(text, start, end)
        unit = value / number(own[0].lower()) if own and number(own[0].lower()) else 1.0
        return unit * number(match["first"].lower()), value, (match.start(), end)
    if match := _BEFORE.search(text[:start]):
        low = match["low"] is not None
        return (value, None, (match.start(), end)) if low else (None, value, (match.start(), end))
    if match := _AFTER.match(text, end):
        low = match["low"] is not None
        return (value, None, (start, match.end())) if low else (None, value, (start, match.end()))
    return value, value, (start, end)


def _joined(
    before: fit.Number | None, control: str, low: float | None, high: float | None, tolerance: float
) -> fit.Number:
    """Two limits of one control are a range; anything else that is said twice contradicts itself."""
    lows, highs = ([bound] if bound is not None else [] for bound in (low, high))
    if before is not None:
        if low == high or before.low == before.high or (before.low is None) == (low is None):
            raise RecipeError(f"the sentence says two things of {control}", remedy="say one of them")
        lows += [before.low] if before.low is not None else []
        highs += [before.high] if before.high is not None else []
    found = fit.Number(control, lows[0] if lows else None, highs[0] if highs else None, tolerance)
    if found.low is not None and found.high is not None and found.low > found.high:
        raise RecipeError(f"no {control} is {found.asked}", remedy="say the smaller number first")
    return found


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    signs = list(text)
    for start, end in spans:
        # A break, so that what stands before and after does not become one phrase.
        signs[start:end] = [","] + [" "] * (end - start - 1)
    return "".join(signs)


def _read(rest: str, index: Index) -> tuple[Reading | None, list[str]]:
    """What rules and, where unknown words are in no title, embeddings make of the rest; and what stays unknown."""
    if not any(sign.isalnum() for sign in rest):
        return None, []
    reading = read(rest)
    if any(not index.mentions(words).any() for words in reading.not_understood):
        heard = understood(rest)
        kept = [words for words in reading.not_understood if index.mentions(words).any()]
        return heard, list(dict.fromkeys((*kept, *heard.not_understood)))
    return reading, list(reading.not_understood)


def _of_reading(reading: Reading | None) -> list[fit.Criterion]:
    if reading is None:
        return []
    reading.beside(())
    found: list[fit.Criterion] = []
    for control, make in _MADE.items():
        of_it = [each for each in reading.heard if each.control == control]
        positive = [each for each in of_it if not each.negated]
        best = min((each.rank for each in positive), default=None)
        found += make(
            reading, [each for each in positive if each.rank == best], [each for each in of_it if each.negated]
        )
    return found


Make = Callable[[Reading, Sequence[Heard], Sequence[Heard]], list[fit.Criterion]]


def _mood(_: Reading, said: Sequence[Heard], denied: Sequence[Heard]) -> list[fit.Criterion]:
    wanted: list[fit.Criterion] = []
    if said:
        valence, arousal = (float(np.mean([each.value[axis] for each in said])) for axis in (0, 1))
        wanted.append(fit.Mood(valence, arousal))
    return [*wanted, *(fit.NotMood(*each.value) for each in denied if each.value != (0, 0) and not each.softened)]


def _instruments(_: Reading, said: Sequence[Heard], denied: Sequence[Heard]) -> list[fit.Criterion]:
    if not said and not denied:
        return []
    groups = tuple(dict.fromkeys(tuple(each.value) for each in said))
    forbidden = tuple(dict.fromkeys(family for each in denied for family in each.value))
    return [fit.Instruments(groups, forbidden)]


def _single(name: str, make: Callable[[Reading, Sequence[Heard]], fit.Criterion]) -> Make:
    def made(reading: Reading, said: Sequence[Heard], _: Sequence[Heard]) -> list[fit.Criterion]:
        return [make(reading, said)] if name in reading.controls else []

    return made


_MADE: dict[str, Make] = {
    "mood": _mood,
    "instruments": _instruments,
    "tempo": _single("tempo", lambda reading, _: fit.Speed(float(reading.controls["tempo"]))),
    "length": _single("length", lambda reading, _: fit.Duration(float(reading.controls["length"]))),
    "key": _single("key", lambda reading, _: fit.InKey(reading.controls["key"])),
    "meter": _single("meter", lambda reading, _: fit.Meter(reading.controls["meter"])),
    "density": _single("density", lambda reading, _: fit.Density(reading.controls["density"])),
    "polyphony": _single("polyphony", lambda reading, _: fit.Polyphony(int(reading.controls["polyphony"]))),
    "pitch_range": _single("pitch_range", lambda reading, _: fit.Compass(reading.controls["pitch_range"])),
}
