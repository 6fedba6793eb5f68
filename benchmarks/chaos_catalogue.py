"""A catalogue that is killed at random moments: ``python -m benchmarks.chaos_catalogue``.

Everything is real: a Ray cluster of several daemons on this machine, signals, an S3 server behind a proxy. First the
catalogue undisturbed. Then the same order ``--kills`` times hit by ``kill -9`` at random moments: its driver, an
engine, a writer, a whole node, storage away for a while; whenever the driver is gone or gave up, the same command is
started again. Last the same order while ``--failing`` of all requests fail. Every object is held against the
undisturbed one.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets as entropy
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from jobs.cli import ENVIRONMENT

os.environ.update(ENVIRONMENT)

from benchmarks.catalogues.workshop import LENIENT, register, write_order
from benchmarks.harness import Bench, run
from benchmarks.storage import BUCKET, server
from benchmarks.trainings.nodes import Cluster
from tests.faulty_s3 import FaultyS3
from tutti import lineage
from tutti.lineage import Dataset
from tutti.progress import PROGRESS
from tutti.storage import Folder

NODES = 2
DRIVER, ENGINE, WRITER, NODE, STORAGE = "driver killed", "engine killed", "writer killed", "node lost", "storage away"
KINDS = (DRIVER, ENGINE, WRITER, NODE, STORAGE)
WEIGHTS = (5, 2, 2, 2, 1)
OUTAGE_S = (2.0, 8.0)
LONGEST_S = 3600.0
# A moment lies within the first so many seconds of a start; what is there by then stays, so every part is hit.
LATEST_S = 45.0
MOST_STARTS = 60


@dataclass
class Stage:
    """Where catalogues are made."""

    home: Path
    cluster: Cluster
    proxy: FaultyS3
    order: Path
    tracking_uri: str
    draws: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)

    def root(self, name: str) -> Folder:
        """The results of one run."""
        return Folder(f"s3://{BUCKET}/{name}")

    def say(self, text: str) -> None:
        """A line of what is going on, for whoever waits."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """The command, in a process of its own."""
        self.starts[name] += 1
        words = ["catalogue", str(self.order), "--root", self.root(name).uri, "--tracking-uri", self.tracking_uri]
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *words], stdout=log, stderr=log,
                env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            )  # fmt: skip

    def undisturbed(self, name: str) -> tuple[Dataset, float]:
        """One run to its end, started once, and how long it took."""
        began_s, process = time.monotonic(), self.start(name)
        if process.wait(LONGEST_S):
            raise RuntimeError((self.home / f"{name}.log").read_text()[-4000:])
        return self.made(name), time.monotonic() - began_s

    def disturbed(self, name: str, *, kills: int, within_s: float) -> Dataset:
        """One catalogue, hit ``kills`` times; no moment lies later than an undisturbed run takes."""
        process, until = self.start(name), time.monotonic() + LONGEST_S
        while kills:
            kind = self.draws.choices(KINDS, WEIGHTS)[0]
            process = self._wait(process, name, self.draws.uniform(0.5, min(within_s, LATEST_S)))
            if process.poll() is not None:
                # It ended before the moment came: another catalogue of the same order is hit in its place.
                self.check(name)
                self.root(name).delete()
                process = self.start(name)
                continue
            if self._hit(kind, process):
                kills -= 1
                self.happened[kind] += 1
                done = len(self._blocks(name))
                self.say(f"{kind}, {done} blocks done, {kills} to go")
            assert time.monotonic() < until, "the kills took too long"
        while self._wait(process, name, LONGEST_S).poll() != 0:
            assert time.monotonic() < until, "it came to no end"
        return self.made(name)

    def _wait(self, process: subprocess.Popen[bytes], name: str, seconds: float) -> subprocess.Popen[bytes]:
        """Some seconds, or until it is done; what died is started again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.cluster.mend()
            if process.poll() == 0:
                break
            if process.poll() is not None:
                assert self.starts[name] < MOST_STARTS, (self.home / f"{name}.log").read_text()[-4000:]
                process = self.start(name)
            time.sleep(0.1)
        return process

    def _hit(self, kind: str, process: subprocess.Popen[bytes]) -> bool:
        """Let it happen; False where there is nothing of that kind now."""
        if kind == DRIVER:
            process.kill()
            process.wait()
        elif kind == NODE:
            self.cluster.lose(self.draws.randrange(self.cluster.num_nodes))
            self.cluster.add()
        elif kind == STORAGE:
            self.proxy.storm(1.0, seed=self.draws.randrange(2**31))
            time.sleep(self.draws.uniform(*OUTAGE_S))
            self.proxy.calm()
        else:
            found = _workers("_Generate" if kind == ENGINE else "_write")
            if not found:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                self.draws.choice(found).kill()
        return True

    def _blocks(self, name: str) -> list[str]:
        return [path for path in self.root(name).paths("catalogues") if "/blocks/" in path]

    def made(self, name: str) -> Dataset:
        """The finished catalogue of a run."""
        (path,) = (path for path in self.root(name).paths("catalogues") if path.endswith(f"/{lineage.MANIFEST}"))
        return lineage.load(self.root(name) / path.rpartition("/")[0])

    def check(self, name: str) -> None:
        """Hold a run's catalogue against the undisturbed one.

        Raises:
            AssertionError: an object is lost, foreign or different.
        """
        assert differing(self.made("undisturbed"), self.made(name)) == []


