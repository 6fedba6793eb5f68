"""From what lies in a source to its items: archives are entered, tables are read, labels are given."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutti.corpus import archives, sidecars
from tutti.corpus.archives import Member, Opened
from tutti.corpus.item import SUFFIXES, Archive, Item, is_on_storage, stated_by_caller, too_large
from tutti.corpus.listing import Found
from tutti.corpus.reading import opened_archive
from tutti.corpus.sidecars import Sidecar, Usage
from tutti.errors import DataError, MissingError, UserError
from tutti.storage import Folder


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds.

    Args:
        items: files to read, in order of names.
        usages: what came of each table beside them.
    """

    items: list[Item]
    usages: list[Usage]


@dataclass
class Collection:
    """Items of one source as they are found.

    Args:
        name: of the collection.
        licence: as the caller stated it.
        prefix: what stands before a path below the source in a URI.
    """

    name: str
    licence: str
    prefix: str
    _items: list[Item] = field(default_factory=list)
    _tables: list[Sidecar] = field(default_factory=list)

    def take(self, found: Iterable[Found]) -> None:
        """Add the files of a listing."""
        for file in found:
            uri = self.prefix + file.path
            if file.reason:
                self.refuse(uri, reason=file.reason, detail=file.detail)
            elif kind := archives.kind_of(file.path):
                place, version = file.full_place, file.version
                self._take_archive(Archive(uri, place, kind, version, file.size_bytes, file.mtime_ns))
            elif sidecars.is_sidecar(file.path):
                self._take_table(file, uri=uri)
            else:
                self._add(uri, place=file.place, version=file.version, size_bytes=file.size_bytes)

    def take_fetched(self, data: bytes, *, uri: str) -> None:
        """Add a file that was fetched."""
        self._add(uri, version=hashlib.sha256(data).hexdigest(), size_bytes=len(data), data=data)

    def take_fetched_archive(self, data: bytes, *, uri: str, kind: str, most_bytes: int) -> None:
        """Add the members of an archive that was fetched, with their bytes, of which ``most_bytes`` are kept."""
        opened = Opened(io.BytesIO(data), kind=kind)
        left = most_bytes
        for member in self._music(archives.members(io.BytesIO(data), kind=kind, size_bytes=len(data)), uri=uri):
            if member.size_bytes > left:
                detail = (
                    f"the archive unpacks to {too_large(most_bytes + 1, limit=most_bytes)}: fetch it to a disk first"
                )
                self.refuse(f"{uri}!{member.name}", reason="too_long", detail=detail)
                continue
            left -= member.size_bytes
            try:
                plain = opened.read(offset_bytes=member.offset_bytes, size_bytes=member.size_bytes, crc32=member.crc32)
            except DataError as error:
                self.refuse(f"{uri}!{member.name}", reason=error.reason, detail=error.detail)
            else:
                self.take_fetched(plain, uri=f"{uri}!{member.name}")

    def refuse(self, uri: str, *, reason: str, detail: str, archive: Archive | None = None) -> None:
        """Add a file that cannot be taken."""
        self._add(uri, reason=reason, detail=detail, archive=archive)

    def listing(self, *, what: str) -> Listing:
        """All items with what the tables say of them.

        Args:
            what: the source, for people.

        Raises:
            MissingError: there are none.
            RecipeError: a table that names some of them cannot be read.
        """
        if not self._items:
            ends = ", ".join((*SUFFIXES, *(suffixes[0] for suffixes in archives.KINDS.values())))
            raise MissingError(f"{what} holds no music", remedy=f"name one with files that end in {ends}")
        if not self._tables:
            return Listing(self._items, [])
        told, usages = sidecars.read_sidecars(self._tables, paths=[self._path(item) for item in self._items])
        for index, said in told.items():
            item = replace(self._items[index], labels=said.labels)
            if said.labels.licence:
                item = replace(item, licence=said.labels.licence, licence_origin=said.origin)
            self._items[index] = item
        return Listing(self._items, usages)

    def _add(self, uri: str, **facts: Any) -> None:
        origin = stated_by_caller(self.licence)
        self._items.append(Item(uri, self.name, self.licence, origin, **facts))

    def _path(self, item: Item) -> str:
        """Path below the source, an archive counting as a folder."""
        if item.archive is None:
            return item.uri[len(self.prefix) :]
        return f"{item.archive.uri[len(self.prefix) :]}/{item.uri[len(item.archive.uri) + 1 :]}"

    def _take_archive(self, archive: Archive) -> None:
        try:
            file = opened_archive(archive)
        except DataError as error:
            self.refuse(archive.uri, reason=error.reason, detail=error.detail, archive=archive)
            return
        try:
            with file:
                members = archives.members(file, kind=archive.kind, size_bytes=archive.size_bytes)
                for member in self._music(members, uri=archive.uri, archive=archive):
                    version = archive.version if member.crc32 is None else f"{archive.version}/{member.crc32:08x}"
                    self._add(
                        f"{archive.uri}!{member.name}",
                        version=version,
                        size_bytes=member.size_bytes,
                        archive=archive,
                        offset_bytes=member.offset_bytes,
                    )
        except UserError as error:
            self.refuse(archive.uri, reason="unreachable", detail=error.what, archive=archive)

    def _music(self, members: Iterable[Member], *, uri: str, archive: Archive | None = None) -> Iterable[Member]:
        """Members that are music; tables are kept, and what cannot be taken is refused."""
        for member in members:
            name = f"{uri}!{member.name}" if member.name else uri
            if member.reason:
                self.refuse(name, reason=member.reason, detail=member.detail, archive=archive)
            elif member.data is not None:
                path = f"{uri}/{member.name}"[len(self.prefix) :]
                self._tables.append(Sidecar(path, name=name[len(self.prefix) :], data=member.data))
            else:
                yield member

    def _take_table(self, file: Found, *, uri: str) -> None:
        if file.size_bytes > sidecars.MAX_SIDECAR_BYTES:
            detail = too_large(file.size_bytes, limit=sidecars.MAX_SIDECAR_BYTES)
            self.refuse(uri, reason="too_long", detail=detail)
            return
        try:
            if is_on_storage(file.place):
                data = Folder(file.place.rstrip("/")).read(file.path)
            else:
                data = Path(file.full_place).read_bytes()
        except OSError as error:
            self.refuse(uri, reason="unreadable", detail=f"the table cannot be read: {error.strerror}")
        except UserError as error:
            self.refuse(uri, reason="unreachable", detail=error.what)
        else:
            self._tables.append(Sidecar(file.path, name=file.path, data=data))
