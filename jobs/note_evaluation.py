"""``tutti evaluate`` of a model of notes: its notes beside those that it never heard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tutti import lineage
from tutti.evaluation import notes, notes_report, works
from tutti.models.families import family_of
from tutti.registry import evaluations
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.evaluation.evaluation import Asked
    from tutti.lineage import Dataset
    from tutti.models.bundle import Bundle
    from tutti.registry.versions import ModelVersion, Registry
    from tutti.telemetry import Reporter

EVALUATION_VERSION = 1
"""Moves whenever the same model and notes would give other figures."""
DOCUMENT, TABLE, PAGE = "evaluation.json", "evaluation.csv", "evaluation.html"


def is_of_notes(bundle: Bundle) -> bool:
    """Whether a model makes notes and no pieces."""
    return family_of(bundle.family).reads == "spectra"


def run(
    version: ModelVersion,
    bundle: Bundle,
    asked: Asked,
    *,
    pairs: int,
    root: Folder,
    registry: Registry,
    reporter: Reporter,
) -> Dataset:
    """Evaluate a version, or find it evaluated; what was found is kept in its run and below its card.

    Args:
        version: of the model.
        bundle: it.
        asked: split, number of notes as takes, seed.
        pairs: notes that are shown and played, each beside the one held out.
        root: results root.
        registry: where the model is found.
        reporter: told how far it is.

    Raises:
        UserError: its notes are gone, the split has none, a place cannot be used.
        IntegrityError: stored bytes are damaged.
    """
    spectra = works.dataset_of(bundle.facts, kind="spectra", root=root)
    inputs, folder = _place(version, spectra, asked, pairs=pairs, root=root)
    found = lineage.find(folder)
    if found is None:
        folder.check_writable()
        evaluation = notes.evaluate(
            bundle, spectra, split=asked.split, most=asked.takes, seed=asked.seed, reporter=reporter
        )
        document = notes_report.plain(evaluation, model=str(version), digest=version.digest)
        contents = {
            **notes_report.files(evaluation, document, pairs=pairs),
            DOCUMENT: notes_report.to_json(document),
            TABLE: notes_report.to_csv(document),
        }
        files = [lineage.write_file(folder, path, data) for path, data in contents.items()]
        facts = {"model": str(version), "split": asked.split, "notes": len(evaluation.held_out)}
        found = lineage.publish(folder, kind="evaluations", name=version.name, inputs=inputs, files=files, facts=facts)
    else:
        reporter.line(f"evaluation of {version}: found finished")
    document = json.loads(found.read(DOCUMENT))
    evaluations.keep(
        registry.backend, version, split=asked.split, figures=notes_report.figures(document),
        files={name: found.read(name) for name in (DOCUMENT, TABLE, PAGE)},
    )  # fmt: skip
    return found


def summary(document: Mapping[str, Any]) -> list[str]:
    """The evaluation in a terminal: two tables."""
    from jobs.models import table

    return [table(list(notes_report.rows(document))), "", table(list(notes_report.rows_of_instruments(document))), ""]


def plan(version: ModelVersion, bundle: Bundle, asked: Asked, *, pairs: int, root: Folder) -> Iterator[str]:
    """What would be compared, and where it would go."""
    spectra = works.dataset_of(bundle.facts, kind="spectra", root=root)
    folder = _place(version, spectra, asked, pairs=pairs, root=root)[1]
    held = spectra.facts["split_notes"].get(asked.split, 0)
    yield f"model      {version} ({version.digest[:12]})"
    yield f"held out   {min(held, asked.takes or notes.MOST_NOTES)} of {held} notes of {asked.split}"
    yield f"address    {folder.uri}, {'finished' if lineage.find(folder) else 'not made yet'}"


def _place(
    version: ModelVersion, spectra: Dataset, asked: Asked, *, pairs: int, root: Folder
) -> tuple[dict[str, Any], Folder]:
    inputs = {
        "model": version.digest, "spectra": spectra.address, "split": asked.split, "notes": asked.takes,
        "seed": asked.seed, "pairs": pairs, "version": EVALUATION_VERSION,
    }  # fmt: skip
    return inputs, lineage.place(root, kind="evaluations", name=version.name, inputs=inputs)
