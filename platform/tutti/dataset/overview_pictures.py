"""Pictures of a corpus as SVG that takes its colours and letters from the page around it.

Each picture has a name for those who do not see it, and each of its parts says its figure when it is pointed at.
Coordinates are written with one decimal, so the same figures give the same bytes. All words in a picture are ours: no
text of a corpus is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from tutti.dataset import svg
from tutti.dataset.overview import Measure, Moods
from tutti.dataset.scales import Scale
from tutti.features.mood import NEUTRAL_RADIUS
from tutti.units import PITCH_CLASSES, pitch_name

_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 26, 28
_GAP = 1.5
# Half of the longest label of a median, which is to stay inside the picture.
_MEDIAN_REACH = 52

_FIFTHS = tuple(7 * step % 12 for step in range(12))
_RING_SIZE = 420
_MAJOR_RING, _MINOR_RING = (126.0, 180.0), (40.0, 88.0)
_MAJOR_NAMES, _MINOR_NAMES = 196.0, 107.0
_SLIT = math.radians(1.2)

_PLANE_SIZE = 420
# Dots of one layer do not add up where they overlap; those of several do, and show where many works are.
_LAYERS = 8


def histogram(measure: Measure, *, scale: Scale) -> str:
    """Works in the bars of a scale, with the median and the middle half marked."""
    frame = _Frame(len(scale.edges) + 1, most=max(measure.counts, default=0))
    band, line = [], []
    if measure.quartiles:
        low, middle, high = (frame.x(scale.position(value)) for value in measure.quartiles[1:4])
        beside = min(max(middle, _LEFT + _MEDIAN_REACH), _WIDTH - _MEDIAN_REACH)
        band = [svg.rectangle(low, _TOP, high - low, frame.bottom - _TOP, kind="half")]
        line = [
            svg.line(middle, _TOP, middle, frame.bottom, kind="median"),
            svg.label(beside, _TOP - 8, f"median {scale.write(measure.quartiles[2])}", kind="told"),
        ]
    bars = frame.bars(measure.counts, names=[scale.bar_name(bar) for bar in range(frame.size)], what="works")
    ticks = [
        svg.label(frame.x(scale.position(at)), frame.bottom + 18, scale.write(at).removesuffix(".0"))
        for at in scale.ticks
    ]
    return svg.picture(
        [*frame.grid(), *band, *bars, *line, *ticks],
        width=_WIDTH,
        height=_HEIGHT,
        name=_histogram_name(measure, scale=scale),
    )


def pitches(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """Notes of each MIDI pitch; the black keys' bars are darker."""
    low, high = 21, 109
    shown = counts[low:high].tolist()
    frame = _Frame(len(shown), most=max(shown, default=0))
    names = [pitch_name(pitch) for pitch in range(low, high)]
    kinds = ["black" if "#" in name or "b" in name else "white" for name in names]
    bars = frame.bars(shown, names=names, what="notes", kinds=kinds)
    ticks = [
        svg.label(frame.x(pitch - low + 0.5), frame.bottom + 18, pitch_name(pitch)) for pitch in range(24, high, 12)
    ]
    total = int(counts.sum())
    name = f"Notes by pitch from {names[0]} to {names[-1]}, {total:,} notes"
    if total:
        name += f"; the most frequent is {pitch_name(int(counts.argmax()))}"
    return svg.picture([*frame.grid(), *bars, *ticks], width=_WIDTH, height=_HEIGHT, name=name)


def fifths(keys: Mapping[str, int]) -> str:
    """Works by key on the circle of fifths: major outside, minor inside, relatives beside each other."""
    most, total = max(keys.values(), default=0), sum(keys.values())
    parts: list[str] = []
    for step, tonic in enumerate(_FIFTHS):
        minor_tonic = (tonic + 9) % 12
        middle = math.radians(30 * step)
        rings = (
            (f"{PITCH_CLASSES[tonic]} major", PITCH_CLASSES[tonic], _MAJOR_RING, _MAJOR_NAMES, "major"),
            (
                f"{PITCH_CLASSES[minor_tonic]} minor",
                f"{PITCH_CLASSES[minor_tonic]}m",
                _MINOR_RING,
                _MINOR_NAMES,
                "minor",
            ),
        )
        for key, short, (inner, outer), names, kind in rings:
            works = keys[key]
            reach = inner + (outer - inner) * works / most if most else inner
            parts += [
                f"<g><title>{key}: {_share(works, total)}</title>",
                _wedge(middle, inner, outer, kind="empty"),
                _wedge(middle, inner, reach, kind=kind) if works else "",
                "</g>",
                svg.label(*_polar(middle, names, drop=5), short, kind="key" if kind == "major" else "key soft"),
            ]
    ranked = sorted(keys.items(), key=lambda item: -item[1])[:3]
    told = ", ".join(f"{key} {_share(works, total)}" for key, works in ranked if works)
    return svg.picture(
        parts, width=_RING_SIZE, height=_RING_SIZE, name=f"Keys on the circle of fifths: {told or 'none'}"
    )


