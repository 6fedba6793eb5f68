"""A version's files: staged for upload, read back, kept in a cache under their digest.

Nothing is trusted because it arrived: the digest is computed again from the weights, configuration and vocabulary
(:func:`tutti.models.bundle.Bundle.digest`), and each file is held against the checksum that was noted when it was
registered, so that the facts and the card, which do not enter the digest, are covered too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tutti.errors import IntegrityError, MissingError, PlaceError
from tutti.models import bundle as bundles
from tutti.registry import mlmodel
from tutti.registry.card import card
from tutti.registry.gate import Gate
from tutti.storage import Folder


@dataclass(frozen=True)
class Staged:
    """A bundle ready for upload.

    Args:
        bundle: the model.
        digest: its digest.
        files: bytes by file name, the card and what MLflow needs among them.
    """

    bundle: bundles.Bundle
    digest: str
    files: Mapping[str, bytes]

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 by file name."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    def write(self, folder: Path) -> None:
        """Write the files below ``folder``, which must not exist."""
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def stage(folder: Path, *, gate: Gate | None = None) -> Staged:
    """The bundle in ``folder`` in its normal form, with a card and what MLflow needs to load it.

    Args:
        folder: holds the files of :mod:`tutti.models.bundle`.
        gate: what the card says is asked of it.

    Raises:
        MissingError: a file is not there.
        IntegrityError: a file is not of its format.
    """
    bundle = bundles.load(folder)
    digest = bundle.digest()
    about = {bundles.CARD: card(bundle, gate=gate).encode(), **mlmodel.files(bundle, digest=digest)}
    return Staged(bundle, digest, {**bundle.files(), **about})


def export(files: Mapping[str, bytes], *, into: Folder) -> None:
    """Write the files of one model into a folder, so that a half-written one is never taken for a model.

    Files that are there already with the same bytes are kept; a folder that holds another model is left alone.

    Raises:
        PlaceError: the folder holds other files by these names, or cannot be written.
    """
    there = set(into.paths())
    others = [name for name in sorted(files) if name in there and into.read(name) != files[name]]
    if others:
        raise PlaceError(
            f"folder {into.uri} holds another {', another '.join(others)}", remedy="name a new or an empty folder"
        )
    # Nothing loads a folder without model.json, so it comes last.
    for name in sorted(files.keys() - there, key=lambda name: (name == bundles.MODEL, name)):
        into.write(name, files[name])


def verify(folder: Path, *, digest: str, checksums: Mapping[str, str], origin: str) -> None:
    """Hold the files in ``folder`` against what was registered.

    Args:
        folder: holds the files.
        digest: what weights, configuration and vocabulary must give.
        checksums: SHA-256 by file name.
        origin: where the files came from, for the message.

    Raises:
        IntegrityError: a file is missing, damaged or another one.
    """
    remedy = "register the checkpoint again to mend it"
    for name, checksum in checksums.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{origin} lacks {name}: {remedy}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            raise IntegrityError(f"{origin}/{name} is not the file that was registered: {remedy}")
    try:
        found = bundles.load(folder).digest()
    except (MissingError, IntegrityError) as error:
        raise IntegrityError(f"{origin} is damaged ({error}): {remedy}") from error
    if found != digest:
        raise IntegrityError(f"{origin} has digest {found}, not {digest}: {remedy}")


@dataclass(frozen=True)
class Cache:
    """Verified bundles on this machine, one folder a digest, complete or absent.

    Args:
        folder: where they are.
    """

    folder: Path

    def get(self, digest: str, *, checksums: Mapping[str, str]) -> Path | None:
        """The folder of a bundle, verified again; None where it is not there or was damaged since (then it is gone)."""
        kept = self.folder / digest
        if not kept.is_dir():
            return None
        try:
            verify(kept, digest=digest, checksums=checksums, origin=str(kept))
        except IntegrityError:
            self._discard(kept)
            return None
        return kept

    def put(self, digest: str, *, fill: Callable[[Path], None]) -> Path:
        """The folder of a bundle that ``fill`` writes and verifies; whoever is first wins.

        Raises:
            PlaceError: the cache cannot be written.
        """
        kept = self.folder / digest
        with self._staging() as staged:
            fill(staged)
            try:
                staged.rename(kept)
            except OSError as error:
                # Another process put the same digest, verified as well, in the meantime.
                if not kept.is_dir():
                    raise self._unusable(error) from error
        return kept

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        staged = self.folder / f".{uuid.uuid4().hex}.part"
        try:
            staged.mkdir(parents=True)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _discard(self, kept: Path) -> None:
        doomed = self.folder / f".{uuid.uuid4().hex}.part"
        try:
            kept.rename(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        shutil.rmtree(doomed, ignore_errors=True)

    def _unusable(self, error: OSError) -> PlaceError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return PlaceError(
            f"cannot keep models in {self.folder} ({reason})", remedy="choose another --root or free space"
        )
