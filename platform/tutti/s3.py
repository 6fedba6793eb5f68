"""Objects of S3, and of servers that speak as it does, under the faults of networks and servers.

Every request is asked persistently: one that fails in passing (a busy server, a cut connection, half a body, silence,
an expired token) is asked again with growing pauses, each page of a listing and each part of a large object on its own;
one that fails for good raises at once. The client is handed in, so that its library has one door; its errors are known
by name.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, TypeVar

from tutti.errors import PlaceError
from tutti.seeding import derive

T = TypeVar("T")
U = TypeVar("U")

Stored = tuple[str, int, str]
"""One object: bucket and key, size in bytes, version (its tag, else when it was written)."""

# Where 30 % of all requests fail, one is given up with a chance of 0.3^20 = 3.5e-11. An ingest of a million files asks
# about three million times (each file once, parts and shards several times): 1 run in 10,000 fails by chance.
ATTEMPTS = 20
# Pauses double up to the longest. Each is shortened by up to a half, so that workers that failed together come back
# apart; a server that refuses every connection is given up after 15 to 29 s.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
# Silence costs a request this long; no attempt begins later than the budget after the first.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 10.0
BUDGET_S = 45.0
# An object beyond the second size travels in parts of the first, some at once, so that a cut connection costs a part.
PART_BYTES, WHOLE_BYTES = 2**24, 2**25
TRANSFERS_AT_ONCE = 8

# Codes (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html) that pass, beside every answer of the
# statuses below. An answer to HEAD has no body, hence no code but its status: 400 is an expired token or a timeout.
PASSING_CODES = frozenset(
    (
        "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
        "SlowDown", "TemporaryRedirect", "XAmzContentSHA256Mismatch",
        "307", "400", "409", "500", "503",
    )
)  # fmt: skip
# Those that pass once the credentials were looked up anew.
RENEWABLE_CODES = frozenset(("ExpiredToken", "TokenRefreshRequired", "400"))
ABSENT_CODES = frozenset(("NoSuchKey", "NoSuchVersion", "404"))
PASSING_STATUSES = frozenset((429, 500, 502, 503, 504))
# Kinds of botocore, and the root of urllib3's, each with all below it.
PASSING_KINDS = frozenset(
    (
        "CapacityNotAvailableError", "ChecksumError", "ConnectionError", "CredentialRetrievalError",
        "FlexibleChecksumError", "HTTPClientError", "HTTPError", "IncompleteReadError", "MetadataRetrievalError",
        "ResponseParserError", "TokenRetrievalError",
    )
)  # fmt: skip


class S3:
    """Whole objects and stretches of them by ``s3://bucket/key``.

    Args:
        client: gives the client to ask; another after ``renew`` or in another process.
        renew: told of a client whose credentials have expired.

    Raises:
        Exception: whatever the client raises, once it is final or was asked again in vain.
    """

    def __init__(self, client: Callable[[], Any], *, renew: Callable[[Any], None]) -> None:
        self._client, self._renew = client, renew

    def name(self, uri: str) -> str:
        """The address as :meth:`find` tells it."""
        return uri.removeprefix("s3://")

    def read(self, uri: str) -> bytes:
        """All bytes of one object."""
        data, size_bytes, _ = self._ask(uri, lambda s3: _get(s3, uri))
        return data if len(data) == size_bytes else self._read_parts(uri, start=0, stop=size_bytes)

    def read_range(self, uri: str, *, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` (exclusive) of one object, fewer where it ends before."""
        if stop <= start:
            return b""
        if stop - start > WHOLE_BYTES:
            return self._read_parts(uri, start=start, stop=min(stop, self.size_bytes(uri)))
        return self._ask(uri, lambda s3: _get(s3, uri, start=start, stop=stop))[0]

    def write(self, uri: str, data: bytes) -> None:
        """Put one object: it is there when all of it is."""
        if len(data) <= WHOLE_BYTES:
            # A stream, because a socket gives all of a bytes object no more time than one block of a stream.
            self._ask(uri, lambda s3: s3.put_object(**_address(uri), Body=io.BytesIO(data)))
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._write_parts(uri, data)
                break
            except Exception as error:
                # Where the answer to a completion was lost, the upload is gone, completed or not. Another does no harm.
                if code_of(error) != "NoSuchUpload" or attempt == ATTEMPTS:
                    raise

    def exists(self, uri: str) -> bool:
        """Whether an object, or anything below it, is there."""
        if self._head(uri):
            return True
        return bool(self._page(uri, **_below(uri), MaxKeys=1).get("Contents"))

    def size_bytes(self, uri: str) -> int:
        """Size of one object.

        Raises:
            FileNotFoundError: it is not there.
        """
        found = self._head(uri)
        if found is None:
            raise FileNotFoundError(uri)
        return found[1]

    def find(self, uri: str) -> list[Stored]:
        """Every object below, or the one of that name."""
        ask, found = _below(uri), list[Stored]()
        while True:
            page = self._page(uri, **ask)
            found += [
                (f"{ask['Bucket']}/{facts['Key']}", int(facts["Size"]), _version(facts))
                for facts in page.get("Contents", ())
            ]
            if not page["IsTruncated"]:
                break
            ask["ContinuationToken"] = page["NextContinuationToken"]
        return found or [one for one in [self._head(uri)] if one]

    def delete(self, uri: str) -> None:
        """Remove what :meth:`find` finds."""
        uris = [f"s3://{name}" for name, _, _ in self.find(uri)]
        _together(lambda one: self._ask(one, lambda s3: s3.delete_object(**_address(one))), uris)

    def _page(self, uri: str, **ask: Any) -> dict[str, Any]:
        return self._ask(uri, lambda s3: _whole(s3.list_objects_v2(**ask), "IsTruncated"))

    def _head(self, uri: str) -> Stored | None:
        where = _address(uri)
        if not where["Key"]:
            return None
        try:
            facts = self._ask(uri, lambda s3: _whole(s3.head_object(**where), "ContentLength"))
        except Exception as error:
            if code_of(error) in ABSENT_CODES:
                return None
            raise
        return f"{where['Bucket']}/{where['Key']}", int(facts["ContentLength"]), _version(facts)

    def _read_parts(self, uri: str, *, start: int, stop: int) -> bytes:
        def part(at: int) -> tuple[bytes, int, str]:
            return self._ask(uri, lambda s3: _get(s3, uri, start=at, stop=min(at + PART_BYTES, stop)))

        parts = _together(part, range(start, stop, PART_BYTES))
        # Compared here, because not every server knows If-Match.
        if len({tag for _, _, tag in parts}) > 1:
            raise PlaceError(f"{uri} changed while it was read", remedy="read it when it is written")
        return b"".join(data for data, _, _ in parts)

    def _write_parts(self, uri: str, data: bytes) -> None:
        where = _address(uri)
        begun = self._ask(uri, lambda s3: _whole(s3.create_multipart_upload(**where), "UploadId"))
        upload = {**where, "UploadId": begun["UploadId"]}

        def part(number: int) -> dict[str, Any]:
            body = data[(number - 1) * PART_BYTES : number * PART_BYTES]
            ask = {**upload, "PartNumber": number}
            sent = self._ask(uri, lambda s3: _whole(s3.upload_part(**ask, Body=io.BytesIO(body)), "ETag"))
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            parts = _together(part, range(1, 1 + -(-len(data) // PART_BYTES)))
            complete = {**upload, "MultipartUpload": {"Parts": parts}}
            self._ask(uri, lambda s3: _whole(s3.complete_multipart_upload(**complete), "ETag"))
        except BaseException:
            # The error that is raised says more. What a killed process leaves of an upload is no object; a rule of the
            # bucket clears it away.
            with suppress(Exception):
                self._client().abort_multipart_upload(**upload)
            raise

    def _ask(self, uri: str, action: Callable[[Any], T]) -> T:
        """One request, asked again while it fails in passing."""
        began_s = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            s3 = self._client()
            try:
                return action(s3)
            except Exception as error:
                if not passes(error) or attempt == ATTEMPTS or time.monotonic() - began_s > BUDGET_S:
                    raise
                if code_of(error) in RENEWABLE_CODES:
                    self._renew(s3)
            time.sleep(_pause_s(uri, attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")


def passes(error: BaseException) -> bool:
    """Whether a request that failed so may succeed when it is asked again."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    if code := code_of(error):
        return code in PASSING_CODES | RENEWABLE_CODES or status_of(error) in PASSING_STATUSES
    return is_of_client(error) and not PASSING_KINDS.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def is_of_client(error: BaseException) -> bool:
    """Whether the library of the client raised it."""
    return type(error).__module__.partition(".")[0] in ("botocore", "urllib3")


def code_of(error: BaseException) -> str:
    """What S3 calls the error; empty where S3 did not answer."""
    return str(_answer_of(error).get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int:
    """HTTP status of the error; 0 where S3 did not answer."""
    return int(_answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def message_of(error: BaseException) -> str:
    """What S3, or else the client, says of the error, in one line."""
    said = _answer_of(error).get("Error", {}).get("Message", "") if code_of(error) else str(error)
    return " ".join(str(said).split())


def bucket_of(uri: str) -> str:
    """The bucket of an address."""
    return str(_address(uri)["Bucket"])


def _answer_of(error: BaseException) -> dict[str, Any]:
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}


def _get(s3: Any, uri: str, *, start: int = 0, stop: int | None = None) -> tuple[bytes, int, str]:
    """One GET with its body, size and tag; a body that should come in parts is left.

    The body is part of the request, so that a cut in its middle fails all of it.
    """
    stretch = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
    try:
        answer = _whole(s3.get_object(**_address(uri), **stretch), "ContentLength")
    except Exception as error:
        if code_of(error) == "InvalidRange":
            return b"", 0, ""
        raise
    size_bytes = int(answer["ContentLength"])
    with closing(answer["Body"]) as body:
        return (body.read() if size_bytes <= WHOLE_BYTES else b""), size_bytes, answer.get("ETag", "")


def _whole(answer: dict[str, Any], field: str) -> dict[str, Any]:
    """The answer, unless it was cut before the field that every such answer has.

    http.client takes a head that ends early for a whole one, so that a cut page of a listing would be an empty one.
    """
    if field not in answer:
        raise ConnectionError(f"the answer ends before its {field}")
    return answer


def _version(facts: Mapping[str, Any]) -> str:
    # The same object has its tag in quotes or without, by the request that told it.
    tag = str(facts.get("ETag") or "").strip('"')
    return f"etag:{tag}" if tag else f"modified:{facts.get('LastModified', '')}"


def _pause_s(uri: str, attempt: int) -> float:
    jitter = derive(0, "s3", os.getpid(), threading.get_ident(), uri, attempt) / 2.0**64
    return min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S) * (1 - jitter)


def _together(action: Callable[[U], T], things: Sequence[U]) -> list[T]:
    if len(things) <= 1:
        return [action(thing) for thing in things]
    with ThreadPoolExecutor(min(TRANSFERS_AT_ONCE, len(things))) as pool:
        return list(pool.map(action, things))


def _address(uri: str) -> dict[str, Any]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def _below(uri: str) -> dict[str, Any]:
    where = _address(uri)
    key = where["Key"].rstrip("/")
    return {"Bucket": where["Bucket"], "Prefix": f"{key}/" if key else ""}
