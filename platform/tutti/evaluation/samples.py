"""Takes and works held out as files: MIDI of every take, sound of the first few of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tutti.corpus.midi import write_midi
from tutti.corpus.score import Score
from tutti.evaluation.comparison import HELD_OUT, TAKES
from tutti.evaluation.evaluation import Evaluation
from tutti.render.export import finish

FOLDER = "samples"
MOST_SOUND_S = 600.0
"""What lasts longer is not played."""


@dataclass(frozen=True)
class Sample:
    """A piece that is shown and played.

    Args:
        of: which set it is of.
        number: of it in its set.
        title: for people.
        score: its music.
        sound: MP3; None where it cannot be played.
    """

    of: str
    number: int
    title: str
    score: Score
    sound: bytes | None

    @property
    def stem(self) -> str:
        """Its files' name without their endings, below the evaluation's folder."""
        return f"{FOLDER}/{_stem(self.of, self.number)}"


@dataclass(frozen=True)
class Samples:
    """All files, and the pairs that are shown.

    Args:
        pairs: a take, and the work as long as it.
        files: bytes by path.
    """

    pairs: tuple[tuple[Sample, Sample], ...]
    files: Mapping[str, bytes]


def rendered(evaluation: Evaluation, *, pairs: int) -> Samples:
    """MIDI of every take; FLAC and MIDI of the takes of the first ``pairs``, and of the works that they are as long as.

    A take without notes makes no sound, and is a MIDI file without notes.
    """
    files = {
        f"{FOLDER}/{_stem(TAKES, number)}.mid": write_midi(score)
        for number, score in enumerate(evaluation.scores[TAKES])
    }
    shown = []
    for number in range(min(pairs, len(evaluation.requests))):
        pair = []
        for of, place in ((TAKES, number), (HELD_OUT, number % len(evaluation.scores[HELD_OUT]))):
            sample, made = _sample(evaluation, of=of, number=place)
            files |= made
            pair.append(sample)
        shown.append((pair[0], pair[1]))
    return Samples(tuple(shown), files)


def titles(evaluation: Evaluation, *, of: str) -> Iterator[str]:
    """What the pieces of a set are called."""
    if of == TAKES:
        yield from (f"Take {number + 1}" for number in range(len(evaluation.requests)))
    else:
        yield from (named.words for named in evaluation.named[of])


def _sample(evaluation: Evaluation, *, of: str, number: int) -> tuple[Sample, dict[str, bytes]]:
    score = evaluation.scores[of][number]
    title = list(titles(evaluation, of=of))[number]
    if not len(score.notes) or score.length_s > MOST_SOUND_S:
        return Sample(of, number, title, score, None), {}
    finished = finish(score, formats=("midi", "flac", "mp3"), title=title)
    stem = f"{FOLDER}/{_stem(of, number)}"
    return (
        Sample(of, number, title, score, finished.files["mp3"]),
        {f"{stem}.{suffix}": finished.files[suffix] for suffix in ("mid", "flac")},
    )


def _stem(of: str, number: int) -> str:
    return f"{'take' if of == TAKES else 'held-out'}-{number + 1:03d}"
