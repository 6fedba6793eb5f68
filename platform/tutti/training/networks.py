"""The networks of one model, each with its own strategy, saved and taken up as one state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tutti.training.strategy import Strategy, weights_in

ALONE = "model"
"""The name of a network that has no other beside it."""


class Networks(Mapping[str, Strategy]):
    """Strategies by the names of their networks; a checkpoint keeps each below a folder of its name.

    Args:
        strategies: one for each network; a single one is called :data:`ALONE`, and its files lie at the top.
    """

    def __init__(self, strategies: Mapping[str, Strategy]) -> None:
        self._strategies = dict(strategies)

    def __getitem__(self, name: str) -> Strategy:
        return self._strategies[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._strategies)

    def __len__(self) -> int:
        return len(self._strategies)

    def evaluating(self, on: bool) -> None:
        """Turn dropout of all off, or on again."""
        for strategy in self.values():
            strategy.evaluating(on)

    def snapshot(self) -> dict[str, Any]:
        """This rank's state in host memory, by path below a checkpoint."""
        return {
            f"{_folder(name)}{path}": state
            for name, strategy in self.items()
            for path, state in strategy.snapshot().items()
        }

    def wanted(self, path: str) -> bool:
        """Whether this rank needs that file of a checkpoint that as many ranks wrote as there are."""
        return any(
            path.startswith(_folder(name)) and strategy.wanted(path.removeprefix(_folder(name)))
            for name, strategy in self.items()
        )

    def must_convert(self, *, num_ranks: int) -> bool:
        """Whether what ``num_ranks`` ranks wrote must be made readable first, by one rank of each machine."""
        return any(strategy.must_convert(num_ranks=num_ranks) for strategy in self.values())

    def convert(self, folder: Path) -> None:
        """Make a whole checkpoint readable by any number of ranks, in place."""
        for name, strategy in self.items():
            strategy.convert(folder / _folder(name))

    def load(self, folder: Path, *, converted: bool) -> None:
        """Read back what ranks saved; every rank calls."""
        for name, strategy in self.items():
            strategy.load(folder / _folder(name), converted=converted)


def weights_of(folder: Path, *, network: str) -> dict[str, Tensor]:
    """All weights of one network in a whole checkpoint; see :func:`tutti.training.strategy.weights_in`."""
    return weights_in(folder / _folder(network))


def _folder(name: str) -> str:
    return "" if name == ALONE else f"{name}/"
