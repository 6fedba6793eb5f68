"""The loader beside MosaicML Streaming: ``python -m benchmarks.loader``.

20,000 sequences of 1,024 tokens, in batches of 32, one process each; both shuffle. Every figure is of a new loader (a
new dataset object of the peer) with nothing in its cache, read from files that lie in the machine's memory; opening is
not counted. Streaming gives the stored tokens; Tutti also checks every block's hash and gives targets and segments.

Streaming needs an environment of its own, which is made beside the checkout's on the first run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, run
from benchmarks.storage import BUCKET, server
from tutti import lineage
from tutti.dataset import blocks
from tutti.dataset.loader import Loader
from tutti.dataset.packed import Packed
from tutti.dataset.sequences import SequenceBatch, SequenceLayout
from tutti.features.augment import Augmentation
from tutti.features.vocabulary import BAR, EVENTS, START
from tutti.lineage import Dataset
from tutti.storage import Folder

ROOT = Path(__file__).resolve().parents[1]
STREAMING = ROOT / ".venv-streaming"
STREAMING_PINS = ("mosaicml-streaming==0.13.0", "torch==2.13.0", "torchvision==0.28.0")
ROWS, ROW_TOKENS, BATCH = 20_000, 1024, 32
PIECES_OF_A_ROW = 3
LARGE_ROWS, LARGE_ROW_TOKENS = 10_000_000, 64
DEMO = Augmentation(most_semitones=6, control_dropout=0.2)
_HEAD = [START, *(EVENTS[f"{kind}_any"] for kind in ("Collection", "Key", "TempoClass")), BAR]


def dataset_at(folder: Folder, *, rows: int, row_tokens: int, pieces_of_a_row: int) -> Dataset:
    """Full sequences of drawn pieces, as the stage that packs would write them; a file's rows over and over."""
    block_sequences = blocks.sequences_of_block(row_tokens)
    writer = blocks.Writer(folder, block_sequences=block_sequences, file_blocks=blocks.FILE_BLOCKS)
    writer.begin("train", "drawn")
    at_once = min(rows, block_sequences * blocks.FILE_BLOCKS)
    drawn = _drawn(at_once, row_tokens=row_tokens, pieces_of_a_row=pieces_of_a_row)
    for start in range(0, rows, at_once):
        writer.add(drawn.rows(0, min(at_once, rows - start)))
    writer.finish()
    facts = {
        "sequence_tokens": row_tokens,
        "block_sequences": block_sequences,
        "file_blocks": blocks.FILE_BLOCKS,
        "sequences": writer.groups,
        "split_notes": {"train": rows},
        "vocabulary": EVENTS.hash,
    }
    return lineage.publish(folder, kind="sequences", name="drawn", inputs={}, files=writer.files, facts=facts)


