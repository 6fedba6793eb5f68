"""What a content team asks for: how many takes of what, in which formats, under which checks.

An order is strict and frozen: an unknown key is refused by name, and two orders that differ in anything have different
catalogues, but for how much is made at once, which changes no note.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, NonNegativeFloat, model_validator

from tutti.config import Settings
from tutti.errors import InputError, RecipeError
from tutti.generation.request import Request
from tutti.generation.sentences.scenes import understood
from tutti.metrics.originality import LIMITS, Limits
from tutti.render import timbres
from tutti.render.sound import Sound

MAX_TAKES = 100_000
Format = Literal["midi", "flac", "wav", "mp3", "png", "musicxml", "ogg", "waveform", "stems"]
FORMATS: tuple[str, ...] = get_args(Format)
AUDIO_FORMATS: tuple[str, ...] = ("flac", "wav", "mp3", "ogg")
_SOUNDING = (*AUDIO_FORMATS, "waveform", "stems")
HOW = ("max_batch", "cache_bytes", "prices")
"""Fields that say how an order is made, and not what."""
LATER_CHECKS = (
    "max_silent_instruments",
    "max_opening_s", "max_held_bars", "max_overhang_bars", "max_repetition", "max_key_gap",
    "originality", "against", "duplicates", "copy_melody_bits", "copy_texture_bits", "copy_share", "copy_shared_bits",
)  # fmt: skip
TITLE_FIELDS = ("order", "line", "number", "key", "tempo", "meter", "mood")

_FIELD = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or a digit")
    return value


def _timbre(value: str) -> str:
    try:
        timbres.parse(value)
    except InputError as error:
        raise ValueError(str(error)) from None
    return value


def _title(value: str) -> str:
    if not value.strip():
        raise ValueError("a title holds at least one letter")
    if not value.isprintable():
        raise ValueError("a title is one line of printable characters")
    unknown = [field for field in _FIELD.findall(value) if field not in TITLE_FIELDS]
    if unknown:
        raise ValueError(f"a title knows {{{'}, {'.join(TITLE_FIELDS)}}}, not {{{unknown[0]}}}")
    if set("{}") & set(_FIELD.sub("", value)):
        raise ValueError("braces in a title stand around a field, such as {number}")
    return value


def _default(name: str) -> Any:
    return Order.model_fields[name].get_default(call_default_factory=True)


class Checks(Settings):
    """Limits that a take must keep; one outside any of them is rejected and its next seed is tried."""

    min_notes: int = Field(default=8, ge=1, description="fewest notes of a take")
    length_tolerance: float = Field(
        default=0.2, gt=0, le=1, description="largest deviation from the asked length, as share of it; one bar always"
    )
    max_silence_s: float = Field(default=4.0, gt=0, description="longest stretch without any sounding note, seconds")
    max_silence_share: float = Field(
        default=0.3, gt=0, le=1, description="largest share of the length without any sounding note"
    )
    max_note_s: float = Field(default=20.0, gt=0, description="longest note, seconds; a longer one is taken as endless")
    max_stuck_share: float = Field(
        default=0.1, ge=0, le=1, description="largest share of notes that are struck again before they have ended"
    )
    min_in_key: float = Field(
        default=0.85, ge=0, le=1, description="smallest share of note time within the asked key's scale"
    )
    tempo_tolerance: float = Field(
        default=0.06, gt=0, le=1, description="largest deviation from the asked tempo, as share of it"
    )
    max_silent_instruments: int = Field(
        default=0, ge=0, le=16, description="most of the asked instruments that may play nothing"
    )
    pitch_low: int = Field(default=21, ge=0, le=127, description="lowest MIDI pitch of any note that is no drum")
    pitch_high: int = Field(default=108, ge=0, le=127, description="highest MIDI pitch of any note that is no drum")

    max_opening_s: float = Field(
        default=2.0, ge=0, description="longest silence before the first note, seconds; one bar always"
    )
    max_held_bars: int = Field(
        default=12, ge=1, description="most bar lines that a note sounds across while others begin"
    )
    max_overhang_bars: int = Field(
        default=4, ge=0, description="most bars that sound on after the bar of the last onset"
    )
    max_repetition: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="largest share of bars that are the same as an earlier one; looked at from 8 bars on",
    )
    max_key_gap: float = Field(
        default=0.35,
        ge=0,
        le=2,
        description="by how much the correlation with the best key's profile may exceed that with the asked key's",
    )
    originality: Literal["required", "when_known", "off"] = Field(
        default="when_known",
        description="whether takes are held against the works that the model learnt from: required (no run without "
        "them), when_known (where they can be reached, else each take says not_checked), off",
    )
    against: tuple[str, ...] = Field(
        default=(),
        description="earlier catalogues whose takes none of these may copy: a name (all that are finished under it), "
        "name/address, or '*' for all but the order's own",
    )
    duplicates: Literal["replaced", "allowed"] = Field(
        default="replaced",
        description="what becomes of a take that copies one of an earlier slot of the same catalogue",
    )
    copy_melody_bits: int = Field(
        default=LIMITS.melody_bits, ge=1, description="a passage of the melody that tells so many bits is a copy"
    )
    copy_texture_bits: int = Field(
        default=LIMITS.texture_bits, ge=1, description="a passage of all notes that tells so many bits is a copy"
    )
    copy_share: float = Field(
        default=LIMITS.share, gt=0, le=1, description="a take with this share of its notes in one work is a copy"
    )
    copy_shared_bits: int = Field(
        default=LIMITS.shared_bits, ge=0, description="fewest bits that the notes of copy_share must tell together"
    )

    @property
    def limits(self) -> Limits:
        """From where on a take is a copy."""
        return Limits(self.copy_melody_bits, self.copy_texture_bits, self.copy_share, self.copy_shared_bits)

    @model_validator(mode="after")
    def _range(self) -> Checks:
        if self.pitch_low >= self.pitch_high:
            raise ValueError(f"pitch_low {self.pitch_low} is not below pitch_high {self.pitch_high}")
        return self


class Prices(Settings):
    """What a plan reckons with; a rate that is not given is unknown, not free."""

    currency: str = Field(default="EUR", min_length=1, max_length=16, description="unit of money, for people")
    core_hour: NonNegativeFloat | None = Field(default=None, description="price of one core for one hour")
    gpu_hour: NonNegativeFloat | None = Field(default=None, description="price of one GPU for one hour")
    gib_month: NonNegativeFloat | None = Field(default=None, description="price of one GiB on storage for one month")


class Line(Settings):
    """A number of takes under the same controls."""

    count: int = Field(ge=1, le=MAX_TAKES, description="how many takes, each with its own seed")
    title: Annotated[str, AfterValidator(_title)] = Field(
        default="{order} {number}",
        max_length=120,
        description="title of each take; knows {order}, {line}, {number} and stated {key}, {tempo}, {meter}, {mood}",
    )
    sentence: str | None = Field(
        default=None,
        description="what each take is like, in English or Chinese; what controls say beside it wins",
    )
    file: str | None = Field(
        default=None, min_length=1, max_length=1024,
        description="file that each take starts from as controls.start says, MIDI or MusicXML, beside the order's own",
    )  # fmt: skip
    second: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="the other file, of kind interpolate",
    )
    controls: Request = Field(default_factory=Request, description="what each take must be; seeds come from the order")

    @model_validator(mode="before")
    @classmethod
    def _read_sentence(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or not isinstance(tree.get("sentence"), str):
            return tree
        given = tree.get("controls") or {}
        if isinstance(given, Request):
            given = given.model_dump(include=given.model_fields_set)
        if not isinstance(given, dict):
            return tree
        try:
            return {**tree, "controls": {**understood(tree["sentence"]).beside(given), **given}}
        except RecipeError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _controls_fit(self) -> Line:
        if "seed" in self.controls.model_fields_set:
            raise ValueError("controls.seed is not a line's to give: the order's seed rules every take")
        start = self.controls.start
        if self.file is not None and start is None:
            raise ValueError("a line with a file says in controls.start what becomes of it, such as {kind: continue}")
        if start is not None and self.file is None and not start.works:
            raise ValueError(f"controls.start wants to {start.kind} a file: name it as file")
        for field in _FIELD.findall(self.title):
            if field in Request.model_fields and getattr(self.controls, field) is None:
                raise ValueError(f"the title uses {{{field}}}, which the controls leave open")
        return self

    def title_of(self, number: int, *, order: str, line: int) -> str:
        """Title of take ``number`` (from 0); people count from 1, with leading zeros so that names sort."""
        values = {
            "order": order,
            "line": str(line + 1),
            "number": f"{number + 1:0{len(str(self.count))}d}",
            "key": str(self.controls.key),
            "tempo": f"{self.controls.tempo or 0:g}",
            "meter": str(self.controls.meter),
            "mood": str(self.controls.mood),
        }
        return _FIELD.sub(lambda match: values[match.group(1)], self.title)


class Order(Settings):
    """One catalogue."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="name of the catalogue, part of its address")
    model: str = Field(
        min_length=1, description="registered model: a name, name@alias or name/version, such as bach@production"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="root of every take's random stream")
    formats: tuple[Format, ...] = Field(
        default=("midi", "flac", "png"),
        description="files of each accepted take: midi, musicxml, flac, wav, mp3, ogg, stems (a sound for each "
        "instrument), png (the notes), waveform (the sound); MIDI is always written, it is the take",
    )
    zip: bool = Field(default=False, description="whether all that is shipped is put into one catalogue.zip as well")
    timbres: tuple[Annotated[str, AfterValidator(_timbre)], ...] = Field(
        default=(),
        description="registered models of notes that play in place of the SoundFont: [FAMILY=]MODEL:INSTRUMENT[:SEED]",
    )
    sound: Sound = Field(default_factory=Sound, description="how the takes sound: font, room, equaliser, loudness")
    lines: tuple[Line, ...] = Field(min_length=1, description="what is ordered, line by line")
    checks: Checks = Field(default_factory=Checks, description="limits that every take must keep")
    retries: int = Field(default=3, ge=0, le=100, description="further seeds tried for a take that fails its checks")
    takes_per_block: int = Field(
        default=8, ge=1, le=256, description="takes whose files and rows are written together; what a kill can cost"
    )
    max_batch: int = Field(
        default=32, ge=1, le=256, description="most takes that step together in one engine; no note depends on it"
    )
    cache_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="memory of each engine for what takes have read so far, bytes; fewer than max_batch step together "
        "where it does not hold them",
    )
    prices: Prices = Field(default_factory=Prices, description="rates for the price that --dry-run tells")
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="where the model runs; another kind of processor gives other notes"
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="bits of the model's products; auto: bfloat16 where the processor multiplies it, else float32; one "
        "gives other notes than the other",
    )

    @model_validator(mode="after")
    def _fits(self) -> Order:
        if len(set(self.formats)) != len(self.formats):
            raise ValueError("a format is named twice")
        if self.takes > MAX_TAKES:
            raise ValueError(f"{self.takes} takes are more than the {MAX_TAKES} of one order; write two orders")
        return self

    @property
    def takes(self) -> int:
        """Number of takes asked for."""
        return sum(line.count for line in self.lines)

    def document(self) -> dict[str, Any]:
        """The order as plain values that :func:`tutti.config.build` reads back to an equal order."""
        tree = self.model_dump(mode="json", exclude={"lines": {"__all__": {"controls": {"seed"}}}})
        for line in tree["lines"]:
            if line["sentence"] is None:
                del line["sentence"]
            # Its music is named by controls.start.works: the same under another name is the same.
            del line["file"], line["second"]
        # What came later enters where it is asked, so that catalogues keep their addresses.
        tree["sound"] = self.sound.model_dump(mode="json", exclude_defaults=True)
        later = ("timbres", "sound", "zip", "precision", *HOW)
        checks, usual = tree["checks"], Checks().model_dump(mode="json")
        tree["checks"] = {
            name: value for name, value in checks.items() if name not in LATER_CHECKS or value != usual[name]
        }
        return {name: tree[name] for name in tree if name not in later or getattr(self, name) != _default(name)}

    @property
    def wants_audio(self) -> bool:
        """Whether any format is sound."""
        return any(kind in _SOUNDING for kind in self.formats)
