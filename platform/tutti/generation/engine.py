"""The engine: many requests at once through one model.

Requests join and leave between steps (:mod:`tutti.generation.session`), each with its own controls, limits, length and
random stream. The same request and seed give the same notes on the same machine, whatever else is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tutti.corpus.score import Score
from tutti.errors import InputError, IntegrityError, RecipeError
from tutti.features.vocabulary import EVENTS
from tutti.generation.choosing import chosen
from tutti.generation.composing import drained
from tutti.generation.controls import controls_of
from tutti.generation.form.composing import InSections
from tutti.generation.interpolating import interpolated
from tutti.generation.material import prepared
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.generation.session import Session
from tutti.models import bundle as bundles
from tutti.models import families
from tutti.models.bar_vae import BarVae
from tutti.models.precision import Precision
from tutti.models.reader import Reader

__all__ = ["CACHE_BYTES", "Engine", "Piece"]

CACHE_BYTES = 4 << 30
"""Memory of what rows have read, where nothing else is said."""


class Engine:
    """One model, ready to generate.

    Args:
        model: in evaluation mode, on its device; its weights are taken as they are now.
        digest: hash of the model's bundle.
        collections: source collections that it knows.
        facts: what is known of its making.
        context_tokens: how far back the model looks; it was trained on sequences of this length.
        max_batch: most requests that step together; one with guidance counts twice where memory is short.
        cache_bytes: memory for what rows have read; how many step together follows from it.
        precision: of products and of what is remembered; see :mod:`tutti.models.precision`.

    Raises:
        RecipeError: not even one row fits the memory.
    """

    def __init__(
        self,
        model: Reader,
        *,
        digest: str,
        collections: Sequence[str],
        facts: Mapping[str, Any],
        context_tokens: int,
        max_batch: int = 32,
        cache_bytes: int = CACHE_BYTES,
        precision: Precision = "auto",
    ) -> None:
        self._model, self._steps = model, model.steps(precision)
        row = self._steps.new_memory(room_rows=1, capacity_tokens=context_tokens)
        self._context_tokens = min(context_tokens, row.capacity_tokens)
        if row.size_bytes > cache_bytes:
            raise RecipeError(
                f"one row of this model reads into {row.size_bytes:,} bytes, and cache_bytes is {cache_bytes:,}",
                remedy="give it more memory",
            )
        self._max_batch = max_batch
        # A memory that grows as rows join has no size yet.
        self._room_rows = min(2 * max_batch, cache_bytes // row.size_bytes) if row.size_bytes else 2 * max_batch
        self._programs = tuple(int(program) for program in facts.get("data", {}).get("programs", range(129)))
        self._spare: list[Session] = []
        self._sparing = threading.Lock()
        self.digest = digest
        self.collections = tuple(collections)
        self.facts = facts

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_batch: int = 32,
        cache_bytes: int = CACHE_BYTES,
        precision: Precision = "auto",
    ) -> Engine:
        """An engine from a bundle folder.

        Raises:
            MissingError: a file of the bundle is not there.
            IntegrityError: it is damaged or speaks another vocabulary.
        """
        bundle = bundles.load(folder)
        if bundle.vocabulary != EVENTS.names:
            raise IntegrityError(f"model folder {folder} speaks another vocabulary than this version of Tutti")
        model = families.network_of(bundle.family, bundle.configuration, dropout=0.0)
        model.load_state_dict(dict(bundle.weights))
        engine = cls(
            cast(Reader, model.eval().to(device)),
            digest=bundle.digest(),
            collections=bundle.collections,
            facts=bundle.facts,
            context_tokens=int(bundle.facts.get("training", {}).get("sequence_tokens", 512)),
            max_batch=max_batch,
            cache_bytes=cache_bytes,
            precision=precision,
        )
        engine._try_a_step()
        return engine

    def _try_a_step(self) -> None:
        """What is compiled at its first call is compiled before somebody waits for it."""
        session = self.open()
        session.submit(Request(bars=1))
        session.step()

    @property
    def model(self) -> Reader:
        """The network itself."""
        return self._model

    def check(self, request: Request, material: Score | None = None) -> None:
        """Refuse a request that this model cannot take, or a file that it cannot start from, before anything runs.

        Raises:
            RecipeError: an unknown collection; a file that the request contradicts.
            InputError: a file without what the request needs of it.
        """
        controls_of(request, collections=self.collections)
        if request.form is not None and material is not None:
            raise RecipeError("a piece with a form starts from no file", remedy="leave out the form or the file")
        if request.start is not None and request.start.kind == "interpolate":
            if not isinstance(self._model, BarVae):
                raise InputError("this model has no latents", remedy="name a version of family bar_vae")
            if material is not None:
                interpolated(request, material, model=self._model, programs=self._programs)
        elif material is not None:
            prepared(request, material, collections=self.collections, programs=self._programs)

    def open(self) -> Session:
        """Requests under way, none yet, with memory of their own."""
        return Session(
            self._model,
            self._steps,
            collections=self.collections,
            programs=self._programs,
            context_tokens=self._context_tokens,
            max_batch=self._max_batch,
            room_rows=self._room_rows,
        )

    def generate(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        """One piece a request, in their order.

        Args:
            materials: music to continue, where a request has any; its length counts from the material's end.
            cancelled: asked between steps with a request's number; True gives that request up.

        Raises:
            RecipeError: a request that this model cannot take; nothing ran.
        """
        for request in requests:
            self.check(request)
        return chosen(self._made, requests, materials=materials, cancelled=cancelled)

    def _made(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None,
        cancelled: Callable[[int], bool] | None,
    ) -> list[Piece]:
        with self._sparing:
            session = self._spare.pop() if self._spare else self.open()
        composing = InSections(session)
        numbers = [
            composing.submit(request, material=material)
            for request, material in zip(requests, materials or [None] * len(requests), strict=True)
        ]
        pieces = drained(composing, numbers, cancelled=cancelled)
        # Only one whose requests are all over is used again: an error leaves it behind.
        with self._sparing:
            self._spare = [session]
        return pieces
