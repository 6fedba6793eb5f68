"""MosaicML Streaming, read for one epoch at each line that comes in: ``python streaming_reader.py FOLDER``.

It runs in an environment that knows neither Tutti nor its benchmarks. It writes the set, says ``ready``, and answers
each line with the tokens a second of an epoch from a new dataset object, one JSON object of its two ways a line.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import sys
import time
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def without_torchvision() -> None:
    """Let Streaming be imported where torchvision cannot be: its wheel on PyPI is for torch with CUDA.

    Streaming's pictures alone use it.
    """
    names: dict[str, tuple[str, ...]] = {
        "torchvision": (),
        "torchvision.datasets": ("VisionDataset", "CIFAR10"),
        "torchvision.transforms": (),
        "torchvision.transforms.functional": ("to_tensor",),
    }
    for name, members in names.items():
        module = sys.modules[name] = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for member in members:
            setattr(module, member, type(member, (), {}))


def main() -> None:
    """Write, then read as often as is asked for."""
    without_torchvision()
    folder, rows, row_tokens, batch = Path(sys.argv[1]), *(int(number) for number in sys.argv[2:5])
    streaming: Any = importlib.import_module("streaming")
    data: Any = importlib.import_module("torch.utils.data")
    random = np.random.default_rng(0)
    with streaming.MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{row_tokens}"}) as writer:
        for _ in range(rows):
            writer.write({"tokens": random.integers(0, 1000, row_tokens).astype(np.uint16)})
    print("ready", flush=True)
    for _ in sys.stdin:
        rates = {}
        for way in ("DataLoader", "iterated"):
            dataset = streaming.StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=1, batch_size=batch)
            if way == "DataLoader":
                loader: Iterable[Any] = data.DataLoader(dataset, batch_size=batch, num_workers=0, collate_fn=_stacked)
            else:
                loader = _batches(dataset, batch)
            started_s = time.perf_counter()
            tokens = sum(found.size for found in loader)
            rates[way] = tokens / (time.perf_counter() - started_s)
            del dataset, loader
        print(json.dumps(rates), flush=True)


def _stacked(samples: list[dict[str, Any]]) -> Any:
    return np.stack([sample["tokens"] for sample in samples])


def _batches(dataset: Iterable[dict[str, Any]], size: int) -> Iterator[Any]:
    held = []
    for sample in dataset:
        held.append(sample)
        if len(held) == size:
            yield _stacked(held)
            held = []
    if held:
        yield _stacked(held)


if __name__ == "__main__":
    main()
