"""``tutti generate``: one piece from a registered model, as files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from tutti.corpus.score import Score
from tutti.errors import DataError, InputError, MissingError, PlaceError
from tutti.generation.request import Request
from tutti.storage import Folder


def formats_of(paths: tuple[str, ...]) -> dict[str, Path]:
    """Format by format, the file that it is asked in; told by the file's suffix.

    Raises:
        InputError: a suffix that names no format.
        PlaceError: the folder of a file is not there.
    """
    from tutti.render.export import SUFFIXES

    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    asked = {}
    for path in map(Path, paths):
        suffix = path.suffix.lstrip(".").lower()
        if suffix not in formats:
            raise InputError(f"{path} ends in no known format", remedy=f"end it in .{', .'.join(sorted(formats))}")
        if not path.absolute().parent.is_dir():
            raise PlaceError(f"folder {path.absolute().parent} is not there", remedy="make it, or choose another")
        asked[formats[suffix]] = path
    return asked


def _asked(controls: dict[str, Any], say: str | None) -> Request:
    """The request of the command's options, and of the sentence where they leave something open."""
    from tutti.config import build

    if say is not None:
        source, context = click.core.ParameterSource.COMMANDLINE, click.get_current_context()
        controls |= said(say, given=[name for name in controls if context.get_parameter_source(name) is source])
    return build(Request, {name: value for name, value in controls.items() if value is not None}, origin="generate")


def said(sentence: str, *, given: Collection[str]) -> dict[str, Any]:
    """Controls that a sentence adds to those which are ``given``; says what each came from.

    Raises:
        RecipeError: there is nothing to read, or it contradicts itself.
    """
    from tutti.generation.sentences.scenes import REMEDY, load, understood

    reading = understood(sentence)
    for line in reading.lines(given):
        click.echo(line)
    if reading.not_understood and load() is None:
        click.echo(f"({REMEDY}, which understand more)")
    return reading.beside(given)


