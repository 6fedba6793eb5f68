"""One face for ``file://``, ``s3://`` and ``memory://``: whole objects in, whole objects out.

A write is complete or absent: local files appear by rename, S3 publishes an object once all its bytes are there. What
fails in passing (a connection cut, a busy server) is asked again in :mod:`tutti.s3` and nowhere else; what is final (no
permission, no bucket, no space) is told at once in one line. Credentials and endpoints come from the environment alone
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``).
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from tutti import s3
from tutti.errors import MissingError, PlaceError
from tutti.s3 import S3, Stored

T = TypeVar("T")

READ_AHEAD_BYTES = 2**22
# Pauses between attempts that wait for a place to come back: short enough that half a minute's outage costs no more.
FIRST_PATIENT_PAUSE_S, LONGEST_PATIENT_PAUSE_S = 1.0, 15.0
_REMEDIES = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "set the clock of this machine",
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "TokenRefreshRequired"), "renew the credentials"),
}
# What a client is made of; another value makes another client.
_S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
)  # fmt: skip
_MAKING = threading.Lock()
_cut_off_until_s = 0.0
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
        return self._try("read", path, lambda full: self._store.read(full))

    def read_range(self, path: str, *, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` (exclusive) of one object, fewer where it ends before."""
        return self._try("read", path, lambda full: self._store.read_range(full, start=start, stop=stop))

    def open(self, path: str) -> BinaryIO:
        """A seekable reader of one object."""
        if self.is_local:
            return self._try("read", path, lambda full: cast(BinaryIO, Path(full).open("rb")))
        reader = _Reader(self, path, size_bytes=self.size_bytes(path))
        return cast(BinaryIO, io.BufferedReader(reader, READ_AHEAD_BYTES))

    def write(self, path: str, data: bytes) -> None:
        """Put one object, whole or not at all, in place of any older one.

        Raises:
            PlaceError: no permission, no space, no connection.
        """
        self._try("write", path, lambda full: self._store.write(full, data))

    def write_from(self, path: str, file: Path) -> None:
        """Put a file of this machine as one object, whole or not at all; it is not held in memory.

        Raises:
            PlaceError: no permission, no space, no connection.
        """
        if not file.stat().st_size:
            self.write(path, b"")
            return
        with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            self._try("write", path, lambda full: self._store.write(full, cast(bytes, mapped)))

    def exists(self, path: str = "") -> bool:
        """Whether an object, or anything below ``path``, is there."""
        return self._try("read", path, lambda full: self._store.exists(full))

    def size_bytes(self, path: str) -> int:
        """Size of one object."""
        return self._try("read", path, lambda full: self._store.size_bytes(full))

    def paths(self, path: str = "") -> list[str]:
        """Relative paths of all objects below ``path``, sorted; empty if nothing is there."""
        return [entry.path for entry in self.entries(path)]

    def entries(self, path: str = "") -> list[Entry]:
        """All objects below ``path``, or the one that it names, sorted by path; no object is read for it."""
        base = self._store.name(self._full("")).rstrip("/") + "/"
        found = [
            Entry(path=name.removeprefix(base), size_bytes=size_bytes, version=version)
            for name, size_bytes, version in self._try("list", path, lambda full: self._store.find(full))
            # A name that ends in a slash is a folder that some program drew into the store.
            if name.startswith(base) and not name.endswith("/") and not _STAGED.fullmatch(name)
        ]
        return sorted(found, key=lambda entry: entry.path)

    def children(self, path: str = "") -> list[str]:
        """Names directly below ``path``, sorted; empty if nothing is there."""
        if self.is_local:
            return self._try("list", path, _children)
        depth = len([part for part in path.split("/") if part])
        split = (name.split("/") for name in self.paths(path))
        return sorted({parts[depth] for parts in split if len(parts) > depth})

    def delete(self, path: str = "") -> None:
        """Remove an object, or everything below ``path``; nothing there is no error."""
        self._try("delete", path, lambda full: self._store.delete(full))

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
    def _store(self) -> _Files | S3:
        protocol = self.uri.partition("://")[0] if "://" in self.uri else "file"
        if protocol not in ("file", "s3", "memory"):
            raise PlaceError(
                f"storage {self.uri!r} is of an unknown kind",
                remedy="use a path, file://, s3:// or memory://",
            )
        return S3(_client, renew=_renew) if protocol == "s3" else _Files(fsspec.filesystem(protocol))

    def _full(self, path: str) -> str:
        if ".." in path.split("/"):
            raise PlaceError(f"path {path!r} leaves its folder", remedy="use a path below it")
        base = str(self.local_path) if self.is_local else self.uri.rstrip("/")
        return f"{base}/{path}" if path else base

    def _try(self, verb: str, path: str, action: Callable[[str], T]) -> T:
        full = self._full(path)
        if _cut_off_until_s > time.monotonic():
            raise PlaceError(f"cannot {verb} {full} (cut off on purpose)", remedy="wait", passes=True)
        try:
            return action(full)
        except Exception as error:
            if not (isinstance(error, OSError) or s3.is_of_client(error)):
                raise
            raise _translated(error, verb=verb, full=full, is_local=self.is_local) from error


def _children(full: str) -> list[str]:
    """Names below a local folder that lead to an object; a catalogue's 100,000 files are not listed for it."""
    if not Path(full).is_dir():
        return []

    def holds(entry: os.DirEntry[str]) -> bool:
        if _STAGED.fullmatch(entry.name):
            return False
        return not entry.is_dir() or any(files for _, _, files in os.walk(entry.path))

    with os.scandir(full) as entries:
        return sorted(entry.name for entry in entries if holds(entry))


