from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tutti.errors import InputError, MissingError, PlaceError, UserError
from tutti.render.fonts import KnownFont, check_font, kept_font, known_font
from tutti.render.soundfont import default_path
from tutti.storage import Folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server, and the folder that it shows."""
    shown = tmp_path / "shown"
    shown.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shown)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", shown
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the bundled font, tried."""
    cache = tmp_path_factory.mktemp("cache")
    known_font(str(default_path()), cache=cache)
    return cache


def test_a_font_of_any_address_is_kept_by_its_content(tried: Path, site: tuple[str, Path]) -> None:
    address, shown = site
    data = default_path().read_bytes()
    (shown / "font.sf2").write_bytes(data)
    Folder("memory://fonts").write("font.sf2", data)
    sha256 = hashlib.sha256(data).hexdigest()
    for each in (str(shown / "font.sf2"), f"file://{shown}/font.sf2", f"{address}/font.sf2", "memory://fonts/font.sf2"):
        font = known_font(each, cache=tried)
        assert (font.address, font.sha256, font.path) == (each, sha256, tried / f"{sha256}.sf2")
    assert [path.name for path in tried.iterdir()] == [f"{sha256}.sf2"]
    (shown / "font.sf2").unlink()
    again = known_font(f"{address}/font.sf2", cache=tried, sha256=sha256)
    assert again.path.read_bytes() == data
    assert KnownFont.from_dict(again.to_dict()).sha256 == sha256


def test_another_font_behind_the_address_is_refused(tried: Path) -> None:
    with pytest.raises(InputError, match=r"has SHA-256 [0-9a-f]{12}…, not 000000000000…"):
        known_font(str(default_path()), cache=tried, sha256="0" * 64)


def test_what_is_not_there_is_one_line(tmp_path: Path, site: tuple[str, Path]) -> None:
    address, _ = site
    cases: list[tuple[str, type[UserError]]] = [
        (str(tmp_path / "none.sf2"), MissingError),
        (f"{address}/none.sf2", MissingError),
        ("http://127.0.0.1:1/font.sf2", PlaceError),
        ("https://no such host/font.sf2", PlaceError),
    ]
    for where, kind in cases:
        with pytest.raises(kind) as caught:
            known_font(where, cache=tmp_path / "cache")
        assert "\n" not in str(caught.value)
        assert where in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_font_is_refused_in_a_process_of_its_own(tmp_path: Path) -> None:
    whole = default_path().read_bytes()
    at = whole.index(b"igen")
    hostile = whole[: at + 8] + b"\xff" * (len(whole) - at - 8)
    for data, message in (
        (b"", "smpl is missing"),
        (b"<html>not found</html>", "is no SoundFont 2"),
        (whole[:5_900_000], "is no SoundFont 2"),
        (hostile, "is no whole SoundFont 2|is no SoundFont 2|sounds|cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            check_font(data, name="odd.sf2")
        assert "\n" not in str(caught.value)


def test_bytes_that_were_tried_elsewhere_are_kept(tmp_path: Path) -> None:
    assert kept_font(b"tried", cache=tmp_path).read_bytes() == b"tried"
