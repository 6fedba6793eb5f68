"""One face for ``file://``, ``s3://`` and ``memory://``: whole objects in, whole objects out.

A write is complete or absent: local files appear by rename, object stores publish on close. Passing errors (a
connection cut, a busy server) are tried again with growing pauses, here and nowhere below; final ones (no permission,
no space, not there) are translated at once. Credentials and endpoints come from the environment alone
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``).
"""

from __future__ import annotations

import errno
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from tutti.errors import MissingError, PlaceError

T = TypeVar("T")

ATTEMPTS = 7
FIRST_PAUSE_S = 0.2
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
# S3 libraries raise some of these without an errno.
_FINAL_KINDS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_FINAL_ERRNOS = frozenset(
    (
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
        errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST,
    )
)  # fmt: skip
# What a process that was killed while writing leaves behind.
_STAGED = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}\.part")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing.

    Args:
        path: its path below the folder.
        size_bytes: its size.
        version: what its bytes are known by without reading them: ``etag:…``, where the store tells none
            ``modified:`` and a time. It moves with the bytes; the same bytes written anew may have another.
    """

    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True)
class Folder:
    """A place that holds objects under relative paths.

    Args:
        uri: ``s3://bucket/prefix``, ``memory://name``, ``file:///path`` or a plain local path. A relative path is made
            absolute at once: a worker that gets the folder works in another directory.
    """

    uri: str

    def __post_init__(self) -> None:
        if "://" not in self.uri:
            object.__setattr__(self, "uri", str(Path(self.uri).expanduser().absolute()))

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri.rstrip('/')}/{name}")

    def __reduce__(self) -> tuple[object, ...]:
        return (Folder, (self.uri,))

    @property
    def is_local(self) -> bool:
        """Whether the objects are files of this machine."""
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def local_path(self) -> Path:
        """The folder as a path of this machine.

        Raises:
            PlaceError: the folder is not on this machine.
        """
        if not self.is_local:
            raise PlaceError(f"{self.uri} is not a local folder", remedy="name a local one")
        return Path(self.uri.removeprefix("file://")).expanduser().absolute()

    def read(self, path: str) -> bytes:
        """All bytes of one object.

        Raises:
            MissingError: there is no such object.
            PlaceError: it cannot be read.
        """
        return self._try("read", path, lambda: cast(bytes, self._fs.cat_file(self._full(path))))

    def read_range(self, path: str, *, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` (exclusive) of one object."""
        return self._try("read", path, lambda: cast(bytes, self._fs.cat_file(self._full(path), start=start, end=stop)))

    def open(self, path: str) -> BinaryIO:
        """A seekable reader of one object."""
        return self._try("read", path, lambda: cast(BinaryIO, self._fs.open(self._full(path), "rb")))

    def write(self, path: str, data: bytes) -> None:
        """Put one object, whole or not at all, in place of any older one.

        Raises:
            PlaceError: no permission, no space, no connection.
        """
        self._try("write", path, lambda: self._put(path, data))

    def exists(self, path: str = "") -> bool:
        """Whether an object (or, for ``""``, anything) is there."""
        return self._try("read", path, lambda: bool(self._fs.exists(self._full(path))))

    def size_bytes(self, path: str) -> int:
        """Size of one object."""
        return self._try("read", path, lambda: int(self._fs.size(self._full(path))))

    def paths(self, path: str = "") -> list[str]:
        """Relative paths of all objects below ``path``, sorted; empty if nothing is there."""

        return [name for name, _ in self._listed(path)]

    def entries(self, path: str = "") -> list[Entry]:
        """All objects below ``path``, or the one that it names, sorted by path; no object is read for it."""
        return [
            Entry(path=name, size_bytes=int(facts["size"]), version=_version(facts))
            for name, facts in self._listed(path)
        ]

    def children(self, path: str = "") -> list[str]:
        """Names directly below ``path``, sorted; empty if nothing is there."""
        depth = len([part for part in path.split("/") if part])
        split = (name.split("/") for name in self.paths(path))
        return sorted({parts[depth] for parts in split if len(parts) > depth})

    def delete(self, path: str = "") -> None:
        """Remove an object, or everything below ``path``; nothing there is no error."""

        def remove() -> None:
            full = self._full(path)
            if self.is_local:
                if self._fs.exists(full):
                    self._fs.rm(full, recursive=True)
                return
            # Not rm: it takes the brackets of a[1].mid for a pattern and deletes a1.mid.
            for name in self._fs.find(full):
                self._fs.rm_file(name)

        self._try("delete", path, remove)

    def check_writable(self) -> None:
        """Fail early where a run would fail late.

        Raises:
            PlaceError: nothing can be written here.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"tutti")
        except MissingError:
            # Some file systems answer the making of a folder with "not there".
            raise PlaceError(f"folder {self.uri} cannot be made", remedy="choose another folder") from None
        self.delete(probe)

    @cached_property
    def _fs(self) -> Any:
        protocol = self.uri.partition("://")[0] if "://" in self.uri else "file"
        if protocol not in ("file", "s3", "memory"):
            raise PlaceError(
                f"storage {self.uri!r} is of an unknown kind",
                remedy="use a path, file://, s3:// or memory://",
            )
        return _s3() if protocol == "s3" else fsspec.filesystem(protocol)

    def _listed(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        def found() -> list[tuple[str, dict[str, Any]]]:
            self._fs.invalidate_cache()
            base = self._fs._strip_protocol(self._full("")).rstrip("/") + "/"
            try:
                objects = self._fs.find(self._full(path), detail=True)
            except FileNotFoundError:
                return []
            below = [(name[len(base) :], facts) for name, facts in objects.items() if name.startswith(base)]
            return sorted((entry for entry in below if not _STAGED.fullmatch(entry[0])), key=lambda entry: entry[0])

        return self._try("list", path, found)

    def _full(self, path: str) -> str:
        if ".." in path.split("/"):
            raise PlaceError(f"path {path!r} leaves its folder", remedy="use a path below it")
        base = str(self.local_path) if self.is_local else self.uri.rstrip("/")
        return f"{base}/{path}" if path else base

    def _put(self, path: str, data: bytes) -> None:
        if not self.is_local:
            self._fs.pipe_file(self._full(path), data)
            return
        target = Path(self._full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    def _try(self, verb: str, path: str, action: Callable[[], T]) -> T:
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except (OSError, TimeoutError) as error:
                if attempt == ATTEMPTS or not (self._may_pass(error)):
                    raise self._translated(error, verb=verb, path=path) from error
            except Exception as error:
                if not type(error).__module__.startswith(("botocore", "aiohttp", "aiobotocore")):
                    raise
                if attempt == ATTEMPTS or "Credential" in type(error).__name__:
                    raise self._translated(error, verb=verb, path=path) from error
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _may_pass(self, error: OSError) -> bool:
        return not self.is_local and not isinstance(error, _FINAL_KINDS) and error.errno not in _FINAL_ERRNOS

    def _translated(self, error: BaseException, *, verb: str, path: str) -> MissingError | PlaceError:
        full = self._full(path)
        code = getattr(error, "errno", None)
        if isinstance(error, FileNotFoundError):
            return MissingError(f"{full} is not there", remedy="check the address")
        if isinstance(error, PermissionError) or code in (errno.EACCES, errno.EPERM, errno.EROFS):
            return PlaceError(
                f"no permission to {verb} {full}", remedy="choose another folder or change its permissions"
            )
        if code in (errno.ENOSPC, errno.EDQUOT):
            return PlaceError(f"no space left to write {full}", remedy="free some space or choose another folder")
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = (
            "check the folder and its disk" if self.is_local else "check the address, the server and the credentials"
        )
        if "Credential" in type(error).__name__:
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return PlaceError(f"cannot {verb} {full} ({reason})", remedy=remedy)


def _version(facts: dict[str, Any]) -> str:
    # The same object has its tag in quotes or without, by the request that told it.
    if tag := str(facts.get("ETag") or "").strip('"'):
        return f"etag:{tag}"
    changed = facts.get("mtime", facts.get("created", facts.get("LastModified", "")))
    return f"modified:{changed}"


def _s3() -> Any:
    # Retries of botocore within those of s3fs within ours would turn a mistyped endpoint into minutes of silence.
    settings = {
        "retries": {"max_attempts": 0},
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
    }
    system = fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=settings)
    system.retries = 1
    return system
