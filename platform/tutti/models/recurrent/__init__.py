"""Family ``recurrent``: long short-term memory; it remembers a fixed amount, however long a piece."""

from tutti.models.family import Family, Flavour
from tutti.models.likelihood import NextToken
from tutti.models.recurrent.network import Recurrent, RecurrentConfiguration

__all__ = ["RECURRENT", "Recurrent", "RecurrentConfiguration"]

RECURRENT = Family(
    name="recurrent",
    reads="sequences",
    configuration=RecurrentConfiguration,
    flavours={
        "nano": Flavour({"layers": 1, "width": 64, "hidden": 96}, "tests: learns nothing worth hearing, in seconds"),
        "tiny": Flavour({"layers": 2, "width": 128, "hidden": 256}, "minutes on two processor cores"),
        "small": Flavour({"layers": 3, "width": 256, "hidden": 640}, "an evening on a processor, minutes on a GPU"),
        "base": Flavour({"layers": 4, "width": 512, "hidden": 1536}, "one GPU, a corpus of some million notes"),
        "large": Flavour(
            {"layers": 4, "width": 1024, "hidden": 2560}, "one large GPU, a corpus of some ten million notes"
        ),
    },
    networks=lambda configuration: {"model": Recurrent(configuration)},
    learning="likelihood",
    objective=lambda _: NextToken(),
)
