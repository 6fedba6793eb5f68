"""One look for every picture: dark ink on white, thin grid, colours that colour-blind readers tell apart.

Only matplotlib's object interface is used, so nothing global changes and threads may draw side by side. Colours are
Paul Tol's muted scheme (SRON/EPS/TN/09-002, 2021), strongest on white first.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

INK, QUIET_INK, GRID, SHADE = "#222222", "#6b6b6b", "#d9d9d9", "#f5f5f5"
COLOURS = ("#332288", "#cc6677", "#117733", "#aa4499", "#999933", "#882255", "#44aa99", "#88ccee", "#ddcc77")

DOTS_PER_INCH = 120
_FONT = "DejaVu Sans"
_LONGEST_TITLE = 90


def new_figure(width_in: float, height_in: float, *, title: str, facts: str = "") -> Figure:
    """A white figure with its title at the top left and quiet facts under it."""
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    left, line = 0.5 / width_in, 0.3 / height_in
    words(figure, left, 1 - line, _shortened(title), size=13, weight="bold", va="center")
    words(figure, left, 1 - 1.85 * line, facts, size=9, color=QUIET_INK, va="center")
    return figure


def add_axes(figure: Figure, *, left_in: float, bottom_in: float, right_in: float, top_in: float) -> Any:
    """Axes by their distances from the figure's edges, with a quiet frame."""
    width_in, height_in = figure.get_size_inches()
    axes = figure.add_axes(
        (
            left_in / width_in,
            bottom_in / height_in,
            1 - (left_in + right_in) / width_in,
            1 - (bottom_in + top_in) / height_in,
        )
    )
    axes.tick_params(colors=QUIET_INK, labelsize=8.5, length=3, labelfontfamily=_FONT)
    for side in axes.spines.values():
        side.set_color(GRID)
    axes.set_axisbelow(True)
    return axes


def words(place: Any, x: float, y: float, text: str, **looks: Any) -> Any:
    """Text as it is: no mathematics between dollar signs, a question mark where the font lacks a character."""
    looks = {"color": INK, "fontfamily": _FONT, **looks}
    return place.text(x, y, _drawable(text), parse_math=False, **looks)


def _drawable(text: str) -> str:
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    return "".join(character if ord(character) in known else "?" for character in " ".join(text.split()))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1] + "…"


def to_png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure: no date, no version."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
