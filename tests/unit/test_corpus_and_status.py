"""``tutti corpus`` and ``tutti status`` as they are typed, on datasets that the product's own code made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs import corpus, status
from jobs.cli import run
from jobs.status import age
from tests.music import tokens_dataset, works_table
from tutti import lineage
from tutti.lineage import Dataset
from tutti.progress import Progress, recorded
from tutti.storage import Folder
from tutti.tables import REFUSALS, to_parquet, to_table
from tutti.training.ledger import Activity, Ledger, Prices

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
REFUSED = [
    {"source_uri": "x.mid", "stage": "ingest", "reason": "empty", "detail": "the file holds no bytes"},
    {"source_uri": "y.mid", "stage": "ingest", "reason": "duplicate", "detail": "the same notes as z.mid"},
]


def works_dataset(root: Folder, *, works: int = 20, name: str = "walks") -> Dataset:
    """A finished corpus of walks, with two refusals."""
    table, inputs = works_table(works), {"works": works}
    folder = lineage.place(root, kind="works", name=name, inputs=inputs)
    files = [
        lineage.write_file(folder, "works-00000.parquet", to_parquet(table), rows=works),
        lineage.write_file(folder, "refusals.parquet", to_parquet(to_table(REFUSED, REFUSALS)), rows=len(REFUSED)),
    ]
    facts = {
        "works": works,
        "notes": sum(table["notes"].to_pylist()),
        "length_s": sum(table["length_s"].to_pylist()),
        "files": works + 2,
        "refusals": {"duplicate": 1, "empty": 1},
        "near_duplicates": {"groups": 0, "works": 0},
        "licences": {"CC0-1.0": works},
    }
    return lineage.publish(folder, kind="works", name=name, inputs=inputs, files=files, facts=facts)


def typed(command: object, *words: str) -> list[str]:
    done = CliRunner().invoke(command, list(words))  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def figure(lines: Sequence[str], name: str) -> str:
    (line,) = (line for line in lines if line.strip().startswith(f"{name} "))
    return line.strip().removeprefix(name).strip()


def test_a_corpus_is_shown_by_name_and_by_address(tmp_path: Path) -> None:
    made = works_dataset(Folder(str(tmp_path)))
    page = tmp_path / "pages" / "corpus" / "walks" / made.address / "index.html"
    for dataset in ("walks", made.folder.uri, made.folder.uri + "/"):
        page.unlink(missing_ok=True)
        lines = typed(corpus.command, "show", dataset, "--root", str(tmp_path))
        assert lines[-1] == f"page: {page}"
        assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert figure(lines, "corpus") == f"walks {made.address}"
    assert (
        figure(lines, "works") == f"20 · {made.facts['notes']:,} notes · {made.facts['length_s'] / 60:.0f}m20s of music"
    )
    assert figure(lines, "splits") == "train 14 · valid 4 · test 2"
    assert figure(lines, "refused") == "1 of 22 files"
    assert figure(lines, "duplicates") == "1"
    assert figure(lines, "empty") == "1 · x.mid: the file holds no bytes"
    assert lineage.load(made.folder).files == made.files


def test_the_page_goes_where_it_is_told_and_never_into_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = works_dataset(Folder(str(tmp_path)))
    out = tmp_path / "deep" / "walks.html"
    show = ["corpus", "show", "walks", "--root", str(tmp_path)]
    assert run([*show, "--out", str(out), "--dry-run"]) == 0
    assert not out.exists()
    assert str(out) in capsys.readouterr().out
    assert run([*show, "--out", str(out)]) == 0
    assert out.exists()
    assert not (tmp_path / "pages").exists()
    assert run([*show, "--out", str(made.folder.local_path / "page.html")]) == 2
    assert "which never changes" in capsys.readouterr().err


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works_dataset(Folder(str(tmp_path)))
    tokens = tokens_dataset(Folder(str(tmp_path / "tokens" / "walks" / "a")))
    mistakes = {
        "wlaks": "error: no finished works 'wlaks' below",
        f"{tmp_path}/works/walks/none": "error: no finished dataset at",
        tokens.folder.uri: f"error: {tokens.folder.uri} holds tokens, not works",
    }
    for dataset, said in mistakes.items():
        assert run(["corpus", "show", dataset, "--root", str(tmp_path)]) == 2
        line = capsys.readouterr().err
        assert line.startswith(said)
        assert line.count("\n") == 1


def test_corpora_are_listed(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    assert typed(corpus.command, "list", "--root", str(tmp_path)) == [f"0 finished corpora below {tmp_path}"]
    made = works_dataset(root)
    works_dataset(root, works=10, name="short")
    head, *rows, last = typed(corpus.command, "list", "--root", str(tmp_path))
    assert head.split() == list(corpus.HEAD)
    assert [row.split()[0] for row in rows] == ["short", "walks"]
    assert last == f"2 finished corpora below {tmp_path}"
    as_json = json.loads("\n".join(typed(corpus.command, "list", "--root", str(tmp_path), "--json")))
    assert as_json[1]["uri"] == made.folder.uri
    assert as_json[1]["facts"] == made.facts


def test_status_of_an_empty_root(tmp_path: Path) -> None:
    assert typed(status.command, "--root", str(tmp_path)) == [f"nothing yet below {tmp_path}"]
    assert not list(tmp_path.iterdir())


def test_status_tells_what_is_finished_what_runs_and_what_was_stopped(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    made = works_dataset(root)
    now = datetime.now(UTC)
    going = replace(
        Progress.begun("ingest", files=4000), done=1000, works=900, refusals={"empty": 90, "duplicate": 10},
        started=now - timedelta(seconds=60), updated=now, host="elsewhere",
    )  # fmt: skip
    going.write(root / "works" / "more" / "a")
    replace(going, updated=now - timedelta(hours=3)).write(root / "works" / "more" / "b")
    replace(going, failure="no space left").write(root / "works" / "more" / "c")
    (root / "runs" / "bach" / "d").write("checkpoints/step/state.bin", b"123")
    (root / "tokens" / "walks" / "e").write("manifest.json", b"{")
    lines = typed(status.command, "--root", str(tmp_path))
    text = "\n".join(lines)
    at = lines.index
    (running,) = (line for line in lines if line.startswith("works/more/a · ingest running since 1m ago · about "))
    assert lines[at(running) + 1] == "  1,000 of 4,000 files (25 %) · 900 works"
    assert lines[at(running) + 2] == "  10 duplicates · 90 refused: 90 empty"
    assert "works/more/b · ingest stopped 3h ago (killed?); the same command goes on" in text
    assert "works/more/c · ingest stopped 0s ago (no space left)" in text
    assert "runs/bach/d · unfinished · 3 B" in lines
    (damaged,) = (line for line in lines if line.startswith("tokens/walks/e · damaged"))
    assert "is not a manifest" in lines[at(damaged) + 1]
    (finished,) = (line for line in lines if line.startswith(f"works/walks/{made.address} · finished "))
    assert lines[at(finished) + 1].startswith(f"  20 works · {made.facts['notes']:,} notes · ")
    assert lines[at(finished) + 3] == "  1 duplicate · 1 refused: 1 empty"
    assert lines[-1] == f"1 finished, 1 running, 2 stopped, 1 unfinished, 1 damaged below {tmp_path}"


def test_status_as_json_holds_the_same(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    made = works_dataset(root)
    progress = replace(Progress.begun("ingest", files=40), done=10)
    progress.write(root / "works" / "more" / "a")
    told = json.loads("\n".join(typed(status.command, "--root", str(tmp_path), "--json")))
    assert (told["root"], told["models"], told["models_fault"]) == (str(tmp_path), [], "")
    by_address = {each["address"]: each for each in told["datasets"]}
    assert by_address[made.address]["facts"] == made.facts
    assert by_address[made.address]["state"] == "finished"
    running = by_address["a"]
    assert (running["state"], running["progress"]["done"], running["progress"]["files"]) == ("running", 10, 40)
    assert running["progress"]["left_s"] >= 0


def test_status_of_every_kind_of_dataset_and_of_models(tmp_path: Path) -> None:
    from tutti.registry.backend import Backend

    root = Folder(str(tmp_path))
    tokens_dataset(root / "tokens" / "walks" / "a")
    facts = {
        "runs": {
            "training": {"steps": 1500},
            "parameters": 12_345,
            "measures": {"valid_nll_nats_per_token": 0.51234},
        },
        "catalogues": {"accepted": 9, "ordered": 10, "rejected": 3, "unfilled": 1, "music_s": 600},
        "served": {},
    }
    for kind, held in facts.items():
        lineage.publish(root / kind / "n" / "a", kind=kind, name="n", inputs={}, files=[], facts=held)
    Backend.at(root).prepare()
    text = "\n".join(typed(status.command, "--root", str(tmp_path)))
    assert "  1,500 steps · 12,345 parameters · valid NLL 0.5123" in text
    assert "  9 of 10 takes · 10m00s of music · 3 rejected" in text
    assert "served/n/a · finished" in text
    assert "models cannot" not in text
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"no database at all" * 100)
    text = "\n".join(typed(status.command, "--root", str(tmp_path)))
    assert "models cannot be listed: cannot use MLflow's SQLite file" in text


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(seconds=-5), "0s ago"),
        (timedelta(seconds=59), "59s ago"),
        (timedelta(seconds=60), "1m ago"),
        (timedelta(minutes=59, seconds=59), "59m ago"),
        (timedelta(hours=23), "23h ago"),
        (timedelta(days=400), "400d ago"),
    ],
)
def test_age_is_in_one_unit(passed: timedelta, said: str) -> None:
    assert age(NOW - passed, now=NOW) == said


def ledger_of_a_failure() -> Ledger:
    """Four GPU workers for an hour, of which a failure took six minutes."""
    saved = Ledger().charged(Activity.TRAIN, kind="gpu", workers=4, seconds=3240)
    return saved.charged(Activity.TRAIN, kind="gpu", workers=4, seconds=360).lost_since(saved).restarted()


def test_a_training_is_told_with_its_steps_its_speed_and_its_cost(tmp_path: Path) -> None:
    run = Folder(str(tmp_path)) / "runs" / "bach" / "a"
    with recorded(run, verb="train", files=240, unit="steps") as record:
        record.update(done=60, figures={"tokens_per_s": 12_345.6})
        record.fail("node lost")
        prices = Prices(currency="CHF", worker_hour={"gpu": 2.5})
        ledger_of_a_failure().write(run, prices=prices, tokens=20_000_000)
        head, steps, _, cost, lost, last = typed(status.command, "--root", str(tmp_path))
        (told,) = json.loads("\n".join(typed(status.command, "--root", str(tmp_path), "--json")))["datasets"]
    assert head.startswith("runs/bach/a · train stopped 0s ago (node lost); the same command goes on")
    assert steps == "  60 of 240 steps (25 %) · 12,346 tokens/s"
    assert cost == "  4 gpu worker-hours · 10.00 CHF · 2,000,000 tokens per CHF"
    assert lost == "  1 restart · 24m00s of worker time lost to failures · 1.00 CHF lost"
    assert last == f"1 stopped below {tmp_path}"
    assert told["cost"]["worker_hours"] == {"gpu": 4.0}
    assert told["cost"]["lost_worker_seconds"] == 1440
    assert (told["cost"]["price"], told["cost"]["currency"], told["cost"]["tokens_per_unit"]) == (10.0, "CHF", 2e6)


def test_a_training_that_costs_nothing_tells_its_time_alone_and_damage_is_told(tmp_path: Path) -> None:
    runs = Folder(str(tmp_path)) / "runs" / "bach"
    Ledger().charged(Activity.TRAIN, kind="cpu", workers=2, seconds=90).write(runs / "a", prices=Prices(), tokens=1)
    (runs / "b").write("ledger.json", b"{")
    _, cost, _, fault, _ = typed(status.command, "--root", str(tmp_path))
    assert cost == "  0.05 cpu worker-hours"
    assert fault == f"  {(runs / 'b').uri}/ledger.json is not a ledger (JSONDecodeError)"


def test_jobs_that_cannot_be_listed_hide_nothing_else(tmp_path: Path, free_port: int) -> None:
    works_dataset(Folder(str(tmp_path)))
    lines = typed(status.command, "--root", str(tmp_path), "--address", f"http://127.0.0.1:{free_port}")
    assert lines[-2].startswith(f"jobs cannot be listed: no job server answers at http://127.0.0.1:{free_port} within")
    assert lines[-1] == f"1 finished below {tmp_path}"
