"""What one piece must be: the request that the command line, an order and the service all speak."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tutti.config import Settings, digest_of
from tutti.errors import RecipeError
from tutti.features.mood import mood_word
from tutti.features.vocabulary import DENSITIES, INSTRUMENTS, METERS, MOODS
from tutti.generation import contradictions
from tutti.generation.chords import Progression, parse_chords
from tutti.generation.form.text import USUAL_FORM_LENGTH_S, bars_of_form, parse_form
from tutti.generation.length import USUAL_LENGTH_S, rounds_of_length, seconds_of_bar
from tutti.generation.scales import Scale, parse_scale
from tutti.generation.start import Start
from tutti.units import (
    Key,
    PitchRange,
    check_tempo_qpm,
    parse_key,
    parse_length_s,
    parse_pitch_range,
)

MAX_BARS = 512
MOST_CANDIDATES = 64
MOST_VOICES = 24
"""Notes that may sound at once where polyphony is asked, and begin at once always."""
USUAL_METER = (4, 4)
"""Of chords whose meter was not asked."""

_LATER = ("pitch_range", "polyphony", "scale", "chords", "start", "valence", "arousal", "difficulty", "form")
"""What came later enters where it is asked, so that orders and takes keep their identities."""
_EVERY_PITCH = PitchRange(0, 127)
PERCUSSION = INSTRUMENTS[-1]
_EVERY_CLASS = frozenset(range(12))
_progression = lru_cache(maxsize=256)(parse_chords)


def _one_line(check: object, value: object) -> object:
    try:
        return check(value)  # type: ignore[operator]
    except RecipeError as error:
        raise ValueError(str(error)) from None


def _length_s(value: str | float | None) -> float | None:
    return None if value is None else _one_line(parse_length_s, value)  # type: ignore[return-value]


def _usual_length(given: dict[str, Any]) -> float | None:
    """Chords have a length of their own, and so has a form that says its bars."""
    form = given.get("form")
    if given.get("chords") is not None or bars_of_form(form) is not None:
        return None
    return USUAL_LENGTH_S if form is None else USUAL_FORM_LENGTH_S


def _tempo_qpm(value: float) -> float:
    return _one_line(check_tempo_qpm, value)  # type: ignore[return-value]


def _key(value: str) -> str:
    return str(_one_line(parse_key, value))


def _one_range(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) == 2:
        value = f"{value[0]}-{value[1]}"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no pitch range: write it like C3-C6 or [48, 84]")
    return str(_one_line(parse_pitch_range, value))


def _pitch_range(value: Any) -> Any:
    """One range for all, or that of each instrument in the vocabulary's order."""
    if value is None or not isinstance(value, Mapping):
        return None if value is None else _one_range(value)
    if not value:
        raise ValueError("pitch ranges by instrument name at least one")
    if PERCUSSION in value:
        raise ValueError(f"{PERCUSSION} have no pitch range")
    for name in value:
        if name not in INSTRUMENTS:
            raise ValueError(f"{name!r} is no instrument: name {', '.join(INSTRUMENTS[:-1])}")
    return {name: _one_range(value[name]) for name in INSTRUMENTS if name in value}


def _scale(value: str) -> str:
    return str(_one_line(parse_scale, value))


def _chords(value: str) -> str:
    _one_line(_progression, value)
    return " ".join(value.split(" "))


