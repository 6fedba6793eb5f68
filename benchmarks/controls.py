"""Soft controls, asked against measured: ``python -m benchmarks.controls``.

The demo's model (or the bundle in ``--model``) makes ``--takes`` pieces under moods, densities and tempos spread evenly
over what can be asked, each way of asking (:data:`WAYS`) with the same seeds. What comes is measured as works are:
valence and arousal, notes a quarter, quarter notes a minute. ``--picture`` draws every take.

Correlations are Spearman's, of ranks, and Pearson's, of values. A mood is asked by a word; its place on an axis is
that of its quadrant's middle. Densities are compared as logarithms.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from benchmarks.guidance import ROWS, SEED, demo, measured
from benchmarks.harness import Bench, run
from tutti.config import build
from tutti.features.vocabulary import DENSITIES, MOODS
from tutti.generation.engine import Engine
from tutti.generation.request import Request

WAYS: Mapping[str, Mapping[str, Any]] = {
    "guidance 1": {"guidance": 1}, "guidance 3": {"guidance": 3}, "best of 4": {"guidance": 1, "best_of": 4},
}  # fmt: skip
"""How strongly is asked."""
BARS = 8
MIDDLE = 0.5
PLACES: Mapping[str, tuple[float, float]] = {
    "happy": (MIDDLE, MIDDLE), "tense": (-MIDDLE, MIDDLE), "sad": (-MIDDLE, -MIDDLE), "calm": (MIDDLE, -MIDDLE),
    "neutral": (0.0, 0.0),
}  # fmt: skip
"""Valence and arousal that a mood asks for."""
NOTES_A_QUARTER: Mapping[str, float] = dict(zip(DENSITIES, (0.7, 1.4, 2.8, 5.6, 11.3), strict=True))
"""Middles of the classes of density, in the mean of their limits' logarithms."""
TEMPOS_QPM = (40.0, 184.0)

Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """One axis of one control over its takes.

    Args:
        control: field of the request.
        axis: what is measured.
        asked, got: shape (takes,).
    """

    control: str
    axis: str
    asked: Figures
    got: Figures

    def correlations(self) -> tuple[float, float]:
        """Spearman's and Pearson's; 0 where everything that came is alike."""
        if np.ptp(self.got) == 0:
            return 0.0, 0.0
        return float(spearmanr(self.asked, self.got).statistic), float(pearsonr(self.asked, self.got).statistic)


def measure(bench: Bench) -> None:
    """Ask, measure, tell, draw."""
    takes, folder = int(bench.settings["takes"]), bench.arguments.model
    engine = demo()[0] if folder is None else Engine.load(Path(folder), max_batch=ROWS)
    found = {way: asked(engine, takes=takes, how=how) for way, how in WAYS.items()}
    for way, axes in found.items():
        for each in axes:
            spearman, pearson = each.correlations()
            subject = f"{each.control}, {way}"
            bench.record(subject, f"{each.axis}, Spearman", spearman, unit="correlation")
            bench.record(subject, f"{each.axis}, Pearson", pearson, unit="correlation")
            bench.name(f"{each.control}_{each.axis}_spearman, {way}".replace(", ", "_").replace(" ", "_"), spearman)
            for value in np.unique(each.asked) if each.control != "tempo" else ():
                got = each.got[each.asked == value]
                bench.record(subject, f"{each.axis} {value:.2g} asked, mean", float(got.mean()), unit=each.axis)
    bench.note(f"{takes} takes of {BARS} bars for each control and way, the same seeds for all; top_p 0.95")
    if bench.arguments.picture:
        draw(found, Path(bench.arguments.picture), title=f"{takes} takes each, {BARS} bars")


def asked(engine: Engine, *, takes: int, how: Mapping[str, Any], bars: int = BARS) -> list[Asked]:
    """Every axis of every soft control, over ``takes`` pieces each.

    Args:
        how: further fields of their requests.
    """
    moods = [MOODS[take % len(MOODS)] for take in range(takes)]
    densities = [DENSITIES[take % len(DENSITIES)] for take in range(takes)]
    tempos = np.linspace(*TEMPOS_QPM, takes).round().tolist()
    of_moods, of_densities, of_tempos = (
        engine.generate([_request(control, value, take, {**how, "bars": bars}) for take, value in enumerate(values)])
        for control, values in (("mood", moods), ("density", densities), ("tempo", tempos))
    )
    feelings, numbers = measured(of_moods), measured(of_densities)["notes_per_quarter"]
    places = np.array([PLACES[mood] for mood in moods])
    return [
        Asked("mood", "valence", places[:, 0], feelings["valence"]),
        Asked("mood", "arousal", places[:, 1], feelings["arousal"]),
        Asked("density", "notes_a_quarter", np.array([NOTES_A_QUARTER[name] for name in densities]), numbers),
        Asked("tempo", "quarters_a_minute", np.array(tempos), np.array([_tempo(piece.score) for piece in of_tempos])),
    ]


def _request(control: str, value: Any, take: int, how: Mapping[str, Any]) -> Request:
    tree = {control: value, "seed": SEED + take, **how}
    return build(Request, tree, origin="controls")


def _tempo(score: Any) -> float:
    """Mean tempo over a piece, quarter notes a minute."""
    return float(60 * score.end_ticks / score.ticks_per_quarter / score.length_s)


def draw(found: Mapping[str, Sequence[Asked]], path: Path, *, title: str) -> None:
    """A row of panels for each way of asking: every take, and the mean of each class."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(found), 4, figsize=(15, 3.6 * len(found)), layout="constrained", squeeze=False)
    for row, (way, axes) in zip(panels, found.items(), strict=True):
        for panel, each in zip(row, axes, strict=True):
            _panel(panel, each, way=way)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Any, each: Asked, *, way: str) -> None:
    logarithmic = each.control == "density"
    places = np.log2(each.asked) if logarithmic else each.asked
    got = np.log2(np.maximum(each.got, 0.25)) if logarithmic else each.got
    # Takes of one class lie beside each other, in a fixed order, so that none hides another.
    aside = (np.arange(len(places)) * 0.618 % 1 - 0.5) * (np.ptp(places) or 1.0) * 0.12
    panel.scatter(places + aside * (each.control != "tempo"), got, s=9, alpha=0.45, linewidths=0)
    if each.control != "tempo":
        classes = np.unique(places)
        panel.plot(classes, [got[places == value].mean() for value in classes], "k_-", markersize=18)
    low, high = min(places.min(), got.min()), max(places.max(), got.max())
    panel.plot([low, high], [low, high], color="0.7", linestyle="--", zorder=0)
    if logarithmic:
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(lambda value, _: f"{2**value:.2g}")
    spearman, pearson = each.correlations()
    panel.set_title(f"{each.control}, {way}\nSpearman {spearman:.2f}, Pearson {pearson:.2f}", fontsize=9)
    panel.set_xlabel(f"{each.axis.replace('_', ' ')} asked")
    panel.set_ylabel("measured")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="a bundle; by default the demo's model, trained if need be")
    parser.add_argument("--picture", metavar="FILE", help="where to draw every take")


if __name__ == "__main__":
    run("controls", measure, settings={"takes": (200, "pieces of each control and way")}, extend=_extend)
