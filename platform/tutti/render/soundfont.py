"""A SoundFont 2 file as zones: which stretch of recorded sound answers a key, and how it is shaped.

Source: SoundFont Technical Specification 2.04 (Creative Labs, 2006); section numbers below are its. Read: presets,
instruments, samples and their generators. Not read: modulators beyond velocity to loudness, the low-frequency
oscillators, 24-bit sample extensions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.errors import InputError, MissingError

FULL_SCALE_DB = 100.0
"""An envelope's decay and release times are those of a fall by 100 dB (8.1.2, generators 36 and 38)."""
DEFAULT_CUTOFF_CENTS = 13_500
DRUM_BANK = 128

# Attenuation in files is written for the EMU8000, which applies 0.4 of it; synthesizers since follow the hardware.
_EMU_ATTENUATION = 0.4
_LONGEST_RELEASE_S = 8.0
_ROM_SAMPLE = 0x8000

# Generator numbers of 8.1.2.
_MOD_ENV_TO_PITCH, _CUTOFF, _RESONANCE, _MOD_ENV_TO_CUTOFF, _PAN = 7, 8, 9, 11, 17
_MOD_ENV, _VOLUME_ENV = 25, 33
_INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _ATTENUATION = 41, 43, 44, 48
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _LOOPS, _SCALE, _EXCLUSIVE, _ROOT_KEY = 51, 52, 53, 54, 56, 57, 58
_ADDRESSES = {"start": (0, 4), "end": (1, 12), "loop_start": (2, 45), "loop_end": (3, 50)}

_NO_TIME = -12_000
_DEFAULTS = {
    _CUTOFF: DEFAULT_CUTOFF_CENTS,
    **dict.fromkeys((*range(_MOD_ENV, _MOD_ENV + 4), _MOD_ENV + 5), _NO_TIME),
    **dict.fromkeys((*range(_VOLUME_ENV, _VOLUME_ENV + 4), _VOLUME_ENV + 5), _NO_TIME),
    _KEY_RANGE: 127 << 8,
    _VELOCITY_RANGE: 127 << 8,
    _SCALE: 100,
    _ROOT_KEY: -1,
}
_SAME_IN_EVERY_PRESET = {0, 1, 2, 3, 4, 12, 45, 50, 46, 47, _SAMPLE, _LOOPS, _EXCLUSIVE, _ROOT_KEY}

