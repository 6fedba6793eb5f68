"""Family ``chorale``: four voices, step by step; within a step each voice hears those above it."""

from tutti.models.chorale.network import Chorale, ChoraleConfiguration
from tutti.models.family import Family, Flavour
from tutti.models.likelihood import NextToken

__all__ = ["CHORALE", "Chorale", "ChoraleConfiguration"]


def _size(layers: int, width: int, heads: int, feed_forward: int, purpose: str) -> Flavour:
    return Flavour({"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}, purpose)


CHORALE = Family(
    name="chorale",
    reads="voices",
    configuration=ChoraleConfiguration,
    flavours={
        "nano": _size(1, 32, 2, 64, "tests: learns nothing worth hearing, in seconds"),
        "tiny": _size(3, 128, 2, 256, "minutes on two processor cores"),
        "small": _size(6, 256, 4, 512, "an hour on two processor cores"),
        "base": _size(8, 512, 8, 1024, "an hour on a GPU"),
    },
    networks=lambda configuration: {"model": Chorale(configuration)},
    learning="likelihood",
    objective=lambda _: NextToken(),
)
