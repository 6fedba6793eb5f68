"""Models by name, number and alias.

A version is made once for a digest: it is tagged with it and looked up before anything is sent, so registering the same
checkpoint again, or after a crash, or twice at once, gives the same version. A version exists only after its files were
read back and verified, and an alias moves only after they were read back again.

A version is promoted only where it shows what its gate asks (:mod:`tutti.registry.gate`).

MLflow keeps, for people who look there: tags ``tutti.digest``, ``tutti.files`` (SHA-256 by name), ``tutti.facts`` and
``tutti.gate`` on a version, and ``tutti.promotions`` on a model: its versions in the order of their promotion, which
rollback walks.
The files lie under the run that made them, ``bundle/<digest>-<upload>/``: an upload has a folder of its own,
because stores write in place and another process may be reading back the same model.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.artifacts
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient
from mlflow.utils.validation import MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH

from tutti.config import build
from tutti.errors import GateError, InputError, IntegrityError, MissingError
from tutti.registry import evaluations
from tutti.registry.backend import Backend, calling, is_missing
from tutti.registry.gate import Finding, Gate, findings
from tutti.registry.model_version import (
    DIGEST,
    FACTS,
    FILES,
    GATE,
    ModelVersion,
    from_mlflow,
    is_name,
    missing,
    parse_reference,
)
from tutti.registry.run_record import RunRecord
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.registry.files import Cache, Staged

__all__ = ["PRODUCTION", "ModelVersion", "Registry"]

PRODUCTION = "production"
PROMOTIONS = "tutti.promotions"
"""Tag of a model: JSON list of its versions in the order of their promotion."""
CARD_FILE = "card.md"
DESCRIPTION_CHARACTERS = 5_000
"""MLflow's column for descriptions holds no more."""


