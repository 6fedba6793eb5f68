"""Which form of the music a client accepts (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_RANGE = re.compile(r"(?P<kind>[\w!#$&^.+*-]+)/(?P<subtype>[\w!#$&^.+*-]+)")
_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a piece.

    Args:
        name: format name of :mod:`tutti.render.export`, ``json`` for note events, or a name of :data:`STREAMS`.
        media_type: what the answer is labelled with.
        others: further labels in use for the same form.
    """

    name: str
    media_type: str
    others: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Every media type that means this form."""
        return (self.media_type, *self.others)


FORMS = (
    Form("json", "application/json"),
    Form("midi", "audio/midi", ("audio/mid", "audio/x-midi", "audio/sp-midi")),
    Form("flac", "audio/flac", ("audio/x-flac",)),
    Form("wav", "audio/wav", ("audio/x-wav", "audio/wave", "audio/vnd.wave")),
    Form("mp3", "audio/mpeg", ("audio/mp3",)),
    Form("ogg", "audio/ogg", ("audio/vorbis",)),
    Form("musicxml", "application/vnd.recordare.musicxml+xml", ("application/vnd.recordare.musicxml",)),
    Form("png", "image/png"),
    Form("events", "text/event-stream"),
    Form("lines", "application/x-ndjson", ("application/jsonl", "application/ndjson")),
)
"""What the service can answer with; where a client has no preference, the first."""
STREAMS = ("events", "lines")
"""Forms in which notes come as they are made: server-sent events, and JSON line by line."""


@dataclass(frozen=True, slots=True)
class _Range:
    kind: str
    subtype: str
    quality: float
    place: int

    def precision(self, form: Form) -> int:
        """How closely it names ``form``: 0 not at all, 1 as anything, 2 by its kind, 3 exactly, by any label."""
        if f"{self.kind}/{self.subtype}" in form.labels:
            return 3
        if self.subtype != "*":
            return 0
        return 2 if form.media_type.startswith(f"{self.kind}/") else int(self.kind == "*")


def choose(accept: str | None) -> Form | None:
    """The best form for an ``Accept`` header, or None where the client takes none of them.

    For each form the most precise range counts. The higher quality wins; then the more precise range, then the client's
    order, then :data:`FORMS`'s. Ranges that are not well-formed are passed over; no header at all means anything.
    """
    ranges = list(_ranges(accept)) if accept and accept.strip() else [_Range("*", "*", 1.0, 0)]
    best, best_rank = None, (0.0, 0, 0)
    for form in FORMS:
        rank = _rank(form, ranges)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = form, rank
    return best


def _rank(form: Form, ranges: list[_Range]) -> tuple[float, int, int]:
    fitting = [(precision, item.quality, -item.place) for item in ranges if (precision := item.precision(form))]
    precision, quality, place = max(fitting, default=(0, 0.0, 0))
    return (quality, precision, place)


def _ranges(accept: str) -> Iterator[_Range]:
    for place, element in enumerate(accept.lower().split(",")):
        media_range, *parameters = (part.strip() for part in element.split(";"))
        match = _RANGE.fullmatch(media_range)
        named = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in parameters)}
        quality = named.get("q", "1")
        if match is not None and _QUALITY.fullmatch(quality):
            yield _Range(match["kind"], match["subtype"], float(quality), place)
