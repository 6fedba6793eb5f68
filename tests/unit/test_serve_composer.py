"""Requests that step together, without Ray around them."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.composer import Composer
from serve.composition import Accepted, Composition, Job, Told
from serve.settings import ServeSettings
from tests.music import walk
from tests.serving import save_untrained
from tutti.errors import RecipeError
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.generation.piece import BarMade, Event, NoteMade, PieceMade
from tutti.generation.request import Request
from tutti.registry.versions import Registry
from tutti.storage import Folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    registry = Registry.embedded(Folder(str(folder / "results")))
    for seed in (1, 2, 3):
        save_untrained(folder / str(seed), seed=seed)
        registry.register(folder / str(seed), name="sketch")
    return folder


@pytest.fixture(scope="module")
def composer(root: Path) -> Iterator[Composer]:
    settings = ServeSettings(model="sketch", root=str(root / "results"), models_per_replica=2, max_batch=4)
    composer = Composer(settings, "sketch/1")
    yield composer
    composer.check_health()


@pytest.fixture(scope="module")
def engine(root: Path) -> Engine:
    return Engine.load(root / "1")


def job(seed: int, **controls: object) -> Job:
    request = Request.model_validate({"bars": 1, "tempo": 120, "meter": "4/4", "seed": seed, **controls})
    return Job(request, None, "sketch/1")


def composed(composer: Composer, *jobs: Job) -> list[Composition | BaseException]:
    async def all_of_them() -> list[Composition | BaseException]:
        return await asyncio.gather(*(composer.compose(job) for job in jobs), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_requests_that_step_together_get_what_each_would_get_alone(composer: Composer, engine: Engine) -> None:
    jobs = [job(seed, bars=2) for seed in range(6)]
    together = composed(composer, *jobs)
    for one, asked in zip(together, jobs, strict=True):
        assert isinstance(one, Composition)
        assert one.score.same_music(engine.generate([asked.request])[0].score)
        assert one.waited_s >= 0
        assert one.stepped_s > 0
    assert max(one.batch for one in together if isinstance(one, Composition)) == 4


def test_one_that_cannot_be_composed_does_not_cost_the_others(composer: Composer) -> None:
    first, refused, last = composed(composer, job(1), job(2, collection="folk"), job(3))
    assert isinstance(refused, RecipeError)
    assert isinstance(first, Composition)
    assert isinstance(last, Composition)


def test_one_that_comes_later_joins_those_that_step(composer: Composer) -> None:
    async def ask() -> tuple[bool, Composition]:
        long = asyncio.create_task(composer.compose(job(1, bars=12)))
        await asyncio.sleep(0.05)
        short = await composer.compose(job(2))
        still = not long.done()
        await long
        return still, short

    still, short = asyncio.run(ask())
    assert still, "the short one waited for the long one"
    assert short.batch == 2


def test_giving_one_up_ends_it_alone(composer: Composer, engine: Engine) -> None:
    async def ask() -> Composition:
        given_up = asyncio.create_task(composer.compose(job(1, bars=200)))
        other = asyncio.create_task(composer.compose(job(3, bars=3)))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        return await other

    whole = asyncio.run(ask())
    assert whole.score.same_music(engine.generate([job(3, bars=3).request])[0].score)
    after = composed(composer, job(4))[0]
    assert isinstance(after, Composition)
    assert after.batch == 1, "what was given up still steps"


def test_material_is_continued(composer: Composer) -> None:
    given = walk(5, bars=2)
    (made,) = composed(composer, Job(job(1).request, given, "sketch/1"))
    assert isinstance(made, Composition)
    assert len(made.score.notes) > len(given.notes)


def test_a_bug_in_a_step_is_told_to_all_and_the_desk_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(engine)

    def ask(seed: int) -> Event | Exception:
        told: queue.Queue[Event | Exception] = queue.Queue()
        desk.submit([job(seed).request], deliver=told.put)
        return told.get(timeout=60)

    with monkeypatch.context() as patch:
        patch.setattr("tutti.generation.session.choose", lambda *_, **__: 1 / 0)
        assert isinstance(ask(1), ZeroDivisionError)
    assert isinstance(ask(2), PieceMade)


def test_of_requests_that_come_together_one_that_is_refused_takes_none_in(engine: Engine) -> None:
    desk = Desk(engine)
    told: queue.Queue[Event | Exception] = queue.Queue()
    with pytest.raises(RecipeError, match="folk"):
        desk.submit([job(1).request, job(2, collection="folk").request], deliver=told.put)
    desk.submit([job(3).request], deliver=told.put)
    made = told.get(timeout=60)
    assert isinstance(made, PieceMade)
    assert (made.piece.request.seed, made.beside) == (3, 1)
    assert told.empty()


def streamed(composer: Composer, asked: Job, *, most: int | None = None) -> list[Told]:
    """What is told of a job, or the first ``most`` of it."""

    async def listen() -> list[Told]:
        found: list[Told] = []
        async for message in composer.stream(asked):
            found += message
            if most is not None and len(found) >= most:
                break
        return found

    return asyncio.run(listen())


def test_notes_are_told_before_the_piece_which_is_the_same(composer: Composer) -> None:
    told = streamed(composer, job(5, bars=3))
    (alone,) = composed(composer, job(5, bars=3))
    first, last = told[0], told[-1]
    assert first == Accepted(whole=False)
    assert isinstance(last, Composition)
    assert isinstance(alone, Composition)
    assert last.score.same_music(alone.score)
    assert [each.bar for each in told if isinstance(each, BarMade)] == [0, 1, 2]
    onsets = [each.onset_ticks for each in told if isinstance(each, NoteMade)]
    assert sorted(onsets) == sorted(last.score.notes.onset_ticks.tolist())
    assert any(isinstance(each, NoteMade) for each in told[: told.index(BarMade(number=_number(told), bar=0))])


def _number(told: list[Told]) -> int:
    return next(each.number for each in told if isinstance(each, NoteMade))


def test_who_stops_listening_gives_the_piece_up(composer: Composer) -> None:
    heard = streamed(composer, job(6, bars=200), most=3)
    assert not isinstance(heard[-1], Composition)
    after = deque(composed(composer, job(4)), maxlen=1)[0]
    assert isinstance(after, Composition)
    assert after.batch == 1, "what was given up still steps"


def test_a_request_that_is_refused_tells_nothing(composer: Composer) -> None:
    with pytest.raises(RecipeError, match="folk"):
        streamed(composer, job(2, collection="folk"))


def test_the_least_used_model_gives_way(composer: Composer, root: Path) -> None:
    assert list(composer.loaded) == ["sketch/1"]
    for model in ("sketch/2", "sketch/1", "sketch/3"):
        composer.desk(model)
    assert list(composer.loaded) == ["sketch/1", "sketch/3"]
    assert composer.desk("sketch/1") is composer.desk("sketch/1")
    digest = Registry.embedded(Folder(str(root / "results"))).resolve("sketch/3").digest
    assert composer.desk("sketch/3").model.digest == digest
