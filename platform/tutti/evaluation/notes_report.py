"""An evaluation of notes as files: JSON and CSV for programs, and a page to look at and to listen to.

No time and no path of the machine is in them: the same evaluation gives the same bytes.
"""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import soxr

from tutti import pages
from tutti.evaluation.notes import HELD_OUT, MEASURES, MODEL, SETS, NotesEvaluation
from tutti.evaluation.report import PAGE, written
from tutti.features.spectra import FREQUENCY, LEVEL
from tutti.render import phrase
from tutti.render.export import encode_audio, finish
from tutti.render.synthesis import SAMPLE_RATE_HZ
from tutti.training.style import INK, add_axes, new_figure, to_png
from tutti.units import pitch_name

FORMAT = 1
TITLES = {
    MODEL: "model", HELD_OUT: "held-out notes", "shifted": "nearest key, shifted", "nearest": "nearest key",
    "mean": "mean picture",
}  # fmt: skip
CSV_HEAD = ("of", "measure", "unit", "value")
_LOUD = 0.5


def plain(evaluation: NotesEvaluation, *, model: str, digest: str) -> dict[str, Any]:
    """Everything as plain values; what is no number is None.

    Args:
        model: the version, such as ``keys/3``.
        digest: of its bundle.
    """
    bundle = evaluation.bundle
    return {
        "format": FORMAT,
        "kind": "notes",
        "model": {
            "version": model, "digest": digest, "family": bundle.family, "flavour": bundle.flavour,
            "parameters": bundle.facts.get("parameters"),
        },
        "asked": {"split": evaluation.split, "notes": len(evaluation.held_out), "notes_of": evaluation.held_out_of},
        "scale": evaluation.scale.to_dict(),
        "figures": {name: _known(evaluation.figures[name]) for name in SETS},
        "instruments": {name: _known(found) for name, found in evaluation.instruments.items()},
    }  # fmt: skip


def to_csv(document: Mapping[str, Any]) -> bytes:
    """Its figures, one a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for of, figures in {**document["figures"], **document["instruments"]}.items():
        for name, value in figures.items():
            writer.writerow((of, name, MEASURES[name][1], "" if value is None else value))
    return text.getvalue().encode()


def figures(document: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker keeps: figures by name, of every set."""
    return {
        f"{name}.{of}": value
        for of in SETS for name, value in document["figures"][of].items() if value is not None
    }  # fmt: skip


def rows(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table as people read it, its head first: measures down, sets across."""
    yield ("", *(TITLES[of] for of in SETS))
    for name, (title, unit) in MEASURES.items():
        cells = (document["figures"][of][name] for of in SETS)
        yield (f"{title} [{unit}]" if unit != "share" else title, *(_cell(value, unit=unit) for value in cells))


def rows_of_instruments(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The model's figures by instrument, their head first."""
    shown = ("pitch_accuracy", "pitch_cents", "spectral_distance_db")
    yield ("instrument", *(f"{MEASURES[name][0]} [{MEASURES[name][1]}]" for name in shown))
    for instrument, found in document["instruments"].items():
        yield (instrument, *(_cell(found[name], unit=MEASURES[name][1]) for name in shown))


def files(evaluation: NotesEvaluation, document: Mapping[str, Any], *, pairs: int) -> dict[str, bytes]:
    """The page and its sounds, by path.

    Args:
        document: of :func:`plain`.
        pairs: notes that are shown and played, each of the model beside the held-out one.
    """
    score, instruments = phrase.played_by(evaluation.bundle)
    finished = finish(score, formats=("midi", "flac", "mp3"), instruments=instruments)
    found = {f"samples/phrase.{suffix}": finished.files[suffix] for suffix in ("mid", "flac")}
    cards = []
    number = min(pairs, len(evaluation.held_out))
    for place in np.unique(np.linspace(0, len(evaluation.held_out) - 1, number).round().astype(int)).tolist():
        sounds = {of: _audible(evaluation.sounds[of][place], evaluation) for of in (MODEL, HELD_OUT)}
        stems = {MODEL: f"note-{place + 1:03d}", HELD_OUT: f"held-out-{place + 1:03d}"}
        for of, sound_SC in sounds.items():
            found[f"samples/{stems[of]}.flac"] = encode_audio(sound_SC, sample_rate_hz=SAMPLE_RATE_HZ, kind="flac")
        players = [(TITLES[of], _embedded(sound_SC)) for of, sound_SC in sounds.items()]
        cards.append((_data(_picture(evaluation, place), "image/png"), players))
    found[PAGE] = pages.render(
        "tutti.evaluation",
        "notes_page.html.jinja",
        model=document["model"]["version"],
        asked=document["asked"],
        tables=[list(rows(document)), list(rows_of_instruments(document))],
        most_instruments=phrase.MOST_INSTRUMENTS,
        phrase=_data(finished.files["mp3"], "audio/mpeg"),
        cards=cards,
    )
    return found


def _picture(evaluation: NotesEvaluation, place: int) -> bytes:
    """Levels and frequencies of a held-out note and of the model's."""
    held_out, scale = evaluation.held_out, evaluation.scale
    instrument = evaluation.bundle.collections[int(held_out.instrument_B[place])]
    name = f"{instrument}, {pitch_name(int(held_out.pitch_B[place]))}"
    length_s = scale.frames * scale.hop_samples / scale.sample_rate_hz
    figure = new_figure(9.0, 3.2, title=name, facts="held out, and as the model draws it: level, frequency in its bin")
    for column, (of, spectra_B2KF) in enumerate(
        (shown, notes.spectra_B2KF)
        for shown, notes in ((HELD_OUT, held_out), (MODEL, evaluation.made))
        for _ in (LEVEL, FREQUENCY)
    ):
        channel = (LEVEL, FREQUENCY)[column % 2]
        axes = add_axes(
            figure, left_in=0.6 + 2.1 * column, right_in=9.0 - 2.45 - 2.1 * column, bottom_in=0.45, top_in=0.85
        )
        looks = {"cmap": "magma"} if channel == LEVEL else {"cmap": "coolwarm"}
        axes.imshow(
            spectra_B2KF[place, channel], origin="lower", aspect="auto", vmin=-1, vmax=1, interpolation="nearest",
            extent=(0, length_s, 0, scale.bins), **looks,
        )  # fmt: skip
        axes.set_title(f"{TITLES[of]}: {'level' if channel == LEVEL else 'frequency'}", fontsize=8, color=INK)
        axes.set_xlabel("seconds", fontsize=8, color=INK)
        axes.set_xticks([0, length_s / 2, length_s], ["0", f"{length_s / 2:.2g}", f"{length_s:.2g}"])
        if column:
            axes.set_yticks([])
        else:
            axes.set_ylabel("bin", fontsize=8, color=INK)
    return to_png(figure)


def _audible(samples_S: Any, evaluation: NotesEvaluation) -> Any:
    """A note at a level to listen to, at the rate of finished sound: ``audio_SC`` of one channel."""
    peak = float(np.abs(samples_S).max())
    louder_S = samples_S * np.float32(_LOUD / peak) if peak else samples_S
    return soxr.resample(louder_S, evaluation.scale.sample_rate_hz, SAMPLE_RATE_HZ)[:, None].astype(np.float32)


def _embedded(sound_SC: Any) -> str:
    return _data(encode_audio(sound_SC, sample_rate_hz=SAMPLE_RATE_HZ, kind="mp3"), "audio/mpeg")


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _known(found: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _cell(value: float | None, *, unit: str) -> str:
    return "–" if value is None else written(value, unit=unit)
