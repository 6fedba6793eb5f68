"""Notes to finished files on one core: ``python -m benchmarks.render``.

Three one-minute pieces that are made up here: a piano alone, a string quartet, a band of seven with drums. Each becomes
a FLAC at -16 LUFS, in a room, with both pictures; then each stage is timed alone, beside what others use for it:

- **notes to sound**: symusic's synthesizer with the same font, which plays every velocity alike and knows no release,
  room or place (``platform/decisions/0002``);
- **loudness**: pyloudnorm; **true peak**: scipy's ``resample_poly`` over the whole signal, four times the rate;
- **picture**: the same piano-roll as matplotlib's figures take, one collection of boxes and its axes.

Every contender is one thread, timed by its own processor time: other work on the machine weighs on it only through the
caches. Voices are kept between pieces, as in a catalogue; ``first`` is without.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pyloudnorm
import symusic
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from scipy import signal

from benchmarks.harness import Bench, run
from tutti.corpus.midi import to_symusic
from tutti.corpus.musicxml import write_musicxml
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.render.export import encode_audio, finish
from tutti.render.mastering import (
    LOUDNESS_LUFS,
    LOUDNESS_TOLERANCE_LU,
    TRUE_PEAK_DBTP,
    master,
    measure_loudness_lufs,
    measure_true_peak_dbtp,
)
from tutti.render.mixing import Mix
from tutti.render.picture import piano_roll_png
from tutti.render.sound import Sound
from tutti.render.soundfont import default_path, read_soundfont
from tutti.render.waveform import waveform_png

SEED = 20261128
LENGTH_S, TEMPO_QPM, PER_QUARTER = 60.0, 120.0, 24
RATE_HZ = 44_100
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
LINES = {
    "a piano": ((0, 36, 4), (0, 60, 2), (0, 67, 2)),
    "a quartet": ((42, 36, 2), (41, 55, 1), (40, 62, 2), (40, 69, 2)),
    "a band": ((33, 31, 2), (0, 55, 2), (25, 52, 2), (48, 60, 0.25), (73, 74, 2), (56, 67, 1)),
}
"""Program, lowest pitch and notes a quarter of each line."""
CONTENT = ("flac", "png", "waveform")
SOUNDING = "seconds of audio a core-second"


def piece(name: str) -> Score:
    """A minute of lines that walk on a scale; a band has drums."""
    random = np.random.default_rng([SEED, len(name)])
    quarters = round(LENGTH_S * TEMPO_QPM / 60)
    columns: list[tuple[int, ...]] = []
    for track, (program, lowest, density) in enumerate(LINES[name]):
        step = round(PER_QUARTER / density)
        degrees = np.abs(np.cumsum(random.integers(-2, 3, round(quarters * density)))) % 12
        for number, degree in enumerate(degrees.tolist()):
            pitch = lowest + 12 * (degree // 7) + int(SCALE[degree % 7])
            columns.append((number * step, step, pitch, int(random.integers(50, 110)), program, track))
    if name == "a band":
        for beat in range(2 * quarters):
            keys = [42, *([36] if beat % 4 == 0 else [38] if beat % 4 == 2 else [])]
            columns += [(beat * PER_QUARTER // 2, 6, key, 80 + 20 * (key != 42), DRUM_PROGRAM, 9) for key in keys]
    onset, duration, pitch, velocity, program, track = np.array(columns).T
    notes = Notes.of(
        onset_ticks=onset, duration_ticks=duration, pitch=pitch, velocity=velocity, program=program, track=track
    )
    return Score.of(notes, ticks_per_quarter=PER_QUARTER, tempos=[(0, TEMPO_QPM)], title=name)


def measure(bench: Bench) -> None:
    """All pieces whole, then stage by stage."""
    pieces = [piece(name) for name in LINES]
    seconds = sum(score.length_s for score in pieces)
    began_s = time.process_time()
    for score in pieces:
        made = finish(score, formats=CONTENT, title="x")
        assert made.loudness_lufs is not None
        assert made.true_peak_dbtp is not None
        assert abs(made.loudness_lufs - LOUDNESS_LUFS) < LOUDNESS_TOLERANCE_LU
        assert made.true_peak_dbtp <= TRUE_PEAK_DBTP
    first = seconds / (time.process_time() - began_s)
    _race(
        bench,
        pieces,
        "whole pieces",
        {
            "FLAC and both pictures": lambda: [finish(score, formats=CONTENT, title="x") for score in pieces],
            "FLAC alone": lambda: [finish(score, formats=("flac",), title="x") for score in pieces],
            "OGG alone, its peak held": lambda: [finish(score, formats=("ogg",), title="x") for score in pieces],
            "MP3 alone, its peak held": lambda: [finish(score, formats=("mp3",), title="x") for score in pieces],
            "FLAC and stems": lambda: [finish(score, formats=("flac", "stems"), title="x") for score in pieces],
        },
    )
    _stages(bench, pieces)
    bench.count("whole pieces, the first of a process", {"FLAC and both pictures": first}, unit=f"{SOUNDING}/s")
    bench.name("render_rt_per_core", bench.figures["whole pieces"]["FLAC and both pictures"].median)
    bench.note(
        f"{len(pieces)} pieces of {LENGTH_S:g} s, {sum(len(score.notes) for score in pieces)} notes, {RATE_HZ} Hz"
    )


def _race(bench: Bench, pieces: list[Score], subject: str, ways: dict[str, Callable[[], object]]) -> None:
    seconds = sum(score.length_s for score in pieces)
    bench.race(subject, ways, amount=seconds, unit=SOUNDING, clock=time.process_time)


def _stages(bench: Bench, pieces: list[Score]) -> None:
    """Each stage alone, beside its peer where it has one."""
    font = read_soundfont(default_path())
    mixes = [Mix(score, sound=Sound(), font=font, instruments={}) for score in pieces]
    dry = Sound(room="dry", equaliser="flat", places="none")
    dries = [Mix(score, sound=dry, font=font, instruments={}) for score in pieces]
    wholes = [mix.whole() for mix in mixes]
    audios = [master(whole_CS.T, sample_rate_hz=RATE_HZ).audio_SC for whole_CS in wholes]
    foreign = [to_symusic(score) for score in pieces]
    other = symusic.Synthesizer(sf_path=str(default_path()), sample_rate=RATE_HZ, quality=0)
    meter = pyloudnorm.Meter(RATE_HZ)
    stages: dict[str, dict[str, Callable[[], object]]] = {
        "notes to sound": {
            "symusic, dry": lambda: [other.render(score, stereo=True) for score in foreign],
            "Tutti, dry": lambda: [mix.whole() for mix in dries],
            "Tutti, in a room, equalised": lambda: [mix.whole() for mix in mixes],
        },
        "loudness": {
            "pyloudnorm": lambda: [meter.integrated_loudness(audio_SC) for audio_SC in audios],
            "Tutti": lambda: [measure_loudness_lufs(audio_SC, sample_rate_hz=RATE_HZ) for audio_SC in audios],
        },
        "true peak": {
            "scipy": lambda: [np.abs(signal.resample_poly(audio_SC, 4, 1, axis=0)).max() for audio_SC in audios],
            "Tutti": lambda: [measure_true_peak_dbtp(audio_SC) for audio_SC in audios],
        },
        "the rest": {
            "mastering": lambda: [master(whole_CS.T, sample_rate_hz=RATE_HZ) for whole_CS in wholes],
            "16 bits, dithered, as FLAC": lambda: [
                encode_audio(audio_SC, sample_rate_hz=RATE_HZ, kind="flac") for audio_SC in audios
            ],
            "waveform": lambda: [waveform_png(audio_SC, sample_rate_hz=RATE_HZ) for audio_SC in audios],
            "MusicXML": lambda: [write_musicxml(score) for score in pieces],
        },
        "piano-roll": {
            "matplotlib": lambda: [boxes_by_matplotlib(score) for score in pieces],
            "Tutti": lambda: [piano_roll_png(score) for score in pieces],
        },
    }
    for subject, ways in stages.items():
        _race(bench, pieces, subject, ways)


def boxes_by_matplotlib(score: Score) -> bytes:
    """The notes as boxes on axes with bars and octaves, as PNG of the same size."""
    figure = Figure(figsize=(12, 5.4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.06, 0.1, 0.92, 0.72))
    starts = score.seconds_at(score.notes.onset_ticks)
    ends = score.seconds_at(score.notes.onset_ticks + score.notes.duration_ticks)
    low, high = score.notes.pitch - 0.4, score.notes.pitch + 0.4
    corners = np.stack([np.stack(pair, axis=1) for pair in ((starts, low), (starts, high), (ends, high), (ends, low))])
    axes.add_collection(PolyCollection(list(corners.transpose(1, 0, 2))))
    axes.set(xlim=(0, score.length_s), ylim=(low.min(), high.max()), title=score.title)
    axes.set_yticks(range(24, 108, 12))
    axes.grid(visible=True)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


if __name__ == "__main__":
    run("notes to finished files", measure)
