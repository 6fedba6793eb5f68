"""The plan of a piece with a form: its phrases, in which order they can be made, and what each starts from.

Nothing here depends on a note: request and seed give the plan. A phrase is composed after what went before it (the
first one after nothing), or it is an earlier phrase varied, or that phrase itself. Its last two bars close it, on the
tonic or open on the dominant, of the key that comes next where an earlier section returns in it; so the same phrase may
close in two ways, as in first and second endings. Most new phrases are what Caplin (1998, "Classical Form", chapter 3)
calls sentences: an idea of two bars, the idea again, and what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tutti import seeding
from tutti.generation.form.keys import CLOSE_BARS, close_of, contrast, parallel
from tutti.generation.form.layout import Extent, extent_of, phrases
from tutti.generation.form.text import SHORT, Section
from tutti.generation.leading import KEYS, led
from tutti.generation.request import Request
from tutti.units import Key

StepId = tuple[str, str]
STRENGTHS = (0.0, 0.2, 0.35, 0.45, 0.55)
"""Share of the notes that a return composes anew, by its primes; more primes as much as the most."""
VARIED_PHRASE, REPEATED_IDEA = 0.2, 0.3
"""The same of a phrase that returns within its section, and of the idea that a phrase begins with and says again."""
IDEA_BARS = 2
DEVELOPMENT = 0.5
_VARIATIONS = (0.25, 0.35, 0.45, 0.3, 0.4, 0.5, 0.35, 0.45, 0.5)
_AT_HOME = (*SHORT, "verse", "chorus", "theme")
_PEAK = 0.68
"""Where a piece is loudest, as share of it."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What a section does otherwise than others; it leads, as density does.

    Args:
        density: classes denser than the piece.
        semitones: by which its compass lies higher than that of the beginning.
        level: loudness, -1 to 1.
        instruments: families that play; empty: as asked.
    """

    density: int = 0
    semitones: int = 0
    level: float = 0.0
    instruments: tuple[str, ...] = ()


_MANNERS = {
    "intro": Manner(-1, 0, -0.5), "outro": Manner(-1, 0, -0.5), "coda": Manner(0, 0, -0.2), "chorus": Manner(1, 3, 0.4),
    "bridge": Manner(-1, -2, -0.2), "development": Manner(1, 0, 0.2),
}  # fmt: skip
_CONTRASTS = (Manner(), Manner(-1, 4, -0.3), Manner(1, -3, 0.3), Manner(0, 5, -0.1))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A stretch that is made as one.

    Args:
        name: of its music: two phrases of one name are the same but for their closes.
        section: which one it is in, from 0.
        bars: its length.
        of: name of the earlier phrase that it varies; None: it is composed.
        strength: share of its notes that is composed anew.
        key: its own; None: any.
        source_key: of the phrase that it varies.
        manner: of its section.
        close: chords of its last two bars; None: it closes without.
        close_key: that these are in.
    """

    name: str
    section: int
    bars: int
    of: str | None
    strength: float
    key: Key | None
    source_key: Key | None
    manner: Manner
    close: str | None
    close_key: Key | None


@dataclass(frozen=True, slots=True)
class Step:
    """One stretch to be made.

    Args:
        what: compose, vary, extend, close, or move, which takes no model.
        phrase: for which.
        bars: that it makes.
        needs: steps that must be over, in the order of their music.
        strength: of a variation, share of the notes that is composed anew.
    """

    what: str
    phrase: Phrase
    bars: int
    needs: tuple[StepId, ...]
    strength: float = 0.0


@dataclass(slots=True)
class Plan:
    """A piece before its first note.

    Args:
        base: controls that every step has, unless it has its own.
        extent: sections, bars, tempo and meter.
        phrases: in their order.
        music: of each phrase, the steps whose bars are its own.
        steps: each once, however often its music comes.
        bodies: by the name of a phrase, the steps of its music without its close.
    """

    base: Request
    extent: Extent
    phrases: list[Phrase] = field(default_factory=list)
    music: list[tuple[StepId, ...]] = field(default_factory=list)
    steps: dict[StepId, Step] = field(default_factory=dict)
    bodies: dict[str, tuple[StepId, ...]] = field(default_factory=dict)

    @property
    def first(self) -> tuple[StepId, ...]:
        """The steps that those of all other phrases follow."""
        return self.bodies[self.phrases[0].name]

    @property
    def bars(self) -> int:
        """Of the piece."""
        return sum(self.extent.bars)

    def lines(self) -> list[str]:
        """Its sections in words, a line each."""
        found, begun = [], 0
        for number, (section, bars) in enumerate(zip(self.extent.sections, self.extent.bars, strict=True)):
            own = [phrase for phrase in self.phrases if phrase.section == number]
            key = "" if own[0].key is None else f", {own[0].key}"
            of = own[0].of
            how = "new" if of is None else f"{of.split('.')[0]} {'again' if not own[0].strength else 'varied'}"
            name = section.name + _primes(section)
            found.append(f"{name:12} bars {begun + 1}-{begun + bars}{key}: {how}")
            begun += bars
        return found


