"""Every exception that Tutti raises on purpose.

::

    TuttiError
    ├── UserError            the caller can mend it: one line on stderr, exit code 2
    │   ├── RecipeError      a recipe, order, setting or argument that breaks a rule
    │   ├── InputError       a file or request body that cannot be taken
    │   ├── MissingError     a model, dataset, file or take that is not there
    │   ├── PlaceError       a folder, disk, port or server that cannot be used
    │   └── GateError        a model version that does not show what its recipe asks of it
    ├── DataError            one bad input of many: becomes a row in ``refusals``, never a crash
    └── IntegrityError       stored bytes differ from what their manifest promises

Anything else that escapes is Tutti's own bug: a traceback and exit code 1.
"""

from __future__ import annotations


class TuttiError(Exception):
    """Root of the tree."""


class UserError(TuttiError):
    """Something the caller can mend.

    Args:
        what: what was wrong, with the value that was given.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}: {remedy}" if remedy else what)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling across Ray's processes.
        return (_rebuild, (type(self), self.what, self.remedy))


def _rebuild(kind: type[UserError], what: str, remedy: str) -> UserError:
    return kind(what, remedy=remedy)


class RecipeError(UserError):
    """A recipe, order, setting or argument breaks a rule."""


class InputError(UserError):
    """A file or request body cannot be taken."""


class MissingError(UserError):
    """A model, dataset, file or take is not there."""


class PlaceError(UserError):
    """A folder, disk, port or server cannot be used.

    Args:
        passes: whether it may be usable later without anybody's help: it is away, not forbidden or full.
    """

    def __init__(self, what: str, *, remedy: str = "", passes: bool = False) -> None:
        self.passes = passes
        super().__init__(what, remedy=remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_place, (type(self), self.what, self.remedy, self.passes))


def _rebuild_place(kind: type[PlaceError], what: str, remedy: str, passes: bool) -> PlaceError:
    return kind(what, remedy=remedy, passes=passes)


class GateError(UserError):
    """A model version does not show what its recipe asks of it."""


class DataError(TuttiError):
    """One bad input of many.

    Args:
        reason: a member of :data:`tutti.tables.REFUSAL_REASONS`.
        detail: one line for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class IntegrityError(TuttiError):
    """Stored bytes differ from what their manifest promises."""