def _drawn(rows: int, *, row_tokens: int, pieces_of_a_row: int) -> Packed:
    random, pitches = np.random.default_rng(0), EVENTS.span("Pitch")
    cuts = np.sort(random.integers(8, row_tokens // pieces_of_a_row, (rows, pieces_of_a_row)), axis=1)
    cuts[:, -1] = row_tokens - cuts[:, :-1].sum(axis=1)
    lengths = (cuts + 1).ravel()
    tokens = random.integers(pitches.start + 12, pitches.stop - 12, lengths.sum()).astype(np.uint16)
    starts = np.cumsum(lengths) - lengths
    for place, token in enumerate(_HEAD):
        tokens[starts + place] = token
    counts = np.full(rows, pieces_of_a_row)
    return Packed.of(tokens, lengths=lengths, pieces=np.arange(len(lengths)), counts=counts)


def epoch(dataset: Dataset, *, first: int = 0, augmentation: Augmentation | None = None) -> float:
    """Tokens a second of as many batches as an epoch has, from batch ``first`` on."""
    with closing(
        Loader(
            dataset,
            split="train",
            layout=SequenceLayout(sequence_tokens=ROW_TOKENS, augmentation=augmentation),
            batch_sequences=BATCH,
            seed=1,
        )
    ) as loader:
        started_s, tokens = time.perf_counter(), 0
        for batch in loader.stream(range(first, first + ROWS // BATCH), first=0, stop=BATCH):
            assert isinstance(batch, SequenceBatch)
            tokens += batch.inputs_BT.size
        return tokens / (time.perf_counter() - started_s)


@contextmanager
def streaming_reader(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The peer's process, once its set is written; the environment is made where it is not there."""
    python = STREAMING / "bin" / "python"
    if not (STREAMING / "made").exists():
        print(f"making {STREAMING.name} with {', '.join(STREAMING_PINS)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(STREAMING)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *STREAMING_PINS], check=True)
        (STREAMING / "made").touch()
    script = Path(__file__).parent / "peers" / "streaming_reader.py"
    child = subprocess.Popen(
        [str(python), str(script), str(folder), str(ROWS), str(ROW_TOKENS), str(BATCH)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _said(child, "ready")
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        child.wait()


def _said(child: subprocess.Popen[str], beginning: str) -> str:
    """The next line of the peer that begins so; its libraries say other things in between."""
    assert child.stdout
    for line in child.stdout:
        if line.startswith(beginning):
            return line
    sys.exit(f"the peer ended with {child.wait()}")


def asked(child: subprocess.Popen[str]) -> dict[str, float]:
    """Tokens a second of the peer's next epoch, by the way in which it is read."""
    assert child.stdin
    child.stdin.write("\n")
    child.stdin.flush()
    return {way: float(rate) for way, rate in json.loads(_said(child, "{")).items()}


def measure(bench: Bench) -> None:
    """Epochs in turns, then the first batch of a large set."""
    with tempfile.TemporaryDirectory(prefix="tutti-loader-") as name, server():
        home = Path(name)
        told = {"rows": ROWS, "row_tokens": ROW_TOKENS, "pieces_of_a_row": PIECES_OF_A_ROW}
        local, remote = (dataset_at(Folder(uri), **told) for uri in (str(home / "local"), f"s3://{BUCKET}/loader"))
        with streaming_reader(home / "streaming") as child:
            rates: dict[str, list[float]] = {}
            for round_number in range(bench.rounds + 1):
                found = {
                    "Tutti": epoch(local),
                    "Tutti, resumed in mid-epoch": epoch(local, first=ROWS // BATCH // 2),
                    "Tutti, from S3 on loopback": epoch(remote),
                    "Tutti, transposed and controls hidden": epoch(local, augmentation=DEMO),
                    **{f"MosaicML Streaming, {way}": rate for way, rate in asked(child).items()},
                }
                for contender, rate in found.items():
                    # The first warms up.
                    rates.setdefault(contender, []).extend([rate] if round_number else [])
        bench.rates("tokens of one process", rates, unit="tokens/s")
        first_batch(bench, home / "large")
    medians = {contender: figure.median for contender, figure in bench.figures["tokens of one process"].items()}
    peer = max(rate for contender, rate in medians.items() if contender.startswith("MosaicML"))
    bench.name("loader_mtok_s", medians["Tutti"] / 1e6)
    bench.name("loader_vs_streaming", medians["Tutti"] / peer)
    bench.name("loader_resume_share", medians["Tutti, resumed in mid-epoch"] / medians["Tutti"])
    bench.name("loader_s3_mtok_s", medians["Tutti, from S3 on loopback"] / 1e6)
    bench.name("loader_augmented_mtok_s", medians["Tutti, transposed and controls hidden"] / 1e6)


def first_batch(bench: Bench, folder: Path) -> None:
    """Seconds from a dataset's address to a batch out of its middle."""
    place = Folder(str(folder))
    dataset_at(place, rows=LARGE_ROWS, row_tokens=LARGE_ROW_TOKENS, pieces_of_a_row=1)
    seconds = []
    for round_number in range(bench.rounds + 1):
        started_s = time.perf_counter()
        dataset = lineage.load(place)
        with closing(
            Loader(
                dataset,
                split="train",
                layout=SequenceLayout(sequence_tokens=LARGE_ROW_TOKENS),
                batch_sequences=BATCH,
                seed=round_number,
            )
        ) as loader:
            loader.batch(12_345 * round_number)
            seconds += [time.perf_counter() - started_s] if round_number else []
    subject = f"first batch of {LARGE_ROWS:,} sequences, manifest and index read"
    bench.rates(subject, {"Tutti": seconds}, unit="s")
    bench.name("loader_first_batch_s", bench.figures[subject]["Tutti"].median)


if __name__ == "__main__":
    run("loader", measure)
