"""S3 while requests fail: what passes is passed over, what is final is told at once, no half object is met."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import botocore.exceptions
import botocore.httpsession
import botocore.parsers
import pytest
from botocore.exceptions import ClientError
from s3fs.errors import ERROR_CODE_TO_EXCEPTION

from tests.faulty_s3 import CUTS, ERROR_INSIDE, PASSING, STALL, FaultyS3
from tutti import s3
from tutti.errors import MissingError, PlaceError
from tutti.storage import Folder

VERBS: dict[str, Callable[[Folder], object]] = {
    "read": lambda folder: folder.read("a/b"),
    "read a range": lambda folder: folder.read_range("a/b", start=2, stop=5),
    "open": lambda folder: folder.open("a/b").read(),
    "write": lambda folder: (folder.write("a/c", b"new"), folder.read("a/c")),
    "list": lambda folder: [(entry.path, entry.size_bytes) for entry in folder.entries()],
    "list one": lambda folder: folder.paths("a/b"),
    "exists": lambda folder: (folder.exists("a/b"), folder.exists("a"), folder.exists("z")),
    "size": lambda folder: folder.size_bytes("a/b"),
    "delete": lambda folder: (folder.delete("a"), folder.paths()),
}
FAULTS_EACH = 3
REQUESTS_OF_AN_INGEST = 3_000_000
FAILING_SHARE = 0.3


@pytest.fixture
def faulty(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def folder(faulty: FaultyS3) -> Folder:
    return Folder(f"s3://tests/{uuid.uuid4().hex}")


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_passed_over(
    faulty: FaultyS3, folder: Folder, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.005)
    for verb, action in VERBS.items():
        found = []
        for faults in (0, FAULTS_EACH):
            folder.delete()
            folder.write("a/b", b"0123456789")
            faulty.calm()
            faulty.plan(*[fault] * faults)
            found.append(action(folder))
            assert faulty.failed == faults, verb
        assert found[0] == found[1], verb


FINAL_LINES = {
    "access_denied": r"no permission to {verb} s3://\S+ \(AccessDenied\): choose another folder or change its perm",
    "no_such_bucket": r"bucket 'tests' is not there: make it, or check the address",
    "wrong_key": r"no permission to {verb} s3://\S+ \(InvalidAccessKeyId\): check AWS_ACCESS_KEY_ID",
    "wrong_signature": r"no permission to {verb} s3://\S+ \(SignatureDoesNotMatch\): check AWS_SECRET_ACCESS_KEY",
}


@pytest.mark.parametrize("verb", ["read", "write", "list"])
@pytest.mark.parametrize("fault", FINAL_LINES)
def test_what_is_final_is_told_at_once(faulty: FaultyS3, folder: Folder, fault: str, verb: str) -> None:
    faulty.plan(fault)
    with pytest.raises(PlaceError, match=FINAL_LINES[fault].format(verb=verb)) as raised:
        VERBS[verb](folder)
    assert "\n" not in str(raised.value)
    assert faulty.counts == {fault: 1}


def test_a_bucket_that_is_not_there_is_told_by_a_real_server(faulty: FaultyS3) -> None:
    folder = Folder("s3://no-such-bucket/x")
    for verb in ("read", "list", "exists"):
        with pytest.raises(PlaceError, match="bucket 'no-such-bucket' is not there"):
            VERBS[verb](folder)
    with pytest.raises(PlaceError, match="bucket 'no-such-bucket' is not there"):
        folder.check_writable()
    assert faulty.counts.total() <= 5


def test_silence_costs_its_timeout_and_no_more(
    faulty: FaultyS3, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    faulty.plan(STALL, STALL)
    started_s = time.monotonic()
    folder.write("a", b"x")
    assert 0.6 < time.monotonic() - started_s < 5
    assert faulty.counts == {STALL: 2, "passed": 1}


def test_lasting_silence_ends_with_the_budget(
    faulty: FaultyS3, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(s3, "BUDGET_S", 2.0)
    folder.exists()
    faulty.storm(1.0, seed=0, kinds=(STALL,))
    started_s = time.monotonic()
    with pytest.raises(PlaceError, match=r"cannot read s3://\S+ \(Read timeout on endpoint URL"):
        folder.read("a")
    assert 2 < time.monotonic() - started_s < 10
    assert 2 <= faulty.counts[STALL] <= 7


def test_lasting_answers_end_with_the_attempts(
    faulty: FaultyS3, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 4)
    faulty.storm(1.0, seed=0, kinds=("expired_token",))
    with pytest.raises(PlaceError, match=r"cannot read \S+ \(ExpiredToken: scripted ExpiredToken\): renew the cred"):
        folder.read("a")
    assert faulty.counts == {"expired_token": 4}


def test_an_expired_token_has_the_credentials_looked_up_anew(
    faulty: FaultyS3, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "credentials"
    names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    good = "".join(f"{name} = {os.environ[variable]}\n" for name, variable in names.items())
    for variable in names.values():
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(kept))
    kept.write_text("[default]\naws_access_key_id = yesterday\naws_secret_access_key = yesterday\n")
    with pytest.raises(PlaceError, match="InvalidAccessKeyId"):
        folder.write("a", b"x")
    kept.write_text(f"[default]\n{good}")
    with pytest.raises(PlaceError, match="InvalidAccessKeyId"):
        folder.write("a", b"x")
    faulty.plan("expired_token")
    folder.write("a", b"x")
    assert folder.read("a") == b"x"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """S3 itself takes no smaller parts."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)
    monkeypatch.setattr(s3, "WHOLE_BYTES", 8 * 2**20)
    return 5 * 2**20


