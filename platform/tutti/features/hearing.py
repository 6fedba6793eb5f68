"""Clips of sound files that nobody vouches for, cut and described in a child process.

The child (:mod:`tutti.corpus.isolation`) does all that touches the bytes, and gives back FLAC and figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tutti.corpus.clips import HEARD, Cutting, Heard, hear_many
from tutti.corpus.isolation import Answer, Columns, File, Lost, SharedReader

_READER = SharedReader(work="tutti.features.hearing:hear_in_child")
# The longest file that is taken by default, half an hour, takes 13 s of one core.
DEFAULT_TIMEOUT_S = 60.0

_FIGURES = tuple(name for name in HEARD if name != "audio")


def hear_untrusted(files: Sequence[File], *, cutting: Cutting, timeout_s: float = DEFAULT_TIMEOUT_S) -> Heard:
    """As :func:`tutti.corpus.clips.hear_many`, in this process's child for that; safe from any thread.

    A file that kills the child is refused as parser_crashed, one that takes too long as parser_timeout.

    Raises:
        PlaceError: no child can be started.
    """
    options = cutting.model_dump(mode="json")
    return joined(*_READER.read(files, options, timeout_s=timeout_s, alone=range(len(files))))


def hear_in_child(
    files: Sequence[File], options: Mapping[str, Any], on_file: Callable[[int], None]
) -> tuple[dict[str, Any], Columns]:
    """Work of an :class:`~tutti.corpus.isolation.IsolatedReader`: files to clips, their FLAC laid end to end."""
    from tutti.features.sound import describe  # slow to load, and only the child hears

    heard = hear_many(files, cutting=Cutting(**options), describe=describe, on_file=on_file)
    facts = {
        "clips": [{name: clip[name] for name in _FIGURES} for clip in heard.clips],
        "titles": list(heard.titles.items()),
        "refusals": heard.refusals,
    }
    columns: Columns = {
        "file_of_clip": np.array(heard.file_of_clip, dtype=np.int64),
        "audio_bytes": np.array([len(clip["audio"]) for clip in heard.clips], dtype=np.int64),
        "audio": np.frombuffer(b"".join(clip["audio"] for clip in heard.clips), dtype=np.uint8),
    }
    return facts, columns


def joined(answers: Sequence[Answer], lost: Sequence[Lost]) -> Heard:
    """What the child answered, in the files' order, with a refusal for each file that it lost."""
    parts = [(answer.start, _heard(answer)) for answer in answers]
    refusals = [(loss.file, loss.reason, loss.detail) for loss in lost]
    refusals += [(start + file, reason, detail) for start, part in parts for file, reason, detail in part.refusals]
    return Heard(
        clips=tuple(clip for _, part in parts for clip in part.clips),
        file_of_clip=tuple(start + file for start, part in parts for file in part.file_of_clip),
        titles={start + file: title for start, part in parts for file, title in part.titles.items()},
        refusals=tuple(sorted(refusals)),
    )


def _heard(answer: Answer) -> Heard:
    columns, facts = answer.columns, answer.facts
    ends = np.cumsum(columns["audio_bytes"]).tolist()
    audio = columns["audio"].tobytes()
    clips = [
        {**{name: clip[name] for name in _FIGURES}, "audio": audio[start:end]}
        for clip, start, end in zip(facts["clips"], [0, *ends], ends, strict=False)
    ]
    return Heard(
        clips=tuple(clips),
        file_of_clip=tuple(columns["file_of_clip"].tolist()),
        titles={int(file): str(title) for file, title in facts["titles"]},
        refusals=tuple((int(file), str(reason), str(detail)) for file, reason, detail in facts["refusals"]),
    )
