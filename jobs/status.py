"""``tutti status``: what is there and what is running below a results root."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from textwrap import shorten
from typing import Any

import click

from cluster.job_server import ADDRESS, Job, JobServer
from tutti.dataset.inventory import Found, State, found_below
from tutti.errors import IntegrityError, MissingError, UserError
from tutti.progress import Progress
from tutti.storage import Folder
from tutti.training.ledger import Activity, Bill
from tutti.units import format_bytes, format_seconds

DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Models:
    """What the registry holds of one model: its versions, the newest first, and which is in production."""

    name: str
    versions: tuple[str, ...]
    production: str | None


@click.command(name="status")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; by default the file below --root.")
@click.option("--address", envvar=ADDRESS, metavar="URL", help="The dashboard of a cluster whose jobs are listed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def command(root: str, tracking_uri: str | None, address: str | None, as_json: bool) -> None:
    """Say what is there and what is running.

    Of each corpus: works, refusals by reason, duplicates, groups of near duplicates. Of a run in progress: how far it
    is and how long it still takes. Of a training: what it has cost, and what failures have. Of a cluster: its jobs.

    \b
    Example:
        tutti status --root s3://bucket/results
    """
    place, now = Folder(root), datetime.now(UTC)
    found = found_below(place, now=now)
    costs = {each.folder.uri: cost_of(each) for each in found if each.kind == "runs"}
    models, models_fault = _models(place, tracking_uri=tracking_uri)
    jobs, jobs_fault = _jobs(address)
    if as_json:
        document = {
            "root": place.uri,
            "datasets": [plain(each, now=now, cost=costs.get(each.folder.uri)) for each in found],
            "models": [asdict(model) for model in models],
            "models_fault": models_fault,
            "jobs": [plain_job(job) for job in jobs],
            "jobs_fault": jobs_fault,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for each in found:
        click.echo("\n".join(lines(each, now=now, cost=costs.get(each.folder.uri))))
    for model in models:
        production = f"{model.production} in production" if model.production else "none in production"
        click.echo(f"model {model.name} · newest version {model.versions[0]} of {len(model.versions)} · {production}")
    for job in jobs:
        since = age(job.since, now=now) if job.since else "just now"
        click.echo(f"job {job.id} · {shorten(job.verb, 60)} · {job.state} since {since}")
    for what, fault in (("models", models_fault), ("jobs", jobs_fault)):
        if fault:
            click.echo(f"{what} cannot be listed: {fault}")
    click.echo(_last_line(found, models=models, root=place))


@dataclass(frozen=True)
class Cost:
    """What a run has cost until now; where that cannot be read, why."""

    bill: Bill | None
    fault: str = ""


def cost_of(found: Found) -> Cost:
    """The bill in a run's folder; runs of an older version have none."""
    try:
        return Cost(Bill.read(found.folder))
    except (IntegrityError, MissingError) as error:
        return Cost(None, str(error))


def lines(found: Found, *, now: datetime, cost: Cost | None = None) -> list[str]:
    """One address: its name and state, and indented what it holds."""
    size = format_bytes(found.size_bytes)
    head = [f"{found.kind}/{found.name}/{found.address}", _state(found, now=now), size]
    told = _progress(found.progress) if found.progress else COUNTS.get(found.kind, _nothing)(found.facts)
    told += [*_bill(cost.bill), cost.fault] if cost else []
    return [" · ".join(head), *(f"  {line}" for line in (*told, found.fault) if line)]