def _form(value: str) -> str:
    return str(_one_line(parse_form, value))


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

    Length, tempo, meter, key, scale, instruments, pitch range, polyphony and chords hold always, by construction;
    mood, density and collection steer, the more the higher ``guidance`` is. Controls that contradict each other are
    refused (:mod:`tutti.generation.contradictions`). What no control names is percussion's own: key, scale, pitch range
    and chords do not bind it, polyphony counts it.
    """

    chords: Annotated[str, AfterValidator(_chords)] | None = Field(
        default=None,
        description="chord progression such as 'Cm7 F7 | Bbmaj7 | %': its bars are the piece's length, repeated where "
        "bars or length ask for more",
    )
    form: Annotated[str, AfterValidator(_form)] | None = Field(
        default=None,
        description='sections and their returns, such as "A A B A\'" (a prime: varied; A:16: its bars), or auto, '
        "binary, ternary, song, arch, rondo, verse-chorus, theme and variations, sonata, through-composed",
    )
    length: Annotated[float | str | None, AfterValidator(_length_s)] = Field(
        default_factory=_usual_length,
        description="length: seconds, or a text such as '30s' or '1m30s'; 1 s to 600 s; by default 30 s, or that of "
        "the chords; with a form 3 minutes",
        json_schema_extra={"default": USUAL_LENGTH_S},
    )
    bars: int | None = Field(default=None, ge=1, le=MAX_BARS, description="length in bars, instead of seconds")
    tempo: Annotated[float, AfterValidator(_tempo_qpm)] | None = Field(
        default=None, description="quarter notes a minute, 20 to 300"
    )
    key: Annotated[str, AfterValidator(_key)] | None = Field(default=None, description="tonality, such as 'D minor'")
    scale: Annotated[str, AfterValidator(_scale)] | None = Field(
        default=None, description="scale, such as 'C major pentatonic', 'A blues', 'D dorian' or 'C gong'"
    )
    pitch_range: Annotated[str | dict[str, str] | None, BeforeValidator(_pitch_range)] = Field(
        default=None,
        description="lowest and highest pitch, such as 'C3-C6' or '48-84'; or by instrument, such as "
        "{bass: E1-G3, piano: C4-C6}, the others being free; percussion has its own",
    )
    polyphony: int | None = Field(
        default=None, ge=1, le=MOST_VOICES, description="most notes that sound at once; 1: a single line"
    )
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
    valence: float | None = Field(
        default=None, ge=-1, le=1, description="instead of a mood: sad -1 to happy 1; left out beside arousal: 0"
    )
    arousal: float | None = Field(
        default=None, ge=-1, le=1, description="instead of a mood: calm -1 to excited 1; left out beside valence: 0"
    )
    difficulty: Literal["easy", "medium", "hard"] | None = Field(
        default=None,
        description="how hard to play: sets tempo, density, polyphony and pitch range where they are left open",
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

    @model_validator(mode="after")
    def _no_contradictions(self) -> Request:
        contradictions.refuse(self)
        return self

    @model_serializer(mode="wrap")
    def _stated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = dict.fromkeys(_LATER) | {"best_of": 1}
        return {name: value for name, value in dump(self).items() if name not in later or value != later[name]}

    def digest(self) -> str:
        """Hash of every resolved value; a control that came later enters where it is asked, so that takes keep
        theirs."""
        values = self.model_dump(mode="json")
        if self.guidance == 1:
            del values["guidance"]
        return digest_of(values)

    @property
    def chooses(self) -> bool:
        """Whether none of its notes is known before all are there: it is one of several, or has a form."""
        return self.best_of > 1 or self.form is not None or (self.start is not None and self.start.whole)

    @property
    def length_s(self) -> float:
        """The asked length in seconds; without meaning where :attr:`bars` or :attr:`chords` alone are given."""
        return USUAL_LENGTH_S if self.length is None else float(self.length)

    @property
    def feeling(self) -> str | None:
        """The asked mood, or that of the asked valence and arousal."""
        if self.valence is None and self.arousal is None:
            return self.mood
        return mood_word(self.valence or 0.0, self.arousal or 0.0)

    @property
    def tonality(self) -> Key | None:
        """The asked key."""
        return None if self.key is None else parse_key(self.key)

    @property
    def asked_scale(self) -> Scale | None:
        """The asked scale, on the asked key's tonic where it names none."""
        if self.scale is None:
            return None
        scale = parse_scale(self.scale)
        key = self.tonality
        return Scale(scale.name, key.tonic) if scale.tonic is None and key is not None else scale

    @property
    def progression(self) -> Progression | None:
        """The asked chords."""
        return None if self.chords is None else _progression(self.chords)

    @property
    def nearest_key(self) -> Key | None:
        """The asked key, or else that of the scale or of the chords."""
        if self.tonality is not None:
            return self.tonality
        if self.asked_scale is not None:
            return self.asked_scale.key
        return None if self.progression is None else self.progression.key()

    @property
    def pitch_classes(self) -> frozenset[int]:
        """Pitch classes that key and scale leave."""
        parts = [part.pitch_classes for part in (self.tonality, self.asked_scale) if part is not None]
        return _EVERY_CLASS.intersection(*parts)

    @property
    def home_classes(self) -> frozenset[int]:
        """Pitch classes on which a piece begins and ends: the tonic triad, or of it what the scale has."""
        if self.asked_scale is not None:
            return self.asked_scale.home
        return _EVERY_CLASS if self.tonality is None else self.tonality.triad

    @property
    def compass(self) -> PitchRange:
        """Pitches from the lowest to the highest that may come, where one range holds for all."""
        return parse_pitch_range(self.pitch_range) if isinstance(self.pitch_range, str) else _EVERY_PITCH

    @property
    def ranges(self) -> Mapping[str, PitchRange]:
        """The range of each instrument that has one of its own."""
        by_name = self.pitch_range if isinstance(self.pitch_range, dict) else {}
        return {name: parse_pitch_range(text) for name, text in by_name.items()}

    @property
    def meter_or_usual(self) -> tuple[int, int]:
        """The asked meter, or 4/4."""
        if self.meter is None:
            return USUAL_METER
        above, below = self.meter.split("/")
        return int(above), int(below)

    @property
    def extent(self) -> tuple[int | None, float | None]:
        """Bars and tempo, in quarters a minute, as far as the request fixes them.

        Chords come a whole number of times: as often as comes nearest to an asked length, and where no tempo is asked,
        at the one that meets it, nearest to a moderate one.
        """
        if self.progression is None or self.bars is not None:
            return self.bars or bars_of_form(self.form), self.tempo
        bars = len(self.progression)
        if self.length is None:
            return bars, self.tempo
        round_quarters = bars * seconds_of_bar(self.meter_or_usual, tempo_qpm=60.0)
        rounds, tempo_qpm = rounds_of_length(self.length_s, round_quarters=round_quarters, tempo_qpm=self.tempo)
        return rounds * bars, tempo_qpm
