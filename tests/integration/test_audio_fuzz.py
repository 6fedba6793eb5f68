"""Damaged sound files: each becomes clips or a refusal, and the process that asked lives."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import soundfile

from tutti.corpus.clips import Cutting, Heard
from tutti.features.hearing import hear_untrusted
from tutti.tables import REFUSAL_REASONS

MUTANTS_OF_EACH = 50
TIMEOUT_S = 10.0
KINDS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", None)}


def file_of(kind: str) -> bytes:
    random = np.random.default_rng(0)
    time_s = np.arange(3 * 22_050) / 22_050
    sound_SC = np.stack((0.3 * np.sin(2000 * time_s), 0.1 * random.standard_normal(len(time_s))), axis=1)
    container, subtype = KINDS[kind]
    target = io.BytesIO()
    with soundfile.SoundFile(target, "w", 22_050, 2, subtype=subtype, format=container) as sink:
        for start in range(0, len(sound_SC), 4096):
            sink.write(sound_SC[start : start + 4096])
    return target.getvalue()


def mutant(data: bytes, random: np.random.Generator) -> bytes:
    """Some bits turned, mostly near the start, or a stretch lost, doubled, filled or cut off."""
    held = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(0, min(len(held), 200) if random.random() < 0.6 else len(held)))
        size = int(random.integers(1, 400))
        match int(random.integers(0, 6)):
            case 0 | 1:
                held[at] ^= 1 << int(random.integers(0, 8))
            case 2:
                held[at : at + 4] = random.bytes(4)
            case 3:
                del held[at : at + size]
            case 4:
                held[at:at] = held[at : at + size]
            case _:
                held[at : at + size] = bytes([int(random.choice([0, 255]))]) * size
        if len(held) < 16:
            break
    return bytes(held[: int(random.integers(0, len(held)))] if random.random() < 0.2 else held)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_sound_is_heard_or_refused(kind: str) -> None:
    random = np.random.default_rng(20)
    whole = file_of(kind)
    files = [(f"{number}.{kind}", mutant(whole, random)) for number in range(MUTANTS_OF_EACH)]
    heard: Heard = hear_untrusted([*files, (f"whole.{kind}", whole)], cutting=Cutting(), timeout_s=TIMEOUT_S)
    refused = Counter(reason for _, reason, _ in heard.refusals)
    taken = {*heard.file_of_clip}
    assert taken.isdisjoint(file for file, _, _ in heard.refusals)
    assert len(taken) + len(heard.refusals) == MUTANTS_OF_EACH + 1
    assert MUTANTS_OF_EACH in taken
    assert refused.keys() <= REFUSAL_REASONS.keys()
    assert 0 < len(heard.refusals) < MUTANTS_OF_EACH
