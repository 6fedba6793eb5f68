"""The loss picture: what training did, beside what counting alone would have done."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 8.0, 4.5, 120


def loss_png(
    training: Sequence[tuple[int, float]],
    *,
    validation: Sequence[tuple[int, float]] = (),
    baselines: Mapping[str, float] | None = None,
    title: str = "",
) -> bytes:
    """Curves of the negative log-likelihood as a PNG of 960 x 540 dots.

    Args:
        training: (step, nats per token) of training batches; NaN leaves a gap.
        validation: (step, nats per token) of the held-out split.
        baselines: nats per token of models that only count, by name; drawn as level lines.
        title: above the picture.
    """
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="#9bb8d3", linewidth=1.0, label="training batch")
    if validation:
        axes.plot(
            *zip(*validation, strict=True), color="#1f4e79", linewidth=2.0, marker="o", markersize=4, label="validation"
        )
    for index, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color="#b3541e", linewidth=1.0, linestyle=("--", ":", "-.")[index % 3])
        axes.annotate(
            f"{name} {value:.3f}", (1.0, value), xycoords=("axes fraction", "data"), xytext=(-4, 3),
            textcoords="offset points", ha="right", fontsize=9, color="#b3541e",
        )  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.25)
    if training or validation:
        axes.legend(loc="lower left", frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