def plain(found: Found, *, now: datetime, cost: Cost | None = None) -> dict[str, Any]:
    """One address as plain values for JSON."""
    progress = found.progress
    bill = cost.bill if cost else None
    return {
        "kind": found.kind,
        "name": found.name,
        "address": found.address,
        "uri": found.folder.uri,
        "state": str(found.state),
        "created": found.created.isoformat() if found.created else None,
        "size_bytes": found.size_bytes,
        "facts": dict(found.facts),
        "progress": None
        if progress is None
        else {
            **asdict(progress),
            "started": progress.started.isoformat(),
            "updated": progress.updated.isoformat(),
            "left_s": progress.left_s(now=now) if found.state == State.RUNNING else None,
        },
        "cost": None
        if bill is None
        else {
            **bill.ledger.to_dict(),
            "worker_hours": {kind: bill.ledger.worker_seconds(kind=kind) / 3600 for kind in bill.ledger.kinds},
            "lost_worker_seconds": bill.ledger.lost_seconds,
            "price": bill.price,
            "currency": bill.prices.currency,
            "tokens": bill.tokens,
            "tokens_per_unit": bill.tokens_per_unit,
        },
        "fault": found.fault or (cost.fault if cost else "") or None,
    }


def plain_job(job: Job) -> dict[str, Any]:
    """One job as plain values for JSON."""
    since = job.since.isoformat() if job.since else None
    return {"id": job.id, "verb": job.verb, "state": str(job.state), "since": since, "exit_code": job.exit_code}


def _state(found: Found, *, now: datetime) -> str:
    if found.created:
        return f"{found.state} {age(found.created, now=now)}"
    if found.progress is None:
        return str(found.state)
    progress = found.progress
    if found.state == State.RUNNING:
        left_s = progress.left_s(now=now)
        left = "" if left_s is None else f" · about {format_seconds(left_s)} left"
        return f"{progress.verb} running since {age(progress.started, now=now)}{left}"
    why = progress.failure or "killed?"
    return f"{progress.verb} stopped {age(progress.updated, now=now)} ({why}); the same command goes on"


def age(moment: datetime, *, now: datetime) -> str:
    """How long ago something was, in one unit: ``3m ago``."""
    passed_s = max(0.0, (now - moment).total_seconds())
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if passed_s >= unit_s:
            return f"{passed_s // unit_s:.0f}{unit} ago"
    return f"{passed_s:.0f}s ago"


def _progress(progress: Progress) -> list[str]:
    share = f" ({100 * progress.done / progress.files:.0f} %)" if progress.files else ""
    done = f"{progress.done:,} of {progress.files:,} {progress.unit}{share}"
    figures = " · ".join(f"{_short(value)} {name.replace('_per_', '/')}" for name, value in progress.figures.items())
    counted = f"{progress.works:,} works" if progress.unit == "files" else ""
    told = " · ".join(filter(None, (done, counted, figures)))
    counted_as = "rejected" if progress.unit == "takes" else "refused"
    return [told, _refused(progress.refusals, counted_as), f"process {progress.pid} on {progress.host}"]


def _bill(bill: Bill | None) -> list[str]:
    """What a run has cost: time by kind of worker and its price, then what of it failures threw away."""
    if bill is None:
        return []
    ledger, currency = bill.ledger, bill.prices.currency
    per_unit = bill.tokens_per_unit
    spent = [f"{_short(ledger.worker_seconds(kind=kind) / 3600)} {kind} worker-hours" for kind in ledger.kinds]
    priced = _figures((f"{{:,.2f}} {currency}", bill.price or None), (f"{{:,.0f}} tokens per {currency}", per_unit))
    lost_price = ledger.price(bill.prices, activity=Activity.LOST)
    lost = _figures(
        ("{:,} restarts" if ledger.restarts > 1 else "{} restart", ledger.restarts or None),
        ("{} of worker time lost to failures", _time(ledger.lost_seconds or None)),
        (f"{{:,.2f}} {currency} lost", lost_price or None),
    )
    return [" · ".join(filter(None, (*spent, priced))), lost]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _works(facts: Mapping[str, Any]) -> list[str]:
    near = facts.get("near_duplicates", {})
    groups = f"in {near['groups']:,} groups" if near.get("groups") else ""
    held = _figures(
        ("{:,} works", facts.get("works")),
        ("{:,} notes", facts.get("notes")),
        ("{} of music", _time(facts.get("length_s"))),
        (f"{{:,}} near duplicates {groups}", near.get("works") or None),
    )
    licences = facts.get("licences")
    sound = facts.get("clips")
    told = [] if sound and not facts.get("works") else [held, f"licences: {_counted(licences)}" if licences else ""]
    if sound:
        told += [*_clips(sound), f"licences of clips: {_counted(sound['licences'])}"]
    return [*told, _refused(facts.get("refusals", {}))]


