"""Rendering process: scores to MIDI, FLAC and WAV, away from the processes that speak HTTP and that compose."""

from __future__ import annotations

import asyncio

from tutti.corpus.score import Score
from tutti.render.formats import SUFFIXES


class Renderer:
    """One rendering process."""

    def __init__(self) -> None:
        # Imported here so that the first request does not pay for it.
        from tutti.render import export

        self._export = export

    async def render(self, score: Score, kind: str, title: str) -> bytes:
        """A score as a file of format ``kind``.

        Raises:
            InputError: a score without notes, or too long for sound.
        """
        finished = await asyncio.to_thread(self._export.finish, score, formats=(kind,), title=title)
        return finished.files[SUFFIXES[kind]]
