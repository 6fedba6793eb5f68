"""Steps of a training beside a bare loop and Hugging Face's Trainer: ``python -m benchmarks.training``.

One worker with all cores; the demo's batches; only steady steps count, from the end of one to the end of the next, so
loader, record and orders of the driver are in them and starts are not. All models are without dropout, because Llama
has none on its branches. Then what a checkpoint costs, on disk and on S3, and how long a killed worker is missed.

``--threads`` is for a machine that others use too: threads that wait for one another cannot share a core.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cli import ENVIRONMENT

# Ray makes its workers yield to all other programs; where there are others, contenders must yield alike.
os.environ.update({**ENVIRONMENT, "DS_ACCELERATOR": "cpu", "RAY_worker_niceness": "0"})

import ray
import torch

from benchmarks.harness import Bench, run
from benchmarks.storage import BUCKET, server
from benchmarks.trainings import peers, plans
from benchmarks.trainings.plans import NEVER, plan_of, size_of
from benchmarks.trainings.stamps import Stamps, cost_of_a_checkpoint
from cluster.embedded import start_embedded_ray
from tutti.storage import Folder
from tutti.training.ceiling import matmul_flops_per_s
from tutti.training.faults import parse
from tutti.training.ledger import Activity, Bill
from tutti.training.plan import Plan

# Steps of one run of a contender, by flavour; those before WARM load code and caches.
STEPS, WARM = {"tiny": 16, "small": 8}, 3
STEP_TOKENS = plans.DEMO["sequence_tokens"] * plans.DEMO["batch_sequences"]
DEMO_CHECKPOINT_STEPS = 50
# Often, so that there are many; a checkpoint is expected to be away within so many steps.
CHECKPOINT_STEPS, CHECKPOINTS = 10, 4
KILLED_AT, RECOVERY_STEPS = 8, 12


@dataclass(frozen=True)
class Place:
    """Where runs lie, and what they read."""

    home: Path
    sequences: Folder
    threads: int

    def plan(self, *, run: Folder | None = None, **settings: Any) -> Plan:
        """A training that nothing interrupts, unless ``settings`` say so."""
        whole = {"checkpoint_every_steps": NEVER, "validate_every_steps": NEVER, **settings}
        return plan_of(self.sequences, run or Folder(str(self.home / uuid.uuid4().hex)), **whole)

    def stamps(self) -> Stamps:
        """A new file of stamps."""
        return Stamps(self.home / f"{uuid.uuid4().hex}.stamps")


def measure(bench: Bench) -> None:
    """Everything, one part after the other."""
    threads = int(bench.settings["threads"]) or os.cpu_count() or 1
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="tutti-training-") as name, server(), ray_here():
        home = Path(name)
        sequences = plans.sequences_at(Folder(str(home / "data")), sequence_tokens=512, num_works=1600, bars=12)
        place = Place(home, sequences, threads)
        for flavour in STEPS:
            precisions = ("fp32", "bf16") if flavour == "tiny" and multiplies_bf16() else ("fp32",)
            for precision in precisions:
                steps(bench, place, flavour=flavour, precision=precision)
        checkpoints(bench, place)
        recovery(bench, place)
    bench.note(f"{threads} threads; load {os.getloadavg()[0]:.1f} at the end; {STEP_TOKENS} tokens a step")


@contextmanager
def ray_here() -> Iterator[None]:
    """A Ray that ends with the benchmark."""
    start_embedded_ray(address="local", num_cpus=os.cpu_count())
    try:
        yield
    finally:
        ray.shutdown()


def multiplies_bf16() -> bool:
    """Whether this processor has instructions for bf16; without, it is a hundred times slower than fp32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def steps(bench: Bench, place: Place, *, flavour: str, precision: str) -> None:
    """Tokens a second of steady steps, contenders in turns."""
    count = STEPS[flavour]
    common: dict[str, Any] = {
        "flavour": flavour,
        "precision": precision,
        "steps": count,
        "threads_per_worker": place.threads,
    }
    plan = place.plan(workers=1, **common)
    batches = peers.batches_of(plan, count=count)
    contenders = contenders_of(place, common, batches, flavour=flavour)
    rates: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(bench.rounds):
        for contender, seconds in contenders.items():
            rates[contender].append(STEP_TOKENS / statistics.median(seconds()[WARM:]))
    bench.rates(f"step of {flavour}, {precision}", rates, unit="tokens/s")
    median = {contender: statistics.median(found) for contender, found in rates.items()}
    key = "" if (flavour, precision) == ("tiny", "fp32") else f"_{flavour}_{precision}"
    ours = median["Tutti, Ray Train and DeepSpeed"]
    bench.name(f"train_vs_bare{key}", ours / median["bare loop"])
    bench.name(f"train_plain_vs_bare{key}", median["Tutti, torch alone"] / median["bare loop"])
    bench.name(f"train_vs_hf{key}", ours / median["Hugging Face Trainer"])
    ceiling = matmul_flops_per_s(
        device=torch.device("cpu"), dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        threads=place.threads,
    )  # fmt: skip
    flops = size_of(flavour).training_flops_per_place(plan.training.sequence_tokens)
    bench.name(f"train_mfu_{flavour}_{precision}", ours * flops / ceiling)


