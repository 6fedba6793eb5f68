"""The loss picture: what training did, beside what counting alone would have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tutti.training.style import COLOURS, GRID, QUIET_INK, add_axes, new_figure, to_png, words


def loss_curve_png(
    steps: Sequence[int],
    train_loss: Sequence[float],
    valid_steps: Sequence[int],
    valid_loss: Sequence[float],
    *,
    baselines: Mapping[str, float],
    title: str,
    unit: str = "nats per token",
) -> bytes:
    """Curves of what a model is judged by, as PNG bytes.

    Args:
        steps, train_loss: one value a step, of equal length; empty where training makes something else small.
        valid_steps, valid_loss: one value a validation, of equal length.
        baselines: values of other models by name, drawn as level lines.
        title: written over the picture.
        unit: of all values.
    """
    facts = f"best on held-out works: {min(valid_loss):.3f} {unit}" if len(valid_loss) else ""
    figure = new_figure(9, 4.8, title=title, facts=facts)
    axes = add_axes(figure, left_in=0.75, bottom_in=0.6, right_in=1.5, top_in=0.85)
    train_colour, valid_colour = COLOURS[0], COLOURS[1]
    axes.plot(steps, train_loss, color=train_colour, linewidth=1, alpha=0.55)
    axes.plot(valid_steps, valid_loss, color=valid_colour, linewidth=2, marker="o", markersize=4)
    for value in baselines.values():
        axes.axhline(value, color=QUIET_INK, linewidth=1, linestyle=(0, (5, 3)))
    labels = [(value, f"{name} {value:.3f}", QUIET_INK) for name, value in baselines.items()]
    for name, losses, colour in (("train", train_loss, train_colour), ("held out", valid_loss, valid_colour)):
        if len(losses):
            labels.append((float(losses[-1]), f"{name} {losses[-1]:.3f}", colour))
    low, high = _limits([*train_loss, *valid_loss, *baselines.values()])
    axes.set_ylim(low, high)
    least_gap = (high - low) / 18
    for height, (_, text, colour) in zip(
        _spread([value for value, _, _ in sorted(labels)], least_gap), sorted(labels), strict=True
    ):
        words(
            axes,
            1.015,
            (height - low) / (high - low),
            text,
            color=colour,
            size=9,
            va="center",
            transform=axes.transAxes,
        )
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("step", color=QUIET_INK, size=9)
    axes.set_ylabel(unit, color=QUIET_INK, size=9)
    return to_png(figure)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A little air around what there is."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _spread(heights: Sequence[float], least_gap: float) -> list[float]:
    """Rising heights moved apart by at least ``least_gap``, so that labels do not touch."""
    spread: list[float] = []
    for height in heights:
        spread.append(max(height, spread[-1] + least_gap) if spread else height)
    return spread
