"""A soak: trainings that are killed, hung, cut off and resized at random: ``python -m benchmarks.chaos``.

Everything is real: a Ray cluster of several daemons on this machine, signals, an S3 server behind a proxy that fails
every request for a while. First rounds of an elastic training (1 to 2 workers, ZeRO 2) through all of it; then rounds
with 2 workers throughout, killed and hung alone. Each round is held against the same recipe on 2 workers that nothing
happened to: order, loss, parameters. `--minutes` is how long there are faults; the last round then ends in peace.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets as entropy
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.cli import ENVIRONMENT

os.environ.update({**ENVIRONMENT, "DS_ACCELERATOR": "cpu"})

from benchmarks.harness import Bench, run
from benchmarks.storage import BUCKET, server
from benchmarks.trainings import plans, soak
from benchmarks.trainings.disturber import ON_FIXED, WEIGHTS, Disturber
from benchmarks.trainings.nodes import Cluster
from benchmarks.trainings.outcomes import Finished, finished, loss_difference, parameter_difference
from benchmarks.trainings.stamps import Stamps
from tests.faulty_s3 import FaultyS3
from tutti.storage import Folder
from tutti.training.plan import Plan

NODES = 2
ELASTIC_SHARE = 0.7
# So long would a round take if nothing happened, and its checkpoints lie so far apart.
ROUND_S, CHECKPOINT_S = 45.0, 4.0
PROBE_STEPS = 60
PAUSE_S = (2.0, 8.0)
RECIPE: dict[str, Any] = {
    "sequence_tokens": 128, "batch_sequences": 16, "micro_batch_sequences": 4, "strategy": "deepspeed",
    "zero_stage": 2, "learning_rate": 2e-3, "warmup_steps": 20, "record_order": True, "hang_timeout_s": 8.0,
    # Faults come faster here than checkpoints may.
    "max_failures": 1000, "validate_every_steps": 100,
}  # fmt: skip


@dataclass
class Stage:
    """Where trainings run."""

    home: Path
    cluster: Cluster
    proxy: FaultyS3
    sequences: Folder
    seed: int
    happened: Counter[str] = field(default_factory=Counter)

    def say(self, text: str) -> None:
        """A line of what is going on, for whoever waits."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def train(
        self, name: str, *, until_s: float = 0.0, weights: dict[str, int] | None = None, **settings: Any
    ) -> Finished:
        """One training to its end; disturbed until a moment of :func:`time.monotonic` where faults are given."""
        plan = plans.plan_of(
            self.sequences, Folder(f"s3://{BUCKET}/{name}"), flavour="nano", dropout=0.1, **{**RECIPE, **settings}
        )
        stamps = Stamps(self.home / f"{name}.stamps")
        began_s, driver = time.monotonic(), Driver(self, plan, stamps)
        disturber = Disturber(
            self.cluster, self.proxy, weights or {}, PAUSE_S, lambda: len(stamps.read()), driver.kill, self.say,
            self.seed,
        )  # fmt: skip
        self.seed += 1
        if weights:
            disturber.start()
        try:
            driver.train(calm=lambda: disturber.stop() if time.monotonic() > until_s else None)
        finally:
            disturber.stop()
            driver.kill()
        self.happened += disturber.happened
        return finished(plan, wall_s=time.monotonic() - began_s)


class Driver:
    """The program that drives a training, started again whenever it was killed."""

    def __init__(self, stage: Stage, plan: Plan, stamps: Stamps) -> None:
        self._stage, self._plan = stage, plan
        plan_file = stage.home / f"{stamps.path.stem}.plan"
        plan_file.write_bytes(pickle.dumps(plan))
        self._log = stage.home / f"{stamps.path.stem}.log"
        self._command = [
            sys.executable, "-m", soak.__name__, stage.cluster.address, str(plan_file), str(stamps.path),
            str(self._log),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def train(self, *, calm: Callable[[], None]) -> None:
        """Until the training is published; ``calm`` is called now and then."""
        while True:
            self._killed = False
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
            while self._process.poll() is None:
                time.sleep(0.5)
                self._stage.cluster.mend()
                calm()
            if self._process.returncode == 0:
                return
            if not self._killed:
                raise RuntimeError(f"the training ended: {self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        """As if its machine had been switched off."""
        self._killed = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def stage(seed: int) -> Iterator[Stage]:
    """A cluster, storage and data; nothing of them is left afterwards."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tutti-chaos-")))
        proxy = FaultyS3(stack.enter_context(server()))
        stack.callback(proxy.close)
        # Before Ray starts: its daemons hand their environment to the workers.
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": entropy.token_hex(32),
        }  # fmt: skip
        cluster = Cluster(home / "ray.log")
        stack.callback(cluster.close)
        cluster.open(nodes=NODES)
        sequences = plans.sequences_at(
            Folder(f"s3://{BUCKET}/data"), sequence_tokens=RECIPE["sequence_tokens"], num_works=300, bars=4
        )
        yield Stage(home, cluster, proxy, sequences, seed)


