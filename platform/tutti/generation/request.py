"""What one piece must be: the request that the command line, an order and the service all speak."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tutti.config import Settings, digest_of
from tutti.errors import RecipeError
from tutti.features.vocabulary import DENSITIES, INSTRUMENTS, METERS, MOODS
from tutti.generation.start import Start
from tutti.units import Key, check_tempo_qpm, parse_key, parse_length_s

MAX_BARS = 512
MOST_CANDIDATES = 64


def _one_line(check: object, value: object) -> object:
    try:
        return check(value)  # type: ignore[operator]
    except RecipeError as error:
        raise ValueError(str(error)) from None


def _length_s(value: str | float) -> float:
    return _one_line(parse_length_s, value)  # type: ignore[return-value]


def _tempo_qpm(value: float) -> float:
    return _one_line(check_tempo_qpm, value)  # type: ignore[return-value]


def _key(value: str) -> str:
    return str(_one_line(parse_key, value))


def _member(name: str, members: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in members:
            raise ValueError(f"{name} is one of {', '.join(members)}")
        return value

    return AfterValidator(check)


def _meter(value: str) -> str:
    if value not in {f"{above}/{below}" for above, below in METERS}:
        raise ValueError("a meter is written like 4/4, 3/4 or 6/8 and has at most 8 quarters")
    return value


class Request(Settings):
    """Controls of one piece; what is left out is the model's to choose.

    Length, tempo, meter, key and instruments hold always, by construction; mood, density and collection steer, the
    more the higher ``guidance`` is.
    """

    length: Annotated[float | str, AfterValidator(_length_s)] = Field(
        default=30.0, description="length: seconds, or a text such as '30s' or '1m30s'; 1 s to 600 s"
    )
    bars: int | None = Field(default=None, ge=1, le=MAX_BARS, description="length in bars, instead of seconds")
    tempo: Annotated[float, AfterValidator(_tempo_qpm)] | None = Field(
        default=None, description="quarter notes a minute, 20 to 300"
    )
    key: Annotated[str, AfterValidator(_key)] | None = Field(default=None, description="tonality, such as 'D minor'")
    meter: Annotated[str, AfterValidator(_meter)] | None = Field(default=None, description="meter, such as '3/4'")
    instruments: tuple[Annotated[str, _member("an instrument", INSTRUMENTS)], ...] = Field(
        default=(), description="General MIDI families that may play; empty: any"
    )
    density: Annotated[str, _member("density", DENSITIES)] | None = Field(
        default=None, description="how many notes a quarter: very_sparse to very_dense"
    )
    mood: Annotated[str, _member("mood", MOODS)] | None = Field(
        default=None, description="happy, tense, sad, calm or neutral"
    )
    collection: str | None = Field(default=None, description="name of a source collection whose manner to follow")
    guidance: float = Field(
        default=1.0, ge=0, le=10,
        description="how strongly density, mood and collection lead: 1 as learnt, 3 clearly, 0 not at all; no unit",
    )  # fmt: skip
    temperature: float = Field(default=1.0, gt=0, le=2, description="sampling temperature, no unit")
    top_p: float = Field(default=0.95, gt=0, le=1, description="probability mass that sampling keeps, no unit")
    start: Start | None = Field(
        default=None, description="what the piece starts from, a file; the length counts from its end or is its own"
    )
    best_of: int = Field(
        default=1, ge=1, le=MOST_CANDIDATES,
        description="how many pieces are made, of which the best by measures is kept; each costs as much as one",
    )  # fmt: skip
    seed: int = Field(default=0, ge=0, lt=2**63, description="root of the piece's random stream")

    @model_validator(mode="after")
    def _instruments_once(self) -> Request:
        if len(set(self.instruments)) != len(self.instruments):
            raise ValueError("an instrument is named twice")
        return self

    @model_serializer(mode="wrap")
    def _stated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What came later enters where it is asked, so that orders and takes keep their identities.
        values: dict[str, Any] = dump(self)
        if values.get("start") is None:
            values.pop("start", None)
        return values

    def digest(self) -> str:
        """Hash of every resolved value; a control that came later enters where it is asked, so that takes keep
        theirs."""
        values = self.model_dump(mode="json")
        if self.guidance == 1:
            del values["guidance"]
        if self.best_of == 1:
            del values["best_of"]
        return digest_of(values)

    @property
    def chooses(self) -> bool:
        """Whether the piece is one of several, so that none of its notes is known before all are there."""
        return self.best_of > 1 or (self.start is not None and self.start.num_drafts > 1)

    @property
    def length_s(self) -> float:
        """The asked length in seconds; without meaning where :attr:`bars` is given."""
        return float(self.length)

    @property
    def tonality(self) -> Key | None:
        """The asked key."""
        return None if self.key is None else parse_key(self.key)
