"""Addresses and manifests: what is finished is found, what is not does not exist.

A dataset lives at ``<root>/<kind>/<name>/<hash of inputs, settings, code version>/``: data first, ``manifest.json``
last. A folder without a manifest does not exist for readers, so a killed run leaves nothing that a later one would
trust, and the same inputs lead to the same folder, so a run that is started twice costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutti.config import digest_of
from tutti.errors import IntegrityError, MissingError, RecipeError
from tutti.storage import Folder

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
ASKED_ONE_BY_ONE = 16
"""Files whose sizes are asked for one by one; of more, the folder is listed."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One object of a dataset: path below its folder, size, SHA-256 of its bytes, rows where it is a table."""

    path: str
    size_bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A finished folder: its manifest was read."""

    folder: Folder
    kind: str
    name: str
    address: str
    inputs: Mapping[str, Any]
    facts: Mapping[str, Any]
    files: tuple[FileEntry, ...]

    def read(self, path: str) -> bytes:
        """Bytes of one object of the manifest, verified.

        Raises:
            MissingError: the manifest does not list it.
            IntegrityError: size or checksum differ.
        """
        entry = next((entry for entry in self.files if entry.path == path), None)
        if entry is None:
            raise MissingError(f"{self.folder.uri} lists no {path!r}", remedy="check the path")
        data = self.folder.read(path)
        check_bytes(data, entry, where=self.folder.uri)
        return data

    def paths(self, suffix: str = "") -> list[str]:
        """Paths that end in ``suffix``, in the manifest's order."""
        return [entry.path for entry in self.files if entry.path.endswith(suffix)]


def place(root: Folder, *, kind: str, name: str, inputs: Mapping[str, Any]) -> Folder:
    """Where the dataset made from ``inputs`` (settings, addresses, code version) lives, finished or not.

    Raises:
        RecipeError: a name that would lead to another folder.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise RecipeError(f"name {name!r} cannot be a folder's", remedy="use letters, digits, '-', '_' and '.'")
    return root / kind / name / digest_of(dict(inputs))


def write_file(folder: Folder, path: str, data: bytes, *, rows: int | None = None) -> FileEntry:
    """Put one object and describe it for the manifest."""
    folder.write(path, data)
    return FileEntry(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)


def write_from(folder: Folder, path: str, file: Path, *, rows: int | None = None) -> FileEntry:
    """Put a file of this machine as one object and describe it for the manifest."""
    folder.write_from(path, file)
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    return FileEntry(path=path, size_bytes=file.stat().st_size, sha256=sha256, rows=rows)


def publish(
    folder: Folder,
    *,
    kind: str,
    name: str,
    inputs: Mapping[str, Any],
    files: Iterable[FileEntry],
    facts: Mapping[str, Any],
) -> Dataset:
    """Write the manifest: from now on the dataset exists. Every listed object must be there with its size.

    Raises:
        IntegrityError: a listed object is missing or of another size.
    """
    entries = tuple(sorted(files, key=lambda entry: entry.path))
    for entry in missing(folder, entries, sizes=_listed(folder, entries)):
        raise IntegrityError(f"{folder.uri}/{entry.path} is not the file that was written")
    document = {
        "format": MANIFEST_FORMAT,
        "kind": kind,
        "name": name,
        "address": folder.uri.rstrip("/").rsplit("/", 1)[-1],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": dict(inputs),
        "facts": dict(facts),
        "files": [asdict(entry) for entry in entries],
    }
    folder.write(MANIFEST, json.dumps(document, indent=2, ensure_ascii=False).encode())
    return _from_document(folder, document)


def find(folder: Folder) -> Dataset | None:
    """The dataset at ``folder``, or None where no manifest was published.

    Raises:
        IntegrityError: the manifest is unreadable, of another format, or a listed object is missing or of another size.
    """
    if not folder.exists(MANIFEST):
        return None
    try:
        document = json.loads(folder.read(MANIFEST))
        if document["format"] != MANIFEST_FORMAT:
            raise ValueError(f"format {document['format']!r}, not {MANIFEST_FORMAT}")
        dataset = _from_document(folder, document)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{folder.uri}/{MANIFEST} is not a manifest ({error})") from error
    for entry in missing(folder, dataset.files, sizes=_listed(folder, dataset.files)):
        raise IntegrityError(f"{folder.uri}/{entry.path} differs from its manifest; delete the folder to make it again")
    return dataset


def missing(folder: Folder, files: Sequence[FileEntry], *, sizes: Mapping[str, int] | None = None) -> list[FileEntry]:
    """Of ``files`` those that are not there with their sizes.

    Args:
        sizes: of all objects below the folder, by path, as :func:`sizes_below` lists them; None asks for each.
    """
    if sizes is not None:
        return [each for each in files if sizes.get(each.path) != each.size_bytes]
    return [each for each in files if not folder.exists(each.path) or folder.size_bytes(each.path) != each.size_bytes]


def sizes_below(folder: Folder) -> dict[str, int]:
    """Size in bytes of every object below a folder, by path: one request for a thousand of them."""
    return {entry.path: entry.size_bytes for entry in folder.entries()}


def _listed(folder: Folder, files: Sequence[FileEntry]) -> dict[str, int] | None:
    return sizes_below(folder) if len(files) > ASKED_ONE_BY_ONE else None


def load(folder: Folder) -> Dataset:
    """The dataset at ``folder``.

    Raises:
        MissingError: none was published there.
    """
    dataset = find(folder)
    if dataset is None:
        raise MissingError(f"no finished dataset at {folder.uri}", remedy="run the stage that makes it")
    return dataset


def check_bytes(data: bytes, entry: FileEntry, *, where: str) -> None:
    """Compare bytes with their manifest entry.

    Raises:
        IntegrityError: size or checksum differ.
    """
    if len(data) != entry.size_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise IntegrityError(f"{where}/{entry.path} differs from its manifest; delete the folder to make it again")


def _from_document(folder: Folder, document: Mapping[str, Any]) -> Dataset:
    return Dataset(
        folder=folder,
        kind=document["kind"],
        name=document["name"],
        address=document["address"],
        inputs=document["inputs"],
        facts=document["facts"],
        files=tuple(FileEntry(**entry) for entry in document["files"]),
    )
