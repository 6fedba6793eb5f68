"""Does a take obey its order and sound finished? Each check gives a figure, a limit and a verdict.

Goal: reject, before anything is rendered, what a listener would send back, and say why. Convention: scores as the
engine gives them; times in seconds under the tempo map from the first bar line to the end of the last note; a share is
of the take's notes or of its length. A check that the request gives no cause for (key, tempo, instruments) is not made,
nor that of the length where a take starts from a file.
What is rendered ends with the last note, so no take ends in silence; one stray note after a gap is a silence within.

Limits that are not an order's to ask for are those of real works (1,460 Lieder, 971 pieces of Mutopia, 66 of Freedoom,
drawn: 120, 160 and 40): none opens with more than a bar of silence, sounds on for more than 3 bars after the bar of its
last onset, or has more than 0.80 of its bars from before; one in a hundred Lieder and pieces of Mutopia holds a note
across more than 5 bars, one in twenty of Freedoom's across more than 12. Of 52 works of Mutopia whose titles name a
key 42 fit it best and 45 are within 0.35 of what they fit best; of their relative keys 12 are.

A take without notes fails ``notes``, and what needs a note is not made. Whether a take copies what is known is looked
at in :mod:`tutti.catalogue.copies`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.catalogue.order import Checks
from tutti.catalogue.takes import Take
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset.learnt import Named
from tutti.features import tonality
from tutti.features.events import bars_of, on_grid
from tutti.features.rhythm import BarLines
from tutti.features.vocabulary import instrument_of
from tutti.generation.piece import Candidate
from tutti.generation.request import Request
from tutti.generation.start import PLANTED
from tutti.metrics import structure
from tutti.units import pitch_name

FEWEST_BARS = 8
"""Of a piece whose repetition tells anything."""
SAME_BARS = 0.95
"""Similarity from which on a bar is one that was there before."""
PASSED, FAILED, NOT_CHECKED = "passed", "failed", "not_checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one take.

    Args:
        check: its name.
        figure: what was measured; None where nothing could be.
        limit: what the figure was held against; None where nothing could be.
        unit: of both; empty for shares and counts.
        verdict: passed, failed or not_checked.
        detail: one line for people.
    """

    check: str
    figure: float | None
    limit: float | None
    unit: str
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A take reviewed, before anything of it is on storage.

    Args:
        take: which one.
        score: its music.
        findings: of every check.
        candidates: the pieces that it was chosen from, where its request wants the best of several.
        nearest: the known work that comes nearest to being its source.
    """

    take: Take
    score: Score
    findings: tuple[Finding, ...]
    candidates: tuple[Candidate, ...] = ()
    nearest: Named | None = None


def review(score: Score, *, request: Request, refused_tokens: int, checks: Checks) -> list[Finding]:
    """All findings on one take, in a fixed order."""
    findings = [_well_formed(refused_tokens), _notes(score, checks)]
    # A file's own bars are as they are, and what is composed keeps its limits by construction.
    own = request.start is None or request.start.kind in PLANTED
    if len(score.notes):
        findings += [
            *([_length(score, request, checks)] if request.start is None else []),
            *_silence(score, checks),
            _longest_note(score, checks),
            _stuck_notes(score, checks),
            _range(score, checks),
        ]
        if own:
            findings += _course(score, checks)
        if request.key is not None and own:
            findings += [_key(score, request, checks), *_tonic(score, request, checks)]
        if request.tempo is not None and own:
            findings.append(_tempo(score, request, checks))
        if request.instruments and own:
            findings += [_instruments(score, request), _silent_instruments(score, request, checks)]
    return findings


def passes(findings: Sequence[Finding]) -> bool:
    """Whether no check failed."""
    return all(finding.verdict != FAILED for finding in findings)


def failed_checks(findings: Iterable[Finding]) -> dict[str, int]:
    """How often each check failed, by name."""
    return dict(sorted(Counter(finding.check for finding in findings if finding.verdict == FAILED).items()))


def to_json(findings: Sequence[Finding]) -> str:
    """The ``checks`` column."""
    return json.dumps([asdict(finding) for finding in findings], separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> list[Finding]:
    """Read the ``checks`` column."""
    return [Finding(**finding) for finding in json.loads(text)]


def _at_most(check: str, figure: float, limit: float, detail: str, *, unit: str = "") -> Finding:
    return Finding(check, _rounded(figure), _rounded(limit), unit, PASSED if figure <= limit else FAILED, detail)


def _at_least(check: str, figure: float, limit: float, detail: str, *, unit: str = "") -> Finding:
    return Finding(check, _rounded(figure), _rounded(limit), unit, PASSED if figure >= limit else FAILED, detail)


def _rounded(figure: float) -> float:
    return round(float(figure), 4)


def _well_formed(refused_tokens: int) -> Finding:
    detail = f"{refused_tokens} tokens could not be played" if refused_tokens else "every token could be played"
    return _at_most("well_formed", refused_tokens, 0, detail)


def _notes(score: Score, checks: Checks) -> Finding:
    return _at_least("notes", len(score.notes), checks.min_notes, f"{len(score.notes)} notes")


def _length(score: Score, request: Request, checks: Checks) -> Finding:
    asked_bars, _ = request.extent
    if asked_bars is not None:
        bars = len(bars_of(on_grid(score)).start_ticks)
        limit = max(1.0, checks.length_tolerance * asked_bars)
        return _at_most("length", abs(bars - asked_bars), limit, f"{bars} bars of {asked_bars}", unit="bars")
    # A piece ends with a bar, and its last note may end before it does: nobody can ask for less than a bar.
    bar_s = 4 * 60 / float(score.tempo_qpm[-1]) * float(score.meter_numerator[-1]) / float(score.meter_denominator[-1])
    limit = max(bar_s, checks.length_tolerance * request.length_s)
    detail = f"{score.length_s:.1f} s of {request.length_s:g} s"
    return _at_most("length", abs(score.length_s - request.length_s), limit, detail, unit="s")


def _silence(score: Score, checks: Checks) -> tuple[Finding, Finding]:
    onset_s, end_s = _spans_s(score)
    order = np.argsort(onset_s, kind="stable")
    sounded_until_s = np.concatenate(([0.0], np.maximum.accumulate(end_s[order])[:-1]))
    gaps_s = np.maximum(onset_s[order] - sounded_until_s, 0.0)
    longest_s, share = float(gaps_s.max()), float(gaps_s.sum()) / score.length_s
    where_s = float(sounded_until_s[int(gaps_s.argmax())])
    detail = f"{longest_s:.1f} s from {where_s:.1f} s on" if longest_s else "none"
    return (
        _at_most("silence", longest_s, checks.max_silence_s, detail, unit="s"),
        _at_most("silence_share", share, checks.max_silence_share, f"{share:.0%} of the length is silent"),
    )


def _longest_note(score: Score, checks: Checks) -> Finding:
    onset_s, end_s = _spans_s(score)
    longest = int((end_s - onset_s).argmax())
    length_s = float(end_s[longest] - onset_s[longest])
    detail = (
        f"{pitch_name(int(score.notes.pitch[longest]))} sounds for {length_s:.1f} s from {onset_s[longest]:.1f} s on"
    )
    return _at_most("endless_note", length_s, checks.max_note_s, detail, unit="s")


def _stuck_notes(score: Score, checks: Checks) -> Finding:
    notes = score.notes
    voice = notes.program.astype(np.int64) * 128 + notes.pitch
    order = np.lexsort((notes.onset_ticks, voice))
    onset = notes.onset_ticks[order].astype(np.int64)
    end = onset + notes.duration_ticks[order]
    again = (np.diff(voice[order]) == 0) & (np.diff(onset) > 0)
    stuck = int((again & (end[:-1] > onset[1:])).sum())
    detail = f"{stuck} of {len(notes)} notes are struck again while they sound"
    return _at_most("stuck_notes", stuck / len(notes), checks.max_stuck_share, detail)


def _range(score: Score, checks: Checks) -> Finding:
    pitch = score.notes.pitch[score.notes.program != DRUM_PROGRAM]
    outside = int(((pitch < checks.pitch_low) | (pitch > checks.pitch_high)).sum())
    allowed = f"{pitch_name(checks.pitch_low)} to {pitch_name(checks.pitch_high)}"
    played = f"{pitch_name(int(pitch.min()))} to {pitch_name(int(pitch.max()))}" if len(pitch) else "drums alone"
    return _at_most("range", outside, 0, f"{played}; {allowed} allowed")


def _key(score: Score, request: Request, checks: Checks) -> Finding:
    key = request.tonality
    assert key is not None
    notes = score.notes
    pitched = notes.program != DRUM_PROGRAM
    weight = np.where(pitched, notes.duration_ticks.astype(np.float64), 0.0)
    inside = np.isin(notes.pitch % 12, list(key.pitch_classes))
    share = float(weight[inside].sum() / weight.sum()) if weight.sum() else 0.0
    return _at_least("key", share, checks.min_in_key, f"{share:.0%} of the note time is in {key}")


def _tonic(score: Score, request: Request, checks: Checks) -> list[Finding]:
    """Whether the asked key is at home: a key shares its scale with its relative, and its tonic with none."""
    key, pitched = request.tonality, ScoreBatch.of([score]).without_drums()
    if key is None or not len(pitched.notes):
        return []
    fit = tonality.key_fit(pitched)
    asked, best = float(fit[0, tonality.KEYS.index(key)]), int(tonality.best_keys(fit)[0][0])
    other = "fits best" if tonality.KEYS[best] == key else f"{tonality.KEYS[best]} {fit[0, best]:.2f}"
    return [_at_most("tonic", float(fit[0, best]) - asked, checks.max_key_gap, f"{key} {asked:.2f}; {other}")]


def _course(score: Score, checks: Checks) -> list[Finding]:
    """How the piece goes from bar to bar: where it begins, what hangs on, what comes again."""
    notes, lines = score.notes, BarLines.of(ScoreBatch.of([score]))
    onset = notes.onset_ticks.astype(np.int64)
    end = onset + notes.duration_ticks
    first = np.zeros(len(notes), np.int64)
    bar, last_bar = lines.at(onset, first)[0], lines.at(np.maximum(end - 1, onset), first)[0]
    return [
        _opening(score, checks),
        _held(score, last_bar - bar, end, checks),
        _at_most(
            "overhang",
            int(last_bar.max() - bar.max()),
            checks.max_overhang_bars,
            f"sounds until bar {last_bar.max() + 1}, begins notes until bar {bar.max() + 1}",
            unit="bars",
        ),
        *_repetition(score, checks, bars=int(bar.max()) + 1),
    ]


def _opening(score: Score, checks: Checks) -> Finding:
    silent_s = float(score.seconds_at(score.notes.onset_ticks[:1])[0])
    bar_s = 4 * 60 / float(score.tempo_qpm[0]) * float(score.meter_numerator[0]) / float(score.meter_denominator[0])
    limit_s = max(checks.max_opening_s, bar_s)
    return _at_most("opening", silent_s, limit_s, f"begins after {silent_s:.1f} s", unit="s")


def _held(score: Score, bars: NDArray[np.int64], end: NDArray[np.int64], checks: Checks) -> Finding:
    notes = score.notes
    # Notes are in the order of their onsets.
    begun = np.searchsorted(notes.onset_ticks, end) - np.searchsorted(
        notes.onset_ticks, notes.onset_ticks, side="right"
    )
    held = np.where((begun > 0) & (notes.program != DRUM_PROGRAM), bars, 0)
    longest = int(held.argmax())
    name = pitch_name(int(notes.pitch[longest]))
    told = f"{name} sounds across {held[longest]} bar lines while {begun[longest]} notes begin"
    return _at_most(
        "held_note", int(held[longest]), checks.max_held_bars, told if held[longest] else "none", unit="bars"
    )


def _repetition(score: Score, checks: Checks, *, bars: int) -> list[Finding]:
    if not FEWEST_BARS <= bars <= structure.MAX_BARS:
        return []
    similarity_BB = structure.similarity(score, transposed=False)
    rate = structure.repetition_rate(similarity_BB, threshold=SAME_BARS)
    period = structure.period_bars(similarity_BB)
    told = f"{rate:.0%} of the bars were there before" + (f", mostly {period} bars earlier" if period and rate else "")
    return [_at_most("repetition", rate, checks.max_repetition, told)]


def _tempo(score: Score, request: Request, checks: Checks) -> Finding:
    assert request.tempo is not None
    tempo_qpm = float(score.tempo_qpm[0])
    deviation = abs(tempo_qpm - request.tempo) / request.tempo
    return _at_most("tempo", deviation, checks.tempo_tolerance, f"{tempo_qpm:g} of {request.tempo:g} quarters a minute")


def _instruments(score: Score, request: Request) -> Finding:
    families = [instrument_of(int(program)) for program in score.notes.program]
    odd = sorted(set(families) - set(request.instruments))
    outside = sum(family in odd for family in families)
    return _at_most("instruments", outside, 0, f"plays {', '.join(odd)} as well" if odd else "only what was asked")


def _silent_instruments(score: Score, request: Request, checks: Checks) -> Finding:
    playing = {instrument_of(int(program)) for program in np.unique(score.notes.program)}
    silent = [instrument for instrument in request.instruments if instrument not in playing]
    detail = f"asked for and never heard: {', '.join(silent)}" if silent else "every asked instrument plays"
    return _at_most("silent_instruments", len(silent), checks.max_silent_instruments, detail)


def _spans_s(score: Score) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Onset and end of each of N notes, seconds; each of shape (N,)."""
    onset = score.notes.onset_ticks.astype(np.int64)
    return score.seconds_at(onset), score.seconds_at(onset + score.notes.duration_ticks)