def mood_plane(moods: Moods) -> str:
    """Works by valence (left to right) and arousal (bottom to top), labels apart from estimates."""
    middle, reach = _PLANE_SIZE / 2, _PLANE_SIZE / 2 - 24
    total = sum(moods.quadrants.values())
    corners = (("happy", 1, -1), ("tense", -1, -1), ("sad", -1, 1), ("calm", 1, 1))
    parts = [svg.rectangle(24, 24, 2 * reach, 2 * reach, kind="plane")]
    parts += [
        svg.line(24, middle, _PLANE_SIZE - 24, middle, kind="axis"),
        svg.line(middle, 24, middle, _PLANE_SIZE - 24, kind="axis"),
        f'<circle class="neutral" cx="{middle:.1f}" cy="{middle:.1f}" r="{reach * NEUTRAL_RADIUS:.1f}"/>',
    ]
    at = np.clip(moods.points, -1, 1) * np.array([reach, -reach]) + middle
    for kind, chosen in (("estimate", ~moods.are_labels), ("label", moods.are_labels)):
        for layer in range(_LAYERS):
            dots = at[chosen][layer::_LAYERS].tolist()
            if dots:
                parts.append(f'<path class="dots {kind}" d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in dots)}"/>')
    for mood, side, level in corners:
        anchor = "end" if side > 0 else "start"
        x, y = middle + side * (reach - 10), middle + level * (reach - 10)
        share = _percent(moods.quadrants[mood], total)
        parts.append(svg.label(x, y + (14 if level < 0 else -16), mood, kind="mood", anchor=anchor))
        parts.append(svg.label(x, y + (32 if level < 0 else 2), share, kind="told", anchor=anchor))
    parts += [
        svg.label(14, middle, "arousal", turned=True),
        svg.label(middle, _PLANE_SIZE - 7, "valence"),
        *(svg.label(middle + side * reach, _PLANE_SIZE - 7, name) for side, name in ((-1, "−1"), (0.97, "1"))),
    ]
    told = ", ".join(f"{mood} {_percent(works, total)}" for mood, works in moods.quadrants.items())
    return svg.picture(
        parts, width=_PLANE_SIZE, height=_PLANE_SIZE, name=f"Mood plane, works by valence and arousal: {told}"
    )


class _Frame:
    """The field of a bar chart: ``size`` bars side by side, the tallest ``most`` high."""

    def __init__(self, size: int, *, most: int) -> None:
        self.size = size
        self.bottom = _HEIGHT - _BOTTOM
        self._step = (_WIDTH - _LEFT - _RIGHT) / size
        self._most = max(most, 1)

    def x(self, bars: float) -> float:
        """Where a position in bars from the left is drawn."""
        return _LEFT + bars * self._step

    def bars(
        self, counts: Iterable[int], *, names: Iterable[str], what: str, kinds: Iterable[str] | None = None
    ) -> list[str]:
        """A rectangle for each bar that holds something."""
        counts = list(counts)
        total = sum(counts)
        drawn = []
        for bar, (count, name, kind) in enumerate(zip(counts, names, kinds or [""] * len(counts), strict=True)):
            if count:
                height = max((self.bottom - _TOP) * count / self._most, 1.0)
                shape = svg.rectangle(
                    self.x(bar) + _GAP / 2, self.bottom - height, self._step - _GAP, height, kind=f"bar {kind}".strip()
                )
                drawn.append(f"<g><title>{name}: {_share(count, total, what=what)}</title>{shape}</g>")
        return drawn

    def grid(self) -> list[str]:
        """Level lines at round counts, the base line among them."""
        step = svg.round_step(self._most)
        drawn = []
        for count in range(0, self._most + 1, step):
            y = self.bottom - (self.bottom - _TOP) * count / self._most
            drawn.append(svg.line(_LEFT, y, _WIDTH - _RIGHT, y, kind="grid" if count else "base"))
            drawn.append(svg.label(_LEFT - 6, y + 4, svg.short_count(count), anchor="end"))
        return drawn


def _histogram_name(measure: Measure, *, scale: Scale) -> str:
    name = f"{scale.title} of {measure.works:,} works"
    if not measure.quartiles:
        return name
    low, middle, high = (scale.write(value) for value in measure.quartiles[1:4])
    return f"{name}: half lie between {low} and {high}, the median is {middle} {scale.unit}".rstrip()


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "–"


def _share(count: int, total: int, *, what: str = "works") -> str:
    return f"{count:,} {what} ({100 * count / total:.1f} %)" if total else f"{count:,} {what}"


def _polar(angle: float, radius: float, *, drop: float = 0.0) -> tuple[float, float]:
    """A point of the ring, angles clockwise from the top."""
    middle = _RING_SIZE / 2
    return middle + radius * math.sin(angle), middle - radius * math.cos(angle) + drop


def _wedge(middle: float, inner: float, outer: float, *, kind: str) -> str:
    half = math.pi / 12
    begin, end = middle - half + _SLIT, middle + half - _SLIT
    (ax, ay), (bx, by) = _polar(begin, outer), _polar(end, outer)
    (cx, cy), (dx, dy) = _polar(end, inner), _polar(begin, inner)
    return (
        f'<path class="{kind}" d="M{ax:.1f} {ay:.1f}A{outer:.1f} {outer:.1f} 0 0 1 {bx:.1f} {by:.1f}'
        f'L{cx:.1f} {cy:.1f}A{inner:.1f} {inner:.1f} 0 0 0 {dx:.1f} {dy:.1f}Z"/>'
    )
