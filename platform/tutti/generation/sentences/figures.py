"""Figures of a sentence: tempo, length, bars, meter, key, voices, said by a number or a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tutti.errors import RecipeError
from tutti.features.vocabulary import METERS
from tutti.generation.chords import parse_chords
from tutti.generation.form.text import parse_form
from tutti.generation.scales import SCALES, parse_scale
from tutti.generation.sentences.text import NUMBER, NUMERAL, number
from tutti.units import Key, parse_key, parse_pitch_range

_N, _Z = f"({NUMBER})", f"({NUMERAL})"
_CHORD = r"[A-G][#b♯♭]?(?:maj|min|dim|aug|sus|add|m|M|o|ø|°|\+)*[\d#b()]*(?:/[A-G][#b♯♭]?)?(?![A-Za-z])"
_PITCH = r"[A-G][#b♯♭]?\d"
_SCALE = "|".join(sorted({*SCALES} - {"major", "chromatic", "yo"}, key=len, reverse=True)).replace(" ", "[ -]")
_METERS = {f"{above}/{below}" for above, below in METERS}
_BELOW = {"two": 2, "four": 4, "eight": 8, "sixteen": 16}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: the control, its value, where it stands."""

    control: str
    value: float | int | str
    start: int
    end: int


Read = Callable[[re.Match[str]], float | int | str | None]


def figures(text: str) -> list[Figure]:
    """Figures of a plain text with its capitals, in order of their place; none stands over another."""
    found: list[Figure] = []
    taken = [False] * len(text)
    for control, pattern, read in _PATTERNS:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            value = read(match)
            if value is None:
                continue
            taken[match.start() : match.end()] = [True] * (match.end() - match.start())
            found.append(Figure(control, value, match.start(), match.end()))
    return sorted(found, key=lambda figure: figure.start)


def _first(match: re.Match[str]) -> float:
    return number(_groups(match)[0])


def _groups(match: re.Match[str]) -> list[str]:
    return [group.lower() for group in match.groups() if group is not None]


def _whole(match: re.Match[str]) -> int | None:
    value = _first(match)
    return int(value) if value == int(value) else None


def _clock(match: re.Match[str]) -> float | None:
    seconds = int(match[2])
    return 60.0 * int(match[1]) + seconds if seconds < 60 else None


def _minutes(match: re.Match[str]) -> float:
    minutes = number(match[1].lower())
    seconds = number(match["seconds"].lower()) if match["seconds"] else 0.0
    return 60 * (minutes + (0.5 if match["half"] or match["half_before"] else 0)) + seconds


def _chinese_minutes(match: re.Match[str]) -> float | None:
    seconds = number(match["seconds"]) if match["seconds"] else 0.0
    return 60 * (number(match[1]) + (0.5 if match["half"] else 0)) + seconds


def _plain_tempo(match: re.Match[str]) -> float | None:
    value = _first(match)
    return value if value >= 30 else None


def _meter(match: re.Match[str]) -> str | None:
    meter = f"{int(match[1])}/{int(match[2])}"
    return meter if meter in _METERS else None


def _meter_in_words(match: re.Match[str]) -> str | None:
    meter = f"{number(match[1].lower()):g}/{_BELOW[match[2].lower()]}"
    return meter if meter in _METERS else None


def _chinese_meter(match: re.Match[str]) -> str | None:
    """四三拍 names the note first and is 3/4; where only the second sign can be a note, as in 六八拍, it is 6/8."""
    first, second = int(number(match[1])), int(number(match[2]))
    ways = ((first, second), (second, first)) if second in (4, 8, 16) else ((second, first), (first, second))
    return next((f"{above}/{below}" for above, below in ways if f"{above}/{below}" in _METERS), None)


def _fraction_meter(match: re.Match[str]) -> str | None:
    meter = f"{int(number(match[2]))}/{int(number(match[1]))}"
    return meter if meter in _METERS else None


def _form(match: re.Match[str]) -> str:
    return parse_form(match[1])