def pattern(size_bytes: int, *, seed: int = 1) -> bytes:
    unit = b"".join(number.to_bytes(4, "big") for number in range(seed, seed + 2**16))
    return (unit * (size_bytes // len(unit) + 1))[:size_bytes]


@pytest.mark.parametrize("fault", ["cut_request", "cut_after", "cut_head", "slow_down"])
def test_a_failed_part_of_an_upload_is_sent_again_alone(
    faulty: FaultyS3, folder: Folder, small_parts: int, fault: str
) -> None:
    data = pattern(3 * small_parts + 7)
    faulty.plan(fault, fault, match="partNumber=2")
    folder.write("large", data)
    # To begin, four parts, to complete.
    assert faulty.counts == {fault: 2, "passed": 6}
    assert folder.read("large") == data


@pytest.mark.parametrize("fault", ["cut_after", "cut_answer", "truncated", "cut_head", ERROR_INSIDE, "no_such_upload"])
def test_a_completion_whose_answer_is_lost_ends_in_a_whole_object(
    faulty: FaultyS3, folder: Folder, small_parts: int, fault: str
) -> None:
    data = pattern(2 * small_parts)
    folder.write("large", data[:1])
    # The beginning of an upload is a POST without the name of one.
    faulty.plan(fault, match="POST /tests/" + folder.uri.rpartition("/")[2] + "/large?uploadId=")
    folder.write("large", data)
    assert faulty.counts[fault] == 1
    assert folder.read("large") == data


def test_a_write_that_fails_for_good_leaves_the_older_object(
    faulty: FaultyS3, folder: Folder, small_parts: int
) -> None:
    folder.write("large", b"older")
    faulty.plan("access_denied", match="partNumber=2")
    with pytest.raises(PlaceError, match=r"no permission to write \S+/large"):
        folder.write("large", pattern(3 * small_parts))
    assert folder.read("large") == b"older"
    assert folder.paths() == ["large"]


@pytest.mark.parametrize("fault", CUTS)
def test_a_range_that_is_cut_is_read_again_alone(
    faulty: FaultyS3, folder: Folder, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(2**20 + 3)
    folder.write("a", data)
    monkeypatch.setattr(s3, "PART_BYTES", 2**17)
    monkeypatch.setattr(s3, "WHOLE_BYTES", 2**18)
    faulty.calm()
    faulty.plan(*[fault] * 5, match="GET")
    assert folder.read("a") == data
    # One request tells the size, nine bring the parts; the first is left before its body, where a cut does no harm.
    assert faulty.counts.total() - 5 in (9, 10)
    assert faulty.failed == 5
    assert folder.read_range("a", start=5, stop=2**20 + 10) == data[5:]
    assert folder.read_range("a", start=2**19, stop=2**19 + 10) == data[2**19 : 2**19 + 10]
    assert folder.read_range("a", start=2**21, stop=2**21 + 10) == b""
    assert folder.read_range("a", start=4, stop=4) == b""


def test_a_reader_seeks_and_is_cut(faulty: FaultyS3, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(300_000)
    folder.write("a", data)
    monkeypatch.setattr("tutti.storage.READ_AHEAD_BYTES", 2**14)
    faulty.storm(FAILING_SHARE, seed=5)
    with folder.open("a") as file:
        assert file.read(10) == data[:10]
        assert file.seek(-1000, 2) == 299_000
        assert file.read() == data[-1000:]
        file.seek(123)
        assert file.read(200_000) == data[123:200_123]
        assert file.read(-1) == data[200_123:]
        assert file.read() == b""
    assert faulty.failed
    with pytest.raises(MissingError, match="is not there"):
        folder.open("b")


def test_an_object_that_changes_while_its_parts_are_read_is_told(
    faulty: FaultyS3, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 2**17)
    monkeypatch.setattr(s3, "WHOLE_BYTES", 2**18)
    monkeypatch.setattr(s3, "TRANSFERS_AT_ONCE", 1)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1.0)
    folder.write("a", pattern(2**18 + 1))
    faulty.plan("passed", "passed", STALL, match="GET")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(folder.read, "a")
        deadline_s = time.monotonic() + 20
        while not faulty.counts[STALL]:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        folder.write("a", pattern(2**18 + 1, seed=2))
        with pytest.raises(PlaceError, match="changed while it was read: read it when it is written"):
            reading.result()


def test_every_page_of_a_listing_is_asked_again_alone(faulty: FaultyS3, folder: Folder) -> None:
    names = [f"{number:04d}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: folder.write(name, b""), names))
    faulty.calm()
    faulty.plan("truncated", "slow_down", "cut_head", match="GET")
    faulty.plan("cut_answer", "internal_error", "cut_head", match="continuation-token")
    assert folder.paths() == names
    assert faulty.counts["passed"] == 2
    assert faulty.failed == 6


def test_a_storm_changes_nothing(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.005)
    # A name that is the same in each run, for the storm's draws hash it.
    folder, model = Folder("s3://tests/storm"), dict[str, bytes]()
    faulty.storm(FAILING_SHARE, seed=7)
    for step in range(100):
        path = f"{'ab'[step % 2]}/{step * 7 % 23}"
        model[path] = pattern(step * 997 % 30_000, seed=step)
        folder.write(path, model[path])
        assert folder.read(path) == model[path]
        if step % 10 == 9:
            gone = sorted(model)[step % len(model)]
            folder.delete(gone)
            del model[gone]
    assert {path: folder.read(path) for path in folder.paths()} == model
    asked = faulty.counts.total()
    assert 0.25 < faulty.failed / asked < 0.35
    assert set(faulty.counts) == {*PASSING, "passed"} - {ERROR_INSIDE}


def test_a_writer_that_is_killed_leaves_the_older_object(faulty: FaultyS3, folder: Folder) -> None:
    """Killed in the middle of a body, of a part, and before the completion."""
    for match, size_bytes in (("PUT", 2**20), ("partNumber=2", 40 * 2**20), ("POST", 40 * 2**20)):
        folder.write("a", b"older")
        faulty.calm()
        faulty.plan(*["passed"] * (match == "POST"), STALL, match=match)
        script = f"import sys; from tutti.storage import Folder; Folder(sys.argv[1]).write('a', bytes({size_bytes}))"
        child = subprocess.Popen([sys.executable, "-c", script, folder.uri])
        deadline_s = time.monotonic() + 60
        while not faulty.counts[STALL]:
            assert child.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert folder.read("a") == b"older"
        assert folder.paths() == ["a"]


def test_the_constants_hold_what_they_promise() -> None:
    assert FAILING_SHARE**s3.ATTEMPTS * REQUESTS_OF_AN_INGEST < 0.001
    pauses_s = [min(s3.FIRST_PAUSE_S * 2**at, s3.LONGEST_PAUSE_S) for at in range(s3.ATTEMPTS - 1)]
    assert 14 < sum(pauses_s) / 2 < sum(pauses_s) < 30 < s3.BUDGET_S
    assert s3.BUDGET_S + s3.READ_TIMEOUT_S < 60


# What a new version of the libraries adds fails these two tests until somebody decides on it.
FINAL_CODES = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AmbiguousGrantByEmailAddress",
    "AuthorizationHeaderMalformed",
    "BucketAlreadyExists",
    "BucketAlreadyOwnedByYou",
    "BucketNotEmpty",
    "CredentialsNotSupported",
    "CrossLocationLoggingProhibited",
    "EntityTooLarge",
    "EntityTooSmall",
    "IllegalLocationConstraintException",
    "IllegalVersioningConfigurationException",
    "IncorrectNumberOfFilesInPostRequest",
    "InlineDataTooLarge",
    "InvalidAccessKeyId",
    "InvalidAddressingHeader",
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidDigest",
    "InvalidEncryptionAlgorithmError",
    "InvalidLocationConstraint",
    "InvalidObjectState",
    "InvalidPart",
    "InvalidPartOrder",
    "InvalidPayer",
    "InvalidPolicyDocument",
    "InvalidRange",
    "InvalidRequest",
    "InvalidSOAPRequest",
    "InvalidSecurity",
    "InvalidStorageClass",
    "InvalidTargetBucketForLogging",
    "InvalidToken",
    "InvalidURI",
    "KeyTooLongError",
    "MalformedACLError",
    "MalformedPOSTRequest",
    "MalformedXML",
    "MaxMessageLengthExceeded",
    "MaxPostPreDataLengthExceededError",
    "MetadataTooLarge",
    "MethodNotAllowed",
    "MissingAttachment",
    "MissingContentLength",
    "MissingRequestBodyError",
    "MissingSecurityElement",
    "MissingSecurityHeader",
    "NoLoggingStatusForKey",
    "NoSuchBucket",
    "NoSuchBucketPolicy",
    "NoSuchKey",
    "NoSuchLifecycleConfiguration",
    "NoSuchUpload",
    "NoSuchVersion",
    "NotImplemented",
    "NotSignedUp",
    "PermanentRedirect",
    "PreconditionFailed",
    "Redirect",
    "RequestIsNotMultiPartContent",
    "RequestTimeTooSkewed",
    "RequestTorrentOfBucketError",
    "RestoreAlreadyInProgress",
    "SignatureDoesNotMatch",
    "TooManyBuckets",
    "UnexpectedContent",
    "UnresolvableGrantByEmailAddress",
    "UserKeyMustBeSpecified",
    "301",
    "403",
    "404",
    "405",
    "412",
    "416",
    "501",
]

PASSING_EXCEPTIONS = [
    "CapacityNotAvailableError",
    "ChecksumError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "CredentialRetrievalError",
    "EndpointConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "MetadataRetrievalError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "SSLError",
    "TokenRetrievalError",
]

FINAL_EXCEPTIONS = [
    "AliasConflictParameterError",
    "ApiVersionNotFoundError",
    "AwsChunkedWrapperError",
    "BaseEndpointResolverError",
    "BotoCoreError",
    "ClientError",
    "ConfigNotFound",
    "ConfigParseError",
    "DataNotFoundError",
    "EndpointProviderError",
    "EndpointResolutionError",
    "EndpointVariantError",
    "EventStreamError",
    "InfiniteLoopConfigError",
    "InvalidChecksumConfigError",
    "InvalidConfigError",
    "InvalidDNSNameError",
    "InvalidDefaultsMode",
    "InvalidEndpointConfigurationError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidExpressionError",
    "InvalidHostLabelError",
    "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError",
    "InvalidMaxRetryAttemptsError",
    "InvalidProxiesConfigError",
    "InvalidRegionError",
    "InvalidRetryConfigurationError",
    "InvalidRetryModeError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "InvalidSTSRegionalEndpointsConfigError",
    "LoginAuthorizationCodeError",
    "LoginError",
    "LoginInsufficientPermissions",
    "LoginRefreshRequired",
    "LoginTokenLoadError",
    "MD5UnavailableError",
    "MissingDependencyException",
    "MissingParametersError",
    "MissingServiceIdError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "NoRegionError",
    "OperationNotPageableError",
    "PaginationError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RangeError",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "SSOTokenLoadError",
    "ServiceNotInRegionError",
    "StubAssertionError",
    "StubResponseError",
    "UnStubbedResponseError",
    "UnauthorizedSSOTokenError",
    "UndefinedModelAttributeError",
    "UnknownClientMethodError",
    "UnknownCredentialError",
    "UnknownEndpointError",
    "UnknownEndpointResolutionBuiltInName",
    "UnknownFIPSEndpointError",
    "UnknownKeyError",
    "UnknownParameterError",
    "UnknownRegionError",
    "UnknownServiceError",
    "UnknownServiceStyle",
    "UnknownSignatureVersionError",
    "UnknownTokenProviderError",
    "UnseekableStreamError",
    "UnsupportedOutpostResourceError",
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError",
    "UnsupportedS3ConfigurationError",
    "UnsupportedS3ControlArnError",
    "UnsupportedS3ControlConfigurationError",
    "UnsupportedServiceProtocolsError",
    "UnsupportedSignatureVersionError",
    "ValidationError",
    "WaiterConfigError",
    "WaiterError",
]


@pytest.mark.parametrize("code", ERROR_CODE_TO_EXCEPTION)
def test_every_code_of_s3_passes_or_is_final_on_purpose(code: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")
    assert s3.passes(error) == (code not in FINAL_CODES)
    assert (code in FINAL_CODES) != (code in s3.PASSING_CODES | s3.RENEWABLE_CODES)


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, BaseException)]
    return [kind for kind in kinds if kind.__module__ == module.__name__ and not issubclass(kind, Warning)]


@pytest.mark.parametrize("kind", exceptions_of(botocore.exceptions))
def test_every_exception_of_botocore_passes_or_is_final_on_purpose(kind: type[BaseException]) -> None:
    assert s3.passes(kind.__new__(kind)) == (kind.__name__ in PASSING_EXCEPTIONS)
    assert (kind.__name__ in FINAL_EXCEPTIONS) != (kind.__name__ in PASSING_EXCEPTIONS)


def test_what_cannot_be_parsed_passes_and_what_is_no_error_of_storage_does_not() -> None:
    assert s3.passes(botocore.parsers.ResponseParserError("half a document"))
    assert s3.passes(botocore.httpsession.ProtocolError("cut"))
    assert s3.passes(ConnectionResetError())
    assert s3.passes(TimeoutError())
    untrusted = botocore.exceptions.SSLError(endpoint_url="https://x", error="[SSL: CERTIFICATE_VERIFY_FAILED] expired")
    assert not s3.passes(untrusted)
    assert not s3.passes(KeyError("a bug of ours"))
    assert not s3.passes(FileNotFoundError())


@pytest.mark.parametrize(("status", "is_passing"), [(429, True), (502, True), (504, True), (418, False), (501, False)])
def test_an_answer_of_an_unknown_code_is_judged_by_its_status(status: int, is_passing: bool) -> None:
    answer = {"Error": {"Code": "Novelty"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert s3.passes(ClientError(answer, "GetObject")) == is_passing
