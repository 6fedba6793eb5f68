"""Family ``decoder``: a transformer that reads a piece from left to right and says what comes next."""

from tutti.models.decoder.network import Decoder, DecoderConfiguration
from tutti.models.decoder.relative import EventTokens
from tutti.models.family import Family, Flavour
from tutti.models.likelihood import NextToken

__all__ = ["DECODER", "Decoder", "DecoderConfiguration", "EventTokens"]


def _size(layers: int, width: int, heads: int, feed_forward: int, purpose: str) -> Flavour:
    return Flavour({"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}, purpose)


DECODER = Family(
    name="decoder",
    reads="sequences",
    configuration=DecoderConfiguration,
    flavours={
        "nano": _size(2, 64, 2, 192, "tests: learns nothing worth hearing, in seconds"),
        "tiny": _size(4, 128, 4, 352, "the demo: minutes on two processor cores"),
        "small": _size(6, 256, 8, 704, "an evening on a processor, minutes on a GPU"),
        "base": _size(12, 512, 8, 1376, "one GPU, a corpus of some million notes"),
        "medium": _size(12, 768, 12, 2048, "one large GPU, a corpus of some ten million notes"),
        "large": _size(24, 1024, 16, 2752, "a node of GPUs, a corpus of some hundred million notes"),
    },
    networks=lambda configuration: {"model": Decoder(configuration)},
    learning="likelihood",
    objective=lambda _: NextToken(),
)
