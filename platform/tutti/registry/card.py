"""What a person should know before using a model, as Markdown.

The card says only what the bundle's facts say. What they lack is written "not measured" or "not recorded", never left
out: an empty place is information too. After Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993).

The facts that are read::

    parameters  n
    measures    {valid,test}_nll_nats_per_token  {valid,test}_bits_per_note  {unigram,bigram}_nll_nats_per_token
                and any other: name to number
    data        tokens_address  works_address  works  notes  licences {SPDX: works}  splits {split: works}
                tuning {parent  parent_digest  pairs {split: pairs}  pairs_address}, where it was tuned
    training    recipe_digest  steps  tokens (of the kind of examples that ``unit`` names)  seconds  workers  strategy
    recovery    restarts  rollbacks  skipped_batches [numbers]  seconds_lost
    cost        currency  worker_hours {kind: hours}  price  tokens_per_unit
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tutti.features.vocabulary import ANY, CONTROL_KINDS
from tutti.models.families import family_of
from tutti.models.family import Family
from tutti.registry.gate import NOT_MEASURED, NOT_RECORDED, Gate, rules
from tutti.registry.markdown import table
from tutti.training.examples import KINDS
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.models.bundle import Bundle

FEW_WORKS = 10_000
"""Below this many works a model is expected to know little beyond their style."""
SKIPPED_BATCHES_SHOWN = 20
_SPLITS = ("train", "valid", "test")
_KNOWN_MEASURES = (
    *(f"{split}_{unit}" for split in ("valid", "test") for unit in ("nll_nats_per_token", "bits_per_note")),
    *(f"{baseline}_nll_nats_per_token" for baseline in ("unigram", "bigram")),
)


def card(bundle: Bundle, *, gate: Gate | None = None) -> str:
    """The model card of ``bundle``, in Markdown.

    Args:
        bundle: the model.
        gate: what it must show to be promoted; None where nothing is asked.
    """
    facts, family = bundle.facts, family_of(bundle.family)
    data, measures, training = (_section(facts, name) for name in ("data", "measures", "training"))
    parts = (
        f"# {facts.get('name', bundle.family)}: {bundle.family} {bundle.flavour}",
        _summary(bundle, data),
        "## Measures\n\n" + (_measures(measures) if family.learning == "likelihood" else _judged(measures)),
        "## Gate\n\n" + _gate(gate or Gate()),
        "## Data\n\n" + _data(data),
        "## Licences\n\n" + _licences(data),
        "## Training\n\n" + _training(training),
        *(("## Tuning\n\n" + _tuning(_section(data, "tuning"), training),) if "tuning" in data else ()),
        "## Failures\n\n" + _recovery(_section(facts, "recovery")),
        "## Cost\n\n" + _cost(_section(facts, "cost"), unit=_unit(training)),
        "## Controls\n\n" + _controls(bundle),
        "## Limits\n\n" + _limits(data, measures, family=family),
        "## Identity\n\n"
        + table(
            (
                ("digest", f"`{bundle.digest()}`"),
                ("fingerprint of the recipe", _code(training.get("recipe_digest"))),
                ("vocabulary", f"{len(bundle.vocabulary)} names" if bundle.vocabulary else "none"),
            )
        ),
    )
    return "\n\n".join(parts) + "\n"


def _summary(bundle: Bundle, data: Mapping[str, Any]) -> str:
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    counted = bundle.facts.get("parameters", parameters)
    works = _trained_works(data)
    trained = f"trained on {_number(works)} works" if isinstance(works, int) else "its training data not recorded"
    return (
        f"A {bundle.family} model of symbolic music, {_number(counted)} parameters, {trained}. "
        f"{KINDS[family_of(bundle.family).reads].makes}"
    ).rstrip()


def _measures(measures: Mapping[str, Any]) -> str:
    def nll(name: str) -> str:
        return _number(measures.get(f"{name}_nll_nats_per_token"), digits=4, absent=NOT_MEASURED)

    def bits(name: str) -> str:
        return _number(measures.get(f"{name}_bits_per_note"), digits=3, absent=NOT_MEASURED)

    rows = (
        ("this model, validation split", nll("valid"), bits("valid")),
        ("this model, test split", nll("test"), bits("test")),
        ("unigram counts, validation split", nll("unigram"), ""),
        ("bigram counts, validation split", nll("bigram"), ""),
    )
    known = (
        table(rows, head=("", "nats per token", "bits per note"))
        + "\n\nNegative log-likelihood of held-out works, mean over tokens without padding; lower is better."
    )
    others = [
        (name, _figure(measures[name], absent=NOT_MEASURED)) for name in sorted(measures.keys() - set(_KNOWN_MEASURES))
    ]
    return f"{known}\n\n{table(others, head=('other measures', ''))}" if others else known


def _judged(measures: Mapping[str, Any]) -> str:
    """Of a family that learns against a critic."""
    lead = "It has no likelihood: what it makes under the conditions of held-out examples is held against these."
    rows = [(name, _figure(measures[name], absent=NOT_MEASURED)) for name in sorted(measures)]
    return f"{lead}\n\n{table(rows)}" if rows else f"{lead} {NOT_MEASURED.capitalize()}."


def _gate(gate: Gate) -> str:
    asked = rules(gate)
    if not asked:
        return "Its recipe asks nothing of it: it may be promoted as it is."
    return "To be promoted it must show, as its recipe asked when it was registered:\n\n" + "\n".join(
        f"- {rule}" for rule in asked
    )


def _data(data: Mapping[str, Any]) -> str:
    splits = _section(data, "splits")
    rows = [
        ("works", _number(data.get("works"))),
        ("notes", _number(data.get("notes"))),
        *((f"works in {split}", _number(splits[split])) for split in sorted(splits, key=_SPLITS.index)),
        ("works address", _code(data.get("works_address"))),
        ("tokens address", _code(data.get("tokens_address"))),
    ]
    return table(rows)


def _licences(data: Mapping[str, Any]) -> str:
    licences = _section(data, "licences")
    if not licences:
        return f"Licences of the data: {NOT_RECORDED}. Do not publish what this model makes before they are known."
    ordered = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return table([(name, _number(works)) for name, works in ordered], head=("licence of the data", "works"))


def _recovery(recovery: Mapping[str, Any]) -> str:
    skipped, lost = recovery.get("skipped_batches"), recovery.get("seconds_lost")
    if isinstance(skipped, list):
        more = f", … ({len(skipped):,} in all)" if len(skipped) > SKIPPED_BATCHES_SHOWN else ""
        batches = ", ".join(str(batch) for batch in skipped[:SKIPPED_BATCHES_SHOWN]) + more or "none"
    else:
        batches = NOT_RECORDED
    return table(
        (
            ("restarts", _number(recovery.get("restarts"))),
            ("rollbacks", _number(recovery.get("rollbacks"))),
            ("skipped batches", batches),
            ("time lost", NOT_RECORDED if lost is None else format_seconds(float(lost))),
        )
    )


def _cost(cost: Mapping[str, Any], *, unit: str) -> str:
    currency = str(cost.get("currency", "unit of money"))
    hours = _section(cost, "worker_hours")
    price = cost.get("price")
    return table(
        (
            *((f"{kind} worker-hours", _figure(hours[kind])) for kind in sorted(hours)),
            *(() if hours else (("worker-hours", NOT_RECORDED),)),
            ("price", NOT_RECORDED if price is None else f"{_figure(price)} {currency}"),
            (f"{unit} per {currency}", _figure(cost.get("tokens_per_unit"))),
        )
    )


def _training(training: Mapping[str, Any]) -> str:
    seconds = training.get("seconds")
    return table(
        (
            ("recipe", _code(training.get("recipe_digest"))),
            ("steps", _number(training.get("steps"))),
            (f"{_unit(training)} seen", _number(training.get("tokens"))),
            ("workers", _number(training.get("workers"))),
            ("strategy", str(training.get("strategy", NOT_RECORDED))),
            ("time", NOT_RECORDED if seconds is None else format_seconds(float(seconds))),
        )
    )


def _tuning(tuning: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    pairs = _section(tuning, "pairs")
    preference = _section(_section(training, "recipe"), "preference")
    return "Tuned by pairs of takes of which listeners preferred one.\n\n" + table(
        (
            ("tuned from", f"{tuning.get('parent', NOT_RECORDED)} ({_code(tuning.get('parent_digest'))})"),
            *((f"pairs in {split}", _number(pairs.get(split))) for split in _SPLITS),
            ("pairs address", _code(tuning.get("pairs_address"))),
            *((name.replace("_", " "), _figure(preference[name])) for name in sorted(preference)),
        )
    )


def _unit(training: Mapping[str, Any]) -> str:
    """What a place that was learnt is called; bundles that do not say it learnt tokens."""
    return str(training.get("unit", "tokens"))


def _controls(bundle: Bundle) -> str:
    rows = []
    for kind in CONTROL_KINDS:
        values: Iterable[str]
        if kind == "Collection":
            values = bundle.collections
        else:
            prefix = f"{kind}_"
            values = [name.removeprefix(prefix) for name in bundle.vocabulary if name.startswith(prefix)]
        shown = [value for value in values if value != ANY]
        if shown:
            rows.append((kind, ", ".join(shown)))
    if not rows:
        return "None."
    return table(rows, head=("control", "values")) + "\n\nA control leans the music towards a value; it is no promise."


def _limits(data: Mapping[str, Any], measures: Mapping[str, Any], *, family: Family[Any]) -> str:
    works = _trained_works(data)
    lines = [
        "Not checked for memorised passages: compare what it makes with its data before publishing.",
        "The licences above are those of the data. Whether they bind what the model makes is not settled law.",
    ]
    if isinstance(works, int) and works < FEW_WORKS:
        lines.insert(0, f"Trained on {_number(works)} works: expect their style and little else.")
    if works is None:
        lines.insert(0, "How much it was trained on is not recorded: expect one style at most.")
    model, bigram = (measures.get(f"{name}_nll_nats_per_token") for name in ("valid", "bigram"))
    if family.learning == "likelihood":
        valid, test = model is not None, measures.get("test_nll_nats_per_token") is not None
    else:
        valid, test = (any(name.startswith(f"{split}_") for name in measures) for split in ("valid", "test"))
    if not valid:
        lines.append("Not measured on held-out works: nothing is known of its quality.")
    elif model is not None and bigram is not None and model >= bigram:
        lines.append("It does not beat a table of token pairs on held-out works: do not use it.")
    if not test:
        lines.append("The test split was not measured; the validation split was used to choose, so it flatters.")
    return "\n".join(f"- {line}" for line in lines)


def _trained_works(data: Mapping[str, Any]) -> Any:
    """Works of the train split; all where the splits are not recorded."""
    return _section(data, "splits").get("train", data.get("works"))


def _section(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = facts.get(name)
    return section if isinstance(section, Mapping) else {}


def _number(value: Any, *, digits: int = 0, absent: str = NOT_RECORDED) -> str:
    if not isinstance(value, int | float):
        return absent
    return f"{value:,.{digits}f}" if digits else f"{value:,}"


def _figure(value: Any, *, absent: str = NOT_RECORDED) -> str:
    """A number of any size in four digits or more, never rounded to nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return absent
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def _code(value: Any) -> str:
    return NOT_RECORDED if value is None else f"`{value}`"
