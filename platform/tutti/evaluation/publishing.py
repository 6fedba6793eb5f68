"""An evaluation as files: made once, published as a dataset, kept where people look for a version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tutti import lineage
from tutti.evaluation.report import DOCUMENT, PAGE, TABLE
from tutti.lineage import Dataset
from tutti.registry import evaluations
from tutti.registry.model_version import ModelVersion
from tutti.registry.versions import Registry
from tutti.storage import Folder
from tutti.telemetry import Reporter

KIND = "evaluations"

Made = tuple[Mapping[str, bytes], Mapping[str, Any]]
"""Files by path, the document, the table and the page among them; and what is to be known without reading them."""


def place(version: ModelVersion, inputs: Mapping[str, Any], *, root: Folder) -> Folder:
    """Where the evaluation of a version lies, or will."""
    return lineage.place(root, kind=KIND, name=version.name, inputs=inputs)


def published(
    version: ModelVersion,
    make: Callable[[], Made],
    *,
    split: str,
    inputs: Mapping[str, Any],
    figures: Callable[[Mapping[str, Any]], Mapping[str, float]],
    root: Folder,
    registry: Registry,
    reporter: Reporter,
) -> Dataset:
    """The evaluation of a version, found or made; it is kept in the version's run and below its card.

    Args:
        version: of the model.
        make: called where there is none yet.
        split: of which works are held out.
        inputs: all that decides the files.
        figures: those that a tracker keeps, of the document.
        root: results root.
        registry: where the model is found.
        reporter: told where it was found finished.

    Raises:
        UserError: a place cannot be used.
        IntegrityError: stored bytes are damaged.
    """
    folder = place(version, inputs, root=root)
    found = lineage.find(folder)
    if found is None:
        folder.check_writable()
        contents, known = make()
        files = [lineage.write_file(folder, path, data) for path, data in contents.items()]
        facts = {"model": str(version), "split": split, **known}
        found = lineage.publish(folder, kind=KIND, name=version.name, inputs=dict(inputs), files=files, facts=facts)
    else:
        reporter.line(f"evaluation of {version}: found finished")
    evaluations.keep(
        registry.backend, version, split=split, figures=figures(json.loads(found.read(DOCUMENT))),
        files={name: found.read(name) for name in (DOCUMENT, TABLE, PAGE)},
    )  # fmt: skip
    return found
