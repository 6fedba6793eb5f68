"""A reader that dies or hangs costs one file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tutti.corpus.formats import ParseOptions
from tutti.corpus.isolation import IsolatedReader
from tutti.corpus.midi import in_midi_form, write_midi
from tutti.corpus.score import Notes, Score
from tutti.corpus.untrusted import parse_untrusted, read_untrusted
from tutti.errors import DataError, PlaceError

HOSTILE = """
import ctypes, os, signal, time
import numpy as np

def read(files, options, on_file):
    for number, (name, data) in enumerate(files):
        on_file(number)
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
        if data == b"once":
            marker = os.path.join(os.environ["HOSTILE_FOLDER"], "died")
            if not os.path.exists(marker):
                open(marker, "w").close()
                os.abort()
        if data == b"memory":
            np.ones(2**30)
    return {"names": [name for name, _ in files], "option": options["option"]}, {
        "sizes": np.array([len(data) for _, data in files], dtype=np.int32)
    }
"""
DEADLY = {
    "abort": "SIGABRT", "null": "SIGSEGV", "exit": "exit code 3", "raise": "KeyError", "memory": "MemoryError"
}  # fmt: skip


@pytest.fixture
def score() -> Score:
    notes = Notes.of(onset_ticks=[0, 480], duration_ticks=[480, 240], pitch=[60, 62], program=[0, 40], track=[0, 1])
    return Score.of(notes, ticks_per_quarter=480, tempos=[(0, 93.5)], meters=[(0, 3, 4)], title="Élégie")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedReader]:
    (tmp_path / "hostile_reader.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOSTILE_FOLDER", str(tmp_path))
    with IsolatedReader(work="hostile_reader:read", timeout_s=2.0) as reader:
        yield reader


def read(reader: IsolatedReader, *poisons: str) -> tuple[dict[str, int], dict[str, str]]:
    """Size by name of what was read, and what became of what was lost."""
    files = [(f"{number}", poison.encode()) for number, poison in enumerate(poisons)]
    answers, lost = reader.read(files, {"option": 7})
    read = {
        name: int(size)
        for answer in answers
        for name, size in zip(answer.facts["names"], answer.columns["sizes"], strict=True)
    }
    assert all(answer.facts["option"] == 7 for answer in answers)
    return read, {str(loss.file): f"{loss.reason}: {loss.detail}" for loss in lost}


@pytest.mark.parametrize("poison", DEADLY)
def test_a_crash_costs_one_file(hostile: IsolatedReader, poison: str) -> None:
    taken, lost = read(hostile, "one", poison, "three")
    assert taken == {"0": 3, "2": 5}
    assert set(lost) == {"1"}
    assert lost["1"].startswith("parser_crashed: ")
    assert DEADLY[poison] in lost["1"]


def test_every_file_is_read_or_lost_however_many_kill(hostile: IsolatedReader) -> None:
    poisons = ["exit", "a", "b", "exit", "exit", "c", "raise", "d", "exit"]
    taken, lost = read(hostile, *poisons)
    assert set(taken) == {"1", "2", "5", "7"}
    assert set(lost) == {"0", "3", "4", "6", "8"}
    assert read(hostile) == ({}, {})


def test_a_file_is_lost_only_where_it_fails_alone_too(hostile: IsolatedReader) -> None:
    assert read(hostile, "one", "once", "three") == ({"0": 3, "1": 4, "2": 5}, {})


def test_a_child_that_died_between_calls_costs_nothing(hostile: IsolatedReader) -> None:
    read(hostile, "one")
    assert hostile.pid is not None
    psutil.Process(hostile.pid).kill()
    assert read(hostile, "one", "two") == ({"0": 3, "1": 3}, {})


def test_files_that_may_be_large_get_a_call_of_their_own(hostile: IsolatedReader) -> None:
    files = [(str(number), b"data") for number in range(6)]
    answers, lost = hostile.read(files, {"option": 1}, alone=[0, 3, 4])
    assert [(answer.start, answer.stop) for answer in answers] == [(0, 1), (1, 3), (3, 4), (4, 5), (5, 6)]
    assert lost == []


def test_what_a_killed_child_left_on_disk_goes_with_it(hostile: IsolatedReader) -> None:
    read(hostile, "one")
    assert hostile.pid is not None
    scratch = Path(psutil.Process(hostile.pid).environ()["TMPDIR"])
    (scratch / "left").write_text("behind")
    hostile.close()
    assert not scratch.exists()


@pytest.mark.parametrize("poison", ["stop", "sleep"])
def test_a_hang_costs_one_file_and_its_time(hostile: IsolatedReader, poison: str) -> None:
    assert read(hostile, "one") == ({"0": 3}, {})
    assert hostile.pid is not None
    hung = psutil.Process(hostile.pid)
    taken, lost = read(hostile, poison, "two")
    assert taken == {"1": 3}
    assert lost == {"0": "parser_timeout: the parser did not answer within 2 s"}
    assert not hung.is_running()


def test_one_child_reads_many_files_and_ends_with_the_reader(hostile: IsolatedReader) -> None:
    pids = set()
    for _ in range(5):
        read(hostile, "one", "two")
        pids.add(hostile.pid)
    (pid,) = pids
    assert pid is not None
    child = psutil.Process(pid)
    assert child.is_running()
    hostile.close()
    assert not child.is_running()


def test_a_child_that_does_not_start_is_told() -> None:
    with IsolatedReader(work="no_such_module:read") as reader, pytest.raises(PlaceError, match="does not start"):
        reader.read([("a", b"")], {})


def test_pieces_come_from_the_child_as_they_are(score: Score) -> None:
    tune = b"X:1\nT:Reel\nM:4/4\nL:1/4\nK:D\nDFAd|dAFD|\n"
    files = [("a.mid", write_midi(score)), ("b.mid", b""), ("c.abc", tune), ("d.mid", write_midi(score))]
    parsed = parse_untrusted(files, options=ParseOptions(tempo_without_mark_qpm=80.0), timeout_s=60.0)
    assert parsed.file_of_piece.tolist() == [0, 2, 3]
    assert [refusal[:2] for refusal in parsed.refusals] == [(1, "empty")]
    assert [piece.title for piece in parsed.batch] == ["Élégie", "Reel", "Élégie"]
    assert parsed.batch[0].same_music(in_midi_form(score))
    assert parsed.batch[1].notes.pitch.tolist() == [62, 66, 69, 74, 74, 69, 66, 62]
    assert np.array_equal(parsed.batch.note_starts, [0, 2, 10, 12])


def test_read_untrusted_gives_the_score_from_any_thread(score: Score) -> None:
    found: list[Score] = []
    threads = [threading.Thread(target=lambda: found.append(read_untrusted(write_midi(score)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one.same_music(in_midi_form(score)) and one.title == "Élégie" for one in found)


def test_read_untrusted_refuses_as_the_reader_does() -> None:
    with pytest.raises(DataError, match="empty: the file holds no bytes"):
        read_untrusted(b"")
