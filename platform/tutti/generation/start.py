"""What a piece may start from: a file that is continued, filled in, accompanied, harmonised, varied or re-styled.

A request states the kind and its few figures; the music itself travels beside the request, as scores. ``works`` ties
the two: the identities of the scores' music enter the request's digest, and with it the identity of what is made.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tutti.config import Settings

Kind = Literal["continue", "infill", "accompany", "harmonise", "vary", "restyle", "interpolate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PLANTED: frozenset[Kind] = frozenset({"accompany", "harmonise", "vary", "restyle"})
"""Kinds that keep notes of the file at their places and compose around them."""
USUAL_DRAFTS, MAX_DRAFTS = 4, 16

_OF_KIND: dict[str, tuple[Kind, ...]] = {
    "bars": ("infill",),
    "melody": ("accompany", "harmonise", "restyle"),
    "strength": ("vary",),
    "weight": ("interpolate",),
    "drafts": ("infill", "accompany", "harmonise", "vary", "restyle"),
}
_BARS = re.compile(r"([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?")
_MELODY = re.compile(r"highest|all|track:\d{1,5}|program:\d{1,3}")


def _bars(value: str) -> str:
    match = _BARS.fullmatch(value)
    if match is None:
        raise ValueError("bars are written like 5-8, or 5 for one; they count from 1")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(f"bars {value} end before they begin")
    return value


def _melody(value: str) -> str:
    if _MELODY.fullmatch(value) is None:
        raise ValueError("a melody is named highest, all, track:1 (from 0) or program:73")
    if value.startswith("program:") and int(value.partition(":")[2]) > 127:
        raise ValueError(f"{value} plays no melody: programs are 0 to 127")
    return value


class Start(Settings):
    """What the piece starts from; the music itself comes beside the request."""

    kind: Kind = Field(
        description="continue (new bars after the file), infill (bars a to b anew), accompany (melody kept, anything "
        "around it), harmonise (melody kept, voices beneath), vary (a share of the notes kept), restyle (melody kept, "
        "manner changed), interpolate (between two files; bar_vae)"
    )
    bars: Annotated[str, AfterValidator(_bars)] | None = Field(
        default=None, description="infill: bars to compose anew, such as 5-8, counted from 1, both included"
    )
    melody: Annotated[str, AfterValidator(_melody)] | None = Field(
        default=None,
        description="accompany, harmonise, restyle: highest (the highest note at each onset), all, track:N (from 0) or "
        "program:N; left out: the highest-lying track that sings one note at a time, else highest",
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, description="vary: share of the notes that is composed anew; 0.5 where left out"
    )
    weight: float | None = Field(
        default=None, ge=0, le=1, description="interpolate: 0 the first file, 1 the second; 0.5 where left out"
    )
    drafts: int | None = Field(
        default=None,
        ge=1,
        le=MAX_DRAFTS,
        description=f"drafts, of which the one is taken that fits what is kept best; {USUAL_DRAFTS} where left out",
    )
    works: tuple[str, ...] = Field(
        default=(), max_length=2, description="identities of the files' music, set by whoever reads them"
    )

    @model_validator(mode="after")
    def _fits_kind(self) -> Start:
        for name, kinds in _OF_KIND.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"{name} is for {', '.join(kinds)}, not for {self.kind}")
        if self.kind == "infill" and self.bars is None:
            raise ValueError("infill needs bars, such as 5-8")
        return self

    @model_serializer(mode="wrap")
    def _stated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}

    @property
    def span(self) -> tuple[int, int]:
        """First and last bar to fill in, from 0, both included."""
        match = _BARS.fullmatch(self.bars or "")
        if match is None:
            raise ValueError(f"{self.kind} has no bars")
        return int(match[1]) - 1, int(match[2] or match[1]) - 1

    @property
    def share_anew(self) -> float:
        """Of the notes of a variation."""
        return 0.5 if self.strength is None else self.strength

    @property
    def share_of_second(self) -> float:
        """Of the second file in an interpolation."""
        return 0.5 if self.weight is None else self.weight

    @property
    def whole(self) -> bool:
        """Whether notes are known only when all are there."""
        return self.kind in _OF_KIND["drafts"]

    @property
    def num_drafts(self) -> int:
        """How many drafts are made; a kind that keeps nothing to be held against makes one."""
        if self.kind not in _OF_KIND["drafts"]:
            return 1
        return USUAL_DRAFTS if self.drafts is None else self.drafts
