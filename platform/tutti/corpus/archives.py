"""What an archive holds, and the bytes of what it holds, without unpacking it to disk.

Listing goes through Python's :mod:`zipfile` and :mod:`tarfile` once and keeps of each member where it begins. Reading
goes there: a zip or plain tar is entered anywhere, a compressed tar is unpacked from its front to its back once, so its
members are read in the order in which they lie. Names of members are only names: nothing is ever written under them,
and links are not followed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, BinaryIO, Protocol, cast

from tutti.corpus import sidecars
from tutti.corpus.item import is_music, limit_bytes, too_large
from tutti.errors import DataError
from tutti.units import format_bytes

KINDS = {
    "zip": (".zip",),
    "tar": (".tar",),
    "tar.gz": (".tar.gz", ".tgz"),
    "tar.bz2": (".tar.bz2", ".tbz2", ".tbz"),
    "tar.xz": (".tar.xz", ".txz"),
}
"""Ends of names by kind of archive."""
STREAMED_KINDS = ("tar.gz", "tar.bz2", "tar.xz")
# Text and notes pack to a tenth, silence to a thousandth: beyond this nobody packed music.
MAX_UNPACKING_FACTOR = 250
MIN_UNPACKED_LIMIT_BYTES = 2**30
MAX_HEADER_BYTES = 2**20
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip
_PART_BYTES = 2**16
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError, struct.error, zlib.error)
_BROKEN = (*_DAMAGE, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
# APPNOTE.TXT 4.3.7: signature, version, flags, method, time, date, CRC-32, packed and plain size, lengths of name, ext
_ZIP_ENTRY = struct.Struct("<4sHHHHHIIIHH")
_IS_ENCRYPTED = 0x1
_METHODS = {0: "stored", 8: "deflate", 12: "bzip2"}


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Args:
        name: its path in the archive; empty for what could not be listed.
        size_bytes: its size, unpacked.
        offset_bytes: where its entry (zip) or its bytes (tar, unpacked) begin.
        crc32: of its bytes, in a zip.
        data: the bytes of a table, which are read along with the listing.
        reason, detail: why it is refused, if it is.
    """

    name: str
    size_bytes: int = 0
    offset_bytes: int = 0
    crc32: int | None = None
    data: bytes | None = None
    reason: str = ""
    detail: str = ""


def kind_of(name: str) -> str:
    """Kind of the archive of this name, empty where it is none."""
    lower = name.lower()
    return next((kind for kind, suffixes in KINDS.items() if lower.endswith(suffixes)), "")


def members(file: BinaryIO, *, kind: str, size_bytes: int) -> Iterator[Member]:
    """Music and tables in an archive, in the order in which they lie, tables with their bytes.

    What cannot be taken comes with its reason. Where the archive is damaged, all that can be listed comes and then one
    member without a name.

    Args:
        file: the archive; tars that are compressed are read from front to back.
        kind: one of :data:`KINDS`.
        size_bytes: size of the archive.
    """
    listed = _zip_members(file) if kind == "zip" else _tar_members(file, kind=kind, size_bytes=size_bytes)
    taken = set[str]()
    try:
        for member in listed:
            if member.name in taken:
                yield _refused(member.name, "another member of that name comes before it in its archive")
            else:
                taken.add(member.name)
                yield member
    except _BROKEN as error:
        yield _refused("", f"the archive is damaged after {len(taken)} files of music: {_words(error)}")


class Opened:
    """An archive whose members are read.

    Args:
        file: the archive.
        kind: one of :data:`KINDS`.
    """

    def __init__(self, file: BinaryIO, *, kind: str) -> None:
        self._kind = kind
        self._stream = _unpacked(file, kind=kind)
        self._broken = ""

    def read(self, *, offset_bytes: int, size_bytes: int, crc32: int | None = None) -> bytes:
        """Bytes of one member; of compressed tars in the order of their offsets.

        Raises:
            DataError: unsafe_archive, where it is damaged, or unpacks to more than it says.
        """
        if self._broken:
            raise DataError("unsafe_archive", self._broken)
        try:
            self._stream.seek(offset_bytes)
            if self._kind == "zip":
                data = _zip_entry(self._stream, size_bytes=size_bytes)
            else:
                data = self._stream.read(size_bytes)
        except _BROKEN as error:
            detail = f"the archive is damaged here: {_words(error)}"
            if self._kind in STREAMED_KINDS:
                # What lies behind the damage cannot be reached, and trying again would unpack all before it again.
                self._broken = "the archive is damaged before this member"
            raise DataError("unsafe_archive", detail) from None
        if len(data) < size_bytes:
            raise DataError("unsafe_archive", f"the archive ends after {len(data)} of its {size_bytes} bytes")
        if crc32 is not None and zlib.crc32(data) != crc32:
            raise DataError("unsafe_archive", "its bytes differ from the checksum that the archive tells")
        return data


