"""The page is whole by itself: it names nothing outside its folder, and shows every text as text."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutti.catalogue import listening, page
from tutti.catalogue.blocks import write_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, review
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.corpus.score import Notes, Score
from tutti.render.strokes import ROLL_HEIGHT, ROLL_WIDTH, roll_of
from tutti.storage import Folder

EVIL = """</h2><script>alert('{number}')</script><img src=x onerror=alert(1)> & "quoted" """
MODEL_FACTS = {"licences": {"<b>CC0-1.0</b>": 12}}


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Seen(HTMLParser):
    """Tags with their attributes, ids, and text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []
        self._open = [""]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append((self._open[-1], data))

    def handle_endtag(self, tag: str) -> None:
        while self._open.pop() != tag:
            pass

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def melody(*, notes: int = 16, low: int = 60) -> Score:
    columns: dict[str, Any] = {
        "onset_ticks": 12 * np.arange(notes),
        "duration_ticks": [12] * notes,
        "pitch": low + np.arange(notes) % 12,
        "program": np.arange(notes) % 2 * 40,
    }
    return Score.of(Notes.of(**columns), ticks_per_quarter=24, tempos=[(0, 120.0)])


def render(
    folder: Folder,
    *,
    formats: tuple[str, ...] = ("midi", "flac"),
    controls: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """A page of three takes, the second of which is rejected."""
    tree = {
        "name": "songs",
        "model": "m",
        "formats": formats,
        "retries": 0,
        "lines": [{"count": 3, "title": EVIL, "controls": controls or {"bars": 2}}],
    }
    plan = Plan(build(Order, tree), model="m", model_version="2", model_digest="d" * 32)
    block = plan.block(0)
    takes = [plan.take(slot, 0) for slot in block.slots]
    scores = [melody(), Score.of(Notes.none(), ticks_per_quarter=24), melody(low=64)]
    drafts = [
        Draft(take, score, tuple(review(score, request=take.request, refused_tokens=0, checks=plan.order.checks)))
        for take, score in zip(takes, scores, strict=True)
    ]
    finished = write_block(folder, block, drafts, plan=plan)
    shown = page.render(
        finished.rows.to_pylist(), folder=folder, files=finished.files, plan=plan, model_facts=MODEL_FACTS, **options
    )
    return shown.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(str(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def text(folder: Folder) -> str:
    return render(folder)


def test_nothing_is_loaded_from_elsewhere(folder: Folder, text: str) -> None:
    without_data = re.sub(r"data:[a-z]+/[a-z]+;base64,[A-Za-z0-9+/=]+", "data:", text)
    assert re.findall(r"(?:https?:)?//[\w.]+|url\(|@import|<link|<iframe", without_data) == []
    seen = Seen(text)
    addresses = [
        attributes[name]
        for _, attributes in seen.tags
        for name in ("src", "href", "action", "poster", "srcset")
        if name in attributes
    ]
    assert addresses
    beside = {address for address in addresses if not address.startswith(("data:", "#"))}
    assert beside - {"catalogue.csv", "takes.parquet"} <= set(folder.paths())
    (policy,) = (tag["content"] for tag in seen.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_texts_of_an_order_are_shown_as_text(text: str) -> None:
    assert "<script>alert" not in text
    assert "onerror=alert(1)>" not in text
    assert "<b>CC0" not in text
    seen = Seen(text)
    titles = [said for tag, said in seen.text if tag == "h2" and said.strip()]
    assert titles == [EVIL.format(number=number) for number in (1, 3, 2)]
    assert len(seen.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)


def test_every_take_has_its_card_and_the_accepted_come_first(text: str) -> None:
    verdicts = [card["data-verdict"] for card in Seen(text).all("article")]
    assert verdicts == ["accepted", "accepted", "rejected"]
    assert "1 of 3 takes stayed unfilled" in text


def test_sound_is_embedded_and_above_the_limit_linked(tmp_path: Path, text: str) -> None:
    sources = [audio["src"] for audio in Seen(text).all("audio")]
    assert len(sources) == 2
    assert all(source.startswith("data:audio/flac;base64,") for source in sources)
    folder = Folder(str(tmp_path))
    linked = [audio["src"] for audio in Seen(render(folder, max_embedded_bytes=1000)).all("audio")]
    assert [source.partition("/")[0] for source in linked] == ["files", "files"]
    assert set(linked) <= set(folder.paths())


def test_a_catalogue_without_sound_has_no_player(tmp_path: Path) -> None:
    assert Seen(render(Folder(str(tmp_path)), formats=("midi",))).all("audio") == []


def test_it_can_be_used_without_eyes_or_mouse(text: str) -> None:
    seen = Seen(text)
    ids = Counter(attributes["id"] for _, attributes in seen.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    assert all(card["aria-labelledby"] in ids for card in seen.all("article"))
    assert all("aria-label" in picture for picture in seen.all("svg") if picture.get("role") == "img")
    assert all("aria-label" in audio for audio in seen.all("audio"))
    fields = len(seen.all("select")) + len(seen.all("input"))
    labelled = [field for field in seen.all("input") if "aria-label" in field]
    assert len(seen.all("label")) == fields - len(labelled)
    assert all(
        "aria-label" in button or button.get("id") in ("export", "forget", "toggle") or "type" in button
        for button in seen.all("button")
    )
    assert {"lang": "en"} in seen.all("html")


def test_filters_offer_what_is_there(text: str) -> None:
    offered = {option["value"] for option in Seen(text).all("option")} - {"", "yes", "no", "major", "minor"}
    names = ("key", "tempo", "mood", "verdict", "failed")
    shown = {value for card in Seen(text).all("article") for name in names for value in [card[f"data-{name}"]] if value}
    assert offered == shown
    assert "notes" in offered


def test_the_asked_key_stands_on_the_card_and_the_found_one_in_its_details(folder: Folder) -> None:
    seen = Seen(render(folder, controls={"bars": 2, "key": "D minor"}))
    keys = {card["data-key"] for card in seen.all("article")}
    assert keys == {"D minor"}
    traits = [said for tag, said in seen.text if tag == "p" and " bpm · " in said]
    assert [line.split(" · ")[0] for line in traits] == ["D minor"] * 3
    details = [said for tag, said in seen.text if tag == "td"]
    assert "bars 2 · key D minor" in " ".join(details)
    assert any("as the notes' profile says" in said and "D minor" not in said for said in details)


def test_the_roll_draws_every_note_inside_its_frame() -> None:
    score = melody(notes=40)
    roll = roll_of(score)
    assert roll is not None
    strokes = [
        tuple(map(float, found))
        for stroke in roll.strokes
        for found in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", stroke.path)
    ]
    assert len(strokes) == len(score.notes)
    assert len(roll.strokes) == 2
    for x, y, width in strokes:
        assert 0 <= x < x + width <= ROLL_WIDTH + 1
        assert roll.stroke_width / 2 <= y <= ROLL_HEIGHT - roll.stroke_width / 2
    assert len({y for _, y, _ in strokes}) == 12


def test_higher_notes_are_drawn_higher() -> None:
    roll = roll_of(
        Score.of(Notes.of(onset_ticks=[0, 24], duration_ticks=[24, 24], pitch=[60, 72]), ticks_per_quarter=24)
    )
    assert roll is not None
    low, high = re.findall(r"M[\d.]+ ([\d.]+)h", roll.strokes[0].path)
    assert float(high) < float(low)


def test_no_notes_no_roll() -> None:
    assert roll_of(Score.of(Notes.none(), ticks_per_quarter=24)) is None


# In a browser

VISIT = """
<script>
(async () => {
  const blobs = [], told = document.createElement("pre");
  told.id = "visit";
  const say = (name, value) => { told.textContent += `${name}=${JSON.stringify(value)}\\n`; };
  URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
  const takes = [...document.querySelectorAll(".take")];
  const shown = () => takes.filter((take) => !take.hidden).length;
  const choose = (name, value) => {
    const field = document.getElementById("filters").elements[name];
    field.value = value;
    field.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const press = (key) => takes[0].dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  for (let wait = 0; wait < 100 && !takes[1].querySelector(".rating input"); wait++) {
    takes[1].scrollIntoView();
    await new Promise((done) => setTimeout(done, 50));
  }
  say("accepted", shown());
  say("drawn", document.querySelectorAll(".take .roll svg").length);
  choose("verdict", ""); say("all", shown());
  choose("failed", "notes"); say("failed", shown());
  choose("verdict", "accepted"); say("accepted_again", shown());
  choose("text", "no such title"); say("none", shown());
  document.getElementById("filters").reset();
  await new Promise((done) => setTimeout(done, 50));
  press("4"); press("l");
  takes[1].querySelectorAll(".rating input")[0].click();
  choose("rated", "yes"); say("rated", shown());
  const details = takes[0].querySelector(".checks");
  details.open = true;
  await new Promise((done) => setTimeout(done, 50));
  say("checks", details.querySelectorAll("tbody tr").length);
  document.getElementById("listener").value = "ear, one";
  document.getElementById("listener").dispatchEvent(new Event("change"));
  document.getElementById("export").click();
  say("csv", await blobs[0].text());
  document.body.append(told);
})();
</script>
"""


@pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: package chromium)")
def test_a_listener_filters_rates_and_exports_what_the_feedback_verb_takes(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.html").write_text(text.replace("</body>", VISIT + "</body>"))
    program = chromium()
    assert program is not None
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    lines = html.unescape(done.stdout.split('<pre id="visit">')[1].split("</pre>")[0]).splitlines()
    found = {name: json.loads(value) for name, _, value in (line.partition("=") for line in lines)}
    csv = found.pop("csv")
    drawn = found.pop("drawn")
    assert 1 <= drawn <= 2
    assert found == {
        "accepted": 2, "all": 3, "failed": 1, "accepted_again": 2, "none": 0, "rated": 2, "checks": found["checks"],
    }  # fmt: skip
    assert found["checks"] > 5
    (tmp_path / "events.csv").write_text(csv)
    table, data = listening.read_file(tmp_path / "events.csv")
    kept = listening.keep(table, data, name="songs", catalogue="1", root=Folder(str(tmp_path / "root")))
    assert kept.facts == {"events": 3, "listeners": 1}
    events = [(row["listener"], row["event"], row["value"]) for row in table.to_pylist()]
    assert events == [("ear, one", "rated", 0.5), ("ear, one", "liked", None), ("ear, one", "rated", -1.0)]
