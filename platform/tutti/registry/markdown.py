"""Tables of Markdown, for cards and what is written below them."""

from __future__ import annotations

from collections.abc import Iterable


def table(rows: Iterable[tuple[str, ...]], *, head: tuple[str, ...] = ("", "")) -> str:
    """Rows of cells as Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
