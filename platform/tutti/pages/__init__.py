"""Pages for people: each one file of HTML that fetches nothing, with one head for all of them.

A page is a template in the folder of its own room that extends ``layout.html.jinja`` and fills its blocks: ``title``,
``style``, ``body``, and ``allowed``, what its policy lets it do beyond showing text. ``cards.css.jinja``, included at
the start of ``style``, is the look of pages of cards and tables. Values are escaped, and a name that the caller forgot
is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jinja2

Filters = tuple[tuple[str, Callable[..., str]], ...]


def render(package: str, name: str, /, *, filters: Filters = (), **values: Any) -> bytes:
    """A page, UTF-8.

    Args:
        package: whose folder holds the template, such as ``tutti.catalogue``.
        name: of its file.
        filters: that the template may use, by name, beside ``count``, which writes thousands.
        values: what the template shows, by name.
    """
    return _template(package, name, filters).render(**values).encode()


@cache
def _template(package: str, name: str, filters: Filters) -> jinja2.Template:
    folders = [jinja2.PackageLoader(each, package_path="") for each in (package, __name__)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters.update(filters)
    return environment.get_template(name)