def cut_off(seconds: float) -> None:
    """Let every place be away for this process for some seconds, as an outage would: to try what happens then."""
    global _cut_off_until_s
    _cut_off_until_s = time.monotonic() + seconds


def patiently(
    action: Callable[[], T],
    *,
    patience_s: float,
    told: Callable[[str], None] | None = None,
    stopped: threading.Event | None = None,
) -> T:
    """What ``action`` gives, however often its place was away in between.

    :mod:`tutti.s3` asks again for less than a minute, which is long for who typed a wrong address; this is for work
    that would be lost otherwise.

    Args:
        action: may be called several times.
        patience_s: no attempt begins later than this after the first failure.
        told: what failed and when it is tried again, one line each time.
        stopped: set by who no longer wants it; a pause ends at once and the last error is raised.

    Raises:
        PlaceError: one that does not pass, at once; one that passes, once patience has run out.
    """
    failed_s, pause_s = None, FIRST_PATIENT_PAUSE_S
    while True:
        try:
            return action()
        except PlaceError as error:
            now_s = time.monotonic()
            failed_s = now_s if failed_s is None else failed_s
            left_s = failed_s + patience_s - now_s
            if not error.passes or left_s <= 0:
                raise
            pause_s = min(pause_s, left_s)
            if told:
                told(f"{error.what}; trying again in {pause_s:.0f} s, giving up in {left_s:.0f} s")
            if (stopped or threading.Event()).wait(pause_s):
                raise
        pause_s = min(2 * pause_s, LONGEST_PATIENT_PAUSE_S)


class _Reader(io.RawIOBase):
    """An object that is read where it is asked for."""

    def __init__(self, folder: Folder, path: str, *, size_bytes: int) -> None:
        self._folder, self._path, self._size_bytes = folder, path, size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size_bytes)
        data = self._folder.read_range(self._path, start=self._at, stop=stop) if stop > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Files:
    """Objects of a file system of fsspec, on this machine or in memory; its errors never pass."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def name(self, full: str) -> str:
        return str(self._system._strip_protocol(full))

    def read(self, full: str) -> bytes:
        return cast(bytes, self._system.cat_file(full))

    def read_range(self, full: str, *, start: int, stop: int) -> bytes:
        return cast(bytes, self._system.cat_file(full, start=start, end=stop))

    def write(self, full: str, data: bytes) -> None:
        if self._system.protocol == "memory":
            self._system.pipe_file(full, bytes(data))
            return
        target = Path(full)
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

    def exists(self, full: str) -> bool:
        return bool(self._system.exists(full))

    def size_bytes(self, full: str) -> int:
        return int(self._system.size(full))

    def find(self, full: str) -> list[Stored]:
        try:
            found = self._system.find(full, detail=True)
        except FileNotFoundError:
            return []
        return [
            (name, int(facts["size"]), f"modified:{facts.get('mtime', facts.get('created', ''))}")
            for name, facts in found.items()
        ]

    def delete(self, full: str) -> None:
        if self._system.protocol != "memory":
            if self._system.exists(full):
                self._system.rm(full, recursive=True)
            return
        # Not rm: in memory it takes the brackets of a[1].mid for a pattern and deletes a1.mid.
        for name, _, _ in self.find(full):
            self._system.rm_file(name)


def _client() -> Any:
    with _MAKING:
        return _client_of(os.getpid(), tuple(os.environ.get(name) for name in _S3_VARIABLES))


def _renew(client: Any) -> None:
    """Have the next client look its credentials up anew."""
    if _client() is client:
        _client_of.cache_clear()


@lru_cache(maxsize=4)
def _client_of(*_: object) -> Any:
    import botocore.session
    from botocore.config import Config

    # Retries of botocore within ours would turn a mistyped endpoint into minutes of silence.
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=s3.CONNECT_TIMEOUT_S,
        read_timeout=s3.READ_TIMEOUT_S,
        max_pool_connections=4 * s3.TRANSFERS_AT_ONCE,
    )
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    return session.create_client("s3", config=config)


@cache
def _loader() -> Any:
    """The descriptions of services, whose reading is nine tenths of the making of a client."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _translated(error: BaseException, *, verb: str, full: str, is_local: bool) -> MissingError | PlaceError:
    """The one place where foreign errors become Tutti's."""
    code, number = s3.code_of(error), getattr(error, "errno", None)
    if code == "NoSuchBucket":
        return PlaceError(f"bucket {s3.bucket_of(full)!r} is not there", remedy="make it, or check the address")
    if isinstance(error, FileNotFoundError) or code in s3.ABSENT_CODES:
        return MissingError(f"{full} is not there", remedy="check the address")
    if s3.status_of(error) == 403:
        remedy = _REMEDIES.get(code, "choose another folder or change its permissions")
        return PlaceError(f"no permission to {verb} {full} ({code})", remedy=remedy)
    if isinstance(error, PermissionError) or number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PlaceError(f"no permission to {verb} {full}", remedy="choose another folder or change its permissions")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return PlaceError(f"no space left to write {full}", remedy="free some space or choose another folder")
    remedy = "check the folder and its disk" if is_local else "check the address, the server and the credentials"
    if "Credential" in type(error).__name__:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    reason = ": ".join(filter(None, (code, s3.message_of(error)))) or type(error).__name__
    return PlaceError(f"cannot {verb} {full} ({reason})", remedy=_REMEDIES.get(code, remedy), passes=s3.passes(error))
