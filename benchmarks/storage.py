"""Objects on S3 beside plain s3fs and pyarrow: ``python -m benchmarks.storage``.

The server is rclone's S3 on this machine, so what is measured is what a client adds: a network adds the same to all.
Then 30 % of requests fail, in the ways of ``tests/faulty_s3.py``; s3fs and pyarrow try again as their
authors set them. Each contender is one thread of the caller.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs
import s3fs

from benchmarks.harness import Bench, run
from cluster import processes, services
from tests.faulty_s3 import FaultyS3
from tutti import s3
from tutti.errors import UserError
from tutti.storage import Folder

BUCKET = "benchmark"
SMALL_OBJECTS, SMALL_BYTES = 300, 4096
LARGE_SIZES_BYTES = [2**20 * (1 + number) for number in range(8)]
LISTED_OBJECTS = 1500
STORM_OBJECTS = 100
FAILING_SHARE = 0.3
STARTS_WITHIN_S = 30.0


@dataclass(frozen=True)
class Contender:
    """One client, by what it does to an object of the bucket."""

    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]
    names: Callable[[str], list[str]]


@contextmanager
def server() -> Iterator[str]:
    """The endpoint of a real S3 server; credentials are in the environment."""
    with tempfile.TemporaryDirectory(prefix="tutti-storage-") as name:
        home = Path(name)
        (home / "s3" / BUCKET).mkdir(parents=True)
        ports = services.Ports(s3=processes.free_port())
        storage = services.client_environment(
            ports, ray_token_file=Path(os.devnull), s3_key_id="tutti-benchmarks", s3_key=uuid.uuid4().hex
        )
        os.environ.update({name: value for name, value in storage.items() if name.startswith("AWS_")})
        rclone = services.s3_server(home, port=ports.s3, environment=os.environ)
        process = processes.start(
            rclone.command, log=home / "rclone.log", environment={**os.environ, **rclone.environment}
        )
        try:
            if not processes.wait_for_answer(rclone.ready_url, process=process, timeout_s=STARTS_WITHIN_S):
                sys.exit((home / "rclone.log").read_text())
            yield rclone.ready_url.rstrip("/")
        finally:
            processes.stop(process, grace_s=rclone.grace_s)


def contenders(endpoint: str) -> dict[str, Contender]:
    """Tutti, and its peers as their authors set them."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    folder = Folder(f"s3://{BUCKET}")
    plain = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True)
    arrow = pyarrow.fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=endpoint.removeprefix("http://"),
        scheme="http",
        # A small object in one request, as the others send it.
        allow_delayed_open=True,
        region=services.REGION,
    )

    def arrow_put(path: str, data: bytes) -> None:
        with arrow.open_output_stream(f"{BUCKET}/{path}") as stream:
            stream.write(data)

    def arrow_get(path: str) -> bytes:
        with arrow.open_input_file(f"{BUCKET}/{path}") as file:
            return bytes(file.read())

    def arrow_names(path: str) -> list[str]:
        found = arrow.get_file_info(pyarrow.fs.FileSelector(f"{BUCKET}/{path}", recursive=True))
        return [info.path for info in found if info.is_file]

    return {
        "Tutti": Contender(folder.write, folder.read, lambda path: [entry.path for entry in folder.entries(path)]),
        "s3fs": Contender(
            lambda path, data: plain.pipe_file(f"{BUCKET}/{path}", data),
            lambda path: bytes(plain.cat_file(f"{BUCKET}/{path}")),
            lambda path: [str(name) for name in plain.find(f"{BUCKET}/{path}", detail=True)],
        ),
        "pyarrow": Contender(arrow_put, arrow_get, arrow_names),
    }


def measure(bench: Bench) -> None:
    """A calm server, then one whose requests fail."""
    # It writes of each failure.
    pyarrow.fs.initialize_s3(pyarrow.fs.S3LogLevel.Off)
    with server() as endpoint:
        calm(bench, contenders(endpoint))
        proxy = FaultyS3(endpoint)
        try:
            stormy(bench, contenders(proxy.url), proxy)
        finally:
            proxy.close()


