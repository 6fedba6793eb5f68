"""Several ranks of one training as processes of this machine, without Ray: what DeepSpeed and gloo do, in seconds."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from tests import families
from tests.trainings import Watch
from tutti.training.faults import Fault
from tutti.training.ledger import Ledger
from tutti.training.loop import Trainer
from tutti.training.plan import Attempt, Plan
from tutti.training.ranks import Ranks
from tutti.training.tracker import NoTracker, Sampler


def train_on(
    num_ranks: int,
    plan: Plan,
    *,
    pause_at: int | None = None,
    faults: Sequence[Fault] = (),
    sampler: Sampler | None = None,
) -> None:
    """One attempt of ``num_ranks`` ranks, to its end or to a pause."""
    attempt = Attempt(
        name=uuid.uuid4().hex[:8], began_unix_s=time.time(), ledger=Ledger.read(plan.run), faults=tuple(faults)
    )
    with tempfile.TemporaryDirectory() as meeting:
        multiprocessing.spawn(
            _rank, args=(num_ranks, plan, attempt, pause_at, sampler, str(Path(meeting) / "store")), nprocs=num_ranks
        )


def _rank(
    rank: int, num_ranks: int, plan: Plan, attempt: Attempt, pause_at: int | None, sampler: Sampler | None, store: str
) -> None:
    os.environ |= {
        "DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
    }  # fmt: skip
    torch.set_num_threads(1)
    families.add()
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    watch = Watch(pause_at=pause_at) if rank == 0 else Watch()
    ranks = Ranks(rank, num_ranks, rank)
    Trainer(plan, attempt, ranks=ranks, tracker=NoTracker(), signals=watch, sampler=sampler).run()
    distributed.destroy_process_group()
