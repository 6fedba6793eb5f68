"""Licences: who stated them, in which words, and whether a run was told that it may use them.

A licence is an SPDX identifier (https://spdx.org/licenses), ``LicenseRef-`` and a name for terms that SPDX does not
list, or ``unknown`` where nobody stated one. Nothing is allowed because it is there: a run names what it may use.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from tutti.errors import RecipeError, UserError
from tutti.lineage import Dataset

UNKNOWN = "unknown"
MAX_HINTS = 3
MUSIC21 = "LicenseRef-music21-corpus"

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9][A-Za-z0-9.-]*")
_CREATIVE_COMMONS = tuple(
    f"CC-{terms}-{version}"
    for terms in ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
    for version in ("1.0", "2.0", "2.5", "3.0", "4.0")
)
# SPDX identifiers that music, its encodings, samples and the data around them come under.
IDENTIFIERS = frozenset(
    (
        *_CREATIVE_COMMONS, "CC0-1.0", "CC-PDDC", "PDDL-1.0", "ODbL-1.0", "ODC-By-1.0", "CDLA-Permissive-1.0",
        "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "LAL-1.2", "LAL-1.3", "OFL-1.1", "GFDL-1.2-or-later",
        "GFDL-1.3-or-later", "MIT", "MIT-0", "ISC", "Zlib", "Unlicense", "0BSD", "BSD-2-Clause", "BSD-3-Clause",
        "Apache-2.0", "MPL-2.0", "LGPL-2.1-or-later", "LGPL-3.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later",
        "GPL-3.0-only", "GPL-3.0-or-later", "AGPL-3.0-only", "AGPL-3.0-or-later", "WTFPL", "Artistic-2.0",
    )
)  # fmt: skip


def check(licence: str) -> str:
    """Return ``licence`` if it is written as one.

    Raises:
        RecipeError: neither SPDX, nor ``LicenseRef-…``, nor ``unknown``.
    """
    if licence == UNKNOWN or licence in IDENTIFIERS or _REFERENCE.fullmatch(licence):
        return licence
    near = _near(licence)
    hint = f"did you mean {' or '.join(near)}? Else write" if near else "write an SPDX identifier such as CC-BY-4.0, or"
    name = "a name of letters, digits, '.' and '-'"
    raise RecipeError(f"licence {licence!r} is not known", remedy=f"{hint} LicenseRef- and {name} for other terms")


def _for_settings(value: str) -> str:
    try:
        return check(value)
    except RecipeError as error:
        # What pydantic takes for a value that cannot be.
        raise ValueError(str(error)) from None


Licence = Annotated[str, AfterValidator(_for_settings)]
"""Type of a field of settings that holds one."""


def _near(licence: str) -> list[str]:
    """Identifiers that begin alike but for signs and case, else the one that is written nearly so."""

    def plain(name: str) -> str:
        return "".join(sign for sign in name.lower() if sign.isalnum())

    by_plain = {plain(name): name for name in sorted((*IDENTIFIERS, UNKNOWN))}
    begun = [
        name for written, name in by_plain.items() if len(plain(licence)) > 1 and written.startswith(plain(licence))
    ]
    close = difflib.get_close_matches(plain(licence), list(by_plain), n=1, cutoff=0.75)
    return begun[:MAX_HINTS] or [by_plain[name] for name in close]


def allowed(licence: str, *, named: Iterable[str]) -> bool:
    """Whether a work under ``licence`` may be used by a run that named ``named``; ``unknown`` must be named as well."""
    return licence in set(named)


def check_allowed(licences: Iterable[str], *, named: Iterable[str]) -> None:
    """Hold the licences of works against those that a run named.

    Raises:
        RecipeError: some were not named.
    """
    named = set(named)
    missing = sorted(set(licences) - named)
    if missing:
        shown = ", ".join(sorted(named)) or "none"
        raise RecipeError(
            f"works under {', '.join(missing)} are not among the licences that this run may use ({shown})",
            remedy="name them, or leave those works out",
        )


def told(works: Dataset, *, named: tuple[str, ...]) -> list[str]:
    """Which works a run that named ``named`` may use and which not, by licence; a line each.

    Raises:
        UserError: it may use none.
    """
    held = works.facts["licences"]
    may = {name: number for name, number in held.items() if allowed(name, named=named)}
    left_out = {name: number for name, number in held.items() if name not in may}
    if not held:
        raise UserError(f"{works.name} holds sound and no notes", remedy="name a dataset with works")
    if not sum(may.values()):
        raise UserError(
            f"no work of {works.name} has a licence of {', '.join(named)}",
            remedy=f"name one of {', '.join(sorted(held))}",
        )
    lines = [f"{sum(may.values()):,} of {works.facts['works']:,} works may train: {_by_licence(may)}"]
    if left_out:
        lines.append(f"left out, as their licence was not named: {_by_licence(left_out)}")
    lines += [f"no work is under {name}" for name in dict.fromkeys(named) if name not in held]
    return lines


def _by_licence(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(numbers.items()))