def calm(bench: Bench, clients: dict[str, Contender]) -> None:
    """Race puts, gets and listings where nothing fails."""
    small = {f"small/{number:04d}": os.urandom(SMALL_BYTES) for number in range(SMALL_OBJECTS)}
    large = {f"large/{size}": os.urandom(size) for size in LARGE_SIZES_BYTES}
    for what, objects in ((f"{SMALL_BYTES // 1024} KiB", small), ("1 to 8 MiB", large)):
        mebibytes = sum(len(data) for data in objects.values()) / 2**20
        amount, unit = (len(objects), "objects") if objects is small else (mebibytes, "MiB")
        puts = {name: _puts(client, objects) for name, client in clients.items()}
        gets = {name: _gets(client, objects) for name, client in clients.items()}
        bench.race(f"put {what}", puts, amount=amount, unit=unit)
        bench.race(f"get {what}", gets, amount=amount, unit=unit)
    for number in range(LISTED_OBJECTS):
        clients["Tutti"].put(f"listed/{number % 10}/{number:05d}", b"")
    listings = {name: _listing(client) for name, client in clients.items()}
    bench.race("list", listings, amount=LISTED_OBJECTS, unit="objects")
    bench.name("storage_put_ratio_s3fs", _ratio(bench, f"put {SMALL_BYTES // 1024} KiB"))
    bench.name("storage_get_ratio_s3fs", _ratio(bench, f"get {SMALL_BYTES // 1024} KiB"))


def stormy(bench: Bench, clients: dict[str, Contender], proxy: FaultyS3) -> None:
    """Count what fails for good, and what passing over the rest costs Tutti."""
    objects = {f"storm/{number:04d}": os.urandom(SMALL_BYTES) for number in range(STORM_OBJECTS)}
    through: dict[str, float] = {}
    for name, client in clients.items():
        proxy.storm(FAILING_SHARE, seed=1)
        through[name] = sum(_comes_through(client, path, data) for path, data in objects.items())
    bench.count(f"come through, of {STORM_OBJECTS} put and got", through, unit="objects")
    rates: dict[str, list[float]] = {"no request fails": [], "30 % of requests fail": []}
    for round_ in range(bench.rounds):
        for name, share in zip(rates, (0.0, FAILING_SHARE), strict=True):
            proxy.storm(share, seed=round_)
            started_s = time.perf_counter()
            _puts(clients["Tutti"], objects)()
            _gets(clients["Tutti"], objects)()
            rates[name].append(2 * len(objects) / (time.perf_counter() - started_s))
    bench.rates("Tutti through the proxy, put and get", rates, unit="requests/s")
    bench.note(f"the first pause after a failure is {s3.FIRST_PAUSE_S:g} s at most, the longest {s3.LONGEST_PAUSE_S:g}")
    bench.name("storage_share_through", through["Tutti"] / STORM_OBJECTS)


def _puts(client: Contender, objects: dict[str, bytes]) -> Callable[[], None]:
    def put() -> None:
        for path, data in objects.items():
            client.put(path, data)

    return put


def _gets(client: Contender, objects: dict[str, bytes]) -> Callable[[], None]:
    def get() -> None:
        for path, data in objects.items():
            if client.get(path) != data:
                sys.exit(f"{path} came back changed")

    return get


def _listing(client: Contender) -> Callable[[], None]:
    def names() -> None:
        if len(client.names("listed")) != LISTED_OBJECTS:
            sys.exit("the listing is not whole")

    return names


def _comes_through(client: Contender, path: str, data: bytes) -> bool:
    try:
        client.put(path, data)
        return client.get(path) == data
    except (OSError, UserError, RuntimeError):
        return False


def _ratio(bench: Bench, subject: str) -> float:
    return bench.figures[subject]["Tutti"].median / bench.figures[subject]["s3fs"].median


if __name__ == "__main__":
    run("objects on S3", measure)
