"""Errors keep their words across processes and say one line."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.errors import (
    DataError,
    GateError,
    InputError,
    IntegrityError,
    MissingError,
    PlaceError,
    RecipeError,
    TuttiError,
    UserError,
)

USERS = (RecipeError, InputError, MissingError, PlaceError, GateError)


@pytest.mark.parametrize("kind", USERS)
def test_a_users_mistake_says_what_and_remedy(kind: type[UserError]) -> None:
    error = kind("tempo 0 is outside 20 to 300", remedy="ask for a tempo within it")
    assert str(error) == "tempo 0 is outside 20 to 300: ask for a tempo within it"
    assert str(kind("tempo 0 is outside 20 to 300")) == "tempo 0 is outside 20 to 300"


@given(st.sampled_from(USERS), st.text(), st.text())
def test_a_users_mistake_survives_pickling(kind: type[UserError], what: str, remedy: str) -> None:
    error = kind(what, remedy=remedy)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (twin.what, twin.remedy, str(twin)) == (what, remedy, str(error))


def test_bad_data_survives_pickling() -> None:
    twin = pickle.loads(pickle.dumps(DataError("no_notes", "the piece holds no note")))
    assert (twin.reason, twin.detail) == ("no_notes", "the piece holds no note")
    assert str(twin) == "no_notes: the piece holds no note"


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert all(issubclass(kind, UserError) for kind in USERS)
    assert not issubclass(DataError, UserError)
    assert not issubclass(IntegrityError, UserError)
    assert all(issubclass(kind, TuttiError) for kind in (*USERS, DataError, IntegrityError))


@pytest.mark.parametrize("passes", [False, True])
def test_a_place_says_across_processes_whether_it_may_come_back(passes: bool) -> None:
    error = PlaceError("cannot read s3://a/b", remedy="check the server", passes=passes)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.passes, str(twin)) == (passes, "cannot read s3://a/b: check the server")
    assert not PlaceError("no space left").passes
