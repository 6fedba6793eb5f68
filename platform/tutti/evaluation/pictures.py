"""Pictures of an evaluation as SVG in the page's colours: distributions side by side, matrices, distances.

Legend: W pieces, K kinds, B bars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from tutti.dataset import svg
from tutti.evaluation.comparison import HELD_OUT, TAKES, TRAIN, Row

Figures = NDArray[np.float64]

NAMES = {TAKES: "takes", HELD_OUT: "works held out", TRAIN: "works of the training"}

_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM, _BOTTOM_TURNED = 44, 10, 14, 28, 52
_BINS = 12
_LEVELS = 8
_MOST_CELLS = 96
_APART_WIDTH, _APART_HEIGHT, _MOST_APART = 190, 22, 4.0


def histograms(figures: Mapping[str, Figures], *, title: str) -> str:
    """How one figure is spread over takes and works held out: shares of the pieces that have it, side by side."""
    known = {name: values[np.isfinite(values)] for name, values in figures.items() if name in (TAKES, HELD_OUT)}
    joined = np.concatenate(list(known.values()))
    if not len(joined):
        return svg.picture([], width=_WIDTH, height=_HEIGHT, name=f"{title}: no piece has it")
    edges = _edges(joined)
    shares = {name: np.histogram(values, edges)[0] / max(len(values), 1) for name, values in known.items()}
    names = [f"{_figure(low)} to {_figure(high)}" for low, high in pairwise(edges.tolist())]
    ticks = {place: _figure(float(edges[place])) for place in range(0, len(edges), max(len(edges) // 4, 1))}
    told = ", ".join(f"{NAMES[name]} {_figure(float(values.mean()))} on average" for name, values in known.items()
                     if len(values))  # fmt: skip
    return _bars(shares, names=names, ticks=ticks, on_edges=True, name=f"{title}: {told}")


def kinds(figures: Mapping[str, Figures], *, names: Sequence[str], title: str, turned: bool = False) -> str:
    """Mean shares of K kinds in takes and works held out, side by side; ``figures`` of shape (W, K)."""
    shares = {}
    for name in (TAKES, HELD_OUT):
        known = figures[name][np.isfinite(figures[name]).all(axis=1)]
        shares[name] = known.mean(axis=0) if len(known) else np.zeros(len(names))
    return _bars(shares, names=names, ticks=dict(enumerate(names)), on_edges=False, turned=turned, name=title)


def transitions(figures: Figures, *, names: Sequence[str], of: str, title: str) -> str:
    """How often each of K kinds follows each, mean over pieces: rows are what was, columns what follows."""
    known = figures[np.isfinite(figures).all(axis=(1, 2))]
    mean_KK = known.mean(axis=0) if len(known) else np.zeros(figures.shape[1:])
    # The root shows what is rare beside what is common.
    most = math.sqrt(float(mean_KK.max())) or 1.0
    shown = np.sqrt(mean_KK) / most
    size, margin = 16, 58
    width = margin + size * len(names)
    labels = []
    for place, kind in enumerate(names):
        middle = margin + size * (place + 0.5)
        labels.append(svg.label(margin - 6, middle + 4, kind, anchor="end"))
        labels.append(svg.label(middle + 4, margin - 6, kind, anchor="start", turned=True))
    cells = f'<g transform="translate({margin} {margin}) scale({size})">{"".join(_cells(shown, of=of))}</g>'
    return svg.picture([*labels, cells], width=width, height=width, name=title)


def similarity(alike_BB: Figures, *, of: str, title: str) -> str:
    """Which bars of a piece resemble which; time runs to the right and down."""
    shown = _coarse(alike_BB)
    size = max(len(shown), 1)
    frame = f'<rect class="empty" x="0" y="0" width="{size}" height="{size}"/>'
    return svg.picture([frame, *_cells(shown, of=of)], width=size, height=size, name=title)


def apart(row: Row) -> str | None:
    """How far takes, and works of the training, are from works held out, in the latter's standard deviations."""
    if row.apart is None:
        return None
    held_out, train = row.cells[HELD_OUT], row.cells[TRAIN]
    middle, y = _APART_WIDTH / 2, _APART_HEIGHT / 2
    scale = (middle - 8) / _MOST_APART

    def x(distance: float) -> float:
        return middle + scale * min(max(distance, -_MOST_APART), _MOST_APART)

    parts = [
        svg.line(x(-_MOST_APART), y, x(_MOST_APART), y, kind="grid"),
        svg.rectangle(x(-1), 3, x(1) - x(-1), _APART_HEIGHT - 6, kind="band"),
        svg.line(middle, 3, middle, _APART_HEIGHT - 3, kind="middle"),
    ]
    if train.value is not None and held_out.value is not None and held_out.spread:
        at = x((train.value - held_out.value) / held_out.spread)
        parts.append(svg.line(at, 4, at, _APART_HEIGHT - 4, kind="train"))
    at = x(row.apart)
    if abs(row.apart) > _MOST_APART:
        side = math.copysign(7, row.apart)
        parts.append(f'<path class="takes" d="M{at - side:.1f} {y - 5:.1f}L{at + side / 2:.1f} {y:.1f}L{at - side:.1f} '
                     f'{y + 5:.1f}Z"/>')  # fmt: skip
    else:
        parts.append(f'<circle class="takes" cx="{at:.1f}" cy="{y:.1f}" r="5"/>')
    name = f"takes are {row.apart:+.1f} standard deviations from works held out"
    return svg.picture(parts, width=_APART_WIDTH, height=_APART_HEIGHT, name=name)