def _zip_members(file: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            name = entry.filename
            if entry.is_dir() or not _is_wanted(name):
                continue
            if entry.flag_bits & _IS_ENCRYPTED:
                yield _refused(name, "it is encrypted")
            elif entry.compress_type not in _METHODS:
                yield _refused(name, f"packed by method {entry.compress_type}; read are {', '.join(_METHODS.values())}")
            elif stat.S_ISLNK(entry.external_attr >> 16):
                yield _refused(name, "it is a link, which is not followed")
            elif refused := _refused_by_name_or_size(name, entry.file_size):
                yield refused
            elif sidecars.is_sidecar(name):
                yield _table(name, partial(archive.read, entry))
            else:
                yield Member(name, entry.file_size, offset_bytes=entry.header_offset, crc32=entry.CRC)


class _StrictHeader(tarfile.TarInfo):
    """A header that is no header is an error, where tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        # A long name is read whole before anything is known of the file.
        if self.type in _LONG_HEADERS and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a name or header of {self.size} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


def _tar_members(file: BinaryIO, *, kind: str, size_bytes: int) -> Iterator[Member]:
    limit = max(MIN_UNPACKED_LIMIT_BYTES, MAX_UNPACKING_FACTOR * size_bytes)
    with tarfile.open(fileobj=_unpacked(file, kind=kind), mode="r:", tarinfo=_StrictHeader) as archive:
        end_bytes = 0
        while (entry := archive.next()) is not None:
            cast(Any, archive).members.clear()  # it would keep every header, a kilobyte each
            if entry.size < 0 or entry.offset_data < end_bytes:
                # Such a size leads tarfile back to where it was, for ever (CVE-2025-8194).
                raise tarfile.ReadError("a size in it is below zero")
            end_bytes = entry.offset_data + entry.size
            if kind in STREAMED_KINDS and end_bytes > limit:
                yield _refused("", f"it unpacks to more than {format_bytes(limit)}; what follows is not listed")
                return
            # A name may hold bytes that are no text; they are told as \xff.
            name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if entry.isdir() or not _is_wanted(name):
                continue
            if entry.issym() or entry.islnk():
                yield _refused(name, "it is a link, which is not followed")
            elif not entry.isreg() or entry.issparse():
                yield _refused(name, "it is a device, a pipe or a file with holes")
            elif refused := _refused_by_name_or_size(name, entry.size):
                yield refused
            elif sidecars.is_sidecar(name):
                yield _table(name, partial(_extracted, archive, entry))
            else:
                yield Member(name, entry.size, offset_bytes=entry.offset_data)


def _unpacked(file: BinaryIO, *, kind: str) -> BinaryIO:
    """The tar in a compressed tar; any other archive as it is."""
    if kind == "tar.gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    if kind == "tar.bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    return cast(BinaryIO, lzma.LZMAFile(file)) if kind == "tar.xz" else file


def _is_wanted(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith(".") and (is_music(last) or sidecars.is_sidecar(last) or bool(kind_of(last)))


def _refused_by_name_or_size(name: str, size_bytes: int) -> Member | None:
    if kind_of(name):
        return _refused(name, "it is an archive inside an archive; unpack the outer one")
    limit = sidecars.MAX_SIDECAR_BYTES if sidecars.is_sidecar(name) else limit_bytes(name)
    if size_bytes > limit:
        return Member(name, reason="too_long", detail=too_large(size_bytes, limit=limit))
    return None


def _extracted(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    return cast(IO[bytes], archive.extractfile(entry)).read()


def _table(name: str, read: Callable[[], bytes]) -> Member:
    try:
        return Member(name, data=read())
    except _BROKEN as error:
        return _refused(name, f"the archive is damaged here: {_words(error)}")


def _refused(name: str, detail: str) -> Member:
    return Member(name, reason="unsafe_archive", detail=detail)


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _zip_entry(file: BinaryIO, *, size_bytes: int) -> bytes:
    """Unpack the entry that begins here.

    Raises:
        EOFError, ValueError, OSError, zlib.error: it is damaged, or unpacks to more than ``size_bytes``.
    """
    head = file.read(_ZIP_ENTRY.size)
    if len(head) < _ZIP_ENTRY.size or head[:4] != b"PK\3\4":
        raise ValueError("no entry begins where the archive's list says so")
    _, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = _ZIP_ENTRY.unpack(head)
    if flags & _IS_ENCRYPTED or method not in _METHODS:
        raise ValueError("its entry differs from the archive's list")
    file.seek(name_bytes + extra_bytes, 1)
    if method == 0:
        return file.read(size_bytes)
    unpacker = cast(_Unpacker, zlib.decompressobj(-zlib.MAX_WBITS) if method == 8 else bz2.BZ2Decompressor())
    return _unpack(file, unpacker=unpacker, size_bytes=size_bytes)


def _unpack(file: BinaryIO, *, unpacker: _Unpacker, size_bytes: int) -> bytes:
    plain = bytearray()
    packed = b""
    while not unpacker.eof:
        # zlib hands back what it did not take, bzip2 keeps it and asks for none.
        packed = getattr(unpacker, "unconsumed_tail", b"")
        if not packed and getattr(unpacker, "needs_input", True):
            packed = file.read(_PART_BYTES)
            if not packed:
                raise EOFError("its packed bytes end too early")
        plain += unpacker.decompress(packed, size_bytes + 1 - len(plain))
        if len(plain) > size_bytes:
            raise ValueError(f"it unpacks to more than the {size_bytes} bytes that the archive tells")
    return bytes(plain)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
