"""Sentences as characters: one spelling for what looks alike, numbers written as words, near spellings."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 1000

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ENGLISH = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_CHINESE = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}

_WORD = "|".join(sorted(_ENGLISH, key=len, reverse=True))
NUMBER = rf"(?:\d+(?:\.\d+)?|(?:(?:{_WORD})(?:[- ](?:{_WORD}))?(?: hundred(?: and)?)?(?:[- ](?:{_WORD}))*))"
"""Pattern of a number in digits or English words."""
NUMERAL = r"(?:\d+(?:\.\d+)?|[零〇一二两三四五六七八九十百]+)"
"""Pattern of a number in digits or Chinese numerals."""


def plain(sentence: str) -> str:
    """The sentence in one line of compatible characters: full-width signs become half-width ones."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", sentence)).strip()


def number(text: str) -> float:
    """Value of a match of :data:`NUMBER` or :data:`NUMERAL`."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    if re.fullmatch(NUMERAL, text):
        return float(_chinese(text))
    total = 0
    for word in re.split(r"[- ]+", text):
        if word == "hundred":
            total *= 100
        elif word != "and":
            total += _ENGLISH[word]
    return float(total)


def _chinese(text: str) -> int:
    total, digit = 0, None
    for sign in text:
        if sign in _CHINESE:
            # 一二八 is read digit by digit, 一百二十八 by its powers of ten.
            digit = _CHINESE[sign] if digit is None else 10 * digit + _CHINESE[sign]
        else:
            total += {"十": 10, "百": 100}[sign] * (1 if digit is None else digit)
            digit = None
    return total + (digit or 0)


def is_chinese(sign: str) -> bool:
    """Whether a character is a Chinese one."""
    return "\u4e00" <= sign <= "\u9fff"


def near(word: str, other: str) -> bool:
    """Whether ``word`` may be ``other`` misspelt.

    Both begin alike. Words of three letters may have one twice; short ones may lack a letter, have one too many, two
    swapped or, from five letters on, another vowel; from six on one letter, and from eight on two of any kind may be
    wrong: a short word with another letter is often another word.
    """
    if word[0] != other[0] or abs(len(word) - len(other)) > 2 or min(len(word), len(other)) < 3:
        return False
    shorter = min(len(word), len(other))
    if len(other) == 3:
        return re.sub(r"(.)\1", r"\1", word) == other
    if shorter < 6:
        return _swapped(word, other) or _one_less(word, other) or _one_less(other, word) or _another_vowel(word, other)
    return distance(word, other) <= (2 if shorter >= 8 else 1)


def near_chinese(text: str, other: str) -> bool:
    """Whether ``text`` may be ``other`` with one sign mistaken; of three signs or more, since two say too little."""
    return len(text) == len(other) >= 3 and sum(a != b for a, b in zip(text, other, strict=True)) == 1


def _one_less(word: str, other: str) -> bool:
    return len(word) + 1 == len(other) and any(word == other[:i] + other[i + 1 :] for i in range(1, len(other)))


def _another_vowel(word: str, other: str) -> bool:
    differing = [(a, b) for a, b in zip(word, other, strict=False) if a != b]
    return len(word) == len(other) >= 5 and len(differing) == 1 and set(differing[0]) <= set("aeiou")


def _swapped(word: str, other: str) -> bool:
    differing = [i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b]
    return (
        len(word) == len(other)
        and len(differing) == 2
        and differing[0] + 1 == differing[1]
        and word[differing[0]] == other[differing[1]]
        and word[differing[1]] == other[differing[0]]
    )


def distance(word: str, other: str) -> int:
    """Damerau's distance: letters added, lost, changed, or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, start=1):
        above, row, before = before, [i], row
        for j, letter_of_other in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != letter_of_other))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == letter_of_other:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
