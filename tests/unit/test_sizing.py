"""What a training wants: tables, laws, and a real process's memory beside its estimate."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import run
from tutti.errors import RecipeError
from tutti.features.vocabulary import EVENTS
from tutti.models.decoder import DECODER
from tutti.training.ledger import Prices
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.rehearsal import Pace, pace_of
from tutti.training.sizing import (
    CUDA_BYTES,
    GIB,
    LOADER_BYTES,
    Asked,
    Machine,
    check,
    checkpoint_bytes,
    estimate,
    fits,
    memory_of,
)

LAPTOP = Machine(cores=8, memory_bytes=16 * GIB)
GPU_NODE = Machine(cores=32, memory_bytes=256 * GIB, gpus=4, gpu_memory_bytes=80 * GIB)
REAL_WITHIN = 1.5
SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 4096}


def asked(flavour: str = "tiny", **changes: object) -> Asked:
    size = DECODER.configure(flavour, shape=SHAPE, settings={"dropout": 0.1})
    plain = Asked(
        parameters=size.parameters, footprint=size.footprint, flops_per_place=size.training_flops_per_place(512),
        steps=100,
        places=512, micro_batch=8, micro_batches=2, fewest_workers=2, most_workers=2,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


ASKED = st.builds(
    asked,
    st.sampled_from(sorted(DECODER.flavours)),
    micro_batch=st.integers(1, 64),
    micro_batches=st.integers(1, 64),
    places=st.sampled_from([64, 512, 4096]),
    fewest_workers=st.integers(1, 8),
    most_workers=st.just(8),
    gpus_per_worker=st.integers(0, 1),
    strategy=st.sampled_from(["plain", "deepspeed"]),
    zero_stage=st.integers(0, 3),
    precision=st.sampled_from(["fp32", "bf16"]),
    activation_checkpointing=st.booleans(),
)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"),
    [(0, 1.0, 1.0, 2.0), (1, 1.0, 1.0, 3 / 4), (2, 1.0, 1 / 4, 3 / 4), (3, 1 / 4, 1 / 4, 3 / 4)],
)
def test_zero_shards_what_its_stage_says(stage: int, weights: float, gradients: float, optimizer: float) -> None:
    """Shares of the model's fp32 size on each of four workers."""
    held = memory_of(asked("large", zero_stage=stage, gpus_per_worker=1, micro_batches=8), workers=4).gpu
    size = 4 * asked("large").parameters
    assert [held[name] / size for name in ("weights", "gradients", "optimizer")] == pytest.approx(
        [weights, gradients, optimizer]
    )


def test_offload_moves_the_optimizer_to_the_machine() -> None:
    kept = memory_of(asked("large", gpus_per_worker=1), workers=2)
    moved = memory_of(asked("large", gpus_per_worker=1, offload="cpu"), workers=2)
    assert kept.gpu_bytes - moved.gpu_bytes == kept.gpu["optimizer"]
    assert moved.host_bytes - kept.host_bytes > kept.gpu["optimizer"]
    assert kept.gpu["cuda"] == CUDA_BYTES


def test_outputs_dominate_a_small_model_with_large_batches() -> None:
    held = memory_of(asked("nano", activation_checkpointing=True, micro_batch=128), workers=1).host
    assert held["outputs"] == 128 * 512 * len(EVENTS) * 5 * 4
    assert held["outputs"] == max(held.values())


@given(ASKED)
def test_less_is_never_more(one: Asked) -> None:
    def total(changed: Asked, workers: int = one.fewest_workers) -> int:
        held = memory_of(changed, workers=workers)
        return held.gpu_bytes + held.host_bytes

    assert total(one, one.fewest_workers + 1) <= total(one)
    assert total(replace(one, micro_batch=one.micro_batch + 1)) >= total(one)
    assert total(replace(one, activation_checkpointing=True)) <= total(replace(one, activation_checkpointing=False))
    if one.strategy == "deepspeed" and one.zero_stage in (1, 2):
        assert total(replace(one, zero_stage=one.zero_stage + 1)) <= total(one)


