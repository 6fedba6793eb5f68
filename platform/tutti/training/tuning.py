"""What a model is tuned by: pairs of takes and the works that it learnt from, with what it says of them itself.

Each row carries the log-likelihood under the model as it is, computed once, and the model's weights lie beside the
rows, so a training on any machine needs nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutti import lineage
from tutti.corpus.splits import SPLITS, TEST, VALID
from tutti.dataset import blocks
from tutti.dataset.blocks import Blocks
from tutti.dataset.loader import PATIENCE_S
from tutti.dataset.packed import Packed
from tutti.dataset.pairs import (
    KIND,
    PAIRS,
    WORKS,
    PairLayout,
    Tokens,
    rows_of_pairs,
    rows_of_works,
    with_reference,
)  # fmt: skip
from tutti.errors import RecipeError, UserError
from tutti.features.events import bar_windows
from tutti.features.vocabulary import BAR, EVENTS
from tutti.lineage import Dataset
from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.models.families import family_of, network_of
from tutti.models.family import Family
from tutti.models.likelihood import NextToken
from tutti.storage import Folder
from tutti.tables import PAIRS as PAIRS_TABLE
from tutti.tables import from_parquet
from tutti.telemetry import Reporter, Silent
from tutti.training.learner import tensors_of
from tutti.training.preference import nats_of_sides

TUNING_VERSION = 1
"""Moves whenever the same pairs, works and model would give other rows."""
PARENT = "parent/"
"""Folder of the model that is tuned, below the dataset's."""
WEIGHTS = f"{PARENT}{bundles.WEIGHTS}"
MOST_WORK_BLOCKS = 64
"""Blocks of 1 MiB of a collection's works that are held on to; a larger corpus gives its first ones."""
_ROWS_AT_ONCE = 8
# In training only the pairs' reference enters the loss; works' is for what is held out.
_JUDGED = (VALID, TEST)


def check_parent(bundle: Bundle, *, name: str) -> None:
    """Refuse a model that pairs cannot tune.

    Args:
        name: of its version, for people.

    Raises:
        RecipeError: its family does not say the next event, or it speaks another vocabulary.
    """
    if not _says_what_is_next(family_of(bundle.family), bundle.configuration):
        raise RecipeError(
            f"{name} is a {bundle.family}, which pairs cannot tune: it does not tell how likely each event is",
            remedy="name a version of another family, such as a decoder",
        )
    if bundle.vocabulary != EVENTS.names:
        raise RecipeError(f"{name} speaks another vocabulary than this version of Tutti", remedy="train it again")


def _says_what_is_next(family: Family[Any], configuration: Any) -> bool:
    if family.reads != "sequences" or family.learning != "likelihood":
        return False
    return isinstance(family.objective(family.read(configuration)), NextToken)


def prepare(
    parent: Bundle,
    *,
    pairs: Dataset,
    sequences: Dataset,
    root: Folder,
    name: str,
    reporter: Reporter | None = None,
) -> Dataset:
    """Rows of pairs and of works with the parent's log-likelihood of them; found, where that was done before.

    Args:
        parent: the model that is tuned; see :func:`check_parent`.
        pairs: a ``pairs`` dataset.
        sequences: the works that it learnt from, packed.
        root: results root.
        name: of the new dataset.
        reporter: where progress goes.

    Raises:
        RecipeError: the pairs speak another vocabulary or name other collections than the parent.
        UserError: no pair can be learnt from, or none is held out.
    """
    reporter = reporter or Silent()
    inputs = {
        "parent": parent.digest(), "pairs": pairs.address, "sequences": sequences.address, "version": TUNING_VERSION,
    }  # fmt: skip
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"tuning {name}: found finished · {counts(found)}")
        return found
    _check_pairs(pairs, parent=parent)
    sequence_tokens = int(sequences.facts["sequence_tokens"])
    taken = _Pairs(pairs, max_tokens=sequence_tokens + 1)
    block_sequences = blocks.sequences_of_block(2 * sequence_tokens)
    writer = blocks.Writer(folder, block_sequences=block_sequences, file_blocks=blocks.FILE_BLOCKS)
    reference = _Reference(parent, sequence_tokens=sequence_tokens)
    with reporter.task(f"tuning {name}", total=2 * len(SPLITS), unit="parts") as task:
        for number, split in enumerate(SPLITS):
            if taken.by_split[split]:
                writer.begin(split, PAIRS)
                rows = rows_of_pairs(taken.by_split[split])
                writer.add(with_reference(rows, reference.nats(rows)))
            task.update(2 * number + 1)
            if split in sequences.facts["sequences"]:
                writer.begin(split, WORKS)
                for rows in _works(sequences, split=split):
                    writer.add(with_reference(rows, reference.nats(rows)) if split in _JUDGED else rows)
            task.update(2 * number + 2)
    writer.finish()
    files = [lineage.write_file(folder, f"{PARENT}{path}", data) for path, data in parent.files().items()]
    facts = {
        "sequence_tokens": sequence_tokens,
        "block_sequences": block_sequences,
        "file_blocks": blocks.FILE_BLOCKS,
        "sequences": writer.groups,
        "split_notes": sequences.facts["split_notes"],
        "vocabulary": EVENTS.hash,
        "pairs": {split: len(taken.by_split[split]) for split in SPLITS},
        "cut": taken.cut,
        "left_out": dict(sorted(taken.left_out.items())),
    }
    dataset = lineage.publish(folder, kind=KIND, name=name, inputs=inputs, files=[*writer.files, *files], facts=facts)
    reporter.line(f"tuning {name}: {counts(dataset)}")
    return dataset


