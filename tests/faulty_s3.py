"""A proxy before the real S3 server that fails requests by a script, in the ways in which networks and servers do.

It stands where a network stands: what it passes on it passes on unchanged, the signed ``Host`` header included. What it
fails is decided by :meth:`FaultyS3.plan` (the next requests that match) and :meth:`FaultyS3.storm` (a share of all). A
storm's draw hashes its seed, the request and how often that request came before, so it does not depend on the order in
which clients ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UPSTREAM_TIMEOUT_S = 60.0
POLL_S = 0.05
# Of one connection alone; the rest of a request is signed or its body.
_HOP_BY_HOP = frozenset(("connection", "expect", "keep-alive", "transfer-encoding"))

# Answers instead of the server's, as S3 itself words them: status, code.
_SAID = {
    "slow_down": (503, "SlowDown"),
    "internal_error": (500, "InternalError"),
    "unavailable": (503, "ServiceUnavailable"),
    "too_many": (429, "TooManyRequests"),
    "request_timeout": (400, "RequestTimeout"),
    "expired_token": (400, "ExpiredToken"),
    "access_denied": (403, "AccessDenied"),
    "no_such_bucket": (404, "NoSuchBucket"),
    "wrong_key": (403, "InvalidAccessKeyId"),
    "wrong_signature": (403, "SignatureDoesNotMatch"),
    "no_such_upload": (404, "NoSuchUpload"),
}
PASSING_ANSWERS = ("slow_down", "internal_error", "unavailable", "too_many", "request_timeout", "expired_token")
FINAL_ANSWERS = ("access_denied", "no_such_bucket", "wrong_key", "wrong_signature")
# Connections that end: before the request was read, in its middle, after the server did it, in the middle of the
# answer's body by a reset, the same in order, and in order in the middle of the answer's head.
CUTS = ("cut_before", "cut_request", "cut_after", "cut_answer", "truncated", "cut_head")
# A 200 whose body is an error, which S3 sends where an upload fails while it is put together.
ERROR_INSIDE = "error_inside"
STALL = "stall"
PASSING = (*PASSING_ANSWERS, *CUTS, ERROR_INSIDE)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the server said."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class FaultyS3:
    """The proxy, in threads of its own.

    Args:
        upstream: endpoint of the real server, ``http://host:port``.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self.upstream = (host, int(port))
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._planned: list[tuple[str, str]] = []
        self._storm: tuple[float, int, tuple[str, ...]] = (0.0, 0, ())
        self._asked: Counter[str] = Counter()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL_S})
        self._thread.start()

    def plan(self, *faults: str, match: str = "") -> None:
        """Fail the next requests whose ``METHOD /path?query`` contains ``match``, one each, in this order."""
        with self._lock:
            self._planned.extend((fault, match) for fault in faults)

    def storm(self, share: float, *, seed: int, kinds: tuple[str, ...] = PASSING) -> None:
        """From now on fail a share of all requests, each in one of ``kinds``; the counts begin anew."""
        with self._lock:
            self._storm = (share, seed, kinds)
            self._asked.clear()
            self.counts.clear()

    def calm(self) -> None:
        """From now on pass everything on; the counts begin anew."""
        self.storm(0.0, seed=0)
        with self._lock:
            self._planned.clear()

    @property
    def failed(self) -> int:
        """Requests that were failed since the counts began."""
        return self.counts.total() - self.counts["passed"]

    def close(self) -> None:
        """End all threads."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def draw(self, request: str, *, has_body: bool) -> str:
        """What becomes of one request: ``passed`` or a fault. It counts."""
        with self._lock:
            fault = self._planned_for(request) or self._drawn_for(request)
            if fault == "cut_request" and not has_body:
                fault = "cut_before"
            if fault == ERROR_INSIDE and not _completes(request):
                fault = "internal_error"
            self.counts[fault] += 1
            return fault

    def _planned_for(self, request: str) -> str:
        for index, (fault, match) in enumerate(self._planned):
            if match in request:
                del self._planned[index]
                return fault
        return ""

    def _drawn_for(self, request: str) -> str:
        share, seed, kinds = self._storm
        # The server draws the name of an upload anew in each run.
        name = re.sub(r"uploadId=[^&]*", "", request)
        self._asked[name] += 1
        digest = hashlib.blake2b(f"{seed} {self._asked[name]} {name}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8], "big") >= share * 2.0**64:
            return "passed"
        return kinds[int.from_bytes(digest[8:], "big") % len(kinds)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # More than a client's pool opens at once.
    request_queue_size = 128
    proxy: FaultyS3

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is the point of this server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _upstream: http.client.HTTPConnection | None = None

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Wait until it is decided whether the body is read at all."""
        return True

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
        fault = self.server.proxy.draw(f"{self.command} {self.path}", has_body=size > 1)
        if fault == "cut_before":
            self._reset()
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if fault == "cut_request":
            self._pass_half(size)
            self._reset()
            return
        body = b"".join(self._chunks()) if chunked else self.rfile.read(size)
        if fault == STALL:
            self._stall()
        elif fault == ERROR_INSIDE:
            self._send(_said(200, "InternalError", path=self.path))
        elif fault in _SAID:
            status, code = _SAID[fault]
            self._send(_said(status, code, path=self.path))
        else:
            answer = self._ask(body)
            self._send(answer, fault=fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _ask(self, body: bytes) -> _Answer:
        """Pass the request on; a kept connection that the server closed meanwhile is made anew."""
        for is_last in (False, True):
            connection = self._upstream = self._upstream or self._connected()
            try:
                self._put_head(connection, length=len(body))
                connection.send(body)
                answer = connection.getresponse()
                return _Answer(answer.status, answer.reason, tuple(answer.getheaders()), answer.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                self._upstream = None
                if is_last:
                    raise
        raise AssertionError("unreachable: the second try returns or raises")

    def _connected(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=UPSTREAM_TIMEOUT_S)
        connection.connect()
        return connection

    def _put_head(self, connection: http.client.HTTPConnection, *, length: int) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length":
                connection.putheader(name, value)
        if length or self.command in ("PUT", "POST"):
            connection.putheader("Content-Length", str(length))
        connection.endheaders()

    def _pass_half(self, size: int) -> None:
        """Let the server have the first half of a body that was announced whole."""
        connection = self._connected()
        self._put_head(connection, length=size)
        connection.send(self.rfile.read(size // 2))
        connection.close()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _send(self, answer: _Answer, *, fault: str = "passed") -> None:
        if fault == "cut_after":
            self._reset()
            return
        # Of a HEAD the server tells the length of what it does not send.
        told = next((value for name, value in answer.headers if name.lower() == "content-length"), "0")
        body = b"" if self.command == "HEAD" else answer.body
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [
            f"{name}: {value}" for name, value in answer.headers if name.lower() not in {*_HOP_BY_HOP, "content-length"}
        ]
        lines.append(f"Content-Length: {told if self.command == 'HEAD' else len(body)}")
        whole = "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body
        if fault not in ("cut_answer", "truncated", "cut_head"):
            self.wfile.write(whole)
            return
        # An answer without a body is cut in its head.
        in_head = fault == "cut_head" or not body
        self.wfile.write(whole[: (len(whole) - len(body)) // 2 if in_head else len(whole) - (len(body) + 1) // 2])
        self.close_connection = True
        if fault == "cut_answer":
            self._reset()

    def _reset(self) -> None:
        """End the connection by RST, not in order."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The server's own shutdown would say goodbye in order first.
        self.connection.close()
        self.rfile.close()

    def _stall(self) -> None:
        """Say nothing until the client gives up."""
        self.close_connection = True
        while not self.server.proxy.closing.is_set():
            if select.select([self.connection], [], [], POLL_S)[0] and not self.connection.recv(1):
                return


def _completes(request: str) -> bool:
    return request.startswith("POST ") and "uploadId=" in request


def _said(status: int, code: str, *, path: str) -> _Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>scripted {code}</Message><Resource>{path.partition('?')[0]}</Resource>"
        "<RequestId>scripted</RequestId></Error>"
    ).encode()
    return _Answer(status, http.client.responses[status], (("Content-Type", "application/xml"),), body)
