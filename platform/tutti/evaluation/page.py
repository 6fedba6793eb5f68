"""The page of an evaluation: what a model makes beside what it should be like, to look at and to listen to.

One file that fetches nothing: its own policy forbids it to. Sound is embedded as MP3.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tutti import pages
from tutti.evaluation import pictures
from tutti.evaluation.borrowing import Borrowings
from tutti.evaluation.comparison import HELD_OUT, SETS, TAKES, Cell, Row
from tutti.evaluation.evaluation import Evaluation
from tutti.evaluation.judgement import BIT_FIGURE, NAT_FIGURE
from tutti.evaluation.measures import similarity
from tutti.evaluation.report import written
from tutti.evaluation.samples import Sample, Samples, titles
from tutti.metrics.originality import LIMITS, Passage
from tutti.render.strokes import ROLL_HEIGHT, ROLL_WIDTH, Roll, roll_of
from tutti.units import PITCH_CLASSES, format_seconds

MOST_PASSAGES = 8
"""Passages of each set that are listed at once; the others are folded away."""
_SHORT_LENGTHS = ("1/1", "1/2", "1/4", "1/8", "1/16", "1/2 ·", "1/4 ·", "1/8 ·", "1/16 ·", "1/2 ³", "1/4 ³", "1/8 ³")
"""The classes of :data:`tutti.metrics.rhythm.NOTE_LENGTHS`, in few letters."""
_UNITS = {"note count": "notes", "note count per bar": "notes", "pitch count": "pitches",
          "pitch count per bar": "pitches", "pitch range": "semitones", "pitch interval": "semitones",
          "inter-onset interval": "s"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell as people read it."""

    value: str
    spread: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table as people read it."""

    title: str
    unit: str
    cells: tuple[Shown, ...]
    apart: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together, and what is to be said of them."""

    title: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """One of Yang and Lerch's features as people read it; shares of the bar's length in per cent."""

    name: str
    takes: str
    held_out: str
    divergence: str
    overlap: str
    length: float | None
    reference: float | None
    reference_text: str


@dataclass(frozen=True, slots=True)
class Card:
    """A piece to listen to."""

    of: str
    title: str
    roll: Roll | None
    sound: str | None
    about: str
    passage: str
    similarity: str | None


@dataclass(frozen=True, slots=True)
class Borrowed:
    """The longest passage that a piece shares, as people read it."""

    piece: str
    reading: str
    bits: int
    limit: int
    notes: int
    bars: int
    work: str
    licence: str
    moved: str
    copy: bool


def render(evaluation: Evaluation, samples: Samples, *, model: str) -> bytes:
    """The page, UTF-8."""
    described = evaluation.described
    scalars = [name for name, values in described[TAKES].items() if values.ndim == 1]
    borrowed = {name: list(_borrowed(evaluation, found, of=name)) for name, found in evaluation.borrowings.items()}
    copies = evaluation.borrowings.get(TAKES)
    overlaps = [feature.takes["overlap"] for feature in evaluation.features]
    known = [overlap for overlap in overlaps if np.isfinite(overlap)]
    return pages.render(
        "tutti.evaluation",
        "page.html.jinja",
        evaluation=evaluation,
        model=model,
        bundle=evaluation.bundle,
        asked=evaluation.asked,
        material=evaluation.material,
        foretelling=list(_foretelling(evaluation)),
        judged=list(_by_judge(evaluation)),
        copies=None if copies is None else int(copies.copies.sum()),
        overlap=f"{100 * float(np.mean(known)):.0f} %" if known else None,
        sections=list(_sections(evaluation.rows)),
        sets=[pictures.NAMES[name] for name in SETS],
        overlaps=[_overlap(name=feature.name, takes=feature.takes, train=feature.train)
                  for feature in evaluation.features],
        histograms=[
            (name, _UNITS.get(name, ""), pictures.histograms(_of(described, name), title=name)) for name in scalars
        ],
        pitch_classes=pictures.kinds(
            _of(described, "pitch class histogram"), names=PITCH_CLASSES, title="Sounding time of each pitch class"
        ),
        note_lengths=pictures.kinds(
            _of(described, "note length histogram"), names=_SHORT_LENGTHS, title="Notes of each length",
            turned=True,
        ),
        matrices=[
            (title, [(pictures.NAMES[of], pictures.transitions(
                described[of][name], names=names, of=of, title=f"{title}, {pictures.NAMES[of]}"
            )) for of in (TAKES, HELD_OUT)])
            for title, name, names in (
                ("Which pitch class follows which", "pitch class transitions", PITCH_CLASSES),
                ("Which note length follows which", "note length transitions", _SHORT_LENGTHS),
            )
        ],
        between=list(_between(evaluation)),
        pairs=[tuple(_card(evaluation, sample) for sample in pair) for pair in samples.pairs],
        borrowed=borrowed,
        limits=LIMITS,
        most_passages=MOST_PASSAGES,
        names=pictures.NAMES,
        roll_width=ROLL_WIDTH,
        roll_height=ROLL_HEIGHT,
    )  # fmt: skip