@given(ASKED)
def test_who_does_as_told_is_told_no_more(one: Asked) -> None:
    """Whatever fits, check lets through; whatever does not, it refuses with the first of the reasons, in one line."""
    for machine in (LAPTOP, GPU_NODE):
        faults = fits(one, machine)
        if not faults:
            check(one, machine)
            continue
        with pytest.raises(RecipeError) as refused:
            check(one, machine)
        assert str(refused.value) == faults[0]
        assert "\n" not in faults[0]


@pytest.mark.parametrize(
    ("changes", "machine", "said"),
    [
        (
            {"fewest_workers": 9, "most_workers": 9, "micro_batches": 18}, LAPTOP,
            "9 workers of 1 threads want 9 cores, this machine has 8: set training.workers=6,",
        ),
        (
            {"threads_per_worker": 16, "fewest_workers": 1}, LAPTOP,
            "1 worker of 16 threads want 16 cores, this machine has 8: set training.workers=1 and "
            "training.threads_per_worker=1, or",
        ),
        ({"gpus_per_worker": 1}, LAPTOP, "2 workers want 2 GPUs, this machine has 0: set training.gpus_per_worker=0,"),
        (
            {"gpus_per_worker": 1, "fewest_workers": 8, "most_workers": 8, "micro_batches": 8}, GPU_NODE,
            "8 workers want 8 GPUs, this machine has 4: set training.workers=4,",
        ),
        (
            {"micro_batch": 256}, LAPTOP,
            "most of it activations 10.4 GiB), this machine has 16.0 GiB: set training.micro_batch_sequences=64",
        ),
        (
            {"flavour": "large", "micro_batch": 1}, replace(LAPTOP, memory_bytes=20 * GIB),
            "set training.activation_checkpointing=true",
        ),
        (
            {"flavour": "large", "micro_batch": 1, "activation_checkpointing": True, "strategy": "plain"}, LAPTOP,
            "set training.workers=1",
        ),
        (
            {"flavour": "large", "micro_batch": 64, "gpus_per_worker": 1}, GPU_NODE,
            "a GPU here has 80.0 GiB: set training.micro_batch_sequences=32",
        ),
        (
            {"flavour": "large", "micro_batch": 1, "gpus_per_worker": 1}, replace(GPU_NODE, gpu_memory_bytes=GIB),
            "choose a smaller model.flavour",
        ),
        (
            {"flavour": "large", "micro_batch": 1}, replace(GPU_NODE, disk_bytes=GIB),
            "of disk, 1.0 GiB are free: free some, keep fewer checkpoints (2), or name another --root",
        ),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_value_limit_and_remedy(
    changes: dict[str, object], machine: Machine, said: str
) -> None:
    flavour = str(changes.get("flavour", "tiny"))
    of_recipe = {name: value for name, value in changes.items() if name != "flavour"}
    (fault, *_) = fits(asked(flavour, **of_recipe), machine)
    assert said in fault


def test_an_elastic_run_takes_all_the_cores_and_must_fit_there() -> None:
    elastic = asked("small", micro_batch=8, micro_batches=8, fewest_workers=1, most_workers=8)
    assert fits(elastic, replace(LAPTOP, cores=1, memory_bytes=8 * GIB)) == ()
    (fault,) = fits(elastic, replace(LAPTOP, memory_bytes=8 * GIB))
    assert fault.startswith("8 workers and the command want ")


def test_the_remedy_mends() -> None:
    wide = asked("base", micro_batch=64, fewest_workers=1, most_workers=1)
    (fault,) = fits(wide, LAPTOP)
    smaller = int(fault.rpartition("=")[2])
    assert "set training.micro_batch_sequences=" in fault
    mended = replace(wide, micro_batch=smaller, micro_batches=wide.micro_batches * wide.micro_batch // smaller)
    assert fits(mended, LAPTOP) == ()


def test_time_price_and_disk() -> None:
    one = asked(steps=101, micro_batches=8, checkpoint_every_steps=10, kept_checkpoints=3)
    wanted = estimate(one, micro_batch_s=10.0, optimizer_s=1.0, prices=Prices(worker_hour={"gpu": 3.0}), kind="gpu")
    assert wanted.seconds == pytest.approx(20 + 101 * (4 * 10 + 1) * 1.1, rel=0.01)
    assert wanted.price == pytest.approx(2 * 3.0 * wanted.seconds / 3600)
    assert (wanted.checkpoints, wanted.checkpoint_bytes) == (10, checkpoint_bytes(one))
    assert wanted.disk_bytes == 4 * checkpoint_bytes(one) + 4 * one.parameters
    none = estimate(replace(one, steps=10), micro_batch_s=1)
    assert (none.checkpoints, none.disk_bytes, none.price) == (0, 4 * one.parameters, 0)


def test_a_pace_says_where_it_is_from() -> None:
    model, recipe = ModelRecipe(flavour="nano"), TrainingRecipe()
    here = pace_of(model, recipe, asked("nano", micro_batch=1))
    assert here.how == "a micro-batch timed here on cpu"
    assert here.micro_batch_s > 0
    assert here.optimizer_s >= 0
    endless = pace_of(model, recipe, asked("nano", flops_per_place=1e15))
    assert endless.how.startswith("assumed: too slow to be tried here; this machine at 30% of ")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
@pytest.mark.parametrize(
    ("flavour", "rows", "precision"), [("tiny", 8, "fp32"), ("small", 4, "fp32"), ("nano", 8, "bf16")]
)
def test_the_estimate_is_near_a_real_process(flavour: str, rows: int, precision: str) -> None:
    script = (
        "from tests.unit.test_sizing import real_pace, resident_bytes\n"
        "real_pace('nano', 1, 'fp32')\n"
        "empty = resident_bytes('VmRSS')\n"
        f"real_pace({flavour!r}, {rows}, {precision!r})\n"
        "print(empty, resident_bytes('VmHWM'))\n"
    )
    folders = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": folders}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    empty_bytes, peak_bytes = map(int, done.stdout.split())
    held = memory_of(real(flavour, rows, precision), workers=1).host
    tensors_bytes = sum(held[name] for name in ("weights", "optimizer", "activations", "outputs"))
    assert 1 / REAL_WITHIN < tensors_bytes / (peak_bytes - empty_bytes) < REAL_WITHIN
    # Neither a loader nor checkpoints are in this process.
    all_bytes = sum(held.values()) - LOADER_BYTES - held["checkpoint copy"]
    assert 1 / REAL_WITHIN < all_bytes / peak_bytes < REAL_WITHIN


def resident_bytes(name: str) -> int:
    """Of this process alone: what ``getrusage`` tells may be that of the process which started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def real(flavour: str, rows: int, precision: str) -> Asked:
    return asked(
        flavour, strategy="plain", micro_batch=rows, micro_batches=2, fewest_workers=1, most_workers=1,
        precision=precision,
    )  # fmt: skip


def real_pace(flavour: str, rows: int, precision: str) -> Pace:
    """Two real steps, for the process that is measured."""
    import torch

    from tutti.training.rehearsal import rehearsed

    model, recipe = ModelRecipe(flavour=flavour), TrainingRecipe(precision=precision)  # type: ignore[arg-type]
    return rehearsed(model, recipe, real(flavour, rows, precision), rows=rows, device=torch.device("cpu"))


def test_a_dry_run_tells_all_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "demo", "--dry-run", "--set", "training.workers=1", "--set", "model.flavour=nano"]
    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition(":")[0] for line in lines if ":" in line]
    assert names == [
        "sources", "model", "training", "memory of a worker", "time", "price", "checkpoints", "fits",
    ]  # fmt: skip
    assert "timed here on cpu" in lines[-4]
    assert lines[-1] == "fits: yes, on this machine"
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_cannot_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "demo", "--dry-run", "--set", "training.workers=1024", "--set", "training.batch_sequences=1024"]
    assert run(words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: 1024 workers of 1 threads want 1024 cores, this machine has ")
    assert told.err.count("\n") == 1
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert run(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "fits: not compared with the cluster at 10.0.0.1:6379"
