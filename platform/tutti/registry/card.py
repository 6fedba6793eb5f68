"""What a person should know before using a model, as Markdown.

The card says only what the bundle's facts say. What they lack is written "not measured" or "not recorded", never left
out: an empty place is information too. After Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993).

The facts that are read::

    parameters  n
    measures    {valid,test}_nll_nats_per_token  {valid,test}_bits_per_note  {unigram,bigram}_nll_nats_per_token
    data        tokens_address  works_address  works  notes  licences {SPDX: works}  splits {split: works}
    training    recipe_digest  steps  tokens  seconds  workers  strategy
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tutti.features.vocabulary import ANY, CONTROL_KINDS
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.models.bundle import Bundle

NOT_MEASURED, NOT_RECORDED = "not measured", "not recorded"
FEW_WORKS = 10_000
"""Below this many works a model is expected to know little beyond their style."""
_SPLITS = ("train", "valid", "test")


def card(bundle: Bundle) -> str:
    """The model card of ``bundle``, in Markdown."""
    facts = bundle.facts
    data, measures, training = (_section(facts, name) for name in ("data", "measures", "training"))
    parts = (
        f"# {facts.get('name', bundle.family)}: {bundle.family} {bundle.flavour}",
        _summary(bundle, data),
        "## Measures\n\n" + _measures(measures),
        "## Data\n\n" + _data(data),
        "## Licences\n\n" + _licences(data),
        "## Training\n\n" + _training(training),
        "## Controls\n\n" + _controls(bundle),
        "## Limits\n\n" + _limits(data, measures),
        "## Identity\n\n"
        + _table((("digest", f"`{bundle.digest()}`"), ("vocabulary", f"{len(bundle.vocabulary)} tokens"))),
    )
    return "\n\n".join(parts) + "\n"


def _summary(bundle: Bundle, data: Mapping[str, Any]) -> str:
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    counted = bundle.facts.get("parameters", parameters)
    works = _trained_works(data)
    trained = f"trained on {_number(works)} works" if isinstance(works, int) else "its training data not recorded"
    return (
        f"A {bundle.family} model of symbolic music, {_number(counted)} parameters, {trained}. "
        "It gives one event token after another; a sequence of tokens is a score."
    )


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
    return (
        _table(rows, head=("", "nats per token", "bits per note"))
        + "\n\nNegative log-likelihood of held-out works, mean over tokens without padding; lower is better."
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
    return _table(rows)


def _licences(data: Mapping[str, Any]) -> str:
    licences = _section(data, "licences")
    if not licences:
        return f"Licences of the data: {NOT_RECORDED}. Do not publish what this model makes before they are known."
    ordered = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return _table([(name, _number(works)) for name, works in ordered], head=("licence of the data", "works"))


def _training(training: Mapping[str, Any]) -> str:
    seconds = training.get("seconds")
    return _table(
        (
            ("recipe", _code(training.get("recipe_digest"))),
            ("steps", _number(training.get("steps"))),
            ("tokens seen", _number(training.get("tokens"))),
            ("workers", _number(training.get("workers"))),
            ("strategy", str(training.get("strategy", NOT_RECORDED))),
            ("time", NOT_RECORDED if seconds is None else format_seconds(float(seconds))),
        )
    )


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
    return _table(rows, head=("control", "values")) + "\n\nA control leans the music towards a value; it is no promise."


def _limits(data: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
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
    if model is None:
        lines.append("Not measured on held-out works: nothing is known of its quality.")
    elif bigram is not None and model >= bigram:
        lines.append("It does not beat a table of token pairs on held-out works: do not use it.")
    if measures.get("test_nll_nats_per_token") is None:
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


def _code(value: Any) -> str:
    return NOT_RECORDED if value is None else f"`{value}`"


def _table(rows: Iterable[tuple[str, ...]], *, head: tuple[str, ...] = ("", "")) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