@click.command(name="generate")
@click.option("--model", help="NAME, NAME@production or NAME/VERSION; the only registered one by default.")
@click.option("--say", metavar="SENTENCE", help="What it is like, in English or Chinese; options that are given win.")
@click.option("--length", help="Length, such as 30s or 1m30s; by default 30s, or that of the chords.")
@click.option("--bars", type=int, help="Length in bars instead.")
@click.option("--key", help='Tonality, such as "D minor".')
@click.option("--scale", help='Scale, such as "C major pentatonic", "A blues", "D dorian" or "C gong".')
@click.option("--chords", metavar="TEXT", help='Chord progression, such as "Cm7 F7 | Bbmaj7 | Eb | %".')
@click.option("--pitch-range", help="Lowest and highest pitch, such as C3-C6 or 48-84.")
@click.option("--polyphony", type=int, help="Most notes that sound at once; 1: a single line.")
@click.option("--tempo", type=float, help="Quarter notes a minute.")
@click.option("--meter", help="Meter, such as 3/4.")
@click.option("--instrument", "instruments", multiple=True, help="Instrument family that may play; repeatable.")
@click.option("--density", help="very_sparse, sparse, medium, dense or very_dense.")
@click.option("--mood", help="happy, tense, sad, calm or neutral.")
@click.option("--collection", help="Source collection whose manner to follow.")
@click.option("--guidance", default=1.0, show_default=True, help="How strongly density, mood and collection lead.")
@click.option("--temperature", default=1.0, show_default=True, help="Sampling temperature.")
@click.option("--top-p", default=0.95, show_default=True, help="Probability mass that sampling keeps.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same piece.")
@click.option("--continue", "material", metavar="FILE", help="MIDI file to continue; length counts from its end.")
@click.option("--between", nargs=2, metavar="FILE FILE", help="Two MIDI files: pieces from one to the other (bar_vae).")
@click.option("--steps", type=click.IntRange(min=2), default=5, show_default=True, help="Pieces of --between.")
@click.option(
    "--more",
    multiple=True,
    metavar="ATTRIBUTE=N",
    help="density, pitch or calmness, as far as N times from little to much; below 0: less (bar_vae).",
)
@click.option("--vary", metavar="FILE", help="MIDI file that --more changes; by default a piece is made first.")
@click.option(
    "--timbre", "timbres", multiple=True, metavar="[FAMILY=]MODEL:INSTRUMENT[:SEED]",
    help="A registered model of notes that plays a family of instruments, or all but drums; repeatable.",
)  # fmt: skip
@click.option("--out", multiple=True, default=("take.mid",), show_default=True, metavar="FILE", help="Repeatable.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
def command(
    model: str | None,
    say: str | None,
    material: str | None,
    between: tuple[str, str] | None,
    steps: int,
    more: tuple[str, ...],
    vary: str | None,
    timbres: tuple[str, ...],
    out: tuple[str, ...],
    root: str,
    tracking_uri: str | None,
    dry_run: bool,
    **controls: object,
) -> None:
    """Make one piece and write it as MIDI, FLAC, WAV, MP3 or a piano-roll picture, by the suffix of --out.

    \b
    Example:
        tutti generate --length 30s --key "D minor" --tempo 90 --out take.mid --out take.flac
        tutti generate --chords "Cm7 F7 | Bbmaj7 | Eb" --tempo 96 --instrument piano --out song.mid
        tutti generate --say "gentle piano for falling asleep, slow, no drums" --out take.mid
        tutti generate --between a.mid b.mid --steps 5 --out way.mid --out way.png
        tutti generate --vary a.mid --more density=1.5 --out busier.mid
        tutti generate --model bach --timbre notes@production:program-073 --out take.flac
    """
    from jobs import latents
    from tutti.generation import composers
    from tutti.models import bundle as bundles
    from tutti.registry.versions import Registry
    from tutti.render.export import SUFFIXES, finish
    from tutti.render.timbres import known, players

    request = _asked(controls, say)
    files = formats_of(out)
    _check_apart(between, more, vary, material)
    score, varied = (None if path is None else _read(Path(path)) for path in (material, vary))
    ends = None if between is None else (_read(Path(between[0])), _read(Path(between[1])))
    amounts = latents.amounts_of(more)
    registry = Registry.embedded(Folder(root), tracking_uri=tracking_uri)
    version = registry.resolve(model or registry.only_model())
    engine = composers.load(registry.fetch(version))
    engine.check(request)
    if between or more:
        latents.engine_of(engine)
    drawn = known(timbres, registry=registry)
    if dry_run:
        click.echo(f"would write {', '.join(map(str, files.values()))} by {version}")
        return
    instruments = players((timbre, bundles.load(folder)) for timbre, folder in drawn)
    if ends is not None:
        pieces = latents.between(engine, ends, steps=steps, seed=request.seed)
        title = f"{version.name}: from one to the other"
        written = latents.write(pieces, files, title=title, instruments=instruments)
        click.echo(f"{', '.join(map(str, written))}: {len(pieces)} pieces · {version}")
        return
    if amounts:
        piece = latents.moved(engine, request, varied, amounts, root=Folder(root))
    else:
        piece = engine.generate([request], materials=[score])[0]
    finished = finish(
        piece.score, formats=tuple(files), title=f"{version.name} · seed {request.seed}", instruments=instruments
    )
    for name, path in files.items():
        place = Folder(str(path.absolute().parent))
        place.write(path.name, finished.files[SUFFIXES[name]])
    notes = f"{len(piece.score.notes)} notes · {piece.score.length_s:.1f} s · seed {request.seed} · {version}"
    notes += "".join(f" · {timbre}" for timbre, _ in drawn)
    click.echo(f"{', '.join(map(str, files.values()))}: {notes}")


def _check_apart(
    between: tuple[str, str] | None, more: tuple[str, ...], vary: str | None, material: str | None
) -> None:
    """Refuse options that say different things of one piece."""
    given = [name for name, value in (("--between", between), ("--more", more), ("--continue", material)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} ask for different pieces", remedy="leave out one of them")
    if vary and not more:
        raise InputError("--vary says nothing of how", remedy="name what there should be more of by --more")


def _read(path: Path) -> Score:
    from tutti.corpus.untrusted import read_untrusted

    if not path.is_file():
        raise MissingError(f"{path} is not a file", remedy="name a MIDI file")
    data = Folder(str(path.absolute().parent)).read(path.name)
    try:
        return read_untrusted(data)
    except DataError as error:
        raise InputError(f"{path} cannot be read ({error.detail})", remedy="name a MIDI file with notes") from None
