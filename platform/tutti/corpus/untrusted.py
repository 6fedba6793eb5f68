"""Pieces of files that nobody vouches for, read in a child process; see :mod:`tutti.corpus.isolation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from tutti.corpus import note_tables
from tutti.corpus.formats import Parsed, ParseOptions, parse_many
from tutti.corpus.isolation import DEFAULT_TIMEOUT_S, Answer, Columns, File, Lost, SharedReader
from tutti.corpus.score import DEFAULT_TEMPO_QPM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import DataError

_READER = SharedReader(work="tutti.corpus.untrusted:read_in_child")

_BATCH_COLUMNS = tuple(field.name for field in fields(ScoreBatch) if field.name not in ("notes", "titles", "composers"))


def parse_untrusted(files: Sequence[File], *, options: ParseOptions, timeout_s: float = DEFAULT_TIMEOUT_S) -> Parsed:
    """As :func:`tutti.corpus.formats.parse_many`, in this process's child for that; safe from any thread.

    A file that kills the child is refused as parser_crashed, one that takes too long as parser_timeout.

    Raises:
        PlaceError: no child can be started.
    """
    # A small table may hold a hundred times as many notes as a file of MIDI.
    alone = [number for number, (name, _) in enumerate(files) if name.lower().endswith(note_tables.SUFFIXES)]
    return joined(*_READER.read(files, asdict(options), timeout_s=timeout_s, alone=alone))


def read_untrusted(data: bytes, *, name: str = "upload.mid", timeout_s: float = DEFAULT_TIMEOUT_S) -> Score:
    """The score of a file whose bytes nobody vouches for, the first of several; safe from any thread.

    Args:
        name: whose end tells the format.
        timeout_s: longest time that reading may take.

    Raises:
        DataError: what :func:`tutti.corpus.midi.read_midi` refuses; parser_crashed; parser_timeout.
    """
    parsed = parse_untrusted(
        [(name, data)], options=ParseOptions(tempo_without_mark_qpm=DEFAULT_TEMPO_QPM), timeout_s=timeout_s
    )
    if not len(parsed.batch):
        _, reason, detail = parsed.refusals[0]
        raise DataError(reason, detail)
    return parsed.batch[0]


def read_in_child(
    files: Sequence[File], options: Mapping[str, Any], on_file: Callable[[int], None]
) -> tuple[dict[str, Any], Columns]:
    """Work of an :class:`~tutti.corpus.isolation.IsolatedReader`: files to the columns of their pieces."""
    parsed = parse_many(files, options=ParseOptions(**options), on_file=on_file)
    batch = parsed.batch
    columns = {name: getattr(batch, name) for name in _BATCH_COLUMNS}
    columns |= {f"notes.{field.name}": getattr(batch.notes, field.name) for field in fields(Notes)}
    facts = {"titles": batch.titles, "composers": batch.composers, "refusals": parsed.refusals}
    return facts, {**columns, "file_of_piece": parsed.file_of_piece}


def joined(answers: Sequence[Answer], lost: Sequence[Lost]) -> Parsed:
    """What the child answered, in the files' order, with a refusal for each file that it lost."""
    parts = [(answer.start, _parsed(answer)) for answer in answers]
    refusals = [(loss.file, loss.reason, loss.detail) for loss in lost]
    refusals += [(start + file, reason, detail) for start, part in parts for file, reason, detail in part.refusals]
    return Parsed(
        batch=ScoreBatch.joined([part.batch for _, part in parts]),
        file_of_piece=np.concatenate([np.empty(0, np.int64), *(start + part.file_of_piece for start, part in parts)]),
        refusals=tuple(sorted(refusals, key=lambda refusal: refusal[0])),
    )


def _parsed(answer: Answer) -> Parsed:
    columns, facts = answer.columns, answer.facts
    return Parsed(
        batch=ScoreBatch(
            **{name: columns[name] for name in _BATCH_COLUMNS},
            notes=Notes(**{field.name: columns[f"notes.{field.name}"] for field in fields(Notes)}),
            titles=tuple(facts["titles"]),
            composers=tuple(facts["composers"]),
        ),
        file_of_piece=columns["file_of_piece"],
        refusals=tuple((int(file), str(reason), str(detail)) for file, reason, detail in facts["refusals"]),
    )
