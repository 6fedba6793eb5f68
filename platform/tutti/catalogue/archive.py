"""A catalogue as one ZIP file: the same catalogue gives the same bytes.

Entries are stored, in the manifest's order, with one fixed date: sound and pictures are compressed already, and no
version of a compressor moves a bit. What was rejected stays out, but for its rows.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from tutti import lineage
from tutti.catalogue import provenance
from tutti.catalogue.blocks import REJECTS
from tutti.lineage import FileEntry
from tutti.storage import Folder

ARCHIVE = "catalogue.zip"
_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16
_UNIX = 3


def shipped(files: Iterable[FileEntry]) -> list[FileEntry]:
    """Of a catalogue's files those that a ZIP holds, sorted by path."""
    files = list(files)
    rejected = {_stem(entry.path) for entry in files if entry.path.startswith(f"{REJECTS}/")}
    left_out = {provenance.path_of(stem) for stem in rejected} | {ARCHIVE}
    kept = (each for each in files if not each.path.startswith(f"{REJECTS}/") and each.path not in left_out)
    return sorted(kept, key=lambda entry: entry.path)


def write_zip(folder: Folder, files: Iterable[FileEntry], *, name: str, target: Path) -> None:
    """Put a catalogue's files into one ZIP; one file at a time is in memory.

    Args:
        folder: of the catalogue.
        files: of its manifest.
        name: folder within the ZIP.
        target: the file that is written.

    Raises:
        IntegrityError: a file differs from its entry.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for entry in shipped(files):
            data = folder.read(entry.path)
            lineage.check_bytes(data, entry, where=folder.uri)
            info = zipfile.ZipInfo(f"{name}/{entry.path}", _DATE)
            info.external_attr, info.create_system = _PLAIN_FILE, _UNIX
            archive.writestr(info, data)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
