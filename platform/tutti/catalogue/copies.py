"""Does a take copy a work that its model learnt from, or a take of an earlier catalogue?

Each gives the measure that comes nearest to its limit (:func:`tutti.metrics.originality.closest`): bits of the melody,
bits of the texture, or the share of the take's notes that one work has. What was not compared says so and why, as
``not_checked``: nobody is to take silence for a pass. A take that starts from a file holds that file's music because it
was asked to: what is nearest is named, and held to no limit.
"""

from __future__ import annotations

import numpy as np

from tutti.catalogue.known import Known, References
from tutti.catalogue.order import Checks
from tutti.catalogue.review import FAILED, NOT_CHECKED, PASSED, Finding
from tutti.corpus.score import Score
from tutti.dataset.learnt import Named
from tutti.generation.request import Request
from tutti.metrics.originality import Closeness

ORIGINALITY, EARLIER_TAKES = "originality", "earlier_takes"
_UNITS = {"melody": "bits", "texture": "bits", "share": ""}


def compared(
    score: Score, *, request: Request, checks: Checks, references: References
) -> tuple[list[Finding], Named | None]:
    """Findings on one take, and the known work that comes nearest to being its source."""
    findings, nearest = [], None
    if references.works is None:
        told = f"not compared with known works: {references.reason}"
        findings.append(Finding(ORIGINALITY, None, None, "", NOT_CHECKED, told))
    else:
        finding, nearest = _against(ORIGINALITY, references.works, score, request=request, checks=checks)
        findings.append(finding)
    if references.takes is not None:
        findings.append(_against(EARLIER_TAKES, references.takes, score, request=request, checks=checks)[0])
    return findings, nearest


def finding_of(check: str, near: Closeness, *, of: str, score: Score, held_to_limit: bool = True) -> Finding:
    """A finding on what comes nearest to a copy.

    Args:
        check: its name.
        near: what comes nearest.
        of: what people call the work that has it.
        score: the take.
        held_to_limit: whether it can fail.
    """
    verdict = (FAILED if near.is_copy else PASSED) if held_to_limit else NOT_CHECKED
    figure, limit = round(float(near.figure), 4), round(float(near.limit), 4)
    return Finding(check, figure, limit, _UNITS[near.measure], verdict, _told(near, of=of, score=score))


def _against(
    check: str, known: Known, score: Score, *, request: Request, checks: Checks
) -> tuple[Finding, Named | None]:
    found = known.closest(score, limits=checks.limits)
    if found is None:
        nothing = f"nothing that tells anything is in any of {len(known.named):,}"
        return Finding(check, 0, checks.copy_melody_bits, "bits", PASSED, nothing), None
    near, named = found
    of = f"{named.words} ({named.licence})"
    return finding_of(check, near, of=of, score=score, held_to_limit=request.start is None), named


def _told(near: Closeness, *, of: str, score: Score) -> str:
    passage = near.passage
    if passage is None:
        return f"{near.figure:.0%} of the notes are in {of}"
    begin_s = float(score.seconds_at(np.array([round(passage.begin_quarters * score.ticks_per_quarter)]))[0])
    bars = f"{passage.bars} bar{'s' if passage.bars > 1 else ''}"
    words = [f"{near.measure} of {passage.notes} notes in {bars} from {begin_s:.1f} s on as in {of}"]
    if passage.semitones:
        words.append(f"{abs(passage.semitones)} semitones {'higher' if passage.semitones > 0 else 'lower'}")
    if abs(passage.stretch - 1) > 0.01:
        words.append(f"its note values times {passage.stretch:.3g}")
    return ", ".join(words)
