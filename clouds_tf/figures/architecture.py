"""A drawing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clouds_tf.figures.style import COLORS, NEUTRAL, WIDTH, ink, new_figure, styled
from clouds_tf.messages import counted

_DOWN, _UP = COLORS[:2]


def _text(stage: Any) -> str:
    count = stage.convolutions
    made = f"\n{counted(count, 'convolution')}" if count else ""
    return f"{stage.name}\n{stage.height} × {stage.width} × {stage.channels}{made}"


@styled
def network(down: Sequence[Any], up: Sequence[Any], title: str) -> Any:
    """Draws a U-Net: feature maps as boxes, one row per resolution, and skips between them.

    Args:
        down: stages from the image to the deepest features, with the attributes name, convolutions
            (their number), height, width and channels; see `clouds_tf.models.unet.outline`.
        up: stages from there to the logits.
        title: title of the figure.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(1.5 * WIDTH, 1.3 * WIDTH)
    axes = figure.subplots()
    heights = sorted({stage.height for stage in [*down, *up]}, reverse=True)
    row = {height: -depth for depth, height in enumerate(heights)}
    axes.set(title=title, xlim=(-0.6, 3.6), ylim=(0.5 - len(row), 0.5))
    axes.set_axis_off()
    columns = [0] * (len(down) - 1) + [1] + [2] * (len(up) - 1) + [3]
    places = [(x, row[stage.height]) for x, stage in zip(columns, [*down, *up])]
    boxes = [
        axes.text(
            *place,
            _text(stage),
            ha="center",
            va="center",
            color="black",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.6", "facecolor": color, "edgecolor": "none"},
        )
        for place, stage, color in zip(places, [*down, *up], [_DOWN] * len(down) + [_UP] * len(up))
    ]

    def arrow(start: int, end: int, color: str) -> None:
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        style = {"arrowstyle": "-|>", "color": color, "shrinkA": 2, "shrinkB": 2, **ends}
        axes.annotate("", places[end], places[start], arrowprops=style)

    for start in range(len(boxes) - 1):
        arrow(start, start + 1, ink())
    ends = {stage.height: end for end, stage in enumerate(up[:-1], start=len(down))}
    for start, stage in enumerate(down[1:-1], start=1):
        arrow(start, ends[stage.height], NEUTRAL)
    kinds = (("encoder", _DOWN), ("decoder", _UP), ("skip", NEUTRAL))
    for name, color in kinds:
        marker, size, line = (">", 6, "-") if name == "skip" else ("s", 11, "none")
        axes.plot([], [], color=color, label=name, marker=marker, ms=size, ls=line)
    axes.plot([], [], " ", label="height × width × channels")
    axes.legend(loc="lower right", fontsize=9)
    return figure
