"""What a catalogue costs: ``python -m benchmarks.catalogue``.

``--pieces`` pieces of ``--seconds`` seconds to FLAC, checks and pictures included, by the command itself on both cores.

- **catalogue_rt_per_core**: seconds of finished audio for a second of one core, with all that any process of the
  command used, Ray and its start too; **catalogue_rt_per_core_stages** of the engines' and writers' time alone.
- **catalogue_vs_peer**: the same beside a script of Hugging Face's ``generate``, MidiTok, pretty_midi, soundfile and
  matplotlib (:mod:`benchmarks.catalogues.peer`) with the same model and music, its loading left out;
  **catalogue_vs_fastest_peer** beside the same script with symusic's synthesizer.
- **catalogue_scaling**: music a second of two Ray nodes of one core each to that of one, start left out.
- **catalogue_driver_mib_1000**, **catalogue_driver_mib**: memory of the driver after 1,000 and after all of ``--tiny``
  takes of one bar, and **catalogue_publish_mib** its most, while the catalogue is published.

Without ``--bundle FOLDER`` the model has fresh weights, whose takes are noise. A part whose number is 0 is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets as entropy
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.cli import ENVIRONMENT

os.environ.update({**ENVIRONMENT, "OMP_NUM_THREADS": "1"})

from benchmarks.catalogues import peer
from benchmarks.catalogues.family import Family, tutti
from benchmarks.catalogues.workshop import LENIENT, register, write_order
from benchmarks.harness import Bench, run
from benchmarks.trainings.nodes import Cluster
from tutti import lineage, telemetry
from tutti.lineage import Dataset
from tutti.storage import Folder

FLAVOUR = "tiny"
SETTLED = 1000


def measure(bench: Bench) -> None:
    """Every part that is asked for."""
    telemetry.quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="tutti-catalogue-") as name:
        home = Path(name)
        registry = register(home, bundle=bench.arguments.bundle, flavour=FLAVOUR, max_tokens=4096)
        bundle = bench.arguments.bundle or home / "bundle"
        uri = registry.backend.tracking_uri
        if bench.settings["pieces"]:
            made, cpu_s = _whole(bench, home, uri)
            if bench.settings["peer"]:
                _peer(bench, made, bundle, home, ours=made.facts["music_s"] / cpu_s)
        if bench.settings["scaling"]:
            _scaling(bench, home, uri)
        if bench.settings["tiny"]:
            _memory(bench, home, uri)


def _order(home: Path, name: str, *, count: int, bench: Bench, **order: Any) -> Path:
    """One line of pieces; a trained model keeps usual limits but those of silence."""
    controls = order.pop("controls", {"length": bench.settings["seconds"]})
    checks = {**LENIENT, "length_tolerance": 0.5}
    lines = [{"count": count, "controls": controls}]
    return write_order(
        home / f"{name}.json", name=name, lines=lines, checks=checks, **{"formats": ["flac", "png"], **order}
    )


def _made(home: Path, name: str) -> Dataset:
    (manifest,) = (home / name).glob(f"catalogues/{name}/*/{lineage.MANIFEST}")
    return lineage.load(Folder(str(manifest.parent)))


def _words(home: Path, name: str, order: Path, uri: str) -> tuple[str, ...]:
    return "catalogue", str(order), "--root", str(home / name), "--tracking-uri", uri


def _whole(bench: Bench, home: Path, uri: str) -> tuple[Dataset, float]:
    """The command on this machine; what it made, and the processor seconds of making it once all was started."""
    pieces = int(bench.settings["pieces"])
    order = _order(home, "whole", count=pieces, bench=bench)
    family, wall_s = tutti(*_words(home, "whole", order, uri), log=home / "whole.log")
    made = _made(home, "whole")
    pace: Mapping[str, Any] = made.facts["pace"]
    music_s, cpu_s = made.facts["music_s"], family.total_cpu_s
    stages_s = pace["engine_cpu_s"] + pace["writer_cpu_s"]
    bench.count(
        f"{pieces} pieces, {music_s:,.0f} s of music",
        {"audio by all processes": music_s / cpu_s, "audio by the two stages": music_s / stages_s},
        unit="s a core-second",
    )
    shares = {"engines": pace["engine_cpu_s"], "writers": pace["writer_cpu_s"], "the rest": cpu_s - stages_s}
    bench.count("processor time", shares, unit="s")
    bench.count("on the wall", {"all": wall_s, "until an engine is ready": pace["start_s"]}, unit="s")
    bench.name("catalogue_rt_per_core", music_s / cpu_s)
    bench.name("catalogue_rt_per_core_stages", music_s / stages_s)
    bench.note(f"{made.facts['rejected']} of {pace['takes']} takes were rejected and replaced")
    return made, cpu_s


def _peer(bench: Bench, made: Dataset, bundle: Path, home: Path, *, ours: float) -> None:
    """The peer on as many pieces as ``--peer`` says, of the same catalogue."""
    from tutti.corpus.midi import read_midi
    from tutti.features.events import encode
    from tutti.features.vocabulary import START
    from tutti.generation.controls import controls_of
    from tutti.generation.request import Request

    files = [made.read(path) for path in made.paths(".mid") if path.startswith("files/")][: int(bench.settings["peer"])]
    lengths = [len(encode(read_midi(data))) for data in files]
    (home / "llama").mkdir()
    (home / "peer").mkdir()
    llama = peer.llama_of(home / "llama", bundle)
    head = [START, *controls_of(Request(), collections=()).tokens().tolist()]
    context = llama.config.max_position_embeddings
    generate_s = peer.drawn(llama, lengths, head=head, context_tokens=context)
    rates, spent_s = {}, {"generate": generate_s}
    for player in ("pretty_midi", "symusic"):
        finish_s, sound_s = peer.finished(files, home / "peer", player=player)
        rates[f"peer, played by {player}"] = sound_s / (generate_s + finish_s)
        spent_s[f"decode, play by {player}, write"] = finish_s
    bench.count("beside a peer", {**rates, "catalogue": ours}, unit="s a core-second")
    bench.count("the peer's processor time", spent_s, unit="s")
    slower, faster = rates.values()
    bench.name("catalogue_vs_peer", ours / slower)
    bench.name("catalogue_vs_fastest_peer", ours / faster)
    bench.note(
        f"the peer: {len(files)} pieces, {sound_s:,.0f} s of sound, {statistics.mean(lengths):,.0f} tokens a piece"
    )


def _scaling(bench: Bench, home: Path, uri: str) -> None:
    """The same order on one node of one core and on two, each node bound to a core of its own."""
    count, rates = int(bench.settings["scaling"]), {}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": entropy.token_hex(32)}
    for nodes in (1, 2):
        name = f"nodes-{nodes}"
        order = _order(home, name, count=count, bench=bench, takes_per_block=2)
        cluster = Cluster(home / f"{name}.ray.log", bound=True)
        try:
            cluster.open(nodes=nodes)
            tutti(
                *_words(home, name, order, uri), log=home / f"{name}.log", environment={"RAY_ADDRESS": cluster.address}
            )  # fmt: skip
        finally:
            cluster.close()
        pace = _made(home, name).facts["pace"]
        rates[f"{nodes} nodes" if nodes > 1 else "1 node"] = pace["music_s"] / (pace["wall_s"] - pace["start_s"])
    bench.count(f"{count} pieces on nodes of one core", rates, unit="s of music a second")
    one, two = rates.values()
    bench.name("catalogue_scaling", two / one)


def _memory(bench: Bench, home: Path, uri: str) -> None:
    """Resident memory of the driver over many takes."""
    takes = int(bench.settings["tiny"])
    order = _order(
        home, "tiny", count=takes, bench=bench, formats=["midi"], takes_per_block=32, max_batch=64,
        controls={"bars": 1, "tempo": 120, "meter": "2/4"},
    )  # fmt: skip
    seen: dict[int, float] = {}

    def watch(family: Family) -> None:
        for record in (home / "tiny").glob("catalogues/tiny/*/progress.json"):
            seen[json.loads(record.read_bytes())["done"]] = family.driver_mib[-1][1]

    family, wall_s = tutti(*_words(home, "tiny", order, uri), log=home / "tiny.log", watch=watch)
    settled = next(held for done, held in sorted(seen.items()) if done >= min(SETTLED, takes // 2))
    last = seen[max(seen)]
    # The last record of progress is of the last block: what comes after it is publishing.
    most = max(held for _, held in family.driver_mib)
    held = {f"after {min(SETTLED, takes // 2):,} takes": settled, f"after {takes:,} takes": last, "most": most}
    bench.count("memory of the driver", held, unit="MiB")
    bench.count("tiny takes", {"all": takes / wall_s}, unit="takes/s")
    bench.name("catalogue_driver_mib_1000", settled)
    bench.name("catalogue_driver_mib", last)
    bench.name("catalogue_publish_mib", most)


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, help="folder of a trained model's bundle")


if __name__ == "__main__":
    run(
        "catalogue",
        measure,
        settings={
            "pieces": (200, "pieces of the catalogue"),
            "seconds": (60, "asked length of each"),
            "peer": (16, "of these pieces, how many the peer makes"),
            "scaling": (32, "pieces on one node and on two"),
            "tiny": (10_000, "takes for the figure of memory"),
        },
        extend=_extend,
    )