class Registry:
    """The models of one MLflow backend.

    Plain to pickle: a copy in another process makes its own connection.

    Args:
        tracking_uri: ``sqlite:////path/mlflow.db`` or ``http(s)://host:port``.
        cache: folder of this machine for fetched models.
        artifacts: URI where files of new experiments go; None puts them beside the SQLite file, or where the server
            decides.
    """

    def __init__(self, tracking_uri: str, *, cache: Path, artifacts: str | None = None) -> None:
        self.backend = Backend(tracking_uri)
        self.cache = cache
        self.artifacts = artifacts

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.backend.tracking_uri, self.cache, self.artifacts))

    @classmethod
    def embedded(cls, root: Folder, *, tracking_uri: str | None = None) -> Registry:
        """The registry of a results root: a server where one is named, else the SQLite file below the root.

        Fetched models are kept below a local root, else in the user's cache folder.

        Raises:
            PlaceError: the root is an object store and no server was named.
        """
        backend = Backend.at(root, tracking_uri=tracking_uri)
        cache = root.local_path / "mlflow" / "cache" if root.is_local else Path.home() / ".cache" / "tutti" / "models"
        return cls(backend.tracking_uri, cache=cache)

    def register(
        self, bundle_folder: Path, *, name: str, run_id: str | None = None, gate: Gate | None = None
    ) -> ModelVersion:
        """The version of the bundle in a folder: the one that has its digest, or a new one.

        Args:
            bundle_folder: holds the files of :mod:`tutti.models.bundle`.
            name: of the model.
            run_id: the run that trained it; None makes a run to hold the files.
            gate: what it must show to be promoted; None asks nothing of a new version and leaves that of one that is
                there.

        Raises:
            InputError: the name breaks MLflow's rules.
            MissingError: there is no such folder or run.
            IntegrityError: the bundle is damaged, or its files came back changed.
            PlaceError: MLflow cannot be used.
        """
        if not is_name(name):
            raise InputError(
                f"model name {name!r} is not usable", remedy="use up to 100 letters, digits, _, . and -, a letter first"
            )
        from tutti.registry import files  # brings torch, which listing and promoting by name do without for seconds

        staged = files.stage(bundle_folder, gate=gate)
        known = self._with_digest(name, staged.digest)
        if known:
            mended = self._mended(known[0], staged)
            return mended if gate is None else self.set_gate(mended, gate)
        if run_id is None:
            record = RunRecord.open(
                self.backend, experiment=name, run_key=f"bundle-{staged.digest}", artifacts=self.artifacts,
                parameters={"family": staged.bundle.family, "flavour": staged.bundle.flavour}, tags={},
            )  # fmt: skip
            source = self._upload(staged, run_id=record.run_id)
            record.close(failed=False)
            run_id = record.run_id
        else:
            source = self._upload(staged, run_id=run_id)
        self._read_back(source=source, digest=staged.digest, checksums=staged.checksums)
        return self._create(name, staged, source=source, run_id=run_id, gate=gate or Gate())

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """Versions that Tutti registered, by name, the newest of a name first.

        Raises:
            MissingError: there is no model of that name.
            PlaceError: MLflow cannot be used.
        """
        found = self._found(name)
        if name is not None and not found:
            known = [version.name for version in self._found()]
            raise missing("model", name, known=known, remedy="train or register one")
        return found

    def with_digest(self, name: str, digest: str) -> ModelVersion | None:
        """The version of a model that holds this checkpoint, or None.

        Raises:
            PlaceError: MLflow cannot be used.
        """
        return next(iter(self._with_digest(name, digest)), None)

    def only_model(self) -> str:
        """The model that is meant where none is named.

        Raises:
            MissingError: none is registered, or more than one.
            PlaceError: MLflow cannot be used.
        """
        names = sorted({version.name for version in self._found()})
        if not names:
            raise MissingError(
                f"no model is registered at {self.backend.shown}", remedy="make one with `tutti demo` or `tutti train`"
            )
        if len(names) > 1:
            raise MissingError(
                f"{len(names)} models are registered and none was named", remedy=f"choose one of {', '.join(names)}"
            )
        return names[0]

    def resolve(self, reference: str) -> ModelVersion:
        """The version that ``NAME@ALIAS``, ``NAME/VERSION`` or ``NAME`` means.

        A bare name means its production version, or the newest where none was promoted.

        Raises:
            InputError: the reference is none of these.
            MissingError: no such model, version or alias.
            PlaceError: MLflow cannot be used.
        """
        asked = parse_reference(reference)
        name, alias = asked.name, asked.alias
        mine = self.versions(name)
        if asked.version is not None:
            chosen = [version for version in mine if version.version == asked.version]
            if not chosen:
                raise missing(f"version of {name}", asked.version, known=(version.version for version in mine))
            return chosen[0]
        chosen = [version for version in mine if (alias or PRODUCTION) in version.aliases]
        if alias is not None and not chosen:
            known = {known for version in mine for known in version.aliases}
            raise missing(f"alias of {name}", alias, known=known, remedy=f"tutti models promote {name}/VERSION")
        return (chosen or mine)[0]

    def fetch(self, version: ModelVersion) -> Path:
        """The version's bundle as a folder of this machine, verified; from the cache where it is there undamaged.

        Raises:
            IntegrityError: the stored files are not those that were registered.
            PlaceError: MLflow or the cache cannot be used.
        """
        kept = self._kept.get(version.digest, checksums=version.checksums)
        return kept or self._read_back(source=version.source, digest=version.digest, checksums=version.checksums)

    def card(self, version: ModelVersion) -> str:
        """The version's model card, Markdown, and below it what evaluations found.

        Raises:
            IntegrityError: the stored card is not the one that was registered.
            PlaceError: MLflow cannot be used.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._download(version.source, [CARD_FILE], into=Path(folder))
            path = Path(folder) / CARD_FILE
            data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != version.checksums.get(CARD_FILE):
            raise IntegrityError(f"the card of {version} at {version.source} is missing or damaged: register it again")
        return data.decode() + evaluations.section(version.evaluations)

    def set_gate(self, version: ModelVersion, gate: Gate) -> ModelVersion:
        """The version with ``gate`` as what it must show from now on; its card keeps the gate it was registered with.

        Raises:
            PlaceError: MLflow cannot be used.
        """
        plain = gate.model_dump(mode="json")
        if version.gate != plain:
            with calling(self.backend, f"set the gate of {version}"):
                self._client.set_model_version_tag(version.name, version.version, GATE, json.dumps(plain))
        return replace(version, gate=plain)

    def findings(self, version: ModelVersion) -> tuple[Finding, ...]:
        """Each rule of a version's gate with what the version shows, beside what is in production now.

        Raises:
            RecipeError: the gate was written by another version of Tutti and asks what this one does not know.
            PlaceError: MLflow cannot be used.
        """
        gate = build(Gate, dict(version.gate), origin=f"the gate of {version}")
        others = (other for other in self._found(version.name) if other.version != version.version)
        production = next((other.facts for other in others if PRODUCTION in other.aliases), None)
        return findings(gate, version.facts, production=production)

    def check_promotable(self, version: ModelVersion) -> None:
        """Refuse a version that does not show what its gate asks, with every reason.

        Raises:
            GateError: it does not.
            RecipeError, PlaceError: as :meth:`findings`.
        """
        faults = [str(finding) for finding in self.findings(version) if not finding.holds]
        if faults:
            raise GateError(
                f"{version} does not show what its gate asks ({'; '.join(faults)})",
                remedy="promote another version, or change the gate in the recipe and run tutti train again",
            )

    def promote(self, name: str, version: str) -> ModelVersion:
        """Point ``production`` at a version that shows what its gate asks and whose files were read back just now.

        Raises:
            MissingError: no such model or version.
            GateError: it does not show what its gate asks; the alias stays where it was.
            IntegrityError: its files are damaged; the alias stays where it was.
            PlaceError: MLflow cannot be used.
        """
        chosen = self.resolve(f"{name}/{version}")
        if PRODUCTION in chosen.aliases:
            return chosen
        self.check_promotable(chosen)
        return self._point(chosen, promotions=[*self._promotions(name), version])

    def previous(self, name: str) -> ModelVersion:
        """The version that was in production before the present one: where rollback leads.

        Raises:
            MissingError: no such model, or no earlier promotion of a version that still exists.
            PlaceError: MLflow cannot be used.
        """
        return self._before(name)[0]

    def rollback(self, name: str) -> ModelVersion:
        """Point ``production`` back at the version promoted before, whatever its gate says; again goes back further.

        Raises:
            MissingError: as :meth:`previous`.
            IntegrityError: the earlier version's files are damaged; the alias stays where it was.
            PlaceError: MLflow cannot be used.
        """
        chosen, promotions = self._before(name)
        return self._point(chosen, promotions=promotions)

    @cached_property
    def _client(self) -> MlflowClient:
        return self.backend.client()

    @cached_property
    def _kept(self) -> Cache:
        from tutti.registry.files import Cache

        return Cache(self.cache)

    def _found(self, name: str | None = None) -> list[ModelVersion]:
        """Versions that Tutti registered, of one model or all, by name, the newest of a name first."""
        nothing_yet = self.backend.is_embedded and not self.backend.database.exists()
        if nothing_yet or (name is not None and not is_name(name)):
            return []
        only = {} if name is None else {"filter_string": f"name = '{name}'"}
        client = self._client
        with calling(self.backend, "list models"):
            models = _all_pages(partial(client.search_registered_models, **only))
            entities = _all_pages(partial(client.search_model_versions, **only))
        aliases = {(model.name, str(number), alias) for model in models for alias, number in model.aliases.items()}
        versions = [from_mlflow(entity, aliases=aliases) for entity in entities if DIGEST in entity.tags]
        return sorted(versions, key=lambda version: (version.name, -int(version.version)))

    def _with_digest(self, name: str, digest: str) -> list[ModelVersion]:
        """Oldest first."""
        return [version for version in self._found(name) if version.digest == digest][::-1]

    def _upload(self, staged: Staged, *, run_id: str, path: str | None = None) -> str:
        """Send the files under a run, by default into a new folder; the folder's URI."""
        client = self._client
        path = path or f"bundle/{staged.digest}-{uuid.uuid4().hex[:8]}"
        try:
            with tempfile.TemporaryDirectory() as folder, calling(self.backend, "take the model's files"):
                run = client.get_run(run_id)
                staged.write(Path(folder) / staged.digest)
                client.log_artifacts(run_id, str(Path(folder) / staged.digest), path)
        except MlflowException as error:
            if not is_missing(error):
                raise
            raise MissingError(f"no run {run_id!r} at {self.backend.shown}", remedy="check the run's id") from error
        return f"{run.info.artifact_uri}/{path}"

    def _read_back(self, *, source: str, digest: str, checksums: Mapping[str, str]) -> Path:
        from tutti.registry.files import verify

        def fill(folder: Path) -> None:
            self._download(source, checksums, into=folder)
            verify(folder, digest=digest, checksums=checksums, origin=source)

        return self._kept.put(digest, fill=fill)

    def _download(self, source: str, names: Iterable[str], *, into: Path) -> None:
        """Get those of ``names`` that are there."""
        uri = self.backend.tracking_uri
        with calling(self.backend, f"give the files of {source}"):
            listed = mlflow.artifacts.list_artifacts(artifact_uri=source, tracking_uri=uri)
            there = {info.path.rpartition("/")[2] for info in listed}
            for name in sorted(there.intersection(names)):
                mlflow.artifacts.download_artifacts(f"{source}/{name}", dst_path=str(into), tracking_uri=uri)

    def _create(self, name: str, staged: Staged, *, source: str, run_id: str, gate: Gate) -> ModelVersion:
        client = self._client
        tags = _tags(staged) | {GATE: json.dumps(gate.model_dump(mode="json"))}
        with calling(self.backend, f"register {name}"):
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = client.create_model_version(
                name, source, run_id=run_id, tags=tags, await_creation_for=0,
                description=staged.files[CARD_FILE].decode()[:DESCRIPTION_CHARACTERS],
            )  # fmt: skip
        # Of versions that were made at the same moment the lowest number stays, whoever looks.
        first = self._with_digest(name, staged.digest)[0]
        if first.version != str(made.version):
            with calling(self.backend, f"withdraw a second {name}"):
                client.delete_model_version(name, str(made.version))
        return first

    def _mended(self, version: ModelVersion, staged: Staged) -> ModelVersion:
        """``version`` as it is, or with its files sent again where they were damaged."""
        try:
            self._read_back(source=version.source, digest=version.digest, checksums=version.checksums)
        except IntegrityError:
            path = version.source[version.source.rfind("/bundle/") + 1 :]
            if version.run_id is None or self._upload(staged, run_id=version.run_id, path=path) != version.source:
                raise
            self._read_back(source=version.source, digest=staged.digest, checksums=staged.checksums)
            with calling(self.backend, f"register {version}"):
                for tag, value in _tags(staged).items():
                    self._client.set_model_version_tag(version.name, version.version, tag, value)
            return self.resolve(str(version))
        return version

    def _promotions(self, name: str) -> list[str]:
        """Versions in the order of their promotion, the present one last.

        The alias is the truth: a crash between tag and alias, or a hand in MLflow's own pages, may have left the tag
        ahead of it, behind it or without it.
        """
        with calling(self.backend, f"read the promotions of {name}"):
            model = self._client.get_registered_model(name)
        promotions = [str(number) for number in json.loads(model.tags.get(PROMOTIONS, "[]"))]
        now = model.aliases.get(PRODUCTION)
        if now is None:
            return promotions
        while str(now) in promotions and promotions[-1] != str(now):
            promotions.pop()
        return promotions if promotions[-1:] == [str(now)] else [*promotions, str(now)]

    def _before(self, name: str) -> tuple[ModelVersion, list[str]]:
        """The version to go back to, and the promotions up to it."""
        mine = {version.version: version for version in self.versions(name)}
        now = next((number for number, version in mine.items() if PRODUCTION in version.aliases), None)
        promotions = self._promotions(name)
        while promotions and (promotions[-1] == now or promotions[-1] not in mine):
            promotions.pop()
        if not promotions:
            at = f"production is {name}/{now}" if now else "nothing is in production"
            raise MissingError(
                f"{name} has no earlier promoted version to go back to ({at})",
                remedy=f"choose one with tutti models promote {name}/VERSION",
            )
        return mine[promotions[-1]], promotions

    def _point(self, version: ModelVersion, *, promotions: list[str]) -> ModelVersion:
        self._read_back(source=version.source, digest=version.digest, checksums=version.checksums)
        with calling(self.backend, f"promote {version}"):
            self._client.set_registered_model_tag(version.name, PROMOTIONS, json.dumps(promotions))
            self._client.set_registered_model_alias(version.name, PRODUCTION, version.version)
        return self.resolve(str(version))


def _rebuild(tracking_uri: str, cache: Path, artifacts: str | None) -> Registry:
    return Registry(tracking_uri, cache=cache, artifacts=artifacts)


def _tags(staged: Staged) -> dict[str, str]:
    facts = json.dumps(dict(staged.bundle.facts), ensure_ascii=False, sort_keys=True)
    if len(facts) > MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH:
        raise InputError(
            f"the bundle's facts take {len(facts):,} characters, the limit is {MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH:,}",
            remedy="keep tables in the run's files",
        )
    return {DIGEST: staged.digest, FILES: json.dumps(staged.checksums, sort_keys=True), FACTS: facts}


def _all_pages(search: Any) -> list[Any]:
    """Every result of a search of MLflow, which gives them by the page."""
    page = search(max_results=1000)
    found = list(page)
    while page.token:
        page = search(max_results=1000, page_token=page.token)
        found += page
    return found
