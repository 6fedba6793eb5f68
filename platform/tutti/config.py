"""Strict, frozen settings from YAML.

Every settings class derives from :class:`Settings`: unknown keys are refused by name, every field has a sentence (and a
unit in its name), and nothing changes after it was read. ``--set training.steps=100`` lies over the file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
from collections.abc import Iterable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tutti.errors import RecipeError

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """Hash of every resolved value, stable across field order."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: Any) -> str:
    """Hash of a JSON-like value: 16 hexadecimal digits of SHA-256 over its canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(kind: type[S], text: str, *, overrides: Iterable[str] = (), origin: str = "settings") -> S:
    """Settings of ``kind`` from YAML ``text`` under ``overrides`` such as ``training.steps=100``.

    Raises:
        RecipeError: not YAML, an unknown key, a value outside its limits.
    """
    tree = _plain(text, origin=origin)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise RecipeError(f"{origin} holds {type(tree).__name__}, not keys", remedy="write `key: value` lines")
    for override in overrides:
        _lay_over(tree, override)
    return build(kind, tree, origin=origin)


def build(kind: type[S], tree: dict[str, Any], *, origin: str = "settings") -> S:
    """Settings of ``kind`` from a tree of plain values.

    Raises:
        RecipeError: an unknown key or a value outside its limits; the first fault, in one line.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(*_first_fault(error, kind, origin)) from None


def _plain(text: str, *, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML lets dates such as 2026-13-01 escape
        reason = " ".join(str(error).split())
        raise RecipeError(f"{origin} is not YAML ({reason})", remedy="mend it") from None


def _lay_over(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {override!r} has no value", remedy="write it like training.steps=100")
    *parents, last = path.split(".")
    for name in parents:
        if tree.get(name) is None:
            tree[name] = {}
        node = tree[name]
        if not isinstance(node, dict):
            raise RecipeError(
                f"--set {override!r}: {name!r} holds a value, not keys", remedy="name a key that is there"
            )
        tree = node
    tree[last] = _plain(value, origin=f"--set {override!r}")


def _first_fault(error: ValidationError, kind: type[Settings], origin: str) -> tuple[str]:
    fault = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(kind, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys here are {', '.join(known)}"
        return (f"{origin}: unknown key {path!r}; {remedy}",)
    message = fault["msg"].removeprefix("Value error, ")
    if not path:
        return (f"{origin}: {message}",)
    shown = "" if fault["type"] == "missing" else f" = {reprlib.repr(fault['input'])}"
    return (f"{origin}: {path}{shown}: {message}",)


def _known_keys(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Field names of the settings class that lies at ``path`` under ``kind``."""
    current: Any = kind
    for part in path:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((item for item in candidates if hasattr(item, "model_fields")), None)
    return sorted(getattr(current, "model_fields", {}))
