"""The training loop: what one rank does from the first step to the bundle.

It knows neither Ray nor DeepSpeed nor MLflow: a strategy steps, a tracker records, the process group (if there is one)
is torch's. Everything that is drawn is drawn from the seed and the step, so a state is a checkpoint and an integer.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from tutti import lineage, seeding
from tutti.dataset.batch import Batch
from tutti.dataset.loader import Loader
from tutti.errors import InputError, UserError
from tutti.training import checkpoint, publishing, skipping
from tutti.training.accounts import Accounts, facts_of
from tutti.training.ceiling import matmul_flops_per_s
from tutti.training.examples import kind_of as kind_of_examples
from tutti.training.faults import Faults
from tutti.training.learner import Judgement, floats
from tutti.training.ledger import Activity, kind_of
from tutti.training.plan import Attempt, Outcome, Plan, Progress, Signals
from tutti.training.publishing import Result
from tutti.training.ranks import Ranks
from tutti.training.recovery import Action, Failure, Limits, Past, Room, decide
from tutti.training.schedule import learning_rate
from tutti.training.speed import Speedometer, peak_memory_bytes
from tutti.training.state import State
from tutti.training.tracker import NoSampler, Sampler, Tracker
from tutti.training.uploader import Policy, Uploader

_MOST_POINTS = 20_000
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class NotFiniteError(Exception):
    """The loss or the gradient of a step is no number."""

    def __init__(self, *, step: int, number: int, loss: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}, batch {number}")
        self.step, self.number, self.loss = step, number, loss


@dataclass(frozen=True, slots=True)
class Stepped:
    """What all ranks know after a step.

    Args:
        loss: mean over the global batch.
        figures: all means and norms by the names of the record.
        following_targets: tokens to be learnt in the next global batch.
        pause: whether some rank was asked to pause.
        busy: whether some rank's checkpoint is still on its way.
    """

    loss: float
    figures: Mapping[str, float]
    following_targets: int
    pause: bool
    busy: bool


class Trainer:
    """One rank of one attempt of a training.

    Args:
        plan: what to do.
        attempt: which start of the workers this is.
        ranks: this process among all.
        tracker: the run's record; the first rank alone writes to it.
        signals: how far it is, and whether it shall pause.
        sampler: what is made of the model on the way.
    """

    def __init__(
        self,
        plan: Plan,
        attempt: Attempt,
        *,
        ranks: Ranks,
        tracker: Tracker,
        signals: Signals,
        sampler: Sampler | None = None,
    ) -> None:
        self._plan, self._recipe, self._attempt = plan, plan.training, attempt
        self._ranks, self._tracker, self._signals = ranks, tracker, signals
        self._sampler = sampler or NoSampler()
        recipe = self._recipe
        self._accounts = Accounts(
            plan.run, attempt, kind=kind_of(gpus_per_worker=recipe.gpus_per_worker), workers=ranks.num_ranks,
            prices=recipe.prices,
        )  # fmt: skip
        self._faults = Faults(
            attempt.faults, run=plan.run, rank=ranks.rank, preempt=signals.ask_pause, cut_tracker=tracker.cut_off
        )
        self._state = State(plan, attempt=attempt.name, ranks=ranks, told=signals.say)
        self._kind = kind_of_examples(plan.model, plan.training)
        self._unit = self._kind.layout(recipe, self._state.configuration).unit
        examples = self._state.patiently(lambda: lineage.load(plan.examples))
        self._loaders = {split: self._loader(examples, split) for split in ("train", "valid", "test")}
        self._speed = Speedometer(
            flops_per_place=self._state.configuration.training_flops_per_place(self._kind.places(recipe)),
            ceiling_flops_per_s=ranks.summed([self._ceiling()])[0],
        )
        self._uploader = Uploader(
            plan.run, attempt.name, ranks.rank, ranks.num_ranks,
            Policy(recipe.keep_checkpoints, recipe.keep_best_checkpoints, recipe.keep_checkpoints_every_steps),
            recipe.storage_patience_s, signals.say, self._accounts.published,
        )  # fmt: skip
        self._order: list[list[int]] = []
        self._due = False

    def run(self) -> Outcome:
        """Train from the newest checkpoint (or the start) to the end, and publish the run; or until a pause is asked.

        Raises:
            UserError: the loss stayed infinite, or storage stayed away.
        """
        try:
            outcome = self._run()
        except Exception:
            # The run is found again by its key if the training goes on; until then it must not look alive.
            self._tracker.finish(failed=True)
            raise
        finally:
            self._uploader.stop()
            for loader in self._loaders.values():
                loader.close()
        return outcome

    def _run(self) -> Outcome:
        if self._ranks.is_first:
            self._state.patiently(lambda: checkpoint.collect_orphans(self._plan.run, attempt=self._attempt.name))
        step = self._take_up()
        if self._ranks.is_first:
            self._tracker.start(parameters=self._parameters(), tags=self._tags())
            self._tracker.artifact("recipe.yaml", self._plan.recipe_text.encode())
            self._report(step, loss=math.nan)
        while True:
            try:
                outcome = self._learn(step)
                break
            except NotFiniteError as error:
                step = self._roll_back(error)
        if outcome == Outcome.FINISHED:
            self._publish()
        elif self._ranks.is_first:
            self._tracker.finish()
        return outcome

    def _take_up(self) -> int:
        self._order, self._due = [], False
        step = self._state.take_up()
        self._accounts.resumed(self._state.learnt_tokens)
        return step

    def _roll_back(self, error: NotFiniteError) -> int:
        """Take up the newest checkpoint without the batch whose loss is no number; the step to go on with."""
        recipe, workers = self._recipe, self._ranks.num_ranks
        decision = decide(
            Failure.NOT_FINITE,
            past=Past(rollbacks=len(self._state.skipped)),
            limits=Limits(recipe.max_failures, recipe.max_rollbacks, recipe.storage_patience_s),
            room=Room(workers, workers, recipe.micro_batch),
        )
        if decision.action == Action.RAISE:
            raise UserError(
                f"the loss is {error.loss} at step {error.step} and {decision.reason}",
                remedy="lower training.learning_rate or raise warmup_steps",
            )
        self._ranks.wait()
        skipped = tuple(sorted({*self._state.skipped, error.number}))
        if self._ranks.is_first:
            self._signals.say(f"{error}; rolling back and skipping the batch")
            self._state.patiently(lambda: skipping.write(self._plan.run, skipped))
        self._settle()
        self._state.begin()
        step = self._take_up()
        self._tracker.log({"rollbacks": float(len(skipped))}, step=error.step)
        return step

    # Steps

    def _learn(self, first: int) -> Outcome:
        recipe, ranks = self._recipe, self._ranks
        if first == 0:
            self._validate(0)
        rows = recipe.batch_sequences // ranks.num_ranks
        numbers = [skipping.number_of(step, self._state.skipped) for step in range(first, recipe.steps)]
        stream = self._loaders["train"].stream(numbers, first=ranks.rank * rows, stop=(ranks.rank + 1) * rows)
        with closing(stream), self._accounts.watch.on(Activity.TRAIN):
            share = next(stream, None)
            targets = int(ranks.summed([share.num_targets if share else 0])[0])
            for step, number in enumerate(numbers, start=first):
                assert share is not None
                self._state.patiently(partial(self._faults.before, step))
                self._speed.begin()
                following = next(stream, None)
                stepped = self._step(step, number, share, num_targets=targets, following=following)
                self._speed.end(targets)
                self._state.learnt_tokens += targets
                self._record(step, number, stepped)
                done = step + 1
                self._between_steps(done, stepped)
                if stepped.pause and done < recipe.steps:
                    self._save(done, now=True)
                    if ranks.is_first:
                        self._report(done, loss=stepped.loss)
                    return Outcome.PAUSED
                share, targets = following, stepped.following_targets
        return Outcome.FINISHED

    def _between_steps(self, done: int, stepped: Stepped) -> None:
        recipe = self._recipe
        if done % recipe.validate_every_steps == 0 or done == recipe.steps:
            self._validate(done)
        if recipe.sample_every_steps and done % recipe.sample_every_steps == 0 and done < recipe.steps:
            self._sample(done)
        self._due = self._due or done % recipe.checkpoint_every_steps == 0
        # A checkpoint that is still on its way is never waited for: the next one is taken as soon as it has arrived.
        if self._due and not stepped.busy and not stepped.pause and done < recipe.steps:
            self._save(done)
        self._uploader.check()

    def _step(self, step: int, number: int, share: Batch, *, num_targets: int, following: Batch | None) -> Stepped:
        """One optimizer step over the global batch."""
        learner = self._state.learner
        poison = math.nan if self._faults.poisons(number) else 1.0
        learnt = learner.learn(share, step=step, num_targets=num_targets, poison=poison)
        *sums, targets, pause, busy = self._ranks.summed([
            *floats(learnt.sums),
            following.num_targets if following else 0,
            float(self._signals.pause_is_asked()),
            float(self._uploader.is_busy),
        ])  # fmt: skip
        means = [value / num_targets for value in sums]
        for value in (*means, *learnt.norms.values()):
            if not math.isfinite(value):
                raise NotFiniteError(step=step, number=number, loss=value)
        names = [learner.figure(name) for name in learnt.sums]
        figures = {**dict(zip(names, means, strict=True)), **learnt.norms}
        return Stepped(means[0], figures, int(targets), pause=pause > 0, busy=busy > 0)

    def _record(self, step: int, number: int, stepped: Stepped) -> None:
        if self._recipe.record_order:
            rows = self._recipe.batch_sequences // self._ranks.num_ranks
            mine = range(self._ranks.rank * rows, (self._ranks.rank + 1) * rows)
            self._order += publishing.order_rows(self._loaders["train"], step=step, number=number, rows=mine)
        if not self._ranks.is_first:
            return
        points = self._state.history["train"]
        points.append([step + 1, stepped.loss])
        if len(points) > _MOST_POINTS:
            del points[: len(points) // 2 : 2]
        figures = {
            **stepped.figures,
            "learning_rate": learning_rate(step, self._recipe),
            f"{self._unit}_per_s": self._speed.places_per_s,
            "mfu": self._speed.model_flops_utilisation,
            "memory_mib": peak_memory_bytes(self._ranks.device) / 2**20,
        }
        self._tracker.log(figures, step=step + 1)
        self._report(step + 1, loss=stepped.loss)

    def _report(self, step: int, *, loss: float) -> None:
        accounts = self._accounts
        valid = self._state.history["valid"][-1][1] if self._state.history["valid"] else None
        self._signals.report(
            Progress(
                step, self._recipe.steps, loss, valid, self._speed.places_per_s, self._unit, accounts.published_step,
                accounts.tokens, accounts.now(), accounts.kept, time.time(),
            )
        )  # fmt: skip

    # Checkpoints, validation, samples

    def _save(self, step: int, *, now: bool = False) -> None:
        """Copy the state and send it off; with ``now`` wait until it has arrived on storage."""
        with self._accounts.watch.on(Activity.CHECKPOINT):
            if now:
                self._settle()
            self._gather_order()
            valid = self._state.history["valid"]
            facts = {
                "num_ranks": self._ranks.num_ranks,
                "learnt_tokens": self._state.learnt_tokens,
                "valid_score": valid[-1][1] if valid and valid[-1][0] == step else None,
                "model": publishing.about(
                    self._plan,
                    self._state.configuration,
                    workers=self._ranks.num_ranks,
                    score=self._state.learner.score_name,
                ),
            }
            self._accounts.taken(step, tokens=self._state.learnt_tokens)
            files = self._state.learner.networks.snapshot()
            self._uploader.submit(step=step, files=files, history=self._state.history, facts=facts)
            self._due = False
            if now:
                self._settle()

    def _settle(self) -> None:
        """Wait until no rank has a checkpoint on its way."""
        with self._accounts.watch.on(Activity.WAIT):
            while not self._ranks.wait_for(not self._uploader.is_busy):
                pass
            self._uploader.check()

    def _gather_order(self) -> None:
        if self._recipe.record_order:
            parts = self._ranks.gathered(self._order)
            self._state.history["order"] += [row for part in parts or () for row in part]
            self._order = []

    def _validate(self, step: int) -> None:
        with self._accounts.watch.on(Activity.VALIDATE):
            judgement = self._judged("valid")
        self._state.history["valid"].append([step, judgement.score])
        if self._ranks.is_first:
            self._tracker.log(judgement.measures("valid"), step=step)

    def _sample(self, step: int) -> None:
        with self._accounts.watch.on(Activity.SAMPLE):
            weights = self._state.weights()
            if self._ranks.is_first:
                bundle = publishing.bundle_of(
                    self._plan, weights=weights, configuration=self._state.configuration, facts={"step": step}
                )
                try:
                    files = self._sampler.files(bundle, step=step)
                except InputError as error:  # a model that has learnt little may make what cannot be played
                    self._signals.say(f"no sample of step {step}: {error}")
                    files = {}
                for path, data in files.items():
                    self._tracker.artifact(path, data)
                self._tracker.artifact("pictures/loss.png", publishing.picture_of(self._plan, self._state.history))

    # The end

    def _publish(self) -> None:
        self._settle()
        self._gather_order()
        published = self._choose()
        with self._accounts.watch.on(Activity.VALIDATE):
            measures = self._measures()
        weights = self._state.weights()
        if self._ranks.is_first:
            bill = self._state.patiently(lambda: self._accounts.close(tokens=self._state.learnt_tokens))
            facts = {
                "score": self._state.learner.score_name,
                "measures": measures,
                "data": dict(self._plan.data),
                "training": {**self._facts(), **published},
                "recovery": {
                    "restarts": bill.ledger.restarts,
                    "rollbacks": len(self._state.skipped),
                    "skipped_batches": list(self._state.skipped),
                    "seconds_lost": round(bill.ledger.lost_seconds, 1),
                },
                "cost": facts_of(bill),
            }
            self._tracker.log(bill.figures(), step=self._recipe.steps)
            result = Result(weights, self._state.configuration, self._state.history, facts)
            self._state.patiently(partial(publishing.publish, self._plan, result, tracker=self._tracker))
            self._tracker.finish()
            self._report(self._recipe.steps, loss=self._state.history["train"][-1][1])
            self._state.patiently(self._remove_ladders)
        self._ranks.wait()

    def _choose(self) -> dict[str, Any]:
        """Take up the weights that the recipe asks to be published; what the card says of them."""
        if self._recipe.publish == "average" and (steps := self._averaged()):
            return {"published_step": max(steps), "averaged_steps": sorted(steps)}
        step = None if self._recipe.publish == "last" else self._state.take_best()
        return {"published_step": step or self._recipe.steps}

    def _averaged(self) -> list[int]:
        """Take up the mean of the checkpoints that are kept; their steps, or none where a single one is better."""
        last = self._state.weights()
        steps = self._state.take_average()
        if steps:
            with self._accounts.watch.on(Activity.VALIDATE):
                score = self._judged("valid").score
            judged = dict(self._state.history["valid"])
            if score < min(judged[step] for step in (*steps, self._recipe.steps)):
                return steps
        self._state.put(last)
        return []

    def _remove_ladders(self) -> None:
        """The bundle is published: checkpoints that only served to get there may go."""
        recipe, run = self._recipe, self._plan.run
        best, every_steps = recipe.keep_best_checkpoints, recipe.keep_checkpoints_every_steps
        checkpoint.prune(run, last=0, best=best, every_steps=every_steps)
        if not checkpoint.steps(run):
            (run / "checkpoints").delete()

    def _judged(self, split: str) -> Judgement:
        return self._state.learner.judged(self._loaders[split])

    def _measures(self) -> dict[str, float]:
        measures = {f"before_valid_{self._state.learner.score_name}": self._state.history["valid"][0][1]}
        for split in ("valid", "test"):
            measures |= self._judged(split).measures(split)
        measures |= {f"{name}_nll_nats_per_token": value for name, value in self._plan.baselines.items()}
        if self._ranks.is_first:
            self._tracker.log(measures, step=self._recipe.steps)
        return measures

    def _facts(self) -> dict[str, Any]:
        recipe = self._recipe
        spent_s = self._accounts.now().worker_seconds(activity=Activity.TRAIN) / self._ranks.num_ranks
        return {
            "recipe": recipe.model_dump(mode="json"),
            "recipe_digest": self._plan.fingerprint or recipe.digest(),
            "steps": recipe.steps,
            "sequence_tokens": recipe.sequence_tokens,
            "tokens": self._state.learnt_tokens,
            "unit": self._unit,
            "seconds": round(spent_s, 1),
            f"{self._unit}_per_s": round(self._state.learnt_tokens / max(spent_s, 1e-9), 1),
            "mfu": round(self._speed.model_flops_utilisation, 4),
            "training_flops": self._speed.flops_per_place * self._state.learnt_tokens,
            "workers": self._ranks.num_ranks,
            "strategy": recipe.strategy,
            "zero_stage": recipe.zero_stage if recipe.strategy == "deepspeed" else None,
        }

    # Small things

    def _loader(self, examples: lineage.Dataset, split: str) -> Loader:
        recipe = self._recipe
        return Loader(
            examples,
            split=split,
            layout=self._kind.layout(recipe, self._state.configuration),
            batch_sequences=recipe.batch_sequences,
            seed=seeding.derive(recipe.seed, "data"),
            mixture=recipe.mixture or None if split == "train" else None,
            patience_s=recipe.storage_patience_s,
            told=self._signals.say if self._ranks.is_first else None,
        )

    def _ceiling(self) -> float:
        recipe = self._recipe
        return matmul_flops_per_s(
            device=self._ranks.device, dtype=_DTYPES[recipe.precision], threads=recipe.threads_per_worker
        )

    def _tags(self) -> dict[str, str]:
        return {
            "tutti.run": self._plan.run.uri,
            "tutti.fingerprint": self._plan.fingerprint,
            "tutti.skipped_batches": json.dumps(list(self._state.skipped)),
        }

    def _parameters(self) -> dict[str, str | int | float]:
        recipe = {
            f"training.{name}": value if isinstance(value, int | float | str) else json.dumps(value)
            for name, value in self._recipe.model_dump(mode="json").items()
        }
        model = {f"model.{name}": value for name, value in asdict(self._state.configuration).items()}
        data = {f"data.{name}": json.dumps(value) for name, value in self._plan.data.items()}
        return {**recipe, **model, **data, "model.parameters": self._state.configuration.parameters}
