"""The training loop: what one rank does from the first step to the bundle.

It knows neither Ray nor DeepSpeed nor MLflow: a strategy steps, a tracker records, the process group (if there is one)
is torch's.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tutti import lineage, seeding
from tutti.dataset import shards
from tutti.dataset.loader import Loader
from tutti.errors import UserError
from tutti.features.vocabulary import EVENTS
from tutti.lineage import FileEntry
from tutti.models.bundle import Bundle
from tutti.models.flavours import build, configuration_of
from tutti.training import checkpoint, strategy
from tutti.training.objectives import summed_nll, to_tensors
from tutti.training.picture import loss_curve_png
from tutti.training.plan import Plan, Progress
from tutti.training.schedule import learning_rate
from tutti.training.tracker import Tracker

Watcher = Callable[[Progress], None]


class Trainer:
    """One rank of one training.

    Args:
        plan: what to do.
        rank, num_ranks: this process among all.
        device: where the model lives.
        tracker: the run's record; rank 0 alone writes to it.
        watch: told of every step, on rank 0.
    """

    def __init__(
        self, plan: Plan, *, rank: int, num_ranks: int, device: torch.device, tracker: Tracker, watch: Watcher
    ) -> None:
        self._plan = plan
        self._recipe = plan.training
        self._rank, self._num_ranks, self._device = rank, num_ranks, device
        self._tracker, self._watch = tracker, watch
        tokens = lineage.load(plan.tokens)
        self._splits = {split: shards.read(tokens, split=split) for split in ("train", "valid", "test")}
        self._loaders = {split: self._loader(split) for split in self._splits}
        self._configuration = configuration_of(
            plan.model.family,
            plan.model.flavour,
            vocabulary_size=len(EVENTS),
            max_tokens=max(4096, self._recipe.sequence_tokens),
            dropout=plan.model.dropout,
        )
        torch.manual_seed(seeding.derive(self._recipe.seed, "weights"))
        self._strategy = strategy.build(build(plan.model.family, self._configuration), self._recipe, device=device)
        self._history: dict[str, list[list[float]]] = {"train": [], "valid": []}
        self._seconds_before = 0.0
        self._learnt_tokens = 0

    def run(self) -> None:
        """Train from the newest checkpoint (or the start) to the end, and publish the run."""
        try:
            self._run()
        except Exception:
            # The run is found again by its key if the training goes on; until then it must not look alive.
            self._tracker.finish(failed=True)
            raise

    def _run(self) -> None:
        first = self._resume()
        if self._rank == 0:
            self._tracker.start(parameters=self._parameters(), tags={"tutti.run": self._plan.run.uri})
        if first == 0:
            self._validate(0)
        started_s, started_tokens = time.monotonic(), self._learnt_tokens
        for step in range(first, self._recipe.steps):
            loss, norm = self._step(step)
            speed = (self._learnt_tokens - started_tokens) / (time.monotonic() - started_s)
            self._record(step, loss=loss, norm=norm, speed=speed)
            done = step + 1
            if done % self._recipe.validate_every_steps == 0 or done == self._recipe.steps:
                self._validate(done)
            if done % self._recipe.checkpoint_every_steps == 0 and done < self._recipe.steps:
                self._save(done, seconds=self._seconds_before + time.monotonic() - started_s)
        self._publish(seconds=self._seconds_before + time.monotonic() - started_s)

    def _loader(self, split: str) -> Loader:
        return Loader(
            self._splits[split],
            sequence_tokens=self._recipe.sequence_tokens,
            batch_sequences=self._recipe.batch_sequences,
            seed=seeding.derive(self._recipe.seed, "data"),
            augmentation=self._recipe.augmentation,
        )

    def _resume(self) -> int:
        saved = checkpoint.latest(self._plan.run)
        if saved is None:
            return 0
        facts = saved.dataset.facts
        if facts["num_ranks"] != self._num_ranks and self._recipe.strategy == "deepspeed":
            raise UserError(
                f"checkpoint of step {saved.step} was written by {facts['num_ranks']} workers, not {self._num_ranks}",
                remedy=f"set training.workers={facts['num_ranks']}",
            )
        with tempfile.TemporaryDirectory(prefix="tutti-resume-") as staging:
            checkpoint.fetch(saved, Path(staging))
            self._strategy.load(Path(staging))
        self._history = saved.history
        self._seconds_before, self._learnt_tokens = float(facts["seconds"]), int(facts["learnt_tokens"])
        return saved.step

    def _step(self, step: int) -> tuple[float, float]:
        """One optimizer step; mean NLL over the global batch and the gradient norm."""
        # Dropout's stream belongs to the step and the rank, so that a resumed run draws what it would have drawn.
        torch.manual_seed(seeding.derive(self._recipe.seed, "dropout", step, self._rank))
        loader = self._loaders["train"]
        share = loader.batch(step, rank=self._rank, num_ranks=self._num_ranks)
        num_targets = loader.num_targets(step)
        size = self._recipe.micro_batch
        summed = 0.0
        for number in range(self._recipe.micro_batches):
            rows = share.rows(number * size, (number + 1) * size)
            inputs, targets, segments = to_tensors(rows, self._device)
            nll = summed_nll(self._strategy.forward(inputs, segments), targets)
            self._strategy.backward(nll / num_targets, last=number == self._recipe.micro_batches - 1)
            summed += float(nll.detach())
        norm = self._strategy.step(learning_rate(step, self._recipe))
        loss = self._summed([summed])[0] / num_targets
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}", remedy="lower training.learning_rate or raise warmup_steps"
            )
        self._learnt_tokens += num_targets
        return loss, norm

    def _record(self, step: int, *, loss: float, norm: float, speed: float) -> None:
        if self._rank:
            return
        self._history["train"].append([step + 1, loss])
        valid = self._history["valid"][-1][1] if self._history["valid"] else None
        self._watch(Progress(step + 1, self._recipe.steps, loss, valid, speed))
        figures = {
            "train_nll_nats_per_token": loss,
            "learning_rate": learning_rate(step, self._recipe),
            "gradient_norm": norm,
            "tokens_per_s": speed,
        }
        self._tracker.log(figures, step=step + 1)

    def _nll(self, split: str) -> tuple[float, float]:
        """Summed NLL in nats and number of tokens of a whole split; every rank calls."""
        self._strategy.evaluating(True)
        nats = targets_seen = 0.0
        with torch.no_grad():
            for batch in self._loaders[split].in_order(rank=self._rank, num_ranks=self._num_ranks):
                inputs, targets, segments = to_tensors(batch, self._device)
                nats += float(summed_nll(self._strategy.forward(inputs, segments), targets))
                targets_seen += batch.num_targets
        self._strategy.evaluating(False)
        summed = self._summed([nats, targets_seen])
        return summed[0], summed[1]

    def _validate(self, step: int) -> None:
        nats, tokens = self._nll("valid")
        self._history["valid"].append([step, nats / tokens])
        if self._rank == 0:
            figures = {
                "valid_nll_nats_per_token": nats / tokens,
                "valid_bits_per_note": nats / math.log(2) / self._splits["valid"].notes,
            }
            self._tracker.log(figures, step=step)

    def _save(self, step: int, *, seconds: float) -> None:
        facts = {"num_ranks": self._num_ranks, "seconds": seconds, "learnt_tokens": self._learnt_tokens}
        checkpoint.save(
            self._plan.run,
            step=step,
            write=self._strategy.save,
            gather=self._gather,
            history=self._history,
            facts=facts,
        )
        if self._rank == 0:
            checkpoint.prune(self._plan.run, keep=self._recipe.keep_checkpoints)
        self._wait()

    def _publish(self, *, seconds: float) -> None:
        measures = self._measures()
        weights = self._strategy.weights()
        if self._rank == 0:
            self._publish_run(weights, measures=measures, seconds=seconds)
            self._tracker.finish()
        self._wait()

    def _publish_run(self, weights: dict[str, torch.Tensor], *, measures: dict[str, float], seconds: float) -> None:
        facts = {"measures": measures, "data": dict(self._plan.data), "training": self._facts(seconds)}
        bundle = Bundle(
            family=self._plan.model.family,
            flavour=self._plan.model.flavour,
            configuration=self._configuration.to_dict(),
            weights=weights,
            vocabulary=EVENTS.names,
            collections=self._plan.collections,
            facts={**facts, "parameters": self._configuration.parameters, "name": self._plan.name},
        )
        picture = loss_curve_png(
            steps=[int(step) for step, _ in self._history["train"]],
            train_loss=[loss for _, loss in self._history["train"]],
            valid_steps=[int(step) for step, _ in self._history["valid"]],
            valid_loss=[loss for _, loss in self._history["valid"]],
            baselines=self._plan.baselines,
            title=f"{self._plan.name}: {self._plan.model.family} {self._plan.model.flavour}",
        )
        self._tracker.artifact("pictures/loss.png", picture)
        contents = {f"bundle/{name}": data for name, data in bundle.files().items()}
        contents |= {"pictures/loss.png": picture, "history.json": json.dumps(self._history).encode()}
        files = [lineage.write_file(self._plan.run, path, data) for path, data in contents.items()]
        lineage.publish(
            self._plan.run, kind="runs", name=self._plan.name, inputs=self._plan.inputs, files=files,
            facts={**facts, "digest": bundle.digest(), "parameters": self._configuration.parameters},
        )  # fmt: skip
        # The bundle is published: what only served to get there may go.
        (self._plan.run / "checkpoints").delete()

    def _measures(self) -> dict[str, float]:
        measures = {"before_valid_nll_nats_per_token": self._history["valid"][0][1]}
        for split in ("valid", "test"):
            nats, tokens = self._nll(split)
            measures[f"{split}_nll_nats_per_token"] = nats / tokens
            measures[f"{split}_bits_per_note"] = nats / math.log(2) / self._splits[split].notes
        measures |= {f"{name}_nll_nats_per_token": value for name, value in self._plan.baselines.items()}
        if self._rank == 0:
            self._tracker.log(measures, step=self._recipe.steps)
        return measures

    def _facts(self, seconds: float) -> dict[str, Any]:
        recipe = self._recipe
        flops = self._configuration.training_flops_per_token(recipe.sequence_tokens)
        return {
            "recipe": recipe.model_dump(mode="json"),
            "recipe_digest": recipe.digest(),
            "steps": recipe.steps,
            "sequence_tokens": recipe.sequence_tokens,
            "tokens": self._learnt_tokens,
            "seconds": round(seconds, 1),
            "tokens_per_s": round(self._learnt_tokens / max(seconds, 1e-9), 1),
            "training_flops": flops * self._learnt_tokens,
            "workers": self._num_ranks,
            "strategy": recipe.strategy,
            "zero_stage": recipe.zero_stage if recipe.strategy == "deepspeed" else None,
        }

    def _parameters(self) -> dict[str, str | int | float]:
        recipe = {f"training.{name}": value for name, value in self._recipe.model_dump().items()}
        model = {f"model.{name}": value for name, value in asdict(self._configuration).items()}
        data = {f"data.{name}": json.dumps(value) for name, value in self._plan.data.items()}
        return {**recipe, **model, **data, "model.parameters": self._configuration.parameters}

    def _summed(self, values: list[float]) -> list[float]:
        if self._num_ranks == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def _gather(self, entries: list[FileEntry]) -> list[FileEntry] | None:
        if self._num_ranks == 1:
            return entries
        everyone: list[list[FileEntry]] = [[] for _ in range(self._num_ranks)]
        distributed.all_gather_object(everyone, entries)
        return [entry for part in everyone for entry in part] if self._rank == 0 else None

    def _wait(self) -> None:
        if self._num_ranks > 1:
            distributed.barrier()
