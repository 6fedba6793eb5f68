"""Family ``bar_vae``: a latent for each bar; pieces that can be placed between others and moved in named directions."""

from tutti.models.bar_vae.configuration import BarVaeConfiguration
from tutti.models.bar_vae.network import BarVae
from tutti.models.bar_vae.objective import Bound
from tutti.models.family import Family, Flavour

__all__ = ["BAR_VAE", "BarVae", "BarVaeConfiguration"]


def _size(
    layers: tuple[int, int], width: int, heads: int, feed_forward: int, conductor: int, latent: int, *, purpose: str
) -> Flavour:
    sizes = {"width": width, "heads": heads, "feed_forward": feed_forward, "conductor": conductor, "latent": latent}
    return Flavour({"encoder_layers": layers[0], "layers": layers[1], **sizes}, purpose)


BAR_VAE = Family(
    name="bar_vae",
    reads="sequences",
    configuration=BarVaeConfiguration,
    flavours={
        "nano": _size((1, 2), 64, 2, 192, 64, 16, purpose="tests: learns nothing worth hearing, in seconds"),
        "tiny": _size((2, 3), 128, 4, 352, 256, 48, purpose="minutes on two processor cores"),
        "small": _size((3, 4), 256, 8, 704, 512, 96, purpose="an evening on a processor, minutes on a GPU"),
        "large": _size((6, 8), 512, 8, 1376, 1024, 192, purpose="one large GPU, a corpus of some million notes"),
    },
    networks=lambda configuration: {"model": BarVae(configuration)},
    learning="likelihood",
    objective=Bound,
)