def _bars(
    shares: Mapping[str, Figures],
    *,
    names: Sequence[str],
    ticks: Mapping[int, str],
    on_edges: bool,
    turned: bool = False,
    name: str,
) -> str:
    """Shares of each kind in each set as neighbouring bars."""
    bottom, room = _HEIGHT - (_BOTTOM_TURNED if turned else _BOTTOM), _WIDTH - _LEFT - _RIGHT
    step = room / len(names)
    most = max(float(max(values.max() for values in shares.values())), 1e-9)
    parts = []
    grid = svg.round_step(max(math.ceil(100 * most), 1))
    for percent in range(0, math.ceil(100 * most) + 1, grid):
        y = bottom - (bottom - _TOP) * percent / (100 * most)
        if y >= _TOP - 1:
            parts.append(svg.line(_LEFT, y, _WIDTH - _RIGHT, y, kind="grid" if percent else "base"))
            parts.append(svg.label(_LEFT - 6, y + 4, f"{percent} %", anchor="end"))
    width = (step - 3) / len(shares)
    for place, (of, values) in enumerate(shares.items()):
        for bar, share in enumerate(values.tolist()):
            if share > 0:
                height = max((bottom - _TOP) * share / most, 1.0)
                left = _LEFT + bar * step + 1.5 + place * width
                shape = svg.rectangle(left, bottom - height, width, height, kind=_class(of))
                parts.append(f"<g><title>{names[bar]}: {100 * share:.1f} % of {NAMES[of]}</title>{shape}</g>")
    for bar, text in ticks.items():
        at = _LEFT + (bar if on_edges else bar + 0.5) * step
        if turned:
            parts.append(svg.label(at + 4, bottom + 8, text, anchor="end", turned=True))
        else:
            parts.append(svg.label(at, bottom + 18, text, anchor="end" if at > _WIDTH - _RIGHT - 1 else "middle"))
    return svg.picture(parts, width=_WIDTH, height=_HEIGHT, name=name)


def _cells(shown: Figures, *, of: str) -> list[str]:
    """A square for each cell, darker where there is more; neighbours of one level are one stroke. Values 0 to 1."""
    level = np.ceil(np.clip(shown, 0, 1) * _LEVELS).astype(int)
    paths: dict[int, list[str]] = {}
    for row, values in enumerate(level.tolist()):
        column = 0
        for value, run in groupby(values):
            length = len(list(run))
            if value:
                paths.setdefault(value, []).append(f"M{column} {row + 0.5}h{length}")
            column += length
    return [
        f'<path class="cell {_class(of)}" stroke-opacity="{value / _LEVELS:g}" d="{"".join(paths[value])}"/>'
        for value in sorted(paths)
    ]


def _coarse(matrix_BB: Figures) -> Figures:
    """The matrix in at most so many rows that each can be seen: means of neighbours."""
    together = -(-len(matrix_BB) // _MOST_CELLS)
    if together <= 1:
        return matrix_BB
    spare = -len(matrix_BB) % together
    padded = np.pad(matrix_BB, (0, spare))
    size = len(padded) // together
    return np.asarray(padded.reshape(size, together, size, together).mean(axis=(1, 3)))


def _edges(values: Figures) -> Figures:
    """Edges of bins over all values, at round numbers."""
    low, high = float(values.min()), float(values.max())
    width = (high - low) / _BINS
    if not width:
        return np.array([low - 0.5, low + 0.5])
    power = 10.0 ** math.floor(math.log10(width))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= width)
    first = math.floor(low / step)
    return np.asarray(step * np.arange(first, math.floor(high / step) + 2), dtype=np.float64)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _class(of: str) -> str:
    return of.replace("_", "-")
