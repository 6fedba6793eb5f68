"""White paper for the pictures of a piece: boxes, lines and words in pixels, as PNG.

A catalogue draws two pictures a take: matplotlib takes 100 to 300 ms for one, this about 15. The look is that of
:mod:`tutti.training.style`, whose font it borrows from matplotlib's files without importing it.
"""

from __future__ import annotations

import importlib.util
import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tutti.errors import MissingError

INK, QUIET_INK, GRID, SHADE = "#222222", "#6b6b6b", "#d9d9d9", "#f5f5f5"
# Paul Tol's muted scheme (SRON/EPS/TN/09-002, 2021), strongest on white first.
COLOURS = ("#332288", "#cc6677", "#117733", "#aa4499", "#999933", "#882255", "#44aa99", "#88ccee", "#ddcc77")

Colour = str | tuple[int, int, int]

_LONGEST_TITLE = 90
_MARGIN = 60
_TITLE_TOP, _FACTS_TOP = 36, 67
_NO_CHARACTER = "\uffff"
_COMPRESSION = 5


class Canvas:
    """A picture in the making; ``x`` to the right and ``y`` down, in pixels."""

    def __init__(self, width: int, height: int, *, title: str, facts: str = "") -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._image)
        self.words(_MARGIN, _TITLE_TOP, _shortened(title), size=22, bold=True)
        self.words(_MARGIN, _FACTS_TOP, facts, size=15, colour=QUIET_INK)

    def words(
        self, x: float, y: float, text: str, *, size: int, colour: Colour = INK, anchor: str = "lm", bold: bool = False
    ) -> float:
        """Write one line; gives where it ends.

        Args:
            anchor: what of it lies at ``x`` and ``y``: left, middle or right; ascender, middle or baseline.
        """
        font = _font(size, bold)
        shown = _drawable(text, font)
        self._draw.text((x, y), shown, font=font, fill=colour, anchor=anchor)
        return x + float(font.getlength(shown))

    def boxes(self, boxes: Iterable[tuple[float, float, float, float]], colours: Iterable[Colour]) -> None:
        """Fill boxes of left, top, right and bottom, a colour each; none is thinner than a pixel."""
        for (left, top, right, bottom), colour in zip(boxes, colours, strict=True):
            corner = (max(round(right) - 1, round(left)), max(round(bottom) - 1, round(top)))
            self._draw.rectangle(((round(left), round(top)), corner), fill=colour)

    def line(self, start: tuple[float, float], end: tuple[float, float], *, colour: Colour = GRID) -> None:
        """A line of one pixel."""
        self._draw.line((start, end), fill=colour)

    def frame(self, left: float, top: float, right: float, bottom: float) -> None:
        """The outline of a box."""
        self._draw.rectangle((left, top, right, bottom), outline=GRID)

    def png(self) -> bytes:
        """The picture: no date, no name of a program."""
        rows = self._image.tobytes()
        stride = self.width * 3
        lines = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, _COMPRESSION)), (b"IEND", b""))
        packed = (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tint(colour: str, strength: float) -> tuple[int, int, int]:
    """A colour towards white: all of it at 1."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    red, green, blue = (round(255 - strength * (255 - part)) for part in parts)
    return red, green, blue


def stride(count: int, most: int) -> int:
    """Smallest power of two that thins ``count`` to at most ``most``."""
    step = 1
    while count > most * step:
        step *= 2
    return step


def clock(seconds: float) -> str:
    """A time for an axis."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@lru_cache(maxsize=16)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    package = importlib.util.find_spec("matplotlib")
    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    path = Path(package.origin).parent / "mpl-data/fonts/ttf" / name if package and package.origin else Path(name)
    if not path.is_file():
        raise MissingError(f"the font {name} of matplotlib is not there", remedy="pip install matplotlib")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _is_known(character: str, font: ImageFont.FreeTypeFont) -> bool:
    return character.isascii() or bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))


def _drawable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Text on one line, a question mark where the font lacks a character."""
    return "".join(character if _is_known(character, font) else "?" for character in " ".join(text.split()))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1] + "…"
