"""What a version must show before it may be put in production, and whether it does.

The recipe states it (``gate:``), a version carries it, and promoting holds the version's facts against it. What was not
measured or not recorded does not pass: a gate that lets the unknown through is none. Which facts are read is said in
:mod:`tutti.registry.card`.

Rolling back asks nothing: the earlier version passed when it was promoted, and bringing it back must never wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from tutti.config import Settings

MODEL_NLL = "valid_nll_nats_per_token"
NOT_MEASURED, NOT_RECORDED = "not measured", "not recorded"


class Bound(Settings):
    """Within which a measure must lie."""

    at_most: float | None = Field(default=None, description="largest value that passes, in the measure's unit")
    at_least: float | None = Field(default=None, description="smallest value that passes, in the measure's unit")

    @model_validator(mode="after")
    def _asks_something(self) -> Bound:
        if self.at_most is None and self.at_least is None:
            raise ValueError("a bound names at_most, at_least or both")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError(f"nothing is at least {self.at_least:g} and at most {self.at_most:g}")
        return self


class Gate(Settings):
    """What a version must show to be promoted; an empty gate asks nothing."""

    measures: dict[str, Bound] = Field(
        default={}, description="bounds by the name of a measure, such as valid_nll_nats_per_token: {at_most: 1.6}"
    )
    beats: tuple[str, ...] = Field(
        default=(),
        description="baselines (unigram, bigram) whose NLL on the valid split, nats per token, the model's lies below",
    )
    no_worse_than_production: dict[str, float] = Field(
        default={},
        description="by the name of a measure of which less is better: how far it may lie above that of the version in "
        "production, in the measure's unit; below 0, how far it must lie below",
    )
    licences: tuple[str, ...] | None = Field(
        default=None, description="licences that the training data may have at most, SPDX or LicenseRef-…"
    )
    most_skipped_batches: int | None = Field(
        default=None, ge=0, description="most batches that training may have skipped to recover, batches"
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule of a gate, held against a version.

    Args:
        rule: what is asked, in words.
        found: what the version shows.
        holds: whether that is enough.
    """

    rule: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}"


def findings(
    gate: Gate, facts: Mapping[str, Any], *, production: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Each rule of ``gate`` with what the facts of a version say to it, in the gate's order.

    Args:
        gate: what is asked.
        facts: of the version.
        production: facts of the version in production; None where there is none.
    """
    return (
        *_bounds(gate, _section(facts, "measures")),
        *_baselines(gate, _section(facts, "measures")),
        *_against_production(gate, _section(facts, "measures"), production),
        *_licences(gate, _section(facts, "data")),
        *_skipped(gate, _section(facts, "recovery")),
    )


def judged(gate: Gate, facts: Mapping[str, Any], *, production: Mapping[str, Any] | None = None) -> tuple[Finding, ...]:
    """The findings that do not hold: empty where the version may be promoted. Arguments as :func:`findings`."""
    return tuple(finding for finding in findings(gate, facts, production=production) if not finding.holds)


def rules(gate: Gate) -> tuple[str, ...]:
    """What a gate asks, in words."""
    return tuple(finding.rule for finding in findings(gate, {}))


def _bounds(gate: Gate, measures: Mapping[str, Any]) -> Iterator[Finding]:
    for name, bound in gate.measures.items():
        value = _measure(measures, name)
        if bound.at_most is not None:
            yield Finding(
                f"{name} at most {bound.at_most:g}", _shown(value), value is not None and value <= bound.at_most
            )
        if bound.at_least is not None:
            holds = value is not None and value >= bound.at_least
            yield Finding(f"{name} at least {bound.at_least:g}", _shown(value), holds)


def _baselines(gate: Gate, measures: Mapping[str, Any]) -> Iterator[Finding]:
    model = _measure(measures, MODEL_NLL)
    for name in gate.beats:
        baseline = _measure(measures, f"{name}_nll_nats_per_token")
        yield Finding(
            f"{MODEL_NLL} below that of {name}",
            f"{_shown(model)} against {_shown(baseline)}",
            model is not None and baseline is not None and model < baseline,
        )


def _against_production(
    gate: Gate, measures: Mapping[str, Any], production: Mapping[str, Any] | None
) -> Iterator[Finding]:
    for name, room in gate.no_worse_than_production.items():
        value = _measure(measures, name)
        rule = f"{name} at most {room:g} above production's" if room >= 0 else f"{name} {-room:g} below production's"
        if production is None:
            yield Finding(rule, f"{_shown(value)}, nothing is in production", value is not None)
            continue
        present = _measure(_section(production, "measures"), name)
        # A version that was promoted before the measure existed must not shut the gate for ever.
        holds = value is not None and (present is None or value <= present + room)
        yield Finding(rule, f"{_shown(value)}, production's {_shown(present)}", holds)


def _licences(gate: Gate, data: Mapping[str, Any]) -> Iterator[Finding]:
    if gate.licences is None:
        return
    rule = f"no licence but {', '.join(gate.licences)}" if gate.licences else "no licensed data"
    present = _section(data, "licences")
    if not present:
        yield Finding(rule, NOT_RECORDED, holds=False)
        return
    others = sorted(present.keys() - set(gate.licences))
    yield Finding(rule, f"also {', '.join(others)}" if others else "no other", not others)


def _skipped(gate: Gate, recovery: Mapping[str, Any]) -> Iterator[Finding]:
    if gate.most_skipped_batches is None:
        return
    rule = f"at most {gate.most_skipped_batches} skipped batches"
    skipped = recovery.get("skipped_batches")
    if skipped is None:
        yield Finding(rule, NOT_RECORDED, holds=False)
    else:
        yield Finding(rule, f"{len(skipped)} skipped", len(skipped) <= gate.most_skipped_batches)


def _measure(measures: Mapping[str, Any], name: str) -> float | None:
    """A measure's value; None where it was not measured or is no finite number."""
    value = measures.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _section(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = facts.get(name)
    return section if isinstance(section, Mapping) else {}


def _shown(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.6g}"