def measure(bench: Bench) -> None:
    """Probe, run undisturbed, disturb for so many minutes, compare."""
    minutes = bench.settings["minutes"]
    with stage(int(bench.settings["seed"])) as here:
        here.train("probe", workers=NODES, steps=PROBE_STEPS, checkpoint_every_steps=20)
        steady = sorted(Stamps(here.home / "probe.stamps").seconds(after=10))
        step_s = steady[len(steady) // 2]
        length: dict[str, Any] = {
            "steps": max(int(ROUND_S / step_s), 60), "checkpoint_every_steps": max(int(CHECKPOINT_S / step_s), 5),
        }  # fmt: skip
        here.say(f"a step takes {step_s * 1000:.0f} ms; rounds of {length['steps']} steps")
        fixed = here.train("undisturbed", workers=NODES, **length)
        began_s = time.monotonic()
        parts = {
            "elastic": ({"min": 1, "max": NODES}, WEIGHTS, began_s + 60 * minutes * ELASTIC_SHARE),
            "fixed": (NODES, ON_FIXED, began_s + 60 * minutes),
        }
        found: dict[str, list[Finished]] = {}
        for part, (workers, weights, until_s) in parts.items():
            while time.monotonic() < until_s or part not in found:
                name = f"{part}-{len(found.get(part, []))}"
                done = here.train(name, workers=workers, weights=weights, until_s=until_s, **length)
                found.setdefault(part, []).append(done)
                here.say(f"{name}: {verdict(done, fixed)}")
        tell(bench, found, fixed, here, minutes=(time.monotonic() - began_s) / 60)


def verdict(done: Finished, fixed: Finished) -> str:
    """One round in a line."""
    return (
        f"{done.wall_s:.0f} s, {done.restarts} restarts, order {'equal' if done.order == fixed.order else 'DIFFERS'}, "
        f"loss within {loss_difference(done, fixed):.2g}, parameters within {parameter_difference(done, fixed):.2g}"
    )


def tell(bench: Bench, found: dict[str, list[Finished]], fixed: Finished, here: Stage, *, minutes: float) -> None:
    """The figures."""
    for part, rounds in found.items():
        bench.rates(
            f"{part}: {len(rounds)} rounds beside the undisturbed run",
            {
                "largest difference of loss, nats/token": [loss_difference(each, fixed) for each in rounds],
                "largest difference of a parameter": [parameter_difference(each, fixed) for each in rounds],
                "order.csv byte-identical": [float(each.order == fixed.order) for each in rounds],
                "restarts": [float(each.restarts) for each in rounds],
                "worker-seconds lost": [each.lost_s for each in rounds],
                "useful share of worker-seconds": [each.useful_s / each.spent_s for each in rounds],
            },
            unit="",
        )
    every = [each for rounds in found.values() for each in rounds]
    bench.count("faults", {kind: float(count) for kind, count in here.happened.items()}, unit="")
    bench.name("chaos_minutes", minutes)
    bench.name("chaos_rounds", len(every))
    bench.name("chaos_faults", here.happened.total())
    bench.name("chaos_restarts", sum(each.restarts for each in every))
    bench.name("chaos_order_equal", float(all(each.order == fixed.order for each in every)))
    bench.name("chaos_loss_difference", max(loss_difference(each, fixed) for each in every))
    bench.name("chaos_parameter_difference", max(parameter_difference(each, fixed) for each in every))
    bench.name("chaos_fixed_bits_equal", float(all(parameter_difference(each, fixed) == 0 for each in found["fixed"])))
    bench.name("chaos_lost_worker_s", sum(each.lost_s for each in every))
    bench.name("chaos_useful_share", sum(each.useful_s for each in every) / sum(each.spent_s for each in every))
    bench.note(f"undisturbed: {fixed.wall_s:.0f} s a round, useful share {fixed.useful_s / fixed.spent_s:.2f}")


if __name__ == "__main__":
    run(
        "chaos", measure,
        settings={"minutes": (10, "minutes with faults"), "seed": (1, "of the drawn faults")},
    )  # fmt: skip