def _key(match: re.Match[str]) -> str | None:
    letter, accidental, mode = match["letter"], (match["accidental"] or "").lower(), (match["mode"] or "").lower()
    # "in a minor key" has an article, "in A minor" a key.
    if letter == "a" and match.string[match.end() :].lstrip().startswith(("key", "mood", "mode", "scale", "way")):
        return None
    sign = {"sharp": "#", "flat": "b"}.get(accidental, accidental)
    return _key_of(letter, sign, minor=mode.startswith("min"))


def _chinese_key(match: re.Match[str]) -> str | None:
    accidental = match["before"] or match["after"] or ""
    sign = {"升": "#", "降": "b"}.get(accidental, accidental)
    return _key_of(match["letter"], sign, minor=match["mode"] == "小")


def _key_of(letter: str, accidental: str, *, minor: bool) -> str | None:
    try:
        tonic = parse_key(f"{letter.upper()}{accidental.replace('♯', '#').replace('♭', 'b')} major").tonic
    except RecipeError:
        return None
    return str(Key(tonic, minor))


def _voices(match: re.Match[str]) -> int | None:
    voices = int(_first(match))
    return voices if 1 <= voices <= 16 else None


def _chords(match: re.Match[str]) -> str | None:
    text = match["chords"].strip(" -,|")
    if "|" not in text:
        text = " | ".join(re.findall(_CHORD, text))
    try:
        parse_chords(text)
    except RecipeError:
        return None
    return text


def _range(match: re.Match[str]) -> str | None:
    text = f"{match[1]}-{match[2]}"
    try:
        return str(parse_pitch_range(text))
    except RecipeError:
        return None


def _scale(match: re.Match[str]) -> str | None:
    try:
        return str(
            parse_scale(f"{match['tonic'].upper()}{match['sign'] or ''} {match['name'].lower().replace('-', ' ')}")
        )
    except RecipeError:
        return None


Row = tuple[str, str, Read]


def _rows_of_pitch() -> tuple[Row, ...]:
    accidental = "(?P<accidental>sharp|flat|#|♯|b|♭)?"
    return (
        (
            "chords",
            rf"(?:chords?|progression|和弦)\s*(?:of|:|：|是|为)?\s*(?P<chords>{_CHORD}(?:[\s,|–-]+{_CHORD})+)",
            _chords,
        ),
        ("pitch_range", rf"(?:between\s+)?\b({_PITCH})\s*(?:-|–|to|and|到|至)\s*({_PITCH})(?![A-Za-z0-9])", _range),
        ("scale", rf"(?<![A-Za-z])(?P<tonic>[A-Ga-g])(?P<sign>[#b♯♭])?[ -](?P<name>{_SCALE})\b", _scale),
        (
            "key",
            rf"(?<![A-Za-z])(?P<letter>[A-Ga-g])[ -]?{accidental}[ -]?(?P<mode>major|minor|maj|min)\b",
            _key,
        ),
        (
            "key",
            rf"(?:\bkey of|\b[Ii]n)\s+(?P<letter>[A-G])(?:[ -]?{accidental})(?P<mode>)(?![A-Za-z\d#♯♭'])",
            _key,
        ),
        (
            "key",
            r"(?P<before>升|降|#|♯|b|♭)?(?P<letter>[A-Ga-g])(?P<after>#|♯|b|♭)?\s?(?P<mode>[大小])[调調]",
            _chinese_key,
        ),
        (
            "polyphony",
            rf"(?:at most|up to|no more than|max(?:imum)?(?: of)?)\s+{_N}\s+(?:voices?|notes?|parts?)",
            _voices,
        ),
        ("polyphony", rf"\b{_N}[- ](?:voices?|parts?)(?:\s+at (?:most|once))?\b", _voices),
        ("polyphony", rf"(?:最多|不超过|至多)\s*{_Z}\s*(?:个?声部|个?音)", _voices),
        ("polyphony", rf"{_Z}\s*个?声部", _voices),
    )


