"""``tutti generate``: one piece from a registered model, as files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs import starting
from tutti.errors import InputError, PlaceError
from tutti.generation.request import Request
from tutti.storage import Folder

if TYPE_CHECKING:  # it brings torch
    from tutti.models.precision import Precision

LONG_S = 120.0
"""From which length on a piece wants a form."""


def formats_of(paths: tuple[str, ...]) -> dict[str, Path]:
    """Format by format, the file that it is asked in; told by the file's suffix.

    Raises:
        InputError: a suffix that names no format.
        PlaceError: the folder of a file is not there.
    """
    from jobs.sounding import suffix_of
    from tutti.render.formats import SUFFIXES

    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    asked = {}
    for path in map(Path, paths):
        suffix = suffix_of(path)
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


def _tell_sections(request: Request) -> None:
    """Say what sections a request with a form will have, and hint at forms where a long one has none."""
    from tutti.generation.form.plan import planned

    if request.form is not None:
        plan = planned(request)
        click.echo(f"{plan.bars} bars at tempo {plan.extent.tempo_qpm:.4g}")
        for line in plan.lines():
            click.echo(line)
    elif request.start is None and request.bars is None and request.chords is None and request.length_s >= LONG_S:
        click.echo(f"{request.length_s:g} s without a form go on and never return: --form auto gives them sections")


def _pitch_range(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> str | dict[str, str] | None:
    """One range for all, or one of each instrument."""
    if not values:
        return None
    pairs = [value.partition("=") for value in values]
    if len(values) == 1 and not pairs[0][1]:
        return values[0]
    ranges = {name.strip(): text for name, sign, text in pairs if sign}
    if len(ranges) < len(values):
        raise InputError(
            f"--pitch-range {' '.join(values)} says two things of one instrument",
            remedy="give one range for all, or INSTRUMENT=RANGE once for each instrument",
        )
    return ranges


@click.command(name="generate")
@click.option("--model", help="NAME, NAME@production or NAME/VERSION; the only registered one by default.")
@click.option("--say", metavar="SENTENCE", help="What it is like, in English or Chinese; options that are given win.")
@click.option("--length", help="Length, such as 30s or 1m30s; by default 30s, with a form 3m, or that of the chords.")
@click.option("--bars", type=int, help="Length in bars instead.")
@click.option("--key", help='Tonality, such as "D minor".')
@click.option("--scale", help='Scale, such as "C major pentatonic", "A blues", "D dorian" or "C gong".')
@click.option("--chords", metavar="TEXT", help='Chord progression, such as "Cm7 F7 | Bbmaj7 | Eb | %".')
@click.option("--form", help='Sections and returns, such as "A A B A\'", auto, rondo or theme and variations.')
@click.option(
    "--pitch-range", multiple=True, callback=_pitch_range, metavar="[INSTRUMENT=]RANGE",
    help="Lowest and highest pitch, such as C3-C6 or 48-84; with an instrument: of that one, repeatable.",
)  # fmt: skip
@click.option("--polyphony", type=int, help="Most notes that sound at once; 1: a single line.")
@click.option("--tempo", type=float, help="Quarter notes a minute.")
@click.option("--meter", help="Meter, such as 3/4.")
@click.option("--instrument", "instruments", multiple=True, help="Instrument family that may play; repeatable.")
@click.option("--density", help="very_sparse, sparse, medium, dense or very_dense.")
@click.option("--mood", help="happy, tense, sad, calm or neutral.")
@click.option("--valence", type=float, help="Instead of a mood: sad -1 to happy 1.")
@click.option("--arousal", type=float, help="Instead of a mood: calm -1 to excited 1.")
@click.option("--difficulty", help="easy, medium or hard to play.")
@click.option("--collection", help="Source collection whose manner to follow.")
@click.option("--guidance", default=1.0, show_default=True, help="How strongly density, mood and collection lead.")
@click.option("--temperature", default=1.0, show_default=True, help="Sampling temperature.")
@click.option("--top-p", default=0.95, show_default=True, help="Probability mass that sampling keeps.")
@click.option("--best-of", default=1, show_default=True, help="Pieces made, of which the best by measures is kept.")
@click.option(
    "--takes", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many, with seeds of their own."
)
@click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True,
    help="Bits of the model's products; auto: bfloat16 where the processor multiplies it. Other bits, other notes.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same piece.")
@starting.options
@click.option("--between", nargs=2, metavar="FILE FILE", help="Two MIDI files: pieces from one to the other (bar_vae).")
@click.option("--steps", type=click.IntRange(min=2), default=5, show_default=True, help="Pieces of --between.")
@click.option(
    "--more",
    multiple=True,
    metavar="ATTRIBUTE=N",
    help="density, pitch or calmness of --vary FILE, or of a piece that is made first; below 0: less (bar_vae).",
)
@click.option(
    "--timbre", "timbres", multiple=True, metavar="[FAMILY=]MODEL:INSTRUMENT[:SEED]",
    help="A registered model of notes that plays a family of instruments, or all but drums; repeatable.",
)  # fmt: skip
@click.option(
    "--sound", "sound_settings", multiple=True, metavar="KEY=VALUE",
    help="As an order's sound: room=hall, equaliser=warm, fade_out_s=4, soundfont=ADDRESS; repeatable.",
)  # fmt: skip
@click.option("--stems", type=click.Path(path_type=Path), metavar="FOLDER", help="A sound for each instrument, too.")
@click.option("--out", multiple=True, default=("take.mid",), show_default=True, metavar="FILE", help="Repeatable.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
def command(
    model: str | None,
    say: str | None,
    takes: int,
    between: tuple[str, str] | None,
    steps: int,
    more: tuple[str, ...],
    timbres: tuple[str, ...],
    precision: Precision,
    sound_settings: tuple[str, ...],
    stems: Path | None,
    out: tuple[str, ...],
    root: str,
    tracking_uri: str | None,
    dry_run: bool,
    **controls: object,
) -> None:
    """Make one piece and write it by the suffix of --out: notes (.mid .musicxml .png), sound, a .waveform.png of it.
    Several --takes are drafted together and each is written as soon as it is there; Ctrl-C keeps those.

    \b
    Example:
        tutti generate --length 30s --key "D minor" --tempo 90 --out take.mid --out take.flac
        tutti generate --fill song.mid --at 5-8 --out mended.mid
        tutti generate --takes 8 --best-of 4 --chords "Cm7 F7 | Bbmaj7 | Eb" --out song.mid
        tutti generate --say "gentle piano for falling asleep, slow, no drums" --out take.mid
        tutti generate --vary a.mid --more density=1.5 --out busier.mid
        tutti generate --model bach --timbre notes@production:program-073 --out take.flac
        tutti generate --sound room=hall --sound fade_out_s=4 --stems stems/ --out take.flac
    """
    given = starting.taken(controls)
    request = _asked(controls, say)
    _check_apart(between, more, given, takes=takes * request.best_of)
    score = given.read()
    request = request if more else given.stated(request, score)
    ends = None if between is None else (starting.read(Path(between[0])), starting.read(Path(between[1])))
    from jobs import latents, sounding  # brings torch: who mistyped an option or a file does not wait for it
    from jobs import takes as several
    from tutti.generation import composers
    from tutti.registry.versions import Registry
    from tutti.render.timbres import known

    files = formats_of(out)
    sound, font = sounding.asked(sound_settings)
    amounts = latents.amounts_of(more)
    registry = Registry.embedded(Folder(root), tracking_uri=tracking_uri)
    version = registry.resolve(model or registry.only_model())
    engine = composers.load(registry.fetch(version), precision=precision)
    engine.check(request, None if more else score)
    if between or more:
        latents.engine_of(engine)
    drawn = known(timbres, registry=registry)
    _tell_sections(request)
    if dry_run:
        click.echo(f"would write {', '.join(map(str, files.values()))} by {version}")
        return
    playing = sounding.of(sound, font, drawn, stems=stems, model=str(version), facts=engine.facts)
    if ends is not None:
        pieces = latents.between(engine, ends, steps=steps, seed=request.seed)
        written = latents.write(pieces, files, title=f"{version.name}: from one to the other", sounding=playing)
        click.echo(f"{', '.join(map(str, written))}: {len(pieces)} pieces · {version}")
        return
    by = " · ".join(map(str, (version, *(timbre for timbre, _ in drawn))))
    if amounts:
        piece = latents.moved(engine, request, score, amounts, root=Folder(root))
        playing.write(piece.score, files, title=f"{version.name} · seed {request.seed}")
    else:
        asked = several.requests_of(request, takes=takes)
        piece, *_ = several.write_all(engine, asked, score, files=files, title=version.name, sounding=playing)
    click.echo(f"{', '.join(map(str, files.values()))}: {several.told_of_all(piece, takes=takes)} · {by}")


def _check_apart(between: tuple[str, str] | None, more: tuple[str, ...], given: starting.Given, *, takes: int) -> None:
    """Refuse options that say different things of one piece."""
    flags = [name for name, value in (("--between", between), ("--more", more)) if value]
    if given.flag is not None and not (more and given.kind == "vary"):
        flags.append(given.flag)
    if len(flags) > 1:
        raise InputError(f"{' and '.join(flags)} ask for different pieces", remedy="leave out one of them")
    if (between or more) and takes > 1:
        raise InputError("--between and --more make what they make once", remedy="leave out --takes and --best-of")
