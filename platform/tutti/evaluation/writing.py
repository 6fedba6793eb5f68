"""Works as a model would write them: without it they would differ from takes by what no take can say.

What a model can say follows from the kind of examples it reads: event tokens have a grid and a track for each program,
voices are four lines of sixteenths, rolls five tracks of sixteenths in 4/4. A work that cannot be written so is left
out, and counted.

Legend: W works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import DataError, RecipeError
from tutti.evaluation.comparison import Row
from tutti.evaluation.rolls import rows_of_rolls
from tutti.features import roll, voices
from tutti.features.grid import Grid
from tutti.features.vocabulary import ANY


@dataclass(frozen=True)
class Writing:
    """How models of one kind of examples write.

    Args:
        write: W works, as many as can be written; and which these are, shape (W,).
        one_part: why takes have no parts of one instrument; empty where they have.
        rows: measures that only such pieces have, of all sets.
    """

    write: Callable[[ScoreBatch], tuple[ScoreBatch, NDArray[np.bool_]]]
    one_part: str = ""
    rows: Callable[[Mapping[str, ScoreBatch]], list[Row]] = lambda _: []


def writing_of(reads: str) -> Writing:
    """How models write that read examples of a kind.

    Raises:
        RecipeError: such models write no pieces that could be compared.
    """
    if reads not in WRITINGS:
        raise RecipeError(
            f"models that read {reads} make no pieces to be held against works",
            remedy="their measures are on their card: tutti models show",
        )
    return WRITINGS[reads]


def _in_events(batch: ScoreBatch) -> tuple[ScoreBatch, NDArray[np.bool_]]:
    written = Grid.of(batch).scores(titles=batch.titles, composers=batch.composers)
    return written, np.ones(len(batch), dtype=bool)


def _each(write: Callable[[Score], Score | None]) -> Callable[[ScoreBatch], tuple[ScoreBatch, NDArray[np.bool_]]]:
    def of(batch: ScoreBatch) -> tuple[ScoreBatch, NDArray[np.bool_]]:
        written = [write(score) for score in batch]
        return ScoreBatch.of([score for score in written if score is not None]), np.array(
            [score is not None for score in written], dtype=bool
        )

    return of


def _in_voices(score: Score) -> Score | None:
    try:
        grid_TV = voices.voices_of(score)
    except DataError:  # not four lines: the caller counts it
        return None
    return voices.score_of(grid_TV, tempo_qpm=float(score.tempo_qpm[0]), title=score.title)


def _in_rolls(score: Score) -> Score | None:
    found = roll.rolls_of(score, tracks=roll.tracks_of(score.notes), mood=ANY, hop_bars=roll.BARS)
    if not found.tokens:
        return None
    lengths = np.array([len(tokens) for tokens in found.tokens])
    _, marks = roll.dense(np.concatenate(found.tokens), lengths=lengths)
    written = roll.score_of(marks, tempo_qpm=float(score.tempo_qpm[0]))
    return replace(written, title=score.title, composer=score.composer) if len(written.notes) else None


WRITINGS: dict[str, Writing] = {
    "sequences": Writing(_in_events, one_part="event tokens write all parts of one program as one"),
    "voices": Writing(_each(_in_voices)),
    "rolls": Writing(_each(_in_rolls), one_part="rolls write five tracks, of which one is drums", rows=rows_of_rolls),
}
