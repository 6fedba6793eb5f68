"""What the benchmarks of training count: a checkpoint's cost out of stamps, the distance of two trainings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.trainings.outcomes import Finished, loss_difference, parameter_difference
from benchmarks.trainings.stamps import Stamp, Stamps, cost_of_a_checkpoint


def test_stamps_of_several_attempts_are_read_back_in_order(tmp_path: Path) -> None:
    stamps = Stamps(tmp_path / "stamps")
    assert stamps.read() == []
    with pytest.raises(ValueError, match="never went back"):
        stamps.resumed()
    for steps in ((1, 2, 3), (2, 3, 4)):
        tracker = stamps.open()
        for step in steps:
            tracker.log({"train_nll_nats_per_token": 0.5 * step, "other": 1.0}, step=step)
            tracker.log({"valid_nll_nats_per_token": 9.0}, step=step)
        tracker.finish()
    assert [(stamp.step, stamp.loss) for stamp in stamps.read()] == [(s, s / 2) for s in (1, 2, 3, 2, 3, 4)]
    assert len(stamps.seconds(after=2)) == 4
    assert stamps.resumed() == stamps.read()[3]


def test_a_line_that_a_kill_cut_off_is_no_stamp(tmp_path: Path) -> None:
    stamps = Stamps(tmp_path / "stamps")
    stamps.path.write_text(json.dumps([1, 2.0, 3.0]) + "\n[2, 3.")
    assert stamps.read() == [Stamp(1, 2.0, 3.0)]


@pytest.mark.parametrize(("stall_s", "slower_s"), [(0.0, 0.0), (0.4, 0.0), (0.4, 0.1)])
def test_a_checkpoint_costs_its_stall_and_what_it_slows(stall_s: float, slower_s: float) -> None:
    every, moment_s, stamps = 10, 100.0, []
    for step in range(1, 5 * every + 1):
        since = (step - 1) % every if step > every else every
        moment_s += 2.0 + stall_s * (since == 0) + slower_s * (since < 3)
        stamps.append(Stamp(step, moment_s, 1.0))
    cost_s, step_s = cost_of_a_checkpoint(stamps, every_steps=every)
    assert step_s == pytest.approx(2.0)
    assert cost_s == pytest.approx(stall_s + 3 * slower_s)


def training_of(losses: dict[int, float], weight: torch.Tensor) -> Finished:
    return Finished(b"", losses, {"weight": weight}, restarts=0, lost_s=0, useful_s=1, spent_s=1, wall_s=1)


def test_two_trainings_lie_as_far_apart_as_their_worst_step_and_weight() -> None:
    left = training_of({1: 3.0, 2: 2.0}, torch.tensor([1.0, 2.0]))
    assert loss_difference(left, left) == parameter_difference(left, left) == 0
    right = training_of({1: 3.0, 2: 2.5}, torch.tensor([1.0, 2.25]))
    assert loss_difference(left, right) == 0.5
    assert parameter_difference(left, right) == 0.25
    assert loss_difference(left, training_of({1: 3.0}, torch.tensor([1.0, 2.0]))) == math.inf
    lost = training_of({1: math.nan, 2: 2.0}, torch.tensor([math.nan, 2.0]))
    assert loss_difference(left, lost) == parameter_difference(left, lost) == math.inf
