"""Long short-term memory over event tokens, with tied embeddings.

Sources: Hochreiter and Schmidhuber 1997 (LSTM); Press and Wolf 2017 (tied embeddings, arXiv 1608.05859); dropout
between layers and around the stack as Zaremba et al. 2014 (1409.2329).

Legend: B rows, T tokens, P pieces, S tokens of the longest piece, V vocabulary, W width, L layers, H hidden units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tutti.models.family import Footprint
from tutti.models.precision import Precision, dtype_of
from tutti.models.recurrent.state import RecurrentState
from tutti.models.recurrent.steps import RecurrentSteps

STRETCH_TOKENS = 128


@dataclass(frozen=True)
class RecurrentConfiguration:
    """Size of a recurrent network.

    Args:
        vocabulary_size: V.
        layers, width, hidden: L, W, H.
        dropout: on the embeddings, between layers and on the output, while training.
    """

    vocabulary_size: int
    layers: int
    width: int
    hidden: int
    dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def parameters(self) -> int:
        """Number of weights; the tied embedding counts once."""
        return self.vocabulary_size * self.width + self._recurrent_weights + self.hidden * self.width + self.width

    def training_flops_per_place(self, places: int) -> float:  # noqa: ARG002
        """Floating-point operations of forward and backward for one token: six for each weight of a matrix product."""
        biases = 8 * self.layers * self.hidden
        matrices = self._recurrent_weights - biases + self.hidden * self.width
        return 6.0 * (matrices + self.vocabulary_size * self.width)

    @property
    def footprint(self) -> Footprint:
        """Four gates, their inputs and the states of each layer."""
        return Footprint(
            blocks=self.layers,
            block_numbers=14 * self.hidden,
            boundary_numbers=self.hidden,
            pair_bytes=0,
            output_numbers=5 * self.vocabulary_size,
        )

    @property
    def _recurrent_weights(self) -> int:
        inputs = [self.width, *[self.hidden] * (self.layers - 1)]
        # torch keeps two biases for each gate.
        return sum(4 * self.hidden * (size + self.hidden + 2) for size in inputs)


class Recurrent(nn.Module):
    """Next-token model of event sequences."""

    def __init__(self, configuration: RecurrentConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width, hidden = configuration.width, configuration.hidden
        self.embedding = nn.Embedding(configuration.vocabulary_size, width)
        self.memory = nn.LSTM(
            width,
            hidden,
            num_layers=configuration.layers,
            batch_first=True,
            dropout=configuration.dropout if configuration.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(configuration.dropout)
        self.output = nn.Linear(hidden, width, bias=False)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self._initialise()

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Logits of the token after each; shape (B, T, V).

        Args:
            tokens_BT: token ids.
            segments_BT: number of the piece that each token belongs to, -1 at padding; each begins without a past.
        """
        if segments_BT is None:
            segments_BT = torch.zeros_like(tokens_BT)
        places_PS, lengths_P = pieces_of(segments_BT)
        x_PSW = self.dropout(self.embedding(tokens_BT.flatten()[places_PS]))
        y_PSH = self._remembered(x_PSW, lengths_P)
        real_PS = torch.arange(places_PS.shape[1], device=places_PS.device) < lengths_P[:, None]
        mixed_NW = self._mixed(y_PSH[real_PS])
        # Padding says nothing, and nothing is learnt there.
        out = mixed_NW.new_zeros(tokens_BT.numel(), mixed_NW.shape[1])
        out = out.index_copy(0, places_PS[real_PS], mixed_NW)
        return functional.linear(out, self.embedding.weight).view(*tokens_BT.shape, -1)

    def read(self, tokens_BT: Tensor, cache: RecurrentState, *, counts_B: Tensor | None = None) -> Tensor:
        """Read on from what ``cache`` holds; see :meth:`tutti.models.reader.Reader.read`."""
        x_BTW = self.embedding(tokens_BT)
        state = (cache.hidden_LBH, cache.cell_LBH)
        if counts_B is None:
            y_BTH, state = self.memory(x_BTW, state)
        else:
            packed = pack_padded_sequence(x_BTW, counts_B.cpu(), batch_first=True, enforce_sorted=False)
            packed, state = self.memory(packed, state)
            y_BTH, _ = pad_packed_sequence(packed, batch_first=True, total_length=tokens_BT.shape[1])
        cache.take(*state)
        cache.lengths_B = cache.lengths_B + (tokens_BT.shape[1] if counts_B is None else counts_B)
        return functional.linear(self._mixed(y_BTH), self.embedding.weight)

    def steps(self, precision: Precision = "float32") -> RecurrentSteps:
        """The network as it is now, made ready to step."""
        return RecurrentSteps(self, dtype=dtype_of(precision, device=self.embedding.weight.device))

    def new_cache(
        self,
        *,
        rows: int,
        capacity_tokens: int,  # noqa: ARG002
        seeds: object = None,  # noqa: ARG002
    ) -> RecurrentState:
        """A memory of nothing; it never fills up."""
        weight = self.embedding.weight
        return RecurrentState(
            layers=self.configuration.layers,
            rows=rows,
            hidden=self.configuration.hidden,
            device=weight.device,
            dtype=weight.dtype,
        )

    def _remembered(self, x_PSW: Tensor, lengths_P: Tensor) -> Tensor:
        """What the memory says at each place of each piece, anything beyond its length; shape (P, S, H).

        Pieces go by stretches, the longest first, each stretch with those that are not over: torch's kernel for
        packed sequences is left, as without it oneDNN's serves, which takes a fifth of its time.
        """
        order_P = lengths_P.argsort(descending=True, stable=True)
        x_PSW = x_PSW[order_P]
        longest_first = lengths_P[order_P].tolist()
        state, stretches = None, []
        for start in range(0, longest_first[0], STRETCH_TOKENS):
            under_way = sum(length > start for length in longest_first)
            if state is not None:
                state = (state[0][:, :under_way].contiguous(), state[1][:, :under_way].contiguous())
            y_QSH, state = self.memory(x_PSW[:under_way, start : start + STRETCH_TOKENS], state)
            stretches.append(functional.pad(y_QSH, (0, 0, 0, 0, 0, len(longest_first) - under_way)))
        return torch.cat(stretches, dim=1)[order_P.argsort()]

    def _mixed(self, y: Tensor) -> Tensor:
        mixed: Tensor = self.norm(self.output(self.dropout(y)))
        return mixed

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=self.configuration.width**-0.5)
        hidden = self.configuration.hidden
        for name, weight in self.memory.named_parameters():
            if name.startswith("weight_hh"):
                for gate in weight.data.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                # A new memory keeps (Jozefowicz et al. 2015).
                weight.data[hidden : 2 * hidden] = 1.0


def pieces_of(segments_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Where the tokens of each piece lie.

    Returns:
        places_PS: place in the flattened batch of each piece's tokens, any place beyond its length; shape (P, S).
        lengths_P: tokens of each piece.
    """
    rows, tokens = segments_BT.shape
    flat = segments_BT.flatten()
    begins = torch.ones_like(segments_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts_P = torch.nonzero(begins.flatten() & (flat >= 0)).flatten()
    stops = torch.nonzero(begins.flatten()).flatten()
    stops = torch.cat([stops, stops.new_tensor([rows * tokens])])
    lengths_P = stops[torch.searchsorted(stops, starts_P, right=True)] - starts_P
    offsets_S = torch.arange(int(lengths_P.max()), device=flat.device)
    return (starts_P[:, None] + offsets_S).clamp_max(rows * tokens - 1), lengths_P
