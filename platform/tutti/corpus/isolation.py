"""Untrusted bytes are read in a child process that may die.

Bytes that crash a parser written in C++ exist, and so do files that a parser chews on for minutes. One child reads many
files a call and says which one it begins; where it dies, fails or is silent for too long, a new child takes the files
before and after that one, and another one that file alone: a machine that was busy for a moment, or neighbours that
filled the memory, cost no file. What is lost then is lost, and the caller learns why. The child ends with its parent:
it reads from a socket whose other end then closes.

What comes back from the child is plain JSON and columns, never a pickle: the child has handled hostile bytes.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tutti.errors import PlaceError

File = tuple[str, bytes]
Columns = dict[str, NDArray[Any]]
Work = Callable[[Sequence[File], Mapping[str, Any], Callable[[int], None]], tuple[dict[str, Any], Columns]]
"""What runs in the child: files (name and bytes), options and a function to be told of each file before it is touched;
gives facts (JSON) and columns."""

START_TIMEOUT_S = 60.0
DEFAULT_TIMEOUT_S = 10.0
# Of address space, in which libraries and stacks count too: a file that asks for more fails alone, not the machine.
MEMORY_BYTES = 6 * 2**30
MAX_DETAIL_CHARACTERS = 300

_SIZES = struct.Struct(">QQ")
_HELLO, _FILE, _DONE, _FAILED = "hello", "file", "done", "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child made of the files ``start`` to ``stop``."""

    start: int
    stop: int
    facts: dict[str, Any]
    columns: Columns


@dataclass(frozen=True, slots=True)
class Lost:
    """A file that cost the child its life, or its patience."""

    file: int
    reason: str
    detail: str


class _FileLostError(Exception):
    """The child was lost on the file of this number, counted from the first of its call."""

    def __init__(self, file: int, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.file, self.reason, self.detail = file, reason, detail


class IsolatedReader:
    """One child process, started at the first file and again after it died.

    Not for several threads at once.

    Args:
        work: ``module:function`` of a :data:`Work`.
        timeout_s: how long one file may take.
    """

    def __init__(self, *, work: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._work = work
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first file and after a death."""
        return None if self._child is None else self._child.pid

    def read(
        self, files: Sequence[File], options: Mapping[str, Any], *, alone: Collection[int] = ()
    ) -> tuple[list[Answer], list[Lost]]:
        """What the child makes of ``files``, in their order, and the files that it could not survive.

        Each file is in one answer or lost; an answer may hold refusals of its own.

        Args:
            files: name and bytes of each.
            options: for the child's function, as plain JSON values.
            alone: files that may be large in memory, each of which gets a call of its own.

        Raises:
            PlaceError: no child can be started.
        """
        answers, lost = [], []
        waiting = [(start, stop, False) for start, stop in _stretches(len(files), alone)]
        while waiting:
            start, stop, was_lost = waiting.pop()
            if was_lost:
                self.close()
            try:
                facts, columns = self._asked(files[start:stop], options)
            except _FileLostError as loss:
                at = start + loss.file
                if was_lost:
                    lost.append(Lost(at, loss.reason, loss.detail))
                    continue
                rest = ((at, at + 1, True), (at + 1, stop, False), (start, at, False))
                waiting += [stretch for stretch in rest if stretch[0] < stretch[1]]
            else:
                answers.append(Answer(start, stop, facts, columns))
        return sorted(answers, key=lambda answer: answer.start), sorted(lost, key=lambda loss: loss.file)

    def close(self) -> None:
        """End the child."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _asked(self, files: Sequence[File], options: Mapping[str, Any]) -> tuple[dict[str, Any], Columns]:
        line, at = self._connected(), 0
        try:
            line.settimeout(self._timeout_s)
            request = {"files": [(name, len(data)) for name, data in files], "options": dict(options)}
            _send(line, request, *(data for _, data in files))
            while True:
                header, body = _receive(line, timeout_s=self._timeout_s)
                if header["kind"] != _FILE:
                    break
                at = range(len(files))[header["file"]]
            if header["kind"] == _DONE:
                return header["facts"], _unpacked(header["columns"], body)
        except TimeoutError:
            self.close()
            raise _FileLostError(
                at, "parser_timeout", f"the parser did not answer within {self._timeout_s:g} s"
            ) from None
        except OSError:
            raise _FileLostError(at, "parser_crashed", f"the parser died: {self._fate()}") from None
        except (ValueError, LookupError, TypeError):
            self.close()
            raise _FileLostError(at, "parser_crashed", "the parser answered with bytes that are no answer") from None
        # What a reader could not finish may be its memory's fault as well as the file's.
        self.close()
        raise _FileLostError(at, "parser_crashed", str(header.get("detail")))

    def _connected(self) -> socket.socket:
        if self._line is None:
            ours, theirs = socket.socketpair()
            self._scratch = tempfile.TemporaryDirectory(prefix="tutti-reader-")
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tutti.corpus.isolation", str(theirs.fileno()), self._work],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                        "TMPDIR": self._scratch.name,
                        "OMP_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1",
                    },
                )
            self._line = ours
            try:
                _receive(ours, timeout_s=START_TIMEOUT_S)
            except OSError as error:
                fate = "it does not answer" if isinstance(error, TimeoutError) else self._fate()
                self.close()
                raise PlaceError(
                    f"the parser process does not start ({fate})", remedy="check memory and the Python installation"
                ) from error
        return self._line

    def _fate(self) -> str:
        """How the child ended, for people; closes what is left of it."""
        assert self._child is not None
        try:
            code = self._child.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        finally:
            self.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class SharedReader:
    """The one reader of a process for a work, safe from any thread; it ends with the process.

    Args:
        work: ``module:function`` of a :data:`Work`.
    """

    def __init__(self, *, work: str) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._reader: IsolatedReader | None = None
        self._timeout_s = 0.0
        atexit.register(self.close)

    def read(
        self, files: Sequence[File], options: Mapping[str, Any], *, timeout_s: float, alone: Collection[int] = ()
    ) -> tuple[list[Answer], list[Lost]]:
        """As :meth:`IsolatedReader.read`, with ``timeout_s`` for each file."""
        with self._lock:
            if self._reader is None or self._timeout_s != timeout_s:
                self.close()
                self._reader, self._timeout_s = IsolatedReader(work=self._work, timeout_s=timeout_s), timeout_s
            return self._reader.read(files, options, alone=alone)

    def close(self) -> None:
        """End the child."""
        if self._reader is not None:
            self._reader.close()


