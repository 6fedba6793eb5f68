"""Untrusted bytes are parsed in a child process that may die.

Bytes that crash a parser written in C++ exist, and so do files that a parser chews on for minutes. One child reads file
after file; where it dies or does not answer in time, that file alone is refused and the next one gets a new child. The
child ends with its parent: it reads from a socket whose other end then closes.

What comes back from the child is plain JSON and columns, never a pickle: the child has handled hostile bytes.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

import numpy as np

from tutti.corpus.score import Score
from tutti.errors import DataError, PlaceError

DEFAULT_PARSER = "tutti.corpus.formats:parse"
START_TIMEOUT_S = 60.0
DEFAULT_TIMEOUT_S = 10.0
MAX_DETAIL_CHARACTERS = 300

_SIZES = struct.Struct(">II")
_HELLO, _SCORES, _REFUSED, _FAILED = "hello", "scores", "refused", "failed"


class IsolatedParser:
    """One child process, started at the first file and again after it died.

    Not for several threads at once.

    Args:
        parser: ``module:function`` that takes bytes and keywords and returns a list of scores.
        timeout_s: how long one file may take.
    """

    def __init__(self, *, parser: str = DEFAULT_PARSER, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._parser = parser
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

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

    def parse(self, data: bytes, **options: Any) -> list[Score]:
        """The parser's scores of ``data``.

        Args:
            data: the file.
            options: keywords of the parser, as plain JSON values.

        Raises:
            DataError: what the parser refused; parser_crashed; parser_timeout.
            PlaceError: no child can be started.
        """
        line = self._connected()
        try:
            line.settimeout(self._timeout_s)
            _send(line, options, data)
            header, body = _receive(line, deadline_s=time.monotonic() + self._timeout_s)
            if header["kind"] == _SCORES:
                return _unpacked(header["scores"], body)
        except TimeoutError:
            self.close()
            raise DataError("parser_timeout", f"the parser did not answer within {self._timeout_s:g} s") from None
        except OSError:
            raise DataError("parser_crashed", f"the parser died: {self._fate()}") from None
        except (ValueError, KeyError, TypeError):
            self.close()
            raise DataError("parser_crashed", "the parser answered with bytes that are no answer") from None
        if header["kind"] == _REFUSED:
            raise DataError(header["reason"], header["detail"])
        raise DataError("parser_crashed", header["detail"])

    def close(self) -> None:
        """End the child."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _connected(self) -> socket.socket:
        if self._line is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tutti.corpus.isolation", str(theirs.fileno()), self._parser],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
                )
            self._line = ours
            try:
                _receive(ours, deadline_s=time.monotonic() + START_TIMEOUT_S)
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


def read_untrusted(data: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Score:
    """The score of a MIDI file whose bytes nobody vouches for; safe from any thread.

    Raises:
        DataError: what :func:`tutti.corpus.midi.read_midi` refuses; parser_crashed; parser_timeout.
    """
    return parse_untrusted(data, name="upload.mid", tempo_without_mark_qpm=0.0, timeout_s=timeout_s)[0]


def parse_untrusted(
    data: bytes, *, name: str, tempo_without_mark_qpm: float, timeout_s: float = DEFAULT_TIMEOUT_S
) -> list[Score]:
    """As :func:`tutti.corpus.formats.parse`, in this process's one child for that."""
    with _SHARED_LOCK:
        shared = _SHARED.setdefault(timeout_s, IsolatedParser(timeout_s=timeout_s))
        return shared.parse(data, name=name, tempo_without_mark_qpm=tempo_without_mark_qpm)


_SHARED_LOCK = threading.Lock()
_SHARED: dict[float, IsolatedParser] = {}


@atexit.register
def _close_shared() -> None:
    for parser in _SHARED.values():
        parser.close()


def _send(line: socket.socket, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    line.sendall(_SIZES.pack(len(text), len(body)) + text + body)


def _receive(line: socket.socket, *, deadline_s: float | None) -> tuple[dict[str, Any], bytes]:
    header_bytes, body_bytes = _SIZES.unpack(_exactly(line, _SIZES.size, deadline_s=deadline_s))
    header = json.loads(_exactly(line, header_bytes, deadline_s=deadline_s))
    return header, _exactly(line, body_bytes, deadline_s=deadline_s)


def _exactly(line: socket.socket, count: int, *, deadline_s: float | None) -> bytes:
    received = bytearray()
    while len(received) < count:
        if deadline_s is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            line.settimeout(left_s)
        part = line.recv(min(count - len(received), 1 << 20))
        if not part:
            raise ConnectionResetError("the other end closed")
        received += part
    return bytes(received)


def _packed(scores: list[Score]) -> tuple[list[dict[str, Any]], bytes]:
    """Scores as a JSON header (names, kinds, sizes) and the bytes of their columns."""
    headers, body = [], bytearray()
    for score in scores:
        columns = score.columns()
        header: dict[str, Any] = {"title": score.title, "composer": score.composer, "columns": []}
        for name, value in columns.items():
            if isinstance(value, np.ndarray):
                header["columns"].append((name, value.dtype.str, len(value)))
                body += value.tobytes()
            else:
                header[name] = value
        headers.append(header)
    return headers, bytes(body)


def _unpacked(headers: list[dict[str, Any]], body: bytes) -> list[Score]:
    scores, at = [], 0
    for header in headers:
        row = {name: value for name, value in header.items() if name != "columns"}
        for name, kind, length in header["columns"]:
            row[name] = np.frombuffer(body, dtype=np.dtype(kind), count=length, offset=at)
            at += row[name].nbytes
        scores.append(Score.from_columns(row))
    return scores


def _serve(line: socket.socket, parser: str) -> None:
    """The child: files in, scores or refusals out, until the parent closes its end."""
    module, _, name = parser.partition(":")
    parse = getattr(importlib.import_module(module), name)
    _send(line, {"kind": _HELLO}, b"")
    while True:
        try:
            options, data = _receive(line, deadline_s=None)
        except OSError:
            return
        try:
            headers, body = _packed(parse(data, **options))
            reply: dict[str, Any] = {"kind": _SCORES, "scores": headers}
        except DataError as error:
            reply, body = {"kind": _REFUSED, "reason": error.reason, "detail": error.detail}, b""
        except Exception as error:
            # Whatever a parser trips over is this file's fault, and must not cost the files after it.
            text = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_DETAIL_CHARACTERS]
            reply, body = {"kind": _FAILED, "detail": text}, b""
        _send(line, reply, body)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
