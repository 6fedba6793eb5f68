"""Two small families that Tutti does not carry, added as CONTRIBUTING says: what a training asks of any family.

Legend: B rows, T tokens, V vocabulary, C classes, N channels of noise.
"""

# ruff: noqa: ARG002, ARG005

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tutti import seeding
from tutti.dataset.packed import Packed
from tutti.dataset.sequences import SequenceLayout
from tutti.features.vocabulary import EVENTS
from tutti.models.families import FAMILIES
from tutti.models.family import Family, Flavour, Footprint
from tutti.models.likelihood import NextToken
from tutti.models.precision import Precision
from tutti.models.reader import PlainSteps
from tutti.training.examples import KINDS, Kind

CLASSES, NOISE, BETAS = 12, 4, (0.0, 0.9)
CRITIC_STEPS = 2


@dataclass(frozen=True)
class PairsConfiguration:
    """A table of pairs, as a matrix of rank ``width``."""

    vocabulary_size: int
    width: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parameters(self) -> int:
        return 2 * self.vocabulary_size * self.width

    def training_flops_per_place(self, places: int) -> float:
        return 6.0 * self.vocabulary_size * self.width

    @property
    def footprint(self) -> Footprint:
        return Footprint(1, self.width, self.width, 0, 5 * self.vocabulary_size)


class Remembered:
    """No more than how much was read."""

    capacity_tokens = 2**31

    def __init__(self, rows: int) -> None:
        self.lengths_B = torch.zeros(rows, dtype=torch.long)

    size_bytes = 0

    def keep(self, rows: Tensor) -> None:
        self.lengths_B = self.lengths_B[rows]

    def join(self, fresh: Remembered) -> None:
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))

    def put_row(self, index: int, fresh: Remembered) -> None:
        self.lengths_B[index] = fresh.lengths_B[0]


class Pairs(nn.Module):
    """What follows a token, whatever came before it."""

    def __init__(self, configuration: PairsConfiguration) -> None:
        super().__init__()
        self.embedding = nn.Embedding(configuration.vocabulary_size, configuration.width)
        self.output = nn.Linear(configuration.width, configuration.vocabulary_size, bias=False)

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.embedding(tokens_BT))
        return logits

    def read(self, tokens_BT: Tensor, cache: Remembered, *, counts_B: Tensor | None = None) -> Tensor:
        cache.lengths_B = cache.lengths_B + (tokens_BT.shape[1] if counts_B is None else counts_B)
        return self(tokens_BT)

    def new_cache(self, *, rows: int, capacity_tokens: int, seeds: object = None) -> Remembered:
        return Remembered(rows)

    def steps(self, precision: Precision = "float32") -> PlainSteps:
        return PlainSteps(self)


PAIRS = Family(
    name="pairs",
    reads="sequences",
    configuration=PairsConfiguration,
    flavours={"nano": Flavour({"width": 16}, "tests")},
    networks=lambda configuration: {"model": Pairs(configuration)},
    learning="likelihood",
    objective=lambda _: NextToken(),
)


@dataclass(frozen=True)
class HistogramBatch:
    """How often each pitch class sounds in each row."""

    histograms_BC: NDArray[np.float32]

    @property
    def num_targets(self) -> int:
        return int((self.histograms_BC.sum(1) > 0).sum())

    def rows(self, start: int, stop: int) -> HistogramBatch:
        return HistogramBatch(self.histograms_BC[start:stop])

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"histograms": self.histograms_BC}


class HistogramLayout(SequenceLayout):
    """Sequences as what they hold of each pitch class."""

    unit = "histograms"

    def laid(self, held: Packed, *, num_rows: int) -> Any:
        pitches = np.arange(len(EVENTS))
        span = EVENTS.span("Pitch")
        counts = np.zeros((num_rows, CLASSES), dtype=np.float32)
        for row, (start, stop) in enumerate(zip(held.token_starts[:-1], held.token_starts[1:], strict=True)):
            tokens = pitches[held.tokens[start:stop]]
            sounding = tokens[(tokens >= span.start) & (tokens < span.stop)] - span.start
            counts[row] = np.bincount(sounding % CLASSES, minlength=CLASSES)
        return HistogramBatch(counts / np.maximum(counts.sum(1, keepdims=True), 1))