def contenders_of(
    place: Place, common: dict[str, Any], batches: list[peers.Tensors], *, flavour: str
) -> dict[str, Callable[[], list[float]]]:
    """Seconds of the steps of one run, by who runs."""

    def ours(train: Callable[..., None], **settings: Any) -> list[float]:
        plan, stamps = place.plan(workers=1, **common, **settings), place.stamps()
        train(plan, tracking=stamps)
        return stamps.seconds(after=1)

    bare = place.plan(workers=1, **common)
    found: dict[str, Callable[[], list[float]]] = {
        "Tutti, Ray Train and DeepSpeed": lambda: ours(plans.train_on_ray, strategy="deepspeed", zero_stage=1),
        "Tutti, torch alone": lambda: ours(plans.train_here, strategy="plain"),
        "bare loop": lambda: peers.bare_loop(bare, batches),
        "Hugging Face Trainer": lambda: peers.hugging_face(bare, batches, folder=place.home / "hf"),
    }
    if flavour == "tiny" and shutil.which("g++"):
        found["Tutti, torch alone, compiled"] = lambda: ours(plans.train_here, strategy="plain", compile=True)
        found["bare loop, compiled"] = lambda: peers.bare_loop(bare, batches, compiled=True)
    return found


def checkpoints(bench: Bench, place: Place) -> None:
    """What a checkpoint costs of the time between two of the demo's: the copy, and the steps it goes along with."""
    shares: dict[str, list[float]] = {}
    stalls: dict[str, list[float]] = {}
    for _ in range(bench.rounds):
        for where, root in (("disk", str(place.home)), ("S3 on loopback", f"s3://{BUCKET}/runs")):
            plan = place.plan(
                run=Folder(f"{root}/{uuid.uuid4().hex}"), flavour="tiny", dropout=0.1, workers=2, zero_stage=1,
                steps=CHECKPOINT_STEPS * (CHECKPOINTS + 1), checkpoint_every_steps=CHECKPOINT_STEPS,
            )  # fmt: skip
            stamps = place.stamps()
            plans.train_on_ray(plan, tracking=stamps)
            cost_s, step_s = cost_of_a_checkpoint(stamps.read(), every_steps=CHECKPOINT_STEPS)
            bill = Bill.read(plan.run)
            assert bill is not None
            stall_s = bill.ledger.worker_seconds(activity=Activity.CHECKPOINT) / 2 / CHECKPOINTS
            shares.setdefault(where, []).append(cost_s / (DEMO_CHECKPOINT_STEPS * step_s + cost_s))
            stalls.setdefault(where, []).append(stall_s / (DEMO_CHECKPOINT_STEPS * step_s + stall_s))
    bench.rates("checkpoint: copy and slower steps, share of the time between two", shares, unit="")
    bench.rates("checkpoint: the copy alone", stalls, unit="")
    bench.name("checkpoint_stall_share", max(statistics.median(found) for found in shares.values()))
    bench.name("checkpoint_copy_share", max(statistics.median(found) for found in stalls.values()))


def recovery(bench: Bench, place: Place) -> None:
    """Seconds from a worker's death to the end of the next step."""
    seconds = []
    for _ in range(max(bench.rounds, 3)):
        plan = place.plan(
            flavour="tiny", dropout=0.1, workers=2, zero_stage=1, steps=RECOVERY_STEPS, checkpoint_every_steps=3
        )
        stamps = place.stamps()
        plans.train_on_ray(plan, tracking=stamps, faults=[parse(f"rank_killed@step={KILLED_AT},rank=1")])
        # Written by the rank a moment before it kills itself.
        died_unix_s = (plan.run.local_path / "faults" / "0-rank-1").stat().st_mtime
        seconds.append(stamps.resumed().unix_s - died_unix_s)
    bench.rates("from a worker's death to the next step done", {"Tutti, 2 workers, DeepSpeed": seconds}, unit="s")
    bench.name("recovery_s", statistics.median(seconds))


if __name__ == "__main__":
    run("training", measure, settings={"threads": (0, "processor threads of a step; 0: all cores")})
