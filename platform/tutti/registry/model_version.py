"""One registered model: what its version says, and how people refer to it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion as Entity

from tutti.errors import InputError, MissingError

DIGEST, FILES, FACTS, GATE = "tutti.digest", "tutti.files", "tutti.facts", "tutti.gate"
"""Tags of a version: its digest, SHA-256 by file name (JSON), what ``model.json`` says of its making (JSON), what it
must show to be promoted (JSON of :class:`tutti.registry.gate.Gate`)."""

EVALUATION = "tutti.evaluation."
"""Begins the tags of a version that hold its evaluations, one for each split (JSON, figure by name)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[^@/]+))?")


@dataclass(frozen=True)
class ModelVersion:
    """One registered model.

    Args:
        name: of the model.
        version: its number, as text.
        digest: of weights, configuration and vocabulary.
        aliases: names that point at it, sorted.
        run_id: MLflow's run that made it.
        created: when it was registered.
        facts: what ``model.json`` says of its making.
        source: URI of its files.
        checksums: SHA-256 of each file by name.
        gate: what it must show to be promoted, as :class:`tutti.registry.gate.Gate` writes it; nothing, if empty.
        evaluations: figures by split and name, of the latest evaluation of each.
    """

    name: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    run_id: str | None
    created: datetime
    facts: Mapping[str, Any]
    source: str
    checksums: Mapping[str, str]
    gate: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def figures(self) -> dict[str, float]:
        """The numbers among the measures, and ``parameters``."""
        known = dict(self.facts.get("measures") or {}) | {"parameters": self.facts.get("parameters")}
        return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}


@dataclass(frozen=True, slots=True)
class Reference:
    """What a person wrote to mean a version: a name, and an alias or a number or neither."""

    name: str
    alias: str | None = None
    version: str | None = None


def parse_reference(text: str) -> Reference:
    """Read ``NAME@ALIAS``, ``NAME/VERSION`` or ``NAME``, with or without MLflow's ``models:/`` before it.

    Raises:
        InputError: the text is none of these.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"model {text!r} is not a reference", remedy="write NAME, NAME@production or NAME/3")
    return Reference(match["name"], match["alias"], match["version"])


def is_name(text: str) -> bool:
    """Whether a model may have this name: up to 100 letters, digits, ``_``, ``.`` and ``-``, no sign first."""
    return bool(_NAME.fullmatch(text))


def from_mlflow(entity: Entity, *, aliases: Collection[tuple[str, str, str]]) -> ModelVersion:
    """The version that MLflow calls ``entity``; ``aliases`` are (model, version, alias)."""
    number = str(entity.version)
    return ModelVersion(
        name=entity.name,
        version=number,
        digest=entity.tags[DIGEST],
        aliases=tuple(sorted(alias for name, version, alias in aliases if (name, version) == (entity.name, number))),
        run_id=entity.run_id or None,
        created=datetime.fromtimestamp(entity.creation_timestamp / 1000, tz=UTC),
        facts=json.loads(entity.tags.get(FACTS, "{}")),
        source=entity.source,
        checksums=json.loads(entity.tags.get(FILES, "{}")),
        gate=json.loads(entity.tags.get(GATE, "{}")),
        evaluations={
            tag.removeprefix(EVALUATION): json.loads(value)
            for tag, value in entity.tags.items()
            if tag.startswith(EVALUATION)
        },
    )


def missing(what: str, value: str, *, known: Iterable[str], remedy: str = "") -> MissingError:
    """The error for an unknown name: with the nearest known one, and all of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    listed = f"known are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else "there is none yet"
    return MissingError(f"no {what} is called {value!r}", remedy=f"{guess}{listed}{'' if names else f'; {remedy}'}")