def differing(one: Dataset, other: Dataset) -> list[str]:
    """Paths of objects that are not the same in both; of manifests all but what tells of times is compared."""
    held = [{path: each.folder.read(path) for path in each.folder.paths()} for each in (one, other)]
    for each in held:
        del each[lineage.MANIFEST]
        # A record of progress that was sent twice may arrive after it was removed; no reader looks at it then.
        each.pop(PROGRESS, None)
    paths = sorted({*held[0], *held[1]})
    facts = [{name: value for name, value in each.facts.items() if name != "pace"} for each in (one, other)]
    wrong = [path for path in paths if held[0].get(path) != held[1].get(path)]
    return wrong + ([lineage.MANIFEST] if facts[0] != facts[1] or one.files != other.files else [])


def _workers(stage: str) -> list[psutil.Process]:
    """Processes of Ray that run a stage of the catalogue; their titles say so."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith("ray::") and stage in title:
            found.append(process)
    return found


@contextmanager
def stage(seed: int, *, takes: int) -> Iterator[Stage]:
    """A cluster, storage, a model and an order; nothing of them is left afterwards."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tutti-chaos-")))
        proxy = FaultyS3(stack.enter_context(server()))
        stack.callback(proxy.close)
        registry = register(home, max_tokens=256)
        # Before Ray starts: its daemons hand their environment to the workers.
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": entropy.token_hex(32),
        }  # fmt: skip
        cluster = Cluster(home / "ray.log")
        stack.callback(cluster.close)
        cluster.open(nodes=NODES)
        order = write_order(
            home / "order.json", name="chaos", seed=seed, formats=["midi", "flac", "png"], retries=2, takes_per_block=2,
            checks={**LENIENT, "min_notes": 30},
            lines=[
                {"count": takes - takes // 3, "controls": {"bars": 2, "tempo": 120, "meter": "4/4"}},
                {"count": takes // 3, "controls": {"bars": 1, "best_of": 2, "meter": "4/4"}},
            ],
        )  # fmt: skip
        yield Stage(home, cluster, proxy, order, registry.backend.tracking_uri, random.Random(seed))


def measure(bench: Bench) -> None:
    """Undisturbed, killed, and with failing requests."""
    kills, takes = int(bench.settings["kills"]), int(bench.settings["takes"])
    with stage(int(bench.settings["seed"]), takes=takes) as here:
        steady, wall_s = here.undisturbed("undisturbed")
        here.say(
            f"undisturbed: {wall_s:.0f} s, {steady.facts['accepted']} accepted, {steady.facts['rejected']} rejected"
        )
        killed = here.disturbed("killed", kills=kills, within_s=wall_s) if kills else steady
        here.proxy.storm(bench.settings["failing"], seed=int(bench.settings["seed"]))
        stormy, stormy_s = here.undisturbed("stormy")
        failed, asked = here.proxy.failed, here.proxy.counts.total()
        here.proxy.calm()
        wrong = {"killed": differing(steady, killed), "stormy": differing(steady, stormy)}
    for name, paths in wrong.items():
        if paths:
            bench.note(f"{name}: {len(paths)} objects differ, {', '.join(paths[:5])}")
    bench.count("faults", {kind: float(count) for kind, count in here.happened.items()}, unit="")
    bench.count("starts of the command", {name: float(count) for name, count in here.starts.items()}, unit="")
    bench.count("objects compared", {name: float(len(steady.files)) for name in wrong}, unit="")
    bench.count("objects that differ", {name: float(len(paths)) for name, paths in wrong.items()}, unit="")
    bench.name("chaos_catalogue_kills", here.happened.total())
    bench.name("chaos_catalogue_equal", float(not wrong["killed"]))
    bench.name("chaos_catalogue_storm_equal", float(not wrong["stormy"]))
    bench.name("chaos_catalogue_storm_failed_share", failed / max(asked, 1))
    bench.note(
        f"{takes} slots, {steady.facts['accepted']} accepted and {steady.facts['rejected']} rejected takes, "
        f"{len(steady.files)} objects; undisturbed {wall_s:.0f} s; in the storm {failed} of {asked} requests failed, "
        f"{stormy_s:.0f} s"
    )


if __name__ == "__main__":
    run(
        "chaos_catalogue", measure,
        settings={
            "kills": (10, "random moments"), "takes": (24, "slots of the order"), "seed": (1, "of the drawn faults"),
            "failing": (0.3, "share of requests that fail in the last run"),
        },
    )  # fmt: skip
