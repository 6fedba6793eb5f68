"""The measures by which a corpus is looked at: which column, in which unit, in which bars.

The bars are the same for every corpus, so that the pictures of two can be laid side by side. The first and the last are
open: every work is in exactly one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.units import format_seconds


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(np.round(np.arange(first, last + step / 2, step), 6).tolist())


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def _time(value: float) -> str:
    text = format_seconds(value)
    return text.removesuffix("00s") if text.endswith("m00s") else text


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@dataclass(frozen=True, slots=True)
class Scale:
    """How one column is shown.

    Args:
        column: of the ``works`` table.
        title: what it measures, for people.
        unit: of the figures, where the figure does not say it.
        write: a value as people read it.
        edges: between the bars of its picture, rising; none where it is shown in figures alone.
        ticks: values that are written under the picture.
        pitched: whether a work of drums alone has no such measure.
    """

    column: str
    title: str
    unit: str
    write: Callable[[float], str]
    edges: tuple[float, ...] = ()
    ticks: tuple[float, ...] = ()
    pitched: bool = False

    def counts(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Values in each bar; shape (edges + 1,). A value on an edge is in the bar above it."""
        return np.bincount(np.searchsorted(self.edges, values, side="right"), minlength=len(self.edges) + 1)

    def bar_name(self, bar: int) -> str:
        """What a bar holds, for people."""
        if bar == 0:
            return f"below {self.write(self.edges[0])}"
        if bar == len(self.edges):
            return f"{self.write(self.edges[-1])} and more"
        return f"{self.write(self.edges[bar - 1])} to {self.write(self.edges[bar])}"

    def position(self, value: float) -> float:
        """Where a value stands among the bars, in bars from the left; 0 to edges + 1."""
        inner = float(np.interp(value, self.edges, np.arange(1, len(self.edges) + 1)))
        if value < self.edges[0]:
            return 0.5
        return inner if value < self.edges[-1] else len(self.edges) + (0.5 if value > self.edges[-1] else 0.0)


SCALES: tuple[Scale, ...] = (
    Scale(
        "tempo_mean_qpm", "Tempo", "quarters per minute", _whole,
        edges=_steps(40, 200, 8), ticks=(40, 80, 120, 160, 200),
    ),
    Scale(
        "length_s", "Length", "", _time,
        edges=tuple(60 * 2 ** (half / 2) for half in range(-10, 11)), ticks=(15, 60, 240, 960),
    ),
    Scale(
        "notes", "Notes", "", _whole,
        edges=tuple(10 ** (fifth / 5) for fifth in range(4, 21)), ticks=(10, 100, 1000, 10_000),
    ),
    Scale("bars", "Bars", "", _whole),
    Scale(
        "notes_per_quarter", "Density", "notes per quarter", _tenths,
        edges=_steps(0.5, 12, 0.5), ticks=(2, 4, 6, 8, 10),
    ),
    Scale("polyphony", "Polyphony", "notes at once", _tenths, edges=_steps(1.5, 8, 0.5), ticks=(2, 3, 4, 5, 6, 7, 8)),
    Scale(
        "scale_consistency", "Scale consistency", "", _hundredths,
        edges=_steps(0.6, 0.98, 0.02), ticks=(0.6, 0.7, 0.8, 0.9), pitched=True,
    ),
    Scale(
        "groove_consistency", "Groove consistency", "", _hundredths,
        edges=_steps(0.8, 0.99, 0.01), ticks=(0.8, 0.85, 0.9, 0.95),
    ),
    Scale("key_confidence", "Key confidence", "", _hundredths, pitched=True),
    Scale("pitch_entropy", "Pitch entropy", "bits", _tenths, pitched=True),
    Scale("pitch_class_entropy", "Pitch class entropy", "bits", _tenths, pitched=True),
    Scale("empty_bars_share", "Empty bars", "", _percent),
)  # fmt: skip
