"""Requests that step together, without Ray around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.composer import Composer, compose_together
from serve.composition import Composition, Job
from serve.settings import ServeSettings
from tests.music import walk
from tests.serving import save_untrained
from tutti.errors import RecipeError
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.registry.versions import Registry
from tutti.storage import Folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("bundle")
    save_untrained(folder)
    return Engine.load(folder)


def job(seed: int, **controls: object) -> Job:
    return Job(Request.model_validate({"bars": 1, "tempo": 120, "meter": "4/4", "seed": seed, **controls}), None, "m/1")


def together(engine: Engine, *jobs: Job) -> list[Composition | Exception]:
    return compose_together(engine, jobs, waited_s=[0.1] * len(jobs), cancelled=lambda _: False)


def pieces(made: list[Composition | Exception]) -> list[Composition]:
    assert all(isinstance(one, Composition) for one in made), made
    return [one for one in made if isinstance(one, Composition)]


def test_a_batch_makes_the_pieces_that_each_would_be_alone(engine: Engine) -> None:
    jobs = [job(seed) for seed in range(4)]
    batched = pieces(together(engine, *jobs))
    alone = pieces([one for single in jobs for one in together(engine, single)])
    assert [one.batch for one in batched] == [4] * 4
    assert [one.batch for one in alone] == [1] * 4
    assert all(one.score.same_music(other.score) for one, other in zip(batched, alone, strict=True))


def test_one_that_cannot_be_composed_does_not_cost_the_others(engine: Engine) -> None:
    first, refused, last = together(engine, job(1), job(2, collection="folk"), job(3))
    assert isinstance(refused, RecipeError)
    assert [one.batch for one in pieces([first, last])] == [1, 1]


def test_giving_one_up_ends_it_alone(engine: Engine) -> None:
    # The second job of a failed batch is tried alone as number 0: it must still be asked about as number 1.
    asked: set[int] = set()

    def cancelled(number: int) -> bool:
        asked.add(number)
        return number == 1

    jobs = [job(1, collection="folk"), job(2, length="5m", bars=None), job(3)]
    _, given_up, whole = compose_together(engine, jobs, waited_s=[0.0] * 3, cancelled=cancelled)
    assert asked == {1, 2}
    short, full = pieces([given_up, whole])
    assert short.score.length_s < 10
    assert full.score.same_music(pieces(together(engine, jobs[2]))[0].score)


def test_material_is_continued(engine: Engine) -> None:
    given = walk(5, bars=2)
    (made,) = pieces(together(engine, Job(job(1).request, given, "m/1")))
    assert len(made.score.notes) > len(given.notes)
    assert dict(made.timings_s())["wait"] == 0.1


def test_the_least_used_engine_gives_way(tmp_path: Path) -> None:
    root = tmp_path / "results"
    registry = Registry.embedded(Folder(str(root)))
    for seed in (1, 2, 3):
        save_untrained(tmp_path / str(seed), seed=seed)
        registry.register(tmp_path / str(seed), name="sketch")
    composer = Composer(ServeSettings(model="sketch", root=str(root), models_per_replica=2), "sketch/1")
    assert list(composer.loaded) == ["sketch/1"]
    for model in ("sketch/2", "sketch/1", "sketch/3"):
        composer.engine(model)
    assert list(composer.loaded) == ["sketch/1", "sketch/3"]
    assert composer.engine("sketch/1") is composer.engine("sketch/1")
    assert composer.engine("sketch/3").digest == registry.resolve("sketch/3").digest
    composer.check_health()
