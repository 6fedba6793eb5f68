"""The page of a corpus: what is in it, drawn, for people who decide what a model may learn from.

One file that fetches nothing: its own policy forbids it to. The same dataset gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tutti import pages
from tutti.dataset import overview_pictures as pictures
from tutti.dataset.overview import Overview
from tutti.dataset.scales import SCALES
from tutti.tables import REFUSAL_REASONS
from tutti.units import format_seconds

MOST_METERS, MOST_NAMES, MOST_IN_LINE = 6, 12, 3
"""Meters, then composers and tags, then licences of one collection, that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: how many, the share of all in per cent, the bar's length in per cent of the longest."""

    name: str
    count: int
    share: float
    length: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn measure: what it is called, in which unit, and its SVG."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True, slots=True)
class Figures:
    """A row of quartiles, as people read them."""

    title: str
    unit: str
    quartiles: tuple[str, ...]


def render(overview: Overview) -> bytes:
    """The page, UTF-8."""
    measured = {scale.column: overview.measures[scale.column] for scale in SCALES}
    drawn = [
        Picture(scale.title, scale.unit, pictures.histogram(measured[scale.column], scale=scale))
        for scale in SCALES
        if scale.edges
    ]
    figures = [
        Figures(scale.title, scale.unit, tuple(scale.write(value) for value in measured[scale.column].quartiles))
        for scale in SCALES
    ]
    families = {_words(name): works for name, works in overview.families.items()}
    return pages.render(
        "tutti.dataset",
        "overview_page.html.jinja",
        filters=(("short", _short),),
        corpus=overview,
        music=format_seconds(overview.length_s),
        time=format_seconds,
        reasons=REFUSAL_REASONS,
        keys=pictures.fifths(overview.keys),
        moods=pictures.mood_plane(overview.moods),
        pitches=pictures.pitches(overview.pitches),
        histograms=drawn,
        figures=[row for row in figures if row.quartiles],
        families=bars(_by_count(families), total=overview.works),
        meters=bars(overview.meters, total=overview.works, most_names=MOST_METERS),
        composers=bars(overview.composers, total=overview.works, most_names=MOST_NAMES),
        tags=bars(overview.tags, total=overview.works, most_names=MOST_NAMES),
        splits=bars(overview.splits, total=overview.works),
        refusals=bars({_words(row.reason): row.inputs for row in overview.refusals}, total=overview.refused),
    )


def bars(counts: Mapping[str, int], *, total: int, most_names: int | None = None) -> list[Bar]:
    """Rows of a bar chart, in the order given, without those of nothing.

    Args:
        counts: by name.
        total: what a share is a share of.
        most_names: after these the others follow in one row without a bar; None shows all.
    """
    held = [(name, count) for name, count in counts.items() if count]
    shown, rest = held[:most_names], held[most_names:] if most_names is not None else []
    most = max((count for _, count in shown), default=1)
    rows = [Bar(name, count, 100 * count / total, 100 * count / most) for name, count in shown]
    if rest:
        others = sum(count for _, count in rest)
        rows.append(Bar(f"{len(rest):,} others", others, 100 * others / total, 0.0))
    return rows


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(names: Iterable[str]) -> str:
    """A few names in one line."""
    names = list(names)
    more = f" and {len(names) - MOST_IN_LINE:,} more" if len(names) > MOST_IN_LINE else ""
    return ", ".join(names[:MOST_IN_LINE]) + more