def planned(request: Request) -> Plan:
    """The plan of a request with a form."""
    asked = led(request)
    mood_qpm = asked.tempo if request.tempo is None and request.difficulty is None else None
    extent = extent_of(asked if mood_qpm is None else request, open_qpm=mood_qpm)
    home = _home(asked)
    above, below = extent.meter
    base = asked.model_copy(
        update={
            "form": None, "length": None, "bars": None, "difficulty": None, "tempo": extent.tempo_qpm,
            "meter": f"{above}/{below}", "scale": request.scale,
            # A scale may have steps that no key has.
            "key": request.key if home is None or request.scale is not None else str(home),
        }
    )  # fmt: skip
    plan = Plan(base, extent)
    for phrase in _phrases(base, extent, home, variations=request.form == "theme and variations"):
        _add(plan, phrase)
    return plan


def _home(asked: Request) -> Key | None:
    if asked.instruments == ("drums",):
        return None
    if asked.nearest_key is not None or asked.scale is not None:
        return asked.nearest_key
    mode = "minor" if seeding.derive(asked.seed, "form", "mode") % 3 == 0 else "major"
    names = KEYS[mode]
    key = names[seeding.derive(asked.seed, "form", "key") % len(names)]
    return asked.model_copy(update={"key": key}).tonality


def _phrases(base: Request, extent: Extent, home: Key | None, *, variations: bool) -> list[Phrase]:
    sections = extent.sections
    keys = _keys(base, sections, home, variations=variations)
    known: dict[str, tuple[int, dict[str, int]]] = {}
    found: list[Phrase] = []
    for number, (section, bars) in enumerate(zip(sections, extent.bars, strict=True)):
        origin = _origin(section, number, extent, known)
        layout = phrases(extent.bars[origin] if origin is not None else bars)
        layout[-1] = (layout[-1][0], layout[-1][1] + bars - sum(each for _, each in layout))
        manner = _manner(base, sections, number, extent.bars)
        own = section.name + _primes(section)
        lengths: dict[str, int] = {}
        for place, (letter, each) in enumerate(layout):
            of, strength = _source(section, origin, letter, lengths, sections, variations=variations)
            source_key = None if of is None else keys[number if origin is None else origin]
            moves = of is not None and not strength and source_key != keys[number]
            last = place == len(layout) - 1
            key, half = keys[number], not last
            if last and number + 1 < len(sections) and keys[number + 1] != key and sections[number + 1].name in known:
                key, half = keys[number + 1], True
            found.append(
                Phrase(
                    f"{own}.{letter}{f' in {keys[number]}' if moves else ''}", number, each, of, strength, keys[number],
                    source_key, manner,
                    close_of(base, key, half=half), key,
                )
            )  # fmt: skip
            lengths.setdefault(letter, each)
        known.setdefault(section.name, (number, lengths))
    if any(phrase.close is None for phrase in found):
        # A phrase and its return must leave the same bars to their closes.
        found = [replace(phrase, close=None) for phrase in found]
    return found


def _origin(section: Section, number: int, extent: Extent, known: dict[str, tuple[int, dict[str, int]]]) -> int | None:
    """Which section this one varies."""
    if section.name in known:
        return known[section.name][0]
    if section.name != "development":
        return None
    first = next((place for place, each in enumerate(extent.sections[:number]) if each.name not in SHORT), None)
    return first if first is not None and extent.bars[first] <= extent.bars[number] else None


def _source(
    section: Section, origin: int | None, letter: str, lengths: dict[str, int],
    sections: tuple[Section, ...], *, variations: bool,
) -> tuple[str | None, float]:  # fmt: skip
    """Name of the phrase that one varies, and how much."""
    if origin is not None:
        first = sections[origin]
        name = f"{first.name}{_primes(first)}.{letter}"
        if section.name == "development":
            return name, DEVELOPMENT
        if section.primes == first.primes:
            return name, 0.0
        table = (0.0, *_VARIATIONS) if variations else STRENGTHS
        return name, table[min(section.primes or 1, len(table) - 1)]
    plain = letter.rstrip("'")
    if plain in lengths:
        varied = len(letter) - len(plain)
        return f"{section.name}{_primes(section)}.{plain}", VARIED_PHRASE * varied
    return None, 0.0


def _primes(section: Section) -> str:
    return "'" * section.primes