def _foretelling(evaluation: Evaluation) -> Iterator[tuple[str, float, float, float, bool]]:
    """Name, nats per token, bits per note, the bar's length in per cent, whether it is the model; the best last."""
    judged, split = evaluation.judged, evaluation.asked.split
    found = {f"table of {'single tokens' if name == 'unigram' else 'pairs of tokens'}": (of[NAT_FIGURE], of[BIT_FIGURE])
             for name, of in judged.counts.items()}  # fmt: skip
    if f"{split}_{NAT_FIGURE}" in judged.model:
        found["this model"] = judged.model[f"{split}_{NAT_FIGURE}"], judged.model[f"{split}_{BIT_FIGURE}"]
    most = max((nats for nats, _ in found.values()), default=1.0)
    for name, (nats, bits) in found.items():
        yield name, nats, bits, 100 * nats / most, name == "this model"


def _by_judge(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """What the judge of a family without likelihood found: name, of what was generated, of the split's examples."""
    split, found = evaluation.asked.split, evaluation.judged.model
    figures = {name.removeprefix(f"{split}_"): figure for name, figure in found.items()}
    if NAT_FIGURE in figures:
        return
    for name, figure in figures.items():
        if name.startswith("real_") or name.endswith("_of_data"):
            continue
        data = figures.get(f"real_{name}", figures.get(f"{name}_of_data"))
        made, held = (
            "–" if value is None or not np.isfinite(value) else written(value, unit="") for value in (figure, data)
        )
        yield name.replace("_", " "), made, held


def _sections(rows: tuple[Row, ...]) -> Iterator[Section]:
    for title, found in groupby(rows, key=lambda row: row.section):
        mine = list(found)
        notes = tuple(dict.fromkeys(note for row in mine for note in _why(row, beside=mine)))
        yield Section(title, tuple(_line(row) for row in mine), notes)


def _why(row: Row, *, beside: Sequence[Row]) -> Iterator[str]:
    """Why cells of a row are empty: all sets in one line, or once for all rows of its section."""
    whys = {name: row.cells[name].why for name in SETS if row.cells[name].value is None}
    if len(whys) == len(SETS):
        yield f"{row.title}: " + "; ".join(f"{pictures.NAMES[name]}, {why}" for name, why in whys.items())
        return
    for name, why in whys.items():
        of = f"{pictures.NAMES[name]}: {why}"
        same = all(other.cells[name].why == why for other in beside)
        yield of[0].upper() + of[1:] if same else f"{row.title}, {of}"


def _line(row: Row) -> Line:
    return Line(row.title, "" if row.unit == "share" else row.unit,
                tuple(_shown(row.cells[name], unit=row.unit) for name in SETS), pictures.apart(row))  # fmt: skip


def _shown(cell: Cell, *, unit: str) -> Shown:
    if cell.value is None:
        return Shown("–", "", cell.why)
    spread = "" if cell.spread is None else f"± {written(cell.spread, unit=unit, spread=cell.spread)}"
    return Shown(written(cell.value, unit=unit, spread=cell.spread), spread, f"{cell.pieces} pieces")


def _overlap(*, name: str, takes: Mapping[str, float], train: Mapping[str, float] | None) -> Overlap:
    def percent(value: float) -> float | None:
        return 100 * value if np.isfinite(value) else None

    reference = None if train is None else percent(train["overlap"])
    overlap = percent(takes["overlap"])
    return Overlap(
        name, _known(takes["mean"]), _known(takes["other_mean"]), _known(takes["divergence"]),
        "–" if overlap is None else f"{overlap:.0f} %", overlap,
        reference, "–" if reference is None else f"{reference:.0f} %",
    )  # fmt: skip


def _known(value: float) -> str:
    return written(value, unit="") if np.isfinite(value) else "–"


def _of(described: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    return {of: features[name] for of, features in described.items()}


def _card(evaluation: Evaluation, sample: Sample) -> Card:
    score = sample.score
    sound = None if sample.sound is None else f"data:audio/mpeg;base64,{base64.b64encode(sample.sound).decode()}"
    borrowed = evaluation.borrowings.get(sample.of)
    passage = borrowed.longest(sample.number) if borrowed else None
    alike_BB = similarity(score)
    drawn = None
    if alike_BB is not None and len(alike_BB):
        drawn = pictures.similarity(
            alike_BB, of=sample.of, title=f"Which of the {len(alike_BB)} bars resemble which: {_plain(sample)}"
        )
    about = f"{len(score.notes):,} notes · {format_seconds(round(score.length_s))}" if len(score.notes) else "no notes"
    if sample.of == HELD_OUT:
        about += f" · {evaluation.named[HELD_OUT][sample.number].licence}"
    return Card(
        of=sample.of,
        title=sample.title,
        roll=roll_of(score),
        sound=sound,
        about=about,
        passage="" if borrowed is None or passage is None else _told(passage, borrowed),
        similarity=drawn,
    )


def _between(evaluation: Evaluation) -> Iterator[tuple[Roll | None, str]]:
    """Piano-rolls of one scale from one work held out to another, and what each is."""
    heard = [score.notes.pitch for score in evaluation.between if len(score.notes)]
    if not heard:
        return
    pitches = min(int(pitch.min()) for pitch in heard), max(int(pitch.max()) for pitch in heard)
    last = len(evaluation.between) - 1
    for place, score in enumerate(evaluation.between):
        share = f"{100 * place / last:.0f} %"
        yield roll_of(score, pitches=pitches), {0: "the first work", last: "the second work"}.get(place, share)


def _plain(sample: Sample) -> str:
    """What a sample is, without words that are not ours."""
    return f"{'take' if sample.of == TAKES else 'work held out'} {sample.number + 1}"


def _told(passage: Passage, borrowed: Borrowings) -> str:
    work = borrowed.named[passage.work_id]
    return (f"Longest shared passage: {passage.notes} notes in {passage.bars} "
            f"{'bar' if passage.bars == 1 else 'bars'} ({passage.bits} bits), as in {work.words}")  # fmt: skip


def _borrowed(evaluation: Evaluation, borrowed: Borrowings, *, of: str) -> Iterator[Borrowed]:
    """The longest passages, those nearest to a limit first."""
    copies = borrowed.copies.tolist()
    rows = []
    for number, title in enumerate(titles(evaluation, of=of)):
        passage = borrowed.longest(number)
        if passage is None:
            continue
        is_melody = borrowed.found[number].melody is passage
        limit = LIMITS.melody_bits if is_melody else LIMITS.texture_bits
        work = borrowed.named[passage.work_id]
        rows.append(
            Borrowed(
                title, "melody" if is_melody else "texture", passage.bits, limit, passage.notes, passage.bars,
                work.words, work.licence, _moved(passage), copies[number],
            )
        )  # fmt: skip
    yield from sorted(rows, key=lambda row: (not row.copy, -row.bits / row.limit))


def _moved(passage: Passage) -> str:
    parts = []
    if passage.semitones:
        size = abs(passage.semitones)
        unit = "semitone" if size == 1 else "semitones"
        parts.append(f"{size} {unit} {'higher' if passage.semitones > 0 else 'lower'}")
    if abs(passage.stretch - 1) > 0.01:
        parts.append(f"{passage.stretch:.2g} times as long")
    return ", ".join(parts) or "as it is"
