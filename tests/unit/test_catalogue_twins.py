"""Of takes that copy one another the first stays, whatever is there already and in whatever order it came."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutti import lineage, tables
from tutti.catalogue import publish
from tutti.catalogue.blocks import score_of, write_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, Finding, from_json, passes
from tutti.catalogue.settling import Settlement, settle
from tutti.catalogue.takes import ACCEPTED, REJECTED, Block, Plan, Take, fill
from tutti.catalogue.twins import Attempts, likenesses
from tutti.catalogue.twins import settle as keep
from tutti.config import build
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import IntegrityError
from tutti.metrics.originality import LIMITS, WorkIndex, closest
from tutti.storage import Folder

BARS = 8


def drawn(seed: int) -> Score:
    """A tune that wanders by lot, so that no two have anything in common."""
    random = np.random.default_rng(seed)
    onset = np.unique(random.choice(np.arange(0, 96 * BARS, 6), size=50, replace=False))
    return Score.of(
        Notes.of(onset_ticks=onset, duration_ticks=np.full(50, 6), pitch=60 + random.integers(0, 24, 50)),
        ticks_per_quarter=24,
    )


PIECES = [drawn(seed) for seed in range(8)]


def attempts_of(slots: list[list[int]], *, free: bool = True) -> Attempts:
    """Slots by the pieces that their attempts are."""
    music = ScoreBatch.of([PIECES[piece] for slot in slots for piece in slot])
    places = np.repeat(np.arange(len(slots)), [len(slot) for slot in slots])
    return Attempts(music, places, np.full(len(places), free))


def first_that_copies_nothing(slots: list[list[int]]) -> list[int | None]:
    """What the rule says, one slot after the other."""
    kept: list[int | None] = []
    for slot in slots:
        kept.append(next((piece for piece in slot if piece not in kept), None))
    return kept


def test_pieces_of_this_test_copy_none_but_themselves() -> None:
    for piece, score in enumerate(PIECES):
        others = [other for other in range(len(PIECES)) if other != piece]
        index = WorkIndex.of(
            ScoreBatch.of([PIECES[other] for other in others]), work_ids=[str(other) for other in others]
        )
        near = closest(index.originality(ScoreBatch.of([score]))[0], limits=LIMITS)
        assert near is None or not near.is_copy
        itself = WorkIndex.of(ScoreBatch.of([score]), work_ids=["x"])
        near = closest(itself.originality(ScoreBatch.of([score]))[0], limits=LIMITS)
        assert near is not None
        assert near.is_copy


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=7))
@settings(max_examples=25)
def test_each_slot_keeps_the_first_attempt_that_copies_nothing_kept_before_it(slots: list[list[int]]) -> None:
    attempts = attempts_of(slots)
    settled = keep(attempts, limits=LIMITS)
    pieces = [piece for slot in slots for piece in slot]
    kept: dict[int, int] = {int(attempts.slot[row]): pieces[row] for row in settled.kept}
    wanted = first_that_copies_nothing(slots)
    assert [kept.get(slot) for slot in range(len(slots))] == wanted
    assert settled.wanting == tuple(slot for slot, piece in enumerate(wanted) if piece is None)
    for row, likeness in settled.copies.items():
        assert likeness.row in settled.kept
        assert attempts.slot[likeness.row] < attempts.slot[row]
        assert pieces[likeness.row] == pieces[row]


def test_a_take_given_up_for_one_that_falls_away_itself_comes_back() -> None:
    # What slot 2 falls back to is what slot 3 copies: seen at once, slot 4's first attempt would be given up for it.
    slots = [[0], [0, 1], [1, 2], [2, 3], [2, 4], [3, 5]]
    settled = keep(attempts_of(slots), limits=LIMITS)
    pieces = [piece for slot in slots for piece in slot]
    assert [pieces[row] for row in settled.kept] == first_that_copies_nothing(slots)


def test_a_take_is_held_against_all_before_it_and_none_after() -> None:
    attempts = attempts_of([[piece] for piece in (7, 0, 1, 7, 2, 3, 0, 7, 4)])
    rows = list(range(9))
    found = likenesses(attempts, kept=rows, asked=rows, limits=LIMITS)
    copies = {row: each.row for row, each in found.items() if each and each.near.is_copy}
    assert copies == {3: 0, 6: 1, 7: 0}
    assert found[0] is None


def transposed(score: Score, semitones: int) -> Score:
    notes = score.notes
    return Score.of(
        Notes.of(
            onset_ticks=notes.onset_ticks,
            duration_ticks=notes.duration_ticks,
            pitch=notes.pitch + np.uint8(semitones),
            program=24,
        ),
        ticks_per_quarter=score.ticks_per_quarter,
        tempos=[(0, 150.0)],
    )


def test_from_files_only_the_same_notes_count() -> None:
    music = ScoreBatch.of([PIECES[0], transposed(PIECES[0], 3), PIECES[0]])
    slots = np.arange(3)
    free = keep(Attempts(music, slots, np.ones(3, bool)), limits=LIMITS)
    assert list(free.kept) == [0]
    from_files = keep(Attempts(music, slots, np.zeros(3, bool)), limits=LIMITS)
    assert list(from_files.kept) == [0, 1]
    assert from_files.copies[2].row == 0


# --- On storage ------------------------------------------------------------------------------------------------------

ATTEMPTS = [[0], [1, 0, 2], [0, 1, 3], [4], [3, 3, 3]]
"""Pieces of each slot's attempts; the third one's end as a copy of one that came by a second try."""


def plan_of(*, duplicates: str = "replaced", formats: tuple[str, ...] = ("midi",)) -> Plan:
    tree = {
        "name": "o",
        "model": "m",
        "formats": formats,
        "retries": 2,
        "takes_per_block": 2,
        "checks": {"duplicates": duplicates},
        "lines": [{"count": len(ATTEMPTS), "controls": {"bars": BARS}}],
    }
    return Plan(build(Order, tree), model="m", model_version="1", model_digest="d" * 32)


def make(folder: Folder, block: Block, plan: Plan) -> None:
    under_way: list[Take] = []

    def ended() -> list[tuple[Take, Draft]]:
        take = under_way.pop(0)
        pieces = ATTEMPTS[take.slot.number]
        score = PIECES[pieces[min(take.attempt, len(pieces) - 1)]]
        return [(take, Draft(take, score, (Finding("notes", len(score.notes), 8, "", "passed", ""),)))]

    drafts = fill(block, plan=plan, begin=under_way.extend, ended=ended, passes=lambda draft: passes(draft.findings))
    write_block(folder, block, drafts, plan=plan)


def made(folder: Folder, plan: Plan, *, order: Callable[[list[Block]], list[Block]] = list) -> list[int]:
    """Blocks until nothing is wanting; the number of takes in each round."""
    rounds = []
    waiting: list[Block] = plan.blocks()
    while waiting:
        rounds.append(len(waiting))
        for block in order(waiting):
            make(folder, block, plan)
        waiting = list(settle(folder, plan=plan).wanting)
    return rounds


def test_a_duplicate_is_replaced_by_the_next_seed_and_stays_among_the_rejected(tmp_path: str) -> None:
    folder, plan = Folder(str(tmp_path)), plan_of(formats=("midi", "stems"))
    assert made(folder, plan) == [3, 1, 1, 1, 1]
    dataset = publish.publish(folder, plan=plan, model_facts={})
    rows = tables.from_parquet(dataset.read(publish.TABLE), tables.TAKES).to_pylist()
    verdicts = [(row["number"], row["attempt"], row["verdict"]) for row in rows]
    assert verdicts == [
        (0, 0, ACCEPTED), (1, 0, ACCEPTED), (2, 0, REJECTED), (2, 1, REJECTED), (2, 2, ACCEPTED), (3, 0, ACCEPTED),
        (4, 0, REJECTED), (4, 1, REJECTED), (4, 2, REJECTED),
    ]  # fmt: skip
    by_place = {(row["number"], row["attempt"]): row for row in rows}
    for copy, source in (((2, 0), (0, 0)), ((2, 1), (1, 0)), ((4, 2), (2, 2))):
        finding = from_json(by_place[copy]["checks"])[-1]
        assert (finding.check, finding.verdict) == ("duplicate", "failed")
        assert finding.detail.startswith(f"duplicate of {by_place[source]['take_id']}: ")
        assert finding.figure >= finding.limit
        assert by_place[copy]["midi_path"].startswith("rejected/")
    for row in rows:
        assert dataset.read(row["midi_path"])[:4] == b"MThd"
        accepted = row["verdict"] == ACCEPTED
        kinds = {path.split("/")[0] for path in dataset.paths() if row["take_id"][:8] in path}
        assert kinds == ({"files", "stems", "provenance"} if accepted else {"rejected", "provenance"})
        told = json.loads(dataset.read(f"provenance/{row['midi_path'].split('/')[1][:-4]}.json"))
        assert (told["verdict"], set(told["files"]) <= set(dataset.paths())) == (row["verdict"], True)
        assert score_of(row).notes.pitch.tolist()
    kept = from_json(by_place[2, 2]["checks"])[-1]
    assert (kept.check, kept.verdict) == ("duplicate", "passed")
    assert dataset.facts["failed_checks"] == {"duplicate": 5}
    assert dataset.facts["unfilled"] == 1
    assert set(folder.paths()) == {entry.path for entry in dataset.files} | {lineage.MANIFEST}


def test_killed_between_rounds_or_in_one_it_comes_to_the_same(tmp_path: str) -> None:
    plan = plan_of()
    tables_made = []
    for number in (0, 3):
        folder = Folder(f"{tmp_path}/{number}")
        for block in plan.blocks():
            make(folder, block, plan)
        # Of the rounds to come some blocks are there already, some of them only of a round after one that is lost.
        for place in [plan.again(2, 1), plan.again(4, 1), plan.again(4, 2)][:number]:
            make(folder, place, plan)
        made(folder, plan, order=lambda blocks: blocks[::-1])
        tables_made.append(publish.publish(folder, plan=plan, model_facts={}).read(publish.TABLE))
    assert len(set(tables_made)) == 1


def test_duplicates_may_be_allowed(tmp_path: str) -> None:
    folder, plan = Folder(str(tmp_path)), plan_of(duplicates="allowed")
    assert made(folder, plan) == [3]
    assert settle(folder, plan=plan) == Settlement()
    assert publish.publish(folder, plan=plan, model_facts={}).facts["accepted"] == len(ATTEMPTS)


def test_what_is_wanting_is_not_published(tmp_path: str) -> None:
    folder, plan = Folder(str(tmp_path)), plan_of()
    for block in plan.blocks():
        make(folder, block, plan)
    with pytest.raises(IntegrityError, match=r"1 duplicates in .* were not tried again"):
        publish.publish(folder, plan=plan, model_facts={})
    assert lineage.find(folder) is None
