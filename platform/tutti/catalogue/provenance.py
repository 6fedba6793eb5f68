"""Where a take came from, so that it can be made again: one JSON file beside its files.

``provenance/<stem>.json`` holds all that decides a take's bytes: its request with its seed, the model by its digest,
the music that it starts from note by note, the part of the order that its sound and pictures obey, and what made it
(code, packages, processor, precision). What was found follows: each check with its figure, and the SHA-256 of every
file. No time, place or host is in it: made again, it is the same to the byte.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import tutti
from tutti import config
from tutti.catalogue.order import HOW, Order
from tutti.catalogue.review import Draft, from_json
from tutti.catalogue.takes import Plan, Slot, Take, take_id_of
from tutti.corpus.score import Score
from tutti.dataset.learnt import Named
from tutti.errors import IntegrityError, TuttiError
from tutti.features.vocabulary import EVENTS
from tutti.generation.request import Request
from tutti.generation.restoring import Ends, works_of
from tutti.render.fonts import KnownFont
from tutti.render.sound import SOUND_VERSION
from tutti.render.soundfont import default_path
from tutti.render.timbres import KnownTimbre, Timbre

FOLDER = "provenance"
FORMAT = 1
PACKAGES = ("numpy", "scipy", "torch", "numba", "symusic", "soundfile", "soxr", "pyloudnorm", "pillow")
"""Those whose version may move a bit of a take's files."""
SOURCES = ("corpus", "features", "generation", "models", "render", "catalogue")
"""Rooms whose code may."""


def path_of(stem: str) -> str:
    """Where the provenance of the take lies whose files are called ``stem``."""
    return f"{FOLDER}/{stem}.json"