def counts(tuning: Dataset) -> str:
    """What a dataset of rows for tuning holds, in one short text."""
    facts = tuning.facts
    held = " / ".join(str(facts["pairs"][split]) for split in SPLITS)
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in facts["left_out"].items())
    cut = f" · {facts['cut']:,} cut to their first {facts['sequence_tokens']} tokens" if facts["cut"] else ""
    return f"pairs {held} (train / valid / test){cut}{f' · left out: {left_out}' if left_out else ''}"


def _check_pairs(pairs: Dataset, *, parent: Bundle) -> None:
    if pairs.facts["vocabulary"] != EVENTS.hash:
        raise RecipeError(
            f"pairs {pairs.name} speak vocabulary {pairs.facts['vocabulary']}, not {EVENTS.hash}",
            remedy="make them again: tutti feedback",
        )
    known = tuple(pairs.facts["collections"])
    if known != parent.collections:
        raise RecipeError(
            f"pairs {pairs.name} are of a model of the collections {', '.join(known) or 'none'}, "
            f"and this one knows {', '.join(parent.collections) or 'none'}",
            remedy="let listeners hear takes of the model that is tuned",
        )


class _Pairs:
    """The pairs that can be learnt from, by split: Start, controls and bars up to the longest that may be.

    Args:
        pairs: a ``pairs`` dataset.
        max_tokens: longer takes are cut at a bar line.
    """

    def __init__(self, pairs: Dataset, *, max_tokens: int) -> None:
        self.by_split: dict[str, list[tuple[Tokens, Tokens]]] = {split: [] for split in SPLITS}
        self.cut, self.left_out, self._max_tokens = 0, Counter[str](), max_tokens
        for path in pairs.paths(".parquet"):
            for row in from_parquet(pairs.read(path), PAIRS_TABLE).to_pylist():
                self._add(row)
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(self.left_out.items()))
        held = {split: len(of_split) for split, of_split in self.by_split.items()}
        for split in ("train", VALID):
            if not held[split]:
                raise UserError(
                    f"no {split} pair of {pairs.name} can be learnt from ({reasons or f'it has {sum(held.values())}'})",
                    remedy="gather more feedback",
                )

    def _add(self, row: dict[str, Any]) -> None:
        preferred, rejected = (np.array(row[side], dtype=np.uint16) for side in ("preferred", "rejected"))
        if any(BAR not in tokens for tokens in (preferred, rejected)):
            self.left_out["without_bars"] += 1
        elif not np.array_equal(_head(preferred), _head(rejected)):
            self.left_out["of_two_requests"] += 1
        elif np.array_equal(preferred, rejected):
            self.left_out["identical"] += 1
        else:
            self.by_split[row["split"]].append((self._first(preferred), self._first(rejected)))

    def _first(self, tokens: Tokens) -> Tokens:
        windows = bar_windows(tokens, max_tokens=self._max_tokens)
        self.cut += len(windows) > 1
        return windows[0]


def _head(tokens: Tokens) -> Tokens:
    return tokens[: int(np.flatnonzero(tokens == BAR)[0])]


def _works(sequences: Dataset, *, split: str) -> Iterator[Packed]:
    """Rows of works, a block at a time."""
    held = Blocks(sequences, split=split, with_pieces=True, patience_s=PATIENCE_S)
    for number, source in enumerate(held.sources):
        for block in range(min(source.blocks, MOST_WORK_BLOCKS)):
            yield rows_of_works(held.read(number, block))


class _Reference:
    """What the parent says of rows."""

    def __init__(self, parent: Bundle, *, sequence_tokens: int) -> None:
        self._network: nn.Module = network_of(parent.family, parent.configuration, dropout=0.0)
        self._network.load_state_dict(dict(parent.weights))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network.eval().to(self._device)
        self._layout = PairLayout(sequence_tokens=sequence_tokens)

    @torch.inference_mode()
    def nats(self, rows: Packed) -> NDArray[np.float32]:
        """NLL of each side; shape (B, S)."""
        found = list[NDArray[np.float32]]()
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows.rows(start, min(start + _ROWS_AT_ONCE, len(rows)))
            batch = tensors_of(self._layout.laid(some, num_rows=len(some)), self._device)
            found.append(nats_of_sides(self._network, batch).cpu().numpy())
        return np.concatenate(found)
