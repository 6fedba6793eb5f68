"""Files, and ways to damage them: what a reader of untrusted bytes must survive.

A format joins by its line in :data:`SEEDS`; a kind of damage by its line in :data:`MUTATORS`.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from numpy.random import Generator

from tutti.corpus.formats import ParseOptions, parse_many

File = tuple[str, bytes]
Mutator = Callable[[bytes, Generator], bytes]

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
MAX_SEED_BYTES = 60_000
MAX_SCORE_BYTES = 6_000
SOUND_HZ = 22_050
SOUNDS = (
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "FLOAT"),
    ("flac", "FLAC", "PCM_24"),
    ("ogg", "OGG", "VORBIS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
# Where the parts of a file begin, by the end of its name.
_MARKS = {".mid": b"MTrk", ".musicxml": b"<note", ".abc": b"|", ".krn": b"\n", ".mxl": b"PK", ".parquet": b"PAR1"}


def flipped_bits(data: bytes, random: Generator) -> bytes:
    """One to eight bits are turned over."""
    damaged = bytearray(data)
    for at in random.integers(0, len(damaged), random.integers(1, 9)):
        damaged[at] ^= 1 << int(random.integers(0, 8))
    return bytes(damaged)


def odd_bytes(data: bytes, random: Generator) -> bytes:
    """Bytes become those at which codes change their meaning."""
    damaged = bytearray(data)
    for at in random.integers(0, len(damaged), random.integers(1, 5)):
        damaged[at] = int(random.choice((0x00, 0x01, 0x2F, 0x7F, 0x80, 0x90, 0xF0, 0xF7, 0xFF)))
    return bytes(damaged)


def cut(data: bytes, random: Generator) -> bytes:
    """The file ends early, or begins late."""
    at = int(random.integers(0, len(data)))
    return data[:at] if random.random() < 0.8 else data[at:]


def removed(data: bytes, random: Generator) -> bytes:
    """A stretch is gone."""
    start, stop = _stretch(data, random)
    return data[:start] + data[stop:]


def doubled(data: bytes, random: Generator) -> bytes:
    """A stretch stands there up to 50 times."""
    start, stop = _stretch(data, random)
    return data[:start] + data[start:stop] * int(random.integers(2, 51)) + data[stop:]


def inserted(data: bytes, random: Generator) -> bytes:
    """Up to 64 bytes of noise, or of one value, come in between."""
    at = int(random.integers(0, len(data) + 1))
    size = int(random.integers(1, 65))
    return (
        data[:at]
        + (random.bytes(size) if random.random() < 0.5 else bytes([random.integers(0, 256)]) * size)
        + data[at:]
    )


def swapped_chunks(data: bytes, random: Generator) -> bytes:
    """Two parts of the file change places: tracks, notes, lines."""
    parts = re.split(b"(?=" + b"|".join(map(re.escape, _MARKS.values())) + b")", data)
    first, second = random.integers(0, len(parts), 2)
    parts[first], parts[second] = parts[second], parts[first]
    return b"".join(parts)


def length_field(data: bytes, random: Generator) -> bytes:
    """Four bytes, at best those of a length or a count, become an odd number; so does a number in a text."""
    number = int(random.choice(NUMBERS))
    digits = list(re.finditer(rb"\d+", data)) if data[:4] not in (b"MThd", b"PAR1") else []
    if digits:
        found = digits[random.integers(0, len(digits))]
        return data[: found.start()] + str(number).encode() + data[found.end() :]
    places = [found.end() for found in re.finditer(b"MThd|MTrk", data)] or [max(len(data) - 8, 0)]
    at = int(random.choice(places)) if random.random() < 0.5 else int(random.integers(0, len(data)))
    return data[:at] + struct.pack(str(random.choice((">I", "<I"))), number) + data[at + 4 :]


MUTATORS: dict[str, Mutator] = {
    "bits turned over": flipped_bits,
    "odd bytes": odd_bytes,
    "cut": cut,
    "stretch removed": removed,
    "stretch doubled": doubled,
    "noise inserted": inserted,
    "parts swapped": swapped_chunks,
    "length changed": length_field,
}


def mutants(seeds: list[File], *, count: int, random: Generator) -> Iterator[File]:
    """Damaged files: each a seed under one to three mutators; half of the MIDI files get a sound frame again."""
    kinds = list(MUTATORS.values())
    for _ in range(count):
        name, data = seeds[random.integers(0, len(seeds))]
        for kind in random.integers(0, len(kinds), random.choice((1, 1, 1, 2, 3))):
            data = kinds[kind](data, random) if data else data
        yield name, _framed(data) if data[:4] == b"MThd" and random.random() < 0.5 else data


def _framed(data: bytes) -> bytes:
    """A MIDI file whose lengths and count of tracks are true, so that a reader goes on to the damage inside."""
    head, *tracks = data.split(b"MTrk")
    tracks = [track[4:] for track in tracks]
    header = b"MThd" + struct.pack(">IHH", 6, 1, len(tracks)) + head[12:14].ljust(2, b"\x01")
    return header + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


def _stretch(data: bytes, random: Generator) -> tuple[int, int]:
    start = int(random.integers(0, len(data)))
    return start, start + int(random.integers(1, 2 + min(len(data) - start, 400)))


def midi_seeds() -> list[File]:
    """MIDI files of the corpora beside this checkout."""
    paths = sorted(CORPORA.rglob("*.mid"))
    return [(path.name, path.read_bytes()) for path in paths[::5] if path.stat().st_size <= MAX_SEED_BYTES]


def parquet_seeds() -> list[File]:
    """The same music as tables: with one row a piece, and with one row a note."""
    options = ParseOptions(tempo_without_mark_qpm=100.0)
    files = midi_seeds()
    tables = []
    for start in range(0, min(len(files), 60), 6):
        batch = parse_many(files[start : start + 6], options=options, on_file=lambda _: None).batch
        tables.append(pa.table(batch.arrow_columns()))
        tables.append(
            pa.table(
                {
                    "piece_id": [f"piece {piece}" for piece in batch.piece_of_note.tolist()],
                    "onset_s": batch.seconds_at(batch.notes.onset_ticks, batch.piece_of_note),
                    "duration_s": batch.notes.duration_ticks / 1000,
                    "pitch": batch.notes.pitch,
                    "velocity": batch.notes.velocity,
                }
            )
        )
    return [("notes.parquet", _parquet(table, number)) for number, table in enumerate(tables)]


def written_seeds() -> list[File]:
    """Small MusicXML, ABC and kern files that music21 carries, and one of its .mxl files."""
    from music21 import corpus

    names = {"musicxml": (".xml", ".musicxml"), "abc": (".abc",), "krn": (".krn",), "mxl": (".mxl",)}
    found: list[File] = []
    for kind, suffixes in names.items():
        paths = [Path(path) for path in corpus.getCorePaths() if Path(path).suffix in suffixes]
        small = [path for path in sorted(paths) if path.stat().st_size <= MAX_SCORE_BYTES]
        found += [(f"{path.stem}.{kind}", path.read_bytes()) for path in small[:: max(len(small) // 10, 1)]]
    return found


def sound_seeds() -> list[File]:
    """Two seconds of a tone in every format that soundfile writes, and small recordings of the corpora."""
    times_s = np.arange(2 * SOUND_HZ) / SOUND_HZ
    tone_S2 = 0.3 * np.sin(2 * np.pi * np.outer(times_s, (220.0, 331.0)))
    found: list[File] = []
    for suffix, container, subtype in SOUNDS:
        sink = io.BytesIO()
        soundfile.write(sink, tone_S2, SOUND_HZ, format=container, subtype=subtype)
        found.append((f"tone.{suffix}", sink.getvalue()))
    paths = [path for path in sorted(CORPORA.rglob("*.flac")) if path.stat().st_size <= MAX_SEED_BYTES]
    return found + [(path.name, path.read_bytes()) for path in paths[::5]]


SEEDS: dict[str, Callable[[], list[File]]] = {
    "MIDI": midi_seeds,
    "Parquet": parquet_seeds,
    "scores": written_seeds,
    "sound": sound_seeds,
}


def _parquet(table: pa.Table, number: int) -> bytes:
    sink = io.BytesIO()
    compression = ("none", "snappy", "zstd")[number // 2 % 3]
    pq.write_table(table, sink, compression=compression, row_group_size=max(table.num_rows // 2, 1))
    return sink.getvalue()
