"""Orders whose lines start from files: what the file holds is the take's identity, what it is called is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.catalogue import check_requests, read_order, with_files
from tests.music import walk
from tests.serving import save_untrained
from tutti.catalogue.on_ray import draft_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import passes
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.corpus.midi import write_midi
from tutti.errors import MissingError, RecipeError
from tutti.features.vocabulary import EVENTS
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.models.decoder import DECODER, Decoder

ORDER = """
name: tunes
model: m
checks: {min_notes: 1, max_silence_s: 60, max_silence_share: 1, max_stuck_share: 1, pitch_low: 0, pitch_high: 127,
  max_held_bars: 999, max_overhang_bars: 999, max_opening_s: 60, max_repetition: 1}
lines:
  - {count: 2, file: tune.mid, controls: {start: {kind: accompany, drafts: 1}}}
  - {count: 1, controls: {bars: 1}}
"""


def engine() -> Engine:
    torch.manual_seed(2)
    network = Decoder(DECODER.configure("nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 256})).eval()
    return Engine(network, digest="d" * 32, collections=(), facts={"data": {"programs": [0]}}, context_tokens=160)


def planned(folder: Path, *, name: str = "tune.mid", seed: int = 1) -> Plan:
    (folder / name).write_bytes(write_midi(walk(seed, bars=2)))
    (folder / "order.yaml").write_text(ORDER.replace("tune.mid", name))
    order, files = with_files(read_order(folder / "order.yaml"), beside=folder)
    return Plan(order, model="m", model_version="1", model_digest="d" * 32, files=files)


def test_takes_of_a_line_start_from_its_file(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    desk = Desk(engine())
    (block,) = plan.blocks()
    drafts = draft_block(block, plan=plan, desk=desk)
    desk.close()
    tune = walk(1, bars=2).notes
    melody = {
        (int(onset), int(pitch)) for onset, pitch in zip(tune.onset_ticks, tune.pitch, strict=True) if pitch >= 60
    }
    of_file = [draft for draft in drafts if draft.take.slot.line == 0]
    assert len(of_file) >= 2
    for draft in of_file:
        score = draft.score.with_resolution(24)
        assert melody <= set(zip(score.notes.onset_ticks.tolist(), score.notes.pitch.tolist(), strict=True))
        assert {finding.check for finding in draft.findings}.isdisjoint({"length"})
    assert any(passes(draft.findings) for draft in of_file)


def test_the_music_is_the_identity_and_its_name_is_not(tmp_path: Path) -> None:
    def identities(plan: Plan) -> list[str]:
        return [plan.take(slot, 0).take_id for block in plan.blocks() for slot in block.slots]

    one = planned(tmp_path)
    assert identities(planned(tmp_path, name="other.mid")) == identities(one)
    assert planned(tmp_path, name="other.mid").order.document() == one.order.document()
    other = planned(tmp_path, seed=9)
    same = [left == right for left, right in zip(identities(other), identities(one), strict=True)]
    assert same == [False, False, True], "a line without a file does not know of it"
    assert "file" not in one.order.document()["lines"][0]
    assert build(Order, one.order.document()).document() == one.order.document()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"count": 1, "file": "a.mid"}, "says in controls.start what becomes of it"),
        ({"count": 1, "controls": {"start": {"kind": "vary"}}}, "controls.start wants to vary a file: name it as file"),
        ({"count": 1, "file": "a.mid", "controls": {"start": {"kind": "infill"}}}, "infill needs bars"),
    ],
)
def test_lines_that_mean_nothing_are_refused(line: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        build(Order, {"name": "o", "model": "m", "lines": [line]})


def test_files_are_held_against_the_model_before_anything_runs(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    save_untrained(bundle)
    plan = planned(tmp_path)
    check_requests(plan, bundle=bundle)
    (tmp_path / "order.yaml").write_text(ORDER.replace("drafts: 1}", "drafts: 1}, bars: 3"))
    order, files = with_files(read_order(tmp_path / "order.yaml"), beside=tmp_path)
    wrong = Plan(order, model="m", model_version="1", model_digest="d" * 32, files=files)
    with pytest.raises(RecipeError, match="accompany keeps the file's bars"):
        check_requests(wrong, bundle=bundle)
    (tmp_path / "tune.mid").unlink()
    with pytest.raises(MissingError, match="is not a file"):
        with_files(order, beside=tmp_path)