def _stretches(count: int, alone: Collection[int]) -> list[tuple[int, int]]:
    """Files 0 to ``count`` in runs, those of ``alone`` each by itself; the last first."""
    borders = sorted({0, count, *(border for file in alone for border in (file, file + 1))})
    return list(pairwise(borders))[::-1]


def _send(line: socket.socket, header: dict[str, Any], *body: bytes) -> None:
    text = json.dumps(header).encode()
    line.sendall(_SIZES.pack(len(text), sum(map(len, body))) + text)
    for part in body:
        line.sendall(part)


def _receive(line: socket.socket, *, timeout_s: float | None) -> tuple[dict[str, Any], bytes]:
    """One message, each part of which must come within the time."""
    header_bytes, body_bytes = _SIZES.unpack(_exactly(line, _SIZES.size, timeout_s=timeout_s))
    header = json.loads(_exactly(line, header_bytes, timeout_s=timeout_s))
    return header, _exactly(line, body_bytes, timeout_s=timeout_s)


def _exactly(line: socket.socket, count: int, *, timeout_s: float | None) -> bytes:
    received = bytearray(count)
    view, at = memoryview(received), 0
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while at < count:
        if deadline_s is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            line.settimeout(left_s)
        got = line.recv_into(view[at:])
        if not got:
            raise ConnectionResetError("the other end closed")
        at += got
    return bytes(received)


def _packed(columns: Columns) -> tuple[list[tuple[str, str, int]], bytes]:
    """Name, kind and length of each column, and the bytes of all."""
    held = [(name, np.ascontiguousarray(column)) for name, column in columns.items()]
    return [(name, column.dtype.str, len(column)) for name, column in held], b"".join(
        column.tobytes() for _, column in held
    )


def _unpacked(kinds: list[tuple[str, str, int]], body: bytes) -> Columns:
    columns, at = {}, 0
    for name, kind, length in kinds:
        columns[name] = np.frombuffer(body, dtype=np.dtype(kind), count=length, offset=at)
        at += columns[name].nbytes
    return columns


def _files_of(request: dict[str, Any], body: bytes) -> list[File]:
    files, at = [], 0
    for name, size in request["files"]:
        files.append((name, body[at : at + size]))
        at += size
    return files


def _serve(line: socket.socket, work: str) -> None:
    """The child: files in, columns out, until the parent closes its end."""
    module, _, name = work.partition(":")
    read: Work = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(line, {"kind": _HELLO})
    line.settimeout(None)
    while True:
        try:
            request, body = _receive(line, timeout_s=None)
        except OSError:
            return

        def begin(file: int) -> None:
            _send(line, {"kind": _FILE, "file": file})

        try:
            facts, columns = read(_files_of(request, body), request["options"], begin)
            kinds, packed = _packed(columns)
            reply: dict[str, Any] = {"kind": _DONE, "facts": facts, "columns": kinds}
        except Exception as error:
            # Whatever a reader trips over is the fault of the file that it began last, and must not cost the others.
            text = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_DETAIL_CHARACTERS]
            reply, packed = {"kind": _FAILED, "detail": text}, b""
        _send(line, reply, packed)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
