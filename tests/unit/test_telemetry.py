"""Progress: plain lines where nobody watches, a bar with ETA on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time

from tutti.telemetry import Plain, Silent, reporter

SCRIPT = """
import time
from tutti.telemetry import reporter
says = reporter()
says.line("[red]stage[/red] 1 of 2")
with says.task("train", total=4, unit="steps") as task:
    for step in range(1, 5):
        time.sleep(0.3)
        task.update(step, note=f"loss {step}.5")
says.line("done")
"""


def test_plain_lines_tell_count_rest_and_figures() -> None:
    stream = io.StringIO()
    says = Plain(stream, every_s=0)
    says.line("stage 1")
    with says.task("train", total=4, unit="steps") as task:
        time.sleep(0.05)
        task.update(1, note="loss 2.5")
        task.update(4, note="loss 2.0")
        task.update(5, total=8)
    first, second, third, fourth = stream.getvalue().splitlines()
    assert first == "stage 1"
    assert re.fullmatch(r"  train: 1/4 steps · 0\.[0-9]s left · loss 2\.5", second)
    assert third == "  train: 4/4 steps · loss 2.0"
    assert fourth.startswith("  train: 5/8 steps · ")


def test_plain_lines_without_a_total_promise_no_end() -> None:
    stream = io.StringIO()
    with Plain(stream, every_s=0).task("read", total=None, unit="files") as task:
        task.update(7)
    assert stream.getvalue() == "  read: 7 files\n"


def test_plain_lines_keep_their_pace() -> None:
    stream = io.StringIO()
    with Plain(stream, every_s=60).task("read", total=100, unit="files") as task:
        for done in range(100):
            task.update(done)
    assert stream.getvalue() == ""


def test_silence() -> None:
    says = Silent()
    says.line("x")
    with says.task("read", total=1, unit="files") as task:
        task.update(1, total=2, note="x")


def test_where_nobody_watches_there_are_lines_on_stderr_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.stderr == "[red]stage[/red] 1 of 2\ndone\n"
    assert isinstance(reporter(), Plain)


def test_on_a_terminal_a_bar_moves() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=slave, stdout=subprocess.DEVNULL, env=environment)
    os.close(slave)
    chunks = []
    try:
        while chunk := os.read(master, 4096):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other end of a terminal closed
        pass
    finally:
        os.close(master)
    assert child.wait(timeout=60) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())
    assert "[red]stage[/red] 1 of 2" in shown
    assert re.search(r"train .*[1-4]/4 steps .*0:00:0\d.*loss \d\.5", shown)
    assert shown.rstrip().endswith("done")
