"""What the service tells of catalogues below its root: those that are finished, and how far others are."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from tutti.catalogue.publish import KIND
from tutti.dataset.inventory import Found, State, found_below
from tutti.storage import Folder


class CatalogueProgress(BaseModel):
    """How far a catalogue is that is not finished."""

    done: int = Field(description="places of the order that are done with")
    found: int = Field(description="of these, what an earlier run had made")
    accepted: int = Field(description="takes that this run accepted")
    rejected: dict[str, int] = Field(description="checks that takes of this run failed, with counts")
    started: datetime = Field(description="when the run began")
    updated: datetime = Field(description="when it last said how far it is")
    left_s: float | None = Field(description="seconds to the end at the pace so far; null where nothing tells")
    failure: str = Field(description="why it ended without a result; empty while it runs, and after a kill")


class Catalogue(BaseModel):
    """One catalogue."""

    name: str = Field(description="of its order")
    address: str = Field(description="hash of all that decides its takes")
    uri: str = Field(description="where it lies")
    state: str = Field(description="finished, running, stopped, unfinished or damaged")
    ordered: int | None = Field(description="takes that were asked for")
    accepted: int | None = Field(description="takes that are there, of a finished one")
    rejected: int | None = Field(description="takes that failed a check, of a finished one")
    music_s: float | None = Field(description="seconds of music, of a finished one")
    created: datetime | None = Field(description="when it was finished")
    progress: CatalogueProgress | None = Field(description="of one that is not finished")


class Catalogues(BaseModel):
    """Every catalogue below the root, by name, the newest of a name first."""

    catalogues: list[Catalogue]


def catalogues_below(root: Folder) -> Catalogues:
    """Look at the manifests and records of progress below a root.

    Raises:
        PlaceError: the root cannot be read.
    """
    now = datetime.now(UTC)
    return Catalogues(catalogues=[_of(found, now=now) for found in found_below(root, kinds=(KIND,), now=now)])


def _of(found: Found, *, now: datetime) -> Catalogue:
    facts, progress = found.facts, found.progress
    return Catalogue(
        name=found.name,
        address=found.address,
        uri=found.folder.uri,
        state=str(found.state),
        ordered=facts.get("ordered") if progress is None else progress.files,
        accepted=facts.get("accepted"),
        rejected=facts.get("rejected"),
        music_s=facts.get("music_s"),
        created=found.created,
        progress=None
        if progress is None
        else CatalogueProgress(
            done=progress.done,
            found=progress.found,
            accepted=progress.works,
            rejected=dict(progress.refusals),
            started=progress.started,
            updated=progress.updated,
            left_s=progress.left_s(now=now) if found.state == State.RUNNING else None,
            failure=progress.failure,
        ),
    )
