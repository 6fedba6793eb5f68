"""SoundFonts by address: fetched once into a cache by content hash, and tried before anything is made with them.

A font comes from whoever wrote it. It is opened, and every program of it played, in a child process that may die: a
file that crashes a parser or never ends costs itself alone. What passed is kept under its SHA-256, so that a worker
finds the same bytes, and a take's provenance can name them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutti.corpus.isolation import Columns, File, IsolatedReader
from tutti.errors import InputError, MissingError, PlaceError
from tutti.render.soundfont import SoundFont, read_soundfont
from tutti.storage import Folder
from tutti.units import format_bytes

MOST_BYTES = 2 << 30
CACHE_VARIABLE = "TUTTI_CACHE"

_CONNECT_S, _SILENCE_S = 10.0, 60.0
_TRIAL_S = 60.0
_CHUNK_BYTES = 1 << 20
_TRIED_PITCHES = (36, 60, 84)


@dataclass(frozen=True, slots=True)
class KnownFont:
    """A font that was fetched and tried.

    Args:
        address: as it was asked for.
        sha256: of its bytes.
        path: where they lie on this machine.
    """

    address: str
    sha256: str
    path: Path

    def opened(self) -> SoundFont:
        """The font itself, on whatever machine this is: from its cache, or fetched again.

        Raises:
            UserError: it is neither kept nor behind its address any more.
        """
        return read_soundfont(known_font(self.address, sha256=self.sha256).path)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> KnownFont:
        """Read :meth:`to_dict`; where its bytes would lie."""
        return cls(str(told["address"]), str(told["sha256"]), _place(cache_folder(), str(told["sha256"])))

    def to_dict(self) -> dict[str, Any]:
        """As plain values: what a provenance holds."""
        return {"address": self.address, "sha256": self.sha256}


def cache_folder() -> Path:
    """Where fonts are kept: below ``$TUTTI_CACHE``, or the user's cache."""
    root = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutti"
    return Path(root) / "soundfonts"


def known_font(address: str, *, cache: Path | None = None, sha256: str | None = None) -> KnownFont:
    """The font behind an address, fetched where it is not kept yet.

    Args:
        address: a path, ``file://``, ``https://``, ``http://`` or ``s3://``.
        cache: where fonts are kept; by default :func:`cache_folder`.
        sha256: of the bytes that must be behind it; what is kept under it is not fetched again.

    Raises:
        MissingError: nothing is there.
        InputError: what is there is no SoundFont 2, or not the one with ``sha256``.
        PlaceError: it cannot be reached, or the cache cannot be written.
    """
    cache = cache or cache_folder()
    if sha256 is not None and (kept := _place(cache, sha256)).is_file():
        return KnownFont(address, sha256, kept)
    data = _fetched(address)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"the SoundFont at {address} has SHA-256 {found[:12]}…, not {sha256[:12]}…",
            remedy="name the address of the font that was used",
        )
    path = _place(cache, found)
    if not path.is_file():
        check_font(data, name=address)
        kept_font(data, cache=cache)
    return KnownFont(address, found, path)


def kept_font(data: bytes, *, cache: Path | None = None) -> Path:
    """Keep the bytes of a font that was tried already, elsewhere; where they lie.

    Raises:
        PlaceError: the cache cannot be written.
    """
    path = _place(cache or cache_folder(), hashlib.sha256(data).hexdigest())
    if not path.is_file():
        Folder(str(path.parent)).write(path.name, data)
    return path


def _place(cache: Path, sha256: str) -> Path:
    return cache / f"{sha256}.sf2"


def _fetched(address: str) -> bytes:
    if address.startswith(("https://", "http://")):
        return _downloaded(address)
    if not address.startswith(("s3://", "file://", "memory://")):
        address = str(Path(address).expanduser().absolute())
    folder, _, name = address.rpartition("/")
    if not folder or not name:
        raise InputError(f"{address} names no SoundFont", remedy="give the address of an .sf2 file")
    place = Folder(folder)
    if not place.exists(name):
        raise MissingError(f"SoundFont {address} is not there", remedy="give the address of an .sf2 file")
    _check_size(place.size_bytes(name), address)
    return place.read(name)


def _check_size(size: int, address: str) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"the SoundFont at {address} has more than {format_bytes(MOST_BYTES)}", remedy="name a smaller one"
        )


def _downloaded(address: str) -> bytes:
    import httpx  # a third of a second, for those who name another font only

    timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
    made = bytearray()
    try:
        with httpx.stream("GET", address, timeout=timeout, follow_redirects=True) as answer:
            if answer.status_code in (404, 410):
                raise MissingError(f"SoundFont {address} is not there", remedy="give the address of an .sf2 file")
            if not answer.is_success:
                raise PlaceError(f"{address} answers {answer.status_code}", remedy="see whether it can be opened")
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                made += chunk
                _check_size(len(made), address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PlaceError(f"{address} cannot be reached ({error})", remedy="see whether it can be opened") from error
    return bytes(made)


def check_font(data: bytes, *, name: str) -> None:
    """Open a font and play each of its programs, in a child process.

    Raises:
        InputError: it is no SoundFont 2, nothing in it sounds, or the child did not survive it.
    """
    with IsolatedReader(work=f"{__name__}:try_fonts", timeout_s=_TRIAL_S) as reader:
        answers, lost = reader.read([(name, data)], {})
    if lost:
        raise InputError(
            f"the SoundFont at {name} cannot be read ({lost[0].reason}: {lost[0].detail})", remedy="name another one"
        )
    if fault := answers[0].facts["fault"]:
        raise InputError(str(fault), remedy="give the address of an .sf2 file")


def try_fonts(
    files: Sequence[File], options: Mapping[str, Any], begin: Callable[[int], None]
) -> tuple[dict[str, Any], Columns]:
    """The child's part of :func:`check_font`: what is wrong with the first font, or nothing."""
    del options
    import tempfile

    from tutti.corpus.score import DRUM_PROGRAM
    from tutti.render.voice import sound

    begin(0)
    name, data = files[0]
    fault, heard = "", False
    with tempfile.NamedTemporaryFile(suffix=".sf2") as file:
        file.write(data)
        file.flush()
        try:
            font = read_soundfont(Path(file.name))
            for program in range(DRUM_PROGRAM + 1):
                for pitch in _TRIED_PITCHES:
                    for zone in font.zones_at(program, pitch)[:4]:
                        voice = sound(font, zone, pitch=pitch, held_s=0.2, sample_rate_hz=22_050)
                        heard |= bool(len(voice.held_S)) and bool(np.abs(voice.held_S).max() > 0)
        except InputError as error:
            fault = f"{name} is no SoundFont 2: {error.what.partition(': ')[2] or error.what}"
        except (ValueError, IndexError, OverflowError, KeyError, ZeroDivisionError, MemoryError) as error:
            fault = f"{name} is no whole SoundFont 2 ({type(error).__name__}: {error})"
    if not fault and not heard:
        fault = f"no program of the SoundFont {name} sounds"
    return {"fault": fault}, {}