_RECORDS: dict[bytes, list[Any]] = {
    b"phdr": [("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("reserved", "<u4", 3)],
    b"pbag": [("generator", "<u2"), ("modulator", "<u2")],
    b"pgen": [("kind", "<u2"), ("amount", "<i2")],
    b"inst": [("name", "S20"), ("bag", "<u2")],
    b"ibag": [("generator", "<u2"), ("modulator", "<u2")],
    b"igen": [("kind", "<u2"), ("amount", "<i2")],
    b"shdr": [
        ("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4"),
        ("sample_rate_hz", "<u4"), ("key", "u1"), ("correction_cents", "i1"), ("link", "<u2"), ("kind", "<u2"),
    ],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Envelope:
    """Six stages; ``sustain`` is in dB below full for loudness, a level from 0 to 1 for modulation."""

    delay_s: float
    attack_s: float
    hold_s: float
    decay_s: float
    sustain: float
    release_s: float


@dataclass(frozen=True, slots=True)
class Zone:
    """One recorded sound for a range of keys and velocities.

    Args:
        keys, velocities: first and last that it answers.
        start, end, loop_start, loop_end: positions in :attr:`SoundFont.samples`; the loop end is exclusive.
        loops: whether the loop repeats while the note sounds.
        key, cents_per_key, tune_cents: the key at which it sounds as recorded, the step to the next, a correction.
        pan: -0.5 left to 0.5 right.
        cutoff_cents, resonance_db: low-pass filter, the cut-off in cents above 8.176 Hz.
        cutoff_swing_cents, pitch_swing_cents: what the full modulation envelope adds.
        exclusive_class: notes of one class silence each other (an open hi-hat and its closing); 0 for none.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    start: int
    end: int
    loop_start: int
    loop_end: int
    loops: bool
    sample_rate_hz: int
    key: int
    cents_per_key: int
    tune_cents: int
    attenuation_db: float
    pan: float
    volume: Envelope
    modulation: Envelope
    cutoff_cents: int
    resonance_db: float
    cutoff_swing_cents: int
    pitch_swing_cents: int
    exclusive_class: int

    def distance(self, pitch: int) -> int:
        """Keys between ``pitch`` and the zone's range; 0 where it answers."""
        return max(self.keys[0] - pitch, pitch - self.keys[1], 0)


@dataclass(frozen=True, eq=False)
class SoundFont:
    """An open font; zones are worked out at their first use and kept.

    Args:
        samples: every recording, one after another, 16-bit mono.
        records: the tables of the ``pdta`` chunk by name.
    """

    samples: NDArray[np.int16]
    records: dict[bytes, NDArray[Any]]
    _zones: dict[int, tuple[Zone, ...]] = field(default_factory=dict, repr=False)

    def zones(self, program: int) -> tuple[Zone, ...]:
        """Zones of a General MIDI program (128: drums); a font without it answers with its first preset of the bank."""
        if program not in self._zones:
            self._zones[program] = tuple(self._read_zones(program))
        return self._zones[program]

    def zones_at(self, program: int, pitch: int) -> list[Zone]:
        """Zones that sound at a key.

        Fonts have holes (TimGM6mb's alto saxophone has no E4): there the nearest zones are stretched, so that no note
        of a melody is lost. A drum key without a sound stays silent, for its neighbour is another drum.
        """
        zones = self.zones(program)
        reach = min((zone.distance(pitch) for zone in zones), default=0)
        if program == DRUM_PROGRAM and reach:
            return []
        return [zone for zone in zones if zone.distance(pitch) == reach]

    def _read_zones(self, program: int) -> Iterator[Zone]:
        presets = self.records[b"phdr"]
        bank, number = (DRUM_BANK, 0) if program == DRUM_PROGRAM else (0, program)
        in_bank = np.flatnonzero(presets["bank"][:-1] == bank)
        if not len(in_bank):
            return
        exact = in_bank[presets["preset"][in_bank] == number]
        preset = int(exact[0] if len(exact) else in_bank[np.argmin(presets["preset"][in_bank])])
        instruments = self.records[b"inst"]["bag"]
        for of_preset in self._bags(b"p", presets["bag"][preset : preset + 2], terminal=_INSTRUMENT):
            instrument = of_preset[_INSTRUMENT]
            for of_instrument in self._bags(b"i", instruments[instrument : instrument + 2], terminal=_SAMPLE):
                recording = self.records[b"shdr"][of_instrument[_SAMPLE]]
                if not recording["kind"] & _ROM_SAMPLE:
                    yield _zone(_merged(of_preset, of_instrument), recording)

    def _bags(self, level: bytes, bounds: NDArray[Any], *, terminal: int) -> Iterator[dict[int, int]]:
        """Generators of each zone; a first zone without ``terminal`` speaks for all that follow (7.3, 7.7)."""
        bags, generators = self.records[level + b"bag"]["generator"], self.records[level + b"gen"]
        common: dict[int, int] = {}
        for bag in range(int(bounds[0]), int(bounds[1])):
            rows = generators[bags[bag] : bags[bag + 1]]
            own = dict(zip(rows["kind"].tolist(), rows["amount"].tolist(), strict=True))
            if terminal in own:
                yield common | own
            elif bag == bounds[0]:
                common = own


def _merged(preset: dict[int, int], instrument: dict[int, int]) -> dict[int, int]:
    """Instrument values are absolute, the preset's are added, ranges intersect (9.4)."""
    merged = _DEFAULTS | instrument
    for kind, amount in preset.items():
        if kind in (_KEY_RANGE, _VELOCITY_RANGE):
            (low, high), (other_low, other_high) = _span(merged[kind]), _span(amount)
            merged[kind] = max(low, other_low) | min(high, other_high) << 8
        elif kind not in _SAME_IN_EVERY_PRESET:
            merged[kind] = merged.get(kind, 0) + amount
    return merged


def _span(amount: int) -> tuple[int, int]:
    return amount & 0xFF, amount >> 8 & 0xFF


def _seconds(timecents: int) -> float:
    return 0.0 if timecents <= _NO_TIME else float(2.0 ** (timecents / 1200))


def _envelope(values: dict[int, int], first: int, *, sustain: float) -> Envelope:
    delay_s, attack_s, hold_s, decay_s = (_seconds(values[first + stage]) for stage in range(4))
    release_s = min(_seconds(values[first + 5]), _LONGEST_RELEASE_S)
    return Envelope(delay_s, attack_s, hold_s, decay_s, sustain, release_s)


def _zone(values: dict[int, int], recording: Any) -> Zone:
    position = {
        name: int(recording[name]) + values.get(fine, 0) + 32_768 * values.get(coarse, 0)
        for name, (fine, coarse) in _ADDRESSES.items()
    }
    key = values[_ROOT_KEY] if 0 <= values[_ROOT_KEY] <= 127 else int(recording["key"])
    loop_fits = position["start"] <= position["loop_start"] < position["loop_end"] <= position["end"]
    return Zone(
        keys=_span(values[_KEY_RANGE]),
        velocities=_span(values[_VELOCITY_RANGE]),
        **position,
        loops=values.get(_LOOPS, 0) & 1 == 1 and loop_fits,
        sample_rate_hz=int(recording["sample_rate_hz"]),
        key=key if key <= 127 else 60,
        cents_per_key=values[_SCALE],
        tune_cents=100 * values.get(_COARSE_TUNE, 0) + values.get(_FINE_TUNE, 0) + int(recording["correction_cents"]),
        attenuation_db=_EMU_ATTENUATION * max(values.get(_ATTENUATION, 0), 0) / 10,
        pan=float(np.clip(values.get(_PAN, 0) / 1000, -0.5, 0.5)),
        volume=_envelope(
            values, _VOLUME_ENV, sustain=float(np.clip(values.get(_VOLUME_ENV + 4, 0) / 10, 0, FULL_SCALE_DB))
        ),
        modulation=_envelope(values, _MOD_ENV, sustain=float(np.clip(1 - values.get(_MOD_ENV + 4, 0) / 1000, 0, 1))),
        cutoff_cents=values[_CUTOFF],
        resonance_db=max(values.get(_RESONANCE, 0), 0) / 10,
        cutoff_swing_cents=values.get(_MOD_ENV_TO_CUTOFF, 0),
        pitch_swing_cents=values.get(_MOD_ENV_TO_PITCH, 0),
        exclusive_class=values.get(_EXCLUSIVE, 0),
    )


def default_path() -> Path:
    """``TimGM6mb.sf2`` (Tim Brechbill's General MIDI font, 6 MB), found in the pretty_midi package, not imported.

    Raises:
        MissingError: the package or its font is absent.
    """
    package = importlib.util.find_spec("pretty_midi")
    path = Path(package.origin).parent / "TimGM6mb.sf2" if package is not None and package.origin else None
    if path is None or not path.is_file():
        raise MissingError("the SoundFont TimGM6mb.sf2 of pretty_midi is not there", remedy="pip install pretty_midi")
    return path


@lru_cache(maxsize=4)
def read_soundfont(path: Path) -> SoundFont:
    """Open an ``.sf2`` file; the recordings stay on disk until they sound.

    Raises:
        MissingError: no file at ``path``.
        InputError: the file is no SoundFont 2.
    """
    if not path.is_file():
        raise MissingError(f"SoundFont {path} is not there", remedy="give the path of an .sf2 file")
    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
    chunks = dict(_chunks(data))
    missing = [name.decode() for name in (b"smpl", *_RECORDS) if name not in chunks]
    if missing:
        raise InputError(f"{path} is no SoundFont 2: {missing[0]} is missing", remedy="give an .sf2 file")
    records = {}
    for name, columns in _RECORDS.items():
        kind = np.dtype(columns)
        size = chunks[name].size // kind.itemsize * kind.itemsize
        records[name] = chunks[name][:size].view(kind)
    samples = chunks[b"smpl"]
    return SoundFont(samples=samples[: samples.size // 2 * 2].view("<i2"), records=records)


def _chunks(data: NDArray[np.uint8]) -> Iterator[tuple[bytes, NDArray[np.uint8]]]:
    """Leaf chunks of a RIFF file by name; lists are entered, a chunk that runs past the end is cut."""
    at = 0
    while at + 8 <= data.size:
        name, size = data[at : at + 4].tobytes(), int(data[at + 4 : at + 8].view("<u4")[0])
        if name in (b"RIFF", b"LIST"):
            at += 12
            continue
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)