def _clips(facts: Mapping[str, Any]) -> list[str]:
    return [_figures(("{:,} clips", facts.get("clips")), ("{} of sound", _time(facts.get("length_s"))))]


def _rendered(facts: Mapping[str, Any]) -> list[str]:
    licences = facts.get("licences")
    return [*_clips(facts), f"licences: {_counted(licences)}" if licences else "", _refused(facts.get("refusals", {}))]


def _tokens(facts: Mapping[str, Any]) -> list[str]:
    return [_figures(*((f"{{:,}} {name}", facts.get(name)) for name in ("works", "notes", "tokens")))]


def _runs(facts: Mapping[str, Any]) -> list[str]:
    return [
        _figures(
            ("{:,} steps", facts.get("training", {}).get("steps")),
            ("{:,} parameters", facts.get("parameters")),
            ("valid NLL {:.4f}", facts.get("measures", {}).get("valid_nll_nats_per_token")),
        )
    ]


def _catalogues(facts: Mapping[str, Any]) -> list[str]:
    return [
        _figures(
            (f"{{:,}} of {facts.get('ordered', '?')} takes", facts.get("accepted")),
            ("{} of music", _time(facts.get("music_s"))),
            ("{:,} rejected", facts.get("rejected")),
        )
    ]


def _nothing(_: Mapping[str, Any]) -> list[str]:
    return []


def _figures(*told: tuple[str, Any]) -> str:
    """Figures in their words; those that a manifest of another version lacks are left out."""
    return " · ".join(words.format(value) for words, value in told if value is not None)


def _time(length_s: float | None) -> str | None:
    return None if length_s is None else format_seconds(length_s)


def _refused(refusals: Mapping[str, int], counted_as: str = "refused") -> str:
    """Refusals by reason and, apart, duplicates, which say nothing against the files."""
    by_reason = Counter(refusals)
    duplicates = by_reason.pop(DUPLICATE, 0)
    return _figures(
        (f"{{:,}} duplicate{'' if duplicates == 1 else 's'}", duplicates or None),
        (f"{{:,}} {counted_as}: {_counted(dict(by_reason.most_common()))}", by_reason.total() or None),
    )


COUNTS = {"works": _works, "tokens": _tokens, "runs": _runs, "catalogues": _catalogues, "clips": _rendered}
"""What is told of a finished dataset, by kind."""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _last_line(found: Sequence[Found], *, models: Sequence[Models], root: Folder) -> str:
    states = Counter(each.state for each in found)
    parts = [f"{states[state]} {state}" for state in State if states[state]]
    parts += [f"{len(models)} model{'' if len(models) == 1 else 's'}"] if models else []
    return f"{', '.join(parts) or 'nothing yet'} below {root.uri}"


def _jobs(address: str | None) -> tuple[list[Job], str]:
    """Jobs of the cluster, if one is known, and why they cannot be listed."""
    if not address:
        return [], ""
    try:
        return JobServer(address).jobs(), ""
    except UserError as error:
        return [], str(error)


def _models(root: Folder, *, tracking_uri: str | None) -> tuple[list[Models], str]:
    """Registered models, and why they cannot be listed."""
    # Asking for versions would make the file, and MLflow takes two seconds to import.
    if not tracking_uri and not (root.is_local and root.exists("mlflow/mlflow.db")):
        return [], ""
    from tutti.registry.versions import PRODUCTION, Registry

    try:
        versions = Registry.embedded(root, tracking_uri=tracking_uri).versions(None)
    except UserError as error:
        return [], str(error)
    by_name: dict[str, list[Any]] = {}
    for version in versions:
        by_name.setdefault(version.name, []).append(version)
    return [
        Models(
            name=name,
            versions=tuple(version.version for version in of_name),
            production=next((version.version for version in of_name if PRODUCTION in version.aliases), None),
        )
        for name, of_name in by_name.items()
    ], ""
