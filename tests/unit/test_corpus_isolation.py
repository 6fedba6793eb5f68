"""A parser that dies or hangs costs one file."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from tutti.corpus.isolation import IsolatedParser, read_untrusted
from tutti.corpus.midi import in_midi_form, write_midi
from tutti.corpus.score import Notes, Score
from tutti.errors import DataError, PlaceError

HOSTILE = """
import ctypes, os, signal, time
from tutti.corpus.midi import read_midi

def parse(data):
    if data == b"abort":
        os.abort()
    if data == b"null":
        ctypes.string_at(0)
    if data == b"exit":
        os._exit(3)
    if data == b"stop":
        signal.raise_signal(signal.SIGSTOP)
    if data == b"sleep":
        time.sleep(600)
    if data == b"raise":
        raise KeyError("surprise")
    return [read_midi(data)]
"""


@pytest.fixture
def score() -> Score:
    notes = Notes.of(onset_ticks=[0, 480], duration_ticks=[480, 240], pitch=[60, 62], program=[0, 40], track=[0, 1])
    return Score.of(notes, ticks_per_quarter=480, tempos=[(0, 93.5)], meters=[(0, 3, 4)], title="Élégie")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hostile_parser.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "hostile_parser:parse"


@pytest.mark.parametrize(
    ("poison", "detail"),
    [(b"abort", "SIGABRT"), (b"null", "SIGSEGV"), (b"exit", "exit code 3"), (b"raise", "KeyError")],
)
def test_a_crash_costs_one_file(hostile: str, score: Score, poison: bytes, detail: str) -> None:
    with IsolatedParser(parser=hostile) as parser:
        assert parser.parse(write_midi(score))[0].same_music(in_midi_form(score))
        with pytest.raises(DataError, match=f"parser_crashed: .*{detail}"):
            parser.parse(poison)
        assert parser.parse(write_midi(score))[0].same_music(in_midi_form(score))


@pytest.mark.parametrize("poison", [b"stop", b"sleep"])
def test_a_hang_costs_one_file_and_its_time(hostile: str, score: Score, poison: bytes) -> None:
    with IsolatedParser(parser=hostile, timeout_s=1.0) as parser:
        parser.parse(write_midi(score))
        assert parser.pid is not None
        hung = psutil.Process(parser.pid)
        with pytest.raises(DataError, match=r"parser_timeout: .* within 1 s"):
            parser.parse(poison)
        assert not hung.is_running()
        assert len(parser.parse(write_midi(score))[0].notes) == 2


def test_one_child_reads_many_files_and_ends_with_the_parser(score: Score) -> None:
    with IsolatedParser() as parser:
        pids = set()
        for _ in range(5):
            parser.parse(write_midi(score), name="a.mid", tempo_without_mark_qpm=80.0)
            pids.add(parser.pid)
        (pid,) = pids
        assert pid is not None
        child = psutil.Process(pid)
        assert child.is_running()
    assert not child.is_running()


def test_a_child_that_does_not_start_is_told(tmp_path: Path) -> None:
    with IsolatedParser(parser="no_such_module:parse") as parser, pytest.raises(PlaceError, match="does not start"):
        parser.parse(b"")


def test_read_untrusted_gives_the_score_from_any_thread(score: Score) -> None:
    read: list[Score] = []
    threads = [threading.Thread(target=lambda: read.append(read_untrusted(write_midi(score)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 4
    assert all(one.same_music(in_midi_form(score)) and one.title == "Élégie" for one in read)


def test_read_untrusted_refuses_as_the_reader_does() -> None:
    with pytest.raises(DataError, match="empty: the file holds no bytes"):
        read_untrusted(b"")
