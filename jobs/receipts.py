"""Receipts: what a task wrote of which bytes, put down last: a run that goes on after a kill need not repeat it."""

from __future__ import annotations

import json
from typing import Any

from tutti.errors import MissingError
from tutti.lineage import FileEntry
from tutti.storage import Folder

RECEIPTS = "receipts"


def found(folder: Folder, path: str, *, source: FileEntry) -> dict[str, Any] | None:
    """The receipt at ``path``, where it was written of the same works and the file that it names is there, whole.

    Args:
        folder: of the dataset.
        path: of the receipt.
        source: the works that the task reads.
    """
    try:
        receipt: dict[str, Any] = json.loads(folder.read(path))
        file = receipt["file"]
        is_there = file is None or folder.size_bytes(file["path"]) == file["size_bytes"]
    except MissingError:
        return None
    return receipt if is_there and receipt["source_sha256"] == source.sha256 else None
