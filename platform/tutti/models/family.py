"""What a family of models is to the rooms above: its sizes, its networks, what it learns from and how.

A family is a folder of this room whose ``__init__`` holds one :class:`Family`, and one line in
:mod:`tutti.models.families`. Its maths knows one device; sharding, precision and compilation come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from torch import Tensor, nn

from tutti.errors import RecipeError

NOT_LEARNT = 0
"""The target of a place where nothing is to be learnt, in every vocabulary."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """How much a network remembers between forward and backward, in numbers for one place of a sequence.

    Args:
        blocks: of its stack; each can be forgotten and computed again.
        block_numbers: what one block remembers for a place.
        boundary_numbers: what stays of a block that was forgotten.
        pair_bytes: bytes for each pair of places, over all blocks: masks of attention.
        output_numbers: outputs, their logarithms and the gradients of both.
    """

    blocks: int
    block_numbers: float
    boundary_numbers: float
    pair_bytes: float
    output_numbers: float


class Configuration(Protocol):
    """Size of one model of a family: a frozen dataclass of plain values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""

    @property
    def parameters(self) -> int:
        """Number of weights, over all networks."""

    def training_flops_per_place(self, places: int) -> float:
        """Floating-point operations of forward and backward for one place of an example of so many."""

    @property
    def footprint(self) -> Footprint:
        """What it remembers while it learns."""


C = TypeVar("C", bound=Configuration)


class Likelihood(Protocol):
    """Learning by the likelihood of what comes next."""

    loss_name: str
    """What the loss is called: ``nll`` where it is nothing else."""

    def loss(self, outputs: Any, targets_BT: Tensor, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What an optimizer makes small, and figures by name; all summed over the places to be learnt.

        Args:
            outputs: of the network.
            targets_BT: what should come; :data:`NOT_LEARNT` where it does not count.
            step: of the training, for weights that change on the way.
        """

    def nats(self, outputs: Any, targets_BT: Tensor) -> Tensor:
        """Negative log-likelihood, or the nearest bound above it, summed over the places to be learnt; a scalar."""


class Adversarial(Protocol):
    """Learning by deceiving a critic that learns to tell examples from what a generator makes.

    All randomness comes from the seed that is handed in, so a step is a function of weights, examples and seed.
    """

    critic_steps: int
    """Steps of the critic for each one of the generator."""
    betas: tuple[float, float]
    """Adam's, of both networks."""

    def fakes(self, generator: nn.Module, examples: Mapping[str, Tensor], *, seed: int) -> Tensor:
        """As many as there are examples, made under the examples' conditions."""

    def critic_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor, *, seed: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critic makes small, and figures by name; all summed over the rows."""

    def generator_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator makes small, and figures by name; all summed over the rows."""


@dataclass(frozen=True)
class Flavour:
    """A named size: the configuration's fields that it sets, and what it is for."""

    settings: Mapping[str, Any]
    purpose: str


@dataclass(frozen=True)
class Family(Generic[C]):
    """One way of modelling music.

    Args:
        name: in recipes and bundles.
        reads: kind of examples it learns from, such as ``sequences``.
        configuration: its sizes, as a frozen dataclass.
        flavours: named sizes.
        networks: networks with fresh weights, by name; one alone is called ``model``.
        learning: how it learns.
        objective: what it makes small.
        maker: the network that makes music, and the only one that a bundle holds.
    """

    name: str
    reads: str
    configuration: type[C]
    flavours: Mapping[str, Flavour]
    networks: Callable[[C], dict[str, nn.Module]]
    learning: Literal["likelihood", "adversarial"]
    objective: Callable[[C], Any]
    maker: str = "model"

    @property
    def drops(self) -> bool:
        """Whether it knows dropout."""
        return "dropout" in {field.name for field in fields(self.configuration)}

    def configure(self, flavour: str, *, shape: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> C:
        """Configuration of a named size for examples of a shape.

        Args:
            shape: what the examples decide, such as ``vocabulary_size``.
            settings: what a recipe changes of the flavour; by name of the configuration's fields.

        Raises:
            RecipeError: no such flavour or setting, or a value that cannot be.
        """
        if flavour not in self.flavours:
            raise RecipeError(
                f"flavour {flavour!r} of {self.name} is not known", remedy=f"choose {', '.join(self.flavours)}"
            )
        known = {field.name for field in fields(self.configuration)}
        changes = dict(settings or {})
        for name in changes:
            if name not in known or name in shape:
                free = sorted(known - set(shape))
                raise RecipeError(f"{self.name} has no setting {name!r}", remedy=f"choose among {', '.join(free)}")
        decided = {name: value for name, value in shape.items() if name in known}
        try:
            return self.configuration(**{**self.flavours[flavour].settings, **changes, **decided})
        except (TypeError, ValueError) as error:
            raise RecipeError(f"settings of {self.name} {flavour} cannot be: {error}") from error

    def read(self, values: Mapping[str, Any], **changes: Any) -> C:
        """Configuration of the plain values that a bundle holds; ``changes`` lie over it where it has such fields."""
        made = self.configuration(**values)
        known = {field.name for field in fields(self.configuration)}
        return replace(made, **{name: value for name, value in changes.items() if name in known})
