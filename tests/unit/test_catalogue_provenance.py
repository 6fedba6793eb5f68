"""A take's provenance holds all that decides its bytes, and nothing that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.reproduce import find
from tests.music import walk
from tutti.catalogue import provenance
from tutti.catalogue.blocks import MadeTake, make_take
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, review
from tutti.catalogue.takes import Plan, Take
from tutti.config import build
from tutti.corpus.score import Score
from tutti.errors import IntegrityError, MissingError
from tutti.generation.restoring import Ends, works_of
from tutti.storage import Folder

ENGINE = {"device": "cpu", "precision": "float32"}


def planned(start: dict[str, Any] | None = None, material: Score | None = None, **order: Any) -> Plan:
    controls = {} if start is None or material is None else {"start": {**start, "works": works_of(material)}}
    lines = [{"count": 1, "controls": {"bars": 9}}, {"count": 2, "title": "No. {number}", "controls": controls}]
    tree = {"name": "o", "model": "m", "formats": ["midi"], "lines": lines, **order}
    files = {} if material is None else {works_of(material): material}
    return Plan(build(Order, tree), model="m", model_version="4", model_digest="d" * 32, files=files)


def made_by(plan: Plan) -> tuple[Take, MadeTake]:
    take = plan.take(plan.slot(2), 1)
    score = walk(3, bars=4)
    findings = review(score, request=take.request, refused_tokens=0, checks=plan.order.checks)
    return take, make_take(Draft(take, score, tuple(findings)), plan=plan, engine=ENGINE)


def between() -> Ends:
    return Ends.between(walk(1, bars=2), walk(2, bars=3))


@pytest.mark.parametrize(
    ("start", "material"),
    [(None, None), ({"kind": "continue"}, walk(1, bars=2)), ({"kind": "interpolate", "weight": 0.5}, between())],
)
def test_the_take_and_all_it_starts_from_are_read_back(start: dict[str, Any] | None, material: Score | None) -> None:
    plan = planned(start, material)
    take, made = made_by(plan)
    told = provenance.from_bytes(provenance.to_bytes(made.provenance), origin="here")
    read_plan, read_take = provenance.plan_and_take(told)
    assert (read_take.take_id, read_take.attempt) == (take.take_id, 1)
    assert read_take.request.digest() == take.request.digest()
    assert (read_take.slot.line, read_take.slot.number, read_take.slot.title) == (1, 1, "No. 2")
    if material is not None:
        read = read_plan.material(read_take.request)
        assert read is not None
        assert works_of(read) == works_of(material)
    draft = provenance.draft_of(told, read_take, walk(3, bars=4))
    assert make_take(draft, plan=read_plan, engine=ENGINE).files == made.files


def test_how_much_is_made_at_once_and_its_price_are_not_in_it() -> None:
    plain, other = (made_by(planned(**how))[1] for how in ({}, {"max_batch": 3, "prices": {"core_hour": 1}}))
    assert plain.files == other.files
    assert made_by(planned(seed=5))[1].files != plain.files


def test_every_file_is_named_with_its_hash() -> None:
    _, made = made_by(planned())
    *files, last = made.files
    assert last.startswith("provenance/")
    assert list(made.provenance["files"]) == files
    assert made.provenance["made_by"]["precision"] == "float32"
    assert made.provenance["sound"] is None, "no sound was asked"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "is not a take's provenance .format 99"),
        ({"seed": 5, "request": {"seed": 5}}, "are those of take"),
        ({"model": {"name": "m", "version": "4", "digest": "e" * 32}}, "are those of take"),
        ({"order": {"name": "o"}}, "cannot be read"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, Any], says: str) -> None:
    told = {**made_by(planned())[1].provenance, **change}
    with pytest.raises(IntegrityError, match=says):
        provenance.plan_and_take(provenance.from_bytes(json.dumps(told).encode(), origin="here"))


def test_another_piece_than_was_recorded_is_refused() -> None:
    told = made_by(planned({"kind": "continue"}, walk(1, bars=2)))[1].provenance
    told["starts_from"][0]["pitch"][0] += 1
    with pytest.raises(IntegrityError, match="starts from other music"):
        provenance.plan_and_take(told)


def test_what_changed_is_told_by_name() -> None:
    then = {"made_by": {"packages": {"numpy": "1", "torch": "2"}, "processor": "A"}}
    now = {"made_by": {"packages": {"numpy": "2", "torch": "2"}, "processor": "A"}}
    assert list(provenance.differences(then, now)) == ["made_by.packages.numpy: 1, now 2"]


def test_a_take_is_found_by_any_of_its_files(tmp_path: Path) -> None:
    _, made = made_by(planned())
    for path, data in made.files.items():
        Folder(str(tmp_path)).write(path, data)
    for path in made.files:
        told, origin = find(str(tmp_path / path), root=Folder(str(tmp_path / "results")))
        assert told == made.provenance
        assert origin == str(tmp_path / list(made.files)[-1])
    with pytest.raises(MissingError, match="no provenance of"):
        find(str(tmp_path / "files" / "other.mid"), root=Folder(str(tmp_path)))
    with pytest.raises(MissingError, match="no take 01234567 below"):
        find("01234567", root=Folder(str(tmp_path)))