@dataclass(frozen=True)
class HistogramConfiguration:
    width: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for network in networks_of(self).values() for weight in network.parameters())

    def training_flops_per_place(self, places: int) -> float:
        return 6.0 * self.parameters

    @property
    def footprint(self) -> Footprint:
        return Footprint(2, 4 * self.width, self.width, 0, CLASSES)


def networks_of(configuration: HistogramConfiguration) -> dict[str, nn.Module]:
    width = configuration.width
    return {
        "generator": nn.Sequential(nn.Linear(NOISE, width), nn.SiLU(), nn.Linear(width, CLASSES), nn.Softmax(-1)),
        "critic": nn.Sequential(nn.Linear(CLASSES, width), nn.SiLU(), nn.Linear(width, 1)),
    }


class Wasserstein:
    """With the penalty of Gulrajani et al. 2017 (arXiv 1704.00028)."""

    critic_steps, betas = CRITIC_STEPS, BETAS

    def fakes(self, generator: nn.Module, examples: Mapping[str, Tensor], *, seed: int) -> Tensor:
        noise = torch.randn(len(examples["histograms"]), NOISE, generator=torch.Generator().manual_seed(seed))
        made: Tensor = generator(noise)
        return made

    def critic_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor, *, seed: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        real = examples["histograms"]
        share = torch.rand(len(real), 1, generator=torch.Generator().manual_seed(seed))
        between = (share * real + (1 - share) * fakes).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = 10 * ((slope.norm(dim=1) - 1) ** 2).sum()
        distance = (critic(real) - critic(fakes)).sum()
        return penalty - distance, {"distance": distance, "penalty": penalty}

    def generator_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return -critic(fakes).sum(), {}


class HistogramJudge:
    score_name = "mean_deviation"

    def compared(self, examples: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        real = examples["histograms"].mean(0)
        return {"mean_deviation": float(functional.l1_loss(fakes.mean(0), real)), "examples": float(len(fakes))}


HISTOGRAMS = Family(
    name="histograms",
    reads="histograms",
    configuration=HistogramConfiguration,
    flavours={"nano": Flavour({"width": 16}, "tests")},
    networks=networks_of,
    learning="adversarial",
    objective=lambda _: Wasserstein(),
    maker="generator",
)


def add() -> None:
    """Let Tutti know both, as a line in ``families.py`` would, and what the second one reads."""
    FAMILIES.update({family.name: family for family in (PAIRS, HISTOGRAMS)})
    KINDS["histograms"] = Kind(
        layout=lambda recipe, _: HistogramLayout(sequence_tokens=recipe.sequence_tokens),
        shape=lambda recipe: {},
        places=lambda recipe: 1,
        random=lambda recipe, _: HistogramBatch(
            np.random.default_rng(0).dirichlet(np.ones(CLASSES), recipe.batch_sequences).astype(np.float32)
        ),
        judge=lambda _: HistogramJudge(),
    )


def by_hand(sequences: list[HistogramBatch], *, seed: int, micro_batch: int, rate: Any, steps: int) -> nn.Module:
    """The generator after a training that is written as one would write it down: torch alone, no engine, no ranks."""
    torch.manual_seed(seeding.derive(seed, "weights"))
    networks, objective = networks_of(HistogramConfiguration(16)), Wasserstein()
    optimizers = {
        name: torch.optim.AdamW(network.parameters(), lr=1.0, betas=BETAS, eps=1e-8, weight_decay=0.0)
        for name, network in networks.items()
    }
    generator, critic = networks["generator"], networks["critic"]
    for step in range(steps):
        for name in ("critic", *(["generator"] if (step + 1) % CRITIC_STEPS == 0 else [])):
            batch = sequences[step]
            for grain, start in enumerate(range(0, len(batch.histograms_BC), micro_batch)):
                seed_of_grain = seeding.derive(seed, name, step, grain)
                examples = {"histograms": torch.from_numpy(batch.histograms_BC[start : start + micro_batch])}
                fakes = objective.fakes(generator, examples, seed=seed_of_grain)
                if name == "critic":
                    seed_of_penalty = seeding.derive(seed_of_grain, "penalty")
                    loss, _ = objective.critic_loss(critic, examples, fakes.detach(), seed=seed_of_penalty)
                else:
                    loss, _ = objective.generator_loss(critic, examples, fakes)
                (loss / batch.num_targets).backward()
            for group in optimizers[name].param_groups:
                group["lr"] = rate(step)
            optimizers[name].step()
            for optimizer in optimizers.values():
                optimizer.zero_grad()
    return generator
