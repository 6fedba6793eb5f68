"""The page that a content team opens: every take drawn, played, measured, filtered; one file, nothing fetched.

Pictures are drawn from the notes themselves, each when it comes into view, so that hundreds of takes open at once. A
listener rates takes there under a pseudonym; what they rated, liked, heard and skipped stays in their browser until
they export it, as the table that ``tutti feedback`` takes in. Sound is embedded as it was ordered (MP3
before FLAC, OGG and WAV) while all of it fits :data:`MAX_EMBEDDED_BYTES`; a larger catalogue plays the files beside the
page. The page's own policy forbids it to load from anywhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from tutti import pages
from tutti.catalogue.blocks import FILES, files_of, played_kind, preview_of, score_of
from tutti.catalogue.review import FAILED, NOT_CHECKED, Finding, from_json
from tutti.catalogue.takes import ACCEPTED, Plan
from tutti.features.controls import tempo_class
from tutti.features.vocabulary import KEYS, MOODS, TEMPO_CLASS_LIMITS_QPM, TEMPO_CLASSES
from tutti.generation.request import Request
from tutti.lineage import FileEntry
from tutti.render.formats import instrument_in
from tutti.render.strokes import ROLL_HEIGHT, ROLL_WIDTH, Roll, instruments_of, roll_of
from tutti.storage import Folder
from tutti.units import format_bytes, format_seconds

MAX_EMBEDDED_BYTES = 64 * 2**20
_MEDIA_TYPES = {"mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg", "wav": "audio/wav"}


@dataclass(frozen=True, slots=True)
class Download:
    """A file beside the page."""

    label: str
    href: str
    size: str


@dataclass(frozen=True, slots=True)
class Card:
    """One take as the page shows it; ``key`` is the asked one where there is one, ``found_key`` what its notes say."""

    take_id: str
    title: str
    verdict: str
    attempt: int
    key: str
    found_key: str
    asked: str
    mood: str
    tempo: str
    tempo_class: str
    length: str
    length_s: float
    notes: int
    loudness: str
    instruments: str
    seed: int
    roll: Roll | None
    sound: str | None
    downloads: tuple[Download, ...]
    findings: tuple[Finding, ...]
    faults: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """An entry of a filter."""

    value: str
    label: str


def render(
    rows: Iterable[Mapping[str, Any]],
    *,
    folder: Folder,
    files: Sequence[FileEntry],
    plan: Plan,
    model_facts: Mapping[str, Any],
    max_embedded_bytes: int = MAX_EMBEDDED_BYTES,
) -> bytes:
    """The page, UTF-8.

    Args:
        rows: of ``takes``, whole.
        folder: where the page and its files lie.
        files: every file that was written below ``folder``.
        plan: what was ordered.
        model_facts: what is known of the model; its ``licences`` are shown.
        max_embedded_bytes: above it, the page plays the files beside it.
    """
    sizes = {entry.path: entry.size_bytes for entry in files}
    formats = plan.order.formats
    kind = played_kind(formats)
    sound_bytes = sum(size for path, size in sizes.items() if path.startswith(FILES) and path.endswith(f".{kind}"))
    embeds = sound_bytes * 4 / 3 <= max_embedded_bytes

    def sound_of(row: Mapping[str, Any]) -> str | None:
        path = preview_of(row, formats=formats)
        if path is None or not embeds:
            return path
        return f"data:{_MEDIA_TYPES[str(kind)]};base64,{base64.b64encode(folder.read(path)).decode()}"

    cards = [_card(row, sound=sound_of(row), sizes=sizes, formats=formats) for row in rows]
    cards.sort(key=lambda card: card.verdict)  # "accepted" before "rejected"; otherwise as ordered
    accepted = [card for card in cards if card.verdict == ACCEPTED]
    return pages.render(
        "tutti.catalogue",
        "page.html.jinja",
        plan=plan,
        cards=cards,
        accepted=len(accepted),
        rejected=len(cards) - len(accepted),
        unfilled=plan.order.takes - len(accepted),
        music=format_seconds(sum(card.length_s for card in accepted)),
        licences=dict(model_facts.get("licences", {})),
        originality=_originality(accepted),
        embeds=embeds,
        order=yaml.safe_dump(
            plan.order.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
        ),
        choices=_choices(cards),
        roll_width=ROLL_WIDTH,
        roll_height=ROLL_HEIGHT,
    )


def _card(row: Mapping[str, Any], *, sound: str | None, sizes: Mapping[str, int], formats: Sequence[str]) -> Card:
    score = score_of(row)
    findings = tuple(from_json(row["checks"]))
    paths = files_of(row, formats=formats)
    return Card(
        take_id=row["take_id"],
        title=row["title"],
        verdict=row["verdict"],
        attempt=row["attempt"],
        key=row["asked_key"] or row["key"] or "no key",
        found_key=row["key"] or "no key",
        asked=_asked(row["request"]),
        mood=row["mood"] or "no mood",
        tempo=f"{row['tempo_qpm']:.0f} bpm",
        tempo_class=tempo_class(row["tempo_qpm"]),
        length=format_seconds(round(row["length_s"])) if row["length_s"] >= 1 else "0s",
        length_s=row["length_s"],
        notes=row["notes"],
        loudness="" if row["loudness_lufs"] is None else f"{row['loudness_lufs']:.1f} LUFS",
        instruments=instruments_of(score),
        seed=row["seed"],
        roll=roll_of(score),
        sound=sound,
        downloads=tuple(_downloads(paths, sizes)),
        findings=findings,
        faults=tuple(f"{_words(finding.check)}: {finding.detail}" for finding in findings if finding.verdict == FAILED),
        failed=tuple(finding.check for finding in findings if finding.verdict == FAILED),
    )


def _downloads(paths: Mapping[str, str], sizes: Mapping[str, int]) -> Iterator[Download]:
    for kind, path in paths.items():
        if kind != "stems":
            yield Download(kind.upper(), path, format_bytes(sizes[path]))
            continue
        for stem in sorted(found for found in sizes if found.startswith(path)):
            yield Download(instrument_in(stem), stem, format_bytes(sizes[stem]))


def _asked(request: str) -> str:
    """What a request states, in one text."""
    stated = Request.model_validate_json(request).model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    parts = []
    for name, value in stated.items():
        if isinstance(value, dict):
            text = str(value.get("kind", ""))
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"
        parts.append(f"{_words(name)} {text}".strip())
    return " · ".join(parts) or "nothing: the model chose"


def _originality(accepted: Sequence[Card]) -> str:
    """How many of the accepted takes were held against known works."""
    compared = sum(
        finding.verdict != NOT_CHECKED
        for card in accepted
        for finding in card.findings
        if finding.check == "originality"
    )
    if not compared:
        return "not checked: takes were not compared with known works"
    return f"{compared} of {len(accepted)} accepted takes were held against known works; each card's checks tell more"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _choices(cards: Sequence[Card]) -> dict[str, list[Choice]]:
    """What each filter offers: only what some take has, in musical order."""
    keys, moods, tempos = ({getattr(card, name) for card in cards} for name in ("key", "mood", "tempo_class"))
    limits = [f"{limit:g}" for limit in TEMPO_CLASS_LIMITS_QPM]
    middle = [f"{low}–{high}" for low, high in pairwise(limits)]
    ranges = dict(zip(TEMPO_CLASSES, (f"below {limits[0]}", *middle, f"from {limits[-1]}"), strict=True))
    modes = [mode for mode in ("major", "minor") if sum(key.endswith(mode) for key in keys) > 1]
    failed = dict.fromkeys(check for card in cards for check in card.failed)
    return {
        "key": [
            *(Choice(mode, f"every {mode} key") for mode in modes),
            *(Choice(key, key) for key in (*KEYS, "no key") if key in keys),
        ],
        "failed": [Choice(check, _words(check)) for check in failed],
        "mood": [Choice(mood, mood) for mood in (*MOODS, "no mood") if mood in moods],
        "tempo": [Choice(name, f"{name} ({ranges[name]} bpm)") for name in TEMPO_CLASSES if name in tempos],
    }