def document(
    row: Mapping[str, Any],
    draft: Draft,
    *,
    plan: Plan,
    files: Mapping[str, bytes],
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is known of a take, as plain values.

    Args:
        row: of the ``takes`` table.
        draft: the take.
        plan: what it belongs to.
        files: bytes of its files by path below the catalogue's folder.
        engine: what composed it, as :func:`engine_facts` tells.
    """
    take, request = draft.take, draft.take.request
    material = plan.material(request)
    # How much is made at once, and at what price, changes no byte.
    order = {name: value for name, value in plan.order.document().items() if name not in HOW}
    # A plan that was read from a provenance has the take's line alone.
    order["lines"] = [order["lines"][min(take.slot.line, len(order["lines"]) - 1)]]
    told: dict[str, Any] = {
        "format": FORMAT,
        "take_id": take.take_id,
        "title": take.slot.title,
        "line": take.slot.line,
        "number": take.slot.number,
        "attempt": take.attempt,
        "seed": request.seed,
        "request": request.model_dump(mode="json"),
        "starts_from": _music(material),
        "order": order,
        "model": {"name": plan.model, "version": plan.model_version, "digest": plan.model_digest},
        "timbres": [timbre.to_dict() for timbre in plan.timbres],
        "vocabulary": EVENTS.hash,
        "sound": _sound(plan) if plan.order.wants_audio else None,
        "made_by": {**code_facts(), **engine},
        "verdict": row["verdict"],
        "checks": json.loads(row["checks"]),
        "nearest_work": row["nearest_work"],
        "nearest_title": row["nearest_title"],
        "nearest_licence": row["nearest_licence"],
        "files": {
            path: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
        },
    }
    return told


def to_bytes(told: Mapping[str, Any]) -> bytes:
    """The document as a file."""
    return json.dumps(told, indent=1, ensure_ascii=False).encode()


def from_bytes(data: bytes, *, origin: str) -> dict[str, Any]:
    """The document of a file.

    Raises:
        IntegrityError: it is not one of this format.
    """
    try:
        told: dict[str, Any] = json.loads(data)
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}, not {FORMAT}")
        for name in ("take_id", "request", "order", "model", "files", "made_by", "verdict"):
            told[name]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{origin} is not a take's provenance ({error})") from error
    return told


def engine_facts(
    *, device: str, facts: Mapping[str, Any], precision: str, processor: str | None = None
) -> dict[str, Any]:
    """What composed: the kind of processor, the bits of its products, and what the model learnt from.

    Args:
        device: ``cpu`` or ``cuda``.
        facts: of the model's making.
        precision: of products and of what is remembered.
        processor: its name; None reads that of this machine.
    """
    return {
        "device": device,
        "processor": processor or processor_name(),
        "precision": precision,
        "model_licence": facts.get("licence"),
        "data_licences": data_licences(facts),
    }


def data_licences(facts: Mapping[str, Any]) -> dict[str, int]:
    """Works by licence of what a model learnt from, by what is known of its making."""
    return dict(facts.get("licences") or facts.get("data", {}).get("licences") or {})


def code_facts() -> dict[str, Any]:
    """Version and hash of Tutti's code, and the versions of the packages that may move a bit."""
    return {
        "tutti": metadata.version("tutti"),
        "code": _code(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


@cache
def processor_name() -> str:
    """The processor in words; its kind where the system tells no name."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _sound(plan: Plan) -> dict[str, Any]:
    return {"version": SOUND_VERSION, "soundfont": plan.font.to_dict() if plan.font else soundfont_facts()}


@cache
def soundfont_facts() -> dict[str, str]:
    """Name and SHA-256 of the SoundFont that plays."""
    path = default_path()
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@cache
def _code() -> str:
    root = Path(tutti.__file__).parent if tutti.__file__ else Path(next(iter(tutti.__path__)))
    state = hashlib.sha256()
    for room in SOURCES:
        for path in sorted((root / room).rglob("*.py")):
            state.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return state.hexdigest()[:16]


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _music(material: Score | None) -> list[dict[str, Any]]:
    """What a take starts from, note by note; two pieces where it lies between them."""
    if material is None:
        return []
    scores = (material.first, material.second) if isinstance(material, Ends) else (material,)
    return [
        {"work_id": work, **{name: _plain(value) for name, value in score.columns().items()}}
        for work, score in zip(works_of(material), scores, strict=True)
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def plan_and_take(told: Mapping[str, Any]) -> tuple[Plan, Take]:
    """The plan of one take, and that take, from its provenance.

    Raises:
        IntegrityError: the document contradicts itself, or this version of Tutti cannot read it.
    """
    try:
        order = config.build(Order, dict(told["order"]), origin="provenance")
        request = config.build(Request, dict(told["request"]), origin="provenance")
        scores = [Score.from_columns(music) for music in told["starts_from"]]
        model = told["model"]
        timbres = tuple(_timbre(each) for each in told["timbres"])
        font = None if order.sound.soundfont is None else KnownFont.from_dict(told["sound"]["soundfont"])
        line, number, attempt = (int(told[name]) for name in ("line", "number", "attempt"))
    except (TuttiError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the provenance of take {told['take_id']} cannot be read: {error}") from error
    material = None if not scores else scores[0] if len(scores) == 1 else Ends.between(scores[0], scores[1])
    files = {} if material is None else {works_of(material): material}
    if request.start is not None and request.start.works not in files:
        raise IntegrityError(f"take {told['take_id']} starts from other music than its provenance holds")
    slot = Slot(line, number, str(told["title"]), order.lines[0].controls)
    plan = Plan(
        order,
        model=model["name"],
        model_version=model["version"],
        model_digest=model["digest"],
        timbres=timbres,
        files=files,
        font=font,
    )
    take_id = take_id_of(request, model_digest=plan.model_digest, precision=plan.order.precision)
    take = Take(take_id, slot, attempt, request)
    if take.take_id != told["take_id"]:
        raise IntegrityError(f"request, seed and model are those of take {take.take_id}, not of {told['take_id']}")
    return plan, take


def draft_of(told: Mapping[str, Any], take: Take, score: Score, **rest: Any) -> Draft:
    """A take's music made again, under the checks that were made of it then."""
    work = told.get("nearest_work")
    nearest = Named(work, told.get("nearest_title"), None, str(told["nearest_licence"]), "") if work else None
    return Draft(take, score, tuple(from_json(json.dumps(told["checks"]))), nearest=nearest, **rest)


def put_aside(data: bytes, row: Mapping[str, Any], music: bytes, *, origin: str) -> bytes:
    """The provenance of a take that was accepted until another turned out to be the same.

    Args:
        data: as it was.
        row: of the take, as a rejected one.
        music: its MIDI, the one file that it keeps.
        origin: where the provenance lies, for messages.
    """
    told = from_bytes(data, origin=origin)
    file = {"size_bytes": len(music), "sha256": hashlib.sha256(music).hexdigest()}
    found = {"verdict": row["verdict"], "checks": json.loads(row["checks"]), "files": {row["midi_path"]: file}}
    return to_bytes(told | found)


def _timbre(told: Mapping[str, Any]) -> KnownTimbre:
    timbre = Timbre(
        tuple(told["programs"]), str(told["model"]).partition("/")[0], str(told["instrument"]), int(told["seed"])
    )
    return KnownTimbre(timbre, version=str(told["model"]), digest=str(told["digest"]), licences=dict(told["licences"]))


def differences(then: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = "") -> Iterable[str]:
    """What two documents say differently, a line each: ``made_by.processor: A, now B``."""
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, prefix=f"{prefix}{name}.")
        elif one != other:
            yield f"{prefix}{name}: {_short(one)}, now {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 80 else f"{text[:77]}..."
