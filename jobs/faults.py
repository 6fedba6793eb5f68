"""Whose fault it was: the line a user is told, or None where the fault is Tutti's own and a traceback is due.

What a worker raised comes back wrapped: Ray's task errors keep the original under ``cause``, Ray Train's under
``worker_failures`` (rank to exception) and ``controller_failure``. Ray Data drops it and keeps its traceback as text
alone, so for Ray's own exceptions the text is read as well. Nothing of Ray is imported here: a verb that never
started it must not pay for it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping

from tutti.errors import IntegrityError, UserError

_UNRELATED = "During handling of the above exception, another exception occurred:"
_LINE = re.compile(r"^\s*([A-Za-z_][\w.]*): (.+)$", re.MULTILINE)
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.EROFS: "choose a folder that can be written",
    errno.EADDRINUSE: "choose another port, or stop the program that listens there",
}


def line_for_user(error: BaseException) -> str | None:
    """One line if the user can mend what was raised; None for Tutti's own bugs."""
    causes = list(_causes(error))
    for cause in causes:
        # A task error of Ray is an instance of its cause's class too, but its text is a traceback.
        if isinstance(cause, UserError | IntegrityError) and not _is_rays(cause):
            return _one_line(str(cause))
    for cause in causes:
        if _is_rays(cause) and (text := _from_traceback(str(cause))):
            return _one_line(text)
    for cause in causes:
        if isinstance(cause, OSError) and not _is_rays(cause) and cause.errno in _REMEDIES:
            return _one_line(_of_system(cause))
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and everything that was said to have caused it, nearest first, each once."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        found = [current.__cause__, getattr(current, "cause", None), getattr(current, "controller_failure", None)]
        workers = getattr(current, "worker_failures", None)
        if isinstance(workers, Mapping):
            found.extend(workers.values())
        if isinstance(current, BaseExceptionGroup):
            found.extend(current.exceptions)
        waiting.extend(cause for cause in found if isinstance(cause, BaseException))


def _is_rays(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(error).__mro__)


def _from_traceback(text: str) -> str | None:
    """What a user's mistake said in the last chain of causes of a printed traceback."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in (*_descendants(UserError), IntegrityError)}
    lines = _LINE.findall(text.rpartition(_UNRELATED)[2])
    return next((said for name, said in reversed(lines) if name in kinds), None)


def _descendants(kind: type[UserError]) -> Iterator[type[UserError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _descendants(child)


def _of_system(error: OSError) -> str:
    code = error.errno or 0
    where = f" ({error.filename})" if error.filename else ""
    return f"{os.strerror(code).lower()}{where}: {_REMEDIES[code]}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
