"""``tutti evaluate`` of a model of notes: its notes beside those that it never heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tutti import lineage
from tutti.dataset import learnt
from tutti.evaluation import notes, notes_report, publishing
from tutti.evaluation.report import DOCUMENT, TABLE, to_json
from tutti.models.families import family_of
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.evaluation.evaluation import Asked
    from tutti.lineage import Dataset
    from tutti.models.bundle import Bundle
    from tutti.registry.versions import ModelVersion, Registry
    from tutti.telemetry import Reporter

EVALUATION_VERSION = 1
"""Moves whenever the same model and notes would give other figures."""


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
    spectra = learnt.dataset_of(bundle.facts, kind="spectra", root=root)

    def make() -> publishing.Made:
        evaluation = notes.evaluate(
            bundle, spectra, split=asked.split, most=asked.takes, seed=asked.seed, reporter=reporter
        )
        document = notes_report.plain(evaluation, model=str(version), digest=version.digest)
        contents = {
            **notes_report.files(evaluation, document, pairs=pairs),
            DOCUMENT: to_json(document),
            TABLE: notes_report.to_csv(document),
        }
        return contents, {"notes": len(evaluation.held_out)}

    return publishing.published(
        version, make, split=asked.split, inputs=_inputs(version, spectra, asked, pairs=pairs),
        figures=notes_report.figures, root=root, registry=registry, reporter=reporter,
    )  # fmt: skip


def summary(document: Mapping[str, Any]) -> list[str]:
    """The evaluation in a terminal: two tables."""
    from jobs.models import table

    return [table(list(notes_report.rows(document))), "", table(list(notes_report.rows_of_instruments(document))), ""]


def plan(version: ModelVersion, bundle: Bundle, asked: Asked, *, pairs: int, root: Folder) -> Iterator[str]:
    """What would be compared, and where it would go."""
    spectra = learnt.dataset_of(bundle.facts, kind="spectra", root=root)
    folder = publishing.place(version, _inputs(version, spectra, asked, pairs=pairs), root=root)
    held = spectra.facts["split_notes"].get(asked.split, 0)
    yield f"model      {version} ({version.digest[:12]})"
    yield f"held out   {min(held, asked.takes or notes.MOST_NOTES)} of {held} notes of {asked.split}"
    yield f"address    {folder.uri}, {'finished' if lineage.find(folder) else 'not made yet'}"


def _inputs(version: ModelVersion, spectra: Dataset, asked: Asked, *, pairs: int) -> dict[str, Any]:
    return {
        "model": version.digest, "spectra": spectra.address, "split": asked.split, "notes": asked.takes,
        "seed": asked.seed, "pairs": pairs, "version": EVALUATION_VERSION,
    }  # fmt: skip