def _rows_of_time() -> tuple[Row, ...]:
    minute, second = r"(?:minu?te?s?|mins?|m)", r"(?:seconds?|secs?|s)"
    return (
        ("meter", r"(?<![\d/])(\d{1,2})\s?/\s?(\d{1,2})(?:\s*[拍柏]|\s+time|\s+meter)?(?![\d/])", _meter),
        ("meter", rf"\b({NUMBER})[- ](two|four|eight|sixteen)(?:[- ]time)\b", _meter_in_words),
        ("meter", rf"{_Z}分之{_Z}[拍柏]", _fraction_meter),
        ("meter", r"([二三四五六七八九])([二三四五六七八九])[拍柏](?!每|子)", _chinese_meter),
        ("tempo", rf"{_N}\s*-?\s*(?:bpm|bmp|b\.p\.m\.?|qpm|beats? (?:per|a|each) min(?:ute)?)(?![a-z])", _first),
        ("tempo", rf"(?:quarter(?:[- ]notes?)?|crotchet|♩)\s*(?:=|at|is)\s*{_N}", _first),
        ("tempo", rf"\b(?:bpm|tempo|speed)\s*(?:of|=|:|is|at)?\s*{_N}(?!\s?/)", _first),
        ("tempo", rf"\bat\s+{_N}(?=\s*(?:$|[,.;]))", _plain_tempo),
        ("tempo", rf"四分音符(?:等于|=|为)?\s*{_Z}", _first),
        ("tempo", rf"每分钟\s*{_Z}\s*[拍下]", _first),
        ("tempo", rf"{_Z}\s*拍(?:每|/|一)分钟?", _first),
        ("tempo", rf"(?:速度|节奏|bpm|BPM)\s*(?:为|是|:|=|在)?\s*{_Z}(?!\s*[小秒分])", _first),
        ("tempo", rf"{_Z}\s*拍", _plain_tempo),
        ("form", r"(?<![A-Za-z])(A['’]*(?:[A-H]['’]*)+)[- ]?(?:form|structure|曲式|结构|式)", _form),
        ("bars", rf"\b{_N}[- ]?(?:bars?|barrs?|measures?)\b", _whole),
        ("bars", rf"{_Z}\s*个?小节", _whole),
        ("length", r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])", _clock),
        ("length", rf"\b{_N}\s*-?\s*(?:hours?|hrs?)\b", lambda match: 3600 * _first(match)),
        ("length", rf"{_Z}\s*个?(?:小时|钟头)", lambda match: 3600 * _first(match)),
        ("length", r"\ban hour\b|一个小时", lambda _: 3600.0),
        ("length", rf"\ba {minute} and a half\b", lambda _: 90.0),
        (
            "length",
            rf"\b{_N}(?P<half_before> and a half)?\s*-?\s*{minute}\b(?P<half> and a half)?"
            rf"(?:\s*(?:and\s*)?(?P<seconds>{NUMBER})\s*{second}?\b)?",
            _minutes,
        ),
        ("length", rf"\b(\d+)m(?P<half_before>)(?P<half>)(?P<seconds>\d+){second}?\b", _minutes),
        ("length", rf"\bhalf(?: a|-)?[- ]?{minute}\b|半分[钟种]?", lambda _: 30.0),
        ("length", r"\b(?:a|one) minute\b", lambda _: 60.0),
        ("length", rf"\b{_N}\s*-?\s*{second}\b", _first),
        (
            "length",
            rf"{_Z}分(?:[钟种](?P<half>半)?(?:(?P<seconds>{NUMERAL})秒钟?)?)",
            _chinese_minutes,
        ),
        ("length", rf"{_Z}分(?P<half>)(?P<seconds>{NUMERAL})秒钟?", _chinese_minutes),
        ("length", rf"{_Z}分(?P<half>半)(?P<seconds>)[钟种]?", _chinese_minutes),
        ("length", rf"{_Z}\s*秒[钟种]?", _first),
    )


def _patterns() -> Iterator[tuple[str, re.Pattern[str], Read]]:
    for control, pattern, read in (*_rows_of_pitch(), *_rows_of_time()):
        yield (
            control,
            re.compile(pattern, 0 if control in ("key", "chords", "pitch_range", "form") else re.IGNORECASE),
            read,
        )


_PATTERNS = tuple(_patterns())
