"""The same catalogue as a team would script it: Hugging Face's ``generate``, MidiTok, symusic, soundfile, matplotlib.

The model is the same, exported as a Llama; it draws as many tokens as the catalogue's takes have. What a random model
draws is not music that two vocabularies share, so what is decoded and played is the catalogue's own music: every take
is turned into MidiTok's tokens beforehand, and the peer decodes those. The peer does less: it keeps no grammar, makes
no checks, measures no peak, and plays each piece once. symusic's synthesizer is the fastest that plays a SoundFont from
Python (FluidSynth is 6 to 12 times slower).
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile

from tutti.render.soundfont import default_path

SAMPLE_RATE_HZ = 44_100
BATCH = 16
_WRITTEN_AT_ONCE = 1 << 16


def llama_of(folder: Path, bundle: Path) -> Any:
    """The model of a bundle behind Hugging Face's Llama."""
    import transformers

    from tutti.features.vocabulary import END, EVENTS, PAD, START
    from tutti.models import bundle as bundles
    from tutti.models.decoder.llama import llama_files

    names = {name: EVENTS.names[token] for name, token in (("start", START), ("end", END), ("pad", PAD))}
    for name, data in llama_files(bundles.load(bundle), **names).items():
        (folder / name).write_bytes(data)
    return transformers.LlamaForCausalLM.from_pretrained(folder).eval()


def drawn(llama: Any, lengths: Sequence[int], *, head: Sequence[int], context_tokens: int) -> float:
    """Processor seconds of drawing sequences of these lengths, in batches of like lengths; each batch to its longest.

    Longer ones than the context are drawn as several of it.
    """
    import torch

    parts = [context_tokens - len(head)] * sum(length // (context_tokens - len(head)) for length in lengths)
    parts += [length % (context_tokens - len(head)) for length in lengths]
    ordered = sorted((part for part in parts if part), reverse=True)
    began_s = time.process_time()
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            prompt = torch.tensor([list(head)]).expand(len(batch), -1)
            llama.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_p=0.95,
                top_k=0, min_new_tokens=batch[0], max_new_tokens=batch[0],
            )  # fmt: skip
    return time.process_time() - began_s


def finished(midi_files: Sequence[bytes], folder: Path, *, player: str) -> tuple[float, float]:
    """Decode, play and write pieces as MIDI, FLAC and a picture; processor seconds, and seconds of sound.

    Args:
        player: ``symusic``: its synthesizer and the SoundFont; ``pretty_midi``: its own, of sines, which is what it has
            without a FluidSynth on the system.
    """
    import miditok
    import pretty_midi
    import symusic

    tokenizer = miditok.REMI(miditok.TokenizerConfig(use_programs=True, use_tempos=True, use_time_signatures=True))
    encoded = [tokenizer.encode(symusic.Score.from_midi(data)) for data in midi_files]
    synthesizer = symusic.Synthesizer(default_path(), SAMPLE_RATE_HZ)
    matplotlib.use("agg")
    began_s, sound_s = time.process_time(), 0.0
    for number, tokens in enumerate(encoded):
        score = tokenizer.decode(tokens)
        score.dump_midi(folder / f"{number}.mid")
        if player == "symusic":
            audio_CS = np.asarray(synthesizer.render(score, stereo=True), dtype=np.float32)
        else:
            mono_S = pretty_midi.PrettyMIDI(io.BytesIO(score.dumps_midi())).synthesize(fs=SAMPLE_RATE_HZ)
            audio_CS = np.stack((mono_S, mono_S)).astype(np.float32)
        audio_CS /= max(1.0, float(np.abs(audio_CS).max()))
        sound_s += audio_CS.shape[1] / SAMPLE_RATE_HZ
        _flac(folder / f"{number}.flac", audio_CS.T)
        _picture(folder / f"{number}.png", score)
    return time.process_time() - began_s, sound_s


def _flac(path: Path, audio_SC: Any) -> None:
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 2, format="FLAC", subtype="PCM_16") as sink:
        for start in range(0, len(audio_SC), _WRITTEN_AT_ONCE):
            sink.write(audio_SC[start : start + _WRITTEN_AT_ONCE])


def _picture(path: Path, score: Any) -> None:
    """A piano-roll as pretty_midi's users draw it."""
    import pretty_midi
    from matplotlib import pyplot

    roll = pretty_midi.PrettyMIDI(io.BytesIO(score.dumps_midi())).get_piano_roll(fs=20)
    figure, axes = pyplot.subplots(figsize=(12, 4))
    axes.imshow(roll, aspect="auto", origin="lower")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
