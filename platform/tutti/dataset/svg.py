"""Pictures as SVG that takes its colours and letters from the page around it: the few shapes of which all are made.

Coordinates are written with one decimal, so the same figures give the same bytes. Text is written as it is given: who
draws words that are not ours escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable


def round_step(most: int) -> int:
    """Distance of two to five level lines: 1, 2 or 5 times a power of ten."""
    step: int = 10 ** max(0, len(str(most)) - 2)
    return next(step * factor for factor in (1, 2, 5, 10, 20, 50) if most // (step * factor) <= 4)


def short_count(count: int) -> str:
    """A count in few letters."""
    for limit, sign in ((10**6, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / (10**6 if sign == 'M' else 10**3):g}{sign}"
    return f"{count:,}"


def rectangle(x: float, y: float, width: float, height: float, *, kind: str) -> str:
    """A rectangle of a class of the page's style; never too narrow to be seen."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"/>'


def line(x: float, y: float, to_x: float, to_y: float, *, kind: str) -> str:
    """A straight line."""
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>'


def label(x: float, y: float, text: str, *, kind: str = "tick", anchor: str = "middle", turned: bool = False) -> str:
    """A word; ``turned`` reads upwards."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{text}</text>'


def picture(parts: Iterable[str], *, width: int, height: int, name: str) -> str:
    """The whole picture of ``width`` by ``height`` units, with a name for those who do not see it."""
    drawn = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{drawn}</svg>'
