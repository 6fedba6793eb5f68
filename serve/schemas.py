"""Bodies of requests and answers."""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.generation.request import Request
from tutti.generation.sentences.reading import Reading
from tutti.generation.sentences.scenes import understood

# JavaScript's numbers hold whole ones up to 2^53: a seed that we choose must come back as it left.
CHOSEN_SEEDS = 2**53


def choose_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbelow(CHOSEN_SEEDS)


def _is_base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error}); encode the MIDI file's bytes, without line breaks") from None
    return value


class GivenFile(BaseModel):
    """A file to start from."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=255, description="its name, whose end tells the format, such as tune.mid or tune.mxl")
    data: Annotated[str, AfterValidator(_is_base64)] = Field(
        description="its bytes, in base64", json_schema_extra={"contentEncoding": "base64"}
    )


class GenerateBody(Request):
    """What one piece must be; everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"length": "30s", "key": "D minor", "tempo": 90, "mood": "calm", "seed": 7},
                {"sentence": "gentle piano for falling asleep, slow, no drums"},
            ],
        }
    )

    sentence: str | None = Field(
        default=None,
        description="what the piece is like, in English or Chinese; fields beside it win; /v1/sentence shows it",
    )
    seed: int = Field(
        default_factory=choose_seed,
        ge=0,
        lt=2**63,
        description="root of the piece's random stream; left out, one is chosen and told in the answer",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="registered model: NAME, NAME@ALIAS or NAME/VERSION; left out, the service's own",
    )
    continue_midi: Annotated[str, AfterValidator(_is_base64)] | None = Field(
        default=None,
        description="Standard MIDI file to start from, in base64; continued where start is left out",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "audio/midi"},
    )
    file: GivenFile | None = Field(
        default=None, description="file to start from as start says, MIDI or MusicXML; in place of continue_midi"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_sentence(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or not isinstance(tree.get("sentence"), str):
            return tree
        try:
            return {**understood(tree["sentence"]).beside(tree), **tree}
        except RecipeError as error:
            raise ValueError(str(error)) from None

    def request(self) -> Request:
        """The controls alone, as the engine takes them."""
        return Request.model_validate(self.model_dump(include=set(Request.model_fields)))

    second: GivenFile | None = Field(default=None, description="the other file, of start: {kind: interpolate}")

    @model_validator(mode="after")
    def _one_file(self) -> GenerateBody:
        if self.file is not None and self.continue_midi is not None:
            raise ValueError("file and continue_midi are two files; leave out one of them")
        if self.start is not None and self.file is None and self.continue_midi is None:
            raise ValueError(f"start wants to {self.start.kind} a file; send it as file")
        return self

    def files(self) -> list[tuple[str, bytes, str]]:
        """Name and bytes of each file to start from, and the field that holds it."""
        found = [("/file", self.file), ("/second", self.second)]
        sent = [(file.name, base64.b64decode(file.data), pointer) for pointer, file in found if file is not None]
        if self.continue_midi is not None:
            sent.insert(0, ("upload.mid", base64.b64decode(self.continue_midi), "/continue_midi"))
        return sent


class SentenceBody(BaseModel):
    """What a piece is like, in words."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"sentence": "睡前听的轻柔钢琴，慢，不要鼓"}]}
    )

    sentence: str = Field(description="in English or Chinese, at most 1,000 characters")


class HeardControl(BaseModel):
    """One control that a sentence sets."""

    control: str = Field(description="field of a request")
    value: Any = Field(description="its value, as a request takes it")
    reason: str = Field(description="the value and the words that it comes from, in one line for people")
    words: list[str] = Field(description="those words, as they stand in the sentence")


class SentenceRead(BaseModel):
    """What a sentence becomes; nothing is made."""

    controls: list[HeardControl]
    not_understood: list[str] = Field(description="stretches that nothing was made of")
    not_held: list[str] = Field(description="what was understood and no control can hold, a line each")
    contradictions: list[str] = Field(description="what the sentence says against itself; a request with it is refused")

    @classmethod
    def of(cls, reading: Reading) -> SentenceRead:
        """A reading as a body."""
        controls = [
            HeardControl(control=each.control, value=each.value, reason=each.text, words=list(each.words))
            for each in reading.reasons
        ]
        return cls(
            controls=controls,
            not_understood=list(reading.not_understood),
            not_held=list(reading.not_held),
            contradictions=list(reading.contradictions.values()),
        )


class NoteEvent(BaseModel):
    """One note."""

    onset_s: float = Field(description="start, seconds from the first bar line")
    duration_s: float = Field(description="length, seconds")
    pitch: int = Field(description="MIDI pitch, middle C = 60; a General MIDI drum key where program is 128")
    velocity: int = Field(description="MIDI velocity, 1 to 127")
    program: int = Field(description="General MIDI program, 0 to 127; 128: drums")


class TempoChange(BaseModel):
    """A tempo from a time on."""

    at_s: float = Field(description="from when, seconds")
    tempo_qpm: float = Field(description="quarter notes a minute")


class MeterChange(BaseModel):
    """A meter from a time on."""

    at_s: float = Field(description="from when, seconds")
    meter: str = Field(description="such as 3/4")


class ModelReference(BaseModel):
    """Which model made a piece."""

    name: str = Field(description="name in the registry")
    version: str = Field(description="number of the version")
    digest: str = Field(description="hash of weights, configuration and vocabulary")


class CandidatePiece(BaseModel):
    """One of several pieces of a request, as it was judged."""

    seed: int = Field(description="the same request with this seed and best_of 1 gives this piece")
    score: float = Field(description="all its points, those of what was asked four times; the fewest win")
    points: dict[str, float] = Field(description="by measure, 0 where nothing is wanting")
    chosen: bool = Field(description="whether this is the piece")


class GeneratedPiece(BaseModel):
    """A piece as note events."""

    take_id: str = Field(description="hash of request, seed, material and model: the same take has the same id")
    model: ModelReference
    seed: int = Field(description="send it again with the same request and model to get the same piece")
    length_s: float = Field(description="from the first bar line to the end of the last note, seconds")
    key: str | None = Field(description="the key that was asked; null where the model was free to choose")
    tempos: list[TempoChange]
    meters: list[MeterChange]
    refused_tokens: int = Field(description="tokens that could not be decoded; 0 unless something is broken")
    candidates: list[CandidatePiece] | None = Field(
        description="where best_of is above 1, every piece that this one was chosen from; else null"
    )
    notes: list[NoteEvent]


class StreamBegin(BaseModel):
    """The first event of a piece that is told as it is made."""

    take_id: str = Field(description="as in the piece")
    model: ModelReference
    seed: int = Field(description="as in the piece")
    key: str | None = Field(description="as in the piece")
    whole: bool = Field(description="whether notes come only when all are there: one of several, or made whole")


class StreamBar(BaseModel):
    """A bar is complete: no further note begins in it."""

    bar: int = Field(description="which one, from 0; bars of a continued file count")


class RegisteredModel(ModelReference):
    """One version in the registry."""

    aliases: list[str] = Field(description="names that point at it, such as production")
    created: datetime = Field(description="when it was registered")
    answers: bool = Field(description="whether it answers requests that name no model")
    figures: dict[str, float] = Field(description="numbers of its making, such as held-out nats per token")


class RegisteredModels(BaseModel):
    """Every version in the registry, by name, the newest of a name first."""

    models: list[RegisteredModel]


class Health(BaseModel):
    """A sign of life."""

    status: str = Field(description="ok")


class FaultyField(BaseModel):
    """One fault in a request body."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body; empty: the body itself")
    detail: str = Field(description="what is wrong, and the remedy")


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="urn:tutti:problem:NAME; a name never changes its meaning")
    title: str = Field(description="what kind of problem it is")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="this problem, in one line")
    errors: list[FaultyField] | None = Field(default=None, description="faults of a request body")
    incident: str | None = Field(default=None, description="under which the service's log has an internal error")


def note_events(score: Score) -> dict[str, Any]:
    """The notes, tempos and meters of :class:`GeneratedPiece`; times are rounded to the microsecond."""
    notes = score.notes
    onset_s = score.seconds_at(notes.onset_ticks)
    end_s = score.seconds_at(notes.onset_ticks.astype("int64") + notes.duration_ticks)
    columns = (
        onset_s.round(6).tolist(),
        (end_s - onset_s).round(6).tolist(),
        notes.pitch.tolist(),
        notes.velocity.tolist(),
        notes.program.tolist(),
    )
    names = ("onset_s", "duration_s", "pitch", "velocity", "program")
    tempos = zip(score.seconds_at(score.tempo_ticks).round(6).tolist(), score.tempo_qpm.tolist(), strict=True)
    meters = zip(
        score.seconds_at(score.meter_ticks).round(6).tolist(),
        score.meter_numerator.tolist(),
        score.meter_denominator.tolist(),
        strict=True,
    )
    return {
        "length_s": round(score.length_s, 6),
        "tempos": [{"at_s": at_s, "tempo_qpm": tempo} for at_s, tempo in tempos],
        "meters": [{"at_s": at_s, "meter": f"{above}/{below}"} for at_s, above, below in meters],
        "notes": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
    }