def _keys(base: Request, sections: tuple[Section, ...], home: Key | None, *, variations: bool) -> list[Key | None]:
    """Key of each section: a scale that was asked stays, and so does the key of verses and choruses."""
    if home is None or base.scale is not None:
        return [home] * len(sections)
    letters: dict[str, int] = {}
    for section in sections:
        if section.name not in _AT_HOME:
            letters.setdefault(section.name, len(letters))
    sonata = any(section.name == "development" for section in sections)
    keys: list[Key | None] = []
    for number, section in enumerate(sections):
        key = home if section.name in _AT_HOME else contrast(home, letters[section.name])
        if section.name in ("bridge", "development"):
            key = contrast(home, 2)
        if sonata and section.primes:
            # The second theme returns at home.
            key = home
        if variations and number and number == round(0.6 * (len(sections) - 1)):
            key = parallel(home)
        keys.append(key)
    # A piece ends where it began.
    return [*keys[:-1], home]


def _manner(base: Request, sections: tuple[Section, ...], number: int, bars: tuple[int, ...]) -> Manner:
    section = sections[number]
    letters = list(dict.fromkeys(each.name for each in sections if each.name not in _MANNERS))
    own = _MANNERS.get(section.name) or _CONTRASTS[letters.index(section.name) % len(_CONTRASTS)]
    middle = (sum(bars[:number]) + bars[number] / 2) / sum(bars)
    arc = 1 - abs(middle - _PEAK) / max(_PEAK, 1 - _PEAK)
    density = own.density + (0, 1, 0, -1)[section.primes % 4] * (len(letters) == 1)
    level = min(max(own.level + 0.8 * arc - 0.5, -1.0), 1.0)
    return Manner(density, own.semitones, level, _playing(base.instruments, section, letters))


def _playing(asked: tuple[str, ...], section: Section, letters: list[str]) -> tuple[str, ...]:
    """Of several instruments one ends a piece, and every other new section has one less than all.

    It begins with all: a small model goes on with what it hears, and who has not played yet seldom comes in.
    """
    pitched = [name for name in asked if name != "drums"]
    if section.name == "outro" and len(pitched) > 1:
        return (pitched[0],)
    if len(asked) > 2 and section.name in letters and letters.index(section.name) % 2:
        return asked[:-1] if asked[-1] != pitched[0] else asked[1:]
    return asked


def _add(plan: Plan, phrase: Phrase) -> None:
    """A phrase and the steps that its music needs."""
    same = phrase.of is not None and phrase.strength == 0 and phrase.key == phrase.source_key
    name = phrase.of if same and phrase.of is not None else phrase.name
    closing = CLOSE_BARS if phrase.close is not None else 0
    if name not in plan.bodies:
        if phrase.of is None:
            plan.bodies[name] = _composed(plan, phrase, phrase.bars - closing)
        else:
            original = plan.bodies[phrase.of]
            bars = sum(plan.steps[each].bars for each in original)
            what = "vary" if phrase.strength else "move"
            plan.steps[name, "body"] = Step(what, phrase, bars, original, phrase.strength)
            plan.bodies[name] = ((name, "body"),)
    plan.bodies[phrase.name] = plan.bodies[name]
    music = list(plan.bodies[name])
    more = phrase.bars - closing - sum(plan.steps[each].bars for each in music)
    if more > 0:
        music.append(_then(plan, music, Step("extend", phrase, more, tuple(music)), f"{more} more"))
    if phrase.close is not None:
        closed = Step("close", phrase, closing, tuple(music))
        music.append(_then(plan, music, closed, f"{phrase.close} after {more} more" if more else phrase.close))
    plan.phrases.append(phrase)
    plan.music.append(tuple(music))


def _composed(plan: Plan, phrase: Phrase, bars: int) -> tuple[StepId, ...]:
    """Steps of a new phrase; two of three that are long enough begin with an idea and its varied repeat."""
    before, name = plan.music[-1] if plan.music else (), phrase.name
    plain = seeding.derive(plan.base.seed, "form", "idea", name) % 3 == 0
    if bars < 3 * IDEA_BARS or plain:
        plan.steps[name, "body"] = Step("compose", phrase, bars, before)
        return ((name, "body"),)
    idea = IDEA_BARS if bars < 6 * IDEA_BARS else 2 * IDEA_BARS
    first, again, rest = (name, "idea"), (name, "idea again"), (name, "body")
    plan.steps[first] = Step("compose", phrase, idea, before)
    plan.steps[again] = Step("vary", phrase, idea, (first,), REPEATED_IDEA)
    plan.steps[rest] = Step("extend", phrase, bars - 2 * idea, (first, again))
    return (first, again, rest)


def _then(plan: Plan, music: list[StepId], step: Step, part: str) -> StepId:
    found: StepId = (music[0][0], part)
    plan.steps.setdefault(found, step)
    return found
