"""``tutti catalogue search``, ``similar``, ``recommend``: find takes of finished catalogues."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.catalogue.search import Hit
    from tutti.catalogue.search_index import Index


def _with_place(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is searched and how it is shown."""
    options = (
        click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results."),
        click.option(
            "--catalogue",
            "names",
            multiple=True,
            metavar="NAME",
            help="Its name or folder; without it, all below --root.",
        ),
        click.option("--rejected", is_flag=True, help="Takes that failed their checks too."),
        click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Most takes shown."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(name="search")
@click.argument("sentence", metavar="SENTENCE")
@_with_place
@click.option(
    "--tolerance", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True, metavar="SHARE",
    help="How far a tempo, length or number of bars may lie from the asked one.",
)  # fmt: skip
def search(
    sentence: str, root: str, names: tuple[str, ...], rejected: bool, limit: int, as_json: bool, tolerance: float
) -> None:
    """Find takes by a sentence, English or Chinese.

    Numbers, keys, meters, instruments, what is denied and words of titles must hold; mood and words such as slow or
    dense say what comes first. Quoted words are looked for in titles and names of orders.

    \b
    Example:
        tutti catalogue search "calm, minor, strings, 3 min"
        tutti catalogue search "钢琴，80到100拍，不要鼓" --catalogue calm-chorales
    """
    from tutti.catalogue import search as searching  # with PyArrow: --help does without

    index = _index(root, names, rejected=rejected)
    found = searching.search(index, sentence, limit=limit, tolerance=tolerance)
    query = found.query
    if as_json:
        _say_json(
            {
                "asked": [each.asked for each in query.criteria if each.asked],
                "not_understood": list(query.not_understood), "not_searched": list(query.not_searched),
                "searched": found.searched, "holding": found.holding, "takes": _plain(index, found.hits),
            }
        )  # fmt: skip
        return
    click.echo("looked for   " + " · ".join(each.asked for each in query.criteria if each.asked))
    if query.not_understood:
        click.echo("not understood: " + ", ".join(f"'{words}'" for words in query.not_understood))
    if query.not_searched:
        click.echo(f"no take can be found by: {', '.join(query.not_searched)}")
    if found.holding == 0:
        click.echo(f"none of {found.searched:,} takes has all of it; nearest:")
    _show(index, found.hits)
    if found.holding:
        click.echo(f"{found.holding:,} of {found.searched:,} takes have all that must hold; {len(found.hits)} shown")


@click.command(name="similar")
@click.argument("take", metavar="TAKE")
@_with_place
def similar(take: str, root: str, names: tuple[str, ...], rejected: bool, limit: int, as_json: bool) -> None:
    """Find the takes most like one, by mood, speed, density, range, tonality, groove and instruments.

    TAKE is a take_id, its first digits, or a title.

    \b
    Example:
        tutti catalogue similar 3f9a02c1
    """
    from tutti.catalogue import search as searching

    index = _index(root, names, rejected=rejected)
    place = index.place_of(take)
    hits = searching.similar(index, place, limit=limit)
    if as_json:
        _say_json({"like": _plain(index, [searching.Hit(place, 1.0, ())])[0], "takes": _plain(index, hits)})
        return
    click.echo(f"like         {_line(index, place)}")
    _show(index, hits)
    click.echo(f"{len(hits)} of {len(index) - 1:,} other takes shown")


@click.command(name="recommend")
@click.argument("listener", metavar="LISTENER")
@_with_place
@click.option("--new", is_flag=True, help="Only takes that nobody has heard yet.")
def recommend(
    listener: str, root: str, names: tuple[str, ...], rejected: bool, limit: int, as_json: bool, new: bool
) -> None:
    """Recommend takes that a listener has not heard, by what they and others liked and by what the takes are.

    LISTENER is a pseudonym of the feedback that `tutti feedback` keeps; one that is not there gets what all like. Wants
    the library implicit: pip install 'tutti[recommend]'.

    \b
    Example:
        tutti catalogue recommend listener-3f9a02c1 --new
    """
    from tutti.catalogue.listening import events_below
    from tutti.catalogue.recommend import Recommender

    index = _index(root, names, rejected=rejected)
    recommender = Recommender.fit(index, events_below(Folder(root)).to_pylist())
    found = recommender.recommend(listener, limit=limit, new=new)
    known = listener in recommender.listeners
    if as_json:
        takes = [
            {"score": round(each.score, 4), "reasons": each.reasons, "heard_by": each.heard_by, **index.row(each.at)}
            for each in found
        ]
        _say_json({"listener": listener, "known": known, "takes": takes})
        return
    if not known:
        click.echo(f"{listener} is not among the {len(recommender.listeners):,} listeners: this is what all like")
    for rank, each in enumerate(found, start=1):
        row = index.row(each.at)
        click.echo(f"{rank:>3}  {each.score:>+5.2f}  {_line(index, each.at)}")
        if each.reasons:
            click.echo(f"            {' · '.join(each.reasons)}")
        click.echo(f"            {row['take_id']}  {_file(row)}")
    told = f"{len(recommender.ratings):,} opinions of {len(recommender.listeners):,} listeners"
    click.echo(f"{len(found)} of {len(index):,} takes shown, by {told}")


def _index(root: str, names: Sequence[str], *, rejected: bool) -> Index:
    from tutti.catalogue.search_index import Index

    return Index.read(Folder(root), names=names, rejected=rejected)


def _show(index: Index, hits: Sequence[Hit]) -> None:
    for rank, hit in enumerate(hits, start=1):
        row = index.row(hit.at)
        click.echo(f"{rank:>3}  {hit.score:>4.0%}  {_line(index, hit.at)}")
        if hit.misses:
            click.echo(f"           misses {' · '.join(hit.misses)}")
        if hit.reasons:
            click.echo(f"           {' · '.join(hit.reasons)}")
        click.echo(f"           {row['take_id']}  {_file(row)}")


def _line(index: Index, at: int) -> str:
    from tutti.catalogue.search_fit import instruments_at
    from tutti.units import format_seconds

    row = index.row(at)
    traits = (
        row["asked_key"] or row["key"] or "no key", f"{row['tempo_qpm']:.0f} bpm", row["mood"] or "no mood",
        instruments_at(index, at), format_seconds(round(row["length_s"])),
    )  # fmt: skip
    verdict = "" if row["verdict"] == "accepted" else f" ({row['verdict']})"
    return f"{row['title']}{verdict} · {' · '.join(traits)}"


def _file(row: dict[str, Any]) -> str:
    path = f"{row['catalogue']}/{row['audio_path'] or row['midi_path']}"
    return path.removeprefix("file://")


def _plain(index: Index, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [
        {"score": round(hit.score, 4), "reasons": hit.reasons, "misses": hit.misses, **index.row(hit.at)}
        for hit in hits
    ]


def _say_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
